//! Draws on the strategic reserve.

use super::corrupt;
use crate::{
    domain::{
        balances::Parts,
        reservation::wholly_spent,
        reserve_draw::{COOL_DOWN, Decided, Draw, DrawKind, DrawStage, DrawState, Evidence},
    },
    ids::{EnvelopeId, MemberId, OutputId, PlanId, ProgrammeId, ReservationId, ReserveDrawId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// Class of the advisory locks on outputs, which keep two draws for one output from missing each other.
const OUTPUT_LOCK: i32 = 0x6b62_6f70;

struct DrawRow {
    reserve_draw_id: Uuid,
    programme_id: Uuid,
    plan_id: Uuid,
    envelope_id: Uuid,
    kind: String,
    state: String,
    amount: i64,
    member_id: Option<Uuid>,
    output_id: Option<Uuid>,
    evidence: serde_json::Value,
    decide_by_time: DateTime<Utc>,
    requested_by: String,
    decided_by: Option<String>,
    decision_reason: Option<String>,
    reservation_id: Option<Uuid>,
    create_time: DateTime<Utc>,
    // Of the reservation; NULL without one.
    reserved: Option<i64>,
    committed: Option<i64>,
    spent: Option<i64>,
    released: Option<i64>,
    recoverable: Option<i64>,
}

impl TryFrom<DrawRow> for Draw {
    type Error = sqlx::Error;

    fn try_from(row: DrawRow) -> Result<Self, sqlx::Error> {
        let decided = row.decided_by.zip(row.decision_reason).map(|(by, reason)| Decided { by, reason });
        let state = match (DrawStage::parse(&row.state), decided, row.reservation_id) {
            (Some(DrawStage::Requested), None, None) => DrawState::Requested,
            (Some(DrawStage::Approved), Some(decided), Some(id)) => {
                DrawState::Approved { reservation: ReservationId(id), decided }
            }
            (Some(DrawStage::Rejected), Some(decided), None) => DrawState::Rejected { decided },
            (Some(DrawStage::Lapsed), Some(decided), None) => DrawState::Lapsed { decided },
            _ => return Err(corrupt("reserve_draw.state")),
        };
        let parts = match (row.reserved, row.committed, row.spent, row.released) {
            (Some(reserved), Some(committed), Some(spent), Some(released)) => Parts { reserved, committed, spent, released },
            _ => Parts::default(),
        };
        Ok(Self {
            id: ReserveDrawId(row.reserve_draw_id),
            programme: ProgrammeId(row.programme_id),
            plan: PlanId(row.plan_id),
            envelope: EnvelopeId(row.envelope_id),
            kind: DrawKind::parse(&row.kind).ok_or_else(|| corrupt("reserve_draw.kind"))?,
            state,
            amount: row.amount,
            member: row.member_id.map(MemberId),
            output: row.output_id.map(OutputId),
            evidence: serde_json::from_value::<Vec<Evidence>>(row.evidence).map_err(|_| corrupt("reserve_draw.evidence"))?,
            decide_by_time: row.decide_by_time,
            requested_by: row.requested_by,
            create_time: row.create_time,
            wholly_spent: wholly_spent(&parts, row.recoverable.unwrap_or(0)),
        })
    }
}

/// Keeps other requests for the output out until the transaction ends.
pub async fn lock_output(conn: &mut PgConnection, output: OutputId) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2::uuid::text))")
        .bind(OUTPUT_LOCK)
        .bind(output.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// When the last draw for the output was requested that stands or may still, if that is within the cool-down before `now`. Under the
/// output's lock.
pub async fn cooling_since(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    output: OutputId,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT max(create_time) FROM reserve_draw
         WHERE programme_id = $1 AND output_id = $2 AND create_time > $3
           AND (state = 'APPROVED' OR (state = 'REQUESTED' AND decide_by_time > $4))",
        programme.0,
        output.0,
        now - COOL_DOWN,
        now,
    )
    .fetch_one(conn)
    .await
}

/// Keeps a new draw.
pub async fn insert(conn: &mut PgConnection, draw: &Draw) -> Result<(), sqlx::Error> {
    let evidence = serde_json::to_value(&draw.evidence).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query!(
        "INSERT INTO reserve_draw (reserve_draw_id, programme_id, plan_id, envelope_id, kind, state, amount, member_id, output_id, evidence,
                                   decide_by_time, requested_by, decided_by, decision_reason, reservation_id, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        draw.id.0,
        draw.programme.0,
        draw.plan.0,
        draw.envelope.0,
        draw.kind.as_str(),
        draw.stage().as_str(),
        draw.amount,
        draw.member.map(|m| m.0),
        draw.output.map(|o| o.0),
        evidence,
        draw.decide_by_time,
        draw.requested_by,
        draw.decided().map(|d| d.by.as_str()),
        draw.decided().map(|d| d.reason.as_str()),
        draw.reservation().map(|r| r.0),
        draw.create_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves a locked draw to a new state.
pub async fn set_state(conn: &mut PgConnection, draw: &mut Draw, state: DrawState) -> Result<(), sqlx::Error> {
    draw.state = state;
    sqlx::query!(
        "UPDATE reserve_draw SET state = $2, decided_by = $3, decision_reason = $4, reservation_id = $5
         WHERE reserve_draw_id = $1",
        draw.id.0,
        draw.stage().as_str(),
        draw.decided().map(|d| d.by.as_str()),
        draw.decided().map(|d| d.reason.as_str()),
        draw.reservation().map(|r| r.0),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks a draw against other decisions; whether there is one.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: ReserveDrawId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query_scalar!(
        "SELECT 1 FROM reserve_draw WHERE reserve_draw_id = $1 AND programme_id = $2 FOR NO KEY UPDATE",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// A draw of the programme.
pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, id: ReserveDrawId) -> Result<Option<Draw>, sqlx::Error> {
    Ok(list_where(conn, programme, Some(id), None, None, 1).await?.pop())
}

/// The draw that a reservation is for.
pub async fn of_reservation(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: ReservationId,
) -> Result<Option<Draw>, sqlx::Error> {
    Ok(list_where(conn, programme, None, Some(id), None, 1).await?.pop())
}

/// Draws of a programme by id, after one.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Draw>, sqlx::Error> {
    list_where(conn, programme, None, None, after, size).await
}

async fn list_where(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: Option<ReserveDrawId>,
    reservation: Option<ReservationId>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Draw>, sqlx::Error> {
    let rows = sqlx::query_as!(
        DrawRow,
        r#"SELECT d.reserve_draw_id, d.programme_id, d.plan_id, d.envelope_id, d.kind, d.state, d.amount, d.member_id, d.output_id, d.evidence,
                  d.decide_by_time, d.requested_by, d.decided_by, d.decision_reason, d.reservation_id, d.create_time,
                  r.reserved AS "reserved?", r.committed AS "committed?", r.spent AS "spent?", r.released AS "released?",
                  r.recoverable AS "recoverable?"
           FROM reserve_draw AS d
           LEFT JOIN reservation AS r ON r.reservation_id = d.reservation_id
           WHERE d.programme_id = $1
             AND ($2::uuid IS NULL OR d.reserve_draw_id = $2)
             AND ($3::uuid IS NULL OR d.reservation_id = $3)
             AND ($4::uuid IS NULL OR d.reserve_draw_id > $4)
           ORDER BY d.reserve_draw_id
           LIMIT $5"#,
        programme.0,
        id.map(|id| id.0),
        reservation.map(|id| id.0),
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Draw::try_from).collect()
}
