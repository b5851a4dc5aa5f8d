//! Reading the feed of another service: each change has its effect once. The cursor moves in the transaction of the effect; a
//! change that cannot be applied is parked with the later ones of its subject, tried again, and shows in the metrics.

use crate::{
    context::{self, Current, MAX_DEADLINE},
    fault::{Violation, is_transient, reason_of},
    ids::ProgrammeId,
    peer::{self, PeerChannel},
    postgres::Db,
};
use async_trait::async_trait;
use futures::{FutureExt, stream::BoxStream};
use koc_proto::{koc::feed::v1::Change, rules::Rules};
use opentelemetry::{KeyValue, metrics::Gauge, trace::TraceContextExt};
use prost::Message;
use sqlx::{Acquire, PgConnection};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_types::StatusExt;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

/// Changes applied in one transaction.
const BATCH: usize = 50;
/// How often parked facts are looked at.
const PARKED_POLL: Duration = Duration::from_secs(1);
/// The first wait of a parked fact; it doubles up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(300);
/// The first wait after a broken stream or a change that could not be applied for now; it doubles up to [`MAX_RECONNECT`] until a
/// change is applied.
const RECONNECT: Duration = Duration::from_millis(200);
const MAX_RECONNECT: Duration = Duration::from_secs(2);

/// Why an effect did not happen.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// Passes by itself: the change is tried again and nothing overtakes it.
    #[error("{0}")]
    Transient(String),
    /// Does not pass by itself: the change is parked.
    #[error("{0}")]
    Park(String),
}

impl From<sqlx::Error> for EffectError {
    fn from(error: sqlx::Error) -> Self {
        if is_transient(&error) { Self::Transient(error.to_string()) } else { Self::Park(error.to_string()) }
    }
}

impl From<Violation> for EffectError {
    fn from(violation: Violation) -> Self {
        Self::Park(format!("{}: {}", violation.field, violation.description))
    }
}

/// Why reading stopped.
enum Broken {
    Stream(Status),
    Effect(EffectError),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Stream(status)
    }
}

impl From<EffectError> for Broken {
    fn from(error: EffectError) -> Self {
        Self::Effect(error)
    }
}

/// What a change does here.
#[async_trait]
pub trait Effect: Send + Sync {
    async fn apply(&self, conn: &mut PgConnection, change: &Change) -> Result<(), EffectError>;

    /// Brings what is kept here up to what the peer holds now: called before the feed is read for the first time, and when what comes
    /// after the cursor is not kept any more. False when there is no way.
    async fn catch_up(&self) -> Result<bool, EffectError> {
        Ok(false)
    }
}

/// The fact in a change, if it is an `F`.
pub fn fact<F: Rules + Message + Default>(change: &Change) -> Result<Option<F>, EffectError> {
    let Some(any) = &change.fact else { return Ok(None) };
    if any.type_url.rsplit('/').next() != Some(F::NAME) {
        return Ok(None);
    }
    F::decode(any.value.as_slice()).map(Some).map_err(|error| EffectError::Park(format!("{} cannot be read: {error}", F::NAME)))
}

/// The programme that a change belongs to.
pub fn programme_of(change: &Change) -> Result<ProgrammeId, EffectError> {
    ProgrammeId::parse("programme_id", &change.programme_id).map_err(EffectError::from)
}

/// A feed of another service.
#[async_trait]
pub trait Source: Send + Sync {
    /// Changes after a position, with the position reached.
    async fn watch(&self, after: i64) -> Result<BoxStream<'static, Result<(Vec<Change>, i64), Status>>, Status>;
}

