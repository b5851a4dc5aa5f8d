//! All SQL. Functions take the connection of the transaction that they are part of.

pub mod ledger;
pub mod member_limit;
pub mod operation;
pub mod plan;
pub mod programme;
pub mod reservation;
pub mod reserve_draw;

use koc_chassis::{context, postgres::Db};
use sqlx::{Postgres, Transaction};

/// A transaction that reads everything as of one instant and writes nothing; it ends when the present call's deadline does.
pub async fn snapshot(db: &Db) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = db.pool().begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let left = context::time_left().as_millis().clamp(1, 60_000);
    sqlx::query("SELECT set_config('statement_timeout', $1, true)").bind(left.to_string()).execute(&mut *tx).await?;
    Ok(tx)
}

/// A value in the database that no version of this service writes.
fn corrupt(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds a value that is not known").into())
}
