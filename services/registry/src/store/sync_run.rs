//! Runs of a sync, and the answers to their batches.

use super::unknown;
use crate::domain::sync_run::{Counts, Mode, Run, RunId, RunState, Settings, Unseen};
use chrono::{DateTime, Utc};
use koc_chassis::{ids::ProgrammeId, postgres::Db};
use sqlx::{PgConnection, types::Json};
use std::time::Duration;
use uuid::Uuid;

struct RunRow {
    sync_run_id: Uuid,
    programme_id: Uuid,
    source_system: String,
    run_name: String,
    mode: String,
    validate_only: bool,
    as_of: Option<DateTime<Utc>>,
    max_delete_percent: i32,
    state: String,
    committed_through: i64,
    counts: Json<Counts>,
    unidentified_rows: i64,
    source_identities: i64,
    unseen_identities: i64,
    swept_identities: i64,
    walked_to: Option<String>,
    actor: String,
    closed_by: Option<String>,
    create_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
    end_time: Option<DateTime<Utc>>,
}

impl RunRow {
    fn into_run(self) -> Result<Run, sqlx::Error> {
        Ok(Run {
            id: RunId(self.sync_run_id),
            programme: ProgrammeId(self.programme_id),
            settings: Settings {
                source_system: self.source_system,
                name: self.run_name,
                mode: Mode::from_name(&self.mode).ok_or_else(|| unknown("sync_run.mode"))?,
                validate_only: self.validate_only,
                as_of: self.as_of,
                max_delete_percent: self.max_delete_percent,
            },
            state: RunState::from_name(&self.state).ok_or_else(|| unknown("sync_run.state"))?,
            committed_through: self.committed_through,
            counts: self.counts.0,
            unseen: Unseen {
                unidentified: self.unidentified_rows,
                source: self.source_identities,
                unseen: self.unseen_identities,
                swept: self.swept_identities,
            },
            walked_to: self.walked_to,
            actor: self.actor,
            closed_by: self.closed_by,
            create_time: self.create_time,
            update_time: self.update_time,
            end_time: self.end_time,
        })
    }
}

/// Opens a run, unless there is one of this name.
pub async fn insert(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    settings: &Settings,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO sync_run (
             programme_id, sync_run_id, source_system, run_name, mode, validate_only, as_of, max_delete_percent, state,
             committed_through, counts, unidentified_rows, source_identities, unseen_identities, swept_identities, actor,
             create_time, update_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, '{}', 0, 0, 0, 0, $10, $11, $11)
         ON CONFLICT (programme_id, source_system, run_name) DO NOTHING",
        programme.0,
        RunId::new().0,
        settings.source_system,
        settings.name,
        settings.mode.name(),
        settings.validate_only,
        settings.as_of,
        settings.max_delete_percent,
        RunState::Open.name(),
        actor,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The run of a name within its source system.
pub async fn named(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    name: &str,
) -> Result<Option<Run>, sqlx::Error> {
    let row = sqlx::query_as!(
        RunRow,
        r#"SELECT sync_run_id, programme_id, source_system, run_name, mode, validate_only, as_of, max_delete_percent, state,
                  committed_through, counts AS "counts: Json<Counts>", unidentified_rows, source_identities, unseen_identities,
                  swept_identities, walked_to, actor, closed_by, create_time, update_time, end_time
           FROM sync_run
           WHERE programme_id = $1 AND source_system = $2 AND run_name = $3"#,
        programme.0,
        source_system,
        name,
    );
    row.fetch_optional(conn).await?.map(RunRow::into_run).transpose()
}

pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, id: RunId) -> Result<Option<Run>, sqlx::Error> {
    let row = sqlx::query_as!(
        RunRow,
        r#"SELECT sync_run_id, programme_id, source_system, run_name, mode, validate_only, as_of, max_delete_percent, state,
                  committed_through, counts AS "counts: Json<Counts>", unidentified_rows, source_identities, unseen_identities,
                  swept_identities, walked_to, actor, closed_by, create_time, update_time, end_time
           FROM sync_run
           WHERE programme_id = $1 AND sync_run_id = $2"#,
        programme.0,
        id.0,
    );
    row.fetch_optional(conn).await?.map(RunRow::into_run).transpose()
}

/// Locks a run's row: its batches, its retries and its sweep go one after the other.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: RunId) -> Result<Option<Run>, sqlx::Error> {
    let row = sqlx::query_as!(
        RunRow,
        r#"SELECT sync_run_id, programme_id, source_system, run_name, mode, validate_only, as_of, max_delete_percent, state,
                  committed_through, counts AS "counts: Json<Counts>", unidentified_rows, source_identities, unseen_identities,
                  swept_identities, walked_to, actor, closed_by, create_time, update_time, end_time
           FROM sync_run
           WHERE programme_id = $1 AND sync_run_id = $2
           FOR NO KEY UPDATE"#,
        programme.0,
        id.0,
    );
    row.fetch_optional(conn).await?.map(RunRow::into_run).transpose()
}

