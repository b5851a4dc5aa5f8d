//! Plans.

use super::corrupt;
use crate::{
    domain::{
        approval::{Approval, Policy},
        period::Period,
        plan::{Draft, Plan, PlanState, Stage},
    },
    ids::{PlanId, ProgrammeId},
};
use chrono::{DateTime, TimeDelta, Utc};
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
    required_approvals: i32,
    approval_validity_us: i64,
    min_reserve_percent: i32,
    max_reserve_percent: i32,
    submitted_by: Option<String>,
    approved_by: Vec<String>,
    approve_times: Vec<DateTime<Utc>>,
    version: i64,
    create_time: DateTime<Utc>,
}

impl TryFrom<PlanRow> for Plan {
    type Error = sqlx::Error;

    fn try_from(row: PlanRow) -> Result<Self, sqlx::Error> {
        let stage = Stage::parse(&row.state).ok_or_else(|| corrupt("plan.state"))?;
        let approvals = approvals(row.approved_by, row.approve_times);
        let state = match (stage, row.submitted_by) {
            (Stage::Draft, None) => PlanState::Draft,
            (Stage::Submitted, Some(submitted_by)) => PlanState::Submitted { submitted_by, approvals },
            (Stage::Approved, Some(submitted_by)) => PlanState::Approved { submitted_by, approvals },
            (Stage::Active, Some(submitted_by)) => PlanState::Active { submitted_by, approvals },
            (Stage::Closed, Some(submitted_by)) => PlanState::Closed { submitted_by, approvals },
            _ => return Err(corrupt("plan.submitted_by")),
        };
        Ok(Self {
            id: PlanId(row.plan_id),
            programme: ProgrammeId(row.programme_id),
            display_name: row.display_name,
            period: Period::new(row.period_start_time, row.period_end_time).map_err(|_| corrupt("plan.period_end_time"))?,
            state,
            automatic_draw_limit: row.automatic_draw_limit,
            policy: Policy {
                required_approvals: usize::try_from(row.required_approvals).map_err(|_| corrupt("plan.required_approvals"))?,
                validity: TimeDelta::microseconds(row.approval_validity_us),
                min_reserve_percent: row.min_reserve_percent,
                max_reserve_percent: row.max_reserve_percent,
            },
            version: row.version,
            create_time: row.create_time,
        })
    }
}

/// Approvals as two columns hold them.
pub(super) fn approvals(by: Vec<String>, times: Vec<DateTime<Utc>>) -> Vec<Approval> {
    by.into_iter().zip(times).map(|(by, time)| Approval { by, time }).collect()
}

/// The two columns of approvals.
pub(super) fn columns(approvals: &[Approval]) -> (Vec<String>, Vec<DateTime<Utc>>) {
    approvals.iter().map(|approval| (approval.by.clone(), approval.time)).unzip()
}

/// Creates a plan in DRAFT, without its envelopes.
pub async fn insert(conn: &mut PgConnection, id: PlanId, programme: ProgrammeId, draft: &Draft) -> Result<Plan, sqlx::Error> {
    let create_time = sqlx::query_scalar!(
        "INSERT INTO plan (plan_id, programme_id, display_name, period_start_time, period_end_time, state, automatic_draw_limit,
                           required_approvals, approval_validity_us, min_reserve_percent, max_reserve_percent, version, create_time)
         VALUES ($1, $2, $3, $4, $5, 'DRAFT', $6, $7, $8, $9, $10, 1, koc_now())
         RETURNING create_time",
        id.0,
        programme.0,
        draft.display_name,
        draft.period.start(),
        draft.period.end(),
        draft.automatic_draw_limit,
        required(&draft.policy),
        micros(&draft.policy),
        draft.policy.min_reserve_percent,
        draft.policy.max_reserve_percent,
    )
    .fetch_one(conn)
    .await?;
    Ok(Plan {
        id,
        programme,
        display_name: draft.display_name.clone(),
        period: draft.period,
        state: PlanState::Draft,
        automatic_draw_limit: draft.automatic_draw_limit,
        policy: draft.policy,
        version: 1,
        create_time,
    })
}

fn required(policy: &Policy) -> i32 {
    i32::try_from(policy.required_approvals).unwrap_or(i32::MAX)
}

