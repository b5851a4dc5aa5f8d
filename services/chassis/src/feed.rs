//! Serving a feed: one page, or a stream that goes on. Every service serves the same two methods; [`feed_service!`] gives them
//! their types.

use crate::{clock, fault::Fault, ids::ProgrammeId, postgres::Db};
use chrono::{DateTime, Utc};
use koc_proto::koc::feed::v1::Change;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Changes in one message of a stream.
pub const BATCH: i64 = 500;
/// A stream without changes says so this often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Streams open at once.
const MAX_STREAMS: usize = 200;
/// Messages that wait for a slow reader.
const QUEUE: usize = 2;
/// How often the head is read when no notification comes.
const HEAD_POLL: Duration = Duration::from_secs(1);

/// Changes, and how far they go.
#[derive(Debug)]
pub struct Page {
    pub changes: Vec<Change>,
    pub through: i64,
    pub head: i64,
    pub time: DateTime<Utc>,
}

/// How far a feed is, and the history that its positions are of.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Head {
    pub epoch: Uuid,
    pub position: i64,
}

/// A service's feed.
#[derive(Clone)]
pub struct Feed {
    db: Db,
    head: watch::Receiver<i64>,
    streams: Arc<Semaphore>,
    heartbeat: Duration,
    drain: CancellationToken,
}

#[derive(sqlx::FromRow)]
struct FactRow {
    position: i64,
    fact_id: Uuid,
    programme_id: Uuid,
    subject_id: Uuid,
    type_name: String,
    payload: Vec<u8>,
    traceparent: String,
    record_time: DateTime<Utc>,
}

impl From<FactRow> for Change {
    fn from(row: FactRow) -> Self {
        Self {
            position: row.position,
            fact_id: row.fact_id.to_string(),
            programme_id: row.programme_id.to_string(),
            subject_id: row.subject_id.to_string(),
            fact: Some(prost_types::Any { type_url: format!("type.googleapis.com/{}", row.type_name), value: row.payload }),
            record_time: Some(clock::to_proto(row.record_time)),
            traceparent: row.traceparent,
        }
    }
}

impl Feed {
    /// Serves `db`'s facts; streams end when `drain` is cancelled. Follows the head in a task of its own.
    pub fn start(db: Db, drain: CancellationToken) -> Self {
        let (sender, head) = watch::channel(0);
        tokio::spawn(follow_head(db.clone(), sender, drain.clone()));
        Self { db, head, streams: Arc::new(Semaphore::new(MAX_STREAMS)), heartbeat: HEARTBEAT, drain }
    }

    /// Streams without changes say so this often, instead of every 10 s.
    #[must_use]
    pub fn heartbeat_every(self, heartbeat: Duration) -> Self {
        Self { heartbeat, ..self }
    }

    /// One page after a position.
    pub async fn list(&self, programme: Option<ProgrammeId>, after: i64, size: i64) -> Result<Page, Fault> {
        let (page, dropped) = self.read(programme, after, size).await.map_err(unread)?;
        if after > page.head {
            let message = format!("position {after} is beyond the head at {}", page.head);
            return Err(Fault::refused("POSITION_AHEAD", message).with("head_position", page.head));
        }
        if after < dropped {
            let message = format!(
                "what comes after position {after} is kept only from {} on: note the head, read what there is now by the lists of this \
                 service, and go on from the noted head",
                dropped + 1
            );
            let fault = Fault::refused("POSITION_DROPPED", message).with("first_position", dropped + 1);
            return Err(fault.with("head_position", page.head));
        }
        Ok(page)
    }

    /// How far it is.
    pub async fn head(&self) -> Result<Head, Fault> {
        let head = sqlx::query_as("SELECT epoch, position FROM feed_head").fetch_one(self.db.pool()).await;
        head.map_err(unread)
    }

    /// The position after which all is kept.
    pub async fn oldest(&self) -> Result<i64, Fault> {
        let dropped = sqlx::query_scalar("SELECT dropped_position FROM feed_head").fetch_one(self.db.pool()).await;
        dropped.map_err(unread)
    }

