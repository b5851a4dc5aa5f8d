//! Outputs, their targets and their costs.

use crate::domain::{
    ids::OutputId,
    output::{Counters, Measured, Metric, Output},
};
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use uuid::Uuid;

/// Class of the advisory locks on assignments. The database is shared with other services, so their classes differ.
const ASSIGNMENT_LOCK: i32 = 0x6b6d_6173;

struct OutputRow {
    output_id: Uuid,
    programme_id: Uuid,
    member_id: Uuid,
    assignment_id: Uuid,
    brief_id: Uuid,
    deliverable_key: String,
    deliverable_kind: String,
    platform: String,
    tier_id: String,
    publish_time: DateTime<Utc>,
    currency_code: String,
    reward_minor: i64,
    boost_minor: i64,
    create_time: DateTime<Utc>,
}

impl From<OutputRow> for Output {
    fn from(row: OutputRow) -> Self {
        Self {
            id: OutputId(row.output_id),
            programme: ProgrammeId(row.programme_id),
            member: MemberId(row.member_id),
            assignment: row.assignment_id,
            brief: row.brief_id,
            deliverable_key: row.deliverable_key,
            kind: row.deliverable_kind,
            platform: row.platform,
            tier: row.tier_id,
            published_at: row.publish_time,
            currency: row.currency_code,
            reward_minor: row.reward_minor,
            boost_minor: row.boost_minor,
            created_at: row.create_time,
        }
    }
}

/// What an output should reach, and what it reached in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attainment {
    pub output: OutputId,
    pub metric: i16,
    pub target_value: i64,
    /// Organic and paid.
    pub reached_value: i64,
    pub due: DateTime<Utc>,
}

/// A target of a new output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewTarget {
    pub metric: i16,
    pub target_value: i64,
    pub within_days: i32,
}

/// Which outputs a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputFilter {
    pub member: Option<MemberId>,
    pub assignment: Option<Uuid>,
}

/// Registers an output with its targets; false when its deliverable was registered before.
pub async fn insert(conn: &mut PgConnection, output: &Output, targets: &[NewTarget]) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        "INSERT INTO output
             (output_id, programme_id, member_id, assignment_id, brief_id, deliverable_key, deliverable_kind, platform, tier_id,
              publish_time, currency_code, reward_minor, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT ON CONSTRAINT output_deliverable DO NOTHING",
        output.id.0,
        output.programme.0,
        output.member.0,
        output.assignment,
        output.brief,
        output.deliverable_key,
        output.kind,
        output.platform,
        output.tier,
        output.published_at,
        output.currency,
        output.reward_minor,
        output.created_at,
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    let metrics: Vec<i16> = targets.iter().map(|target| target.metric).collect();
    let values: Vec<i64> = targets.iter().map(|target| target.target_value).collect();
    let days: Vec<i32> = targets.iter().map(|target| target.within_days).collect();
    sqlx::query!(
        "INSERT INTO output_target (output_id, ordinal, metric, target_value, within_days)
         SELECT $1, t.nr, t.metric, t.value, t.days
         FROM UNNEST($2::smallint[], $3::bigint[], $4::integer[]) WITH ORDINALITY AS t (metric, value, days, nr)",
        output.id.0,
        &metrics,
        &values,
        &days,
    )
    .execute(conn)
    .await?;
    Ok(true)
}

pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, id: OutputId) -> Result<Option<Output>, sqlx::Error> {
    let filter = OutputFilter::default();
    let before = Uuid::from_u128(id.0.as_u128().saturating_sub(1));
    let found = list(conn, programme, filter, Some(before), 1).await?;
    Ok(found.into_iter().find(|output| output.id == id))
}

/// Outputs after an id, in order of creation. Those of a member that was merged are the other's.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    filter: OutputFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Output>, sqlx::Error> {
    let person = super::member::ids(conn, programme, filter.member).await?;
    let rows = sqlx::query_as!(
        OutputRow,
        r#"SELECT o.output_id, o.programme_id, coalesce(a.leads_to, o.member_id) AS "member_id!", o.assignment_id, o.brief_id, o.deliverable_key, o.deliverable_kind,
                  o.platform, o.tier_id, o.publish_time, o.currency_code, o.reward_minor - o.returned_minor AS "reward_minor!", o.create_time,
                  (SELECT coalesce(sum(p.amount_minor), 0)::bigint
                   FROM reserve_draw AS d
                   JOIN reserve_draw_posting AS p ON p.reserve_draw_id = d.reserve_draw_id AND p.programme_id = d.programme_id
                   WHERE d.output_id = o.output_id AND d.programme_id = o.programme_id) AS "boost_minor!"
           FROM output AS o
           LEFT JOIN member_alias AS a ON a.programme_id = o.programme_id AND a.member_id = o.member_id
           WHERE o.programme_id = $1
             AND ($2::uuid IS NULL OR o.output_id > $2)
             AND ($3::uuid[] IS NULL OR o.member_id = ANY ($3))
             AND ($4::uuid IS NULL OR o.assignment_id = $4)
           ORDER BY o.output_id
           LIMIT $5"#,
        programme.0,
        after,
        person.as_deref(),
        filter.assignment,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Output::from).collect())
}

