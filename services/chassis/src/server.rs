//! The life of a service's process: it waits for its database, serves, and on a signal drains and ends.

use crate::{
    admission::Admission,
    auth::Keys,
    config::ServeConfig,
    consumer::Consumer,
    feed::{self, Feed},
    gate::Gate,
    job::{self, JobHandler},
    peer::{self, PeerChannel, Token},
    postgres::{Db, Schema},
    sequencer::{self, OnSequenced},
    telemetry::Metrics,
    transcode::Transcoding,
    vitals::{self, Vitals},
};
use anyhow::Context;
use axum::{extract::State, http::StatusCode, routing::get};
use prometheus::TextEncoder;
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{service::Routes, transport::Server};

/// After a signal, calls at work have so long to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// A connection is asked to be made anew after so long, so that clients spread over new replicas. No grace time: with one, streams
/// would be cut instead of being told to go away.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Jobs that are done can be looked at until so long after they began; how often older ones are removed.
const KEEP_JOBS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const PURGE_PAUSE: Duration = Duration::from_secs(60);
/// How often the parts of the feed are looked at.
const PARTS_PAUSE: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(30);
const MAX_STREAMS_PER_CONNECTION: u32 = 1_024;
/// Largest message, in and out.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// What a service is called and where it listens when not told otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// E.g. `registry`: name of the schema and of the service.
    pub name: &'static str,
    /// E.g. `koc.registry.v1`.
    pub package: &'static str,
    /// E.g. `registry.koc`: the domain of its errors.
    pub domain: &'static str,
    pub port: u16,
}

/// A service being put together.
pub struct Service {
    identity: Identity,
    config: ServeConfig,
    db: Db,
    feed: Feed,
    admission: Admission,
    transcoding: Transcoding,
    stop: CancellationToken,
    hook: Option<Arc<dyn OnSequenced>>,
    consumers: Vec<Consumer>,
    jobs: HashMap<&'static str, Arc<dyn JobHandler>>,
    tasks: JoinSet<()>,
}

impl Service {
    /// Connects to the database, waits until it answers, reads the keys. `stop` ends the service.
    pub async fn prepare(
        identity: Identity,
        schema: Schema,
        config: ServeConfig,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let keys = Keys::load(&config.jwks_file)?;
        let admission = Admission::new(identity.package, identity.domain, keys)?;
        let transcoding = Transcoding::new(&identity)?;
        let db = Db::new(&config.database_url, schema.name, config.database_connections)?;
        tokio::select! {
            ready = db.ready(&schema) => ready?,
            () = stop.cancelled() => anyhow::bail!("stopped before the database answered"),
        }
        let feed = Feed::start(db.clone(), stop.clone());
        Ok(Self {
            identity,
            config,
            db,
            feed,
            admission,
            transcoding,
            stop,
            hook: None,
            consumers: Vec::new(),
            jobs: HashMap::new(),
            tasks: JoinSet::new(),
        })
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    pub fn gate<E: crate::fault::ServiceError>(&self) -> Gate<E> {
        Gate::new(self.db.clone(), self.identity.domain)
    }

    /// A channel to a peer, with this service's token.
    pub fn peer(&self, url: &str) -> anyhow::Result<PeerChannel> {
        let path = self.config.peer_token_file.clone().context("calling peers needs --peer-token-file (KOC_PEER_TOKEN_FILE)")?;
        peer::connect(url, Token::from_file(path)).with_context(|| format!("the address {url:?} of a peer is not a URL"))
    }

    /// Does something with facts as they get their place in the feed.
    pub fn on_sequenced(&mut self, hook: Arc<dyn OnSequenced>) {
        self.hook = Some(hook);
    }

    /// Reads the feed of another service.
    pub fn consume(&mut self, consumer: Consumer) {
        self.consumers.push(consumer);
    }

    /// Runs jobs of a kind.
    pub fn run_jobs(&mut self, kind: &'static str, handler: Arc<dyn JobHandler>) {
        self.jobs.insert(kind, handler);
    }

    /// Runs work in the background that ends by itself, such as a lane's: when nobody is left who could ask.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Does something again and again in the background, `pause` apart.
    pub fn every<F>(&mut self, pause: Duration, mut work: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                work().await;
            }
        });
    }

    /// Serves `routes` until the stop, then drains: no new calls, streams end, background work ends, calls at work have 20 s.
    pub async fn serve(mut self, routes: Routes, metrics: Metrics) -> anyhow::Result<()> {
        let any = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
        let listen = self.config.listen.unwrap_or_else(|| any(self.identity.port));
        let ops_listen = self.config.ops_listen.unwrap_or_else(|| any(self.identity.port + 10));
        let listener = bind(listen).await?;
        let ops_listener = bind(ops_listen).await?;

        let names = ["", self.identity.package];
        let (mut reporter, health) = tonic_health::server::health_reporter();
        let (ops_reporter, ops_health) = tonic_health::server::health_reporter();
        for name in names {
            reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
            ops_reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
        }

        let db = self.db.clone();
        self.every(PURGE_PAUSE, move || purge_jobs(db.clone()));
        let (db, days) = (self.db.clone(), self.config.feed_days);
        self.every(PARTS_PAUSE, move || feed::keep_parts(db.clone(), days));
        let watched = Vitals::new(self.db.clone(), self.jobs.keys().copied().collect());
        self.every(vitals::PAUSE, move || watched.clone().look());
        let (db, hook, stop) = (self.db.clone(), self.hook.take(), self.stop.clone());
        self.tasks.spawn(sequencer::run(db, hook, stop));
        for consumer in self.consumers.drain(..) {
            self.tasks.spawn(consumer.run(self.stop.clone()));
        }
        if !self.jobs.is_empty() {
            self.tasks.spawn(job::run(self.db.clone(), std::mem::take(&mut self.jobs), self.stop.clone()));
        }
        let background = AbortOnDropHandle::new(tokio::spawn(attend(self.tasks, self.stop.clone())));
        let ops = ops_routes(Routes::new(ops_health), metrics, self.stop.clone());
        // Health outlives the drain, so that probes see the end and not a refused connection.
        let ops = tokio::spawn(async move { axum::serve(ops_listener, ops).await });

        let stop = self.stop.clone();
        let going = async move {
            stop.cancelled().await;
            tracing::info!("draining");
            for name in names {
                ops_reporter.set_service_status(name, tonic_health::ServingStatus::NotServing).await;
                reporter.set_service_status(name, tonic_health::ServingStatus::NotServing).await;
                // Ends the streams of those who watch it, which would hold up the drain.
                reporter.clear_service_status(name).await;
            }
        };
        let package = self.identity.package;
        let routes = routes.add_service(health).add_service(reflection_v1(package)?).add_service(reflection_v1alpha(package)?);
        let server = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .max_connection_age(MAX_CONNECTION_AGE)
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .layer(self.transcoding.clone())
            .layer(tonic_web::GrpcWebLayer::new())
            .layer(tonic_tracing_opentelemetry::middleware::server::OtelGrpcLayer::default())
            .layer(self.admission.clone())
            .add_routes(routes)
            .serve_with_incoming_shutdown(tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)), going);
        tracing::info!(service = self.identity.name, %listen, %ops_listen, "serving");

        let stopped = self.stop.clone();
        let hard_end = async {
            stopped.cancelled().await;
            tokio::time::sleep(DRAIN_DEADLINE).await;
        };
        tokio::select! {
            served = server => served.context("serving failed")?,
            () = hard_end => tracing::warn!("calls were still at work at the end of the drain"),
        }
        self.stop.cancel();
        match tokio::time::timeout(DRAIN_DEADLINE, background).await {
            Ok(attended) => attended.and_then(|panicked| panicked).context("background work panicked")?,
            Err(_) => tracing::warn!("background work was still going on at the end of the drain"),
        }
        ops.abort();
        tracing::info!("drained");
        Ok(())
    }
}

