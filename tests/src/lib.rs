//! What the tests of the whole workspace stand on: a shared throw-away Postgres, a database per test, services in the test's own
//! process or as four processes, tokens, what answers say, the registry's members, and a collector of spans.

pub mod answer;
pub mod cluster;
pub mod database;
pub mod erasure;
pub mod http;
pub mod ledger;
pub mod members;
pub mod otlp;
pub mod process;
pub mod service;
pub mod suite;
pub mod token;
pub mod wait;
