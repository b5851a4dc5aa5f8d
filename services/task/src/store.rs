//! All SQL of the service. Functions take one connection; inside a transaction it is the transaction's.
//!
//! Lock order: a brief; a member before its tasks, a task before an assignment, an assignment before its jobs.

pub mod assignment;
pub mod brief;
pub mod member;
pub mod person;
pub mod submission;
pub mod task;

use koc_chassis::money::Currency;

/// A row that does not fit the domain: the constraints of the schema keep it from being written.
fn broken(what: impl Into<String>) -> sqlx::Error {
    sqlx::Error::Decode(what.into().into())
}

fn currency(code: &str) -> Result<Currency, sqlx::Error> {
    Currency::from_code(code).ok_or_else(|| broken(format!("the currency {code} is unknown")))
}
