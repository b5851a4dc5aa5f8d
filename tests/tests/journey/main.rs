//! The whole suite: four processes, one database, an outside client.

mod crash;
mod erasure;
mod follow;
mod history;
mod import;
mod page_tokens;
mod trace;
mod watch;
