//! Work of several steps.

pub mod apply_batch;
pub mod award_badges;
pub mod deliver_webhooks;
pub mod expire_points;
pub mod find_members;
pub mod follow_members;
pub mod merge_members;
pub mod move_points;
pub mod post_webhook;
pub mod rank_members;
pub mod redirect;
pub mod seal_secret;
