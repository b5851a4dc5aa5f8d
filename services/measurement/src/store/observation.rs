//! Readings, totals, and what the spike detector remembers. All set-based: a batch is a handful of statements.

use crate::domain::{
    ids::OutputId,
    output::Metric,
    reading::{Observation, Series, Total},
    spike::SpikeState,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// What readings need of their output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOutput {
    pub member: MemberId,
    pub published_at: DateTime<Utc>,
    pub currency: String,
}

/// Locks the programme's outputs among `ids`, in the order of their ids: readings of one output are taken one batch after another.
pub async fn lock_outputs(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    ids: &[Uuid],
) -> Result<HashMap<OutputId, ReadOutput>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT output_id, member_id, publish_time, currency_code
         FROM output
         WHERE programme_id = $1 AND output_id = ANY ($2)
         ORDER BY output_id
         FOR NO KEY UPDATE",
        programme.0,
        ids,
    )
    .fetch_all(conn)
    .await?;
    let output = rows.into_iter().map(|row| {
        let member = MemberId(row.member_id);
        (OutputId(row.output_id), ReadOutput { member, published_at: row.publish_time, currency: row.currency_code })
    });
    Ok(output.collect())
}

struct Columns {
    outputs: Vec<Uuid>,
    metrics: Vec<i16>,
    paid: Vec<bool>,
}

impl Columns {
    fn of<'a>(series: impl Iterator<Item = &'a Series>) -> Self {
        let mut columns = Self { outputs: Vec::new(), metrics: Vec::new(), paid: Vec::new() };
        for Series { output, metric, paid } in series {
            columns.outputs.push(output.0);
            columns.metrics.push(metric.number());
            columns.paid.push(*paid);
        }
        columns
    }
}

fn series(output: Uuid, metric: i16, paid: bool) -> Result<Series, sqlx::Error> {
    let metric =
        Metric::from_number(metric.into()).ok_or_else(|| sqlx::Error::Decode(format!("{metric} is no metric").into()))?;
    Ok(Series { output: OutputId(output), metric, paid })
}

/// Records readings, no two of the same counter and time; gives those that were not known.
pub async fn insert(
    conn: &mut PgConnection,
    observations: &[Observation],
) -> Result<HashSet<(Series, DateTime<Utc>)>, sqlx::Error> {
    let columns = Columns::of(observations.iter().map(|o| &o.series));
    let times: Vec<DateTime<Utc>> = observations.iter().map(|o| o.at).collect();
    let values: Vec<i64> = observations.iter().map(|o| o.value).collect();
    let rows = sqlx::query!(
        "INSERT INTO observation (output_id, metric, paid, observe_time, value, record_time)
         SELECT o.output_id, o.metric, o.paid, o.time, o.value, koc_now()
         FROM UNNEST($1::uuid[], $2::smallint[], $3::boolean[], $4::timestamptz[], $5::bigint[])
              AS o (output_id, metric, paid, time, value)
         ON CONFLICT ON CONSTRAINT observation_pkey DO NOTHING
         RETURNING output_id, metric, paid, observe_time",
        &columns.outputs,
        &columns.metrics,
        &columns.paid,
        &times,
        &values,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((series(row.output_id, row.metric, row.paid)?, row.observe_time))).collect()
}

/// What was read before at these counters and times.
pub async fn values(
    conn: &mut PgConnection,
    observations: &[Observation],
) -> Result<HashMap<(Series, DateTime<Utc>), i64>, sqlx::Error> {
    let columns = Columns::of(observations.iter().map(|o| &o.series));
    let times: Vec<DateTime<Utc>> = observations.iter().map(|o| o.at).collect();
    let rows = sqlx::query!(
        "SELECT o.output_id, o.metric, o.paid, o.observe_time, o.value
         FROM UNNEST($1::uuid[], $2::smallint[], $3::boolean[], $4::timestamptz[]) AS q (output_id, metric, paid, time)
         JOIN observation AS o
           ON o.output_id = q.output_id AND o.metric = q.metric AND o.paid = q.paid AND o.observe_time = q.time",
        &columns.outputs,
        &columns.metrics,
        &columns.paid,
        &times,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok(((series(row.output_id, row.metric, row.paid)?, row.observe_time), row.value))).collect()
}

