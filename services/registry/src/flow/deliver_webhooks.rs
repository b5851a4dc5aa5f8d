//! Delivering members' events to endpoints. Each replica takes endpoints that have something to do under a lease, works on each for a
//! while, and gives it back: so one works for an endpoint at a time, requests to it are few, and the order of each member's events is kept
//! by whoever works. Endpoints are worked on side by side, so a slow one holds up no other.

use super::{
    follow_members::Follower,
    post_webhook::{Post, Poster, TIMEOUT},
    seal_secret::Seal,
};
use crate::{
    domain::{
        member_feed::{Event, Told},
        webhook::{
            Attempt, Columns, Delivery, DeliveryState, Reason, Secret, Target, Verdict, Webhook, WebhookId, has_failed_for_long,
            judge, post_time, sign,
        },
    },
    error::Error,
    store,
};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use koc_chassis::{clock, fault::chain, feed::Feed, postgres::Db};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Endpoints that one replica works on at once.
const ENDPOINTS: usize = 64;
/// Requests to one endpoint at once.
const REQUESTS: i64 = 8;
/// How long a replica works on an endpoint before it gives it back, and for how long it has it, from each of its steps on. No request goes on
/// when the lease may have run out.
const ROUND: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(60);
/// How often endpoints with something to do are looked for, and how long one rests that had nothing after all.
const POLL: Duration = Duration::from_millis(250);
const REST: Duration = Duration::from_secs(1);
/// Facts that are looked at in one step.
const PAGE: i64 = 500;
/// Events that wait to be sent to one endpoint for the first time, and all that wait for it; the feed keeps the others.
const BACKLOG: i64 = 1_000;
const MAX_BACKLOG: i64 = 10_000;

/// Writes the body of a post.
pub type Payload = fn(Event, Columns) -> Vec<u8>;

/// Delivers events.
pub struct Deliverer {
    pub db: Db,
    pub feed: Feed,
    pub poster: Poster,
    pub seal: Seal,
    pub payload: Payload,
    pub stop: CancellationToken,
}

impl Deliverer {
    /// Works until the stop; what is under way then is ended first.
    pub async fn run(self) {
        let work = Arc::new(self);
        let mut rounds = JoinSet::new();
        while !work.stop.is_cancelled() {
            match work.claim(ENDPOINTS - rounds.len()).await {
                Ok(claimed) => {
                    for (webhook, lease) in claimed {
                        let work = work.clone();
                        rounds.spawn(async move { work.round(webhook, lease).await });
                    }
                }
                Err(error) => tracing::warn!(error = chain(&error), "webhooks with something to do could not be looked for"),
            }
            tokio::select! {
                () = work.stop.cancelled() => {}
                ended = rounds.join_next(), if rounds.len() == ENDPOINTS => report(ended),
                () = tokio::time::sleep(POLL) => {}
            }
            while let Some(ended) = rounds.try_join_next() {
                report(Some(ended));
            }
        }
        while let Some(ended) = rounds.join_next().await {
            report(Some(ended));
        }
    }

