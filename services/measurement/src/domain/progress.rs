//! How far a decision is: proposed, being applied, applied.

use super::decision::Action;

/// What happens to a decision after it was made. The decision itself never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Waits for a person.
    Proposed,
    Applying {
        approved_by: String,
    },
    Applied {
        approved_by: String,
    },
}

/// Who approves when the policy does.
pub const BY_POLICY: &str = "policy";

/// Why an approval was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalRefused {
    /// It does not wait for one.
    NotProposed,
    /// The one who approves ran it.
    ApproverIsRequester,
}

impl Progress {
    /// Where a new decision stands: a reduction always waits, and so does what the policy does not list.
    pub fn of_new(action: Action, needs_approval: bool, automatic: &[Action]) -> Self {
        if action == Action::Reduce || needs_approval || !automatic.contains(&action) {
            return Self::Proposed;
        }
        Self::Applying { approved_by: BY_POLICY.to_owned() }
    }

    /// # Errors
    /// [`ApprovalRefused`].
    pub fn approve(self, approver: &str, requester: &str) -> Result<Self, ApprovalRefused> {
        match self {
            Self::Proposed if approver == requester => Err(ApprovalRefused::ApproverIsRequester),
            Self::Proposed => Ok(Self::Applying { approved_by: approver.to_owned() }),
            Self::Applying { .. } | Self::Applied { .. } => Err(ApprovalRefused::NotProposed),
        }
    }

    /// As in the store and in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Proposed => "PROPOSED",
            Self::Applying { .. } => "APPLYING",
            Self::Applied { .. } => "APPLIED",
        }
    }

    /// Empty before the approval.
    pub fn approved_by(&self) -> &str {
        match self {
            Self::Proposed => "",
            Self::Applying { approved_by } | Self::Applied { approved_by } => approved_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reduction_waits_whatever_the_policy_lists() {
        let all = [Action::Increase, Action::Maintain, Action::Review, Action::Reduce];
        assert_eq!(Progress::of_new(Action::Reduce, false, &all), Progress::Proposed);
        assert_eq!(Progress::of_new(Action::Increase, false, &all).approved_by(), BY_POLICY);
        assert_eq!(Progress::of_new(Action::Increase, false, &[]), Progress::Proposed);
        assert_eq!(Progress::of_new(Action::Review, true, &all), Progress::Proposed);
    }

    #[test]
    fn only_another_person_approves_and_only_once() {
        assert_eq!(Progress::Proposed.approve("ann", "ann"), Err(ApprovalRefused::ApproverIsRequester));
        let approved = Progress::Proposed.approve("bob", "ann").expect("another person");
        assert_eq!((approved.name(), approved.approved_by()), ("APPLYING", "bob"));
        assert_eq!(approved.approve("eve", "ann"), Err(ApprovalRefused::NotProposed));
    }
}
