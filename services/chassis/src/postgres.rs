//! Postgres: a pool on the service's schema with the application role, and migrations with the owner role.

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use std::{
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, futures::Notified};

/// Longest statement; calls end sooner by their deadline.
const STATEMENT_TIMEOUT: &str = "60s";
/// Longest wait for a row that another transaction holds.
const LOCK_TIMEOUT: &str = "10s";
/// A transaction that does nothing for so long is ended by the server.
const IDLE_TRANSACTION_TIMEOUT: &str = "60s";
/// How many times its longest statement a piece of work with an own connection may last.
const WORK_TO_STATEMENT: u32 = 3;
/// Longest wait for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The tables that all services have, as migrations with versions below those of the services.
pub static CHASSIS_MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// A service's database.
#[derive(Clone)]
pub struct Db {
    pool: PgPool,
    schema: &'static str,
    facts: Arc<Notify>,
    jobs: Arc<Notify>,
}

/// A service's schema: its name, its migrations, and the tables whose rows never change.
#[derive(Clone, Copy)]
pub struct Schema {
    pub name: &'static str,
    /// Versions from 1001 on.
    pub migrations: &'static Migrator,
    /// Tables in which the application role can neither update nor delete.
    pub append_only: &'static [&'static str],
}

/// Why a database is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database address is not of the form postgres://user:password@host:port/database")]
    Address(#[source] sqlx::Error),
    #[error("the schema {schema} lacks the migration {missing}: run `koc migrate {schema}`")]
    NotMigrated { schema: &'static str, missing: i64 },
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("the migration failed")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

fn options(url: &str, schema: &'static str) -> Result<PgConnectOptions, DatabaseError> {
    Ok(PgConnectOptions::from_str(url)
        .map_err(DatabaseError::Address)?
        .application_name(&format!("koc-{schema}"))
        .options([("search_path", schema)]))
}

impl Db {
    /// A pool of at most `connections`; connects when first used.
    pub fn new(url: &str, schema: &'static str, connections: u32) -> Result<Self, DatabaseError> {
        let options = options(url, schema)?
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT),
                ("lock_timeout", LOCK_TIMEOUT),
                ("idle_in_transaction_session_timeout", IDLE_TRANSACTION_TIMEOUT),
            ])
            .log_statements(tracing::log::LevelFilter::Trace);
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options);
        Ok(Self { pool, schema, facts: Arc::default(), jobs: Arc::default() })
    }

    /// Waits until the database answers and its schema is as new as `schema` needs. A missing migration is an error at once: it
    /// is made by a command, never at serve.
    pub async fn ready(&self, schema: &Schema) -> Result<(), DatabaseError> {
        // Each one: the chassis's own have lower versions than the services', so the highest says nothing of them.
        let needed = || CHASSIS_MIGRATIONS.iter().chain(schema.migrations.iter()).map(|m| m.version);
        loop {
            let found =
                sqlx::query_scalar::<_, i64>("SELECT version FROM _sqlx_migrations WHERE success").fetch_all(&self.pool).await;
            match found {
                Ok(found) => {
                    return match needed().find(|version| !found.contains(version)) {
                        None => Ok(()),
                        Some(missing) => Err(DatabaseError::NotMigrated { schema: schema.name, missing }),
                    };
                }
                // 42P01: the table is not there at all.
                Err(error) if error.as_database_error().is_some_and(|e| e.code().as_deref() == Some("42P01")) => {
                    return Err(DatabaseError::NotMigrated { schema: schema.name, missing: needed().min().unwrap_or(0) });
                }
                Err(error) if crate::fault::is_transient(&error) => {
                    tracing::warn!(error = %error, "waiting for the database");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub fn schema(&self) -> &'static str {
        self.schema
    }

    /// Begins a transaction whose statements end, in the database too, when the present call's deadline does.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_with("BEGIN").await
    }

    /// As [`Self::begin`], to read only. Drop it when done.
    pub async fn read(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_with("BEGIN READ ONLY").await
    }

    /// As [`Self::read`]; all statements see the database as of one instant.
    pub async fn snapshot(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await
    }

    async fn begin_with(&self, begin: &'static str) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let begin = match crate::context::current() {
            None => begin.to_owned(),
            // One message, so that the limit costs no round trip. A dropped future sends no cancel to Postgres: the limit ends it.
            Some(_) => {
                let left = crate::context::time_left().as_millis().clamp(1, 60_000);
                format!("{begin}; SET LOCAL statement_timeout = {left}")
            }
        };
        // A call that is given up while BEGIN is on its way would put the connection back into the pool within a transaction that nobody knows
        // of: the next ones would be read-only, fail, or never be committed. In a task of its own it comes to its end, and a transaction
        // that nobody takes is rolled back.
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(begin)).await });
        begun.await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    /// A connection of its own, for work that never pauses under load and whose statements find rows by their keys. A pool asks the
    /// server before and after each use whether the connection still lives: two round trips. Plans are made once and not for each
    /// set of values, and always by index: one that was made while a table was small must do when it has grown.
    pub fn own_connection(&self, statement_timeout: Duration, lock_timeout: Duration) -> OwnConnection {
        let milliseconds = |limit: Duration| limit.as_millis().to_string();
        let options = self.pool.connect_options().as_ref().clone().options([
            ("statement_timeout", milliseconds(statement_timeout)),
            ("lock_timeout", milliseconds(lock_timeout)),
            // It never pauses in a transaction: one that does is of a process that is gone, and its locks are wanted.
            ("idle_in_transaction_session_timeout", milliseconds(statement_timeout)),
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("enable_seqscan", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
            ("jit", "off".to_owned()),
        ]);
        OwnConnection { options, limit: statement_timeout * WORK_TO_STATEMENT, kept: Mutex::default() }
    }

    /// Says that facts or jobs were committed.
    pub fn wake(&self) {
        self.facts.notify_one();
        self.jobs.notify_waiters();
    }

    /// Says that facts were committed, and no jobs.
    pub fn wake_feed(&self) {
        self.facts.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.facts.notified().await;
    }

    /// Ends at the first [`Self::wake`] after this call, awaited by then or not.
    pub(crate) fn jobs_woken(&self) -> Notified<'_> {
        self.jobs.notified()
    }

    pub(crate) async fn listen(&self, channel: &str) -> Result<PgListener, sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }
}

