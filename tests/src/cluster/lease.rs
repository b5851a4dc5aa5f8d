//! Holding on to a cluster: a connection with an advisory lock, kept by a thread of its own.
//!
//! A thread, because a test's runtime ends with the test and would take the connection along, and because joining
//! must also work where no runtime is.

use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::oneshot;

use super::SuperuserUrl;

/// Advisory locks in database `postgres`, as pairs of one class and a purpose.
pub(crate) const LOCK_CLASS: i32 = 0x4b4f43;
/// Shared: uses the cluster. Exclusive: ends it.
pub(crate) const LOCK_LEASE: i32 = 1;
/// Held by the watchdog for its lifetime.
pub(super) const LOCK_WATCHDOG: i32 = 2;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Keeps a cluster alive. Dropping it gives it up.
#[derive(Debug)]
pub struct Lease {
    url: SuperuserUrl,
    backend: i32,
    watched: bool,
    /// Databases of this process that it needs no longer.
    discarded: Mutex<Vec<String>>,
    /// Taken when the lease is dropped.
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Lease {
    pub(super) fn take(url: &SuperuserUrl) -> anyhow::Result<Self> {
        let (end, ended) = oneshot::channel();
        let (say, hear) = mpsc::channel();
        let own_url = url.clone();
        let thread = thread::Builder::new().name("cluster-lease".into()).spawn(move || keep(&own_url, ended, &say))?;
        let (backend, watched) = hear.recv().context("the thread of the lease ended")??;
        Ok(Self { url: url.clone(), backend, watched, discarded: Mutex::default(), thread: Some((end, thread)) })
    }

    /// The way into the cluster.
    #[must_use]
    pub fn url(&self) -> &SuperuserUrl {
        &self.url
    }

    /// The server's process that serves the lease: names who uses a database.
    pub(crate) fn backend(&self) -> i32 {
        self.backend
    }

    /// Whether there was a watchdog when the lease was taken.
    pub(super) fn is_watched(&self) -> bool {
        self.watched
    }

    /// Notes that a database of this process is needed no longer.
    pub(crate) fn discard(&self, database: String) {
        self.discarded().push(database);
    }

    /// The databases noted so far.
    pub(crate) fn discarded(&self) -> MutexGuard<'_, Vec<String>> {
        self.discarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            let _ = end.send(());
            // It reports what goes wrong when the lease is taken; at the end there is nothing left to go wrong.
            let _ = thread.join();
        }
    }
}

/// Whether the server said that it is on its way out, or is no longer there to say anything.
pub(super) fn is_ending(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(error)) => {
            // admin_shutdown, crash_shutdown, cannot_connect_now
            matches!(error.code().as_deref(), Some("57P01" | "57P02" | "57P03"))
        }
        Some(sqlx::Error::Io(_)) => true,
        _ => false,
    }
}

/// Runs `work` to its end on a runtime of its own thread, from wherever it is called.
pub(super) fn block_on<T: Send>(work: impl Future<Output = anyhow::Result<T>> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| runtime()?.block_on(work));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(super) async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options = url.parse::<PgConnectOptions>()?.disable_statement_logging();
    Ok(tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await.context("connecting took too long")??)
}

/// What a new cluster needs before anybody takes a lease.
pub(super) fn prepare(url: &SuperuserUrl) -> anyhow::Result<()> {
    block_on(async {
        let mut connection = connect(url.as_str()).await?;
        sqlx::raw_sql("CREATE SEQUENCE koc_leases").execute(&mut connection).await?;
        Ok(connection.close().await?)
    })
}

type Taken = anyhow::Result<(i32, bool)>;

/// The life of a lease's thread.
fn keep(url: &SuperuserUrl, ended: oneshot::Receiver<()>, say: &mpsc::Sender<Taken>) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return drop(say.send(Err(error))),
    };
    runtime.block_on(async {
        match take(url).await {
            Ok((connection, backend, watched)) => {
                let _ = say.send(Ok((backend, watched)));
                let _ = ended.await;
                let _ = connection.close().await;
            }
            Err(error) => drop(say.send(Err(error))),
        }
    });
}

/// Connects and takes the lock. Blocks while the watchdog holds it: either that was a look, or the server is
/// about to end, and the connection with it. The sequence tells the watchdog of users who come and go between two
/// looks.
async fn take(url: &SuperuserUrl) -> anyhow::Result<(PgConnection, i32, bool)> {
    let mut connection = connect(url.as_str()).await?;
    let (backend, watched) = sqlx::query_as::<_, (i32, bool)>(
        "SELECT pg_backend_pid(),
                EXISTS (SELECT FROM pg_locks
                         WHERE locktype = 'advisory' AND classid::int = $1 AND objid::int = $3 AND granted)
           FROM (SELECT pg_advisory_lock_shared($1, $2), nextval('koc_leases') OFFSET 0) AS taken",
    )
    .bind(LOCK_CLASS)
    .bind(LOCK_LEASE)
    .bind(LOCK_WATCHDOG)
    .fetch_one(&mut connection)
    .await?;
    Ok((connection, backend, watched))
}
