//! A trial of a draft against all members: a job that judges them part by part and writes only what it counts. Each step is one transaction
//! that says how far it came, so a crash costs a step and counts nobody twice; a part is all that it has in memory.

use crate::{
    domain::tier::{
        Rooms,
        dry_run::{DryRun, DryRunId, MAX_RUNNING, Refusal},
        policy::Draft,
    },
    error::Error,
    store,
};
use async_trait::async_trait;
use koc_chassis::{
    context,
    gate::Work,
    job::{self, Job, JobError, JobHandler, NewJob},
    postgres::Db,
};
use serde_json::Value;
use std::time::Duration;

/// The kind of job; its subject is the trial.
pub const KIND: &str = "try_tier_policy";
const JUDGE: &str = "judge";

/// Members that are judged together.
const PART_MEMBERS: i64 = 2_000;
/// A step takes on no further part when less than this is left of its time.
const LEFT_FOR_LAST_PART: Duration = Duration::from_secs(5);
/// Members above a tier's capacity that are told apart: as many may fall from it before it counts as having room.
const LEAVING: i64 = 100_000;
/// How long trials are kept.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Starts a trial of an open draft. The programme is locked.
pub async fn start(work: &mut Work, draft: Draft) -> Result<DryRun, Error> {
    draft.open()?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if store::tier::dry_run::running(work.conn(), programme).await? >= MAX_RUNNING {
        return Err(Refusal::TooMany.into());
    }
    let limits = Rooms::limits(&draft.rules, LEAVING);
    let members = store::tier::standing::count_up_to(work.conn(), programme, &limits).await?;
    let run = DryRun {
        id: DryRunId::new(),
        draft: draft.id,
        rooms: Rooms::new(&draft.rules, &members),
        rules: draft.rules,
        as_of: work.now().await?,
        judged: 0,
        counts: Vec::new(),
        actor,
        end_time: None,
    };
    store::tier::dry_run::insert(work.conn(), programme, &run).await?;
    let (state, actor) = (Value::Null, run.actor.as_str());
    let job = NewJob { kind: KIND, programme, subject: run.id.0, step: JUDGE, state, actor, run_time: None };
    job::start(work.conn(), job).await?;
    Ok(run)
}

/// Drives trials.
pub struct Trial {
    db: Db,
}

impl Trial {
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl JobHandler for Trial {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let (programme, id) = (job.programme(), DryRunId(job.subject_id));
        let mut tx = self.db.begin().await?;
        let found = store::tier::dry_run::get(&mut tx, programme, id).await?;
        let (mut run, mut after) = found.ok_or_else(|| JobError::Broken(format!("there is no trial {id}")))?;
        let tiers = store::tier::list(&mut tx, programme).await?;
        let ended = loop {
            let part = store::tier::standing::page(&mut tx, programme, after, PART_MEMBERS).await?;
            let Some(last) = part.last().copied() else { break true };
            let candidates = store::tier::standing::candidates(&mut tx, programme, &part).await?;
            let kept = run.judge(&candidates, &tiers);
            store::tier::dry_run::insert_members(&mut tx, programme, id, &kept).await?;
            after = last;
            if context::time_left() < LEFT_FOR_LAST_PART {
                break false;
            }
        };
        store::tier::dry_run::update(&mut tx, programme, &run, after, ended).await?;
        if ended {
            job.finish(&mut tx).await?;
        } else {
            job.advance(&mut tx, JUDGE, &Value::Null).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Removes old trials, until none is left.
pub async fn forget(db: Db) {
    loop {
        match forget_some(&db).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %error, "old trials of tier policies could not be removed; trying again in an hour");
                return;
            }
        }
    }
}

async fn forget_some(db: &Db) -> Result<u64, sqlx::Error> {
    let mut tx = db.begin().await?;
    let forgotten = store::tier::dry_run::purge(&mut tx, LIFE).await?;
    tx.commit().await?;
    Ok(forgotten)
}
