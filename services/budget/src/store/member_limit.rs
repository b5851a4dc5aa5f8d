//! Limits per member and period.

use super::corrupt;
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

/// A limit of the member for another period that overlaps this one, if there is one. Under the member's lock.
pub async fn overlapping(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    period: &Period,
) -> Result<Option<Period>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT period_start_time, period_end_time FROM member_limit
         WHERE programme_id = $1 AND member_id = $2 AND NOT borrowed AND period_start_time < $4 AND $3 < period_end_time
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
         SET amount = excluded.amount, borrowed = false, set_aside = NULL, set_aside_for = NULL, decision_id = excluded.decision_id,
             reason = excluded.reason, set_by = excluded.set_by, update_time = excluded.update_time
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

/// Sets aside what the other ids of a person had for a period of their own, as the limit of `holds` is that of all of them. Under their locks.
pub async fn set_aside(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    person: &[MemberId],
    holds: MemberId,
    period: &Period,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE member_limit
         SET amount = 0, set_aside = amount, set_aside_for = $3, update_time = koc_now()
         WHERE programme_id = $1 AND member_id = ANY ($2) AND member_id <> $3 AND amount > 0
           AND (period_start_time, period_end_time) = ($4, $5)",
        programme.0,
        &person.iter().map(|member| member.0).collect::<Vec<_>>(),
        holds.0,
        period.start(),
        period.end(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives each of these members its own limits back that were set aside for one that is another person by now. Under their locks.
pub async fn take_back(conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE member_limit AS l
         SET amount = l.set_aside, set_aside = NULL, set_aside_for = NULL, update_time = koc_now()
         WHERE l.programme_id = $1 AND l.member_id = ANY ($2) AND l.set_aside IS NOT NULL AND l.amount = 0
           AND coalesce((SELECT a.leads_to FROM member_alias AS a WHERE a.programme_id = $1 AND a.member_id = l.member_id), l.member_id)
               <> coalesce((SELECT a.leads_to FROM member_alias AS a WHERE a.programme_id = $1 AND a.member_id = l.set_aside_for),
                           l.set_aside_for)",
        programme.0,
        &members.iter().map(|member| member.0).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes away what members of one person have borrowed of each other. Under their locks.
pub async fn take_borrowed(conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM member_limit
         WHERE programme_id = $1 AND member_id = ANY ($2) AND borrowed",
        programme.0,
        &members.iter().map(|member| member.0).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets each of these members stand beside the limits of those that are one person with it, where it has none for the period: with an
/// amount of 0, so that what it has in use counts. Under their locks, when nothing is borrowed; a limit of its own for a period that overlaps
/// stands as it is.
pub async fn lend(conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let lent = sqlx::query!(
        r#"SELECT DISTINCT m.id AS "member_id!", l.period_start_time, l.period_end_time
           FROM UNNEST($2::uuid[]) AS m (id)
           LEFT JOIN member_alias AS a ON a.programme_id = $1 AND a.member_id = m.id
           JOIN member_limit AS l ON l.programme_id = $1 AND l.member_id = ANY ($2) AND l.member_id <> m.id
           LEFT JOIN member_alias AS b ON b.programme_id = $1 AND b.member_id = l.member_id
           WHERE coalesce(a.leads_to, m.id) = coalesce(b.leads_to, l.member_id)
           ORDER BY 1, 2, 3"#,
        programme.0,
        &ids,
    )
    .fetch_all(&mut *conn)
    .await?;
    // One after the other, as they must not overlap either.
    for row in lent {
        sqlx::query!(
            "INSERT INTO member_limit (programme_id, member_id, period_start_time, period_end_time, amount, used, borrowed, reason, set_by,
                                       update_time)
             SELECT $1, $2, $3, $4, 0, coalesce(sum(r.reserved + r.committed + r.spent), 0)::bigint, true, 'merged', 'registry', koc_now()
             FROM reservation AS r
             JOIN envelope AS e ON e.envelope_id = r.envelope_id
             JOIN plan AS p ON p.plan_id = e.plan_id
             WHERE r.programme_id = $1 AND r.member_id = $2 AND $3 <= p.period_start_time AND p.period_end_time <= $4
             HAVING NOT EXISTS (SELECT FROM member_limit AS l
                                WHERE l.programme_id = $1 AND l.member_id = $2
                                  AND l.period_start_time < $4 AND $3 < l.period_end_time)",
            programme.0,
            row.member_id,
            row.period_start_time,
            row.period_end_time,
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Limits of a programme by member and period, after one; only a member's. Those of members that are one person are summed for each
/// period, and shown for the one that goes on.
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
        r#"SELECT l.programme_id, l.member_id, l.period_start_time, l.period_end_time, l.amount + coalesce(o.amount, 0) AS "amount!",
                  l.used + coalesce(o.used, 0) AS "used!", l.decision_id, l.reason
           FROM member_limit AS l
           LEFT JOIN LATERAL (
               SELECT sum(o.amount)::bigint AS amount, sum(o.used)::bigint AS used
               FROM member_alias AS a
               JOIN member_limit AS o ON o.programme_id = a.programme_id AND o.member_id = a.member_id
               WHERE a.programme_id = l.programme_id AND a.leads_to = l.member_id
                 AND (o.period_start_time, o.period_end_time) = (l.period_start_time, l.period_end_time)
           ) AS o ON true
           WHERE l.programme_id = $1
             AND ($2::uuid IS NULL OR l.member_id = $2)
             AND ($3::uuid IS NULL OR (l.member_id, l.period_start_time) > ($3, $4::timestamptz))
             AND NOT EXISTS (SELECT FROM member_alias AS a WHERE a.programme_id = l.programme_id AND a.member_id = l.member_id)
           ORDER BY l.member_id, l.period_start_time
           LIMIT $5"#,
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
