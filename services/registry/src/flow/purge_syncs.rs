//! What is no longer needed of syncs goes by time.

use super::import_members;
use crate::{error::Error, store};
use koc_chassis::{fault::chain, job, postgres::Db};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long answers to batches are kept.
const ANSWER_LIFE: Duration = DAY.saturating_mul(7);
/// How long rejected rows are kept; a run that nobody goes on with lapses after it.
const REJECTED_LIFE: Duration = DAY.saturating_mul(30);
/// How long the deletion of an identity that nobody had is remembered: rows from before it that come later than that bring the person in.
const DELETION_LIFE: Duration = DAY.saturating_mul(365);
/// How long a file is kept whose import is never started.
const FILE_LIFE: Duration = DAY.saturating_mul(7);
/// How long jobs that are done are kept.
const JOB_LIFE: Duration = DAY.saturating_mul(30);

/// Removes what is old, some at a time, until none is left. Failures are logged; the next run tries again.
pub async fn sweep(db: Db) {
    if let Err(error) = try_sweep(&db).await {
        tracing::warn!(error = chain(&error), "old records of syncs could not be removed; trying again in an hour");
    }
}

async fn try_sweep(db: &Db) -> Result<(), Error> {
    store::sync_run::lapse(db, REJECTED_LIFE).await?;
    import_members::abandon(db, FILE_LIFE).await?;
    while store::sync_run::purge(db, ANSWER_LIFE, REJECTED_LIFE, DELETION_LIFE).await? > 0 {}
    while job::purge(db, JOB_LIFE).await? > 0 {}
    Ok(())
}
