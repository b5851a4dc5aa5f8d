//! From an end to settled money: the budget is told what is owed or that all goes back; then the assignment is SETTLED, and what
//! was accepted is published to be measured.

use super::{broken, keep};
use crate::{
    api::convert,
    domain::{
        AssignmentId,
        assignment::{Assignment, Dues, State},
    },
    peer::{Budget, Refusal},
    store::{self, submission::FreeText},
};
use async_trait::async_trait;
use chrono::TimeDelta;
use koc_chassis::{
    clock,
    job::{Job, JobError, JobHandler},
    outbox::{self, NewFact},
    postgres::Db,
};
use koc_proto::koc::task::v1 as pb;
use sqlx::PgConnection;

/// After a refusal the budget is asked again so much later: money that is owed stays owed.
const ASK_AGAIN_AFTER: TimeDelta = TimeDelta::hours(1);

pub struct SettleAssignment {
    pub db: Db,
    pub budget: Budget,
}

#[async_trait]
impl JobHandler for SettleAssignment {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let id = AssignmentId(job.subject_id);
        let programme = job.programme();
        let mut tx = self.db.begin().await?;
        let ended = store::assignment::find(&mut tx, programme, id).await?.ok_or_else(|| broken("the assignment is gone"))?;
        tx.commit().await?;
        let (hold, dues) = ended.state.dues().ok_or_else(|| broken("there is nothing to settle"))?;
        let answer = match dues {
            Dues::Commit(earned) => self.budget.commit(programme, job.request_id("commit"), hold, earned).await?,
            Dues::Release => self.budget.release(programme, job.request_id("release"), hold).await?,
        };

        let mut tx = self.db.begin().await?;
        if let Err(Refusal(refused)) = answer {
            tracing::warn!(
                assignment = %id,
                reservation = %hold,
                reason = refused.reason,
                asked_minor = refused.asked_minor,
                available_minor = refused.available_minor,
                "the budget refused a settlement; what is owed stays owed, and it is asked again in an hour"
            );
            let later = clock::now(&mut tx).await? + ASK_AGAIN_AFTER;
            job.retry_as(&mut tx, &job.state, later).await?;
            tx.commit().await?;
            return Ok(());
        }
        let found = store::assignment::lock(&mut tx, programme, id).await?;
        let assignment = found.ok_or_else(|| broken("the assignment is gone"))?;
        let now = clock::now(&mut tx).await?;
        let before = assignment.state.clone();
        let settled = assignment.settle(now).map_err(broken)?;
        keep(&mut tx, &before, &settled, &job.actor).await?;
        if let State::Completed { .. } = settled.state {
            publish_settled(&mut tx, &settled).await?;
        }
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Tells what was accepted, what each part of it cost, and what it should reach.
async fn publish_settled(conn: &mut PgConnection, settled: &Assignment) -> Result<(), JobError> {
    let State::Completed { submission, accepted, earned, hold, .. } = &settled.state else {
        return Err(broken("only what is completed has results"));
    };
    let content = store::brief::published(conn, settled.brief, settled.brief_revision).await?;
    let content = content.ok_or_else(|| broken("the brief's revision is gone"))?;
    let submissions = store::submission::list(conn, settled.id, FreeText::Left).await?;
    let live = submissions.iter().find(|s| s.id == *submission).ok_or_else(|| broken("the submission is gone"))?;
    let deliverables = content.package.shares(settled.reward, accepted).into_iter().map(|share| {
        let handed_in = live.deliverables.iter().find(|d| d.key == share.spec.key);
        pb::AcceptedDeliverable {
            deliverable_key: share.spec.key.clone(),
            kind: convert::kind_to_proto(share.spec.kind).into(),
            cost: Some(share.worth.to_proto()),
            platform: handed_in.and_then(|d| d.platform.clone()).unwrap_or_default(),
            publish_time: handed_in.and_then(|d| d.publish_time).map(clock::to_proto),
        }
    });
    let fact = pb::AssignmentSettled {
        assignment_id: settled.id.to_string(),
        task_id: settled.task.to_string(),
        member_id: settled.member.to_string(),
        tier_id: settled.tier_id.clone(),
        brief_id: settled.brief.to_string(),
        brief_revision: settled.brief_revision,
        reservation_id: hold.to_string(),
        earned: Some(earned.to_proto()),
        deliverables: deliverables.collect(),
        output_targets: content.targets_of(&settled.tier_id).map(convert::target_to_proto).collect(),
    };
    outbox::append(conn, &[NewFact::new(settled.programme, settled.id.0, &fact)]).await?;
    Ok(())
}
