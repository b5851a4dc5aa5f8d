//! The registry service: who takes part. Programmes, their members and tiers, and what source systems know of them.

pub mod config;
pub mod error;

pub mod api;
pub mod flow;
pub mod store;

pub mod domain;

pub use config::Config;
pub use error::Error;

use crate::flow::{
    complete_search, deliver_webhooks::Deliverer, erase_member::Overdue, expire_points, import_members, post_webhook::Poster,
    purge_syncs, rank_members, sweep_unseen, tend_webhooks, try_tier_policy,
};
use koc_chassis::{
    gate,
    lane::Reading,
    postgres::{Db, Schema},
    server::{Identity, Service},
    telemetry::Metrics,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

pub const IDENTITY: Identity = Identity { name: "registry", package: "koc.registry.v1", domain: "registry.koc", port: 7401 };

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The registry's schema. What moved a member or its points, and by which rules, is never rewritten.
pub static SCHEMA: Schema = Schema {
    name: IDENTITY.name,
    migrations: &MIGRATIONS,
    append_only: &[
        "member_change",
        "member_merge",
        "member_unmerge",
        "tier_policy",
        "tier_move",
        "points_entry",
        "points_draw",
        "title_set",
        "badge_version",
        "badge_award",
        "badge_revocation",
        "suppression_lift",
    ],
};

/// How often records of answered requests are looked over, and how long they are kept. A retry after that is a new request.
const PURGE_PAUSE: Duration = Duration::from_secs(60 * 60);
const RECORD_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often erasures are looked for that somebody has not followed in time, and exports that are too old.
const OVERDUE_PAUSE: Duration = Duration::from_secs(60);
/// How often points whose time is over are looked for.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);
/// How often names are looked for that an older version wrote.
const COMPLETION_PAUSE: Duration = Duration::from_secs(5);
/// How often the counts behind ranks are added up; ranks are exact meanwhile.
const COUNT_PAUSE: Duration = Duration::from_secs(1);

/// How often endpoints that were deleted are looked for.
const DELETED_PAUSE: Duration = Duration::from_secs(5);

/// Serves the registry until `stop`.
pub async fn serve(config: Config, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    let privacy = config.erasure.privacy()?;
    let (seal, poster) = (config.webhooks.seal()?, Poster::new(config.webhooks.webhook_local)?);
    let mut service = Service::prepare(IDENTITY, SCHEMA, config.common, stop.clone()).await?;
    let db = service.db().clone();
    let purged = db.clone();
    service.every(PURGE_PAUSE, move || purge(purged.clone()));
    let expired = db.clone();
    service.every(EXPIRY_PAUSE, move || expire_points::sweep(expired.clone()));
    let counted = db.clone();
    service.every(COUNT_PAUSE, move || rank_members::count(counted.clone()));
    let forgotten = db.clone();
    service.every(PURGE_PAUSE, move || rank_members::forget_months(forgotten.clone()));
    let exported = db.clone();
    service.every(OVERDUE_PAUSE, move || delete_exports(exported.clone()));
    let overdue = Overdue::new(db.clone(), privacy.terms.consumers.clone());
    service.every(OVERDUE_PAUSE, move || overdue.clone().look());
    let keys = privacy.keys.clone();
    service.run_jobs(sweep_unseen::KIND, Arc::new(sweep_unseen::Sweep::new(db.clone(), keys.clone())));
    service.run_jobs(import_members::KIND, Arc::new(import_members::Reader::new(db.clone(), api::parse_row, keys)));
    service.run_jobs(try_tier_policy::KIND, Arc::new(try_tier_policy::Trial::new(db.clone())));
    let tried = db.clone();
    service.every(PURGE_PAUSE, move || try_tier_policy::forget(tried.clone()));
    let synced = db.clone();
    service.every(PURGE_PAUSE, move || purge_syncs::sweep(synced.clone()));
    let undelivered = db.clone();
    service.every(PURGE_PAUSE, move || tend_webhooks::forget(undelivered.clone()));
    let deleted = db.clone();
    service.every(DELETED_PAUSE, move || tend_webhooks::remove_deleted(deleted.clone()));
    let incomplete = db.clone();
    service.every(COMPLETION_PAUSE, move || complete_search::sweep(incomplete.clone()));
    let (members, work) = Reading::lane(&db);
    service.spawn(work);
    let local = poster.is_local();
    let (feed, payload) = (service.feed().clone(), api::payload);
    if seal.is_off() {
        tracing::info!("no key for the secrets of webhooks was given: none is delivered to");
    } else {
        service.spawn(tend_webhooks::reseal(db.clone(), seal.clone()));
        let sealed = (db.clone(), seal.clone());
        service.every(PURGE_PAUSE, move || tend_webhooks::reseal(sealed.0.clone(), sealed.1.clone()));
        let deliverer = Deliverer { db: db.clone(), feed, poster, seal: seal.clone(), payload, stop: stop.clone() };
        service.spawn(deliverer.run());
    }
    let routes = api::routes(&service, &privacy, members, stop, seal, local);
    service.serve(routes, metrics).await
}

/// Deletes exports of what is held of persons that are too old.
async fn delete_exports(db: Db) {
    let deleted = async { store::export::delete_old(&mut *db.pool().acquire().await?).await };
    match deleted.await {
        Ok(0) => {}
        Ok(deleted) => tracing::info!(deleted, "deleted old exports of members"),
        Err(error) => tracing::warn!(error = %error, "old exports of members could not be deleted; trying again in a minute"),
    }
}

/// Removes old records, batch by batch, until none is left.
async fn purge(db: Db) {
    let mut purged = 0;
    loop {
        match gate::purge_records(&db, RECORD_LIFE).await {
            Ok(0) => break,
            Ok(records) => purged += records,
            Err(error) => {
                tracing::warn!(error = %error, "old records of requests could not be removed; trying again in an hour");
                return;
            }
        }
    }
    if purged > 0 {
        tracing::info!(purged, "removed old records of requests");
    }
}
