//! Decided periods, decisions with their inputs, and how far each is.

use crate::domain::{
    ids::DecisionId,
    judgement::{Inputs, Judgement},
    period::Period,
    posterior::OutputResult,
    progress::Progress,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use uuid::Uuid;

/// A decision as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDecision {
    pub id: DecisionId,
    pub programme: ProgrammeId,
    /// The one that goes on, when the one that was decided on was merged; its inputs name that one.
    pub member: MemberId,
    pub inputs: Inputs,
    /// The texts of inputs and outcome, as they were hashed and must be given again.
    pub inputs_text: String,
    pub outcome: Judgement,
    pub outcome_text: String,
    pub input_hash: String,
    pub policy_version: i32,
    pub currency: String,
    pub decided_by: String,
    pub created_at: DateTime<Utc>,
    pub progress: Progress,
    pub answers: Answers,
}

/// What the peers answered so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    pub profile: Option<String>,
    pub tier: Option<String>,
    pub limit: Option<String>,
}

struct DecisionRow {
    decision_id: Uuid,
    programme_id: Uuid,
    member_id: Uuid,
    policy_version: i32,
    input_hash: String,
    inputs: String,
    outcome: String,
    currency_code: String,
    actor: String,
    create_time: DateTime<Utc>,
    state: String,
    approved_by: Option<String>,
    profile_result: Option<String>,
    tier_result: Option<String>,
    limit_result: Option<String>,
}

impl TryFrom<DecisionRow> for StoredDecision {
    type Error = sqlx::Error;

    fn try_from(row: DecisionRow) -> Result<Self, sqlx::Error> {
        let approved_by = row.approved_by.unwrap_or_default();
        Ok(Self {
            id: DecisionId(row.decision_id),
            programme: ProgrammeId(row.programme_id),
            member: MemberId(row.member_id),
            inputs: serde_json::from_str(&row.inputs).map_err(super::unreadable)?,
            inputs_text: row.inputs,
            outcome: serde_json::from_str(&row.outcome).map_err(super::unreadable)?,
            outcome_text: row.outcome,
            input_hash: row.input_hash,
            policy_version: row.policy_version,
            currency: row.currency_code,
            decided_by: row.actor,
            created_at: row.create_time,
            progress: match row.state.as_str() {
                "PROPOSED" => Progress::Proposed,
                "APPLYING" => Progress::Applying { approved_by },
                _ => Progress::Applied { approved_by },
            },
            answers: Answers { profile: row.profile_result, tier: row.tier_result, limit: row.limit_result },
        })
    }
}

/// Decided periods that one programme may have: some two centuries of months.
const MAX_PERIODS: i64 = 2_500;

/// Every decided period, newest first.
pub async fn periods(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Vec<Period>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT period_start, period_end, next_period_end
         FROM decided_period
         WHERE programme_id = $1
         ORDER BY period_start DESC
         LIMIT $2",
        programme.0,
        MAX_PERIODS,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| Period { start: r.period_start, end: r.period_end, next_end: r.next_period_end }).collect())
}

