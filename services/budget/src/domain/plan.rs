//! Plans (预算计划) and their envelopes.

use super::{balances::Balances, period::Period};
use crate::ids::{EnvelopeId, PlanId, ProgrammeId};
use chrono::{DateTime, Utc};
use koc_chassis::fault::{Violation, Violations};
use std::collections::HashSet;

/// Bounds of the strategic reserve's share in a plan, in percent.
const MIN_RESERVE_PERCENT: i128 = 5;
const MAX_RESERVE_PERCENT: i128 = 15;

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

/// Where a plan stands, with who brought it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanState {
    Draft,
    Submitted { submitted_by: String },
    Approved { submitted_by: String, approved_by: String },
    Active { submitted_by: String, approved_by: String },
    Closed { submitted_by: String, approved_by: String },
}

/// Why a plan does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standstill {
    /// It stands elsewhere than where this begins.
    State { is: Stage, must_be: Stage },
    /// Who submitted it may not approve it.
    ApproverIsRequester,
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
            Self::Submitted { submitted_by }
            | Self::Approved { submitted_by, .. }
            | Self::Active { submitted_by, .. }
            | Self::Closed { submitted_by, .. } => Some(submitted_by),
        }
    }

    pub fn approved_by(&self) -> Option<&str> {
        match self {
            Self::Draft | Self::Submitted { .. } => None,
            Self::Approved { approved_by, .. } | Self::Active { approved_by, .. } | Self::Closed { approved_by, .. } => {
                Some(approved_by)
            }
        }
    }

    pub fn submit(self, actor: &str) -> Result<Self, Standstill> {
        match self {
            Self::Draft => Ok(Self::Submitted { submitted_by: actor.to_owned() }),
            other => Err(other.not(Stage::Draft)),
        }
    }

    pub fn approve(self, actor: &str) -> Result<Self, Standstill> {
        match self {
            Self::Submitted { submitted_by } if submitted_by == actor => Err(Standstill::ApproverIsRequester),
            Self::Submitted { submitted_by } => Ok(Self::Approved { submitted_by, approved_by: actor.to_owned() }),
            other => Err(other.not(Stage::Submitted)),
        }
    }

    pub fn activate(self) -> Result<Self, Standstill> {
        match self {
            Self::Approved { submitted_by, approved_by } => Ok(Self::Active { submitted_by, approved_by }),
            other => Err(other.not(Stage::Approved)),
        }
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
    /// Rises with each change of state.
    pub version: i64,
    pub create_time: DateTime<Utc>,
}

/// A part of a plan's money (预算额度).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub id: EnvelopeId,
    pub plan: PlanId,
    pub class: ResourceClass,
    pub display_name: String,
    /// What activation allocates, in minor units.
    pub planned: i64,
    /// As the ledger has them: all zero before activation.
    pub balances: Balances,
    /// How far available may fall below zero, in minor units.
    pub overrun_limit: i64,
}

impl Envelope {
    /// Balances as they are shown: those of a plan that is not active yet are what is planned.
    pub fn shown(&self, stage: Stage) -> Balances {
        match stage {
            Stage::Draft | Stage::Submitted | Stage::Approved => Balances { allocated: self.planned, ..Balances::default() },
            Stage::Active | Stage::Closed => self.balances,
        }
    }
}

/// An envelope to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnvelope {
    pub class: ResourceClass,
    pub display_name: String,
    /// Minor units, zero or more.
    pub planned: i64,
    /// How far available may fall below zero, in minor units.
    pub overrun_limit: i64,
}

/// A plan to be created, its rules held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPlan {
    pub display_name: String,
    pub period: Period,
    pub envelopes: Vec<NewEnvelope>,
    pub automatic_draw_limit: Option<i64>,
}