/// The totals of all counters of outputs, by output, metric, organic first.
pub async fn totals(conn: &mut PgConnection, outputs: &[Uuid]) -> Result<BTreeMap<Series, Total>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT output_id, metric, paid, value, observe_time, adjusted
         FROM metric_total
         WHERE output_id = ANY ($1)",
        outputs,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let total = Total { value: row.value, at: row.observe_time, adjusted: row.adjusted };
            Ok((series(row.output_id, row.metric, row.paid)?, total))
        })
        .collect()
}

/// Writes totals. Their outputs are locked.
pub async fn put_totals(conn: &mut PgConnection, totals: &[(Series, Total)]) -> Result<(), sqlx::Error> {
    let columns = Columns::of(totals.iter().map(|(series, _)| series));
    let values: Vec<i64> = totals.iter().map(|(_, total)| total.value).collect();
    let times: Vec<DateTime<Utc>> = totals.iter().map(|(_, total)| total.at).collect();
    let adjusted: Vec<bool> = totals.iter().map(|(_, total)| total.adjusted).collect();
    sqlx::query!(
        "INSERT INTO metric_total (output_id, metric, paid, value, observe_time, adjusted)
         SELECT *
         FROM UNNEST($1::uuid[], $2::smallint[], $3::boolean[], $4::bigint[], $5::timestamptz[], $6::boolean[])
         ON CONFLICT ON CONSTRAINT metric_total_pkey DO UPDATE
         SET value = excluded.value, observe_time = excluded.observe_time, adjusted = excluded.adjusted",
        &columns.outputs,
        &columns.metrics,
        &columns.paid,
        &values,
        &times,
        &adjusted,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks counters that a late reading showed to have stepped back. Their outputs are locked.
pub async fn mark_adjusted(conn: &mut PgConnection, late: &[Series]) -> Result<(), sqlx::Error> {
    let columns = Columns::of(late.iter());
    sqlx::query!(
        "UPDATE metric_total AS t
         SET adjusted = true
         FROM UNNEST($1::uuid[], $2::smallint[], $3::boolean[]) AS q (output_id, metric, paid)
         WHERE t.output_id = q.output_id AND t.metric = q.metric AND t.paid = q.paid AND NOT t.adjusted
           AND EXISTS (
               SELECT
               FROM (SELECT o.value, lag(o.value) OVER (ORDER BY o.observe_time) AS before
                     FROM observation AS o
                     WHERE o.output_id = q.output_id AND o.metric = q.metric AND o.paid = q.paid) AS r
               WHERE r.value < r.before)",
        &columns.outputs,
        &columns.metrics,
        &columns.paid,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether the paid counter of a metric grew in (from, until].
pub async fn grew_paid(
    conn: &mut PgConnection,
    output: OutputId,
    metric: Metric,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(max(value) FILTER (WHERE observe_time <= $4), 0)
                    > coalesce(max(value) FILTER (WHERE observe_time <= $3), 0) AS "grew!"
           FROM observation
           WHERE output_id = $1 AND metric = $2 AND paid"#,
        output.0,
        metric.number(),
        from,
        until,
    )
    .fetch_one(conn)
    .await
}

/// What the detector remembers of outputs; none of those that were not read yet.
pub async fn spike_states(conn: &mut PgConnection, outputs: &[Uuid]) -> Result<BTreeMap<OutputId, SpikeState>, sqlx::Error> {
    let rows =
        sqlx::query!("SELECT output_id, state FROM spike_state WHERE output_id = ANY ($1)", outputs).fetch_all(conn).await?;
    rows.into_iter()
        .map(|row| Ok((OutputId(row.output_id), serde_json::from_value(row.state).map_err(super::unreadable)?)))
        .collect()
}

/// Writes what the detector remembers. The outputs are locked.
pub async fn put_spike_states(conn: &mut PgConnection, states: &BTreeMap<OutputId, SpikeState>) -> Result<(), sqlx::Error> {
    let outputs: Vec<Uuid> = states.keys().map(|id| id.0).collect();
    let documents: Vec<serde_json::Value> =
        states.values().map(serde_json::to_value).collect::<Result<_, _>>().map_err(super::unreadable)?;
    sqlx::query!(
        "INSERT INTO spike_state (output_id, state)
         SELECT *
         FROM UNNEST($1::uuid[], $2::jsonb[])
         ON CONFLICT ON CONSTRAINT spike_state_pkey DO UPDATE
         SET state = excluded.state",
        &outputs,
        &documents,
    )
    .execute(conn)
    .await?;
    Ok(())
}
