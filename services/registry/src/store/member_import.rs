//! Files of members on their way in.

use super::unknown;
use crate::domain::{
    member_import::{Import, ImportId, ImportState},
    sync_run::RunId,
};
use chrono::{DateTime, Utc};
use koc_chassis::{ids::ProgrammeId, postgres::Db};
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

struct ImportRow {
    import_id: Uuid,
    programme_id: Uuid,
    sync_run_id: Uuid,
    state: String,
    received_bytes: i64,
    read_bytes: i64,
    read_lines: i64,
    actor: String,
    create_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
    end_time: Option<DateTime<Utc>>,
}

impl ImportRow {
    fn into_import(self) -> Result<Import, sqlx::Error> {
        Ok(Import {
            id: ImportId(self.import_id),
            programme: ProgrammeId(self.programme_id),
            run: RunId(self.sync_run_id),
            state: ImportState::from_name(&self.state).ok_or_else(|| unknown("member_import.state"))?,
            received_bytes: self.received_bytes,
            read_bytes: self.read_bytes,
            read_lines: self.read_lines,
            actor: self.actor,
            create_time: self.create_time,
            update_time: self.update_time,
            end_time: self.end_time,
        })
    }
}

/// Writes an import; the one that its run has, when it has one.
pub async fn insert(conn: &mut PgConnection, import: &Import) -> Result<Option<ImportId>, sqlx::Error> {
    let inserted = sqlx::query!(
        "INSERT INTO member_import (
             programme_id, import_id, sync_run_id, state, received_bytes, read_bytes, read_lines, actor, create_time, update_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (programme_id, sync_run_id) DO NOTHING",
        import.programme.0,
        import.id.0,
        import.run.0,
        import.state.name(),
        import.received_bytes,
        import.read_bytes,
        import.read_lines,
        import.actor,
        import.create_time,
        import.update_time,
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(None);
    }
    let there = sqlx::query_scalar!(
        "SELECT import_id
         FROM member_import
         WHERE programme_id = $1 AND sync_run_id = $2",
        import.programme.0,
        import.run.0,
    );
    Ok(Some(ImportId(there.fetch_one(conn).await?)))
}

pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, id: ImportId) -> Result<Option<Import>, sqlx::Error> {
    let row = sqlx::query_as!(
        ImportRow,
        "SELECT import_id, programme_id, sync_run_id, state, received_bytes, read_bytes, read_lines, actor, create_time, update_time,
                end_time
         FROM member_import
         WHERE programme_id = $1 AND import_id = $2",
        programme.0,
        id.0,
    );
    row.fetch_optional(conn).await?.map(ImportRow::into_import).transpose()
}

/// Locks an import's row: before all others.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: ImportId) -> Result<Option<Import>, sqlx::Error> {
    let row = sqlx::query_as!(
        ImportRow,
        "SELECT import_id, programme_id, sync_run_id, state, received_bytes, read_bytes, read_lines, actor, create_time, update_time,
                end_time
         FROM member_import
         WHERE programme_id = $1 AND import_id = $2
         FOR NO KEY UPDATE",
        programme.0,
        id.0,
    );
    row.fetch_optional(conn).await?.map(ImportRow::into_import).transpose()
}

/// Writes back what changed of an import that is locked.
pub async fn update(conn: &mut PgConnection, import: &Import) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE member_import
         SET state = $3, received_bytes = $4, read_bytes = $5, read_lines = $6, update_time = $7, end_time = $8
         WHERE programme_id = $1 AND import_id = $2",
        import.programme.0,
        import.id.0,
        import.state.name(),
        import.received_bytes,
        import.read_bytes,
        import.read_lines,
        import.update_time,
        import.end_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn append(conn: &mut PgConnection, import: &Import, offset: i64, content: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO member_import_chunk (programme_id, import_id, chunk_offset, content)
         VALUES ($1, $2, $3, $4)",
        import.programme.0,
        import.id.0,
        offset,
        content,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The chunk that begins at this offset.
pub async fn chunk(conn: &mut PgConnection, import: &Import, offset: i64) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let content = sqlx::query_scalar!(
        "SELECT content
         FROM member_import_chunk
         WHERE programme_id = $1 AND import_id = $2 AND chunk_offset = $3",
        import.programme.0,
        import.id.0,
        offset,
    );
    content.fetch_optional(conn).await
}

/// At most `limit` bytes of the file behind what was read. `longest` is how long a chunk may be.
pub async fn read(conn: &mut PgConnection, import: &Import, limit: i32, longest: i64) -> Result<Vec<u8>, sqlx::Error> {
    let parts = sqlx::query_scalar!(
        r#"SELECT substring(
                      content FROM GREATEST($3 - chunk_offset, 0)::integer + 1
                      FOR LEAST($3 + $4::bigint - chunk_offset, $4::bigint)::integer
                  ) AS "part!"
           FROM member_import_chunk
           WHERE programme_id = $1 AND import_id = $2 AND chunk_offset > $3 - $5::bigint AND chunk_offset < $3 + $4::bigint
           ORDER BY chunk_offset"#,
        import.programme.0,
        import.id.0,
        import.read_bytes,
        i64::from(limit),
        longest,
    )
    .fetch_all(conn)
    .await?;
    Ok(parts.concat())
}

/// Removes some chunks of an import that is over; says how many.
pub async fn forget(conn: &mut PgConnection, import: &Import, limit: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        "DELETE FROM member_import_chunk
         WHERE ctid = ANY (ARRAY(
             SELECT ctid
             FROM member_import_chunk
             WHERE programme_id = $1 AND import_id = $2
             LIMIT $3
         ))",
        import.programme.0,
        import.id.0,
        limit,
    )
    .execute(conn)
    .await?;
    Ok(forgotten.rows_affected())
}

/// Imports that nobody went on with for `left`.
pub async fn abandoned(db: &Db, left: Duration) -> Result<Vec<(ProgrammeId, ImportId)>, sqlx::Error> {
    let mut conn = db.read().await?;
    let rows = sqlx::query!(
        "SELECT programme_id, import_id
         FROM member_import
         WHERE state = 'RECEIVING' AND update_time < koc_now() - $1::float8 * interval '1 second'
         LIMIT 100",
        left.as_secs_f64(),
    )
    .fetch_all(&mut *conn)
    .await?;
    Ok(rows.into_iter().map(|row| (ProgrammeId(row.programme_id), ImportId(row.import_id))).collect())
}
