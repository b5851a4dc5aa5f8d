//! The measurement service on a real database, over real gRPC, with real registry, budget and task services beside it.

mod world;

mod apply;
mod decision;
mod door;
mod erasure;
mod feed;
mod follow;
mod observation;
mod output;
mod signal;
mod value;
