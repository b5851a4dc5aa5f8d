//! The budget service on a real database, over real gRPC, beside a real registry.

mod world;

mod advisor;
mod concurrency;
mod crash;
mod door;
mod feed;
mod ledger;
mod member_limit;
mod plan;
mod property;
mod reservation;
mod reserve_draw;
mod reserve_policy;
mod reserve_top_up;
mod retry;
