//! The sequencer gives each committed fact its place in the feed: dense, in an order that keeps the order per subject. One works
//! at a time, whichever replica holds the head's row; a fact becomes visible to readers only with its place, so none is skipped.

use crate::postgres::{Db, OwnConnection};
use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Facts in one step; those of one transaction stay together, so it may be more.
const BATCH: i64 = 1_000;
/// After a step it lets facts gather for so long: under load each step then serves many, and an idle service's fact goes out at once.
const GATHER: Duration = Duration::from_millis(25);
/// How often it looks for facts that another process left behind; its own process wakes it.
const POLL: Duration = Duration::from_millis(250);
/// Longest statement of a step, and its longest wait for a lock.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

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
    let sequencer = Sequencer::new(&db);
    loop {
        match sequencer.step(hook.as_deref()).await {
            // Under a steady load it would never come to the stop below.
            Ok(n) if n >= BATCH as usize && !stop.is_cancelled() => continue,
            Ok(0) => {}
            Ok(_) => tokio::time::sleep(GATHER).await,
            Err(error) => tracing::warn!(error = %error, "facts could not be sequenced; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = db.woken() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// What gives facts their places. It has a connection of its own, which finds the first of them by their index: most of what was ever
/// written to the outbox is dead until the next vacuum.
pub struct Sequencer(OwnConnection);

impl Sequencer {
    pub fn new(db: &Db) -> Self {
        Self(db.own_connection(STATEMENT_TIMEOUT, STATEMENT_TIMEOUT))
    }

    /// Gives places to some [`BATCH`] facts; says to how many.
    pub async fn step(&self, hook: Option<&dyn OnSequenced>) -> Result<usize, sqlx::Error> {
        let work = async {
            let mut conn = self.0.take().await?;
            let count = place(&mut conn, hook).await?;
            self.0.give_back(conn);
            Ok(count)
        };
        self.0.within(work).await
    }
}

async fn place(conn: &mut PgConnection, hook: Option<&dyn OnSequenced>) -> Result<usize, sqlx::Error> {
    // The common case of an idle service: one cheap look, no transaction.
    let waiting: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox)").fetch_one(&mut *conn).await?;
    if !waiting {
        return Ok(0);
    }
    let mut tx = conn.begin().await?;
    let head: Option<i64> =
        sqlx::query_scalar("SELECT position FROM feed_head FOR UPDATE SKIP LOCKED").fetch_optional(&mut *tx).await?;
    let Some(head) = head else { return tx.rollback().await.map(|()| 0) };
    let mut facts: Vec<Sequenced> = sqlx::query_as(
        "WITH next AS (
             SELECT ordinal
             FROM (SELECT ordinal, sum(cardinality(fact_ids)) OVER (ORDER BY ordinal) - cardinality(fact_ids) AS before
                   FROM (SELECT ordinal, fact_ids FROM outbox ORDER BY ordinal LIMIT $2) AS waiting) AS counted
             WHERE before < $2
         ), taken AS (
             DELETE FROM outbox WHERE ordinal = ANY (ARRAY(SELECT ordinal FROM next)) RETURNING *
         )
         INSERT INTO fact (position, fact_id, programme_id, subject_id, type_name, payload, traceparent, record_time)
         SELECT $1 + row_number() OVER (ORDER BY t.ordinal, f.nr), f.id, f.programme, f.subject, f.type, f.payload, t.traceparent,
                t.record_time
         FROM taken AS t,
              UNNEST(t.fact_ids, t.programme_ids, t.subject_ids, t.type_names, t.payloads)
              WITH ORDINALITY AS f (id, programme, subject, type, payload, nr)
         RETURNING position, fact_id, subject_id, type_name, payload",
    )
    .bind(head)
    .bind(BATCH)
    .fetch_all(&mut *tx)
    .await?;
    facts.sort_unstable_by_key(|f| f.position);
    let Some(last) = facts.last().map(|f| f.position) else { return tx.rollback().await.map(|()| 0) };
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
