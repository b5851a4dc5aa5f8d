//! Jobs: work of several steps, kept as a row, driven to its end after any crash. Each step is a command whose `request_id`
//! follows from job, step and attempt, so that a step that is run twice has its effect once.

use crate::{
    context::{self, Current},
    ids::ProgrammeId,
    postgres::Db,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::FutureExt;
use serde_json::Value;
use sqlx::PgConnection;
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

/// How long one step may take before another worker may take it over: also how long the work of a killed process waits.
const LEASE: Duration = Duration::from_secs(10);
/// How often due jobs are looked for; a new job wakes the workers of its process.
const POLL: Duration = Duration::from_millis(200);
/// Workers of one process.
const WORKERS: usize = 4;
/// The first wait after a failure; it doubles up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A job as a worker holds it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Job {
    pub job_id: Uuid,
    pub kind: String,
    pub programme_id: Uuid,
    pub subject_id: Uuid,
    pub step: String,
    pub attempt: i32,
    pub state: Value,
    pub actor: String,
    traceparent: String,
    failures: i32,
    lease_id: Option<Uuid>,
}

/// A job to start.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    pub kind: &'static str,
    pub programme: ProgrammeId,
    pub subject: Uuid,
    pub step: &'static str,
    pub state: Value,
    /// In whose name it acts.
    pub actor: &'a str,
    /// Not before; now when absent.
    pub run_time: Option<DateTime<Utc>>,
}

/// Starts a job with the change that causes it; after the commit call [`Db::wake`].
pub async fn start(conn: &mut PgConnection, job: NewJob<'_>) -> Result<Uuid, sqlx::Error> {
    let id = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO job (job_id, kind, programme_id, subject_id, step, state, actor, traceparent, run_time, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, koc_now()), koc_now())",
    )
    .bind(id)
    .bind(job.kind)
    .bind(job.programme.0)
    .bind(job.subject)
    .bind(job.step)
    .bind(job.state)
    .bind(job.actor)
    .bind(context::traceparent())
    .bind(job.run_time)
    .execute(conn)
    .await?;
    Ok(id)
}

/// Ends the waiting jobs of a subject, for what need not happen any more.
pub async fn cancel(conn: &mut PgConnection, subject: Uuid, kind: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE job SET done = true WHERE subject_id = $1 AND kind = $2 AND NOT done")
        .bind(subject)
        .bind(kind)
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes jobs that are done and older than `keep`, some at a time; says how many.
pub async fn purge(db: &Db, keep: Duration) -> Result<u64, sqlx::Error> {
    const BATCH: i64 = 5_000;
    let purged = sqlx::query(
        "DELETE FROM job WHERE job_id = ANY (ARRAY(
             SELECT job_id FROM job WHERE done AND create_time < koc_now() - $1 * interval '1 second' LIMIT $2))",
    )
    .bind(keep.as_secs_f64())
    .bind(BATCH)
    .execute(db.pool())
    .await?;
    Ok(purged.rows_affected())
}

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A peer did not do what was asked and may later.
    #[error("a peer answered {:?}: {}", .0.code(), .0.message())]
    Peer(#[from] tonic::Status),
    /// Another worker took the job over.
    #[error("the lease was lost")]
    LeaseLost,
    #[error("{0}")]
    Broken(String),
}

/// What a kind of job does.
#[async_trait]
pub trait JobHandler: Send + Sync {
    /// Does the step that the job stands at, and moves the job in the transaction of the step's effect: with [`Job::advance`], [`Job::retry_as`]
    /// or [`Job::finish`]. An error leaves it where it is; it is tried again later.
    async fn run(&self, job: &Job) -> Result<(), JobError>;
}

impl Job {
    pub fn programme(&self) -> ProgrammeId {
        ProgrammeId(self.programme_id)
    }

    /// How often in a row its present step has failed.
    pub fn failures(&self) -> u32 {
        u32::try_from(self.failures).unwrap_or(0)
    }

    /// The request id of the command that the present step sends: the same at each try, another after a stored refusal.
    pub fn request_id(&self, command: &str) -> String {
        let name = format!("{}/{command}/{}", self.step, self.attempt);
        Uuid::new_v5(&self.job_id, name.as_bytes()).to_string()
    }

    /// Goes on to the next step, at once.
    pub async fn advance(&self, conn: &mut PgConnection, step: &str, state: &Value) -> Result<(), JobError> {
        self.update(conn, step, 1, state, false, None).await
    }

    /// Tries the present step again at `time` with new request ids: after a refusal that was stored.
    pub async fn retry_as(&self, conn: &mut PgConnection, state: &Value, time: DateTime<Utc>) -> Result<(), JobError> {
        self.update(conn, &self.step, self.attempt + 1, state, false, Some(time)).await
    }