    /// A page, and up to where facts were dropped as far as that matters to it.
    async fn read(&self, programme: Option<ProgrammeId>, after: i64, size: i64) -> Result<(Page, i64), sqlx::Error> {
        // The head first: what is read next reaches at least as far.
        let (head, time): (i64, DateTime<Utc>) =
            sqlx::query_as("SELECT position, koc_now() FROM feed_head").fetch_one(self.db.pool()).await?;
        let rows: Vec<FactRow> = sqlx::query_as(
            "SELECT position, fact_id, programme_id, subject_id, type_name, payload, traceparent, record_time
             FROM fact
             WHERE position > $1 AND position <= $2 AND ($3::uuid IS NULL OR programme_id = $3)
             ORDER BY position
             LIMIT $4",
        )
        .bind(after)
        .bind(head)
        .bind(programme.map(|p| p.0))
        .bind(size)
        .fetch_all(self.db.pool())
        .await?;
        // Looked at after the facts, so that none was dropped before they were read and is not known of. The oldest are dropped first: where
        // the next one is there, all are.
        let whole = after >= head || rows.first().is_some_and(|row| row.position == after + 1);
        let dropped = match whole {
            true => 0,
            false => sqlx::query_scalar("SELECT dropped_position FROM feed_head").fetch_one(self.db.pool()).await?,
        };
        let full = i64::try_from(rows.len()).is_ok_and(|n| n == size);
        let through = if full { rows.last().map_or(head, |r| r.position) } else { head.max(after) };
        Ok((Page { changes: rows.into_iter().map(Change::from).collect(), through, head, time }, dropped))
    }

    /// Pages after a position, then those to come, then heartbeats; ends when the service drains.
    pub fn watch(&self, programme: Option<ProgrammeId>, after: i64) -> Result<mpsc::Receiver<Result<Page, Fault>>, Fault> {
        let permit = self.streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Fault::overloaded("TOO_MANY_STREAMS", "too many streams are open"))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut feed = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let mut position = after;
            let mut first = true;
            loop {
                let page = feed.list(programme, position, BATCH).await;
                let (more, failed) = match &page {
                    Ok(page) => {
                        let moved = page.through > position;
                        position = page.through;
                        (moved && position < page.head, false)
                    }
                    Err(_) => (false, true),
                };
                let worth_sending = failed || first || page.as_ref().is_ok_and(|p| !p.changes.is_empty());
                first = false;
                if worth_sending && (sender.send(page).await.is_err() || failed) {
                    return;
                }
                if more && !feed.drain.is_cancelled() {
                    continue;
                }
                tokio::select! {
                    // The drain first: the head's follower ends with it, and the reader should be told why.
                    biased;
                    () = feed.drain.cancelled() => {
                        let _ = sender.send(Err(Fault::unavailable("DRAINING", "the service is going away; call again"))).await;
                        return;
                    }
                    () = sender.closed() => return,
                    ended = async { feed.head.wait_for(|head| *head > position).await.is_err() } => {
                        if ended {
                            return;
                        }
                    }
                    () = tokio::time::sleep(feed.heartbeat) => first = true,
                }
            }
        });
        Ok(receiver)
    }
}

fn unread(error: sqlx::Error) -> Fault {
    let fault = Fault::of_database(&error);
    if fault.code == tonic::Code::Internal {
        tracing::error!(error = %error, "the feed could not be read");
    }
    fault
}

