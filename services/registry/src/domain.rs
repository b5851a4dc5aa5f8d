//! What the registry knows and by which rules: values and arithmetic, without a database or a wire.

mod name;

pub mod badge;
pub mod consent;
pub mod erasure;
pub mod export;
pub mod filter;
pub mod history;
pub mod leaderboard;
pub mod member;
pub mod member_feed;
pub mod member_import;
pub mod member_list;
pub mod merge;
pub mod ownership;
pub mod points;
pub mod presence;
pub mod profile;
pub mod programme;
pub mod search;
pub mod standing;
pub mod suppression;
pub mod sync;
pub mod sync_run;
pub mod text;
pub mod tier;
pub mod title;
pub mod value;
pub mod webhook;
