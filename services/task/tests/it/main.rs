//! The task service on a real database, over real gRPC, with a real registry and a real budget service beside it.

mod seat;
mod world;

mod brief;
mod capacity;
mod crash;
mod deadline;
mod delivery;
mod door;
mod erasure;
mod follow;
mod life;
mod money;
mod offer;
mod task;
