//! What can go wrong, as facts.

use crate::domain::{
    InputError,
    ids::{DecisionId, OutputId, SignalId},
};
use koc_chassis::{
    fault::Violation,
    ids::{MemberId, ProgrammeId},
    members::Purpose,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no programme {0}")]
    ProgrammeNotFound(ProgrammeId),
    #[error("programme {0} has no value model yet")]
    ValueModelNotFound(ProgrammeId),
    #[error("there is no output {0}")]
    OutputNotFound(OutputId),
    #[error("there is no signal {0}")]
    SignalNotFound(SignalId),
    #[error("there is no decision {0}")]
    DecisionNotFound(DecisionId),
    #[error("decision {decision} is {state}: only a proposed one can be approved")]
    DecisionState { decision: DecisionId, state: &'static str },
    #[error("member {0} is suspended")]
    MemberSuspended(MemberId),
    #[error("the member withdrew its consent to {}", .purpose.name())]
    ConsentWithdrawn { member: MemberId, purpose: Purpose },
    #[error("decision {0} was run by the same person")]
    ApproverIsRequester(DecisionId),
    #[error("the counter was read at the same time with the value {recorded}")]
    ObservationConflict { recorded: i64 },
    #[error("fields break a rule")]
    Invalid(Vec<Violation>),
    #[error("the registry did not answer")]
    Registry(#[source] tonic::Status),
    /// A figure that the domain refuses although nothing a caller sends should lead to it.
    #[error("the figures cannot be computed with")]
    Computation(#[from] InputError),
    #[error("a computation was broken off")]
    Interrupted,
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl From<Vec<Violation>> for Error {
    fn from(violations: Vec<Violation>) -> Self {
        Self::Invalid(violations)
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Invalid(vec![violation])
    }
}
