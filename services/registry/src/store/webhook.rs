//! Endpoints that events are posted to. A replica that works for one holds its lease; callers change it at any time.

mod delivery;

pub use delivery::{due, has_room, insert_all, list, purge, record, redeliver, revive};

use super::unknown;
use crate::domain::{
    member_feed::EventKind,
    webhook::{Columns, Reason, Sealed, Webhook, WebhookId, WebhookState},
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

struct Row {
    webhook_id: Uuid,
    programme_id: Uuid,
    url: String,
    kinds: Vec<String>,
    columns: String,
    state: String,
    state_reason: String,
    position: i64,
    failing_since: Option<DateTime<Utc>>,
    version: i64,
    create_time: DateTime<Utc>,
}

impl Row {
    fn into_webhook(self) -> Result<Webhook, sqlx::Error> {
        let kind = |name: &String| EventKind::from_name(name).ok_or_else(|| unknown("webhook.kinds"));
        Ok(Webhook {
            id: WebhookId(self.webhook_id),
            programme: ProgrammeId(self.programme_id),
            url: self.url,
            kinds: self.kinds.iter().map(kind).collect::<Result<_, _>>()?,
            columns: Columns::from_name(&self.columns).ok_or_else(|| unknown("webhook.columns"))?,
            state: WebhookState::from_name(&self.state).ok_or_else(|| unknown("webhook.state"))?,
            reason: Reason::from_name(&self.state_reason),
            position: self.position,
            failing_since: self.failing_since,
            version: self.version,
            create_time: self.create_time,
        })
    }
}

pub async fn insert(conn: &mut PgConnection, webhook: &Webhook, secret: &[u8], actor: &str) -> Result<(), sqlx::Error> {
    let kinds: Vec<&str> = webhook.kinds.iter().map(|kind| kind.name()).collect();
    sqlx::query!(
        "INSERT INTO webhook (webhook_id, programme_id, url, kinds, columns, state, state_reason, position, secret, version, actor,
                              create_time)
         VALUES ($1, $2, $3, $4, $5, $6, '', $7, $8, $9, $10, $11)",
        webhook.id.0,
        webhook.programme.0,
        webhook.url,
        &kinds as &[&str],
        webhook.columns.name(),
        webhook.state.name(),
        webhook.position,
        secret,
        webhook.version,
        actor,
        webhook.create_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A programme's endpoints in order of creation.
pub async fn of_programme(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Vec<Webhook>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT webhook_id, programme_id, url, kinds, columns, state, state_reason, position, failing_since, version, create_time
         FROM webhook
         WHERE programme_id = $1 AND NOT deleted
         ORDER BY webhook_id",
        programme.0,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::into_webhook).collect()
}

pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, id: WebhookId) -> Result<Option<Webhook>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "SELECT webhook_id, programme_id, url, kinds, columns, state, state_reason, position, failing_since, version, create_time
         FROM webhook
         WHERE programme_id = $1 AND webhook_id = $2 AND NOT deleted",
        programme.0,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Row::into_webhook).transpose()
}

pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: WebhookId) -> Result<Option<Webhook>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "SELECT webhook_id, programme_id, url, kinds, columns, state, state_reason, position, failing_since, version, create_time
         FROM webhook
         WHERE programme_id = $1 AND webhook_id = $2 AND NOT deleted
         FOR NO KEY UPDATE",
        programme.0,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Row::into_webhook).transpose()
}

/// Writes back what a caller changed of an endpoint that is locked.
pub async fn update(conn: &mut PgConnection, webhook: &Webhook) -> Result<(), sqlx::Error> {
    let kinds: Vec<&str> = webhook.kinds.iter().map(|kind| kind.name()).collect();
    sqlx::query!(
        "UPDATE webhook
         SET url = $2, kinds = $3, columns = $4, state = $5, state_reason = $6, position = $7, failing_since = $8, version = $9
         WHERE webhook_id = $1",
        webhook.id.0,
        webhook.url,
        &kinds as &[&str],
        webhook.columns.name(),
        webhook.state.name(),
        webhook.reason.map(Reason::name).unwrap_or_default(),
        webhook.position,
        webhook.failing_since,
        webhook.version,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Puts a new secret in place of the present one, which signs until `until` too.
pub async fn rotate(conn: &mut PgConnection, id: WebhookId, secret: &[u8], until: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE webhook
         SET old_secret = secret, old_secret_until = $3, secret = $2
         WHERE webhook_id = $1",
        id.0,
        secret,
        until,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The secrets that sign now.
pub async fn secrets(conn: &mut PgConnection, programme: ProgrammeId, id: WebhookId) -> Result<Option<Sealed>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT secret, CASE WHEN old_secret_until > koc_now() THEN old_secret END AS old_secret
         FROM webhook
         WHERE programme_id = $1 AND webhook_id = $2 AND NOT deleted",
        programme.0,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Sealed { secret: row.secret, old_secret: row.old_secret }))
}

/// Takes an endpoint out of sight, with its secrets; [`purge_deleted`] removes the rest. Paused, so that a replica that does not know of
/// deletion sends nothing either.
pub async fn delete(conn: &mut PgConnection, programme: ProgrammeId, id: WebhookId) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!(
        "UPDATE webhook
         SET deleted = true, state = 'PAUSED', state_reason = '', secret = '', old_secret = NULL, lease_id = NULL
         WHERE programme_id = $1 AND webhook_id = $2 AND NOT deleted",
        programme.0,
        id.0,
    );
    Ok(deleted.execute(conn).await?.rows_affected() == 1)
}

