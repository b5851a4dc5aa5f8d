//! Events for endpoints: what is to be sent, and what became of it.

use super::unknown;
use crate::domain::{
    member_feed::{EventKind, Told},
    webhook::{Attempt, Delivery, DeliveryState, KEPT_ATTEMPTS, WebhookId},
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::MemberId;
use sqlx::{PgConnection, types::Json};
use std::time::Duration;
use uuid::Uuid;

struct Row {
    position: i64,
    fact_id: Uuid,
    member_id: Uuid,
    kind: String,
    changed_fields: Vec<String>,
    event_time: DateTime<Utc>,
    state: String,
    attempt_count: i32,
    next_attempt_time: DateTime<Utc>,
    attempts: Json<Vec<Attempt>>,
}

impl Row {
    fn into_delivery(self) -> Result<Delivery, sqlx::Error> {
        Ok(Delivery {
            position: self.position,
            fact: self.fact_id,
            member: MemberId(self.member_id),
            kind: EventKind::from_name(&self.kind).ok_or_else(|| unknown("webhook_delivery.kind"))?,
            changed_fields: self.changed_fields,
            event_time: self.event_time,
            state: DeliveryState::from_name(&self.state).ok_or_else(|| unknown("webhook_delivery.state"))?,
            attempt_count: self.attempt_count.unsigned_abs(),
            next_attempt_time: self.next_attempt_time,
            attempts: self.attempts.0,
        })
    }
}

/// Takes events up, at once to be sent; those that were taken up before are to be sent anew.
pub async fn insert_all(conn: &mut PgConnection, id: WebhookId, events: &[Told]) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let positions: Vec<i64> = events.iter().map(|event| event.position).collect();
    let facts: Vec<Uuid> = events.iter().map(|event| event.fact.unwrap_or_default()).collect();
    let members: Vec<Uuid> = events.iter().map(|event| event.member.0).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.name()).collect();
    // An array of arrays must be a rectangle in Postgres, so the fields of each come as one text.
    let fields: Vec<String> = events.iter().map(|event| event.changed_fields.join(",")).collect();
    let times: Vec<DateTime<Utc>> = events.iter().map(|event| event.time).collect();
    sqlx::query!(
        "INSERT INTO webhook_delivery (
             webhook_id, position, fact_id, member_id, kind, changed_fields, event_time, state, attempt_count, next_attempt_time, attempts,
             create_time
         )
         SELECT $1, e.position, e.fact_id, e.member_id, e.kind, string_to_array(e.fields, ','), e.event_time, 'PENDING', 0, koc_now(), '[]',
                koc_now()
         FROM UNNEST($2::bigint[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[])
              AS e (position, fact_id, member_id, kind, fields, event_time)
         ON CONFLICT (webhook_id, position)
         DO UPDATE SET state = 'PENDING', attempt_count = 0, next_attempt_time = excluded.next_attempt_time,
                       create_time = excluded.create_time",
        id.0,
        &positions,
        &facts,
        &members,
        &kinds as &[&str],
        &fields,
        &times,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether more events may be taken up: fewer than `fresh` have not been sent at all and wait for no other of their member, and fewer than
/// `all` wait in all. What is refused again and again so holds up nothing else until there is very much of it.
pub async fn has_room(conn: &mut PgConnection, id: WebhookId, fresh: i64, all: i64) -> Result<bool, sqlx::Error> {
    let room = sqlx::query_scalar!(
        r#"SELECT (SELECT count(*) FROM (SELECT FROM webhook_delivery WHERE webhook_id = $1 AND state = 'PENDING' LIMIT $3) AS waiting) < $3
              AND (SELECT count(*)
                   FROM (SELECT
                         FROM webhook_delivery AS d
                         WHERE d.webhook_id = $1 AND d.state = 'PENDING' AND d.attempt_count = 0
                           AND NOT EXISTS (SELECT FROM webhook_delivery AS e
                                           WHERE e.webhook_id = $1 AND e.state = 'PENDING' AND e.member_id = d.member_id
                                             AND e.position < d.position)
                         LIMIT $2) AS new) < $2 AS "room!""#,
        id.0,
        fresh,
        all,
    );
    room.fetch_one(conn).await
}

/// Events to be sent now: of each member the first that waits, if it is its time.
pub async fn due(conn: &mut PgConnection, id: WebhookId, limit: i64) -> Result<Vec<Delivery>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT position AS "position!", fact_id AS "fact_id!", member_id AS "member_id!", kind AS "kind!",
                  changed_fields AS "changed_fields!", event_time AS "event_time!", state AS "state!",
                  attempt_count AS "attempt_count!", next_attempt_time AS "next_attempt_time!",
                  attempts AS "attempts!: Json<Vec<Attempt>>"
           FROM (
               SELECT DISTINCT ON (member_id) *
               FROM webhook_delivery
               WHERE webhook_id = $1 AND state = 'PENDING'
               ORDER BY member_id, position
           ) AS first
           WHERE next_attempt_time <= koc_now()
           ORDER BY next_attempt_time, position
           LIMIT $2"#,
        id.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::into_delivery).collect()
}