/// Runs, newest first: those before one of them, of one source system or of all.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Run>, sqlx::Error> {
    let rows = sqlx::query_as!(
        RunRow,
        r#"SELECT sync_run_id, programme_id, source_system, run_name, mode, validate_only, as_of, max_delete_percent, state,
                  committed_through, counts AS "counts: Json<Counts>", unidentified_rows, source_identities, unseen_identities,
                  swept_identities, walked_to, actor, closed_by, create_time, update_time, end_time
           FROM sync_run
           WHERE programme_id = $1 AND ($2 = '' OR source_system = $2) AND ($3::uuid IS NULL OR sync_run_id < $3)
           ORDER BY sync_run_id DESC
           LIMIT $4"#,
        programme.0,
        source_system,
        before,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(RunRow::into_run).collect()
}

/// Writes back what changed of a run that is locked.
pub async fn update(conn: &mut PgConnection, run: &Run) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sync_run
         SET state = $3, committed_through = $4, counts = $5, unidentified_rows = $6, source_identities = $7,
             unseen_identities = $8, swept_identities = $9, update_time = $10, end_time = $11, walked_to = $12,
             closed_by = $13
         WHERE programme_id = $1 AND sync_run_id = $2",
        run.programme.0,
        run.id.0,
        run.state.name(),
        run.committed_through,
        Json(&run.counts) as _,
        run.unseen.unidentified,
        run.unseen.source,
        run.unseen.unseen,
        run.unseen.swept,
        run.update_time,
        run.end_time,
        run.walked_to,
        run.closed_by,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The import that feeds a run and is not over.
pub async fn import_at_work(conn: &mut PgConnection, run: &Run) -> Result<Option<Uuid>, sqlx::Error> {
    let import = sqlx::query_scalar!(
        "SELECT import_id
         FROM member_import
         WHERE programme_id = $1 AND sync_run_id = $2 AND state IN ('RECEIVING', 'RUNNING')",
        run.programme.0,
        run.id.0,
    );
    import.fetch_optional(conn).await
}

/// A batch that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub content_hash: Vec<u8>,
    pub answer: Vec<u8>,
}

pub async fn batch(conn: &mut PgConnection, run: &Run, number: i64) -> Result<Option<Committed>, sqlx::Error> {
    sqlx::query_as!(
        Committed,
        "SELECT content_hash, answer
         FROM sync_batch
         WHERE programme_id = $1 AND sync_run_id = $2 AND batch_number = $3",
        run.programme.0,
        run.id.0,
        number,
    )
    .fetch_optional(conn)
    .await
}

pub async fn insert_batch(
    conn: &mut PgConnection,
    run: &Run,
    number: i64,
    committed: &Committed,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO sync_batch (programme_id, sync_run_id, batch_number, content_hash, answer, create_time)
         VALUES ($1, $2, $3, $4, $5, $6)",
        run.programme.0,
        run.id.0,
        number,
        committed.content_hash,
        committed.answer,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets runs lapse that nobody went on with for `left`.
pub async fn lapse(db: &Db, left: Duration) -> Result<u64, sqlx::Error> {
    let lapsed = sqlx::query!(
        "UPDATE sync_run
         SET state = $2, end_time = koc_now()
         WHERE state IN ('OPEN', 'HELD') AND update_time < koc_now() - $1::float8 * interval '1 second'",
        left.as_secs_f64(),
        RunState::Lapsed.name(),
    )
    .execute(db.pool())
    .await?;
    Ok(lapsed.rows_affected())
}

/// Removes what is no longer needed of syncs, some rows at a time: answers to batches that are older than `answers`, rejected rows older than
/// `rejected`, deletions of nobody older than `deletions`, and whom lapsed runs have seen. Says how many.
pub async fn purge(db: &Db, answers: Duration, rejected: Duration, deletions: Duration) -> Result<u64, sqlx::Error> {
    const PART: i64 = 5_000;
    let batches = sqlx::query!(
        "DELETE FROM sync_batch
         WHERE ctid = ANY (ARRAY(
             SELECT ctid
             FROM sync_batch
             WHERE create_time < koc_now() - $1::float8 * interval '1 second'
             LIMIT $2
         ))",
        answers.as_secs_f64(),
        PART,
    )
    .execute(db.pool())
    .await?;
    let rows = sqlx::query!(
        "DELETE FROM rejected_row
         WHERE ctid = ANY (ARRAY(
             SELECT ctid
             FROM rejected_row
             WHERE create_time < koc_now() - $1::float8 * interval '1 second'
             LIMIT $2
         ))",
        rejected.as_secs_f64(),
        PART,
    )
    .execute(db.pool())
    .await?;
    let deletions = sqlx::query!(
        "DELETE FROM identity_tombstone
         WHERE ctid = ANY (ARRAY(
             SELECT ctid
             FROM identity_tombstone
             WHERE source_time < koc_now() - $1::float8 * interval '1 second'
             LIMIT $2
         ))",
        deletions.as_secs_f64(),
        PART,
    )
    .execute(db.pool())
    .await?;
    let seen = sqlx::query!(
        "DELETE FROM sync_seen
         WHERE ctid = ANY (ARRAY(
             SELECT s.ctid
             FROM sync_run r
             JOIN sync_seen s ON s.programme_id = r.programme_id AND s.sync_run_id = r.sync_run_id
             WHERE r.state = 'LAPSED'
             LIMIT $1
         ))",
        PART,
    )
    .execute(db.pool())
    .await?;
    Ok(batches.rows_affected() + rows.rows_affected() + deletions.rows_affected() + seen.rows_affected())
}
