//! The sequencer gives each committed fact its place in the feed: dense, in an order that keeps the order per subject. One works
//! at a time, whichever replica holds the head's row; a fact becomes visible to readers only with its place, so none is skipped.

use crate::postgres::Db;
use async_trait::async_trait;
use sqlx::PgConnection;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Facts in one step.
const BATCH: i64 = 500;
/// How often it looks for facts that another process left behind; its own process wakes it.
const POLL: Duration = Duration::from_millis(250);

/// A fact with its place.
#[derive(Debug, sqlx::FromRow)]
pub struct Sequenced {
    pub position: i64,
    pub fact_id: Uuid,
    pub subject_id: Uuid,
    pub type_name: String,
    pub payload: Vec<u8>,
}

/// What a service does with facts in the transaction that gives them their place, in order.
#[async_trait]
pub trait OnSequenced: Send + Sync {
    async fn on_sequenced(&self, conn: &mut PgConnection, facts: &[Sequenced]) -> Result<(), sqlx::Error>;
}

/// Runs until `stop`.
pub async fn run(db: Db, hook: Option<Arc<dyn OnSequenced>>, stop: CancellationToken) {
    loop {
        match step(&db, hook.as_deref()).await {
            // Under a steady load it would never come to the stop below.
            Ok(n) if n == BATCH as usize && !stop.is_cancelled() => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %error, "facts could not be sequenced; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = db.woken() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Gives places to at most [`BATCH`] facts; says to how many.
pub async fn step(db: &Db, hook: Option<&dyn OnSequenced>) -> Result<usize, sqlx::Error> {
    // The common case of an idle service: one cheap look at a partial index, no transaction.
    let waiting: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM fact WHERE position IS NULL)").fetch_one(db.pool()).await?;
    if !waiting {
        return Ok(0);
    }
    let mut tx = db.begin().await?;
    let head: Option<i64> =
        sqlx::query_scalar("SELECT position FROM feed_head FOR UPDATE SKIP LOCKED").fetch_optional(&mut *tx).await?;
    let Some(head) = head else { return Ok(0) };
    let mut facts: Vec<Sequenced> = sqlx::query_as(
        "WITH next AS (
             SELECT fact_id, row_number() OVER (ORDER BY ordinal) AS nr
             FROM (SELECT fact_id, ordinal FROM fact WHERE position IS NULL ORDER BY ordinal LIMIT $2) AS waiting
         )
         UPDATE fact SET position = $1 + next.nr FROM next WHERE fact.fact_id = next.fact_id
         RETURNING fact.position, fact.fact_id, fact.subject_id, fact.type_name, fact.payload",
    )
    .bind(head)
    .bind(BATCH)
    .fetch_all(&mut *tx)
    .await?;
    facts.sort_unstable_by_key(|f| f.position);
    let Some(last) = facts.last().map(|f| f.position) else { return Ok(0) };
    if let Some(hook) = hook {
        hook.on_sequenced(&mut tx, &facts).await?;
    }
    // The only notification of the suite: it takes a lock for the whole cluster at commit, so it is sent once a step.
    sqlx::query("WITH head AS (UPDATE feed_head SET position = $1) SELECT pg_notify(current_schema() || '_feed', $1::text)")
        .bind(last)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(facts.len())
}
