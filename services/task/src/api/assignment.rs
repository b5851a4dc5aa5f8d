//! AssignmentService: offers and the answers to them, here; what is handed in and how it is judged, in [`super::delivery`].

use super::{convert, delivery};
use crate::{
    domain::{
        AssignmentId, TaskId,
        assignment::{Assignment, AssignmentError, State},
        task::Candidate,
    },
    error::Error,
    flow,
    peer::{self, Registry},
    store::{self, assignment::Filter, submission::FreeText},
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    gate::{Call, Gate, Work},
    ids::{MemberId, ProgrammeId},
    members, page,
};
use koc_proto::{koc::task::v1 as pb, rules::Rules};
use sqlx::PgConnection;
use tonic::{Request, Response, Status};

const LIST: &str = "ListAssignments";

pub struct AssignmentApi {
    pub gate: Gate<Error>,
    pub registry: Registry,
}

/// Moves an assignment by one transition, with all that follows from it, and gives it as the answer shows it.
pub(super) async fn transit(
    work: &mut Work,
    assignment: Assignment,
    transition: impl FnOnce(Assignment, DateTime<Utc>) -> Result<Assignment, AssignmentError>,
) -> Result<Assignment, Error> {
    let (id, before, now) = (assignment.id, assignment.state.clone(), work.now().await?);
    let after = transition(assignment, now).map_err(|problem| Error::Assignment { assignment: id, problem })?;
    let actor = work.actor().to_owned();
    flow::keep(work.conn(), &before, &after, &actor).await?;
    work.audit(id.0, None);
    Ok(after)
}

/// An assignment with its lock.
pub(super) async fn locked(work: &mut Work, id: &str) -> Result<Assignment, Error> {
    let id = AssignmentId::parse("assignment_id", id)?;
    let programme = work.programme();
    store::assignment::lock(work.conn(), programme, id).await?.ok_or(Error::AssignmentNotFound(id))
}

/// As [`locked`], for a change that may end the assignment.
pub(super) async fn locked_to_end(work: &mut Work, id: &str) -> Result<Assignment, Error> {
    let id = AssignmentId::parse("assignment_id", id)?;
    let programme = work.programme();
    flow::lock_to_end(work.conn(), programme, id).await?.ok_or(Error::AssignmentNotFound(id))
}

/// As [`locked`], for the acceptance of `candidate`, who may have been merged: then the task's lock makes its ids' answers follow each other,
/// and what another of them has taken stands in the way.
async fn locked_to_accept(work: &mut Work, id: &str, candidate: &Candidate) -> Result<Assignment, Error> {
    let programme = work.programme();
    let person = members::group(work.conn(), programme, candidate.member).await?;
    if person.len() == 1 {
        return locked(work, id).await;
    }
    let assignment = locked_to_end(work, id).await?;
    let open = store::assignment::open_of(work.conn(), assignment.task, &person).await?;
    match open.into_iter().find(|(other, state)| *other != assignment.id && state != State::Offered.name()) {
        Some((taken, _)) => Err(Error::AssignmentExists(taken)),
        None => Ok(assignment),
    }
}

/// Puts the members in place that go on for those that were merged.
async fn lead(conn: &mut PgConnection, programme: ProgrammeId, assignments: &mut [Assignment]) -> Result<(), sqlx::Error> {
    let ids: Vec<MemberId> = assignments.iter().map(|assignment| assignment.member).collect();
    let led = members::led(conn, programme, &ids).await?;
    for assignment in assignments {
        assignment.member = led.get(&assignment.member).copied().unwrap_or(assignment.member);
    }
    Ok(())
}

/// As an answer to a mutation shows it: with what was handed in, without free text.
pub(super) async fn shown(work: &mut Work, assignment: &Assignment) -> Result<pb::Assignment, Error> {
    let submissions = store::submission::list(work.conn(), assignment.id, FreeText::Left).await?;
    let mut assignment = [assignment.clone()];
    lead(work.conn(), assignment[0].programme, &mut assignment).await?;
    let mut message = convert::assignment_to_proto(&assignment[0], &submissions);
    message.strip_personal();
    Ok(message)
}

async fn offer(work: &mut Work, request: pb::OfferAssignmentRequest, mut candidate: Candidate) -> Result<Assignment, Error> {
    let task_id = TaskId::parse("task_id", &request.task_id)?;
    let programme = work.programme();
    let member = candidate.member;
    // What ends a member's offers does not see this one yet, so what was told since the registry was asked counts.
    store::member::lock(work.conn(), member).await?;
    if let Some(newer) = members::standing_since(work.conn(), programme, member, candidate.version).await? {
        candidate.participation = peer::participation(&newer);
    }
    // The task's lock makes offers of one task follow each other: the last place is given once.
    let task = store::task::lock(work.conn(), programme, task_id).await?.ok_or(Error::TaskNotFound(task_id))?;
    let now = work.now().await?;
    let person = members::group(work.conn(), programme, member).await?;
    if let Some((open, _)) = store::assignment::open_of(work.conn(), task_id, &person).await?.first() {
        return Err(Error::AssignmentExists(*open));
    }
    let target = task.target.clone();
    let task = task.seat(&candidate, now).map_err(|problem| Error::Task { task: task_id, target, problem })?;
    let offered = Assignment::offer(&task, member, candidate.tier_id, now);
    store::task::update(work.conn(), &task).await?;
    flow::begin(work.conn(), &offered).await?;
    work.audit(offered.id.0, None);
    Ok(offered)
}

