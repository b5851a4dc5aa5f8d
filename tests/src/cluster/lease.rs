//! Holding on to a cluster: a connection with an advisory lock, kept by a thread of its own.
//!
//! A thread, because a test's runtime ends with the test and would take the connection along, and because joining
//! must also work where no runtime is. It removes databases that nobody needs any more, too.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::SuperuserUrl;

/// Advisory locks in database `postgres`, as pairs of one class and a purpose.
pub(super) const LOCK_CLASS: i32 = 0x4b4f43;
/// Shared: uses the cluster. Exclusive: ends it.
pub(super) const LOCK_LEASE: i32 = 1;
/// Held by the watchdog for its lifetime.
pub(super) const LOCK_WATCHDOG: i32 = 2;
/// Held while abandoned databases are being removed.
const LOCK_SWEEP: i32 = 3;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Keeps a cluster alive. Dropping it gives it up.
#[derive(Debug)]
pub struct Lease {
    url: SuperuserUrl,
    backend: i32,
    watched: bool,
    work: UnboundedSender<Work>,
    /// Taken when the lease is dropped.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Work {
    Drop(String),
    Sweep,
    End,
}

impl Lease {
    pub(super) fn take(url: &SuperuserUrl) -> anyhow::Result<Self> {
        let (work, jobs) = unbounded_channel();
        let (say, hear) = mpsc::channel();
        let own_url = url.clone();
        let thread = thread::Builder::new()
            .name("cluster-lease".into())
            .spawn(move || keep(&own_url, jobs, &say))?;
        let (backend, watched) = hear.recv().context("the thread of the lease ended")??;
        Ok(Self {
            url: url.clone(),
            backend,
            watched,
            work,
            thread: Some(thread),
        })
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

    /// Has a database removed, soon.
    pub(crate) fn drop_database(&self, name: String) {
        // The thread is gone only when the connection is, and then so is the cluster.
        let _ = self.work.send(Work::Drop(name));
    }

    /// Has the databases removed whose users are gone, soon.
    pub(crate) fn sweep(&self) {
        let _ = self.work.send(Work::Sweep);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.work.send(Work::End);
        if let Some(thread) = self.thread.take() {
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
pub(super) fn block_on<T: Send>(
    work: impl Future<Output = anyhow::Result<T>> + Send,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| runtime()?.block_on(work));
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

pub(super) async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options = url.parse::<PgConnectOptions>()?.disable_statement_logging();
    Ok(tokio::time::timeout(CONNECT_TIMEOUT, options.connect())
        .await
        .context("connecting took too long")??)
}

/// What a new cluster needs before anybody takes a lease.
pub(super) fn prepare(url: &SuperuserUrl) -> anyhow::Result<()> {
    block_on(async {
        let mut connection = connect(url.as_str()).await?;
        sqlx::raw_sql("CREATE SEQUENCE koc_leases")
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    })
}

type Taken = anyhow::Result<(i32, bool)>;

/// The life of a lease's thread.
fn keep(url: &SuperuserUrl, mut jobs: UnboundedReceiver<Work>, say: &mpsc::Sender<Taken>) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return drop(say.send(Err(error))),
    };
    runtime.block_on(async {
        let mut connection = match take(url).await {
            Ok((connection, backend, watched)) => {
                let _ = say.send(Ok((backend, watched)));
                connection
            }
            Err(error) => return drop(say.send(Err(error))),
        };
        while let Some(job) = jobs.recv().await {
            // Tidying is done as well as it can be: a database that stays is removed with the cluster.
            let _ = match job {
                Work::Drop(name) => drop_database(&mut connection, &name).await,
                Work::Sweep => sweep(&mut connection).await,
                Work::End => break,
            };
        }
        let _ = connection.close().await;
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

/// Forced: what a test leaves connected must not keep its database. The name is the harness's own.
async fn drop_database(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let sql = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes the databases whose name holds a lease that no longer exists. One process at a time is enough.
async fn sweep(connection: &mut PgConnection) -> sqlx::Result<()> {
    let try_lock = "SELECT pg_try_advisory_lock($1, $2)";
    let first = sqlx::query_scalar::<_, bool>(try_lock)
        .bind(LOCK_CLASS)
        .bind(LOCK_SWEEP);
    if !first.fetch_one(&mut *connection).await? {
        return Ok(());
    }
    let abandoned = sqlx::query_scalar::<_, String>(
        r"SELECT datname::text
            FROM pg_database
           WHERE substring(datname FROM '^koc_test_([0-9]+)_')::int NOT IN (
                     SELECT pid FROM pg_locks
                      WHERE locktype = 'advisory' AND classid::int = $1 AND objid::int = $2 AND granted)",
    )
    .bind(LOCK_CLASS)
    .bind(LOCK_LEASE)
    .fetch_all(&mut *connection)
    .await?;
    for name in abandoned {
        drop_database(connection, &name).await?;
    }
    let unlock = sqlx::query("SELECT pg_advisory_unlock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(LOCK_SWEEP);
    unlock.execute(connection).await?;
    Ok(())
}
