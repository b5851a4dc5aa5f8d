//! What an operator watches of a service beside its calls: how far its feed is, which jobs wait or fail, and whether connections
//! to the database run out.

use crate::postgres::Db;
use opentelemetry::{KeyValue, global, metrics::Gauge};
use std::time::Duration;

/// How often it looks.
pub const PAUSE: Duration = Duration::from_secs(10);

/// The gauges, and the database that they read.
#[derive(Clone)]
pub struct Vitals {
    db: Db,
    kinds: Vec<&'static str>,
    position: Gauge<i64>,
    waiting: Gauge<i64>,
    failing: Gauge<i64>,
    connections: Gauge<i64>,
}

impl Vitals {
    /// `kinds` are the jobs that the service runs: one that has none waiting shows as 0.
    pub fn new(db: Db, kinds: Vec<&'static str>) -> Self {
        let meter = global::meter("koc");
        let gauge = |name: &'static str, what: &'static str| meter.i64_gauge(name).with_description(what).build();
        Self {
            db,
            kinds,
            position: gauge("koc.feed.position", "The last position of this service's feed"),
            waiting: gauge("koc.job.waiting", "Jobs that are not done"),
            failing: gauge("koc.job.failing", "Jobs whose present step failed at least once; the row's last_error says why"),
            connections: gauge("koc.database.connections", "Connections to the database, in use or idle"),
        }
    }

    /// Looks once.
    pub async fn look(self) {
        let idle = i64::try_from(self.db.pool().num_idle()).unwrap_or(i64::MAX);
        let used = i64::from(self.db.pool().size()) - idle;
        for (state, count) in [("used", used), ("idle", idle)] {
            self.connections.record(count, &[KeyValue::new("state", state)]);
        }
        if let Err(error) = self.read().await {
            tracing::debug!(error = %error, "the vitals could not be read");
        }
    }

    async fn read(&self) -> Result<(), sqlx::Error> {
        let position = sqlx::query_scalar("SELECT position FROM feed_head").fetch_one(self.db.pool()).await?;
        self.position.record(position, &[]);
        let jobs: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT kind, count(*), count(*) FILTER (WHERE failures > 0) FROM job WHERE NOT done GROUP BY kind")
                .fetch_all(self.db.pool())
                .await?;
        for kind in &self.kinds {
            let (waiting, failing) = jobs.iter().find(|(found, ..)| found == kind).map_or((0, 0), |found| (found.1, found.2));
            self.waiting.record(waiting, &[KeyValue::new("kind", *kind)]);
            self.failing.record(failing, &[KeyValue::new("kind", *kind)]);
        }
        Ok(())
    }
}
