//! Draws on the strategic reserve.

use super::corrupt;
use crate::{
    domain::{
        balances::Parts,
        reservation::wholly_spent,
        reserve_draw::{Approval, Decided, Draw, DrawKind, DrawStage, DrawState, Outcome},
    },
    ids::{EnvelopeId, MemberId, OutputId, PlanId, ProgrammeId, ReservationId, ReserveDrawId},
};
use chrono::{DateTime, Utc};
use koc_chassis::members;
use sqlx::PgConnection;
use uuid::Uuid;

/// Classes of the advisory locks on outputs and members, which keep two draws for one of them from missing each other.
const OUTPUT_LOCK: i32 = 0x6b62_6f70;
const MEMBER_LOCK: i32 = 0x6b62_6d70;

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
    policy_version: i64,
    approvals_needed: i16,
    decided_by: Option<String>,
    decision_reason: Option<String>,
    reservation_id: Option<Uuid>,
    first_draw_id: Option<Uuid>,
    report_due_time: Option<DateTime<Utc>>,
    create_time: DateTime<Utc>,
    approvals: Option<serde_json::Value>,
    // Of the outcome; NULL before.
    value: Option<i64>,
    figures: Option<serde_json::Value>,
    note: Option<String>,
    reported_by: Option<String>,
    report_time: Option<DateTime<Utc>>,
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
        let stage = DrawStage::parse(&row.state);
        let state = match (stage, row.decision_reason, row.decided_by, row.reservation_id, row.report_due_time) {
            (Some(DrawStage::Requested), None, None, None, None) => DrawState::Requested,
            (Some(DrawStage::Approved), Some(reason), by, Some(id), Some(report_due_time)) => {
                DrawState::Approved { reservation: ReservationId(id), decided: Decided { by, reason }, report_due_time }
            }
            (Some(DrawStage::Rejected), Some(reason), by @ Some(_), None, None) => {
                DrawState::Rejected { decided: Decided { by, reason } }
            }
            (Some(DrawStage::Lapsed), Some(reason), None, None, None) => DrawState::Lapsed { reason },
            _ => return Err(corrupt("reserve_draw.state")),
        };
        let outcome = match (row.value, row.figures, row.note, row.reported_by, row.report_time) {
            (Some(value), Some(figures), Some(note), Some(reported_by), Some(report_time)) => {
                Some(Outcome { value, figures: json(figures, "reserve_draw_outcome.figures")?, note, reported_by, report_time })
            }
            _ => None,
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
            evidence: json(row.evidence, "reserve_draw.evidence")?,
            decide_by_time: row.decide_by_time,
            requested_by: row.requested_by,
            create_time: row.create_time,
            policy_version: row.policy_version,
            approvals_needed: u8::try_from(row.approvals_needed).map_err(|_| corrupt("reserve_draw.approvals_needed"))?,
            approvals: row.approvals.map_or(Ok(Vec::new()), |rows| json::<Vec<Approval>>(rows, "reserve_draw_approval"))?,
            first_draw: row.first_draw_id.map(ReserveDrawId),
            settled: row.reservation_id.is_some() && parts.reserved == 0 && parts.committed == 0 && row.recoverable == Some(0),
            wholly_spent: wholly_spent(&parts, row.recoverable.unwrap_or(0)),
            outcome,
        })
    }
}

fn json<T: serde::de::DeserializeOwned>(value: serde_json::Value, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_value(value).map_err(|_| corrupt(column))
}

/// Which draws are looked for; all that are not None must match.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub id: Option<ReserveDrawId>,
    /// Those alone whose money these hold.
    pub reservations: Option<Vec<ReservationId>>,
    /// Top-ups of this one.
    pub first: Option<ReserveDrawId>,
    pub stage: Option<DrawStage>,
    pub plan: Option<PlanId>,
    pub member: Option<MemberId>,
    pub output: Option<OutputId>,
    /// Those alone whose outcome should have been reported by now.
    pub overdue: bool,
    /// Those alone that come after this one.
    pub after: Option<Uuid>,
}

