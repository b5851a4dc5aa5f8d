//! How envelopes stood at a time past: the last checkpoint before it, and the entries between.

use crate::{
    domain::{balances::Balances, plan::ResourceClass},
    ids::{EnvelopeId, PlanId},
    store::corrupt,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;

/// The balances of envelopes after their last entries up to `time`.
pub async fn balances_at(
    conn: &mut PgConnection,
    envelopes: &[EnvelopeId],
    time: DateTime<Utc>,
) -> Result<HashMap<EnvelopeId, Balances>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT e.id AS "id!",
                  (coalesce(c.allocated, 0) + coalesce(s.allocated, 0))::bigint AS "allocated!",
                  (coalesce(c.reserved, 0) + coalesce(s.reserved, 0))::bigint AS "reserved!",
                  (coalesce(c.committed, 0) + coalesce(s.committed, 0))::bigint AS "committed!",
                  (coalesce(c.spent, 0) + coalesce(s.spent, 0))::bigint AS "spent!"
           FROM UNNEST($1::uuid[]) AS e (id)
           LEFT JOIN LATERAL (
               SELECT c.* FROM envelope_checkpoint AS c
               WHERE c.envelope_id = e.id AND c.entry_time <= $2
               ORDER BY c.envelope_sequence DESC
               LIMIT 1
           ) AS c ON true
           LEFT JOIN LATERAL (
               SELECT n.envelope_sequence FROM envelope_checkpoint AS n
               WHERE n.envelope_id = e.id AND n.entry_time > $2
               ORDER BY n.envelope_sequence
               LIMIT 1
           ) AS n ON true
           LEFT JOIN LATERAL (
               SELECT sum(CASE 'FUNDING' WHEN l.credit_account THEN l.amount WHEN l.debit_account THEN -l.amount END) AS allocated,
                      sum(CASE 'RESERVED' WHEN l.debit_account THEN l.amount WHEN l.credit_account THEN -l.amount END) AS reserved,
                      sum(CASE 'COMMITTED' WHEN l.debit_account THEN l.amount WHEN l.credit_account THEN -l.amount END) AS committed,
                      sum(CASE 'SPENT' WHEN l.debit_account THEN l.amount WHEN l.credit_account THEN -l.amount END) AS spent
               FROM ledger_entry AS l
               WHERE l.envelope_id = e.id AND l.entry_time <= $2
                 AND l.envelope_sequence > coalesce(c.envelope_sequence, 0)
                 AND l.envelope_sequence <= coalesce(n.envelope_sequence, 9223372036854775807)
           ) AS s ON true"#,
        &envelopes.iter().map(|id| id.0).collect::<Vec<_>>(),
        time,
    )
    .fetch_all(conn)
    .await?;
    let balances = rows.into_iter().map(|row| {
        let balances = Balances { allocated: row.allocated, reserved: row.reserved, committed: row.committed, spent: row.spent };
        (EnvelopeId(row.id), balances)
    });
    Ok(balances.collect())
}

/// As `store::envelope::members`, of a time past. It adds up all entries of the plan's members up to it.
pub async fn members_at(
    conn: &mut PgConnection,
    plan: PlanId,
    time: DateTime<Utc>,
) -> Result<HashMap<ResourceClass, (i64, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT m.resource_class, count(*) AS "members!", coalesce(sum(m.in_use), 0)::bigint AS "in_use!"
           FROM (
               SELECT e.resource_class, r.member_id,
                      sum(CASE 'AVAILABLE' WHEN l.credit_account THEN l.amount WHEN l.debit_account THEN -l.amount ELSE 0 END) AS in_use
               FROM envelope AS e
               JOIN ledger_entry AS l ON l.envelope_id = e.envelope_id
               JOIN reservation AS r ON r.reservation_id = l.reservation_id
               WHERE e.plan_id = $1 AND l.entry_time <= $2 AND r.member_id IS NOT NULL
               GROUP BY e.resource_class, r.member_id
           ) AS m
           WHERE m.in_use > 0
           GROUP BY m.resource_class"#,
        plan.0,
        time,
    )
    .fetch_all(conn)
    .await?;
    let class = |text: &str| ResourceClass::parse(text).ok_or_else(|| corrupt("envelope.resource_class"));
    rows.into_iter().map(|row| Ok((class(&row.resource_class)?, (row.members, row.in_use)))).collect()
}

/// Notes how each envelope stands that has at least `spacing` entries more than when it was noted last; says how many were.
pub async fn add_checkpoints(conn: &mut PgConnection, spacing: i64) -> Result<u64, sqlx::Error> {
    let added = sqlx::query!(
        "INSERT INTO envelope_checkpoint (envelope_id, envelope_sequence, entry_time, allocated, reserved, committed, spent)
         SELECT e.envelope_id, e.sequence, l.entry_time, e.allocated, e.reserved, e.committed, e.spent
         FROM envelope AS e
         JOIN ledger_entry AS l ON l.envelope_id = e.envelope_id AND l.envelope_sequence = e.sequence
         WHERE e.sequence >= $1 + coalesce(
             (SELECT max(c.envelope_sequence) FROM envelope_checkpoint AS c WHERE c.envelope_id = e.envelope_id), 0)
         ON CONFLICT DO NOTHING",
        spacing,
    )
    .execute(conn)
    .await?;
    Ok(added.rows_affected())
}
