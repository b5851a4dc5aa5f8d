//! Jobs: each step once, whoever dies; failures wait longer and longer; a refusal gets new request ids.

use crate::mini::{self, PATIENCE, count, replica};
use koc_chassis::{
    clock,
    job::{self, Job, JobError, JobHandler, NewJob},
    postgres::Db,
};
use koc_tests::{
    service::{self, ServiceDatabase},
    wait,
};
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Longer than any lease.
const LEASE: Duration = Duration::from_secs(11);

type Doing = Pin<Box<dyn Future<Output = Result<(), JobError>> + Send>>;

/// A handler from a function.
struct Handler<F>(F);

#[async_trait::async_trait]
impl<F: Fn(Job) -> Doing + Send + Sync> JobHandler for Handler<F> {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        (self.0)(job.clone()).await
    }
}

/// Runs jobs as a replica does, until the guard is dropped.
fn work(db: &Db, handler: impl Fn(Job) -> Doing + Send + Sync + 'static) -> DropGuard {
    let stop = CancellationToken::new();
    let handlers: HashMap<&'static str, Arc<dyn JobHandler>> = HashMap::from([("kind", Arc::new(Handler(handler)) as _)]);
    tokio::spawn(job::run(db.clone(), handlers, stop.clone()));
    stop.drop_guard()
}

async fn start(db: &Db, step: &'static str) -> Uuid {
    start_at(db, step, None).await
}

async fn start_at(db: &Db, step: &'static str, after: Option<Duration>) -> Uuid {
    let mut tx = db.begin().await.expect("a transaction");
    let run_time = match after {
        Some(after) => Some(clock::now(&mut tx).await.expect("a time") + after),
        None => None,
    };
    let subject = Uuid::now_v7();
    let new = NewJob { kind: "kind", programme: Uuid::nil().into(), subject, step, state: json!({}), actor: "ada", run_time };
    let id = job::start(&mut tx, new).await.expect("a job");
    tx.commit().await.expect("commits");
    db.wake();
    id
}

/// Notes the step in the transaction that moves the job: on to `next`, or to its end.
async fn step(db: &Db, job: &Job, next: Option<&str>) -> Result<(), JobError> {
    let mut tx = db.begin().await?;
    sqlx::query("INSERT INTO step (job_id, step, request_id, time) VALUES ($1, $2, $3, koc_now())")
        .bind(job.job_id)
        .bind(&job.step)
        .bind(job.request_id("command"))
        .execute(&mut *tx)
        .await?;
    match next {
        Some(next) => job.advance(&mut tx, next, &job.state).await?,
        None => job.finish(&mut tx).await?,
    }
    tx.commit().await?;
    Ok(())
}

async fn steps(database: &ServiceDatabase) -> Vec<(String, String)> {
    sqlx::query_as("SELECT step, request_id FROM step ORDER BY nr").fetch_all(&database.admin).await.expect("steps")
}

async fn all_done(database: &ServiceDatabase) {
    wait::until("all jobs to be done", PATIENCE, async || {
        (count(database, "SELECT count(*) FROM job WHERE NOT done").await == 0).then_some(())
    })
    .await;
}

