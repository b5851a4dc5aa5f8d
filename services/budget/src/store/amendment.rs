//! Amendments of plans.

use super::{
    corrupt,
    envelope::place,
    plan::{approvals, columns},
    reserve_policy,
};
use crate::{
    domain::{
        amendment::{Amendment, AmendmentKind, AmendmentStage, AmendmentState, Closing, Line, OpenReservations},
        reserve_draw::Decided,
    },
    ids::{AmendmentId, EnvelopeId, PlanId, ProgrammeId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct AmendmentRow {
    amendment_id: Uuid,
    programme_id: Uuid,
    plan_id: Uuid,
    kind: String,
    state: String,
    base_version: i64,
    total_before: i64,
    total_after: i64,
    open_reservations: Option<String>,
    carry_over_plan_id: Option<Uuid>,
    reason: String,
    proposed_by: String,
    approved_by: Vec<String>,
    approve_times: Vec<DateTime<Utc>>,
    decided_by: Option<String>,
    decision_reason: Option<String>,
    decide_by_time: DateTime<Utc>,
    create_time: DateTime<Utc>,
}

impl TryFrom<AmendmentRow> for Amendment {
    type Error = sqlx::Error;

    /// Without its lines and terms.
    fn try_from(row: AmendmentRow) -> Result<Self, sqlx::Error> {
        let decided = row.decision_reason.map(|reason| Decided { by: row.decided_by, reason });
        let state = match (AmendmentStage::parse(&row.state), decided) {
            (Some(AmendmentStage::Proposed), None) => AmendmentState::Proposed,
            (Some(AmendmentStage::Applied), Some(decided)) => AmendmentState::Applied { decided },
            (Some(AmendmentStage::Rejected), Some(decided)) => AmendmentState::Rejected { decided },
            (Some(AmendmentStage::Withdrawn), Some(decided)) => AmendmentState::Withdrawn { decided },
            (Some(AmendmentStage::Lapsed), Some(decided)) => AmendmentState::Lapsed { decided },
            _ => return Err(corrupt("amendment.state")),
        };
        let open = |text: String| OpenReservations::parse(&text).ok_or_else(|| corrupt("amendment.open_reservations"));
        let closing = row.open_reservations.map(open).transpose()?;
        Ok(Self {
            id: AmendmentId(row.amendment_id),
            programme: ProgrammeId(row.programme_id),
            plan: PlanId(row.plan_id),
            kind: AmendmentKind::parse(&row.kind).ok_or_else(|| corrupt("amendment.kind"))?,
            state,
            lines: Vec::new(),
            total_before: row.total_before,
            total_after: row.total_after,
            closing: closing.map(|open| Closing { open, carry_over: row.carry_over_plan_id.map(PlanId) }),
            terms: None,
            reason: row.reason,
            base_version: row.base_version,
            proposed_by: row.proposed_by,
            approvals: approvals(row.approved_by, row.approve_times),
            decide_by_time: row.decide_by_time,
            create_time: row.create_time,
        })
    }
}

/// Keeps a new amendment with its lines.
pub async fn insert(conn: &mut PgConnection, amendment: &Amendment) -> Result<(), sqlx::Error> {
    let (approved_by, approve_times) = columns(&amendment.approvals);
    sqlx::query!(
        "INSERT INTO amendment (amendment_id, programme_id, plan_id, kind, state, base_version, total_before, total_after,
                                open_reservations, carry_over_plan_id, reason, proposed_by,
                                approved_by, approve_times, decided_by, decision_reason, decide_by_time, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
        amendment.id.0,
        amendment.programme.0,
        amendment.plan.0,
        amendment.kind.as_str(),
        amendment.state.stage().as_str(),
        amendment.base_version,
        amendment.total_before,
        amendment.total_after,
        amendment.closing.map(|closing| closing.open.as_str()),
        amendment.closing.and_then(|closing| closing.carry_over).map(|plan| plan.0),
        amendment.reason,
        amendment.proposed_by,
        &approved_by,
        &approve_times,
        amendment.state.decided().and_then(|decided| decided.by.as_deref()),
        amendment.state.decided().map(|decided| decided.reason.as_str()),
        amendment.decide_by_time,
        amendment.create_time,
    )
    .execute(&mut *conn)
    .await?;
    if let Some(terms) = &amendment.terms {
        reserve_policy::insert_proposed(conn, amendment.id, terms).await?;
    }
    insert_lines(conn, amendment.id, &amendment.lines).await
}

async fn insert_lines(conn: &mut PgConnection, id: AmendmentId, lines: &[Line]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO amendment_line (amendment_id, ordinal, envelope_id, plan_id, display_name, resource_class, before, after, own_change,
                                     overrun_before, overrun_after, is_new, parent_id, region, resource_kind)
         SELECT $1, (l.nr - 1)::integer, l.envelope, l.plan, l.name, l.class, l.before, l.after, l.own_change, l.overrun_before,
                l.overrun_after, l.is_new, l.parent, l.region, l.kind
         FROM UNNEST($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
                     $10::bigint[], $11::boolean[], $12::uuid[], $13::text[], $14::text[])
              WITH ORDINALITY AS l (envelope, plan, name, class, before, after, own_change, overrun_before, overrun_after, is_new, parent, region,
                                    kind, nr)",
        id.0,
        &lines.iter().map(|l| l.envelope.0).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.plan.0).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.display_name.clone()).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.place.class.as_str().to_owned()).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.before).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.after).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.own_change).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.overrun_before).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.overrun_after).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.is_new).collect::<Vec<_>>(),
        &lines.iter().map(|l| l.place.parent.map(|p| p.0)).collect::<Vec<_>>() as &[Option<Uuid>],
        &lines.iter().map(|l| l.place.region.clone()).collect::<Vec<_>>() as &[Option<String>],
        &lines.iter().map(|l| l.place.kind.map(|k| k.as_str().to_owned())).collect::<Vec<_>>() as &[Option<String>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes where a locked amendment stands.
pub async fn update(conn: &mut PgConnection, amendment: &Amendment) -> Result<(), sqlx::Error> {
    let (approved_by, approve_times) = columns(&amendment.approvals);
    sqlx::query!(
        "UPDATE amendment
         SET state = $2, total_before = $3, total_after = $4, approved_by = $5, approve_times = $6, decided_by = $7, decision_reason = $8
         WHERE amendment_id = $1",
        amendment.id.0,
        amendment.state.stage().as_str(),
        amendment.total_before,
        amendment.total_after,
        &approved_by,
        &approve_times,
        amendment.state.decided().and_then(|decided| decided.by.as_deref()),
        amendment.state.decided().map(|decided| decided.reason.as_str()),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what a closing came to in place of what was expected of it.
pub async fn replace_lines(conn: &mut PgConnection, amendment: &Amendment) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM amendment_line WHERE amendment_id = $1", amendment.id.0).execute(&mut *conn).await?;
    insert_lines(conn, amendment.id, &amendment.lines).await
}

/// The plans of an amendment, which never change: the amended one and the one that is carried over into.
pub async fn plans(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: AmendmentId,
) -> Result<Option<(PlanId, Option<PlanId>)>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT plan_id, carry_over_plan_id FROM amendment WHERE amendment_id = $1 AND programme_id = $2",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (PlanId(row.plan_id), row.carry_over_plan_id.map(PlanId))))
}

/// Locks an amendment against other decisions.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: AmendmentId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT 1 FROM amendment WHERE amendment_id = $1 AND programme_id = $2 FOR NO KEY UPDATE",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// An amendment of the programme, with its lines and terms.
pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, id: AmendmentId) -> Result<Option<Amendment>, sqlx::Error> {
    let found = list_where(conn, programme, Some(id), None, None, 1).await?.pop();
    let Some(mut amendment) = found else { return Ok(None) };
    amendment.lines = lines(conn, id).await?;
    if amendment.kind == AmendmentKind::ReservePolicy {
        amendment.terms = reserve_policy::proposed(conn, id).await?;
    }
    Ok(Some(amendment))
}

