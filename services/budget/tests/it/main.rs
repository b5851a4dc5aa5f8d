//! The budget service on a real database, over real gRPC, beside a real registry.

mod catalogue;
mod granting;
mod world;

mod booking;
mod concurrency;
mod crash;
mod door;
mod feed;
mod grant;
mod ledger;
mod member_limit;
mod plan;
mod property;
mod rate_table;
mod reservation;
mod reserve_draw;
mod resource;
mod retry;
mod stock;
mod worked_example;
