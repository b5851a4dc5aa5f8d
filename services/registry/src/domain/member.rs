//! Members (超级用户): the people of a programme.

use super::{name::named, profile::Profile, text::storable, value::Score};
use chrono::{DateTime, Utc};
use koc_chassis::{
    fault::{Violation, Violations},
    ids::{MemberId, ProgrammeId},
};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

named! {
    /// How far the brand trusts a member (信任阶梯).
    TrustLevel {
        New = "NEW",
        Proven = "PROVEN",
        Trusted = "TRUSTED",
        Partner = "PARTNER",
    }
}

named! {
    /// Whether a member takes part.
    State {
        Active = "ACTIVE",
        /// Gets no offers, grants or messages, redeems nothing, rises no tier and is on no leaderboard; what is owed is paid.
        Suspended = "SUSPENDED",
        /// Its data was destroyed: nothing is known of it any more.
        Erased = "ERASED",
    }
}

named! {
    /// Why a member is suspended.
    SuspensionCause {
        /// A caller said so.
        Caller = "CALLER",
        /// No source system has it any more.
        SourceDeleted = "SOURCE_DELETED",
    }
}

/// How a source system knows a member. In order of system and id: the order in which identities are claimed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExternalIdentity {
    pub source_system: String,
    pub external_id: String,
}

/// Checks the identities of one new member: storable, and each of them once.
pub fn check_identities(identities: &[ExternalIdentity]) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    let mut seen = HashSet::new();
    for (i, identity) in identities.iter().enumerate() {
        violations.take(storable(&format!("external_identities[{i}].external_id"), &identity.external_id));
        if !seen.insert(identity) {
            let rule = "must not repeat an identity that stands earlier";
            violations.push(Violation::new(format!("external_identities[{i}]"), "EXTERNAL_IDENTITY_REPEATED", rule));
        }
    }
    violations.finish()
}

/// A person in a programme, as callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub id: MemberId,
    pub programme: ProgrammeId,
    pub profile: Profile,
    pub external_identities: Vec<ExternalIdentity>,
    /// Those whose source system no longer has the person.
    pub deleted_identities: Vec<ExternalIdentity>,
    pub state: State,
    /// Of a suspended member.
    pub suspension_cause: Option<SuspensionCause>,
    pub trust_level: TrustLevel,
    pub tier_id: String,
    pub tier_since: DateTime<Utc>,
    pub scores: Vec<Score>,
    /// From 1; rises with each change.
    pub version: i64,
    pub create_time: DateTime<Utc>,
    pub update_time: DateTime<Utc>,
}
