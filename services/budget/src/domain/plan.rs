//! Plans (预算计划): a period's money, and the people who decide on it.

use super::{
    approval::{self, Approval, NotApproved, Policy},
    envelope::Tree,
    period::Period,
};
use crate::ids::{PlanId, ProgrammeId};
use chrono::{DateTime, Utc};

text_enum! {
    /// Classes of resources (资源类别) that an envelope pays for.
    ResourceClass {
        Inclusive = "INCLUSIVE",
        Incentive = "INCENTIVE",
        Exclusive = "EXCLUSIVE",
        StrategicReserve = "STRATEGIC_RESERVE",
    }
}

text_enum! {
    /// The name of a state.
    Stage {
        Draft = "DRAFT",
        Submitted = "SUBMITTED",
        Approved = "APPROVED",
        Active = "ACTIVE",
        Closed = "CLOSED",
    }
}

impl Stage {
    /// Whether its money stands in the ledger.
    pub fn is_funded(self) -> bool {
        matches!(self, Self::Active | Self::Closed)
    }
}

/// Where a plan stands, with who brought it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanState {
    Draft,
    /// With fewer approvals than the policy asks for.
    Submitted {
        submitted_by: String,
        approvals: Vec<Approval>,
    },
    Approved {
        submitted_by: String,
        approvals: Vec<Approval>,
    },
    Active {
        submitted_by: String,
        approvals: Vec<Approval>,
    },
    Closed {
        submitted_by: String,
        approvals: Vec<Approval>,
    },
}

/// Why a plan does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standstill {
    /// It stands elsewhere than where this begins.
    State { is: Stage, must_be: Stage },
    /// Who approves may not.
    NotApproved(NotApproved),
    /// An approval has become too old, then.
    ApprovalExpired { since: DateTime<Utc> },
}

impl PlanState {
    pub fn stage(&self) -> Stage {
        match self {
            Self::Draft => Stage::Draft,
            Self::Submitted { .. } => Stage::Submitted,
            Self::Approved { .. } => Stage::Approved,
            Self::Active { .. } => Stage::Active,
            Self::Closed { .. } => Stage::Closed,
        }
    }

    pub fn submitted_by(&self) -> Option<&str> {
        match self {
            Self::Draft => None,
            Self::Submitted { submitted_by, .. }
            | Self::Approved { submitted_by, .. }
            | Self::Active { submitted_by, .. }
            | Self::Closed { submitted_by, .. } => Some(submitted_by),
        }
    }

    pub fn approvals(&self) -> &[Approval] {
        match self {
            Self::Draft => &[],
            Self::Submitted { approvals, .. }
            | Self::Approved { approvals, .. }
            | Self::Active { approvals, .. }
            | Self::Closed { approvals, .. } => approvals,
        }
    }

    /// Whoever gave the approval that was wanted last.
    pub fn approved_by(&self) -> Option<&str> {
        match self {
            Self::Draft | Self::Submitted { .. } => None,
            _ => self.approvals().last().map(|approval| approval.by.as_str()),
        }
    }

    pub fn submit(self, actor: &str) -> Result<Self, Standstill> {
        match self {
            Self::Draft => Ok(Self::Submitted { submitted_by: actor.to_owned(), approvals: Vec::new() }),
            other => Err(other.not(Stage::Draft)),
        }
    }

    /// SUBMITTED still, or APPROVED when that is enough.
    pub fn approve(self, actor: &str, policy: &Policy, now: DateTime<Utc>) -> Result<Self, Standstill> {
        match self {
            Self::Submitted { submitted_by, approvals } => {
                let approvals = approval::approve(&submitted_by, approvals, actor, now).map_err(Standstill::NotApproved)?;
                Ok(match policy.is_met(&approvals) {
                    true => Self::Approved { submitted_by, approvals },
                    false => Self::Submitted { submitted_by, approvals },
                })
            }
            other => Err(other.not(Stage::Submitted)),
        }
    }

    /// Back to DRAFT: what was approved is void.
    pub fn reopen(self) -> Result<Self, Standstill> {
        match self {
            Self::Submitted { .. } | Self::Approved { .. } => Ok(Self::Draft),
            other => Err(other.not(Stage::Submitted)),
        }
    }

    pub fn activate(self, policy: &Policy, now: DateTime<Utc>) -> Result<Self, Standstill> {
        match self {
            Self::Approved { submitted_by, approvals } => match policy.expired(&approvals, now) {
                Some(since) => Err(Standstill::ApprovalExpired { since }),
                None => Ok(Self::Active { submitted_by, approvals }),
            },
            other => Err(other.not(Stage::Approved)),
        }
    }

    /// A closed plan may be closed again, for what has come back to it since.
    pub fn close(self) -> Result<Self, Standstill> {
        match self {
            Self::Active { submitted_by, approvals } | Self::Closed { submitted_by, approvals } => {
                Ok(Self::Closed { submitted_by, approvals })
            }
            other => Err(other.not(Stage::Active)),
        }
    }