/// Makes parts of the feed's table ahead of the head, and drops those whose facts are all older than `days`. A failure is logged; the next
/// round tries again, long before the sequencer comes to the end of the last part.
pub async fn keep_parts(db: Db, days: Option<u16>) {
    let made = match sqlx::query_scalar::<_, i32>("SELECT extend_feed()").fetch_one(db.pool()).await {
        Ok(made) => made,
        Err(error) => return tracing::warn!(error = %error, "no new part of the feed could be made; trying again"),
    };
    let dropped = match days {
        None => Ok(0),
        Some(days) => sqlx::query_scalar::<_, i32>("SELECT shorten_feed($1)").bind(i32::from(days)).fetch_one(db.pool()).await,
    };
    match dropped {
        Ok(0) if made == 0 => {}
        Ok(dropped) => tracing::info!(made, dropped, "parts of the feed"),
        Err(error) => tracing::warn!(error = %error, "no old part of the feed could be dropped; trying again"),
    }
}

/// Keeps the head up to date: by the sequencer's notifications, and by looking when none comes.
async fn follow_head(db: Db, sender: watch::Sender<i64>, stop: CancellationToken) {
    let channel = format!("{}_feed", db.schema());
    let mut listener = None;
    loop {
        if listener.is_none() {
            listener = match db.listen(&channel).await {
                Ok(listener) => Some(listener),
                Err(error) => {
                    tracing::debug!(error = %error, "no notifications of the feed for now; looking instead");
                    None
                }
            };
        }
        if let Ok(head) = sqlx::query_scalar::<_, i64>("SELECT position FROM feed_head").fetch_one(db.pool()).await {
            sender.send_if_modified(|known| std::mem::replace(known, head) != head);
        }
        let notified = async {
            match listener.as_mut() {
                Some(listener) => listener.recv().await.map(|n| n.payload().parse::<i64>().ok()).ok().flatten(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            head = tokio::time::timeout(HEAD_POLL, notified) => match head {
                Ok(Some(head)) => { sender.send_if_modified(|known| *known < head && { *known = head; true }); }
                Ok(None) => listener = None,
                Err(_) => {}
            },
        }
    }
}

/// Implements the FeedService of one package, e.g. `feed_service!(koc_proto::koc::registry::v1, Error)` for a service whose
/// errors are `Error`; gives the type `FeedApi`.
#[macro_export]
macro_rules! feed_service {
    ($pb:path, $error:ty) => {
        use $pb as feed_pb;

        /// Serves the feed.
        pub struct FeedApi {
            pub gate: $crate::gate::Gate<$error>,
            pub feed: $crate::feed::Feed,
            pub domain: &'static str,
        }

        #[tonic::async_trait]
        impl feed_pb::feed_service_server::FeedService for FeedApi {
            type WatchChangesStream = std::pin::Pin<
                Box<dyn futures::Stream<Item = Result<feed_pb::WatchChangesResponse, tonic::Status>> + Send + 'static>,
            >;

            async fn watch_changes(
                &self,
                request: tonic::Request<feed_pb::WatchChangesRequest>,
            ) -> Result<tonic::Response<Self::WatchChangesStream>, tonic::Status> {
                let domain = self.domain;
                let (programme, message) = self.gate.admit_feed(request)?;
                let pages = self.feed.watch(programme, message.after_position).map_err(|f| f.into_status(domain))?;
                let stream = futures::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(pages), move |page| {
                    page.map(|page| feed_pb::WatchChangesResponse {
                        changes: page.changes,
                        through_position: page.through,
                        head_position: page.head,
                        send_time: Some($crate::clock::to_proto(page.time)),
                    })
                    .map_err(|fault| fault.into_status(domain))
                });
                Ok(tonic::Response::new(Box::pin(stream)))
            }

            async fn list_changes(
                &self,
                request: tonic::Request<feed_pb::ListChangesRequest>,
            ) -> Result<tonic::Response<feed_pb::ListChangesResponse>, tonic::Status> {
                let (programme, message) = self.gate.admit_feed(request)?;
                let size = $crate::page::size(message.page_size);
                let page = self.feed.list(programme, message.after_position, size).await;
                let page = page.map_err(|fault| fault.into_status(self.domain))?;
                Ok(tonic::Response::new(feed_pb::ListChangesResponse {
                    changes: page.changes,
                    through_position: page.through,
                    head_position: page.head,
                }))
            }
        }
    };
}
