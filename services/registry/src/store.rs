//! All SQL of the registry.
//!
//! **Lock order.** A transaction takes its locks in this order and never goes back:
//! 0. the row of an import of a file, then that of a sync's run;
//! 1. the programme's row (a draft of a tier policy or a trial of it, an evaluation, another owner of a field);
//! 2. external identities, in the order of source system and external id: claimed by inserting them, which waits for a
//!    transaction that has inserted the same;
//! 3. members, in the order of their ids; their identities change under these locks: whose they are, and whether a source still has them;
//! 4. what hangs on a member: its value profile, its tier proposal, readings and standing;
//! 5. accounts of points, in the order of their members' ids: first those that have none get one, then all are locked. Entries, lots,
//!    awards and places on leaderboards change under the lock of their member's account;
//! 6. erasures, one at a time; what is suppressed is inserted in the order of its hashes.
//!
//! A webhook's row is locked after its programme's and before its deliveries, and together with nothing else.

pub mod audit;
pub mod badge;
pub mod erasure;
pub mod export;
pub mod field_owner;
pub mod history;
pub mod identity;
pub mod leaderboard;
pub mod member;
pub mod member_import;
pub mod merge;
pub mod points;
pub mod programme;
pub mod rejected_row;
pub mod search;
pub mod standing;
pub mod suppression;
pub mod sweep;
pub mod sync_run;
pub mod tier;
pub mod title;
pub mod value;
pub mod webhook;

/// A stored value that the program does not know: written by a newer one, or by hand.
fn unknown(column: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the column {column} holds a value that this program does not know").into())
}