pub async fn insert_period(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    period: &Period,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO decided_period (programme_id, period_start, period_end, next_period_end, actor, create_time)
         VALUES ($1, $2, $3, $4, $5, $6)",
        programme.0,
        period.start,
        period.end,
        period.next_end,
        actor,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps a pool, unless it is kept.
pub async fn put_pool(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: &str,
    results: &[OutputResult],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO cohort_sample (programme_id, cohort_id, results)
         VALUES ($1, $2, $3::text::json)
         ON CONFLICT ON CONSTRAINT cohort_sample_pkey DO NOTHING",
        programme.0,
        id,
        serde_json::to_string(results).map_err(super::unreadable)?,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn pool(conn: &mut PgConnection, programme: ProgrammeId, id: &str) -> Result<Vec<OutputResult>, sqlx::Error> {
    let text = sqlx::query_scalar!(
        r#"SELECT results::text AS "results!" FROM cohort_sample WHERE programme_id = $1 AND cohort_id = $2"#,
        programme.0,
        id,
    )
    .fetch_one(conn)
    .await?;
    serde_json::from_str(&text).map_err(super::unreadable)
}

/// Writes a decision and where it stands.
pub async fn insert(conn: &mut PgConnection, decision: &StoredDecision) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO decision
             (decision_id, programme_id, member_id, period_start, action, policy_version, value_model_version, input_hash, inputs,
              outcome, currency_code, actor, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::json, $10::text::json, $11, $12, $13)",
        decision.id.0,
        decision.programme.0,
        decision.member.0,
        decision.inputs.period.start,
        decision.outcome.decision.action.name(),
        decision.policy_version,
        decision.inputs.value_model_version,
        decision.input_hash,
        decision.inputs_text,
        decision.outcome_text,
        decision.currency,
        decision.decided_by,
        decision.created_at,
    )
    .execute(&mut *conn)
    .await?;
    let approved_by = Some(decision.progress.approved_by()).filter(|by| !by.is_empty());
    sqlx::query!(
        "INSERT INTO decision_progress (decision_id, state, approved_by, update_time)
         VALUES ($1, $2, $3, $4)",
        decision.id.0,
        decision.progress.name(),
        approved_by,
        decision.created_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks where a decision stands until the transaction ends, and reads the decision.
pub async fn lock(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: DecisionId,
) -> Result<Option<StoredDecision>, sqlx::Error> {
    let locked = sqlx::query_scalar!(
        "SELECT p.decision_id
         FROM decision_progress AS p
         JOIN decision AS d ON d.decision_id = p.decision_id
         WHERE d.programme_id = $1 AND p.decision_id = $2
         FOR UPDATE OF p",
        programme.0,
        id.0,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if locked.is_some() { find(conn, programme, id).await } else { Ok(None) }
}

pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: DecisionId,
) -> Result<Option<StoredDecision>, sqlx::Error> {
    let before = Uuid::from_u128(id.0.as_u128().saturating_sub(1));
    let found = list(conn, programme, DecisionFilter::default(), Some(before), 1).await?;
    Ok(found.into_iter().find(|decision| decision.id == id))
}

/// Which decisions a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecisionFilter {
    pub member: Option<MemberId>,
    /// Those of the period that begins then.
    pub period_start: Option<DateTime<Utc>>,
}

/// Decisions after an id, in order of creation.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    filter: DecisionFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<StoredDecision>, sqlx::Error> {
    let person = super::member::ids(conn, programme, filter.member).await?;
    let rows = sqlx::query_as!(
        DecisionRow,
        r#"SELECT d.decision_id, d.programme_id, coalesce(a.leads_to, d.member_id) AS "member_id!", d.policy_version, d.input_hash, d.inputs::text AS "inputs!",
                  d.outcome::text AS "outcome!", d.currency_code, d.actor, d.create_time, p.state, p.approved_by,
                  p.profile_result, p.tier_result, p.limit_result
           FROM decision AS d
           JOIN decision_progress AS p ON p.decision_id = d.decision_id
           LEFT JOIN member_alias AS a ON a.programme_id = d.programme_id AND a.member_id = d.member_id
           WHERE d.programme_id = $1
             AND ($2::uuid IS NULL OR d.decision_id > $2)
             AND ($3::uuid[] IS NULL OR d.member_id = ANY ($3))
             AND ($4::timestamptz IS NULL OR d.period_start = $4)
           ORDER BY d.decision_id
           LIMIT $5"#,
        programme.0,
        after,
        person.as_deref(),
        filter.period_start,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(StoredDecision::try_from).collect()
}

/// Writes where a decision stands now. It is locked.
pub async fn put_progress(
    conn: &mut PgConnection,
    id: DecisionId,
    progress: &Progress,
    reason: Option<&str>,
) -> Result<(), sqlx::Error> {
    let approved_by = Some(progress.approved_by()).filter(|by| !by.is_empty());
    sqlx::query!(
        "UPDATE decision_progress
         SET state = $2, approved_by = $3, approve_reason = coalesce($4, approve_reason), update_time = koc_now()
         WHERE decision_id = $1",
        id.0,
        progress.name(),
        approved_by,
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was sent to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Profile,
    Tier,
    Limit,
}

/// Keeps what a peer answered.
pub async fn put_result(conn: &mut PgConnection, id: DecisionId, what: Applied, answer: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE decision_progress
         SET profile_result = CASE WHEN $2 = 'PROFILE' THEN $3 ELSE profile_result END,
             tier_result = CASE WHEN $2 = 'TIER' THEN $3 ELSE tier_result END,
             limit_result = CASE WHEN $2 = 'LIMIT' THEN $3 ELSE limit_result END,
             update_time = koc_now()
         WHERE decision_id = $1",
        id.0,
        match what {
            Applied::Profile => "PROFILE",
            Applied::Tier => "TIER",
            Applied::Limit => "LIMIT",
        },
        answer,
    )
    .execute(conn)
    .await?;
    Ok(())
}