/// Makes a [`Source`] of one package's FeedService, e.g. `feed_source!(RegistryFeed, koc_proto::koc::registry::v1)`.
#[macro_export]
macro_rules! feed_source {
    ($name:ident, $pb:path) => {
        /// The feed of a peer.
        pub struct $name(pub $crate::peer::PeerChannel);

        #[async_trait::async_trait]
        impl $crate::consumer::Source for $name {
            async fn watch(
                &self,
                after: i64,
            ) -> Result<
                futures::stream::BoxStream<'static, Result<(Vec<koc_proto::koc::feed::v1::Change>, i64), tonic::Status>>,
                tonic::Status,
            > {
                use $pb as source_pb;
                let mut client = source_pb::feed_service_client::FeedServiceClient::new(self.0.clone());
                let request = source_pb::WatchChangesRequest { programme_id: String::new(), after_position: after };
                let stream = client.watch_changes(request).await?.into_inner();
                Ok(Box::pin(futures::StreamExt::map(stream, |m| m.map(|m| (m.changes, m.through_position)))))
            }
        }
    };
}

/// The type of the channel that sources are made from.
pub type SourceChannel = PeerChannel;

/// Reads one feed.
pub struct Consumer {
    db: Db,
    name: &'static str,
    source: Arc<dyn Source>,
    effect: Arc<dyn Effect>,
    parked: Gauge<i64>,
    position: Gauge<i64>,
}

