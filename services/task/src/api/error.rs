//! What each error is to a caller: the one table of codes and reasons.

use crate::{
    domain::{
        assignment::AssignmentError,
        task::{Mismatch, Target, TaskError},
    },
    error::{BriefProblem, Error},
};
use koc_chassis::{
    fault::{Fault, ServiceError},
    peer,
};
use tonic::Code;

impl ServiceError for Error {
    fn fault(&self) -> Fault {
        let text = self.to_string();
        match self {
            Self::Fields(violations) => Fault::invalid(violations.clone()),
            Self::ProgrammeNotFound(id) => missing("PROGRAMME_NOT_FOUND", "programme", id, text),
            Self::MemberNotFound(id) => missing("MEMBER_NOT_FOUND", "member", id, text),
            Self::BriefNotFound(id) => missing("BRIEF_NOT_FOUND", "brief", id, text),
            Self::TaskNotFound(id) => missing("TASK_NOT_FOUND", "task", id, text),
            Self::AssignmentNotFound(id) => missing("ASSIGNMENT_NOT_FOUND", "assignment", id, text),
            Self::BriefState { brief, problem } => {
                let state = match problem {
                    BriefProblem::DraftExists => "DRAFT",
                    BriefProblem::NoDraft => "PUBLISHED",
                    BriefProblem::NotPublished(_) => "NOT_PUBLISHED",
                };
                Fault::refused("BRIEF_STATE", text).with("subject", brief).with("state", state)
            }
            Self::Task { task, target, problem } => task_fault(target, problem, text).with("subject", task),
            Self::AssignmentExists(id) => {
                Fault::exists("ASSIGNMENT_EXISTS", text).with("resource_type", "assignment").with("resource_id", id)
            }
            Self::Assignment { assignment, problem } => assignment_fault(problem, text).with("subject", assignment),
            Self::Peer { status, .. } if status.code() == Code::DeadlineExceeded => Fault::deadline(),
            Self::Peer { peer, status } if peer::is_transient(status) => {
                Fault::unavailable("PEER_UNAVAILABLE", format!("{peer} cannot be asked now")).with("peer", peer)
            }
            Self::Peer { .. } => Fault::internal(),
            Self::Database(error) => Fault::of_database(error),
        }
    }

    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

fn missing(reason: &str, kind: &str, id: impl ToString, text: String) -> Fault {
    Fault::not_found(reason, text).with("resource_type", kind).with("resource_id", id)
}

fn task_fault(target: &Target, problem: &TaskError, text: String) -> Fault {
    match problem {
        TaskError::State { state } => Fault::refused("TASK_STATE", text).with("state", state.name()),
        TaskError::Full { capacity } => Fault::refused("TASK_FULL", text).with("capacity", capacity),
        TaskError::OfferClosed { deadline } => Fault::refused("OFFER_CLOSED", text).with("offer_deadline", deadline.to_rfc3339()),
        TaskError::Suspended => Fault::refused("MEMBER_SUSPENDED", text),
        TaskError::NotEligible(mismatches) => {
            let unmet: Vec<&str> = mismatches.iter().map(|m| m.name()).collect();
            let fault = Fault::refused("MEMBER_NOT_ELIGIBLE", text).with("unmet", unmet.join(","));
            // What is asked for, never what the member is.
            mismatches.iter().fold(fault, |fault, mismatch| match mismatch {
                Mismatch::Tier => fault.with("tier_ids", target.tier_ids.join(",")),
                Mismatch::Region => fault.with("region_codes", target.region_codes.join(",")),
                Mismatch::Participation => fault.with("consent_purpose", "PARTICIPATION"),
            })
        }
    }
}

fn assignment_fault(problem: &AssignmentError, text: String) -> Fault {
    match problem {
        AssignmentError::State { state, .. } => Fault::refused("ASSIGNMENT_STATE", text).with("state", state),
        AssignmentError::OfferClosed { deadline } => {
            Fault::refused("OFFER_CLOSED", text).with("offer_deadline", deadline.to_rfc3339())
        }
        AssignmentError::DeliveryClosed { deadline } => {
            Fault::refused("DELIVERY_CLOSED", text).with("delivery_deadline", deadline.to_rfc3339())
        }
        AssignmentError::SubmissionNotLatest { latest } => {
            Fault::refused("SUBMISSION_NOT_LATEST", text).with("latest_submission_id", latest)
        }
        AssignmentError::SubmissionLimit { max } => Fault::refused("SUBMISSION_LIMIT", text).with("max_submissions", max),
        AssignmentError::ConsentWithdrawn => Fault::refused("CONSENT_WITHDRAWN", text).with("consent_purpose", "PARTICIPATION"),
        AssignmentError::Suspended => Fault::refused("MEMBER_SUSPENDED", text),
        AssignmentError::NothingAccepted => Fault::refused("NOTHING_ACCEPTED", text),
    }
}
