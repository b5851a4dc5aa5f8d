//! Plans and envelopes.

use super::corrupt;
use crate::{
    domain::{
        balances::Balances,
        period::Period,
        plan::{Envelope, NewPlan, Plan, PlanState, ResourceClass, Stage},
    },
    ids::{EnvelopeId, PlanId, ProgrammeId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct PlanRow {
    plan_id: Uuid,
    programme_id: Uuid,
    display_name: String,
    period_start_time: DateTime<Utc>,
    period_end_time: DateTime<Utc>,
    state: String,
    automatic_draw_limit: Option<i64>,
    submitted_by: Option<String>,
    approved_by: Option<String>,
    version: i64,
    create_time: DateTime<Utc>,
}

impl TryFrom<PlanRow> for Plan {
    type Error = sqlx::Error;

    fn try_from(row: PlanRow) -> Result<Self, sqlx::Error> {
        let stage = Stage::parse(&row.state).ok_or_else(|| corrupt("plan.state"))?;
        let state = match (stage, row.submitted_by, row.approved_by) {
            (Stage::Draft, None, None) => PlanState::Draft,
            (Stage::Submitted, Some(submitted_by), None) => PlanState::Submitted { submitted_by },
            (Stage::Approved, Some(submitted_by), Some(approved_by)) => PlanState::Approved { submitted_by, approved_by },
            (Stage::Active, Some(submitted_by), Some(approved_by)) => PlanState::Active { submitted_by, approved_by },
            (Stage::Closed, Some(submitted_by), Some(approved_by)) => PlanState::Closed { submitted_by, approved_by },
            _ => return Err(corrupt("plan.submitted_by or plan.approved_by")),
        };
        Ok(Self {
            id: PlanId(row.plan_id),
            programme: ProgrammeId(row.programme_id),
            display_name: row.display_name,
            period: Period::new(row.period_start_time, row.period_end_time).map_err(|_| corrupt("plan.period_end_time"))?,
            state,
            automatic_draw_limit: row.automatic_draw_limit,
            version: row.version,
            create_time: row.create_time,
        })
    }
}

struct EnvelopeRow {
    envelope_id: Uuid,
    plan_id: Uuid,
    resource_class: String,
    display_name: String,
    planned: i64,
    allocated: i64,
    reserved: i64,
    committed: i64,
    spent: i64,
    overrun_limit: i64,
}

impl TryFrom<EnvelopeRow> for Envelope {
    type Error = sqlx::Error;

    fn try_from(row: EnvelopeRow) -> Result<Self, sqlx::Error> {
        let EnvelopeRow { allocated, reserved, committed, spent, .. } = row;
        Ok(Self {
            id: EnvelopeId(row.envelope_id),
            plan: PlanId(row.plan_id),
            class: ResourceClass::parse(&row.resource_class).ok_or_else(|| corrupt("envelope.resource_class"))?,
            display_name: row.display_name,
            planned: row.planned,
            balances: Balances { allocated, reserved, committed, spent },
            overrun_limit: row.overrun_limit,
        })
    }
}

/// Creates a plan in DRAFT with its envelopes.
pub async fn insert(
    conn: &mut PgConnection,
    id: PlanId,
    programme: ProgrammeId,
    plan: &NewPlan,
) -> Result<(Plan, Vec<Envelope>), sqlx::Error> {
    let create_time = sqlx::query_scalar!(
        "INSERT INTO plan (plan_id, programme_id, display_name, period_start_time, period_end_time, state, automatic_draw_limit,
                           version, create_time)
         VALUES ($1, $2, $3, $4, $5, 'DRAFT', $6, 1, koc_now())
         RETURNING create_time",
        id.0,
        programme.0,
        plan.display_name,
        plan.period.start(),
        plan.period.end(),
        plan.automatic_draw_limit,
    )
    .fetch_one(&mut *conn)
    .await?;
    let envelopes: Vec<Envelope> = plan
        .envelopes
        .iter()
        .map(|new| Envelope {
            id: EnvelopeId::new(),
            plan: id,
            class: new.class,
            display_name: new.display_name.clone(),
            planned: new.planned,
            balances: Balances::default(),
            overrun_limit: new.overrun_limit,
        })
        .collect();
    sqlx::query!(
        "INSERT INTO envelope (envelope_id, plan_id, programme_id, ordinal, resource_class, display_name, planned, overrun_limit)
         SELECT e.id, $1, $2, (e.nr - 1)::integer, e.class, e.name, e.planned, e.overrun
         FROM UNNEST($3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
              WITH ORDINALITY AS e (id, class, name, planned, overrun, nr)",
        id.0,
        programme.0,
        &envelopes.iter().map(|e| e.id.0).collect::<Vec<_>>(),
        &envelopes.iter().map(|e| e.class.as_str().to_owned()).collect::<Vec<_>>(),
        &envelopes.iter().map(|e| e.display_name.clone()).collect::<Vec<_>>(),
        &envelopes.iter().map(|e| e.planned).collect::<Vec<_>>(),
        &envelopes.iter().map(|e| e.overrun_limit).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    let created = Plan {
        id,
        programme,
        display_name: plan.display_name.clone(),
        period: plan.period,
        state: PlanState::Draft,
        automatic_draw_limit: plan.automatic_draw_limit,
        version: 1,
        create_time,
    };
    Ok((created, envelopes))
}

/// A plan of the programme.
pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, id: PlanId) -> Result<Option<Plan>, sqlx::Error> {
    let row = sqlx::query_as!(
        PlanRow,
        "SELECT plan_id, programme_id, display_name, period_start_time, period_end_time, state, automatic_draw_limit,
                submitted_by, approved_by, version, create_time
         FROM plan
         WHERE plan_id = $1 AND programme_id = $2",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Plan::try_from).transpose()
}

/// As [`find`], locked against other changes of its state.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: PlanId) -> Result<Option<Plan>, sqlx::Error> {
    let row = sqlx::query_as!(
        PlanRow,
        "SELECT plan_id, programme_id, display_name, period_start_time, period_end_time, state, automatic_draw_limit,
                submitted_by, approved_by, version, create_time
         FROM plan
         WHERE plan_id = $1 AND programme_id = $2
         FOR NO KEY UPDATE",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Plan::try_from).transpose()
}

/// The active plan whose period holds an instant: of several one with a reserve before those without, then the one that began last, the
/// newest among equals.
pub async fn active_at(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    time: DateTime<Utc>,
) -> Result<Option<Plan>, sqlx::Error> {
    let row = sqlx::query_as!(
        PlanRow,
        "SELECT plan_id, programme_id, display_name, period_start_time, period_end_time, state, automatic_draw_limit,
                submitted_by, approved_by, version, create_time
         FROM plan
         WHERE programme_id = $1 AND state = 'ACTIVE' AND period_start_time <= $2 AND $2 < period_end_time
         ORDER BY EXISTS (SELECT FROM envelope AS e WHERE e.plan_id = plan.plan_id AND e.resource_class = 'STRATEGIC_RESERVE') DESC,
                  period_start_time DESC, plan_id DESC
         LIMIT 1",
        programme.0,
        time,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Plan::try_from).transpose()
}

/// Plans of a programme by id, after one.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Plan>, sqlx::Error> {
    let rows = sqlx::query_as!(
        PlanRow,
        "SELECT plan_id, programme_id, display_name, period_start_time, period_end_time, state, automatic_draw_limit,
                submitted_by, approved_by, version, create_time
         FROM plan
         WHERE programme_id = $1 AND ($2::uuid IS NULL OR plan_id > $2)
         ORDER BY plan_id
         LIMIT $3",
        programme.0,
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Plan::try_from).collect()
}

/// The envelopes of plans, each plan's in the order given.
pub async fn envelopes(conn: &mut PgConnection, plans: &[PlanId]) -> Result<Vec<Envelope>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EnvelopeRow,
        "SELECT envelope_id, plan_id, resource_class, display_name, planned, allocated, reserved, committed, spent, overrun_limit
         FROM envelope
         WHERE plan_id = ANY ($1)
         ORDER BY plan_id, ordinal",
        &plans.iter().map(|p| p.0).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Envelope::try_from).collect()
}

