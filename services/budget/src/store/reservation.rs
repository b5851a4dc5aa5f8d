//! Reading reservations. They are written by [`super::operation`] alone.

use crate::{
    domain::{balances::Parts, reservation::Reservation},
    ids::{EnvelopeId, MemberId, PlanId, ProgrammeId, ReservationId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

pub(super) struct ReservationRow {
    pub reservation_id: Uuid,
    pub programme_id: Uuid,
    pub envelope_id: Uuid,
    pub member_id: Option<Uuid>,
    pub purpose: String,
    pub reserved: i64,
    pub committed: i64,
    pub spent: i64,
    pub released: i64,
    pub recoverable: i64,
    pub expire_time: DateTime<Utc>,
    pub create_time: DateTime<Utc>,
}

impl From<ReservationRow> for Reservation {
    fn from(row: ReservationRow) -> Self {
        let ReservationRow { reserved, committed, spent, released, .. } = row;
        Self {
            id: ReservationId(row.reservation_id),
            programme: ProgrammeId(row.programme_id),
            envelope: EnvelopeId(row.envelope_id),
            member: row.member_id.map(MemberId),
            purpose: row.purpose,
            parts: Parts { reserved, committed, spent, released },
            recoverable: row.recoverable,
            expire_time: row.expire_time,
            create_time: row.create_time,
        }
    }
}

/// Reservations by their ids, of any programme; those that are not there are left out.
pub async fn by_ids(conn: &mut PgConnection, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Reservation>, sqlx::Error> {
    let rows = sqlx::query_as!(
        ReservationRow,
        "SELECT reservation_id, programme_id, envelope_id, member_id, purpose, reserved, committed, spent, released, recoverable,
                expire_time, create_time
         FROM reservation
         WHERE reservation_id = ANY ($1)",
        &ids.iter().map(|id| id.0).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Reservation::from).map(|r| (r.id, r)).collect())
}

/// Reservations of a programme by id, after one; only an envelope's, only a person's.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    envelope: Option<EnvelopeId>,
    member: Option<MemberId>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Reservation>, sqlx::Error> {
    let members = super::member::ids(conn, programme, member).await?;
    let rows = sqlx::query_as!(
        ReservationRow,
        "SELECT reservation_id, programme_id, envelope_id, member_id, purpose, reserved, committed, spent, released, recoverable,
                expire_time, create_time
         FROM reservation
         WHERE programme_id = $1
           AND ($2::uuid IS NULL OR envelope_id = $2)
           AND ($3::uuid[] IS NULL OR member_id = ANY ($3))
           AND ($4::uuid IS NULL OR reservation_id > $4)
         ORDER BY reservation_id
         LIMIT $5",
        programme.0,
        envelope.map(|e| e.0),
        members.as_deref(),
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Reservation::from).collect())
}

/// A hold that is over.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    pub programme: ProgrammeId,
    pub reservation: ReservationId,
    pub expire_time: DateTime<Utc>,
}

/// Holds that are over, the longest overdue first, after one. Read without locks: whoever expires them looks again under the locks.
pub async fn due(conn: &mut PgConnection, after: Option<Due>, size: i64) -> Result<Vec<Due>, sqlx::Error> {
    // The time by a subquery: compared with a volatile function, the index would not serve.
    let rows = sqlx::query!(
        "SELECT programme_id, reservation_id, expire_time
         FROM reservation
         WHERE reserved > 0
           AND expire_time <= (SELECT koc_now())
           AND ($1::timestamptz IS NULL OR (expire_time, reservation_id) > ($1, $2::uuid))
         ORDER BY expire_time, reservation_id
         LIMIT $3",
        after.map(|due| due.expire_time),
        after.map(|due| due.reservation.0),
        size,
    )
    .fetch_all(conn)
    .await?;
    let due = rows.into_iter().map(|row| Due {
        programme: ProgrammeId(row.programme_id),
        reservation: ReservationId(row.reservation_id),
        expire_time: row.expire_time,
    });
    Ok(due.collect())
}

/// Reservations of a plan's locked envelopes that hold something, at most so many.
pub async fn open_in(conn: &mut PgConnection, plan: PlanId, size: i64) -> Result<Vec<ReservationId>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        "SELECT r.reservation_id
         FROM envelope AS e
         JOIN reservation AS r ON r.envelope_id = e.envelope_id
         WHERE e.plan_id = $1 AND e.reserved > 0 AND r.reserved > 0
         ORDER BY r.reservation_id
         LIMIT $2",
        plan.0,
        size,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(ReservationId).collect())
}

/// Makes this transaction the only one that sweeps; false when another does.
pub async fn sweep_alone(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    const SWEEP_LOCK: i64 = 0x6b6f_632e_7377_6565;
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(SWEEP_LOCK).fetch_one(conn).await
}
