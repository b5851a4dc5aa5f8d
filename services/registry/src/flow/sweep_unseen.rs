//! What becomes of those whom a full run did not see: a job that counts them, part by part, and then deletes them, or leaves them to a
//! person's word. Each step is one transaction under the run's lock that says how far it came, so a crash costs a step.

use super::{
    apply_batch::Applied,
    sync_run::{apply_of, lock},
};
use crate::{
    domain::{
        suppression::Keys,
        sync::{Outcome, Row},
        sync_run::{Refusal, Run, RunId, RunState},
    },
    error::Error,
    store::{self, audit::Act},
};
use async_trait::async_trait;
use koc_chassis::{
    clock, context,
    job::{self, Job, JobError, JobHandler, NewJob},
    postgres::Db,
};
use serde_json::Value;
use sqlx::PgConnection;
use std::{sync::Arc, time::Duration};

/// The kind of job; its subject is the run.
pub const KIND: &str = "sweep_unseen";
/// Its steps.
pub const CHECK: &str = "check";
pub const SWEEP: &str = "sweep";
const FORGET: &str = "forget";
/// What stands beside the actor of what it does.
const CLIENT: &str = "koc.registry.sweep";

/// Identities that are looked at together.
const PART_IDENTITIES: i64 = 5_000;
/// Identities that are deleted in one step: each may suspend a member, which takes a handful of statements.
const SWEPT_AT_ONCE: usize = 200;
/// A step takes on no further part when less than this is left of its time.
const LEFT_FOR_LAST_PART: Duration = Duration::from_secs(5);

/// Starts the job of a run at a step.
pub async fn start(conn: &mut PgConnection, act: Act<'_>, run: &Run, step: &'static str) -> Result<(), sqlx::Error> {
    let (programme, actor) = (act.programme, act.actor);
    let job = NewJob { kind: KIND, programme, subject: run.id.0, step, state: Value::Null, actor, run_time: None };
    job::start(conn, job).await?;
    Ok(())
}

/// Drives sweeps.
pub struct Sweep {
    db: Db,
    keys: Arc<Keys>,
}

impl Sweep {
    pub fn new(db: Db, keys: Arc<Keys>) -> Self {
        Self { db, keys }
    }
}

#[async_trait]
impl JobHandler for Sweep {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let act = Act { programme: job.programme(), actor: &job.actor, client: CLIENT };
        let mut tx = self.db.begin().await?;
        let mut run = lock(&mut tx, act, RunId(job.subject_id)).await.map_err(failed)?;
        let next = match job.step.as_str() {
            CHECK => check(&mut tx, &mut run).await?,
            SWEEP => sweep(&mut tx, act, &mut run, &self.keys).await.map_err(failed)?,
            _ => forget(&mut tx, &run).await?,
        };
        run.update_time = clock::now(&mut tx).await?;
        if run.state == RunState::Ended && run.end_time.is_none() {
            run.end_time = Some(run.update_time);
        }
        store::sync_run::update(&mut tx, &run).await?;
        match next {
            Some(step) => job.advance(&mut tx, step, &Value::Null).await?,
            None => job.finish(&mut tx).await?,
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Counts the next parts; at the end it is decided what becomes of the run.
async fn check(conn: &mut PgConnection, run: &mut Run) -> Result<Option<&'static str>, JobError> {
    loop {
        let part = store::sweep::walk(conn, run, PART_IDENTITIES).await?;
        run.unseen.source += part.identities;
        run.unseen.unseen += i64::try_from(part.unseen.len()).unwrap_or(i64::MAX);
        run.walked_to = part.last;
        if run.walked_to.is_none() {
            break;
        }
        if context::time_left() < LEFT_FOR_LAST_PART {
            return Ok(Some(CHECK));
        }
    }
    run.state = run.checked();
    Ok(match run.state {
        RunState::Sweeping => Some(SWEEP),
        // Whom it has seen is needed until a person has decided.
        RunState::Held => None,
        _ => Some(FORGET),
    })
}

/// Deletes the next of those it did not see.
async fn sweep(conn: &mut PgConnection, act: Act<'_>, run: &mut Run, keys: &Keys) -> Result<Option<&'static str>, Error> {
    let Some(as_of) = run.settings.as_of else { return Err(sqlx::Error::RowNotFound.into()) };
    let part = store::sweep::walk(conn, run, PART_IDENTITIES).await?;
    let Some(last) = part.last else {
        (run.state, run.walked_to) = (RunState::Ended, None);
        return Ok(Some(FORGET));
    };
    let now: Vec<String> = part.unseen.iter().take(SWEPT_AT_ONCE).cloned().collect();
    // The rest of the part is looked at again.
    let cut = part.unseen.len() > now.len();
    run.walked_to = if cut { now.last().cloned() } else { Some(last) };
    let rows: Vec<_> = now.into_iter().map(|id| Ok(Row::deletion(id, as_of))).collect();
    let applied = apply_of(conn, act, run, &rows, keys).await?;
    let deleted = |applied: &&Applied| applied.outcome() == Outcome::Deleted;
    run.unseen.swept += i64::try_from(applied.iter().filter(deleted).count()).unwrap_or(i64::MAX);
    Ok(Some(SWEEP))
}

/// Forgets some of those it has seen.
async fn forget(conn: &mut PgConnection, run: &Run) -> Result<Option<&'static str>, JobError> {
    let forgotten = store::sweep::forget(conn, run, PART_IDENTITIES).await?;
    Ok((forgotten > 0).then_some(FORGET))
}

/// Lets a run that is held delete. Errors: RUN_NOT_FOUND, RUN_NOT_HELD, APPROVER_IS_REQUESTER.
pub async fn confirm(conn: &mut PgConnection, act: Act<'_>, run: RunId) -> Result<Run, Error> {
    let mut run = lock(conn, act, run).await?;
    run.confirm(act.actor)?;
    (run.state, run.walked_to, run.update_time) = (RunState::Sweeping, None, clock::now(conn).await?);
    store::sync_run::update(conn, &run).await?;
    start(conn, act, &run, SWEEP).await?;
    Ok(run)
}

fn failed(error: Error) -> JobError {
    match error {
        Error::Database(error) => JobError::Database(error),
        Error::SyncRefused(Refusal::NotFound { run }) => JobError::Broken(format!("there is no run {run}")),
        other => JobError::Broken(other.to_string()),
    }
}
