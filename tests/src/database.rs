//! A database for each test, copied from a template that is made once.
//!
//! **How it stays small.** A database takes some 8 MB. Removing one means a checkpoint, which takes longer than many
//! a test, but several that are removed at the same time share it. So a database that is done with is only noted,
//! and whoever asks for a new one when [`REMOVAL_BATCH`] have gathered removes them first, all at once. Where each
//! test is a process, nobody is left to note anything: a database's name holds the lease of the process that made it,
//! and those whose lease is gone are removed as well. Copies are made through the log, the server's default: file by
//! file, with a checkpoint for each, took twice as long, removal included.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Context;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::cluster::{self, LOCK_CLASS, LOCK_LEASE, Lease};

/// Held while a template is being made. One for all: what makes a template may also make roles, which all databases
/// of a cluster share, and two that make the same role at the same time disturb each other.
const LOCK_TEMPLATES: i64 = 0x6b6f_6374_656d_706c;
/// Held while a template is being copied, so that no two copies get into each other's way.
const LOCK_COPY: i64 = 0x6b6f_6363_6f70_7921;
/// Held while databases are being removed, as one of the pairs of [`LOCK_CLASS`].
const LOCK_REMOVAL: i32 = 3;
/// How many databases may lie about before they are removed.
const REMOVAL_BATCH: usize = 16;
/// How many of them are removed at the same time.
const REMOVAL_CONNECTIONS: usize = 8;
/// Part of a key that is kept readable in the template's name; Postgres cuts names at 63 bytes.
const KEY_READABLE_MAX_BYTES: usize = 24;

/// A database of a test's own. Dropping it has it removed, if not at once.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    name: String,
    lease: &'static Lease,
}

impl TestDatabase {
    /// The way into it as superuser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        self.lease.discard(std::mem::take(&mut self.name));
    }
}

/// A new database, copied from the template of this key. The first caller's `init` makes the template: it gets the
/// superuser's URL of an empty database, and typically runs the migrations. Others wait for it. If it fails or is
/// killed, nothing of it is ever copied, and the next caller's `init` starts afresh.
///
/// A template may outlive the program that made it by a minute. So the key must change with what `init` does: put
/// [`fingerprint`] of the migrations into it.
///
/// # Panics
/// When there is no Postgres, or `init` fails: no test can go on then.
pub async fn from_template<F, Fut>(key: &str, init: F) -> TestDatabase
where
    F: FnOnce(String) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    // Starting the cluster blocks for a second or two, and not only this test's own runtime may be waiting.
    let lease = tokio::task::spawn_blocking(cluster::shared_lease).await.expect("the cluster was joined");
    match copy(lease, key, init).await {
        Ok(database) => database,
        Err(error) => panic!("no database from template {key}: {error:#}"),
    }
}

/// The same database, entered by another role, whose password is `test` as [`koc_chassis::postgres::bootstrap`] was told.
pub(crate) fn with_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a database URL has a scheme");
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}:test@{host}")
}