fn micros(policy: &Policy) -> i64 {
    policy.validity.num_microseconds().unwrap_or(i64::MAX)
}

/// Writes what a locked draft says now, without its envelopes, and gives it a new version.
pub async fn update(conn: &mut PgConnection, plan: &mut Plan, draft: &Draft) -> Result<(), sqlx::Error> {
    let version = sqlx::query_scalar!(
        "UPDATE plan
         SET display_name = $2, period_start_time = $3, period_end_time = $4, automatic_draw_limit = $5, required_approvals = $6,
             approval_validity_us = $7, min_reserve_percent = $8, max_reserve_percent = $9, version = version + 1
         WHERE plan_id = $1
         RETURNING version",
        plan.id.0,
        draft.display_name,
        draft.period.start(),
        draft.period.end(),
        draft.automatic_draw_limit,
        required(&draft.policy),
        micros(&draft.policy),
        draft.policy.min_reserve_percent,
        draft.policy.max_reserve_percent,
    )
    .fetch_one(conn)
    .await?;
    *plan = Plan {
        display_name: draft.display_name.clone(),
        period: draft.period,
        automatic_draw_limit: draft.automatic_draw_limit,
        policy: draft.policy,
        version,
        ..plan.clone()
    };
    Ok(())
}

/// A plan of the programme.
pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, id: PlanId) -> Result<Option<Plan>, sqlx::Error> {
    let row = sqlx::query_as!(
        PlanRow,
        "SELECT plan_id, programme_id, display_name, period_start_time, period_end_time, state, automatic_draw_limit,
                required_approvals, approval_validity_us, min_reserve_percent, max_reserve_percent, submitted_by, approved_by,
                approve_times, version, create_time
         FROM plan
         WHERE plan_id = $1 AND programme_id = $2",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Plan::try_from).transpose()
}

/// As [`find`], locked against other changes.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: PlanId) -> Result<Option<Plan>, sqlx::Error> {
    Ok(lock_all(conn, programme, &[id]).await?.pop())
}

/// Plans of the programme by id, locked in that order; those that are not there are left out.
pub async fn lock_all(conn: &mut PgConnection, programme: ProgrammeId, ids: &[PlanId]) -> Result<Vec<Plan>, sqlx::Error> {
    let rows = sqlx::query_as!(
        PlanRow,
        "SELECT plan_id, programme_id, display_name, period_start_time, period_end_time, state, automatic_draw_limit,
                required_approvals, approval_validity_us, min_reserve_percent, max_reserve_percent, submitted_by, approved_by,
                approve_times, version, create_time
         FROM plan
         WHERE plan_id = ANY ($1) AND programme_id = $2
         ORDER BY plan_id
         FOR NO KEY UPDATE",
        &ids.iter().map(|id| id.0).collect::<Vec<_>>(),
        programme.0,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Plan::try_from).collect()
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
                required_approvals, approval_validity_us, min_reserve_percent, max_reserve_percent, submitted_by, approved_by,
                approve_times, version, create_time
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
                required_approvals, approval_validity_us, min_reserve_percent, max_reserve_percent, submitted_by, approved_by,
                approve_times, version, create_time
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

/// Moves a locked plan to a new state and gives it a new version.
pub async fn set_state(conn: &mut PgConnection, plan: &mut Plan, state: PlanState) -> Result<(), sqlx::Error> {
    let (approved_by, approve_times) = columns(state.approvals());
    plan.version = sqlx::query_scalar!(
        "UPDATE plan SET state = $2, submitted_by = $3, approved_by = $4, approve_times = $5, version = version + 1
         WHERE plan_id = $1
         RETURNING version",
        plan.id.0,
        state.stage().as_str(),
        state.submitted_by(),
        &approved_by,
        &approve_times,
    )
    .fetch_one(conn)
    .await?;
    plan.state = state;
    Ok(())
}

/// Gives a locked plan, whose envelopes were changed, a new version.
pub async fn amend(conn: &mut PgConnection, plan: &mut Plan) -> Result<(), sqlx::Error> {
    plan.version = sqlx::query_scalar!("UPDATE plan SET version = version + 1 WHERE plan_id = $1 RETURNING version", plan.id.0)
        .fetch_one(conn)
        .await?;
    Ok(())
}