/// Holds the rules that concern a plan's envelopes together: names are unique and there is one reserve at most
/// (ENVELOPE_DUPLICATE), amounts can be added up (AMOUNT_TOO_LARGE), the reserve's share lies within its bounds
/// (RESERVE_SHARE_OUT_OF_BOUNDS), and it has no overrun that would take it past them (RESERVE_OVERRUN).
pub fn check_envelopes(envelopes: &[NewEnvelope]) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    let mut names = HashSet::new();
    let mut reserve: Option<usize> = None;
    for (index, envelope) in envelopes.iter().enumerate() {
        if !names.insert(envelope.display_name.as_str()) {
            let field = format!("envelopes[{index}].display_name");
            violations.push(Violation::new(field, "ENVELOPE_DUPLICATE", "must be unique in the plan"));
        }
        if envelope.class == ResourceClass::StrategicReserve && reserve.replace(index).is_some() {
            let field = format!("envelopes[{index}].resource_class");
            violations.push(Violation::new(field, "ENVELOPE_DUPLICATE", "a plan has one strategic reserve at most"));
        }
    }
    let total: i128 = envelopes.iter().map(|e| i128::from(e.planned)).sum();
    let overrun: i128 = envelopes.iter().map(|e| i128::from(e.overrun_limit)).sum();
    if i64::try_from(total + overrun).is_err() {
        violations.push(Violation::new("envelopes", "AMOUNT_TOO_LARGE", "must sum to less than 2^63 minor units"));
    }
    if let Some(index) = reserve {
        let hundredfold = i128::from(envelopes[index].planned) * 100;
        if hundredfold < total * MIN_RESERVE_PERCENT || hundredfold > total * MAX_RESERVE_PERCENT {
            let field = format!("envelopes[{index}].allocated");
            let rule = format!("the reserve must be {MIN_RESERVE_PERCENT} % to {MAX_RESERVE_PERCENT} % of the plan");
            violations.push(Violation::new(field, "RESERVE_SHARE_OUT_OF_BOUNDS", rule));
        }
        if envelopes[index].overrun_limit != 0 {
            let field = format!("envelopes[{index}].overrun_limit");
            violations.push(Violation::new(field, "RESERVE_OVERRUN", "must be zero for the strategic reserve"));
        }
    }
    violations.finish()
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

    fn envelope(name: &str, class: ResourceClass, planned: i64) -> NewEnvelope {
        NewEnvelope { class, display_name: name.to_owned(), planned, overrun_limit: 0 }
    }

    fn rules(envelopes: &[NewEnvelope]) -> Vec<String> {
        check_envelopes(envelopes).err().unwrap_or_default().into_iter().map(|v| v.rule).collect()
    }

    #[test]
    fn a_plan_moves_forward_by_two_people() {
        let plan = PlanState::Draft.submit("lin").expect("draft");
        assert_eq!(plan.clone().approve("lin"), Err(Standstill::ApproverIsRequester));
        let plan = plan.approve("wei").expect("submitted").activate().expect("approved");
        assert_eq!((plan.stage(), plan.submitted_by(), plan.approved_by()), (Stage::Active, Some("lin"), Some("wei")));
        assert_eq!(plan.activate(), Err(Standstill::State { is: Stage::Active, must_be: Stage::Approved }));
    }

    #[test]
    fn a_plan_skips_no_state() {
        assert!(PlanState::Draft.approve("wei").is_err());
        assert!(PlanState::Draft.activate().is_err());
        assert!(PlanState::Submitted { submitted_by: "lin".into() }.activate().is_err());
        assert!(PlanState::Submitted { submitted_by: "lin".into() }.submit("wei").is_err());
    }

    #[test]
    fn the_reserves_share_lies_between_five_and_fifteen_percent() {
        let plan = |reserve: i64| {
            rules(&[
                envelope("a", ResourceClass::Incentive, 1_000 - reserve),
                envelope("r", ResourceClass::StrategicReserve, reserve),
            ])
        };
        assert!(plan(50).is_empty() && plan(150).is_empty());
        assert_eq!(plan(49), ["RESERVE_SHARE_OUT_OF_BOUNDS"]);
        assert_eq!(plan(151), ["RESERVE_SHARE_OUT_OF_BOUNDS"]);
        assert!(rules(&[envelope("a", ResourceClass::Incentive, 5)]).is_empty());
    }

    #[test]
    fn names_are_unique_and_all_that_is_wrong_is_said_at_once() {
        let found = rules(&[
            envelope("a", ResourceClass::StrategicReserve, i64::MAX),
            envelope("a", ResourceClass::StrategicReserve, i64::MAX),
        ]);
        assert_eq!(found, ["ENVELOPE_DUPLICATE", "ENVELOPE_DUPLICATE", "AMOUNT_TOO_LARGE", "RESERVE_SHARE_OUT_OF_BOUNDS"]);
    }

    #[test]
    fn an_overrun_counts_towards_the_range_and_is_not_for_the_reserve() {
        let with = |name: &str, class, planned, overrun_limit| NewEnvelope { overrun_limit, ..envelope(name, class, planned) };
        assert!(rules(&[with("a", ResourceClass::Incentive, 5, i64::MAX - 5)]).is_empty());
        assert_eq!(rules(&[with("a", ResourceClass::Incentive, 5, i64::MAX - 4)]), ["AMOUNT_TOO_LARGE"]);
        let reserve = [with("a", ResourceClass::Incentive, 90, 7), with("r", ResourceClass::StrategicReserve, 10, 1)];
        assert_eq!(rules(&reserve), ["RESERVE_OVERRUN"]);
    }

    #[test]
    fn an_amount_per_member_is_rounded_half_up() {
        assert_eq!(amount_per_member(5, 2), Some(3));
        assert_eq!(amount_per_member(7, 3), Some(2));
        assert_eq!(amount_per_member(i64::MAX, 1), Some(i64::MAX));
        assert_eq!(amount_per_member(5, 0), None);
    }
}