/// See [`Db::own_connection`].
pub struct OwnConnection {
    options: PgConnectOptions,
    /// Longest piece of work.
    limit: Duration,
    kept: Mutex<Option<PgConnection>>,
}

impl OwnConnection {
    /// Does a piece of work with the connection, within its limit. The server's limits do not help when it is out of reach without a
    /// word: nobody else would end the wait.
    pub async fn within<T, E: From<sqlx::Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let late = |_| E::from(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        tokio::time::timeout(self.limit, work).await.map_err(late)?
    }

    /// The connection; a new one when there is none. [`Self::give_back`] it when all went well: otherwise nobody knows in which state
    /// it is, and dropping it closes it.
    pub async fn take(&self) -> Result<PgConnection, sqlx::Error> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some(conn) => Ok(conn),
            None => PgConnection::connect_with(&self.options).await,
        }
    }

    /// Keeps the connection for the next use.
    pub fn give_back(&self, conn: PgConnection) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(conn);
    }
}

/// Brings a schema to its newest version with the owner role, and gives the application role what it may do: read and write rows,
/// and only add them in append-only tables. Runs any number of times.
pub async fn migrate(owner_url: &str, schema: &Schema, app_role: &str) -> Result<(), DatabaseError> {
    let mut conn = options(owner_url, schema.name)?.log_statements(tracing::log::LevelFilter::Trace).connect().await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema.name)
        .fetch_one(&mut conn)
        .await?;
    if !exists {
        execute(&mut conn, format!("CREATE SCHEMA {}", ident(schema.name))).await?;
    }
    let (schema_name, role) = (ident(schema.name), ident(app_role));
    // Each migration commits by itself, while older replicas are at work: they must not find a new table closed until the last is done.
    for (rights, things) in [("SELECT, INSERT, UPDATE, DELETE", "TABLES"), ("USAGE", "SEQUENCES")] {
        let sql = format!("ALTER DEFAULT PRIVILEGES IN SCHEMA {schema_name} GRANT {rights} ON {things} TO {role}");
        execute(&mut conn, sql).await?;
    }
    let all = CHASSIS_MIGRATIONS.iter().chain(schema.migrations.iter()).cloned().collect();
    Migrator::with_migrations(all).run(&mut conn).await?;

    for grant in [
        format!("GRANT USAGE ON SCHEMA {schema_name} TO {role}"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema_name} TO {role}"),
        format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema_name} TO {role}"),
        format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema_name} TO {role}"),
        format!("REVOKE INSERT, UPDATE, DELETE ON {schema_name}._sqlx_migrations FROM {role}"),
    ] {
        execute(&mut conn, grant).await?;
    }
    for table in schema.append_only.iter().chain(&["audit_entry"]) {
        execute(&mut conn, format!("REVOKE UPDATE, DELETE, TRUNCATE ON {schema_name}.{} FROM {role}", ident(table))).await?;
    }
    conn.close().await?;
    Ok(())
}

/// Creates, as superuser, the two roles of a schema and the schema itself. Runs any number of times.
pub async fn bootstrap(
    superuser_url: &str,
    schema: &'static str,
    owner: (&str, &str),
    app: (&str, &str),
) -> Result<(), DatabaseError> {
    let mut conn = options(superuser_url, schema)?.log_statements(tracing::log::LevelFilter::Trace).connect().await?;
    for (role, password) in [owner, app] {
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)").bind(role).fetch_one(&mut conn).await?;
        let verb = if exists { "ALTER" } else { "CREATE" };
        execute(&mut conn, format!("{verb} ROLE {} LOGIN NOSUPERUSER PASSWORD {}", ident(role), literal(password))).await?;
    }
    execute(&mut conn, format!("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}", ident(schema), ident(owner.0))).await?;
    execute(&mut conn, "REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned()).await?;
    conn.close().await?;
    Ok(())
}

async fn execute(conn: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    // Names are quoted by `ident` and `literal`; nothing here comes from a caller of the API.
    sqlx::query(AssertSqlSafe(sql)).execute(conn).await.map(|_| ())
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
