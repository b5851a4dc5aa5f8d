//! What goes of webhooks by time, and what is renewed: old deliveries, endpoints that were deleted, secrets under keys that are to go.

use super::seal_secret::Seal;
use crate::{
    domain::webhook::{Sealed, WebhookId},
    error::Error,
    store,
};
use koc_chassis::{fault::chain, postgres::Db};
use std::time::Duration;
use uuid::Uuid;

/// How long deliveries are kept, and how many are removed in one step.
const KEEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const PURGE: i64 = 5_000;
/// Endpoints whose secrets are looked at in one step.
const PAGE: i64 = 500;

/// Forgets old deliveries, some at a time, until none is left.
pub async fn forget(db: Db) {
    let purged = async {
        let mut conn = db.pool().acquire().await?;
        while store::webhook::purge(&mut conn, KEEP, PURGE).await? > 0 {}
        Ok::<(), sqlx::Error>(())
    };
    if let Err(error) = purged.await {
        tracing::warn!(error = %error, "old deliveries could not be removed; trying again in an hour");
    }
}

/// Removes what is left of deleted endpoints, some at a time, until nothing is.
pub async fn remove_deleted(db: Db) {
    let removed = async {
        let mut conn = db.pool().acquire().await?;
        while store::webhook::purge_deleted(&mut conn, PURGE).await? > 0 {}
        Ok::<(), sqlx::Error>(())
    };
    if let Err(error) = removed.await {
        tracing::warn!(error = %error, "deleted webhooks could not be removed; trying again");
    }
}

/// Seals all secrets with the newest key that were sealed with another: that one can be taken away after it.
pub async fn reseal(db: Db, seal: Seal) {
    match reseal_all(&db, &seal).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "secrets of webhooks were sealed with the newest key"),
        Err(error) => {
            tracing::warn!(error = chain(&error), "secrets of webhooks could not be sealed anew; trying again in an hour")
        }
    }
}

async fn reseal_all(db: &Db, seal: &Seal) -> Result<usize, Error> {
    let (mut after, mut count) = (WebhookId(Uuid::nil()), 0);
    loop {
        let mut conn = db.pool().acquire().await?;
        let found = store::webhook::all_secrets(&mut conn, after, PAGE).await?;
        let Some((last, _)) = found.last() else { return Ok(count) };
        after = *last;
        for (id, sealed) in found {
            let renew = |sealed: &[u8]| seal.renew(id, sealed);
            // One that no key opens is as good as lost already; the others go on.
            let (secret, old) = match (renew(&sealed.secret), sealed.old_secret.as_deref().map(renew).transpose()) {
                (Ok(secret), Ok(old)) => (secret, old.flatten()),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::warn!(webhook = %id, error = chain(&error), "a secret of a webhook cannot be opened");
                    continue;
                }
            };
            if secret.is_none() && old.is_none() {
                continue;
            }
            let renewed = Sealed {
                secret: secret.unwrap_or_else(|| sealed.secret.clone()),
                old_secret: old.or_else(|| sealed.old_secret.clone()),
            };
            count += usize::from(store::webhook::put_sealed(&mut conn, id, &sealed, &renewed).await?);
        }
    }
}
