//! What the bench runs on: Postgres, the migrated schema, the registry, and a table beside it.

use crate::process::{self, Role, Running};
use futures::TryStreamExt;
use koc_chassis::{
    cluster::{self, Authentication, Binaries, Cluster, ClusterOptions, Source},
    postgres,
};
use koc_proto::koc::registry::v1::{self as pb, programme_service_client::ProgrammeServiceClient};
use koc_tests::{
    service::{Bearer, free_address},
    token, wait,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;
use tonic::{service::interceptor::InterceptedService, transport::Endpoint};
use uuid::Uuid;

/// How long a part may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that COPY is sent at once.
const COPY_BYTES: usize = 256 * 1024;

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
                // So that it is not chance which figure a checkpoint falls into.
                ("max_wal_size".into(), "16GB".into()),
                ("checkpoint_timeout".into(), "1h".into()),
            ],
            ..ClusterOptions::new(&folder, binaries)
        })?;
        Ok(Self { cluster, folder })
    }

    fn url(&self, user: &str) -> String {
        let url = self.cluster.superuser_url("koc");
        let (_, host) = url.split_once('@').expect("the launcher's URLs have a user");
        format!("postgres://{user}:bench@{host}")
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
    pub url: String,
    pub token: String,
    registry: Running,
}

impl Stage {
    pub async fn set(postgres: &Postgres) -> anyhow::Result<Self> {
        let mut maintenance = PgConnection::connect(&postgres.cluster.superuser_url("postgres")).await?;
        sqlx::query("CREATE DATABASE koc").execute(&mut maintenance).await?;
        let (superuser, schema) = (postgres.cluster.superuser_url("koc"), &koc_registry::SCHEMA);
        let (owner, app) = ("koc_registry_owner", "koc_registry_app");
        postgres::bootstrap(&superuser, schema.name, (owner, "bench"), (app, "bench")).await?;
        postgres::migrate(&postgres.url(owner), schema, app).await?;
        let mut admin = PgConnection::connect(&superuser).await?;
        sqlx::query("SET search_path = registry").execute(&mut admin).await?;
        sqlx::query("CREATE TABLE raw_member (LIKE member INCLUDING ALL)").execute(&mut admin).await?;
        let listen = free_address();
        let registry = process::start(&Role::Registry {
            database_url: postgres.url(app),
            listen,
            ops_listen: free_address(),
            jwks_file: token::jwks_file().to_owned(),
        })?;
        wait::until("the registry to serve", PATIENCE, async || tokio::net::TcpStream::connect(listen).await.ok()).await;
        Ok(Self { admin, url: format!("http://{listen}"), token: token::all("bench"), registry })
    }

    /// A new programme.
    pub async fn programme(&self) -> anyhow::Result<String> {
        let programme_id = Uuid::now_v7().to_string();
        let channel = Endpoint::from_shared(self.url.clone())?.connect_lazy();
        let bearer = Bearer::new(Some(self.token.clone()), None);
        let request = pb::CreateProgrammeRequest {
            programme_id: programme_id.clone(),
            request_id: Uuid::now_v7().to_string(),
            display_name: "bench".into(),
            currency_code: "CNY".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        ProgrammeServiceClient::new(InterceptedService::new(channel, bearer)).create_programme(request).await?;
        Ok(programme_id)
    }

    /// Copies a programme's members into the table beside; says how many seconds that took.
    pub async fn copy(&mut self, programme: &str) -> anyhow::Result<f64> {
        let out = format!("COPY (SELECT * FROM member WHERE programme_id = '{}') TO STDOUT", programme.parse::<Uuid>()?);
        let parts: Vec<_> = self.admin.copy_out_raw(&out).await?.try_collect().await?;
        let rows = parts.concat();
        let began = Instant::now();
        let mut copy = self.admin.copy_in_raw("COPY raw_member FROM STDIN").await?;
        for part in rows.chunks(COPY_BYTES) {
            copy.send(part).await?;
        }
        copy.finish().await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Waits until all that happened stands in the feed, and takes fresh statistics: what one figure leaves to do is not to burden the
    /// next, nor a plan to be made for tables that were still empty.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        loop {
            let waiting: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox)").fetch_one(&mut self.admin).await?;
            if !waiting {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for table in ["member", "external_identity", "raw_member"] {
            sqlx::query(AssertSqlSafe(format!("VACUUM ANALYZE {table}"))).execute(&mut self.admin).await?;
        }
        Ok(())
    }

    /// The memory that the registry takes.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        self.registry.resident_kib()
    }
}
