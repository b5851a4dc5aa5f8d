//! What can go wrong, as facts.

use crate::domain::{
    AssignmentId, BriefId, TaskId,
    assignment::AssignmentError,
    task::{Target, TaskError},
};
use koc_chassis::{
    fault::Violation,
    ids::{MemberId, ProgrammeId},
};

/// What can go wrong in the task service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} fields break a rule", .0.len())]
    Fields(Vec<Violation>),
    #[error("there is no programme {0}")]
    ProgrammeNotFound(ProgrammeId),
    #[error("there is no member {0}")]
    MemberNotFound(MemberId),
    #[error("there is no brief {0}")]
    BriefNotFound(BriefId),
    #[error("the brief {brief} {problem}")]
    BriefState { brief: BriefId, problem: BriefProblem },
    #[error("there is no task {0}")]
    TaskNotFound(TaskId),
    #[error("task {task}: {problem}")]
    Task { task: TaskId, target: Target, problem: TaskError },
    #[error("there is no assignment {0}")]
    AssignmentNotFound(AssignmentId),
    #[error("the member has the assignment {0} in this task already")]
    AssignmentExists(AssignmentId),
    #[error("assignment {assignment}: {problem}")]
    Assignment { assignment: AssignmentId, problem: AssignmentError },
    /// A peer did not answer as it should.
    #[error("{peer} answered {:?}: {}", .status.code(), .status.message())]
    Peer { peer: &'static str, status: Box<tonic::Status> },
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// What of a brief does not fit what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BriefProblem {
    #[error("has a draft revision already")]
    DraftExists,
    #[error("has no draft revision")]
    NoDraft,
    #[error("has no published revision {0}")]
    NotPublished(i32),
}

impl From<Vec<Violation>> for Error {
    fn from(violations: Vec<Violation>) -> Self {
        Self::Fields(violations)
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Fields(vec![violation])
    }
}
