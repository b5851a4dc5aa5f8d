//! Points whose time is over go by a sweep, for members whose points nobody touches.

use super::move_points::points_changed;
use crate::{
    domain::points::{Act, EntryId},
    error::Error,
    store,
};
use koc_chassis::{clock, fault::chain, outbox, postgres::Db};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Lots that are expired in one transaction.
const BATCH: i64 = 500;
/// What stands as the actor of an expiry.
pub const EXPIRY: &str = "koc.registry.expiry";

/// Expires all lots that are due, some at a time. Failures are logged; the next sweep tries again.
pub async fn sweep(db: Db) {
    loop {
        match step(&db).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "points could not be expired; trying again");
                return;
            }
        }
    }
}

/// Expires at most [`BATCH`] lots of one programme, those first that were over first; says how many. Of several replicas one sweeps at a
/// time.
pub async fn step(db: &Db) -> Result<usize, Error> {
    // The common case: nothing is due, and one look at a partial index shows it.
    let mut conn = db.read().await?;
    if store::points::due(&mut conn, 1).await?.is_empty() {
        return Ok(0);
    }
    drop(conn);
    let mut tx = db.begin().await?;
    if !store::points::sweep_alone(&mut tx).await? {
        return Ok(0);
    }
    let due = store::points::due(&mut tx, BATCH).await?;
    let Some((programme, _)) = due.first().copied() else { return Ok(0) };
    let members: BTreeSet<Uuid> = due.iter().filter(|(of, _)| *of == programme).map(|(_, member)| member.0).collect();
    let members: Vec<Uuid> = members.into_iter().collect();
    let mut accounts = store::points::lock_all(&mut tx, programme, &members).await?;
    let now = clock::now(&mut tx).await?;
    store::points::load_due(&mut tx, programme, &mut accounts, now, Some(BATCH)).await?;

    let before = accounts.clone();
    let mut ids = EntryId::new;
    let mut act = Act { actor: EXPIRY, now, ids: &mut ids };
    let mut entries = Vec::new();
    for account in accounts.values_mut() {
        entries.extend(account.expire_due(&mut act));
    }
    store::points::write(&mut tx, programme, &before, &accounts, &entries, &[]).await?;
    outbox::append(&mut tx, &points_changed(programme, &entries)).await?;
    tx.commit().await?;
    db.wake();
    Ok(entries.len())
}
