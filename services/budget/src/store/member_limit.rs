//! Limits per member and period.

use super::{corrupt, operation::MEMBER_LOCK};
use crate::{
    domain::{
        member_limit::{LimitUse, MemberLimit},
        period::Period,
    },
    ids::{DecisionId, MemberId, ProgrammeId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct LimitRow {
    programme_id: Uuid,
    member_id: Uuid,
    period_start_time: DateTime<Utc>,
    period_end_time: DateTime<Utc>,
    amount: i64,
    used: i64,
    decision_id: Option<Uuid>,
    reason: String,
}

impl TryFrom<LimitRow> for MemberLimit {
    type Error = sqlx::Error;

    fn try_from(row: LimitRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            usage: LimitUse {
                programme: ProgrammeId(row.programme_id),
                member: MemberId(row.member_id),
                period: Period::new(row.period_start_time, row.period_end_time)
                    .map_err(|_| corrupt("member_limit.period_end_time"))?,
                limit: row.amount,
                used: row.used,
            },
            decision: row.decision_id.map(DecisionId),
            reason: row.reason,
        })
    }
}

/// Keeps all operations on the member's money out until the transaction ends: they hold the same lock shared.
pub async fn lock_member(conn: &mut PgConnection, member: MemberId) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2::uuid::text))")
        .bind(MEMBER_LOCK)
        .bind(member.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// A limit of the member for another period that overlaps this one, if there is one. Under the member's lock.
pub async fn overlapping(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    period: &Period,
) -> Result<Option<Period>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT period_start_time, period_end_time FROM member_limit
         WHERE programme_id = $1 AND member_id = $2 AND period_start_time < $4 AND $3 < period_end_time
           AND (period_start_time, period_end_time) <> ($3, $4)
         ORDER BY period_start_time
         LIMIT 1",
        programme.0,
        member.0,
        period.start(),
        period.end(),
    )
    .fetch_optional(conn)
    .await?;
    row.map(|r| Period::new(r.period_start_time, r.period_end_time).map_err(|_| corrupt("member_limit.period_end_time")))
        .transpose()
}

/// Sets a limit; what is in use of a new one is counted from the reservations. Under the member's lock, in a statement after it.
pub async fn set(conn: &mut PgConnection, limit: &MemberLimit, set_by: &str) -> Result<MemberLimit, sqlx::Error> {
    let LimitUse { programme, member, period, limit: amount, .. } = &limit.usage;
    let row = sqlx::query_as!(
        LimitRow,
        "INSERT INTO member_limit (programme_id, member_id, period_start_time, period_end_time, amount, used, decision_id, reason, set_by,
                                   update_time)
         SELECT $1, $2, $3, $4, $5, coalesce(sum(r.reserved + r.committed + r.spent), 0)::bigint, $6, $7, $8, koc_now()
         FROM reservation AS r
         JOIN envelope AS e ON e.envelope_id = r.envelope_id
         JOIN plan AS p ON p.plan_id = e.plan_id
         WHERE r.programme_id = $1 AND r.member_id = $2 AND $3 <= p.period_start_time AND p.period_end_time <= $4
         ON CONFLICT (programme_id, member_id, period_start_time) DO UPDATE
         SET amount = excluded.amount, decision_id = excluded.decision_id, reason = excluded.reason, set_by = excluded.set_by,
             update_time = excluded.update_time
         RETURNING programme_id, member_id, period_start_time, period_end_time, amount, used, decision_id, reason",
        programme.0,
        member.0,
        period.start(),
        period.end(),
        amount,
        limit.decision.map(|d| d.0),
        limit.reason,
        set_by,
    )
    .fetch_one(conn)
    .await?;
    row.try_into()
}

/// Limits of a programme by member and period, after one; only a member's.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: Option<MemberId>,
    after: Option<(Uuid, DateTime<Utc>)>,
    size: i64,
) -> Result<Vec<MemberLimit>, sqlx::Error> {
    let (after_member, after_start) = after.unzip();
    let rows = sqlx::query_as!(
        LimitRow,
        "SELECT programme_id, member_id, period_start_time, period_end_time, amount, used, decision_id, reason
         FROM member_limit
         WHERE programme_id = $1
           AND ($2::uuid IS NULL OR member_id = $2)
           AND ($3::uuid IS NULL OR (member_id, period_start_time) > ($3, $4::timestamptz))
         ORDER BY member_id, period_start_time
         LIMIT $5",
        programme.0,
        member.map(|m| m.0),
        after_member,
        after_start,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(MemberLimit::try_from).collect()
}