/// Keeps what became of an attempt; `wait` until the next, where there is one.
pub async fn record(
    conn: &mut PgConnection,
    id: WebhookId,
    delivery: &Delivery,
    attempt: &Attempt,
    state: DeliveryState,
    wait: Duration,
) -> Result<(), sqlx::Error> {
    let mut attempts = delivery.attempts.clone();
    attempts.push(attempt.clone());
    let first = attempts.len().saturating_sub(KEPT_ATTEMPTS);
    sqlx::query!(
        "UPDATE webhook_delivery
         SET state = $3, attempt_count = attempt_count + 1, next_attempt_time = koc_now() + $4 * interval '1 second', attempts = $5
         WHERE webhook_id = $1 AND position = $2 AND state = 'PENDING'",
        id.0,
        delivery.position,
        state.name(),
        wait.as_secs_f64(),
        Json(&attempts[first..]) as Json<&[Attempt]>,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deliveries before a position, the newest first.
pub async fn list(
    conn: &mut PgConnection,
    id: WebhookId,
    state: Option<DeliveryState>,
    before: i64,
    limit: i64,
) -> Result<Vec<Delivery>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT position, fact_id, member_id, kind, changed_fields, event_time, state, attempt_count, next_attempt_time,
                  attempts AS "attempts: Json<Vec<Attempt>>"
           FROM webhook_delivery
           WHERE webhook_id = $1 AND position < $2 AND ($3::text IS NULL OR state = $3)
           ORDER BY position DESC
           LIMIT $4"#,
        id.0,
        before,
        state.map(DeliveryState::name),
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::into_delivery).collect()
}

/// Sends one anew, at once; None when there is none.
pub async fn redeliver(conn: &mut PgConnection, id: WebhookId, position: i64) -> Result<Option<Delivery>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"UPDATE webhook_delivery
           SET state = 'PENDING', attempt_count = 0, next_attempt_time = koc_now()
           WHERE webhook_id = $1 AND position = $2
           RETURNING position, fact_id, member_id, kind, changed_fields, event_time, state, attempt_count, next_attempt_time,
                     attempts AS "attempts: Json<Vec<Attempt>>""#,
        id.0,
        position,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Row::into_delivery).transpose()
}

/// Makes all that waits due at once, with all attempts anew.
pub async fn revive(conn: &mut PgConnection, id: WebhookId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE webhook_delivery
         SET attempt_count = 0, next_attempt_time = koc_now()
         WHERE webhook_id = $1 AND state = 'PENDING'",
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets some that were taken up so long ago and do not wait; gives how many.
pub async fn purge(conn: &mut PgConnection, keep: Duration, limit: i64) -> Result<u64, sqlx::Error> {
    let purged = sqlx::query!(
        "DELETE FROM webhook_delivery
         WHERE (webhook_id, position) IN (
             SELECT webhook_id, position
             FROM webhook_delivery
             WHERE state <> 'PENDING' AND create_time < koc_now() - $1 * interval '1 second'
             LIMIT $2)",
        keep.as_secs_f64(),
        limit,
    );
    Ok(purged.execute(conn).await?.rows_affected())
}
