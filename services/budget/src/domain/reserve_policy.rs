//! Policies on strategic reserves (储备动用政策): who may approve what, and how often may be asked.

use super::reserve_draw::{Draw, Evidence};
use crate::ids::{AmendmentId, PlanId};
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::fault::Violation;

/// Basis points in the whole.
const WHOLE_BP: i32 = 10_000;

/// What a policy says. Amounts are in minor units, of a draw together with its top-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The most that is approved without a person; None: nothing is.
    pub automatic_limit: Option<i64>,
    /// Figures that an automatic approval needs; empty: any one.
    pub required_evidence: Vec<String>,
    /// The most that one person may approve, two being needed beyond; None: one person may approve all.
    pub one_person_limit: Option<i64>,
    /// The share of the reserve that one draw may take.
    pub max_share_bp: i32,
    pub output_cool_down_hours: i32,
    pub member_cool_down_hours: i32,
    /// How long after its approval a draw's outcome is due.
    pub report_within_hours: i32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            automatic_limit: None,
            required_evidence: Vec::new(),
            one_person_limit: None,
            max_share_bp: WHOLE_BP,
            output_cool_down_hours: 24,
            member_cool_down_hours: 0,
            // The hold's 90 days, and a month to find out.
            report_within_hours: 120 * 24,
        }
    }
}

/// One version of a plan's policy. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservePolicy {
    pub plan: PlanId,
    /// From 1.
    pub version: i64,
    pub terms: Terms,
    /// Empty for the first, as is who proposed it.
    pub reason: String,
    pub set_by: String,
    pub amendment: Option<AmendmentId>,
    pub create_time: DateTime<Utc>,
}

/// How a draw comes to be approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Without a person, by a rule.
    Automatic(&'static str),
    /// By so many different people.
    People(u8),
}

impl ReservePolicy {
    /// The version that a plan comes with.
    pub fn first(plan: PlanId, automatic_draw_limit: Option<i64>, create_time: DateTime<Utc>) -> Self {
        let terms = Terms { automatic_limit: automatic_draw_limit, ..Terms::default() };
        Self { plan, version: 1, terms, reason: String::new(), set_by: String::new(), amendment: None, create_time }
    }
}

impl Terms {
    /// POLICY_CONTRADICTS when more is automatic than one person may approve.
    pub fn check(&self) -> Result<(), Violation> {
        match (self.automatic_limit, self.one_person_limit) {
            (Some(automatic), Some(one)) if automatic > one => {
                let rule = "must not exceed what one person may approve";
                Err(Violation::new("terms.automatic_limit", "POLICY_CONTRADICTS", rule))
            }
            _ => Ok(()),
        }
    }

    /// How a draw is approved that makes the sum with those it adds to `sum`.
    pub fn way(&self, draw: &Draw, sum: i64) -> Way {
        match self.automatic(draw, sum) {
            Some(rule) => Way::Automatic(rule),
            None => Way::People(self.people(sum)),
        }
    }

    /// How many people must approve so much.
    pub fn people(&self, sum: i64) -> u8 {
        if self.one_person_limit.is_some_and(|limit| sum > limit) { 2 } else { 1 }
    }

    fn automatic(&self, draw: &Draw, sum: i64) -> Option<&'static str> {
        let within = self.automatic_limit.is_some_and(|limit| sum <= limit);
        let has = |name: &String| draw.evidence.iter().any(|Evidence { name: given, .. }| given == name);
        let proven = !draw.evidence.is_empty() && self.required_evidence.iter().all(has);
        // Without a cool-down nothing would bound how often it is asked for; a top-up is bounded by the sum.
        let bounded = draw.first_draw.is_some()
            || (draw.output.is_some() && self.output_cool_down_hours > 0)
            || (draw.member.is_some() && self.member_cool_down_hours > 0);
        (within && proven && bounded)
            .then_some("automatic: the amount does not exceed the policy's automatic limit and the evidence is there")
    }

    /// The most that one draw may take of a reserve.
    pub fn most(&self, allocated: i64) -> i64 {
        let share = i128::from(allocated) * i128::from(self.max_share_bp) / i128::from(WHOLE_BP);
        i64::try_from(share).unwrap_or(i64::MAX)
    }

    pub fn output_cool_down(&self) -> TimeDelta {
        TimeDelta::hours(self.output_cool_down_hours.into())
    }

    pub fn member_cool_down(&self) -> TimeDelta {
        TimeDelta::hours(self.member_cool_down_hours.into())
    }

    /// Until when what was approved at `time` is to be reported.
    pub fn report_due(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        time + TimeDelta::hours(self.report_within_hours.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reserve_draw::tests::draw;

    #[test]
    fn policy_approves_up_to_its_limit_and_only_with_the_evidence_it_names() {
        let terms = Terms { automatic_limit: Some(100), one_person_limit: Some(500), ..Terms::default() };
        let automatic = |terms: &Terms, draw: &Draw, sum| matches!(terms.way(draw, sum), Way::Automatic(_));
        assert!(automatic(&terms, &draw(100, 1), 100));
        assert!(!automatic(&terms, &draw(101, 1), 101));
        assert!(!automatic(&terms, &draw(50, 1), 101), "the sum counts");
        assert!(!automatic(&terms, &draw(1, 0), 1));
        assert!(!automatic(&Terms::default(), &draw(1, 1), 1));
        let named = Terms { required_evidence: vec!["ratio".into(), "cpm".into()], ..terms.clone() };
        assert!(!automatic(&named, &draw(1, 1), 1));
        let evidence = ["cpm", "ratio"].map(|name| Evidence { name: name.into(), value: "1".into() }).to_vec();
        assert!(automatic(&named, &Draw { evidence, ..draw(1, 0) }, 1));
        // Something must bound how often it is asked for.
        let nothing = Draw { output: None, ..draw(1, 1) };
        assert!(!automatic(&terms, &nothing, 1));
        let member = Draw { member: Some(koc_chassis::ids::MemberId::new()), ..nothing };
        assert!(!automatic(&terms, &member, 1));
        assert!(automatic(&Terms { member_cool_down_hours: 1, ..terms }, &member, 1));
    }

    #[test]
    fn a_larger_amount_needs_a_second_person() {
        let terms = Terms { one_person_limit: Some(500), max_share_bp: 2_500, ..Terms::default() };
        assert_eq!((terms.way(&draw(500, 1), 500), terms.way(&draw(501, 1), 501)), (Way::People(1), Way::People(2)));
        assert_eq!(Terms::default().people(i64::MAX), 1);
        assert_eq!((terms.most(1_001), terms.most(i64::MAX)), (250, i64::MAX / 4));
        let wrong = Terms { automatic_limit: Some(501), ..terms }.check();
        assert_eq!(wrong.expect_err("contradicts").rule, "POLICY_CONTRADICTS");
    }
}
