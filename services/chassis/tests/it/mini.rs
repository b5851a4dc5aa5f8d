//! The smallest service that the chassis can carry: programmes in one table, a feed of them, and a few tables that show which
//! effects happened.

use koc_chassis::{
    auth::{Caller, Keys, act_as},
    config::ServeConfig,
    context,
    fault::{Fault, ServiceError, Violation, constraint},
    gate::Gate,
    outbox::{self, NewFact},
    postgres::{Db, Schema},
    sequencer,
    server::{Identity, MAX_MESSAGE_BYTES, Service},
    telemetry::Metrics,
};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::{
    service::{self, Running, ServiceDatabase, TestChannel},
    token,
};
use pb::{
    feed_service_client::FeedServiceClient, feed_service_server::FeedServiceServer,
    programme_service_client::ProgrammeServiceClient, programme_service_server::ProgrammeServiceServer,
};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};
use uuid::Uuid;

koc_chassis::feed_service!(koc_proto::koc::registry::v1, Error);

/// How long a test waits for what should come about.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const IDENTITY: Identity = Identity { name: "chassis", package: "koc.registry.v1", domain: "registry.koc", port: 0 };

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let tables = "CREATE TABLE programme (programme_id uuid CONSTRAINT programme_pkey PRIMARY KEY, display_name text NOT NULL);
        CREATE TABLE account (account_id integer CONSTRAINT account_pkey PRIMARY KEY, balance bigint NOT NULL);
        CREATE TABLE effect (nr bigint GENERATED ALWAYS AS IDENTITY, position bigint NOT NULL, subject_id uuid NOT NULL);
        CREATE TABLE step (nr bigint GENERATED ALWAYS AS IDENTITY, job_id uuid NOT NULL, step text NOT NULL,
                           request_id text NOT NULL, time timestamptz NOT NULL);";
    let sql = sqlx::SqlStr::from_static(tables);
    Migrator::with_migrations(vec![Migration::new(1001, "mini".into(), MigrationType::Simple, sql, false)])
});

pub fn schema() -> Schema {
    Schema { name: "chassis", migrations: &MIGRATIONS, append_only: &[] }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the programme {0} exists")]
    ProgrammeExists(Uuid),
    #[error("{free} are free")]
    Full { free: i64 },
    #[error("not now")]
    Busy,
    #[error("a field breaks a rule")]
    Invalid(Violation),
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl ServiceError for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::ProgrammeExists(id) => Fault::exists("PROGRAMME_EXISTS", self.to_string()).with("programme_id", id),
            Self::Full { free } => Fault::refused("FULL", self.to_string()).with("free", free).with("limit_id", "the-limit"),
            Self::Busy => Fault::unavailable("BUSY", self.to_string()),
            Self::Invalid(violation) => Fault::invalid(vec![violation.clone()]),
            Self::Database(error) => Fault::of_database(error),
        }
    }

    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

/// What a test sees and holds of a mini service.
#[derive(Clone)]
pub struct Hold {
    /// A read waits for a permit of these.
    pub permits: Arc<Semaphore>,
    /// Reads that arrived at their handler.
    pub entered: Arc<AtomicUsize>,
}

struct Api {
    gate: Gate<Error>,
    hold: Hold,
}

/// Names that make the mini service misbehave.
pub const PANICS: &str = "panics";
pub const SLEEPS: &str = "sleeps";

#[tonic::async_trait]
impl pb::programme_service_server::ProgrammeService for Api {
    async fn create_programme(
        &self,
        request: Request<pb::CreateProgrammeRequest>,
    ) -> Result<Response<pb::CreateProgrammeResponse>, Status> {
        assert_ne!(request.get_ref().display_name, PANICS, "as asked");
        let created = self.gate.mutate(request, |work, req| {
            Box::pin(async move {
                if req.display_name == SLEEPS {
                    sqlx::query("SELECT pg_sleep(30)").execute(work.conn()).await?;
                }
                let id = work.programme().0;
                sqlx::query("INSERT INTO programme (programme_id, display_name) VALUES ($1, $2)")
                    .bind(id)
                    .bind(&req.display_name)
                    .execute(work.conn())
                    .await
                    .map_err(|error| match constraint(&error) {
                        Some("programme_pkey") => Error::ProgrammeExists(id),
                        _ => error.into(),
                    })?;
                work.emit(id, &pb::ProgrammeCreated { programme_id: id.to_string() }).await?;
                work.audit(id, None);
                Ok(pb::CreateProgrammeResponse { programme: Some(programme(&id.to_string(), &req.display_name)) })
            })
        });
        created.await.map(Into::into)
    }

