//! The budget service: with what. A period's money in envelopes, what is held, owed and paid of it, and the ledger that every
//! movement stands in.
//!
//! Money moves in one place: [`domain::books`] decides, [`store::operation`] locks, reads and writes, [`flow::post_operations`]
//! publishes, [`flow::lane`] does so for many callers at once. Reservations, activations, draws on the reserve and expiry all go through it.

pub mod domain;
pub mod error;
pub mod ids;

mod api;
pub mod config;
pub mod flow;
pub mod peer;
pub mod store;

pub use config::Config;

use crate::{
    domain::{amendment::Amendment, reserve_draw::Draw},
    flow::{
        follow_registry::FollowRegistry,
        lane::{self, Lane},
        lapse::{Lapse, Waiting},
        open_promotion::{self, OpenPromotion},
        verify_ledger,
    },
};
use koc_chassis::{
    consumer::Consumer,
    feed::Feed,
    follow::{self, Follower},
    lane::Reading,
    postgres::Schema,
    privacy,
    server::{Identity, MAX_MESSAGE_BYTES, Service},
    telemetry::Metrics,
};
use koc_proto::koc::budget::v1 as pb;
use sqlx::migrate::Migrator;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// What the service is called and where it listens.
pub const IDENTITY: Identity = Identity { name: "budget", package: "koc.budget.v1", domain: "budget.koc", port: 7402 };

/// Its schema.
pub static SCHEMA: Schema = Schema {
    name: "budget",
    migrations: &MIGRATIONS,
    append_only: &[
        "ledger_entry",
        "ledger_chain",
        "operation",
        "amendment_reserve_terms",
        "reserve_policy",
        "reserve_draw_approval",
        "reserve_draw_outcome",
        "resource_version",
        "rate_table",
        "cost_estimate",
        "stock_movement",
        "memo_entry",
    ],
};

/// How often holds whose time is over are looked for.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);
/// How often envelopes' balances are noted, for those that have moved much.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(10);

koc_chassis::feed_source!(RegistryFeed, koc_proto::koc::registry::v1);

/// Serves until `stop`.
pub async fn serve(config: Config, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    anyhow::ensure!(config.common.feed_days.is_none(), "this feed is kept for good: KOC_FEED_DAYS is not for it");
    let mut service = Service::prepare(IDENTITY, SCHEMA, config.common.clone(), stop).await?;
    let registry = service.peer(&config.registry.registry_url)?;
    let members = peer::Members::new(registry.clone());
    let currencies = Arc::new(peer::Currencies::new(service.db().clone(), registry.clone()));
    let facts = Arc::new(RegistryFeed(registry.clone()));
    privacy::follow(&mut service, IDENTITY.name, registry.clone(), facts, Arc::new(flow::erase_member::Persons));
    let follower = Follower::new(service.db().clone(), registry.clone(), FollowRegistry);
    let feed = Arc::new(RegistryFeed(registry));
    service.consume(Consumer::new(service.db().clone(), follow::SOURCE, feed, Arc::new(follower)));

    service.on_sequenced(Arc::new(flow::chain_ledger::Chain));
    service.run_jobs(Draw::KIND, Arc::new(Lapse::<Draw>::new(service.db().clone())));
    let db = service.db().clone();
    let (operations, work) = Lane::new(&db, lane::OPERATIONS);
    service.spawn(work);
    let (reads, work) = Reading::lane(&db);
    service.spawn(work);
    let expiry = operations.clone();
    service.every(EXPIRY_PAUSE, move || flow::expire_reservations::sweep(db.clone(), expiry.clone()));

    service.run_jobs(Amendment::KIND, Arc::new(Lapse::<Amendment>::new(service.db().clone())));
    service.run_jobs(verify_ledger::KIND, Arc::new(verify_ledger::Verify::new(service.db().clone())));
    let db = service.db().clone();
    service.every(CHECKPOINT_PAUSE, move || flow::checkpoint_balances::sweep(db.clone()));

    let api = api::Api { gate: service.gate(), currencies, members, operations, advice: api::advisor_turns(), reads };
    service.run_jobs(open_promotion::KIND, Arc::new(OpenPromotion { api: api.clone() }));
    let routes = routes(api, service.feed().clone());
    service.serve(routes, metrics).await
}

fn routes(api: api::Api, feed: Feed) -> Routes {
    macro_rules! serving {
        ($server:ident :: $kind:ident, $api:expr) => {
            pb::$server::$kind::new($api)
                .accept_compressed(CompressionEncoding::Zstd)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Zstd)
                .send_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
        };
    }
    let gate = api.gate.clone();
    Routes::new(serving!(plan_service_server::PlanServiceServer, api.clone()))
        .add_service(serving!(amendment_service_server::AmendmentServiceServer, api.clone()))
        .add_service(serving!(member_limit_service_server::MemberLimitServiceServer, api.clone()))
        .add_service(serving!(reservation_service_server::ReservationServiceServer, api.clone()))
        .add_service(serving!(ledger_service_server::LedgerServiceServer, api.clone()))
        .add_service(serving!(advisor_service_server::AdvisorServiceServer, api.clone()))
        .add_service(serving!(reserve_policy_service_server::ReservePolicyServiceServer, api.clone()))
        .add_service(serving!(reserve_draw_service_server::ReserveDrawServiceServer, api.clone()))
        .add_service(serving!(resource_service_server::ResourceServiceServer, api.clone()))
        .add_service(serving!(rate_table_service_server::RateTableServiceServer, api.clone()))
        .add_service(serving!(grant_service_server::GrantServiceServer, api.clone()))
        .add_service(serving!(promotion_service_server::PromotionServiceServer, api.clone()))
        .add_service(serving!(stock_service_server::StockServiceServer, api.clone()))
        .add_service(serving!(booking_service_server::BookingServiceServer, api.clone()))
        .add_service(serving!(memo_service_server::MemoServiceServer, api))
        .add_service(serving!(feed_service_server::FeedServiceServer, api::FeedApi { gate, feed, domain: IDENTITY.domain }))
}
