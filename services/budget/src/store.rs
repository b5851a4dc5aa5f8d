//! All SQL. Functions take the connection of the transaction that they are part of.

pub mod amendment;
pub mod booking;
pub mod envelope;
pub mod estimate;
pub mod grant;
pub mod ledger;
pub mod member;
pub mod member_limit;
pub mod memo;
pub mod operation;
pub mod person;
pub mod plan;
pub mod programme;
pub mod promotion;
pub mod rate_table;
pub mod reservation;
pub mod reserve_draw;
pub mod reserve_policy;
pub mod resource;
pub mod stock;
pub mod verification;

/// A value in the database that no version of this service writes.
fn corrupt(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds a value that is not known").into())
}
