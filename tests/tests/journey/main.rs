//! The whole suite: four processes, one database, an outside client.

mod crash;
mod history;
mod import;
mod trace;
mod watch;