/// Removes some deliveries of an endpoint that was deleted, and once it has none that one; gives how much was removed.
pub async fn purge_deleted(conn: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let deliveries = sqlx::query!(
        "DELETE FROM webhook_delivery
         WHERE (webhook_id, position) IN (
             SELECT d.webhook_id, d.position
             FROM webhook w
             JOIN webhook_delivery d USING (webhook_id)
             WHERE w.deleted
             LIMIT $1)",
        limit,
    );
    let deliveries = deliveries.execute(&mut *conn).await?.rows_affected();
    if deliveries > 0 {
        return Ok(deliveries);
    }
    let webhooks = sqlx::query!(
        "DELETE FROM webhook AS w
         WHERE w.deleted AND NOT EXISTS (SELECT FROM webhook_delivery d WHERE d.webhook_id = w.webhook_id)"
    );
    Ok(webhooks.execute(conn).await?.rows_affected())
}

/// The sealed secrets of some endpoints, in order of creation, after one.
pub async fn all_secrets(conn: &mut PgConnection, after: WebhookId, limit: i64) -> Result<Vec<(WebhookId, Sealed)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT webhook_id, secret, old_secret
         FROM webhook
         WHERE webhook_id > $1 AND NOT deleted
         ORDER BY webhook_id
         LIMIT $2",
        after.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    let sealed = |secret, old_secret| Sealed { secret, old_secret };
    Ok(rows.into_iter().map(|row| (WebhookId(row.webhook_id), sealed(row.secret, row.old_secret))).collect())
}

/// Puts the same secrets, sealed anew, in place of these; nothing when they were changed meanwhile.
pub async fn put_sealed(conn: &mut PgConnection, id: WebhookId, from: &Sealed, to: &Sealed) -> Result<bool, sqlx::Error> {
    let put = sqlx::query!(
        "UPDATE webhook
         SET secret = $4, old_secret = $5
         WHERE webhook_id = $1 AND secret = $2 AND old_secret IS NOT DISTINCT FROM $3",
        id.0,
        from.secret,
        from.old_secret,
        to.secret,
        to.old_secret,
    );
    Ok(put.execute(conn).await?.rows_affected() == 1)
}

/// Takes endpoints that have something to do, for which nobody works, under a lease.
pub async fn claim(
    conn: &mut PgConnection,
    lease: Uuid,
    lease_for: Duration,
    head: i64,
    limit: i64,
) -> Result<Vec<WebhookId>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "UPDATE webhook
         SET lease_id = $1, lease_until = koc_now() + $2 * interval '1 second'
         WHERE webhook_id = ANY (ARRAY(
             SELECT w.webhook_id
             FROM webhook w
             WHERE w.state = 'ACTIVE' AND (w.lease_until IS NULL OR w.lease_until < koc_now())
               AND (w.position < $3 OR EXISTS (
                   SELECT FROM webhook_delivery d
                   WHERE d.webhook_id = w.webhook_id AND d.state = 'PENDING' AND d.next_attempt_time <= koc_now()))
             ORDER BY w.lease_until NULLS FIRST
             LIMIT $4
             FOR NO KEY UPDATE SKIP LOCKED))
         RETURNING webhook_id",
        lease,
        lease_for.as_secs_f64(),
        head,
        limit,
    );
    Ok(ids.fetch_all(conn).await?.into_iter().map(WebhookId).collect())
}

/// Gives an endpoint back; nobody takes it for `rest`.
pub async fn release(conn: &mut PgConnection, id: WebhookId, lease: Uuid, rest: Duration) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE webhook
         SET lease_id = NULL, lease_until = koc_now() + $3 * interval '1 second'
         WHERE webhook_id = $1 AND lease_id = $2",
        id.0,
        lease,
        rest.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The endpoint as it is now, for who holds its lease, which begins anew; None when it is not served any more, or by somebody else.
pub async fn hold(
    conn: &mut PgConnection,
    id: WebhookId,
    lease: Uuid,
    lease_for: Duration,
) -> Result<Option<Webhook>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "UPDATE webhook
         SET lease_until = koc_now() + $3 * interval '1 second'
         WHERE webhook_id = $1 AND lease_id = $2 AND lease_until > koc_now() AND state = 'ACTIVE'
         RETURNING webhook_id, programme_id, url, kinds, columns, state, state_reason, position, failing_since, version, create_time",
        id.0,
        lease,
        lease_for.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await?;
    row.map(Row::into_webhook).transpose()
}

/// Moves an endpoint on in the feed, unless it was moved or taken meanwhile.
pub async fn advance(conn: &mut PgConnection, id: WebhookId, lease: Uuid, from: i64, to: i64) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query!(
        "UPDATE webhook
         SET position = $4
         WHERE webhook_id = $1 AND lease_id = $2 AND position = $3",
        id.0,
        lease,
        from,
        to,
    );
    Ok(moved.execute(conn).await?.rows_affected() == 1)
}

/// Notes whether an endpoint is well, by the answer that was last recorded. Gives since when it fails.
pub async fn note(conn: &mut PgConnection, id: WebhookId, well: bool) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let since = sqlx::query_scalar!(
        "UPDATE webhook
         SET failing_since = CASE WHEN $2 THEN NULL ELSE COALESCE(failing_since, koc_now()) END
         WHERE webhook_id = $1
         RETURNING failing_since",
        id.0,
        well,
    );
    Ok(since.fetch_optional(conn).await?.flatten())
}

/// Ends the service of an endpoint that is served.
pub async fn disable(conn: &mut PgConnection, id: WebhookId, reason: Reason) -> Result<bool, sqlx::Error> {
    let disabled = sqlx::query!(
        "UPDATE webhook
         SET state = 'DISABLED', state_reason = $2
         WHERE webhook_id = $1 AND state = 'ACTIVE'",
        id.0,
        reason.name(),
    );
    Ok(disabled.execute(conn).await?.rows_affected() == 1)
}
