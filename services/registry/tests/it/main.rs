//! The registry on a real database, over real gRPC and HTTP.

mod honour;
mod world;

mod badge;
mod convergence;
mod door;
mod expiry;
mod feed;
mod history;
mod http;
mod leaderboard;
mod list;
mod list_plans;
mod masking;
mod member;
mod member_feed;
mod member_feed_load;
mod merge;
mod merge_property;
mod plans;
mod points;
mod points_property;
mod privacy;
mod programme;
mod retry;
mod search;
mod stream;
mod suspend;
mod sync;
mod tier;
mod title;
mod update;
mod value_profile;
mod webhook;
