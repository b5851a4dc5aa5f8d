//! What the bench runs on: Postgres, migrated schemas, services, and a programme with money in it.

use crate::{
    calls::Target,
    process::{self, Role, Running, Service},
    raw,
};
use anyhow::Context;
use koc_chassis::{
    cluster::{self, Authentication, Binaries, Cluster, ClusterOptions, Source},
    postgres::{self, Schema},
};
use koc_proto::{google::r#type::Money, koc::budget::v1 as pb, koc::registry::v1 as registry};
use koc_tests::{
    service::{Bearer, free_address},
    token, wait,
};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

/// How long a part may take to serve, and the feed to come to its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Envelopes that work is spread over.
const ENVELOPES: usize = 1_000;
/// Most in one plan.
const ENVELOPES_OF_A_PLAN: usize = 100;
/// In each envelope and account: more than any run takes.
const MONEY_MINOR: i64 = 1_000_000_000_000;
/// How often the last verification is looked at.
const VERIFICATION_PAUSE: Duration = Duration::from_millis(200);
pub const REPLICAS: usize = 3;

/// A server of its own, as durable as one in production.
pub struct Postgres {
    cluster: Cluster,
    folder: PathBuf,
}

impl Postgres {
    pub fn start() -> anyhow::Result<Self> {
        let binaries = Binaries::find_or_install(&std::env::temp_dir(), Source::Any)?;
        let folder = std::env::temp_dir().join(format!("koc-bench-pg-{}", Uuid::new_v4().simple()));
        let cluster = Cluster::start(ClusterOptions {
            authentication: Authentication::Quick,
            settings: vec![
                ("shared_buffers".into(), "1GB".into()),
                ("max_connections".into(), "300".into()),
                // So that it is not chance which figure a checkpoint falls into.
                ("max_wal_size".into(), "16GB".into()),
                ("checkpoint_timeout".into(), "1h".into()),
            ],
            ..ClusterOptions::new(&folder, binaries)
        })?;
        Ok(Self { cluster, folder })
    }

    fn url(&self, database: &str, user: &str) -> String {
        let url = self.cluster.superuser_url(database);
        match user {
            cluster::SUPERUSER => url,
            user => {
                let (_, host) = url.split_once('@').expect("the launcher's URLs have a user");
                format!("postgres://{user}:bench@{host}")
            }
        }
    }

    /// Ends it and removes all that it stored.
    pub fn remove(self) -> anyhow::Result<()> {
        let Self { cluster, folder } = self;
        drop(cluster);
        Ok(cluster::erase(&folder)?)
    }
}

/// Everything at work.
pub struct Stage {
    admin: PgConnection,
    admin_url: String,
    pub bare_url: String,
    pub raw_url: String,
    pub accounts: Vec<Uuid>,
    pub target: Target,
    /// Goes on when its replica is not wanted.
    budgets: Vec<(SocketAddr, Service, Option<Running>)>,
    _others: [Running; 2],
}

impl Stage {
    pub async fn set(postgres: &Postgres) -> anyhow::Result<Self> {
        let superuser = postgres.url("postgres", cluster::SUPERUSER);
        let mut admin = PgConnection::connect(&superuser).await?;
        for database in ["koc", "raw"] {
            sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&mut admin).await?;
        }
        let koc = postgres.url("koc", cluster::SUPERUSER);
        migrate(postgres, &koc, &koc_registry::SCHEMA).await?;
        migrate(postgres, &koc, &koc_budget::SCHEMA).await?;
        let raw_url = postgres.url("raw", cluster::SUPERUSER);
        let accounts = set_raw(&raw_url).await?;

        let service = |name: &str, registry_url: &str| Service {
            database_url: postgres.url("koc", &format!("koc_{name}_app")),
            listen: free_address(),
            ops_listen: free_address(),
            jwks_file: token::jwks_file().to_owned(),
            peer_token_file: token::peer_token_file().to_owned(),
            registry_url: registry_url.to_owned(),
        };
        let registry = service("registry", "");
        let (registry_address, registry_url) = (registry.listen, format!("http://{}", registry.listen));
        let bare = free_address();
        let others = [process::start(&Role::Registry(registry))?, process::start(&Role::Bare(bare))?];
        for address in [registry_address, bare] {
            serving(address).await;
        }
        let budgets: Vec<_> = (0..REPLICAS)
            .map(|_| {
                let service = service("budget", &registry_url);
                (service.listen, service, None)
            })
            .collect();
        let programme = Uuid::now_v7().to_string();
        // What such a caller needs, and no more: the token goes with each call.
        let scopes = ["budget.reservation.read", "budget.reservation.write"];
        let token = token::token("bench", &scopes, std::slice::from_ref(&programme));
        let target = Target { urls: Vec::new(), token, programme, envelopes: Vec::new() };
        let mut admin = PgConnection::connect(&koc).await?;
        sqlx::query("SET search_path = budget").execute(&mut admin).await?;
        let bare_url = format!("http://{bare}");
        let mut stage = Self { admin, admin_url: koc, bare_url, raw_url, accounts, target, budgets, _others: others };
        stage.replicas(1).await?;
        stage.fund(&registry_url).await?;
        Ok(stage)
    }

    /// Has so many replicas of the budget at work, and no more.
    pub async fn replicas(&mut self, count: usize) -> anyhow::Result<()> {
        for (nr, (address, service, running)) in self.budgets.iter_mut().enumerate() {
            if nr >= count {
                *running = None;
            } else if running.is_none() {
                *running = Some(process::start(&Role::Budget(service.clone()))?);
                serving(*address).await;
            }
        }
        self.target.urls = self.budgets.iter().take(count).map(|(address, ..)| format!("http://{address}")).collect();
        Ok(())
    }

    /// Has each flush of the log take 3 ms longer, or no longer so. Whoever commits meanwhile shares the flush, and needs not wait for the
    /// next as on a slow disk: that is to the good of many connections, which the raw side has.
    pub async fn slow_flushes(&mut self, slow: bool) -> anyhow::Result<()> {
        let delay = if slow { 3_000 } else { 0 };
        for setting in [format!("commit_delay = {delay}"), "commit_siblings = 0".to_owned()] {
            sqlx::query(AssertSqlSafe(format!("ALTER SYSTEM SET {setting}"))).execute(&mut self.admin).await?;
        }
        sqlx::query("SELECT pg_reload_conf()").execute(&mut self.admin).await?;
        Ok(())
    }

    /// What calls go to: one hot envelope, or all.
    pub fn target(&self, spread: bool) -> Target {
        let envelopes = if spread { self.target.envelopes.clone() } else { self.target.envelopes[..1].to_vec() };
        Target { envelopes, ..self.target.clone() }
    }

    /// Waits until everything that happened stands in the feed and in the ledger's chain, and says how long that took: what one figure
    /// leaves to do is not to burden the next.
    pub async fn settle(&mut self) -> anyhow::Result<Duration> {
        let begun = tokio::time::Instant::now();
        loop {
            let waiting: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox)").fetch_one(&mut self.admin).await?;
            if !waiting {
                return Ok(begun.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Fresh statistics on both sides, so that no plan is made for tables that were still empty.
    pub async fn analyze(&mut self) -> anyhow::Result<()> {
        sqlx::query("VACUUM ANALYZE").execute(&mut self.admin).await?;
        let mut raw = PgConnection::connect(&self.raw_url).await?;
        sqlx::query("VACUUM ANALYZE").execute(&mut raw).await?;
        Ok(raw.close().await?)
    }

    /// That the ledger adds up after all that.
    pub async fn verify(&self) -> anyhow::Result<i64> {
        let verification = self.verify_in_background(&self.target.programme, VERIFICATION_PAUSE, |_| {}).await?;
        Ok(verification.verified_entry_count)
    }

    /// Has the first replica verify a ledger; `look` is told the memory that it takes meanwhile, every `pause`.
    pub async fn verify_in_background(
        &self,
        programme_id: &str,
        pause: Duration,
        mut look: impl FnMut(u64),
    ) -> anyhow::Result<pb::LedgerVerification> {
        let mut client = pb::ledger_service_client::LedgerServiceClient::new(self.client(&self.target.urls[0], "auditor")?);
        let (programme_id, request_id) = (programme_id.to_owned(), Uuid::now_v7().to_string());
        let request = pb::StartLedgerVerificationRequest { programme_id: programme_id.clone(), request_id };
        let begun = client.start_ledger_verification(request).await?.into_inner().verification.context("it has begun")?;
        loop {
            tokio::time::sleep(pause).await;
            look(self.resident_kib()?);
            let verification_id = begun.verification_id.clone();
            let request = pb::GetLedgerVerificationRequest { programme_id: programme_id.clone(), verification_id };
            let found = client.get_ledger_verification(request).await?.into_inner().verification.context("it is there")?;
            match found.state() {
                pb::LedgerVerificationState::Running => {}
                pb::LedgerVerificationState::Passed => return Ok(found),
                _ => anyhow::bail!("the ledger does not add up: {}", found.finding),
            }
        }
    }

    /// The memory that the first replica takes.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let (.., running) = self.budgets.first().context("there are replicas")?;
        running.as_ref().context("the first is at work")?.resident_kib()
    }

    /// The budget's schema as superuser.
    pub async fn pool(&self) -> anyhow::Result<PgPool> {
        let options = self.admin_url.parse::<PgConnectOptions>()?.options([("search_path", "budget")]);
        Ok(PgPoolOptions::new().max_connections(1).connect_with(options).await?)
    }

    fn client(&self, url: &str, actor: &str) -> anyhow::Result<InterceptedService<Channel, Bearer>> {
        let channel = Endpoint::from_shared(url.to_owned())?.connect_lazy();
        Ok(InterceptedService::new(channel, Bearer::new(Some(token::all(actor)), None)))
    }

    /// A programme with active plans.
    async fn fund(&mut self, registry_url: &str) -> anyhow::Result<()> {
        let id = || Uuid::now_v7().to_string();
        let programme_id = self.target.programme.clone();
        let mut programmes =
            registry::programme_service_client::ProgrammeServiceClient::new(self.client(registry_url, "planner")?);
        let programme = registry::CreateProgrammeRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            display_name: "bench".into(),
            currency_code: "CNY".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        programmes.create_programme(programme).await?;
        let plans = |actor: &str| {
            let client = self.client(&self.target.urls[0], actor)?;
            anyhow::Ok(pb::plan_service_client::PlanServiceClient::new(client))
        };
        let (mut planner, mut controller) = (plans("planner")?, plans("controller")?);
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_secs())?;
        let days = |days: i64| Some(prost_types::Timestamp { seconds: now + days * 24 * 60 * 60, nanos: 0 });
        let mut envelopes = Vec::new();
        for plan in 0..ENVELOPES / ENVELOPES_OF_A_PLAN {
            let new = |nr: usize| pb::NewEnvelope {
                resource_class: pb::ResourceClass::Incentive.into(),
                display_name: format!("envelope {nr}"),
                allocated: Some(Money { currency_code: "CNY".into(), units: MONEY_MINOR / 100, nanos: 0 }),
                ..Default::default()
            };
            let request = pb::CreatePlanRequest {
                programme_id: programme_id.clone(),
                request_id: id(),
                display_name: format!("plan {plan}"),
                period_start_time: days(-1),
                period_end_time: days(30),
                envelopes: (0..ENVELOPES_OF_A_PLAN).map(new).collect(),
                ..Default::default()
            };
            let plan = planner.create_plan(request).await?.into_inner().plan.context("a plan")?;
            let (programme_id, plan_id) = (programme_id.clone(), plan.plan_id);
            let (request_id, etag) = (id(), String::new());
            let submit = pb::SubmitPlanRequest {
                programme_id: programme_id.clone(),
                request_id,
                plan_id: plan_id.clone(),
                etag: etag.clone(),
            };
            planner.submit_plan(submit).await?;
            let approve = pb::ApprovePlanRequest {
                programme_id: programme_id.clone(),
                request_id: id(),
                plan_id: plan_id.clone(),
                etag: etag.clone(),
            };
            controller.approve_plan(approve).await?;
            let activate = pb::ActivatePlanRequest { programme_id, request_id: id(), plan_id, etag };
            planner.activate_plan(activate).await?;
            envelopes.extend(plan.envelopes.into_iter().map(|e| e.envelope_id));
        }
        self.target.envelopes = envelopes;
        Ok(())
    }
}

async fn serving(address: SocketAddr) {
    wait::until("a part to serve", PATIENCE, async || tokio::net::TcpStream::connect(address).await.ok()).await;
}

async fn migrate(postgres: &Postgres, superuser: &str, schema: &Schema) -> anyhow::Result<()> {
    let (owner, app) = (format!("koc_{}_owner", schema.name), format!("koc_{}_app", schema.name));
    postgres::bootstrap(superuser, schema.name, (&owner, "bench"), (&app, "bench")).await?;
    Ok(postgres::migrate(&postgres.url("koc", &owner), schema, &app).await?)
}

/// The raw side's schema, and its accounts.
async fn set_raw(url: &str) -> anyhow::Result<Vec<Uuid>> {
    let mut conn = PgConnection::connect(url).await?;
    sqlx::raw_sql(raw::SCHEMA).execute(&mut conn).await?;
    let accounts: Vec<Uuid> = (0..ENVELOPES).map(|_| Uuid::now_v7()).collect();
    sqlx::query("INSERT INTO account (id, allocated) SELECT id, $2 FROM UNNEST($1::uuid[]) AS u (id)")
        .bind(&accounts)
        .bind(MONEY_MINOR)
        .execute(&mut conn)
        .await?;
    Ok(accounts)
}
