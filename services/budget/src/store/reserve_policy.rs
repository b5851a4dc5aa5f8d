//! Policies on strategic reserves.

use crate::{
    domain::{
        plan::Plan,
        reserve_policy::{ReservePolicy, Terms},
    },
    ids::{AmendmentId, PlanId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct PolicyRow {
    plan_id: Uuid,
    version: i64,
    automatic_limit: Option<i64>,
    required_evidence: Vec<String>,
    one_person_limit: Option<i64>,
    max_share_bp: i32,
    output_cool_down_hours: i32,
    member_cool_down_hours: i32,
    report_within_hours: i32,
    reason: String,
    set_by: String,
    amendment_id: Option<Uuid>,
    create_time: DateTime<Utc>,
}

impl From<PolicyRow> for ReservePolicy {
    fn from(row: PolicyRow) -> Self {
        Self {
            plan: PlanId(row.plan_id),
            version: row.version,
            terms: Terms {
                automatic_limit: row.automatic_limit,
                required_evidence: row.required_evidence,
                one_person_limit: row.one_person_limit,
                max_share_bp: row.max_share_bp,
                output_cool_down_hours: row.output_cool_down_hours,
                member_cool_down_hours: row.member_cool_down_hours,
                report_within_hours: row.report_within_hours,
            },
            reason: row.reason,
            set_by: row.set_by,
            amendment: row.amendment_id.map(AmendmentId),
            create_time: row.create_time,
        }
    }
}

/// The policy of a plan as it stands now.
pub async fn current(conn: &mut PgConnection, plan: &Plan) -> Result<ReservePolicy, sqlx::Error> {
    Ok(find(conn, plan, None).await?.unwrap_or_else(|| first(plan)))
}

/// One version of a plan's policy.
pub async fn version(conn: &mut PgConnection, plan: &Plan, version: i64) -> Result<Option<ReservePolicy>, sqlx::Error> {
    match version {
        1 => Ok(Some(first(plan))),
        version => find(conn, plan, Some(version)).await,
    }
}

/// The first version is no row: it follows from the plan.
fn first(plan: &Plan) -> ReservePolicy {
    ReservePolicy::first(plan.id, plan.automatic_draw_limit, plan.create_time)
}

async fn find(conn: &mut PgConnection, plan: &Plan, version: Option<i64>) -> Result<Option<ReservePolicy>, sqlx::Error> {
    let row = sqlx::query_as!(
        PolicyRow,
        "SELECT plan_id, version, automatic_limit, required_evidence, one_person_limit, max_share_bp, output_cool_down_hours,
                member_cool_down_hours, report_within_hours, reason, set_by, amendment_id, create_time
         FROM reserve_policy
         WHERE plan_id = $1 AND ($2::bigint IS NULL OR version = $2)
         ORDER BY version DESC
         LIMIT 1",
        plan.id.0,
        version,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(ReservePolicy::from))
}

/// Keeps a new version. Under the plan's lock.
pub async fn insert(conn: &mut PgConnection, plan: &Plan, policy: &ReservePolicy) -> Result<(), sqlx::Error> {
    let terms = &policy.terms;
    sqlx::query!(
        "INSERT INTO reserve_policy (plan_id, version, programme_id, automatic_limit, required_evidence, one_person_limit, max_share_bp,
                                     output_cool_down_hours, member_cool_down_hours, report_within_hours, reason, set_by, amendment_id,
                                     create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        plan.id.0,
        policy.version,
        plan.programme.0,
        terms.automatic_limit,
        &terms.required_evidence,
        terms.one_person_limit,
        terms.max_share_bp,
        terms.output_cool_down_hours,
        terms.member_cool_down_hours,
        terms.report_within_hours,
        policy.reason,
        policy.set_by,
        policy.amendment.map(|id| id.0),
        policy.create_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps what an amendment proposes.
pub async fn insert_proposed(conn: &mut PgConnection, id: AmendmentId, terms: &Terms) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO amendment_reserve_terms (amendment_id, automatic_limit, required_evidence, one_person_limit, max_share_bp,
                                              output_cool_down_hours, member_cool_down_hours, report_within_hours)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        id.0,
        terms.automatic_limit,
        &terms.required_evidence,
        terms.one_person_limit,
        terms.max_share_bp,
        terms.output_cool_down_hours,
        terms.member_cool_down_hours,
        terms.report_within_hours,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What an amendment proposes; None when that is no policy.
pub async fn proposed(conn: &mut PgConnection, id: AmendmentId) -> Result<Option<Terms>, sqlx::Error> {
    sqlx::query_as!(
        Terms,
        "SELECT automatic_limit, required_evidence, one_person_limit, max_share_bp, output_cool_down_hours, member_cool_down_hours,
                report_within_hours
         FROM amendment_reserve_terms
         WHERE amendment_id = $1",
        id.0,
    )
    .fetch_optional(conn)
    .await
}