/// Waits for all background work. A part of it that panics ends the service: without it, the service would only look alive.
async fn attend(mut tasks: JoinSet<()>, stop: CancellationToken) -> Result<(), JoinError> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(error = %error, "background work panicked; the service ends");
            outcome = Err(error);
            stop.cancel();
        }
    }
    outcome
}

async fn purge_jobs(db: Db) {
    if let Err(error) = job::purge(&db, KEEP_JOBS).await {
        tracing::warn!(error = %error, "jobs that are done could not be removed; trying again");
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}: is another process using the port?"))
}

fn ops_routes(health: Routes, metrics: Metrics, stop: CancellationToken) -> axum::Router {
    let ready = move |State(stop): State<CancellationToken>| async move {
        if stop.is_cancelled() { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "ready") }
    };
    let scrape = move || async move {
        match TextEncoder::new().encode_to_string(&metrics.gather()) {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    };
    axum::Router::new()
        .route("/livez", get(|| async { "alive" }))
        .route("/readyz", get(ready))
        .with_state(stop)
        .route("/metrics", get(scrape))
        .merge(health.into_axum_router())
}

/// Tells of all contracts, since they import each other, and names as served those of `package` alone.
fn reflection(package: &str) -> tonic_reflection::server::Builder<'static> {
    let served: BTreeSet<&str> = koc_proto::METHODS.iter().map(|m| m.service).filter(|s| s.starts_with(package)).collect();
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(koc_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    served.into_iter().fold(builder, |builder, service| builder.with_service_name(service))
}

fn reflection_v1(
    package: &str,
) -> anyhow::Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection + use<>>,
> {
    reflection(package).build_v1().context("the descriptors cannot be served")
}

/// The older version, which Python's and other tools still ask for.
fn reflection_v1alpha(
    package: &str,
) -> anyhow::Result<
    tonic_reflection::server::v1alpha::ServerReflectionServer<impl tonic_reflection::server::v1alpha::ServerReflection + use<>>,
> {
    reflection(package).build_v1alpha().context("the descriptors cannot be served")
}

/// Cancelled by SIGTERM or Ctrl-C.
pub fn stop_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}
