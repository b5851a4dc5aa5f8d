//! The budget service on a real database, over real gRPC, beside a real registry.

mod world;

mod concurrency;
mod crash;
mod door;
mod feed;
mod lane;
mod ledger;
mod member_limit;
mod plan;
mod property;
mod reservation;
mod reserve_draw;
mod retry;