/// Changes when a migration is added or altered.
#[must_use]
pub fn fingerprint(migrations: &Migrator) -> String {
    let mut hasher = DefaultHasher::new();
    for migration in migrations.iter() {
        (migration.version, &migration.checksum).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

async fn copy<F, Fut>(lease: &'static Lease, key: &str, init: F) -> anyhow::Result<TestDatabase>
where
    F: FnOnce(String) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let mut admin = PgConnection::connect(lease.url().as_str()).await?;
    tidy(lease, &mut admin).await?;
    let template = Template::of(key);
    if !template.exists(&mut admin).await? {
        lock(&mut admin, LOCK_TEMPLATES).await?;
        if !template.exists(&mut admin).await? {
            template.make(lease, &mut admin, init).await?;
        }
        unlock(&mut admin, LOCK_TEMPLATES).await?;
    }
    let name = format!("koc_test_{}_{}", lease.backend(), Uuid::new_v4().simple());
    lock(&mut admin, LOCK_COPY).await?;
    run(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {}", template.finished)).await?;
    // Closing the connection gives the lock back.
    admin.close().await?;
    Ok(TestDatabase { url: lease.url().database(&name), name, lease })
}

/// Removes what is no longer needed, once there is enough of it, unless somebody else is at it.
async fn tidy(lease: &Lease, admin: &mut PgConnection) -> anyhow::Result<()> {
    if abandoned(admin).await?.len() + lease.discarded().len() < REMOVAL_BATCH {
        return Ok(());
    }
    let first = sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(LOCK_REMOVAL)
        .fetch_one(&mut *admin)
        .await?;
    if !first {
        return Ok(());
    }
    // Read again: whoever held the lock before may have removed them.
    let mut names = abandoned(admin).await?;
    names.append(&mut lease.discarded());
    let share = names.len().div_ceil(REMOVAL_CONNECTIONS).max(1);
    let mut removals = JoinSet::new();
    for names in names.chunks(share) {
        let (url, names) = (lease.url().clone(), names.to_vec());
        removals.spawn(async move {
            let mut connection = PgConnection::connect(url.as_str()).await?;
            let mut stay = Vec::new();
            for name in names {
                // By force: what a test left connected must not keep its database. Something that connects again
                // and again may still win, which is no reason for this test to fail; the next one tries again.
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                if run(&mut connection, sql).await.is_err() {
                    stay.push(name);
                }
            }
            connection.close().await?;
            Ok::<_, sqlx::Error>(stay)
        });
    }
    while let Some(removal) = removals.join_next().await {
        lease.discarded().append(&mut removal??);
    }
    sqlx::query("SELECT pg_advisory_unlock($1, $2)").bind(LOCK_CLASS).bind(LOCK_REMOVAL).execute(admin).await?;
    Ok(())
}

/// The databases whose name holds a lease that no longer exists.
async fn abandoned(admin: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT datname::text
           FROM pg_database
          WHERE substring(datname FROM '^koc_test_([0-9]+)_')::int NOT IN (
                    SELECT pid FROM pg_locks
                     WHERE locktype = 'advisory' AND classid::int = $1 AND objid::int = $2 AND granted)",
    )
    .bind(LOCK_CLASS)
    .bind(LOCK_LEASE)
    .fetch_all(admin)
    .await
}

/// The names of a template.
#[derive(Debug)]
struct Template {
    finished: String,
    unfinished: String,
}

impl Template {
    /// Readable characters of the key, and a hash of all of it.
    fn of(key: &str) -> Self {
        let readable: String = key
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .take(KEY_READABLE_MAX_BYTES)
            .collect();
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let name = format!("{readable}_{:016x}", hasher.finish());
        Self { finished: format!("koc_template_{name}"), unfinished: format!("koc_making_{name}") }
    }

    async fn exists(&self, admin: &mut PgConnection) -> sqlx::Result<bool> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&self.finished)
            .fetch_one(admin)
            .await
    }

    /// Under its final name a template is whole: the name is given last. No one may connect to it, for that would
    /// keep it from being copied.
    async fn make<F, Fut>(&self, lease: &Lease, admin: &mut PgConnection, init: F) -> anyhow::Result<()>
    where
        F: FnOnce(String) -> Fut,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let Self { finished, unfinished } = self;
        run(admin, format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await?;
        run(admin, format!("CREATE DATABASE {unfinished}")).await?;
        init(lease.url().database(unfinished)).await.context("making the template")?;
        run(admin, format!("ALTER DATABASE {unfinished} ALLOW_CONNECTIONS false")).await?;
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
            .bind(unfinished)
            .execute(&mut *admin)
            .await?;
        run(admin, format!("ALTER DATABASE {unfinished} RENAME TO {finished}")).await?;
        Ok(())
    }
}

/// The statements hold names of the harness's own making only.
async fn run(admin: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await?;
    Ok(())
}

async fn lock(admin: &mut PgConnection, key: i64) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_lock($1)").bind(key).execute(admin).await?;
    Ok(())
}

async fn unlock(admin: &mut PgConnection, key: i64) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(key).execute(admin).await?;
    Ok(())
}
