//! Approval by other people than the one who asks. Plans and their amendments have the same discipline.

use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::fault::{Violation, Violations};

/// Bounds of how long an approval is good for.
const MIN_VALIDITY: TimeDelta = TimeDelta::minutes(1);
const MAX_VALIDITY: TimeDelta = TimeDelta::days(400);

/// One person's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub by: String,
    pub time: DateTime<Utc>,
}

/// Why somebody may not approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotApproved {
    /// Who asked may not decide.
    ApproverIsRequester,
    /// The same person twice is one person.
    ApproverRepeated,
}

/// How a plan and its amendments are decided upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How many different people approve, besides the one who asks: 1 or 2.
    pub required_approvals: usize,
    /// How long an approval is good for, and how long an amendment waits.
    pub validity: TimeDelta,
    /// Bounds of the strategic reserve's share, in percent.
    pub min_reserve_percent: i32,
    pub max_reserve_percent: i32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { required_approvals: 1, validity: TimeDelta::days(30), min_reserve_percent: 5, max_reserve_percent: 15 }
    }
}

impl Policy {
    /// What is wrong with it: APPROVAL_VALIDITY_OUT_OF_RANGE, RESERVE_BOUNDS_CROSSED.
    pub fn check(&self) -> Result<(), Vec<Violation>> {
        let mut violations = Violations::default();
        if !(MIN_VALIDITY..=MAX_VALIDITY).contains(&self.validity) {
            let rule = "must be from 1 minute to 400 days";
            violations.push(Violation::new("policy.approval_validity", "APPROVAL_VALIDITY_OUT_OF_RANGE", rule));
        }
        if self.min_reserve_percent > self.max_reserve_percent {
            let rule = "must not exceed max_reserve_percent";
            violations.push(Violation::new("policy.min_reserve_percent", "RESERVE_BOUNDS_CROSSED", rule));
        }
        violations.finish()
    }

    /// Whether these are as many as it asks for.
    pub fn is_met(&self, approvals: &[Approval]) -> bool {
        approvals.len() >= self.required_approvals
    }

    /// When the first of the approvals that is too old at `now` ran out.
    pub fn expired(&self, approvals: &[Approval], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        approvals.iter().map(|approval| approval.time + self.validity).filter(|end| *end <= now).min()
    }
}

/// The approvals that there are once `actor` has approved too.
pub fn approve(requester: &str, mut given: Vec<Approval>, actor: &str, now: DateTime<Utc>) -> Result<Vec<Approval>, NotApproved> {
    if actor == requester {
        return Err(NotApproved::ApproverIsRequester);
    }
    if given.iter().any(|approval| approval.by == actor) {
        return Err(NotApproved::ApproverRepeated);
    }
    given.push(Approval { by: actor.to_owned(), time: now });
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    #[test]
    fn two_approvals_are_of_two_people_and_neither_is_who_asked() {
        let policy = Policy { required_approvals: 2, ..Policy::default() };
        assert_eq!(approve("lin", Vec::new(), "lin", at(0)), Err(NotApproved::ApproverIsRequester));
        let one = approve("lin", Vec::new(), "wei", at(0)).expect("another person");
        assert!(!policy.is_met(&one));
        assert_eq!(approve("lin", one.clone(), "wei", at(1)), Err(NotApproved::ApproverRepeated));
        assert!(policy.is_met(&approve("lin", one, "mei", at(1)).expect("a third person")));
    }

    #[test]
    fn approvals_expire_with_the_oldest() {
        let policy = Policy { validity: TimeDelta::seconds(100), ..Policy::default() };
        let given = [3, 7].map(|second| Approval { by: second.to_string(), time: at(second) });
        assert_eq!(policy.expired(&given, at(102)), None);
        assert_eq!(policy.expired(&given, at(103)), Some(at(103)));
        assert_eq!(policy.expired(&given, at(500)), Some(at(103)));
    }

    #[test]
    fn a_policy_that_cannot_be_met_is_refused() {
        let policy = Policy { validity: TimeDelta::seconds(59), min_reserve_percent: 16, ..Policy::default() };
        let rules: Vec<String> = policy.check().expect_err("both").into_iter().map(|v| v.rule).collect();
        assert_eq!(rules, ["APPROVAL_VALIDITY_OUT_OF_RANGE", "RESERVE_BOUNDS_CROSSED"]);
        assert_eq!(Policy::default().check(), Ok(()));
    }
}
