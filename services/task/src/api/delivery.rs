//! From work handed in to a completed assignment.

use super::{
    assignment::{locked, locked_to_end, shown, transit},
    convert,
};
use crate::{
    domain::{
        SubmissionId,
        assignment::{Assignment, AssignmentError},
        brief::BriefContent,
        submission::{self, MAX_SUBMISSIONS, Review, Submission, Verdict},
    },
    error::Error,
    store::{self, submission::FreeText},
};
use koc_chassis::gate::Work;
use koc_proto::koc::task::v1 as pb;

/// What the assignment's brief says; its revision is published, so it is there for good.
async fn content(work: &mut Work, assignment: &Assignment) -> Result<BriefContent, Error> {
    let content = store::brief::published(work.conn(), assignment.brief, assignment.brief_revision).await?;
    content.ok_or(Error::BriefNotFound(assignment.brief))
}

pub(super) async fn submit(work: &mut Work, request: pb::SubmitWorkRequest) -> Result<pb::SubmitWorkResponse, Error> {
    let stage = convert::stage_from_proto("stage", request.stage)?;
    let deliverables = convert::submitted_from_proto(request.deliverables)?;
    let assignment = locked(work, &request.assignment_id).await?;
    let content = content(work, &assignment).await?;
    let flaws = submission::flaws(stage, &deliverables, &content.package, work.now().await?);
    if !flaws.is_empty() {
        return Err(Error::Fields(flaws.into_iter().map(convert::submitted_flaw).collect()));
    }
    let id = SubmissionId::new();
    let submitted = transit(work, assignment, |assignment, now| assignment.submit(id, now)).await?;
    if store::submission::count(work.conn(), submitted.id).await? >= MAX_SUBMISSIONS {
        let problem = AssignmentError::SubmissionLimit { max: MAX_SUBMISSIONS };
        return Err(Error::Assignment { assignment: submitted.id, problem });
    }
    let submission = Submission { id, stage, deliverables, submit_time: submitted.update_time, review: None };
    store::submission::insert(work.conn(), submitted.id, &submission).await?;
    Ok(pb::SubmitWorkResponse { assignment: Some(shown(work, &submitted).await?), submission_id: id.to_string() })
}

pub(super) async fn review(work: &mut Work, request: pb::ReviewSubmissionRequest) -> Result<pb::ReviewSubmissionResponse, Error> {
    let verdict = convert::verdict_from_proto("verdict", request.verdict)?;
    let asked = SubmissionId::parse("submission_id", &request.submission_id)?;
    let assignment = locked_to_end(work, &request.assignment_id).await?;
    let latest = assignment.reviewable(asked).map_err(|problem| Error::Assignment { assignment: assignment.id, problem })?;
    let submissions = store::submission::list(work.conn(), assignment.id, FreeText::Left).await?;
    let Some(submission) = submissions.into_iter().find(|s| s.id == latest) else {
        return Err(sqlx::Error::RowNotFound.into());
    };
    let named = submission.accepted(request.accepted_deliverable_keys).map_err(|places| {
        let unknown = |place| convert::deliverable_unknown(format!("accepted_deliverable_keys[{place}]"), "the submission");
        Error::Fields(places.into_iter().map(unknown).collect())
    })?;
    let accepted = if verdict == Verdict::Approved { named } else { Vec::new() };
    let reviewed = transit(work, assignment, |a, now| a.review(submission.stage, verdict, accepted.clone(), now)).await?;
    let review = Review {
        verdict,
        accepted_keys: accepted,
        comment: Some(request.comment).filter(|comment| !comment.is_empty()),
        reviewer: work.actor().to_owned(),
        review_time: reviewed.update_time,
    };
    store::submission::upsert_review(work.conn(), latest, &review).await?;
    Ok(pb::ReviewSubmissionResponse { assignment: Some(shown(work, &reviewed).await?) })
}

pub(super) async fn complete(
    work: &mut Work,
    request: pb::CompleteAssignmentRequest,
) -> Result<pb::CompleteAssignmentResponse, Error> {
    let assignment = locked(work, &request.assignment_id).await?;
    let content = content(work, &assignment).await?;
    let completed = transit(work, assignment, |assignment, now| assignment.complete(&content.package, now)).await?;
    Ok(pb::CompleteAssignmentResponse { assignment: Some(shown(work, &completed).await?) })
}