    /// Checks that it stands there.
    pub fn must_be(&self, stage: Stage) -> Result<(), Standstill> {
        if self.stage() == stage { Ok(()) } else { Err(self.not(stage)) }
    }

    fn not(&self, must_be: Stage) -> Standstill {
        Standstill::State { is: self.stage(), must_be }
    }
}

/// A period's money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub id: PlanId,
    pub programme: ProgrammeId,
    pub display_name: String,
    pub period: Period,
    pub state: PlanState,
    /// A draw on the reserve of at most so much, with evidence, is approved without a person; None: no draw is. Minor units.
    pub automatic_draw_limit: Option<i64>,
    pub policy: Policy,
    /// Rises with each change of what it says, of its state, and with each approval.
    pub version: i64,
    pub create_time: DateTime<Utc>,
}

/// What a draft says, its rules held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub display_name: String,
    pub period: Period,
    pub tree: Tree,
    pub automatic_draw_limit: Option<i64>,
    pub policy: Policy,
}

/// What is in use for each of `members`, in minor units, rounded half up; None without any.
pub fn amount_per_member(in_use: i64, members: i64) -> Option<i64> {
    let (in_use, members) = (i128::from(in_use), i128::from(members));
    if members <= 0 {
        return None;
    }
    i64::try_from((2 * in_use + members) / (2 * members)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    fn submitted() -> PlanState {
        PlanState::Draft.submit("lin").expect("draft")
    }

    #[test]
    fn a_plan_moves_forward_by_two_people() {
        let policy = Policy::default();
        let own = submitted().approve("lin", &policy, at(0));
        assert_eq!(own, Err(Standstill::NotApproved(NotApproved::ApproverIsRequester)));
        let plan = submitted().approve("wei", &policy, at(0)).expect("submitted").activate(&policy, at(1)).expect("approved");
        assert_eq!((plan.stage(), plan.submitted_by(), plan.approved_by()), (Stage::Active, Some("lin"), Some("wei")));
        let again = plan.clone().activate(&policy, at(2));
        assert_eq!(again, Err(Standstill::State { is: Stage::Active, must_be: Stage::Approved }));
        let closed = plan.close().expect("active");
        assert_eq!((closed.stage(), closed.clone().close()), (Stage::Closed, Ok(closed)));
    }

    #[test]
    fn a_policy_may_ask_for_two_different_approvers() {
        let policy = Policy { required_approvals: 2, ..Policy::default() };
        let one = submitted().approve("wei", &policy, at(0)).expect("another person");
        assert_eq!((one.stage(), one.approved_by()), (Stage::Submitted, None));
        let twice = one.clone().approve("wei", &policy, at(1));
        assert_eq!(twice, Err(Standstill::NotApproved(NotApproved::ApproverRepeated)));
        let two = one.approve("mei", &policy, at(1)).expect("a third person");
        assert_eq!((two.stage(), two.approved_by()), (Stage::Approved, Some("mei")));
    }

    #[test]
    fn an_approval_that_is_too_old_activates_nothing() {
        let policy = Policy { validity: TimeDelta::seconds(100), ..Policy::default() };
        let approved = submitted().approve("wei", &policy, at(0)).expect("approved");
        assert_eq!(approved.clone().activate(&policy, at(100)), Err(Standstill::ApprovalExpired { since: at(100) }));
        assert!(approved.activate(&policy, at(99)).is_ok());
    }

    #[test]
    fn what_goes_back_to_draft_loses_its_approvals() {
        let policy = Policy::default();
        let approved = submitted().approve("wei", &policy, at(0)).expect("approved");
        let again = approved.clone().reopen().expect("approved").submit("lin").expect("draft");
        assert_eq!(again.approvals(), []);
        assert!(approved.activate(&policy, at(1)).expect("approved").reopen().is_err());
        assert!(PlanState::Draft.reopen().is_err());
    }

    #[test]
    fn a_plan_skips_no_state() {
        let policy = Policy::default();
        assert!(PlanState::Draft.approve("wei", &policy, at(0)).is_err());
        assert!(PlanState::Draft.activate(&policy, at(0)).is_err());
        assert!(PlanState::Draft.close().is_err());
        assert!(submitted().activate(&policy, at(0)).is_err());
        assert!(submitted().submit("wei").is_err());
    }

    #[test]
    fn an_amount_per_member_is_rounded_half_up() {
        assert_eq!(amount_per_member(5, 2), Some(3));
        assert_eq!(amount_per_member(7, 3), Some(2));
        assert_eq!(amount_per_member(i64::MAX, 1), Some(i64::MAX));
        assert_eq!(amount_per_member(5, 0), None);
    }
}
