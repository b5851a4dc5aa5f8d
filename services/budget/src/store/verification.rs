//! Verifications that go on in the background.

use super::corrupt;
use crate::{
    domain::verification::{
        Finding,
        course::{Counts, Course, Extent, Verification, VerificationStage, VerificationState},
    },
    ids::{EntryId, ProgrammeId, VerificationId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct VerificationRow {
    verification_id: Uuid,
    programme_id: Uuid,
    state: String,
    entry_count: i64,
    link_count: i64,
    verified_links: i64,
    verified_entries: i64,
    verified_reservations: i64,
    verified_limits: i64,
    chain_head: Vec<u8>,
    finding: Option<String>,
    bad_entry_id: Option<Uuid>,
    requested_by: String,
    start_time: DateTime<Utc>,
    end_time: Option<DateTime<Utc>>,
}

impl TryFrom<VerificationRow> for Verification {
    type Error = sqlx::Error;

    fn try_from(row: VerificationRow) -> Result<Self, sqlx::Error> {
        let stage = VerificationStage::parse(&row.state).ok_or_else(|| corrupt("ledger_verification.state"))?;
        let state = match (stage, row.end_time, row.finding) {
            (VerificationStage::Running, None, None) => VerificationState::Running,
            (VerificationStage::Passed, Some(end_time), None) => VerificationState::Passed { end_time },
            (VerificationStage::Cancelled, Some(end_time), None) => VerificationState::Cancelled { end_time },
            (VerificationStage::Failed, Some(end_time), Some(text)) => {
                VerificationState::Failed { end_time, finding: Finding { text, entry: row.bad_entry_id.map(EntryId) } }
            }
            _ => return Err(corrupt("ledger_verification.end_time or .finding")),
        };
        Ok(Self {
            id: VerificationId(row.verification_id),
            programme: ProgrammeId(row.programme_id),
            state,
            extent: Extent { entries: row.entry_count, links: row.link_count },
            counts: Counts {
                links: row.verified_links,
                entries: row.verified_entries,
                reservations: row.verified_reservations,
                limits: row.verified_limits,
            },
            head: row.chain_head.try_into().map_err(|_| corrupt("ledger_verification.chain_head"))?,
            requested_by: row.requested_by,
            start_time: row.start_time,
        })
    }
}

/// Keeps a new verification; false when one of the programme is running already.
pub async fn insert(conn: &mut PgConnection, new: &Verification) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        "INSERT INTO ledger_verification (verification_id, programme_id, state, entry_count, link_count, chain_head, requested_by, start_time)
         VALUES ($1, $2, 'RUNNING', $3, $4, $5, $6, $7)
         ON CONFLICT (programme_id) WHERE state = 'RUNNING' DO NOTHING",
        new.id.0,
        new.programme.0,
        new.extent.entries,
        new.extent.links,
        &new.head[..],
        new.requested_by,
        new.start_time,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The one of a programme that is running.
pub async fn running(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Option<VerificationId>, sqlx::Error> {
    let id = sqlx::query_scalar!(
        "SELECT verification_id FROM ledger_verification WHERE programme_id = $1 AND state = 'RUNNING'",
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(VerificationId))
}

pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: VerificationId,
) -> Result<Option<Verification>, sqlx::Error> {
    let row = sqlx::query_as!(
        VerificationRow,
        "SELECT verification_id, programme_id, state, entry_count, link_count, verified_links, verified_entries, verified_reservations,
                verified_limits, chain_head, finding, bad_entry_id, requested_by, start_time, end_time
         FROM ledger_verification
         WHERE verification_id = $1 AND programme_id = $2",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Verification::try_from).transpose()
}

/// A programme's verifications, the newest first, before one.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    before: Option<Uuid>,
    size: i64,
) -> Result<Vec<Verification>, sqlx::Error> {
    let rows = sqlx::query_as!(
        VerificationRow,
        "SELECT verification_id, programme_id, state, entry_count, link_count, verified_links, verified_entries, verified_reservations,
                verified_limits, chain_head, finding, bad_entry_id, requested_by, start_time, end_time
         FROM ledger_verification
         WHERE programme_id = $1 AND ($2::uuid IS NULL OR verification_id < $2)
         ORDER BY verification_id DESC
         LIMIT $3",
        programme.0,
        before,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Verification::try_from).collect()
}

/// Writes how far a running one is and where it stands now.
pub async fn keep(
    conn: &mut PgConnection,
    id: VerificationId,
    course: &Course,
    state: &VerificationState,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE ledger_verification
         SET verified_links = $2, verified_entries = $3, verified_reservations = $4, verified_limits = $5, chain_head = $6, state = $7,
             finding = $8, bad_entry_id = $9, end_time = $10
         WHERE verification_id = $1 AND state = 'RUNNING'",
        id.0,
        course.counts.links,
        course.counts.entries,
        course.counts.reservations,
        course.counts.limits,
        &course.head()[..],
        state.stage().as_str(),
        state.finding().map(|finding| finding.text.as_str()),
        state.finding().and_then(|finding| finding.entry).map(|id| id.0),
        state.end_time(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a running one as CANCELLED; false when it was not running.
pub async fn cancel(conn: &mut PgConnection, id: VerificationId, end_time: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let cancelled = sqlx::query!(
        "UPDATE ledger_verification SET state = 'CANCELLED', end_time = $2 WHERE verification_id = $1 AND state = 'RUNNING'",
        id.0,
        end_time,
    )
    .execute(conn)
    .await?;
    Ok(cancelled.rows_affected() == 1)
}
