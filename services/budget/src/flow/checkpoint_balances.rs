//! Checkpoints of envelopes' balances, so that a time past is a sum of few entries. They are written beside the hot path, from what the
//! envelopes' rows say.

use crate::store;
use koc_chassis::{fault::chain, postgres::Db};

/// Entries of an envelope between its checkpoints, at least.
pub const SPACING: i64 = 10_000;

/// Adds the checkpoints that are due. A failure is logged; the next sweep tries again.
pub async fn sweep(db: Db) {
    if let Err(error) = step(&db, SPACING).await {
        tracing::warn!(error = chain(&error), "balances could not be noted; trying again");
    }
}

/// Adds a checkpoint to each envelope that has `spacing` entries more than at its last one; says how many.
pub async fn step(db: &Db, spacing: i64) -> Result<u64, sqlx::Error> {
    let mut tx = db.begin().await?;
    let added = store::ledger::add_checkpoints(&mut tx, spacing).await?;
    tx.commit().await?;
    Ok(added)
}
