//! Rate tables. A table's versions are added under its advisory lock, so that they are dense.

use super::corrupt;
use crate::{
    domain::cost::rate_table::{NewRateTable, RateTable, Row, TableKind},
    ids::ProgrammeId,
};
use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// Class of the advisory locks on rate tables, by a hash of programme and name.
const TABLE_LOCK: i32 = 0x6b62_7274;

struct TableRow {
    programme_id: Uuid,
    rate_table_id: String,
    version: i64,
    kind: String,
    valid_from: NaiveDate,
    source: String,
    rate_rows: serde_json::Value,
    set_by: String,
    create_time: DateTime<Utc>,
}

impl TryFrom<TableRow> for RateTable {
    type Error = sqlx::Error;

    fn try_from(row: TableRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.rate_table_id,
            programme: ProgrammeId(row.programme_id),
            version: row.version,
            kind: TableKind::parse(&row.kind).ok_or_else(|| corrupt("rate_table.kind"))?,
            valid_from: row.valid_from,
            source: row.source,
            rows: serde_json::from_value::<Vec<Row>>(row.rate_rows).map_err(|_| corrupt("rate_table.rate_rows"))?,
            set_by: row.set_by,
            create_time: row.create_time,
        })
    }
}

/// Keeps others from adding a version to the table until the transaction ends.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2::uuid::text || '/' || $3))")
        .bind(TABLE_LOCK)
        .bind(programme.0)
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Adds a version. Under the table's lock, in a statement after it.
pub async fn insert(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    new: &NewRateTable,
    set_by: &str,
) -> Result<RateTable, sqlx::Error> {
    let rows = serde_json::to_value(&new.rows).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let row = sqlx::query_as!(
        TableRow,
        "INSERT INTO rate_table (programme_id, rate_table_id, version, kind, valid_from, source, rate_rows, set_by, create_time)
         SELECT $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, $6, $7, koc_now()
         FROM rate_table
         WHERE programme_id = $1 AND rate_table_id = $2
         RETURNING programme_id, rate_table_id, version, kind, valid_from, source, rate_rows, set_by, create_time",
        programme.0,
        new.id,
        new.kind.as_str(),
        new.valid_from,
        new.source,
        rows,
        set_by,
    )
    .fetch_one(conn)
    .await?;
    row.try_into()
}

/// The newest version of a table.
pub async fn newest(conn: &mut PgConnection, programme: ProgrammeId, id: &str) -> Result<Option<RateTable>, sqlx::Error> {
    let row = sqlx::query_as!(
        TableRow,
        "SELECT programme_id, rate_table_id, version, kind, valid_from, source, rate_rows, set_by, create_time
         FROM rate_table
         WHERE programme_id = $1 AND rate_table_id = $2
         ORDER BY version DESC
         LIMIT 1",
        programme.0,
        id,
    )
    .fetch_optional(conn)
    .await?;
    row.map(RateTable::try_from).transpose()
}

/// A version of a table.
pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: &str,
    version: i64,
) -> Result<Option<RateTable>, sqlx::Error> {
    let row = sqlx::query_as!(
        TableRow,
        "SELECT programme_id, rate_table_id, version, kind, valid_from, source, rate_rows, set_by, create_time
         FROM rate_table
         WHERE programme_id = $1 AND rate_table_id = $2 AND version = $3",
        programme.0,
        id,
        version,
    )
    .fetch_optional(conn)
    .await?;
    row.map(RateTable::try_from).transpose()
}

/// The versions of these tables that count on a day: for each the one with the latest first day, and of two the later one.
pub async fn in_force(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    ids: &[String],
    date: NaiveDate,
) -> Result<Vec<RateTable>, sqlx::Error> {
    let rows = sqlx::query_as!(
        TableRow,
        "SELECT DISTINCT ON (rate_table_id)
                programme_id, rate_table_id, version, kind, valid_from, source, rate_rows, set_by, create_time
         FROM rate_table
         WHERE programme_id = $1 AND rate_table_id = ANY ($2) AND valid_from <= $3
         ORDER BY rate_table_id, valid_from DESC, version DESC",
        programme.0,
        ids,
        date,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(RateTable::try_from).collect()
}

/// Versions of a programme's tables by name and version, after one; only one table's.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: Option<&str>,
    after: Option<(String, i64)>,
    size: i64,
) -> Result<Vec<RateTable>, sqlx::Error> {
    let (after_id, after_version) = after.unzip();
    let rows = sqlx::query_as!(
        TableRow,
        "SELECT programme_id, rate_table_id, version, kind, valid_from, source, rate_rows, set_by, create_time
         FROM rate_table
         WHERE programme_id = $1
           AND ($2::text IS NULL OR rate_table_id = $2)
           AND ($3::text IS NULL OR (rate_table_id, version) > ($3, $4::bigint))
         ORDER BY rate_table_id, version
         LIMIT $5",
        programme.0,
        id,
        after_id,
        after_version,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(RateTable::try_from).collect()
}
