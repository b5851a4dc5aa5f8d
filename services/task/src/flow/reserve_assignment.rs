//! From acceptance to held money: the budget is asked, and its answer makes the assignment IN_PROGRESS or UNFUNDED. When the
//! member gave up meanwhile, what was held goes back.

use super::{broken, keep, lock_to_end};
use crate::{
    domain::AssignmentId,
    peer::{Budget, Hold, Refusal},
    store,
};
use async_trait::async_trait;
use koc_chassis::{
    clock,
    job::{Job, JobError, JobHandler},
    postgres::Db,
};
use serde::{Deserialize, Serialize};

/// What the job knows beyond its assignment: fixed at acceptance, so that each try asks for the same.
#[derive(Debug, Serialize, Deserialize)]
struct Reserving {
    hold_seconds: i64,
}

/// The state of a new job that asks for a hold of so many seconds.
pub fn state(hold_seconds: i64) -> serde_json::Value {
    serde_json::json!(Reserving { hold_seconds })
}

pub struct ReserveAssignment {
    pub db: Db,
    pub budget: Budget,
}

#[async_trait]
impl JobHandler for ReserveAssignment {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let id = AssignmentId(job.subject_id);
        let answer = self.budget.reserve(self.hold(job, id).await?).await?;

        let mut tx = self.db.begin().await?;
        let found = match answer {
            Ok(_) => store::assignment::lock(&mut tx, job.programme(), id).await?,
            Err(_) => lock_to_end(&mut tx, job.programme(), id).await?,
        };
        let assignment = found.ok_or_else(|| broken("the assignment is gone"))?;
        let now = clock::now(&mut tx).await?;
        let before = assignment.state.clone();
        let after = match answer {
            Ok(reservation) => assignment.fund(reservation, now),
            Err(Refusal(unfunded)) => {
                tracing::info!(assignment = %id, reason = unfunded.reason, "the budget refused the money of an assignment");
                assignment.refuse_funds(unfunded, now)
            }
        }
        .map_err(broken)?;
        keep(&mut tx, &before, &after, &job.actor).await?;
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

impl ReserveAssignment {
    /// What is asked for: the same at each try, as it follows from what never changes.
    async fn hold(&self, job: &Job, id: AssignmentId) -> Result<Hold, JobError> {
        let Reserving { hold_seconds } = serde_json::from_value(job.state.clone()).map_err(broken)?;
        let mut tx = self.db.begin().await?;
        let programme = job.programme();
        let assignment = store::assignment::find(&mut tx, programme, id).await?;
        let assignment = assignment.ok_or_else(|| broken("the assignment is gone"))?;
        let task = store::task::find(&mut tx, programme, assignment.task).await?.ok_or_else(|| broken("the task is gone"))?;
        tx.commit().await?;
        Ok(Hold {
            programme,
            request_id: job.request_id("reserve"),
            envelope: task.envelope,
            member: assignment.member,
            purpose: format!("assignment/{id}"),
            amount: assignment.reward,
            seconds: hold_seconds,
        })
    }
}
