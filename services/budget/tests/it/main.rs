//! The budget service on a real database, over real gRPC, beside a real registry.

mod world;

mod afterwards;
mod batch;
mod concurrency;
mod crash;
mod door;
mod feed;
mod ledger;
mod member_limit;
mod overrun;
mod plan;
mod property;
mod reservation;
mod reserve_draw;
mod retry;
mod sequence;
mod validate_only;