/// Amendments of a programme by id, after one, without their lines; only a plan's.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    plan: Option<PlanId>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Amendment>, sqlx::Error> {
    list_where(conn, programme, None, plan, after, size).await
}

async fn list_where(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: Option<AmendmentId>,
    plan: Option<PlanId>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Amendment>, sqlx::Error> {
    let rows = sqlx::query_as!(
        AmendmentRow,
        "SELECT amendment_id, programme_id, plan_id, kind, state, base_version, total_before, total_after, open_reservations,
                carry_over_plan_id, reason, proposed_by, approved_by, approve_times, decided_by,
                decision_reason, decide_by_time, create_time
         FROM amendment
         WHERE programme_id = $1
           AND ($2::uuid IS NULL OR amendment_id = $2)
           AND ($3::uuid IS NULL OR plan_id = $3)
           AND ($4::uuid IS NULL OR amendment_id > $4)
         ORDER BY amendment_id
         LIMIT $5",
        programme.0,
        id.map(|id| id.0),
        plan.map(|plan| plan.0),
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Amendment::try_from).collect()
}

async fn lines(conn: &mut PgConnection, id: AmendmentId) -> Result<Vec<Line>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT envelope_id, plan_id, display_name, resource_class, before, after, own_change, overrun_before, overrun_after, is_new,
                parent_id, region, resource_kind
         FROM amendment_line
         WHERE amendment_id = $1
         ORDER BY ordinal",
        id.0,
    )
    .fetch_all(conn)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        found.push(Line {
            envelope: EnvelopeId(row.envelope_id),
            plan: PlanId(row.plan_id),
            place: place(&row.resource_class, row.parent_id, row.region, row.resource_kind)?,
            display_name: row.display_name,
            before: row.before,
            after: row.after,
            own_change: row.own_change,
            overrun_before: row.overrun_before,
            overrun_after: row.overrun_after,
            is_new: row.is_new,
        });
    }
    Ok(found)
}
