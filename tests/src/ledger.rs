//! A large ledger, for what reads a whole one.

use sqlx::PgPool;
use uuid::Uuid;

/// Entries in each block of an envelope.
pub const BLOCK: i64 = 3_000;

/// Adds a plan to a programme of the budget, with so many envelopes of so many blocks of entries each, chained as the service would; says how many
/// entries that is. Once in a database.
pub async fn grow(admin: &PgPool, programme: Uuid, envelopes: i32, blocks: i32) -> sqlx::Result<i64> {
    let mut conn = admin.acquire().await?;
    sqlx::raw_sql(include_str!("ledger.sql")).execute(&mut *conn).await?;
    let grow = sqlx::query("SELECT pg_temp.grow_ledger($1, $2, $3)").bind(programme).bind(envelopes).bind(blocks);
    grow.execute(&mut *conn).await?;
    sqlx::query("ANALYZE").execute(&mut *conn).await?;
    Ok(i64::from(envelopes) * (1 + BLOCK * i64::from(blocks)))
}
