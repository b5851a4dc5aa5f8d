//! The registry on a real database, over real gRPC and HTTP.

mod world;

mod convergence;
mod door;
mod feed;
mod http;
mod list;
mod member;
mod privacy;
mod programme;
mod retry;
mod stream;
mod sync;
mod tier;
mod update;
mod value_profile;
