//! The chassis on a real Postgres and over real gRPC and HTTP, carrying a service that is as small as can be.

mod mini;

mod consumer;
mod door;
mod feed;
mod gate;
mod given_up;
mod http;
mod job;
mod life;
mod members;
mod parts;
mod trace;
