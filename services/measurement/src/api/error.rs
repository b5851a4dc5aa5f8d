//! What a caller is told of each error.

use crate::error::Error;
use koc_chassis::fault::{Fault, ServiceError};

impl ServiceError for Error {
    fn fault(&self) -> Fault {
        let message = self.to_string();
        let missing = |reason: &str, kind: &str, id: &dyn std::fmt::Display| {
            Fault::not_found(reason, message.clone()).with("resource_type", kind).with("resource_id", id)
        };
        match self {
            Self::ProgrammeNotFound(id) => missing("PROGRAMME_NOT_FOUND", "programme", id),
            Self::ValueModelNotFound(id) => missing("VALUE_MODEL_NOT_FOUND", "value_model", id),
            Self::OutputNotFound(id) => missing("OUTPUT_NOT_FOUND", "output", id),
            Self::SignalNotFound(id) => missing("SIGNAL_NOT_FOUND", "signal", id),
            Self::DecisionNotFound(id) => missing("DECISION_NOT_FOUND", "decision", id),
            Self::DecisionState { decision, state } => {
                Fault::refused("DECISION_STATE", message).with("subject", decision).with("state", state)
            }
            Self::MemberSuspended(member) => Fault::refused("MEMBER_SUSPENDED", message).with("subject", member),
            Self::ConsentWithdrawn { member, purpose } => {
                Fault::refused("CONSENT_WITHDRAWN", message).with("subject", member).with("consent_purpose", purpose.name())
            }
            Self::ApproverIsRequester(decision) => Fault::refused("APPROVER_IS_REQUESTER", message).with("subject", decision),
            Self::ObservationConflict { recorded } => {
                Fault::exists("OBSERVATION_CONFLICT", message).with("recorded_value", recorded)
            }
            Self::Invalid(violations) => Fault::invalid(violations.clone()),
            Self::Registry(_) => Fault::unavailable("REGISTRY_UNAVAILABLE", message),
            Self::Computation(_) | Self::Interrupted => Fault::internal(),
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
