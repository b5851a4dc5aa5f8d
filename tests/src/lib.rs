//! What the tests of the whole workspace stand on.

pub mod cluster;
pub mod database;
pub mod service;
pub mod token;
pub mod wait;
