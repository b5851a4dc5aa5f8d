//! How callers see the registry's errors.

use crate::error::Error;
use koc_chassis::{
    fault::{Fault, ServiceError},
    page,
};

impl ServiceError for Error {
    fn fault(&self) -> Fault {
        let text = self.to_string();
        match self {
            Self::ProgrammeExists { programme } => {
                Fault::exists("PROGRAMME_EXISTS", text).with("resource_type", "programme").with("resource_id", programme)
            }
            Self::ProgrammeNotFound { programme } => {
                Fault::not_found("PROGRAMME_NOT_FOUND", text).with("resource_type", "programme").with("resource_id", programme)
            }
            Self::MemberNotFound { member: Some(member) } => {
                Fault::not_found("MEMBER_NOT_FOUND", text).with("resource_type", "member").with("resource_id", member)
            }
            Self::MemberNotFound { member: None } => Fault::not_found("MEMBER_NOT_FOUND", text),
            Self::ExternalIdentityTaken { index, source_system, holder } => Fault::exists("EXTERNAL_IDENTITY_TAKEN", text)
                .with("resource_type", "member")
                .with("resource_id", holder)
                .with("source_system", source_system)
                .with("field", format!("external_identities[{index}]")),
            Self::EtagMismatch { member, version } => {
                Fault::conflict("ETAG_MISMATCH", text).with("member_id", member).with("etag", page::etag(*version))
            }
            Self::ConsentWithdrawn { member, purpose } => {
                Fault::refused("CONSENT_WITHDRAWN", text).with("subject", member).with("purpose", purpose.name())
            }
            Self::Invalid(violations) => Fault::invalid(violations.clone()),
            Self::Draining => Fault::unavailable("DRAINING", text),
            Self::Unserved(unserved) => unserved.fault(),
            Self::Shared(shared) => shared.0.fault(),
            Self::Database(error) => Fault::of_database(error),
        }
    }

    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            Self::Shared(shared) => shared.0.database(),
            _ => None,
        }
    }
}