/// Whether the programme has the envelope.
pub async fn has_envelope(conn: &mut PgConnection, programme: ProgrammeId, id: EnvelopeId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!("SELECT 1 FROM envelope WHERE envelope_id = $1 AND programme_id = $2", id.0, programme.0)
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

/// Moves a locked plan to a new state and gives it a new version.
pub async fn set_state(conn: &mut PgConnection, plan: &mut Plan, state: PlanState) -> Result<(), sqlx::Error> {
    plan.version = sqlx::query_scalar!(
        "UPDATE plan SET state = $2, submitted_by = $3, approved_by = $4, version = version + 1
         WHERE plan_id = $1
         RETURNING version",
        plan.id.0,
        state.stage().as_str(),
        state.submitted_by(),
        state.approved_by(),
    )
    .fetch_one(conn)
    .await?;
    plan.state = state;
    Ok(())
}

/// How many members have money held, owed or paid in each class of a plan.
pub async fn member_counts(conn: &mut PgConnection, plan: PlanId) -> Result<Vec<(ResourceClass, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT e.resource_class, count(DISTINCT r.member_id) AS "members!"
           FROM envelope AS e
           JOIN reservation AS r ON r.envelope_id = e.envelope_id
           WHERE e.plan_id = $1 AND r.reserved + r.committed + r.spent > 0
           GROUP BY e.resource_class"#,
        plan.0,
    )
    .fetch_all(conn)
    .await?;
    let class = |text: &str| ResourceClass::parse(text).ok_or_else(|| corrupt("envelope.resource_class"));
    rows.into_iter().map(|row| Ok((class(&row.resource_class)?, row.members))).collect()
}
