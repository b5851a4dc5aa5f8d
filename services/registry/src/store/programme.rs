//! Programmes.

use super::unknown;
use crate::domain::programme::{NewProgramme, Programme, parse_currency, parse_time_zone};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;
use sqlx::PgConnection;

/// Writes a programme whose active tier policy is version 1; false when there is one of this id.
pub async fn insert(
    conn: &mut PgConnection,
    id: ProgrammeId,
    new: &NewProgramme,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        "INSERT INTO programme (programme_id, display_name, currency_code, time_zone, tier_policy_version, create_time)
         VALUES ($1, $2, $3, $4, 1, $5)
         ON CONFLICT DO NOTHING",
        id.0,
        new.display_name,
        new.currency.code(),
        new.time_zone.name(),
        now,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub async fn get(conn: &mut PgConnection, id: ProgrammeId) -> Result<Option<Programme>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT display_name, currency_code, time_zone, create_time
         FROM programme
         WHERE programme_id = $1",
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Programme {
        id,
        display_name: row.display_name,
        currency: parse_currency(&row.currency_code).map_err(|_| unknown("programme.currency_code"))?,
        time_zone: parse_time_zone(&row.time_zone).map_err(|_| unknown("programme.time_zone"))?,
        create_time: row.create_time,
    }))
}

/// Locks a programme's row: what judges by its tier policy, or changes it, goes one after the other. False when there is none.
pub async fn lock(conn: &mut PgConnection, id: ProgrammeId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT programme_id
         FROM programme
         WHERE programme_id = $1
         FOR NO KEY UPDATE",
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// All programmes.
pub async fn list(conn: &mut PgConnection) -> Result<Vec<Programme>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT programme_id, display_name, currency_code, time_zone, create_time
         FROM programme
         ORDER BY programme_id",
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Programme {
                id: ProgrammeId(row.programme_id),
                display_name: row.display_name,
                currency: parse_currency(&row.currency_code).map_err(|_| unknown("programme.currency_code"))?,
                time_zone: parse_time_zone(&row.time_zone).map_err(|_| unknown("programme.time_zone"))?,
                create_time: row.create_time,
            })
        })
        .collect()
}
