//! The budget service on a real database, over real gRPC and HTTP, beside a real registry.

mod planner;
mod world;

mod advisor;
mod afterwards;
mod amendment;
mod batch;
mod closing;
mod concurrency;
mod crash;
mod door;
mod feed;
mod http;
mod lane;
mod ledger;
mod member_limit;
mod overrun;
mod plan;
mod plan_policy;
mod plan_property;
mod property;
mod reservation;
mod reserve_draw;
mod reserve_policy;
mod reserve_top_up;
mod retry;
mod sequence;
mod summary;
mod tree;
mod validate_only;
