//! A real service in the test's own process: on a database of its own, over real gRPC and HTTP.

use crate::{
    database::{self, TestDatabase},
    http::Http,
    token, wait,
};
use koc_chassis::{
    config::ServeConfig,
    postgres::{self, Schema},
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// How long a service may take to serve, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A channel that shows a token.
pub type TestChannel = InterceptedService<Channel, Bearer>;

/// Adds a token, and the person who acts.
#[derive(Debug, Clone)]
pub struct Bearer {
    token: Option<MetadataValue<Ascii>>,
    actor: Option<MetadataValue<Ascii>>,
}

impl Bearer {
    /// Shows this token, or none, and asserts this actor, or none.
    ///
    /// # Panics
    /// When they are not plain text.
    #[must_use]
    pub fn new(token: Option<String>, actor: Option<String>) -> Self {
        let token = token.map(|token| format!("Bearer {token}").parse().expect("a token is text"));
        Self { token, actor: actor.map(|actor| actor.parse().expect("an actor is text")) }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (header, value) in [("authorization", &self.token), ("koc-actor", &self.actor)] {
            if let Some(value) = value {
                request.metadata_mut().insert(header, value.clone());
            }
        }
        Ok(request)
    }
}

/// A database with a service's schema, without the service.
pub struct ServiceDatabase {
    /// The way in with the application role.
    pub app_url: String,
    /// A pool in the service's schema as superuser.
    pub admin: PgPool,
    _database: TestDatabase,
}

/// Makes a database with a service's schema, its roles, and a clock that can be moved.
pub async fn database(schema: &Schema) -> ServiceDatabase {
    let name = schema.name;
    let (owner, app) = (format!("koc_{name}_owner"), format!("koc_{name}_app"));
    let chassis = database::fingerprint(&postgres::CHASSIS_MIGRATIONS);
    let key = format!("{name}_{chassis}_{}", database::fingerprint(schema.migrations));
    let (schema, roles) = (*schema, (owner.clone(), app.clone()));
    let database = database::from_template(&key, move |superuser| async move {
        let (owner, app) = roles;
        postgres::bootstrap(&superuser, schema.name, (&owner, "test"), (&app, "test")).await?;
        postgres::migrate(&database::with_user(&superuser, &owner), &schema, &app).await?;
        let pool = admin_pool(&superuser, schema.name).await?;
        for sql in [
            "CREATE TABLE test_clock (shift interval NOT NULL)",
            "INSERT INTO test_clock VALUES ('0')",
            "CREATE OR REPLACE FUNCTION koc_now() RETURNS timestamptz LANGUAGE sql VOLATILE SECURITY DEFINER AS
             'SELECT clock_timestamp() + shift FROM test_clock'",
        ] {
            sqlx::query(sql).execute(&pool).await?;
        }
        // All facts, those without a place too.
        let told = "CREATE VIEW told AS
             SELECT position, fact_id, programme_id, subject_id, type_name, payload, traceparent FROM fact
             UNION ALL
             SELECT NULL, f.*, traceparent
             FROM outbox, UNNEST(fact_ids, programme_ids, subject_ids, type_names, payloads) AS f";
        sqlx::query(told).execute(&pool).await?;
        // The function runs with its owner's rights, so its owner must reach the table.
        sqlx::query(sqlx::AssertSqlSafe(format!("GRANT SELECT ON test_clock TO {owner}"))).execute(&pool).await?;
        // The search path is the function's own, since its caller may stand in another.
        let path = format!("ALTER FUNCTION koc_now() SET search_path = {}", schema.name);
        sqlx::query(sqlx::AssertSqlSafe(path)).execute(&pool).await?;
        pool.close().await;
        Ok(())
    })
    .await;
    let admin = admin_pool(database.url(), name).await.expect("the database was just made");
    ServiceDatabase { app_url: database::with_user(database.url(), &app), admin, _database: database }
}

/// A service at work.
pub struct Running {
    /// Where it serves, as a URL.
    pub url: String,
    pub address: SocketAddr,
    pub database: ServiceDatabase,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Starts a service on a new database and a free port; ready when this returns. `serve` is the service's own `serve`, given its
/// configuration.
pub async fn start<F, Fut>(schema: &Schema, serve: F) -> Running
where
    F: FnOnce(ServeConfig, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    start_on(free_address(), database(schema).await, serve).await
}

/// As [`start`], at an address and on a database of the caller's.
pub async fn start_on<F, Fut>(address: SocketAddr, database: ServiceDatabase, serve: F) -> Running
where
    F: FnOnce(ServeConfig, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let config = ServeConfig {
        database_url: database.app_url.clone(),
        listen: Some(address),
        ops_listen: Some(free_address()),
        jwks_file: token::jwks_file().to_owned(),
        peer_token_file: Some(token::peer_token_file().to_owned()),
        database_connections: 12,
        feed_days: None,
        otlp_endpoint: None,
        log: "warn".into(),
    };
    let task = tokio::spawn(serve(config, stop.clone()));
    wait::until("the service to serve", PATIENCE, async || {
        assert!(!task.is_finished(), "the service ended before it served");
        tokio::net::TcpStream::connect(address).await.ok()
    })
    .await;
    Running { url: format!("http://{address}"), address, database, stop, task }
}

/// A channel to a service with this token, or none, asserting this actor, or none.
///
/// # Panics
/// When the URL is none.
#[must_use]
pub fn channel_to(url: &str, token: Option<String>, actor: Option<String>) -> TestChannel {
    let channel = Endpoint::from_shared(url.to_owned()).expect("an address of ours").connect_lazy();
    InterceptedService::new(channel, Bearer::new(token, actor))
}

impl Running {
    /// A channel with a token that may do everything, acting as `tester`.
    #[must_use]
    pub fn channel(&self) -> TestChannel {
        self.channel_of("tester")
    }

    /// A channel with a token that may do everything, acting as `actor`.
    #[must_use]
    pub fn channel_of(&self, actor: &str) -> TestChannel {
        self.channel_with(Some(token::all(actor)), None)
    }

    /// A channel with this token, or none, asserting this actor, or none.
    #[must_use]
    pub fn channel_with(&self, token: Option<String>, actor: Option<String>) -> TestChannel {
        channel_to(&self.url, token, actor)
    }

    /// A client for HTTP/JSON with this token, or none.
    #[must_use]
    pub fn http_with(&self, token: Option<String>) -> Http {
        Http::new(Endpoint::from_shared(self.url.clone()).expect("an address of ours").connect_lazy(), token)
    }

    /// A client for HTTP/JSON that may do everything, acting as `tester`.
    #[must_use]
    pub fn http(&self) -> Http {
        self.http_with(Some(token::all("tester")))
    }

    /// Moves the service's clock.
    pub async fn advance(&self, by: Duration) {
        self.database.advance(by).await;
    }

    /// Ends the service as a signal would, and gives its database back for another start.
    ///
    /// # Panics
    /// When it failed or does not end.
    pub async fn stop(self) -> ServiceDatabase {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("a service ends when told to");
        ended.expect("a service does not panic").expect("a service does not fail");
        self.database
    }
}

impl ServiceDatabase {
    /// Moves the clock that the service reads.
    pub async fn advance(&self, by: Duration) {
        sqlx::query("UPDATE test_clock SET shift = shift + $1 * interval '1 second'")
            .bind(by.as_secs_f64())
            .execute(&self.admin)
            .await
            .expect("the test clock is there");
    }
}

/// A local address that nobody uses now, nor is given by chance before its service has started: the system takes ports for whoever
/// names none, outgoing connections too, from 32,768 up. Each process begins at a place of its own.
///
/// # Panics
/// When no port is left.
#[must_use]
pub fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    /// Ports that one process is likely to need before it comes to those of the next.
    const APART: u32 = 61;
    static TURN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(APART);
    for _ in 0..COUNT {
        let place = start.wrapping_add(TURN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + place).expect("a port is below 65,536");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port from {FIRST} to {} is free", FIRST + COUNT - 1)
}

async fn admin_pool(url: &str, schema: &str) -> Result<PgPool, sqlx::Error> {
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    PgPoolOptions::new().max_connections(4).connect_with(options.options([("search_path", schema)])).await
}
