//! A decision that stands is applied: value profile and tier proposal to the registry, then the next limit to the budget. What is
//! sent was fixed with the decision, so each step can be made again. A peer's refusal is kept with the decision and does
//! not hold up the steps after it.

use crate::{
    domain::{decision::Action, ids::DecisionId, progress::Progress},
    flow::run_decisions::changed,
    peer::{Origin, PeerError, Peers},
    store::{
        self,
        decision::{Applied, StoredDecision},
    },
};
use async_trait::async_trait;
use koc_chassis::{
    ids::MemberId,
    job::{self, Job, JobError, JobHandler, NewJob},
    members,
    money::{Currency, Money},
    outbox,
    postgres::Db,
};
use sqlx::PgConnection;

/// The kind of these jobs, and their steps.
pub const KIND: &str = "apply_decision";
const PROFILE: &str = "profile";
const TIER: &str = "tier";
const LIMIT: &str = "limit";
const FINISH: &str = "finish";

/// Starts the job for a decision, in the name of the one who let it stand.
pub async fn start(conn: &mut PgConnection, decision: &StoredDecision, actor: &str) -> Result<(), sqlx::Error> {
    let state = serde_json::Value::Null;
    let (programme, subject) = (decision.programme, decision.id.0);
    job::start(conn, NewJob { kind: KIND, programme, subject, step: PROFILE, state, actor, run_time: None }).await.map(|_| ())
}

/// Runs these jobs.
pub struct ApplyDecision {
    pub db: Db,
    pub peers: Peers,
}

#[async_trait]
impl JobHandler for ApplyDecision {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let mut conn = self.db.read().await?;
        let found = store::decision::find(&mut conn, job.programme(), DecisionId(job.subject_id)).await?;
        drop(conn);
        let Some(decision) = found else { return Err(JobError::Broken("the decision is gone".to_owned())) };
        match job.step.as_str() {
            PROFILE => {
                let (request_id, version) = (job.request_id("update_value_profile"), decision.inputs.value_model_version);
                let answer = self.peers.update_value_profile(request_id, origin(&decision), &decision.outcome, version).await;
                self.keep(job, Applied::Profile, answer, TIER).await
            }
            TIER => {
                let (request_id, between_sd) = (job.request_id("propose_tier"), decision.inputs.tier_policy.between_sd);
                let answer = self.peers.propose_tier(request_id, origin(&decision), &decision.outcome, between_sd).await;
                self.keep(job, Applied::Tier, answer, LIMIT).await
            }
            LIMIT => {
                let answer = self.set_limit(job, &decision).await?;
                self.keep(job, Applied::Limit, answer, FINISH).await
            }
            _ => self.finish(job).await,
        }
    }
}

fn origin(decision: &StoredDecision) -> Origin {
    // As it was decided, so that a call that is made again is the same: the peers know whom the id leads to.
    let member = MemberId(decision.inputs.member_id);
    Origin { programme: decision.programme, member, decision: decision.id, period: decision.inputs.period }
}

impl ApplyDecision {
    async fn set_limit(&self, job: &Job, decision: &StoredDecision) -> Result<Result<String, PeerError>, JobError> {
        let Some(limit_minor) = decision.outcome.next_limit_minor else {
            return Ok(Ok("not sent: nothing to base a limit on".to_owned()));
        };
        let mut conn = self.db.read().await?;
        let standing = members::standing(&mut conn, decision.programme, decision.member).await?;
        drop(conn);
        if standing.suspended && decision.outcome.decision.action == Action::Increase {
            return Ok(Ok("not sent: the member is suspended".to_owned()));
        }
        let currency = Currency::from_code(&decision.currency)
            .ok_or_else(|| JobError::Broken(format!("{} is no currency", decision.currency)))?;
        let limit = Money::new(limit_minor, currency);
        let (request_id, reason) = (job.request_id("set_member_limit"), decision.outcome.explanation.as_str());
        Ok(self.peers.set_member_limit(request_id, origin(decision), limit, reason).await)
    }

    /// Keeps what a peer answered, and goes on. A failure that may pass is tried again.
    async fn keep(&self, job: &Job, what: Applied, answer: Result<String, PeerError>, next: &str) -> Result<(), JobError> {
        let answer = match answer {
            Ok(done) => done,
            Err(PeerError::Failed(status)) => return Err(status.into()),
            Err(refused @ PeerError::Refused { .. }) => format!("refused with {refused}"),
        };
        let mut tx = self.db.begin().await?;
        store::decision::put_result(&mut tx, DecisionId(job.subject_id), what, &answer).await?;
        job.advance(&mut tx, next, &job.state).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn finish(&self, job: &Job) -> Result<(), JobError> {
        let mut tx = self.db.begin().await?;
        let locked = store::decision::lock(&mut tx, job.programme(), DecisionId(job.subject_id)).await?;
        if let Some(decision) = locked
            && let Progress::Applying { approved_by } = decision.progress.clone()
        {
            let progress = Progress::Applied { approved_by };
            store::decision::put_progress(&mut tx, decision.id, &progress, None).await?;
            outbox::append(&mut tx, &[changed(&StoredDecision { progress, ..decision })]).await?;
        }
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}
