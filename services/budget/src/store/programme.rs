//! What is remembered of the registry's programmes.

use crate::ids::ProgrammeId;
use sqlx::PgConnection;

/// The currency's code; None when the programme was not asked for yet.
pub async fn currency(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!("SELECT currency_code FROM programme WHERE programme_id = $1", programme.0).fetch_optional(conn).await
}

/// Keeps the currency, which never changes.
pub async fn remember(conn: &mut PgConnection, programme: ProgrammeId, currency: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO programme (programme_id, currency_code, record_time)
         VALUES ($1, $2, koc_now())
         ON CONFLICT DO NOTHING",
        programme.0,
        currency,
    )
    .execute(conn)
    .await?;
    Ok(())
}
