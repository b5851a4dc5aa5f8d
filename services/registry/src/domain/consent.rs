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

/// The purposes that a change withdrew, or gave again: true for given.
pub fn changes(before: &[Consent], after: &[Consent]) -> Vec<(Purpose, bool)> {
    let stands = |consents: &[Consent], purpose: Purpose| !withdrawn(consents, purpose);
    let changed = Purpose::ALL.iter().copied().filter(|purpose| stands(before, *purpose) != stands(after, *purpose));
    changed.map(|purpose| (purpose, stands(after, purpose))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(purpose: Purpose, granted: bool) -> Consent {
        Consent { purpose, granted }
    }

    #[test]
    fn only_what_stops_or_goes_on_is_a_change() {
        let silent = [];
        let given = [word(Purpose::Profiling, true), word(Purpose::Contact, true)];
        let withdrawn = [word(Purpose::Profiling, false), word(Purpose::Contact, true)];
        assert_eq!(changes(&silent, &given), [], "joining was the consent");
        assert_eq!(changes(&given, &withdrawn), [(Purpose::Profiling, false)]);
        assert_eq!(changes(&withdrawn, &silent), [(Purpose::Profiling, true)]);
        assert_eq!(changes(&withdrawn, &withdrawn), []);
    }
}