/// The newest outputs published in [from, until), at most `limit`.
pub async fn published(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Output>, sqlx::Error> {
    let rows = sqlx::query_as!(
        OutputRow,
        r#"SELECT o.output_id, o.programme_id, coalesce(a.leads_to, o.member_id) AS "member_id!", o.assignment_id, o.brief_id, o.deliverable_key, o.deliverable_kind,
                  o.platform, o.tier_id, o.publish_time, o.currency_code, o.reward_minor - o.returned_minor AS "reward_minor!", o.create_time,
                  (SELECT coalesce(sum(p.amount_minor), 0)::bigint
                   FROM reserve_draw AS d
                   JOIN reserve_draw_posting AS p ON p.reserve_draw_id = d.reserve_draw_id AND p.programme_id = d.programme_id
                   WHERE d.output_id = o.output_id AND d.programme_id = o.programme_id) AS "boost_minor!"
           FROM output AS o
           LEFT JOIN member_alias AS a ON a.programme_id = o.programme_id AND a.member_id = o.member_id
           WHERE o.programme_id = $1 AND o.publish_time >= $2 AND o.publish_time < $3
           ORDER BY o.publish_time DESC, o.output_id
           LIMIT $4"#,
        programme.0,
        from,
        until,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Output::from).collect())
}

/// The newest outputs of one member, by any of its ids, published in [from, until), at most `limit`.
pub async fn published_by(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Output>, sqlx::Error> {
    let person = super::member::ids(conn, programme, Some(member)).await?.unwrap_or_default();
    let rows = sqlx::query_as!(
        OutputRow,
        r#"SELECT o.output_id, o.programme_id, coalesce(a.leads_to, o.member_id) AS "member_id!", o.assignment_id, o.brief_id, o.deliverable_key, o.deliverable_kind,
                  o.platform, o.tier_id, o.publish_time, o.currency_code, o.reward_minor - o.returned_minor AS "reward_minor!", o.create_time,
                  (SELECT coalesce(sum(p.amount_minor), 0)::bigint
                   FROM reserve_draw AS d
                   JOIN reserve_draw_posting AS p ON p.reserve_draw_id = d.reserve_draw_id AND p.programme_id = d.programme_id
                   WHERE d.output_id = o.output_id AND d.programme_id = o.programme_id) AS "boost_minor!"
           FROM output AS o
           LEFT JOIN member_alias AS a ON a.programme_id = o.programme_id AND a.member_id = o.member_id
           WHERE o.programme_id = $1 AND o.member_id = ANY ($2) AND o.publish_time >= $3 AND o.publish_time < $4
           ORDER BY o.publish_time DESC, o.output_id
           LIMIT $5"#,
        programme.0,
        &person,
        from,
        until,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Output::from).collect())
}

