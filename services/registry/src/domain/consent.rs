//! What a member consented to.

use super::name::named;
use serde::{Deserialize, Serialize};

named! {
    /// What a consent is for.
    Purpose {
        Participation = "PARTICIPATION",
        Profiling = "PROFILING",
        ContentUse = "CONTENT_USE",
        Contact = "CONTACT",
    }
}

/// A word on one purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub purpose: Purpose,
    pub granted: bool,
}

/// Whether `consents` withdraw `purpose`. Silence withdraws nothing.
pub fn withdrawn(consents: &[Consent], purpose: Purpose) -> bool {
    consents.iter().any(|c| c.purpose == purpose && !c.granted)
}
