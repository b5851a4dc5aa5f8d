//! The task service (for what): briefs, tasks, and assignments whose money is held from acceptance to settlement.
//!
//! Reading order: what it is about ([`domain`]), how it is kept ([`store`]), whom it asks ([`peer`]), the jobs that go on after an
//! answer was given ([`flow`]), the calls ([`api`]).

pub mod config;
pub mod domain;
pub mod error;

mod store;

mod peer;

mod flow;

mod api;

pub use config::Config;
use flow::follow_registry::FollowRegistry;
use koc_chassis::{
    consumer::Consumer,
    follow::{self, Follower},
    gate,
    postgres::{Db, Schema},
    privacy,
    server::{Identity, Service},
    telemetry::Metrics,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What the service is called and where it listens when not told otherwise.
pub const IDENTITY: Identity = Identity { name: "task", package: "koc.task.v1", domain: "task.koc", port: 7403 };

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The service's schema. A published revision of a brief never changes.
pub static SCHEMA: Schema = Schema { name: "task", migrations: &MIGRATIONS, append_only: &["brief_revision"] };

/// Answers to mutations are kept so long, for retries.
const KEEP_ANSWERS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often older ones are removed.
const PURGE_EVERY: Duration = Duration::from_secs(60 * 60);

koc_chassis::feed_source!(RegistryFeed, koc_proto::koc::registry::v1);

/// Serves until `stop`.
pub async fn serve(config: Config, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    anyhow::ensure!(config.common.feed_days.is_none(), "this feed is kept for good: KOC_FEED_DAYS is not for it");
    let mut service = Service::prepare(IDENTITY, SCHEMA, config.common.clone(), stop).await?;
    let channel = service.peer(&config.registry.registry_url)?;
    let registry = peer::Registry::new(channel.clone());
    let budget = peer::Budget::new(service.peer(&config.budget.budget_url)?);
    flow::run(&mut service, &budget);
    let facts = Arc::new(RegistryFeed(channel.clone()));
    privacy::follow(&mut service, IDENTITY.name, channel.clone(), facts, Arc::new(flow::erase_member::Persons));
    let follower = Follower::new(service.db().clone(), channel.clone(), FollowRegistry);
    let feed = Arc::new(RegistryFeed(channel));
    service.consume(Consumer::new(service.db().clone(), follow::SOURCE, feed, Arc::new(follower)));

    let db = service.db().clone();
    service.every(PURGE_EVERY, move || purge(db.clone()));

    let routes = api::routes(&service, registry);
    service.serve(routes, metrics).await
}

/// Removes old answers, some at a time, until none is left.
async fn purge(db: Db) {
    let mut removed = 0;
    loop {
        match gate::purge_records(&db, KEEP_ANSWERS).await {
            Ok(0) => break,
            Ok(some) => removed += some,
            Err(error) => {
                tracing::warn!(error = %error, removed, "old answers could not be removed; tried again in an hour");
                return;
            }
        }
    }
    tracing::debug!(removed, "old answers were removed");
}
