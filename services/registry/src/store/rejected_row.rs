//! Rows of runs that were rejected.

use crate::domain::sync_run::{Run, RunId};
use chrono::{DateTime, Utc};
use koc_chassis::{fault::Violation, ids::ProgrammeId};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// Where a row came in: its batch, and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub batch_number: i64,
    pub row_index: i32,
}

/// A rejected row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    pub place: Place,
    /// Encoded as it came.
    pub content: Vec<u8>,
    pub violations: Vec<Violation>,
    pub create_time: DateTime<Utc>,
}

/// A violation as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    field: String,
    rule: String,
    description: String,
}

fn stored(violations: &[Violation]) -> Json<Vec<Stored>> {
    let stored = |v: &Violation| Stored { field: v.field.clone(), rule: v.rule.clone(), description: v.description.clone() };
    Json(violations.iter().map(stored).collect())
}

struct Row {
    batch_number: i64,
    row_index: i32,
    content: Vec<u8>,
    violations: Json<Vec<Stored>>,
    create_time: DateTime<Utc>,
}

impl From<Row> for RejectedRow {
    fn from(row: Row) -> Self {
        Self {
            place: Place { batch_number: row.batch_number, row_index: row.row_index },
            content: row.content,
            violations: row.violations.0.into_iter().map(|v| Violation::new(v.field, v.rule, v.description)).collect(),
            create_time: row.create_time,
        }
    }
}

/// What belongs to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfRun<T> {
    pub run: RunId,
    pub row: T,
}

/// The rows of a person in all runs: those of an identity, by how an encoded row of it begins, and those that an address or a number stands
/// in, in small letters or large. It reads all that are kept of the programme.
pub async fn of_person(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    identities: &[(String, Vec<u8>)],
    contacts: &[&str],
) -> Result<Vec<OfRun<RejectedRow>>, sqlx::Error> {
    let systems: Vec<&str> = identities.iter().map(|(system, _)| system.as_str()).collect();
    let beginnings: Vec<&[u8]> = identities.iter().map(|(_, beginning)| beginning.as_slice()).collect();
    let contacts: Vec<&[u8]> = contacts.iter().map(|contact| contact.as_bytes()).collect();
    let rows = sqlx::query!(
        r#"SELECT w.sync_run_id, w.batch_number, w.row_index, w.content, w.violations AS "violations: Json<Vec<Stored>>", w.create_time
           FROM rejected_row w
           JOIN sync_run r ON r.programme_id = w.programme_id AND r.sync_run_id = w.sync_run_id
           WHERE w.programme_id = $1
             AND (EXISTS (
                      SELECT FROM UNNEST($2::text[], $3::bytea[]) AS i (source_system, beginning)
                      WHERE r.source_system = i.source_system AND substring(w.content FROM 1 FOR length(i.beginning)) = i.beginning
                  ) OR EXISTS (
                      SELECT FROM UNNEST($4::bytea[]) AS c (contact)
                      WHERE position(lower(encode(c.contact, 'escape')) IN lower(encode(w.content, 'escape'))) > 0
                  ))
           ORDER BY w.sync_run_id, w.batch_number, w.row_index"#,
        programme.0,
        &systems as &[&str],
        &beginnings as &[&[u8]],
        &contacts as &[&[u8]],
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|found| {
            let (batch_number, row_index, content) = (found.batch_number, found.row_index, found.content);
            let row = Row { batch_number, row_index, content, violations: found.violations, create_time: found.create_time };
            OfRun { run: RunId(found.sync_run_id), row: row.into() }
        })
        .collect())
}

/// Destroys rows of any runs; says how many.
pub async fn destroy(conn: &mut PgConnection, programme: ProgrammeId, rows: &[OfRun<RejectedRow>]) -> Result<u64, sqlx::Error> {
    let runs: Vec<Uuid> = rows.iter().map(|found| found.run.0).collect();
    let batches: Vec<i64> = rows.iter().map(|found| found.row.place.batch_number).collect();
    let indexes: Vec<i32> = rows.iter().map(|found| found.row.place.row_index).collect();
    let gone = sqlx::query!(
        "DELETE FROM rejected_row AS r
         USING UNNEST($2::uuid[], $3::bigint[], $4::integer[]) AS p (sync_run_id, batch_number, row_index)
         WHERE r.programme_id = $1 AND r.sync_run_id = p.sync_run_id AND r.batch_number = p.batch_number AND r.row_index = p.row_index",
        programme.0,
        &runs,
        &batches,
        &indexes,
    );
    Ok(gone.execute(conn).await?.rows_affected())
}