/// Adds to outputs what their counters said at `as_of`, or at the end of their attribution window if that is earlier.
pub async fn measure(
    conn: &mut PgConnection,
    outputs: Vec<Output>,
    as_of: DateTime<Utc>,
    attribution_days: u32,
) -> Result<Vec<Measured>, sqlx::Error> {
    let ids: Vec<Uuid> = outputs.iter().map(|output| output.id.0).collect();
    let window = TimeDelta::days(i64::from(attribution_days));
    let until: Vec<DateTime<Utc>> = outputs.iter().map(|output| as_of.min(output.published_at + window)).collect();
    let rows = sqlx::query!(
        r#"SELECT q.nr AS "nr!", t.metric, t.paid, r.value
           FROM UNNEST($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS q (output_id, until, nr)
           JOIN metric_total AS t ON t.output_id = q.output_id
           CROSS JOIN LATERAL (
               SELECT o.value
               FROM observation AS o
               WHERE o.output_id = t.output_id AND o.metric = t.metric AND o.paid = t.paid AND o.observe_time <= q.until
               ORDER BY o.observe_time DESC
               LIMIT 1
           ) AS r"#,
        &ids,
        &until,
    )
    .fetch_all(conn)
    .await?;
    let mut measured: Vec<Measured> =
        outputs.into_iter().map(|output| Measured { output, counters: Counters::default() }).collect();
    for row in rows {
        let place = usize::try_from(row.nr - 1).ok().and_then(|place| measured.get_mut(place));
        if let (Some(place), Some(metric), Ok(value)) = (place, Metric::from_number(row.metric.into()), u64::try_from(row.value))
        {
            place.counters.set(metric, row.paid, value);
        }
    }
    Ok(measured)
}

/// How far outputs reached their targets, in the order of the targets.
pub async fn attainments(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Attainment>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT t.output_id, t.metric, t.target_value, d.due AS "due!",
                  (SELECT coalesce(sum(r.value), 0)::bigint
                   FROM (SELECT DISTINCT ON (b.paid) b.value
                         FROM observation AS b
                         WHERE b.output_id = t.output_id AND b.metric = t.metric AND b.observe_time <= d.due
                         ORDER BY b.paid, b.observe_time DESC) AS r) AS "reached_value!"
           FROM output_target AS t
           JOIN output AS o ON o.output_id = t.output_id
           CROSS JOIN LATERAL (SELECT o.publish_time + t.within_days * interval '24 hours' AS due) AS d
           WHERE t.output_id = ANY ($1)
           ORDER BY t.output_id, t.ordinal"#,
        ids,
    )
    .fetch_all(conn)
    .await?;
    let attainment = rows.into_iter().map(|row| Attainment {
        output: OutputId(row.output_id),
        metric: row.metric,
        target_value: row.target_value,
        reached_value: row.reached_value,
        due: row.due,
    });
    Ok(attainment.collect())
}

/// Keeps for which output a draw is, and whether it was dropped; told again it changes nothing.
pub async fn put_draw(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    draw: Uuid,
    output: OutputId,
    dropped: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO reserve_draw (reserve_draw_id, programme_id, output_id, dropped)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT reserve_draw_pkey DO UPDATE
         SET dropped = reserve_draw.dropped OR excluded.dropped",
        draw,
        programme.0,
        output.0,
        dropped,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps money owed for a draw; a posting that is told again changes nothing.
pub async fn insert_draw_posting(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    draw: Uuid,
    entry: Uuid,
    amount_minor: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO reserve_draw_posting (entry_id, programme_id, reserve_draw_id, amount_minor, record_time)
         VALUES ($1, $2, $3, $4, koc_now())
         ON CONFLICT ON CONSTRAINT reserve_draw_posting_pkey DO NOTHING",
        entry,
        programme.0,
        draw,
        amount_minor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets one transaction at a time change what an assignment's outputs cost, until it ends: its outputs and its money are told by two feeds.
pub async fn lock_assignment(conn: &mut PgConnection, assignment: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT pg_advisory_xact_lock($1, hashtext($2))::text AS "locked""#,
        ASSIGNMENT_LOCK,
        assignment.to_string(),
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Keeps money owed for an assignment, or owed no more; a posting that is told again changes nothing.
pub async fn insert_assignment_posting(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    assignment: Uuid,
    entry: Uuid,
    amount_minor: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO assignment_posting (entry_id, programme_id, assignment_id, amount_minor, record_time)
         VALUES ($1, $2, $3, $4, koc_now())
         ON CONFLICT ON CONSTRAINT assignment_posting_pkey DO NOTHING",
        entry,
        programme.0,
        assignment,
        amount_minor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes what reversals brought back off the rewards of an assignment's outputs, in proportion, to the minor unit: each gets what the sum
/// up to it is due, rounded down, less what those before it got. What was owed beyond the rewards was owed again after a reversal.
pub async fn take_off_returned(conn: &mut PgConnection, programme: ProgrammeId, assignment: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH part AS (
             SELECT output_id, reward_minor,
                    sum(reward_minor) OVER (ORDER BY output_id) AS up_to,
                    sum(reward_minor) OVER () AS reward
             FROM output
             WHERE assignment_id = $1 AND programme_id = $2
         ),
         back AS (
             SELECT coalesce(-sum(amount_minor) FILTER (WHERE amount_minor < 0), 0) AS taken,
                    coalesce(sum(amount_minor) FILTER (WHERE amount_minor > 0), 0) AS owed
             FROM assignment_posting
             WHERE assignment_id = $1 AND programme_id = $2
         ),
         due AS (
             SELECT part.output_id, part.reward_minor, part.up_to, part.reward,
                    least(greatest(back.taken - greatest(back.owed - part.reward, 0), 0), part.reward) AS returned
             FROM part
             CROSS JOIN back
         )
         UPDATE output AS o
         SET returned_minor = div(d.returned * d.up_to, d.reward) - div(d.returned * (d.up_to - d.reward_minor), d.reward)
         FROM due AS d
         WHERE o.output_id = d.output_id AND d.reward > 0",
        assignment,
        programme.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}
