//! All SQL of the service.

pub mod decision;
pub mod member;
pub mod observation;
pub mod output;
pub mod person;
pub mod programme;
pub mod signal;

/// A stored document that this program cannot read: written by a newer one, or damaged.
fn unreadable(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
