//! Work of several steps.

pub mod apply_batch;
pub mod award_badges;
pub mod erase_member;
pub mod expire_points;
pub mod find_members;
pub mod follow_members;
pub mod merge_members;
pub mod move_points;
pub mod rank_members;
pub mod redirect;
pub mod suppress;
pub mod tell_consents;