    /// The job is done.
    pub async fn finish(&self, conn: &mut PgConnection) -> Result<(), JobError> {
        self.update(conn, &self.step, self.attempt, &self.state, true, None).await
    }

    async fn update(
        &self,
        conn: &mut PgConnection,
        step: &str,
        attempt: i32,
        state: &Value,
        done: bool,
        run_time: Option<DateTime<Utc>>,
    ) -> Result<(), JobError> {
        let updated = sqlx::query(
            "UPDATE job
             SET step = $3, attempt = $4, state = $5, done = $6, run_time = coalesce($7, koc_now()), failures = 0, last_error = NULL,
                 lease_id = NULL, lease_until = NULL
             WHERE job_id = $1 AND lease_id = $2 AND NOT done",
        )
        .bind(self.job_id)
        .bind(self.lease_id)
        .bind(step)
        .bind(attempt)
        .bind(state)
        .bind(done)
        .bind(run_time)
        .execute(conn)
        .await?;
        if updated.rows_affected() == 1 { Ok(()) } else { Err(JobError::LeaseLost) }
    }
}

/// Runs jobs with the handlers of their kinds, until `stop`; steps at work are finished first.
pub async fn run(db: Db, handlers: HashMap<&'static str, Arc<dyn JobHandler>>, stop: CancellationToken) {
    let handlers = Arc::new(handlers);
    // A set ends with this future, so that no worker goes on when it is dropped.
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work(db.clone(), handlers.clone(), stop.clone()));
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            tracing::error!(error = %error, "a job worker ended");
        }
    }
}

async fn work(db: Db, handlers: Arc<HashMap<&'static str, Arc<dyn JobHandler>>>, stop: CancellationToken) {
    let kinds: Vec<&str> = handlers.keys().copied().collect();
    while !stop.is_cancelled() {
        // Made before the look, so that a job that starts during it is not missed.
        let woken = db.jobs_woken();
        match claim(&db, &kinds).await {
            Ok(Some(job)) => {
                if let Some(handler) = handlers.get(job.kind.as_str()) {
                    step(&db, &job, handler.as_ref()).await;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %error, "due jobs could not be looked for"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = woken => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn claim(db: &Db, kinds: &[&str]) -> Result<Option<Job>, sqlx::Error> {
    sqlx::query_as(
        "UPDATE job SET lease_id = $1, lease_until = koc_now() + $2 * interval '1 second'
         WHERE job_id = (
             SELECT job_id FROM job
             WHERE NOT done AND run_time <= koc_now() AND (lease_until IS NULL OR lease_until < koc_now()) AND kind = ANY ($3)
             ORDER BY run_time LIMIT 1
             FOR UPDATE SKIP LOCKED)
         RETURNING job_id, kind, programme_id, subject_id, step, attempt, state, actor, traceparent, failures, lease_id",
    )
    .bind(Uuid::now_v7())
    .bind(LEASE.as_secs_f64())
    .bind(kinds)
    .fetch_optional(db.pool())
    .await
}

async fn step(db: &Db, job: &Job, handler: &dyn JobHandler) {
    let span = tracing::info_span!(target: context::SPANS, "job step", otel.name = %format!("{} {}", job.kind, job.step), job = %job.job_id, kind = job.kind,
        step = job.step, attempt = job.attempt);
    context::set_parent(&span, &job.traceparent);
    // A step ends before its lease does.
    let deadline = Instant::now() + LEASE.mul_f32(0.8);
    let current = Current { deadline, actor: job.actor.clone() };
    // A handler that panics fails its step, not its worker.
    let at_work = AssertUnwindSafe(context::scope(current, handler.run(job).instrument(span))).catch_unwind();
    let error = match tokio::time::timeout_at(deadline, at_work).await {
        Ok(Ok(Ok(()))) => {
            db.wake();
            return;
        }
        Ok(Ok(Err(JobError::LeaseLost))) => return,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => "the step panicked".to_owned(),
        Err(_) => "the step took too long".to_owned(),
    };
    let doublings = job.failures().min(16);
    let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(MAX_WAIT);
    tracing::warn!(job = %job.job_id, kind = job.kind, step = job.step, failures = job.failures + 1, error, "a job step failed; it is tried again");
    let kept = sqlx::query(
        "UPDATE job
         SET failures = failures + 1, last_error = $3, lease_id = NULL, lease_until = NULL, run_time = koc_now() + $4 * interval '1 second'
         WHERE job_id = $1 AND lease_id = $2",
    )
    .bind(job.job_id)
    .bind(job.lease_id)
    .bind(error)
    .bind(wait.as_secs_f64())
    .execute(db.pool())
    .await;
    if let Err(error) = kept {
        // The lease runs out by itself and the step is tried again then.
        tracing::warn!(error = %error, "a job's failure could not be kept");
    }
}
