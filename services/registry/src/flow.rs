//! Work of several steps.

pub mod apply_batch;
pub mod assign_tier;
pub mod award_badges;
pub mod complete_search;
pub mod deliver_webhooks;
pub mod erase_member;
pub mod evaluate_tiers;
pub mod expire_points;
pub mod find_members;
pub mod follow_members;
pub mod import_members;
pub mod merge_members;
pub mod move_points;
pub mod of_person;
pub mod post_webhook;
pub mod purge_syncs;
pub mod rank_members;
pub mod redirect;
pub mod retry_rejected;
pub mod seal_secret;
pub mod suppress;
pub mod sweep_unseen;
pub mod sync_run;
pub mod tell_consents;
pub mod tend_webhooks;
pub mod try_tier_policy;