/// Keeps other requests for the output out until the transaction ends.
pub async fn lock_output(conn: &mut PgConnection, output: OutputId) -> Result<(), sqlx::Error> {
    lock_key(conn, OUTPUT_LOCK, output.0).await
}

/// The same for the member. To be taken after the output's.
pub async fn lock_member(conn: &mut PgConnection, member: MemberId) -> Result<(), sqlx::Error> {
    lock_key(conn, MEMBER_LOCK, member.0).await
}

async fn lock_key(conn: &mut PgConnection, class: i32, key: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2::uuid::text))").bind(class).bind(key).execute(conn).await?;
    Ok(())
}

/// When the last draw for the output was requested that stands, or may still: until it has lapsed. Under the output's lock.
pub async fn last_for_output(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    output: OutputId,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT max(create_time) FROM reserve_draw
         WHERE programme_id = $1 AND output_id = $2 AND first_draw_id IS NULL
           AND state IN ('REQUESTED', 'APPROVED')",
        programme.0,
        output.0,
    )
    .fetch_one(conn)
    .await
}

/// The same for the member, by whichever of its ids.
pub async fn last_for_member(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let members: Vec<Uuid> = members::group(conn, programme, member).await?.into_iter().map(|id| id.0).collect();
    sqlx::query_scalar!(
        "SELECT max(create_time) FROM reserve_draw
         WHERE programme_id = $1 AND member_id = ANY ($2) AND first_draw_id IS NULL
           AND state IN ('REQUESTED', 'APPROVED')",
        programme.0,
        &members,
    )
    .fetch_one(conn)
    .await
}

/// What a draw and its top-ups come to that stand or may still. Under the draw's lock.
pub async fn standing(conn: &mut PgConnection, first: ReserveDrawId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT COALESCE(sum(amount), 0)::bigint AS "sum!" FROM reserve_draw
           WHERE (reserve_draw_id = $1 OR first_draw_id = $1)
             AND state IN ('REQUESTED', 'APPROVED')"#,
        first.0,
    )
    .fetch_one(conn)
    .await
}

/// Keeps a new draw.
pub async fn insert(conn: &mut PgConnection, draw: &Draw) -> Result<(), sqlx::Error> {
    let evidence = serde_json::to_value(&draw.evidence).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query!(
        "INSERT INTO reserve_draw (reserve_draw_id, programme_id, plan_id, envelope_id, kind, state, amount, member_id, output_id, evidence,
                                   decide_by_time, requested_by, policy_version, approvals_needed, automatic, decided_by, decision_reason,
                                   reservation_id, first_draw_id, report_due_time, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
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
        draw.policy_version,
        i16::from(draw.approvals_needed),
        draw.automatic(),
        draw.decided_by(),
        draw.decision_reason(),
        draw.reservation().map(|r| r.0),
        draw.first_draw.map(|first| first.0),
        draw.report_due_time(),
        draw.create_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds an approval to a locked draw.
pub async fn approve(conn: &mut PgConnection, draw: &mut Draw, approval: Approval) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO reserve_draw_approval (reserve_draw_id, ordinal, approved_by, reason, approve_time)
         VALUES ($1, $2, $3, $4, $5)",
        draw.id.0,
        i16::try_from(draw.approvals.len()).unwrap_or(i16::MAX), // the table takes two
        approval.by,
        approval.reason,
        approval.time,
    )
    .execute(conn)
    .await?;
    draw.approvals.push(approval);
    Ok(())
}