    async fn claim(&self, limit: usize) -> Result<Vec<(WebhookId, Uuid)>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let head = self.feed.head().await?.position;
        let lease = Uuid::now_v7();
        let mut conn = self.db.pool().acquire().await?;
        let claimed = store::webhook::claim(&mut conn, lease, LEASE, head, limit).await?;
        Ok(claimed.into_iter().map(|webhook| (webhook, lease)).collect())
    }

    /// Works on an endpoint for a while.
    async fn round(&self, webhook: WebhookId, lease: Uuid) {
        let end = Instant::now() + ROUND;
        let mut rest = REST;
        let outcome = loop {
            match self.step(webhook, lease).await {
                Ok(true) => rest = Duration::ZERO,
                other => break other.map(|_| ()),
            }
            if self.stop.is_cancelled() || Instant::now() >= end {
                break Ok(());
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(%webhook, error = chain(&error), "a webhook could not be worked on; trying again");
            rest = REST;
        }
        let released = async {
            let mut conn = self.db.pool().acquire().await?;
            store::webhook::release(&mut conn, webhook, lease, rest).await
        };
        if let Err(error) = released.await {
            // The lease runs out by itself.
            tracing::debug!(%webhook, error = %error, "a webhook could not be given back");
        }
    }

    /// Takes up what is new and sends what is due; false when there was neither.
    async fn step(&self, webhook: WebhookId, lease: Uuid) -> Result<bool, Error> {
        let mut conn = self.db.pool().acquire().await?;
        // By a clock that was read before the lease began: it ends no sooner than that.
        let end = Instant::now() + LEASE;
        let Some(webhook) = store::webhook::hold(&mut conn, webhook, lease, LEASE).await? else { return Ok(false) };
        let room = store::webhook::has_room(&mut conn, webhook.id, BACKLOG, MAX_BACKLOG).await?;
        drop(conn);
        let took = room && self.take_up(&webhook, lease).await?;
        let mut conn = self.db.pool().acquire().await?;
        let due = store::webhook::due(&mut conn, webhook.id, REQUESTS).await?;
        drop(conn);
        if due.is_empty() {
            return Ok(took);
        }
        self.send(&webhook, due, end).await
    }

    fn follower(&self, webhook: &Webhook) -> Follower {
        let kinds = webhook.kinds.iter().copied().collect();
        Follower::new(self.db.clone(), self.feed.clone(), webhook.programme, kinds)
    }

    /// Makes deliveries of the next facts; false when there are none.
    async fn take_up(&self, webhook: &Webhook, lease: Uuid) -> Result<bool, Error> {
        let page = match self.feed.list(Some(webhook.programme), webhook.position, PAGE).await.map_err(Error::from) {
            Ok(page) => page,
            // A restored feed that is behind it has not kept what it knows either.
            Err(Error::PositionDropped | Error::EpochChanged) => {
                let mut conn = self.db.pool().acquire().await?;
                disable(&mut conn, webhook.id, Reason::PositionDropped).await?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if page.through == webhook.position {
            return Ok(false);
        }
        let told = self.follower(webhook).told(&page)?;
        let mut tx = self.db.begin().await?;
        if !store::webhook::advance(&mut tx, webhook.id, lease, webhook.position, page.through).await? {
            tx.rollback().await?;
            return Ok(false);
        }
        store::webhook::insert_all(&mut tx, webhook.id, &told).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Sends events of different members at once, and keeps what became of each; false when it is too late for that, as the lease ends at `end`.
    async fn send(&self, webhook: &Webhook, due: Vec<Delivery>, end: Instant) -> Result<bool, Error> {
        let mut conn = self.db.pool().acquire().await?;
        let now = clock::now(&mut conn).await?;
        let sealed = store::webhook::secrets(&mut conn, webhook.programme, webhook.id).await?;
        drop(conn);
        let Some(sealed) = sealed else { return Ok(false) };
        let mut secrets = vec![self.seal.open(webhook.id, &sealed.secret)?];
        if let Some(old) = &sealed.old_secret {
            secrets.push(self.seal.open(webhook.id, old)?);
        }
        let told = due.iter().map(|delivery| Told {
            fact: Some(delivery.fact),
            position: delivery.position,
            kind: delivery.kind,
            member: delivery.member,
            changed_fields: delivery.changed_fields.clone(),
            time: delivery.event_time,
        });
        let events = self.follower(webhook).join(told.collect()).await?;
        // All of them begin now.
        let Some(time) = post_time(end.saturating_duration_since(Instant::now()), TIMEOUT) else { return Ok(false) };
        let posts = events.into_iter().map(|event| self.post(webhook, event, &secrets, now, time));
        let attempts = join_all(posts).await;

        let mut tx = self.db.begin().await?;
        let verdicts: Vec<Verdict> = due
            .iter()
            .zip(&attempts)
            .map(|(delivery, attempt)| judge(attempt.status, delivery.attempt_count, rand::random()))
            .collect();
        let since = store::webhook::note(&mut tx, webhook.id, verdicts.contains(&Verdict::Delivered)).await?;
        for ((delivery, attempt), verdict) in due.iter().zip(&attempts).zip(&verdicts) {
            let (state, wait) = match verdict {
                Verdict::Delivered => (DeliveryState::Delivered, Duration::ZERO),
                Verdict::Again(Some(wait)) => (DeliveryState::Pending, *wait),
                Verdict::Again(None) => (DeliveryState::Failed, Duration::ZERO),
                Verdict::Gone => (DeliveryState::Pending, Duration::ZERO),
            };
            store::webhook::record(&mut tx, webhook.id, delivery, attempt, state, wait).await?;
        }
        if verdicts.contains(&Verdict::Gone) {
            disable(&mut tx, webhook.id, Reason::Gone).await?;
        } else if since.is_some_and(|since| has_failed_for_long(since, now)) {
            disable(&mut tx, webhook.id, Reason::Failing).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn post(&self, webhook: &Webhook, event: Event, secrets: &[Secret], time: DateTime<Utc>, at_most: Duration) -> Attempt {
        let id = event.told.fact.unwrap_or_default().to_string();
        let body = (self.payload)(event, webhook.columns);
        let post = Post { signature: sign(secrets, &id, time, &body), id, time: time.timestamp(), body };
        let began = Instant::now();
        let answer = match Target::parse("url", &webhook.url, self.poster.is_local()) {
            Ok(target) => self.poster.post(&target, post, at_most).await,
            Err(_) => Err(super::post_webhook::PostError::AddressRefused),
        };
        let latency_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
        match answer {
            Ok(status) => Attempt { time, status, latency_ms, error: String::new() },
            Err(error) => Attempt { time, status: 0, latency_ms, error: error.to_string() },
        }
    }
}

async fn disable(conn: &mut sqlx::PgConnection, webhook: WebhookId, reason: Reason) -> Result<(), Error> {
    if store::webhook::disable(conn, webhook, reason).await? {
        tracing::warn!(%webhook, reason = reason.name(), "a webhook was disabled");
    }
    Ok(())
}

fn report(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        tracing::error!(error = %error, "work on a webhook panicked; its lease runs out and it is tried again");
    }
}