async fn service_database() -> (ServiceDatabase, Db) {
    let database = service::database(&mini::schema()).await;
    let db = replica(&database);
    (database, db)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_jobs_of_four_steps_all_end_and_no_step_runs_twice_or_in_two_places() {
    let (database, db) = service_database().await;
    let at_work: Arc<Mutex<HashSet<Uuid>>> = Arc::default();
    let handler = |db: Db| {
        let at_work = at_work.clone();
        move |job: Job| -> Doing {
            let (db, at_work) = (db.clone(), at_work.clone());
            Box::pin(async move {
                assert!(at_work.lock().expect("whole").insert(job.job_id), "a job is in one worker's hands");
                let next = match job.step.as_str() {
                    "reserve" => Some("commit"),
                    "commit" => Some("grant"),
                    "grant" => Some("tell"),
                    _ => None,
                };
                // Let go before the commit makes it free for others.
                let mut tx = db.begin().await?;
                sqlx::query("INSERT INTO step (job_id, step, request_id, time) VALUES ($1, $2, $3, koc_now())")
                    .bind(job.job_id)
                    .bind(&job.step)
                    .bind(job.request_id("command"))
                    .execute(&mut *tx)
                    .await?;
                match next {
                    Some(next) => job.advance(&mut tx, next, &job.state).await?,
                    None => job.finish(&mut tx).await?,
                }
                at_work.lock().expect("whole").remove(&job.job_id);
                tx.commit().await?;
                Ok(())
            })
        }
    };
    for _ in 0..200 {
        start(&db, "reserve").await;
    }
    let other = replica(&database);
    let _replicas = [work(&db, handler(db.clone())), work(&other, handler(other.clone()))];
    all_done(&database).await;
    assert_eq!(count(&database, "SELECT count(*) FROM step").await, 800);
    assert_eq!(count(&database, "SELECT count(DISTINCT (job_id, step)) FROM step").await, 800);
    assert_eq!(count(&database, "SELECT count(DISTINCT request_id) FROM step").await, 800);
    let order = "SELECT count(*) FROM (SELECT string_agg(step, ' ' ORDER BY nr) AS way FROM step GROUP BY job_id) AS j
                 WHERE way = 'reserve commit grant tell'";
    assert_eq!(count(&database, order).await, 200);
    assert_eq!(count(&database, "SELECT count(*) FROM job WHERE last_error IS NOT NULL OR failures > 0").await, 0);
}

#[tokio::test]
async fn a_job_whose_worker_hangs_is_taken_over_after_its_lease_with_the_same_request_ids() {
    let (database, db) = service_database().await;
    let (sent, late) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let lost = Arc::new(AtomicUsize::new(0));
    start(&db, "reserve").await;
    let handler = |db: Db| {
        let (sent, late, lost) = (sent.clone(), late.clone(), lost.clone());
        move |job: Job| -> Doing {
            let (db, sent, late, lost) = (db.clone(), sent.clone(), late.clone(), lost.clone());
            Box::pin(async move {
                if job.step != "commit" {
                    return step(&db, &job, (job.step == "reserve").then_some("commit")).await;
                }
                // The first command goes out, and then nothing more is heard of its worker for long.
                let hangs = {
                    let mut sent = sent.lock().expect("whole");
                    sent.push(job.request_id("command"));
                    sent.len() == 1
                };
                if !hangs {
                    return step(&db, &job, None).await;
                }
                late.notified().await;
                let outcome = step(&db, &job, None).await;
                assert!(matches!(outcome, Err(JobError::LeaseLost)), "{outcome:?}");
                lost.fetch_add(1, Ordering::SeqCst);
                outcome
            })
        }
    };
    let _hanging = work(&db, handler(db.clone()));
    wait::until("the worker to hang", PATIENCE, async || (sent.lock().expect("whole").len() == 1).then_some(())).await;

    let other = replica(&database);
    let _taking_over = work(&other, handler(other.clone()));
    database.advance(Duration::from_secs(6)).await;
    // One that is due later than the first is done, so the workers have looked, and the first one's lease still holds.
    start(&db, "single").await;
    wait::until("the second job", PATIENCE, async || (steps(&database).await.len() == 2).then_some(())).await;
    assert_eq!(steps(&database).await[1].0, "single");
    database.advance(LEASE).await;
    all_done(&database).await;
    let steps = steps(&database).await;
    assert_eq!(steps.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["reserve", "single", "commit"]);
    let sent = sent.lock().expect("whole").clone();
    assert_eq!(sent, [steps[2].1.as_str(), steps[2].1.as_str()], "the command went out twice with one id");
    assert_ne!(steps[0].1, steps[2].1);

    late.notify_waiters();
    wait::until("the late worker to give up", PATIENCE, async || (lost.load(Ordering::SeqCst) == 1).then_some(())).await;
    assert_eq!(count(&database, "SELECT count(*) FROM step").await, 3);
}

#[tokio::test]
async fn handlers_that_panic_fail_their_steps_and_leave_every_worker_at_work() {
    // More than there are workers.
    const JOBS: usize = 9;
    let (database, db) = service_database().await;
    let panicked: Arc<Mutex<HashSet<Uuid>>> = Arc::default();
    for _ in 0..JOBS {
        start(&db, "reserve").await;
    }
    let (handling, seen) = (db.clone(), panicked.clone());
    let _worker = work(&db, move |job: Job| -> Doing {
        let (db, panicked) = (handling.clone(), seen.clone());
        Box::pin(async move {
            let first = panicked.lock().expect("whole").insert(job.job_id);
            assert!(!first, "as this test wants");
            step(&db, &job, None).await
        })
    });
    all_done(&database).await;
    assert_eq!(panicked.lock().expect("whole").len(), JOBS);
    assert_eq!(count(&database, "SELECT count(*) FROM step").await, 9);
}

#[tokio::test]
async fn a_failing_step_waits_longer_each_time_and_shows_why() {
    let (database, db) = service_database().await;
    let (tries, handling) = (Arc::new(AtomicUsize::new(0)), db.clone());
    let counted = tries.clone();
    let id = start(&db, "reserve").await;
    let _worker = work(&db, move |job: Job| -> Doing {
        let (db, nr) = (handling.clone(), counted.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move {
            sqlx::query("INSERT INTO step (job_id, step, request_id, time) VALUES ($1, 'try', $2, koc_now())")
                .bind(job.job_id)
                .bind(job.request_id("command"))
                .execute(db.pool())
                .await?;
            if nr < 3 { Err(tonic::Status::unavailable("budget is away").into()) } else { step(&db, &job, None).await }
        })
    });
    wait::until("two failures", PATIENCE, async || {
        let failed = "SELECT last_error FROM job WHERE job_id = $1 AND failures >= 2 AND lease_id IS NULL";
        sqlx::query_scalar::<_, String>(failed).bind(id).fetch_optional(&database.admin).await.expect("a job")
    })
    .await
    .contains("budget is away")
    .then_some(())
    .expect("the reason shows");
    all_done(&database).await;
    let gaps: Vec<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM time - lag(time) OVER (ORDER BY nr))::float8 FROM step WHERE step = 'try' ORDER BY nr OFFSET 1",
    )
    .fetch_all(&database.admin)
    .await
    .expect("gaps");
    assert_eq!(gaps.len(), 3);
    for (gap, at_least) in gaps.iter().zip([0.2, 0.4, 0.8]) {
        assert!(*gap >= at_least, "{gaps:?}");
    }
    // The same command at each try; and the end leaves no error behind.
    assert_eq!(count(&database, "SELECT count(DISTINCT request_id) FROM step").await, 1);
    assert_eq!(count(&database, "SELECT failures::bigint FROM job WHERE last_error IS NULL").await, 0);
}