/// Keeps rows, in the place of what is kept of them. The run is locked.
pub async fn put_all(conn: &mut PgConnection, run: &Run, rows: &[RejectedRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let batches: Vec<i64> = rows.iter().map(|row| row.place.batch_number).collect();
    let indexes: Vec<i32> = rows.iter().map(|row| row.place.row_index).collect();
    let contents: Vec<&[u8]> = rows.iter().map(|row| row.content.as_slice()).collect();
    let violations: Vec<Json<Vec<Stored>>> = rows.iter().map(|row| stored(&row.violations)).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.create_time).collect();
    sqlx::query!(
        "INSERT INTO rejected_row (programme_id, sync_run_id, batch_number, row_index, content, violations, create_time)
         SELECT $1, $2, r.*
         FROM UNNEST($3::bigint[], $4::integer[], $5::bytea[], $6::jsonb[], $7::timestamptz[]) AS r
         ON CONFLICT ON CONSTRAINT rejected_row_pkey DO UPDATE
         SET content = excluded.content, violations = excluded.violations",
        run.programme.0,
        run.id.0,
        &batches,
        &indexes,
        &contents as &[&[u8]],
        &violations as &[Json<Vec<Stored>>],
        &times,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The most bytes of rows that are read at once; one row is in any case.
const MOST_BYTES: i64 = 1024 * 1024;

/// Rows in the order they came, those after a place: at most `limit`, and no more than fit. Tells whether there are more.
pub async fn list(
    conn: &mut PgConnection,
    run: &Run,
    after: Option<Place>,
    limit: i64,
) -> Result<(Vec<RejectedRow>, bool), sqlx::Error> {
    let after = after.unwrap_or(Place { batch_number: 0, row_index: -1 });
    // How long a row is stands beside it: those that do not fit are not read.
    let rows = sqlx::query!(
        r#"SELECT p.batch_number, p.row_index, r.content, r.violations AS "violations: Json<Vec<Stored>>", r.create_time, p.found AS "found!"
           FROM (
               SELECT batch_number, row_index, count(*) OVER () AS found, row_number() OVER before AS nr,
                      sum(bytes) OVER before - bytes AS bytes_before
               FROM (
                   SELECT batch_number, row_index, octet_length(content) AS bytes
                   FROM rejected_row
                   WHERE programme_id = $1 AND sync_run_id = $2 AND (batch_number, row_index) > ($3, $4)
                   ORDER BY batch_number, row_index
                   LIMIT $5::bigint + 1
               ) AS next
               WINDOW before AS (ORDER BY batch_number, row_index)
           ) AS p
           JOIN rejected_row AS r
               ON r.programme_id = $1 AND r.sync_run_id = $2 AND r.batch_number = p.batch_number AND r.row_index = p.row_index
           WHERE p.nr <= $5::bigint AND p.bytes_before < $6
           ORDER BY p.batch_number, p.row_index"#,
        run.programme.0,
        run.id.0,
        after.batch_number,
        after.row_index,
        limit,
        MOST_BYTES,
    )
    .fetch_all(conn)
    .await?;
    let more = rows.first().is_some_and(|row| usize::try_from(row.found).is_ok_and(|found| found > rows.len()));
    let row = rows.into_iter().map(|row| Row {
        batch_number: row.batch_number,
        row_index: row.row_index,
        content: row.content,
        violations: row.violations,
        create_time: row.create_time,
    });
    Ok((row.map(RejectedRow::from).collect(), more))
}

/// The rows at these places; places without one are left out.
pub async fn at(conn: &mut PgConnection, run: &Run, places: &[Place]) -> Result<Vec<RejectedRow>, sqlx::Error> {
    let batches: Vec<i64> = places.iter().map(|place| place.batch_number).collect();
    let indexes: Vec<i32> = places.iter().map(|place| place.row_index).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT batch_number, row_index, content, violations AS "violations: Json<Vec<Stored>>", create_time
           FROM rejected_row
           JOIN UNNEST($3::bigint[], $4::integer[]) AS p (batch_number, row_index) USING (batch_number, row_index)
           WHERE programme_id = $1 AND sync_run_id = $2"#,
        run.programme.0,
        run.id.0,
        &batches,
        &indexes,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(RejectedRow::from).collect())
}

/// Removes rows that went in.
pub async fn remove(conn: &mut PgConnection, run: &Run, places: &[Place]) -> Result<(), sqlx::Error> {
    if places.is_empty() {
        return Ok(());
    }
    let batches: Vec<i64> = places.iter().map(|place| place.batch_number).collect();
    let indexes: Vec<i32> = places.iter().map(|place| place.row_index).collect();
    sqlx::query!(
        "DELETE FROM rejected_row AS r
         USING UNNEST($3::bigint[], $4::integer[]) AS p (batch_number, row_index)
         WHERE r.programme_id = $1 AND r.sync_run_id = $2 AND r.batch_number = p.batch_number AND r.row_index = p.row_index",
        run.programme.0,
        run.id.0,
        &batches,
        &indexes,
    )
    .execute(conn)
    .await?;
    Ok(())
}
