//! What happens at a deadline: an offer that nobody took ends, work that nobody handed in ends and its money goes back.

use super::{EXPIRE_OFFER, broken, keep, lock_to_end};
use crate::domain::AssignmentId;
use async_trait::async_trait;
use koc_chassis::{
    clock,
    job::{Job, JobError, JobHandler},
    postgres::Db,
};

pub struct ExpireAssignment {
    pub db: Db,
}

#[async_trait]
impl JobHandler for ExpireAssignment {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let id = AssignmentId(job.subject_id);
        let mut tx = self.db.begin().await?;
        let found = lock_to_end(&mut tx, job.programme(), id).await?;
        let assignment = found.ok_or_else(|| broken("the assignment is gone"))?;
        let now = clock::now(&mut tx).await?;
        let before = assignment.state.clone();
        let of_offer = job.kind == EXPIRE_OFFER;
        let deadline = if of_offer { assignment.deadlines.offer } else { assignment.deadlines.delivery };
        // The clock that called the job was ahead of this one, as after a failover: what did not expire now would never do.
        if now < deadline {
            job.retry_as(&mut tx, &job.state, deadline).await?;
            tx.commit().await?;
            return Ok(());
        }
        let expired = if of_offer { assignment.expire_offer(now) } else { assignment.expire_delivery(now) };
        // First, as what follows from the end cancels the jobs that still wait for a deadline.
        job.finish(&mut tx).await?;
        if let Some(expired) = expired {
            keep(&mut tx, &before, &expired, &job.actor).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