#[tokio::test]
async fn a_refused_step_is_tried_again_later_with_another_request_id_and_the_next_step_begins_anew() {
    let (database, db) = service_database().await;
    start(&db, "reserve").await;
    let handling = db.clone();
    let _worker = work(&db, move |job: Job| -> Doing {
        let db = handling.clone();
        Box::pin(async move {
            if job.step == "commit" {
                assert_eq!((job.attempt, &job.state), (1, &json!({"refused": 1})));
                return step(&db, &job, None).await;
            }
            if job.attempt == 2 {
                return step(&db, &job, Some("commit")).await;
            }
            let mut tx = db.begin().await?;
            sqlx::query("INSERT INTO step (job_id, step, request_id, time) VALUES ($1, 'refused', $2, koc_now())")
                .bind(job.job_id)
                .bind(job.request_id("command"))
                .execute(&mut *tx)
                .await?;
            let later = clock::now(&mut tx).await? + Duration::from_secs(3600);
            job.retry_as(&mut tx, &json!({"refused": 1}), later).await?;
            tx.commit().await?;
            Ok(())
        })
    });
    wait::until("the refusal", PATIENCE, async || (steps(&database).await.len() == 1).then_some(())).await;
    assert_eq!(
        count(&database, "SELECT count(*) FROM job WHERE NOT done AND run_time > koc_now() + interval '50 minutes'").await,
        1
    );
    database.advance(Duration::from_secs(3601)).await;
    all_done(&database).await;
    let steps = steps(&database).await;
    assert_eq!(steps.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["refused", "reserve", "commit"]);
    assert_eq!(steps.iter().map(|s| &s.1).collect::<HashSet<_>>().len(), 3);
}

