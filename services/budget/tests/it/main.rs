//! The budget service on a real database, over real gRPC, beside a real registry.

mod catalogue;
mod world;

mod concurrency;
mod crash;
mod door;
mod feed;
mod ledger;
mod member_limit;
mod plan;
mod property;
mod rate_table;
mod reservation;
mod reserve_draw;
mod resource;
mod retry;