#[tonic::async_trait]
impl pb::assignment_service_server::AssignmentService for AssignmentApi {
    async fn offer_assignment(
        &self,
        request: Request<pb::OfferAssignmentRequest>,
    ) -> Result<Response<pb::OfferAssignmentResponse>, Status> {
        let registry = self.registry.clone();
        let candidate = async move |call: &Call, request: &pb::OfferAssignmentRequest| {
            let member = MemberId::parse("member_id", &request.member_id)?;
            registry.candidate(call.programme, member).await
        };
        self.gate
            .mutate_after(request, candidate, |work, request, candidate| {
                Box::pin(async move {
                    let offered = offer(work, request, candidate).await?;
                    Ok(pb::OfferAssignmentResponse { assignment: Some(convert::assignment_to_proto(&offered, &[])) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn accept_assignment(
        &self,
        request: Request<pb::AcceptAssignmentRequest>,
    ) -> Result<Response<pb::AcceptAssignmentResponse>, Status> {
        // Consent is asked for again, and without an answer nothing begins: the offer may be days old.
        let candidate = async |call: &Call, request: &pb::AcceptAssignmentRequest| {
            let id = AssignmentId::parse("assignment_id", &request.assignment_id)?;
            let mut conn = self.gate.db().read().await?;
            let offered = store::assignment::find(&mut conn, call.programme, id).await?;
            drop(conn);
            let offered = offered.ok_or(Error::AssignmentNotFound(id))?;
            self.registry.candidate(call.programme, offered.member).await
        };
        self.gate
            .mutate_after(request, candidate, |work, request, candidate| {
                Box::pin(async move {
                    let assignment = locked_to_accept(work, &request.assignment_id, &candidate).await?;
                    let accepted = transit(work, assignment, |a, now| a.accept(candidate.participation, now)).await?;
                    Ok(pb::AcceptAssignmentResponse { assignment: Some(shown(work, &accepted).await?) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn decline_assignment(
        &self,
        request: Request<pb::DeclineAssignmentRequest>,
    ) -> Result<Response<pb::DeclineAssignmentResponse>, Status> {
        self.gate
            .mutate(request, |work, request| {
                Box::pin(async move {
                    let assignment = locked_to_end(work, &request.assignment_id).await?;
                    let declined = transit(work, assignment, Assignment::decline).await?;
                    Ok(pb::DeclineAssignmentResponse { assignment: Some(shown(work, &declined).await?) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn submit_work(&self, request: Request<pb::SubmitWorkRequest>) -> Result<Response<pb::SubmitWorkResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(delivery::submit(work, request))).await.map(Into::into)
    }

    async fn review_submission(
        &self,
        request: Request<pb::ReviewSubmissionRequest>,
    ) -> Result<Response<pb::ReviewSubmissionResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(delivery::review(work, request))).await.map(Into::into)
    }

    async fn complete_assignment(
        &self,
        request: Request<pb::CompleteAssignmentRequest>,
    ) -> Result<Response<pb::CompleteAssignmentResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(delivery::complete(work, request))).await.map(Into::into)
    }

    async fn get_assignment(
        &self,
        request: Request<pb::GetAssignmentRequest>,
    ) -> Result<Response<pb::GetAssignmentResponse>, Status> {
        self.gate
            .read(request, async |call, request| {
                let id = AssignmentId::parse("assignment_id", &request.assignment_id)?;
                let mut tx = self.gate.db().begin().await?;
                let found = store::assignment::find(&mut tx, call.programme, id).await?;
                let mut assignment = [found.ok_or(Error::AssignmentNotFound(id))?];
                lead(&mut tx, call.programme, &mut assignment).await?;
                let submissions = store::submission::list(&mut tx, id, FreeText::Read).await?;
                Ok(pb::GetAssignmentResponse { assignment: Some(convert::assignment_to_proto(&assignment[0], &submissions)) })
            })
            .await
    }

    async fn list_assignments(
        &self,
        request: Request<pb::ListAssignmentsRequest>,
    ) -> Result<Response<pb::ListAssignmentsResponse>, Status> {
        self.gate
            .read(request, async |call, request| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.task_id.as_str(), request.member_id.as_str()];
                let filter = Filter {
                    task: TaskId::parse_optional("task_id", &request.task_id)?,
                    member: MemberId::parse_optional("member_id", &request.member_id)?,
                    after: page::after_id(LIST, &filters, &request.page_token)?,
                };
                let size = page::size(request.page_size);
                let mut tx = self.gate.db().begin().await?;
                let mut found = store::assignment::list(&mut tx, call.programme, filter, size + 1).await?;
                let next_page_token = page::cut(&mut found, size, |a| page::token(LIST, &filters, &a.id.to_string()));
                lead(&mut tx, call.programme, &mut found).await?;
                let assignments = found.iter().map(|a| convert::assignment_to_proto(a, &[])).collect();
                Ok(pb::ListAssignmentsResponse { assignments, next_page_token })
            })
            .await
    }
}
