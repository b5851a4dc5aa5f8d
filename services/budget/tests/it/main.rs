//! The budget service on a real database, over real gRPC, beside a real registry.

mod world;

mod concurrency;
mod member_limit;
mod plan;
mod property;
mod reservation;
mod retry;