/// Keeps the outcome of a locked draw.
pub async fn report(conn: &mut PgConnection, draw: ReserveDrawId, outcome: &Outcome) -> Result<(), sqlx::Error> {
    let figures = serde_json::to_value(&outcome.figures).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query!(
        "INSERT INTO reserve_draw_outcome (reserve_draw_id, value, figures, note, reported_by, report_time)
         VALUES ($1, $2, $3, $4, $5, $6)",
        draw.0,
        outcome.value,
        figures,
        outcome.note,
        outcome.reported_by,
        outcome.report_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves a locked draw to a new state.
pub async fn set_state(conn: &mut PgConnection, draw: &mut Draw, state: DrawState) -> Result<(), sqlx::Error> {
    draw.state = state;
    sqlx::query!(
        "UPDATE reserve_draw SET state = $2, decided_by = $3, decision_reason = $4, reservation_id = $5, report_due_time = $6
         WHERE reserve_draw_id = $1",
        draw.id.0,
        draw.stage().as_str(),
        draw.decided_by(),
        draw.decision_reason(),
        draw.reservation().map(|r| r.0),
        draw.report_due_time(),
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
    let wanted = Wanted { id: Some(id), ..Wanted::default() };
    Ok(list(conn, programme, &wanted, 1).await?.pop())
}

/// The draws that reservations are for.
pub async fn of_reservations(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    ids: Vec<ReservationId>,
) -> Result<Vec<Draw>, sqlx::Error> {
    let size = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    list(conn, programme, &Wanted { reservations: Some(ids), ..Wanted::default() }, size).await
}

/// Draws of a programme by id.
pub async fn list(conn: &mut PgConnection, programme: ProgrammeId, wanted: &Wanted, size: i64) -> Result<Vec<Draw>, sqlx::Error> {
    let members = super::member::ids(conn, programme, wanted.member).await?;
    let rows = sqlx::query_as!(
        DrawRow,
        r#"SELECT d.reserve_draw_id, d.programme_id, d.plan_id, d.envelope_id, d.kind, d.state, d.amount, d.member_id, d.output_id, d.evidence,
                  d.decide_by_time, d.requested_by, d.policy_version, d.approvals_needed, d.decided_by, d.decision_reason, d.reservation_id,
                  d.first_draw_id, d.report_due_time, d.create_time,
                  (SELECT jsonb_agg(jsonb_build_object('by', a.approved_by, 'reason', a.reason, 'time', a.approve_time) ORDER BY a.ordinal)
                   FROM reserve_draw_approval AS a
                   WHERE a.reserve_draw_id = d.reserve_draw_id) AS approvals,
                  o.value AS "value?", o.figures AS "figures?", o.note AS "note?", o.reported_by AS "reported_by?",
                  o.report_time AS "report_time?",
                  r.reserved AS "reserved?", r.committed AS "committed?", r.spent AS "spent?", r.released AS "released?",
                  r.recoverable AS "recoverable?"
           FROM reserve_draw AS d
           LEFT JOIN reservation AS r ON r.reservation_id = d.reservation_id
           LEFT JOIN reserve_draw_outcome AS o ON o.reserve_draw_id = COALESCE(d.first_draw_id, d.reserve_draw_id)
           WHERE d.programme_id = $1
             AND ($2::uuid IS NULL OR d.reserve_draw_id = $2)
             AND ($3::uuid[] IS NULL OR d.reservation_id = ANY ($3))
             AND ($4::uuid IS NULL OR d.first_draw_id = $4)
             AND ($5::text IS NULL OR $5 = CASE
                     WHEN d.state <> 'APPROVED' THEN d.state
                     WHEN o.reserve_draw_id IS NOT NULL THEN 'REPORTED'
                     WHEN r.spent > 0 AND r.reserved = 0 AND r.committed = 0 AND r.recoverable = 0 THEN 'SPENT'
                     ELSE 'APPROVED' END)
             AND ($6::uuid IS NULL OR d.plan_id = $6)
             AND ($7::uuid[] IS NULL OR d.member_id = ANY ($7))
             AND ($8::uuid IS NULL OR d.output_id = $8)
             AND (NOT $9::boolean OR (d.state = 'APPROVED' AND d.report_due_time <= koc_now() AND o.reserve_draw_id IS NULL
                                      AND r.reserved + r.committed + r.spent > 0))
             AND ($10::uuid IS NULL OR d.reserve_draw_id > $10)
           ORDER BY d.reserve_draw_id
           LIMIT $11"#,
        programme.0,
        wanted.id.map(|id| id.0),
        wanted.reservations.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>()) as Option<Vec<Uuid>>,
        wanted.first.map(|id| id.0),
        wanted.stage.map(DrawStage::as_str),
        wanted.plan.map(|id| id.0),
        members.as_deref(),
        wanted.output.map(|id| id.0),
        wanted.overdue,
        wanted.after,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Draw::try_from).collect()
}