#[tokio::test]
async fn a_cancelled_job_does_not_run_and_one_at_work_does_not_count() {
    let (database, db) = service_database().await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let waiting = start_at(&db, "later", Some(Duration::from_secs(3600))).await;
    let (handling, telling, told) = (db.clone(), begun.clone(), go_on.clone());
    let _worker = work(&db, move |job: Job| -> Doing {
        let (db, begun, go_on) = (handling.clone(), telling.clone(), told.clone());
        Box::pin(async move {
            begun.notify_one();
            go_on.notified().await;
            step(&db, &job, None).await
        })
    });
    let at_work = start(&db, "reserve").await;
    begun.notified().await;
    for id in [waiting, at_work] {
        let mut tx = db.begin().await.expect("a transaction");
        let subject: Uuid =
            sqlx::query_scalar("SELECT subject_id FROM job WHERE job_id = $1").bind(id).fetch_one(&mut *tx).await.expect("a job");
        job::cancel(&mut tx, subject, "kind").await.expect("cancels");
        tx.commit().await.expect("commits");
    }
    go_on.notify_one();
    database.advance(Duration::from_secs(7200)).await;
    // A third one, done after them, shows that they had their chance.
    let third = start(&db, "reserve").await;
    begun.notified().await;
    go_on.notify_one();
    all_done(&database).await;
    let ran: Vec<Uuid> = sqlx::query_scalar("SELECT job_id FROM step").fetch_all(&database.admin).await.expect("steps");
    assert_eq!(ran, [third]);
}

#[tokio::test]
async fn steps_at_work_are_finished_before_the_workers_end() {
    let (database, db) = service_database().await;
    start(&db, "reserve").await;
    let (begun, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let taken = Arc::new(AtomicUsize::new(0));
    let (handling, taking, telling, stopping) = (db.clone(), taken.clone(), begun.clone(), stop.clone());
    let handler = move |job: Job| -> Doing {
        let (db, taken, begun, stop) = (handling.clone(), taking.clone(), telling.clone(), stopping.clone());
        Box::pin(async move {
            taken.fetch_add(1, Ordering::SeqCst);
            begun.notify_one();
            stop.cancelled().await;
            step(&db, &job, Some("commit")).await
        })
    };
    let handlers: HashMap<&'static str, Arc<dyn JobHandler>> = HashMap::from([("kind", Arc::new(Handler(handler)) as _)]);
    let running = tokio::spawn(job::run(db, handlers, stop.clone()));
    begun.notified().await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("in time").expect("ends well");
    // A worker that was looking for a job at that moment may have taken the next step; it was finished as well.
    let taken = i64::try_from(taken.load(Ordering::SeqCst)).expect("a handful");
    assert_eq!(count(&database, "SELECT count(*) FROM step").await, taken);
    assert_eq!(count(&database, "SELECT count(*) FROM job WHERE step = 'commit' AND lease_id IS NULL AND NOT done").await, 1);
}

#[tokio::test]
async fn jobs_that_are_done_are_kept_for_a_while_and_those_that_are_not_for_good() {
    let (database, db) = service_database().await;
    let [done, open] = [start(&db, "reserve").await, start(&db, "reserve").await];
    sqlx::query("UPDATE job SET done = true WHERE job_id = $1").bind(done).execute(&database.admin).await.expect("done");
    let keep = Duration::from_secs(60);
    assert_eq!(job::purge(&db, keep).await.expect("looked"), 0);
    database.advance(Duration::from_secs(61)).await;
    assert_eq!(job::purge(&db, keep).await.expect("removed"), 1);
    let left: Vec<Uuid> = sqlx::query_scalar("SELECT job_id FROM job").fetch_all(&database.admin).await.expect("jobs");
    assert_eq!(left, [open]);
}
