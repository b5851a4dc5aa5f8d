//! What can go wrong in the registry. `api/error.rs` says how a caller sees it.

use crate::domain::consent::Purpose;
use koc_chassis::{
    fault::Violation,
    ids::{MemberId, ProgrammeId},
    lane::{Shared, Unserved},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the programme {programme} exists already")]
    ProgrammeExists { programme: ProgrammeId },
    #[error("there is no programme {programme}")]
    ProgrammeNotFound { programme: ProgrammeId },
    /// `member` is None when it was looked for by an external identity.
    #[error("there is no such member")]
    MemberNotFound { member: Option<MemberId> },
    /// Position of the identity in the request, and whose it is.
    #[error("external identity {index} of the request belongs to the member {holder}")]
    ExternalIdentityTaken { index: usize, source_system: String, holder: MemberId },
    #[error("the member {member} was changed meanwhile: it is at version {version}")]
    EtagMismatch { member: MemberId, version: i64 },
    #[error("the member {member} withdrew consent to {}", purpose.name())]
    ConsentWithdrawn { member: MemberId, purpose: Purpose },
    #[error("{} fields break a rule", .0.len())]
    Invalid(Vec<Violation>),
    #[error("the service is going away")]
    Draining,
    #[error(transparent)]
    Unserved(#[from] Unserved),
    /// Of the group that the call was part of.
    #[error(transparent)]
    Shared(#[from] Shared<Error>),
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
