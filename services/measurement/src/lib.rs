//! The measurement service (to what end): outputs and their readings, what they were worth, spikes, and where the next money
//! should go.

pub mod api;
pub mod config;
pub mod domain;
pub mod error;
pub mod flow;
pub mod peer;
pub mod store;

use crate::{
    api::{FeedApi, decision::DecisionApi, observation::ObservationApi, output::OutputApi, signal::SignalApi, value::ValueApi},
    error::Error,
    flow::{
        apply_decision::{self, ApplyDecision},
        follow_feeds::{BudgetEffect, TaskEffect},
        follow_registry::FollowRegistry,
        open_draw::{self, OpenDraw},
        open_programme::{self, OpenProgramme},
    },
    peer::Peers,
};
pub use config::Config;
use koc_chassis::{
    consumer::Consumer,
    follow::{self, Follower},
    gate::{Gate, purge_records},
    postgres::Schema,
    privacy,
    server::{Identity, MAX_MESSAGE_BYTES, Service},
    telemetry::Metrics,
};
use koc_proto::koc::measurement::v1::{
    decision_service_server::DecisionServiceServer, feed_service_server::FeedServiceServer,
    observation_service_server::ObservationServiceServer, output_service_server::OutputServiceServer,
    signal_service_server::SignalServiceServer, value_service_server::ValueServiceServer,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};

pub const IDENTITY: Identity =
    Identity { name: "measurement", package: "koc.measurement.v1", domain: "measurement.koc", port: 7404 };

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

pub static SCHEMA: Schema = Schema {
    name: "measurement",
    migrations: &MIGRATIONS,
    append_only: &[
        "value_model",
        "decision_policy",
        "observation",
        "reserve_draw_posting",
        "assignment_posting",
        "decided_period",
        "cohort_sample",
        "decision",
    ],
};

/// Answers to mutations are kept for so long.
const KEEP_RECORDS: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often older ones are removed.
const PURGE_PAUSE: Duration = Duration::from_secs(3600);

koc_chassis::feed_source!(RegistryFeed, koc_proto::koc::registry::v1);
koc_chassis::feed_source!(BudgetFeed, koc_proto::koc::budget::v1);
koc_chassis::feed_source!(TaskFeed, koc_proto::koc::task::v1);

macro_rules! served {
    ($server:ident, $api:expr) => {
        $server::new($api)
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    };
}

/// Serves until `stop`.
pub async fn serve(config: Config, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    let mut service = Service::prepare(IDENTITY, SCHEMA, config.common.clone(), stop.clone()).await?;
    let db = service.db().clone();
    let gate: Gate<Error> = service.gate();
    let registry = service.peer(&config.registry.registry_url)?;
    let budget = service.peer(&config.budget.budget_url)?;
    let task = service.peer(&config.task.task_url)?;
    let peers = Peers::new(registry.clone(), budget.clone());

    let facts = Arc::new(RegistryFeed(registry.clone()));
    privacy::follow(&mut service, IDENTITY.name, registry.clone(), facts, Arc::new(flow::erase_member::Persons));
    let follower = Follower::new(db.clone(), registry.clone(), FollowRegistry);
    service.consume(Consumer::new(db.clone(), follow::SOURCE, Arc::new(RegistryFeed(registry)), Arc::new(follower)));
    service.consume(Consumer::new(db.clone(), "task", Arc::new(TaskFeed(task)), Arc::new(TaskEffect)));
    service.consume(Consumer::new(db.clone(), "budget", Arc::new(BudgetFeed(budget)), Arc::new(BudgetEffect)));
    service.run_jobs(open_programme::KIND, Arc::new(OpenProgramme { db: db.clone(), peers: peers.clone() }));
    service.run_jobs(open_draw::KIND, Arc::new(OpenDraw { db: db.clone(), peers: peers.clone() }));
    service.run_jobs(apply_decision::KIND, Arc::new(ApplyDecision { db: db.clone(), peers: peers.clone() }));
    service.every(PURGE_PAUSE, move || {
        let db = db.clone();
        async move {
            match purge_records(&db, KEEP_RECORDS).await {
                Ok(purged) => tracing::debug!(purged, "removed old records of answers"),
                Err(error) => tracing::warn!(error = %error, "old records of answers could not be removed"),
            }
        }
    });

    let feed = FeedApi { gate: gate.clone(), feed: service.feed().clone(), domain: IDENTITY.domain };
    let observations = ObservationApi { gate: gate.clone(), domain: IDENTITY.domain, stop };
    let routes = Routes::new(served!(OutputServiceServer, OutputApi { gate: gate.clone() }))
        .add_service(served!(ObservationServiceServer, observations))
        .add_service(served!(ValueServiceServer, ValueApi { gate: gate.clone(), peers: peers.clone() }))
        .add_service(served!(SignalServiceServer, SignalApi { gate: gate.clone() }))
        .add_service(served!(DecisionServiceServer, DecisionApi { gate, peers }))
        .add_service(served!(FeedServiceServer, feed));
    service.serve(routes, metrics).await
}