    /// Tells of the call itself: the actor as name, the client as time zone, what is left of the deadline (ms) as currency.
    async fn get_programme(
        &self,
        request: Request<pb::GetProgrammeRequest>,
    ) -> Result<Response<pb::GetProgrammeResponse>, Status> {
        self.hold.entered.fetch_add(1, Ordering::SeqCst);
        let read = self.gate.read(request, async |call, req| {
            let _permit = self.hold.permits.acquire().await.expect("nobody closes it");
            let told = pb::Programme {
                programme_id: req.programme_id,
                display_name: call.caller.actor.clone(),
                time_zone: call.caller.client.clone(),
                currency_code: context::time_left().as_millis().to_string(),
                create_time: None,
            };
            Ok(pb::GetProgrammeResponse { programme: Some(told) })
        });
        read.await
    }
}

pub fn programme(id: &str, name: &str) -> pb::Programme {
    pb::Programme { programme_id: id.into(), display_name: name.into(), ..Default::default() }
}

/// A mini service at work.
pub struct Mini {
    pub running: Running,
    pub ops: SocketAddr,
    pub hold: Hold,
}

/// What a test adds to the service before it serves.
pub type Extra = Box<dyn FnOnce(&mut Service) + Send>;

pub async fn start() -> Mini {
    start_with(|config| config, Metrics::new(), Box::new(|_| {})).await
}

pub async fn start_with(adjust: impl FnOnce(ServeConfig) -> ServeConfig, metrics: Metrics, extra: Extra) -> Mini {
    let ops = OnceLock::new();
    let hold = Hold { permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), entered: Arc::default() };
    let running = service::start(&schema(), |config, stop| {
        let config = adjust(config);
        ops.set(config.ops_listen.expect("the harness sets it")).expect("set once");
        serve(config, hold.clone(), metrics, extra, stop)
    })
    .await;
    Mini { running, ops: *ops.get().expect("it was started"), hold }
}

pub async fn serve(
    config: ServeConfig,
    hold: Hold,
    metrics: Metrics,
    extra: Extra,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut service = Service::prepare(IDENTITY, schema(), config, stop).await?;
    extra(&mut service);
    let gate: Gate<Error> = service.gate();
    let feed = FeedApi { gate: gate.clone(), feed: service.feed().clone(), domain: IDENTITY.domain };
    let mut routes = Routes::builder();
    routes
        .add_service(ProgrammeServiceServer::new(Api { gate, hold }).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(FeedServiceServer::new(feed));
    service.serve(routes.routes(), metrics).await
}

impl Mini {
    pub fn programmes(&self) -> ProgrammeServiceClient<TestChannel> {
        ProgrammeServiceClient::new(self.running.channel())
    }

    pub fn programmes_with(&self, token: Option<String>, actor: Option<&str>) -> ProgrammeServiceClient<TestChannel> {
        ProgrammeServiceClient::new(self.running.channel_with(token, actor.map(str::to_owned)))
    }

    pub fn feed(&self) -> FeedServiceClient<TestChannel> {
        FeedServiceClient::new(self.running.channel())
    }
}

/// A request for a new programme of this name.
pub fn create(name: &str) -> pb::CreateProgrammeRequest {
    pb::CreateProgrammeRequest {
        programme_id: Uuid::now_v7().to_string(),
        request_id: Uuid::new_v4().to_string(),
        display_name: name.into(),
        currency_code: "CNY".into(),
        time_zone: "Asia/Shanghai".into(),
    }
}

/// A way into a database as one replica has it: with a pool of its own.
pub fn replica(database: &ServiceDatabase) -> Db {
    Db::new(&database.app_url, "chassis", 8).expect("an address of the harness")
}

/// `platform`, with all scopes for all programmes, acting for `actor`.
pub fn caller(actor: &str) -> Arc<Caller> {
    let keys = Keys::load(token::jwks_file()).expect("keys of the harness");
    let platform = keys.verify(&token::all("platform")).expect("a token of the harness");
    act_as(platform, Some(actor)).expect("it may")
}

/// A request as it comes through the door.
pub fn admitted<R>(message: R) -> Request<R> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller("ada"));
    request
}

/// Commits `count` facts of each subject, those of one subject with rising versions, and gives them their places.
pub async fn publish(db: &Db, subjects: &[Uuid], count: i64) {
    for version in 1..=count {
        let facts: Vec<NewFact> = subjects
            .iter()
            .map(|subject| {
                let fact = pb::MemberChanged { member_id: subject.to_string(), version, ..Default::default() };
                NewFact::new(Uuid::nil().into(), *subject, &fact)
            })
            .collect();
        let mut tx = db.begin().await.expect("a transaction");
        outbox::append(&mut tx, &facts).await.expect("facts");
        tx.commit().await.expect("commits");
    }
    let sequencer = sequencer::Sequencer::new(db);
    while sequencer.step(None).await.expect("sequences") > 0 {}
}

/// One number from the database.
pub async fn count(database: &ServiceDatabase, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&database.admin).await.expect("a number")
}