impl Consumer {
    /// `name` is that of the service whose feed it is.
    pub fn new(db: Db, name: &'static str, source: Arc<dyn Source>, effect: Arc<dyn Effect>) -> Self {
        let meter = opentelemetry::global::meter("koc");
        let parked =
            meter.i64_gauge("koc.consumer.parked").with_description("Facts that wait because they could not be applied").build();
        let position = meter.i64_gauge("koc.consumer.position").with_description("How far the feed is read").build();
        Self { db, name, source, effect, parked, position }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let retrying = async {
            loop {
                if let Err(error) = self.retry_parked().await {
                    tracing::warn!(source = self.name, error = %error, "parked facts could not be tried again");
                }
                tokio::time::sleep(PARKED_POLL).await;
            }
        };
        let reading = async {
            let mut wait = RECONNECT;
            loop {
                match self.follow(&mut wait).await {
                    Ok(()) => {}
                    Err(Broken::Stream(status)) if reason_of(&status) == "POSITION_DROPPED" => {
                        if let Err(error) = self.leap(&status).await {
                            tracing::warn!(source = self.name, error = %error, "what was missed of the feed could not be made up for; trying again");
                        }
                    }
                    Err(Broken::Stream(status)) if peer::is_transient(&status) => {
                        tracing::debug!(source = self.name, code = ?status.code(), error = status.message(), "the feed broke off; calling again");
                    }
                    Err(Broken::Stream(status)) => {
                        tracing::warn!(source = self.name, code = ?status.code(), error = status.message(), "the feed is refused; calling again");
                    }
                    Err(Broken::Effect(error)) => {
                        tracing::warn!(source = self.name, error = %error, "changes cannot be applied for now; reading them again");
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(MAX_RECONNECT);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = retrying => {}
            () = reading => {}
        }
    }

    /// Reads and applies until the stream ends; `wait` is set back when something was applied.
    async fn follow(&self, wait: &mut Duration) -> Result<(), Broken> {
        let pull = tracing::info_span!(target: context::SPANS, "feed pull", source = self.name, otel.kind = "client");
        let mut position = match self.cursor().await.map_err(EffectError::from)? {
            Some(position) => position,
            None => {
                self.effect.catch_up().await?;
                0
            }
        };
        // A stream has no end: no deadline goes with it.
        let mut stream = self.source.watch(position).instrument(pull.clone()).await?;
        while let Some(message) = stream.next().await {
            let (changes, through) = message?;
            // When the message reaches beyond its last change, the cursor follows all the same.
            let beyond: &[Change] = &[];
            for chunk in changes.chunks(BATCH).chain([beyond]) {
                let reached = chunk.last().map_or(through.max(position), |c| c.position);
                if reached == position {
                    continue;
                }
                let applied = self.apply_chunk(position, chunk, reached, &pull).await?;
                *wait = RECONNECT;
                if !applied {
                    // Another replica was quicker: read again from where it got to.
                    return Ok(());
                }
                position = reached;
            }
            self.position.record(position, &[KeyValue::new("source", self.name)]);
        }
        Ok(())
    }

    /// Goes on from the head that a refused call named, with what was missed made up for.
    async fn leap(&self, refused: &Status) -> Result<(), EffectError> {
        let details = refused.get_error_details();
        let head = details.error_info().and_then(|info| info.metadata.get("head_position")?.parse::<i64>().ok());
        let head = head.ok_or_else(|| EffectError::Transient("the feed dropped what comes next and named no head".to_owned()))?;
        if !self.effect.catch_up().await? {
            return Err(EffectError::Transient("the feed dropped what comes next, and nothing else tells of it".to_owned()));
        }
        sqlx::query(
            "INSERT INTO feed_cursor AS c (source, position, update_time)
             VALUES ($1, $2, koc_now())
             ON CONFLICT (source) DO UPDATE
             SET position = excluded.position, update_time = excluded.update_time
             WHERE c.position < excluded.position",
        )
        .bind(self.name)
        .bind(head)
        .execute(self.db.pool())
        .await?;
        tracing::warn!(source = self.name, head, "read the present state instead of what the feed dropped");
        Ok(())
    }

    async fn cursor(&self) -> Result<Option<i64>, sqlx::Error> {
        let position = sqlx::query_scalar("SELECT position FROM feed_cursor WHERE source = $1").bind(self.name);
        position.fetch_optional(self.db.pool()).await
    }

    /// Applies changes and moves the cursor with them; false when the cursor was not at `from` any more.
    async fn apply_chunk(&self, from: i64, changes: &[Change], to: i64, pull: &tracing::Span) -> Result<bool, EffectError> {
        let mut tx = self.db.begin().await?;
        // The cursor's row is the lock: another replica that read the same changes finds it moved and reads again.
        sqlx::query("INSERT INTO feed_cursor (source, position, update_time) VALUES ($1, 0, koc_now()) ON CONFLICT DO NOTHING")
            .bind(self.name)
            .execute(&mut *tx)
            .await?;
        let moved =
            sqlx::query("UPDATE feed_cursor SET position = $3, update_time = koc_now() WHERE source = $1 AND position = $2")
                .bind(self.name)
                .bind(from)
                .bind(to)
                .execute(&mut *tx)
                .await?;
        if moved.rows_affected() == 0 {
            tx.rollback().await?;
            return Ok(false);
        }
        for change in changes {
            self.apply_one(&mut tx, change, pull).await?;
        }
        tx.commit().await?;
        self.db.wake();
        Ok(true)
    }

    async fn apply_one(&self, conn: &mut PgConnection, change: &Change, pull: &tracing::Span) -> Result<(), EffectError> {
        let subject = Uuid::try_parse(&change.subject_id).unwrap_or_default();
        let waiting: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM parked_fact WHERE source = $1 AND subject_id = $2)")
            .bind(self.name)
            .bind(subject)
            .fetch_one(&mut *conn)
            .await?;
        if waiting {
            return self.park(conn, change, subject, "an earlier fact of its subject is parked").await;
        }
        match self.attempt(conn, change, Some(pull)).await {
            Ok(()) => Ok(()),
            Err(EffectError::Park(reason)) => {
                tracing::warn!(source = self.name, position = change.position, subject = %subject, reason, "a fact is parked");
                self.park(conn, change, subject, &reason).await
            }
            Err(transient) => Err(transient),
        }
    }

    /// Applies a change in a savepoint, in a span that continues the trace of what caused it.
    async fn attempt(&self, conn: &mut PgConnection, change: &Change, pull: Option<&tracing::Span>) -> Result<(), EffectError> {
        let type_url = change.fact.as_ref().map_or("", |f| f.type_url.as_str());
        let fact = type_url.rsplit('.').next().unwrap_or_default();
        let span = tracing::info_span!(target: context::SPANS, "apply fact", otel.name = %format!("apply {fact}"), otel.kind = "consumer", source = self.name,
            position = change.position, fact);
        context::set_parent(&span, &change.traceparent);
        if let Some(pull) = pull {
            span.add_link(pull.context().span().span_context().clone());
        }
        let current = Current { deadline: tokio::time::Instant::now() + MAX_DEADLINE, actor: "feed".into() };
        let work = async {
            let mut savepoint = conn.begin().await?;
            // An effect that panics is parked like one that fails; the feed goes on.
            let applied = AssertUnwindSafe(self.effect.apply(&mut savepoint, change)).catch_unwind().await;
            match applied.unwrap_or_else(|_| Err(EffectError::Park("the effect panicked".into()))) {
                Ok(()) => Ok(savepoint.commit().await?),
                Err(error) => {
                    savepoint.rollback().await?;
                    Err(error)
                }
            }
        };
        context::scope(current, work.instrument(span)).await
    }

    async fn park(&self, conn: &mut PgConnection, change: &Change, subject: Uuid, reason: &str) -> Result<(), EffectError> {
        sqlx::query(
            "INSERT INTO parked_fact (source, position, subject_id, change, reason, attempts, next_attempt_time)
             VALUES ($1, $2, $3, $4, $5, 1, koc_now() + $6 * interval '1 second')
             ON CONFLICT DO NOTHING",
        )
        .bind(self.name)
        .bind(change.position)
        .bind(subject)
        .bind(change.encode_to_vec())
        .bind(reason)
        .bind(FIRST_WAIT.as_secs_f64())
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Tries the first parked fact of each subject again, when it is due.
    async fn retry_parked(&self) -> Result<(), EffectError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM parked_fact WHERE source = $1")
            .bind(self.name)
            .fetch_one(self.db.pool())
            .await?;
        self.parked.record(count, &[KeyValue::new("source", self.name)]);
        let mut remaining = count;
        while remaining > 0 && self.retry_one().await? {
            remaining -= 1;
        }
        Ok(())
    }

    async fn retry_one(&self) -> Result<bool, EffectError> {
        let mut tx = self.db.begin().await?;
        let due: Option<(i64, Vec<u8>, i32)> = sqlx::query_as(
            "SELECT p.position, p.change, p.attempts FROM parked_fact AS p
             WHERE p.source = $1 AND p.next_attempt_time <= koc_now()
               AND NOT EXISTS (SELECT FROM parked_fact AS e
                               WHERE e.source = p.source AND e.subject_id = p.subject_id AND e.position < p.position)
             ORDER BY p.position LIMIT 1
             FOR UPDATE SKIP LOCKED",
        )
        .bind(self.name)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((position, bytes, attempts)) = due else { return Ok(false) };
        let change = Change::decode(bytes.as_slice()).map_err(|e| EffectError::Transient(e.to_string()))?;
        match self.attempt(&mut tx, &change, None).await {
            Ok(()) => {
                sqlx::query("DELETE FROM parked_fact WHERE source = $1 AND position = $2")
                    .bind(self.name)
                    .bind(position)
                    .execute(&mut *tx)
                    .await?;
            }
            Err(error) => {
                let doublings = u32::try_from(attempts).unwrap_or(0).min(16);
                let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(MAX_WAIT);
                sqlx::query(
                    "UPDATE parked_fact
                     SET attempts = attempts + 1, reason = $3, next_attempt_time = koc_now() + $4 * interval '1 second'
                     WHERE source = $1 AND position = $2",
                )
                .bind(self.name)
                .bind(position)
                .bind(error.to_string())
                .bind(wait.as_secs_f64())
                .execute(&mut *tx)
                .await?;
            }
        }
        tx.commit().await?;
        self.db.wake();
        Ok(true)
    }
}
