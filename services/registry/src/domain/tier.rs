//! Tiers (层级), and who rises.

use super::{
    consent::{Consent, Purpose, withdrawn},
    name::named,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::MemberId;
use uuid::Uuid;

named! {
    /// Classes of resources that the members of a tier get (资源类别).
    ResourceClass {
        Inclusive = "INCLUSIVE",
        Incentive = "INCENTIVE",
        Exclusive = "EXCLUSIVE",
    }
}

/// A tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    pub id: String,
    /// 1 is the lowest.
    pub rank: i32,
    pub resource_class: ResourceClass,
}

/// The tiers that a new programme begins with, lowest first: 底座, 中坚, 塔尖.
pub fn default_tiers() -> Vec<Tier> {
    [("BASE", ResourceClass::Inclusive), ("CORE", ResourceClass::Incentive), ("APEX", ResourceClass::Exclusive)]
        .into_iter()
        .zip(1..)
        .map(|((id, resource_class), rank)| Tier { id: id.to_owned(), rank, resource_class })
        .collect()
}

/// The rules by which members rise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The least probability that the member's level is above the next tier's cut.
    pub min_promote_probability: f64,
    /// The least whole days in the present tier.
    pub min_stay_days: i32,
    /// The least outputs that the proposal rests on.
    pub min_outputs: i32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { min_promote_probability: 0.80, min_stay_days: 0, min_outputs: 5 }
    }
}

/// One version of the rules; never edited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// From 1.
    pub version: i32,
    pub rules: Rules,
}

/// What measurement found about a member's level.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    pub promote_probability: f64,
    pub output_count: i32,
    /// End of the period measured.
    pub as_of: DateTime<Utc>,
    /// Measurement's decision.
    pub decision: Uuid,
    pub reason: String,
}

impl Proposal {
    /// Whether it takes the place of the one that stands: not older, and newer than evidence that has promoted already.
    pub fn replaces(&self, standing: Option<(DateTime<Utc>, Consumed)>) -> bool {
        match standing {
            None => true,
            Some((as_of, Consumed(false))) => self.as_of >= as_of,
            Some((as_of, Consumed(true))) => self.as_of > as_of,
        }
    }
}

/// Whether a proposal has promoted its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumed(pub bool);

/// A member with an open proposal, at the time it is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub member: MemberId,
    pub tier_id: String,
    pub tier_since: DateTime<Utc>,
    pub consents: Vec<Consent>,
    pub proposal: Proposal,
}

/// What is to become of a candidate, with figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Rises { to_tier_id: String, reason: String },
    Stays { reason: String },
}

/// Judges a candidate by `rules`. `tiers` are the programme's, lowest first; a member rises one tier at a time.
pub fn judge(candidate: &Candidate, tiers: &[Tier], rules: &Rules, now: DateTime<Utc>) -> Verdict {
    let rank = tiers.iter().find(|tier| tier.id == candidate.tier_id).map_or(0, |tier| tier.rank);
    let Some(next) = tiers.iter().find(|tier| tier.rank > rank) else {
        return Verdict::Stays { reason: format!("{} is the highest tier", candidate.tier_id) };
    };
    if withdrawn(&candidate.consents, Purpose::Profiling) {
        return Verdict::Stays { reason: "the consent to profiling is withdrawn".to_owned() };
    }
    let Proposal { promote_probability, output_count, decision, .. } = candidate.proposal;
    let stay_days = (now - candidate.tier_since).num_days();
    let mut held = Vec::new();
    if promote_probability < rules.min_promote_probability {
        held.push(format!("probability {} is below {}", figure(promote_probability), figure(rules.min_promote_probability)));
    }
    if output_count < rules.min_outputs {
        held.push(format!("{output_count} outputs are fewer than {}", rules.min_outputs));
    }
    if stay_days < i64::from(rules.min_stay_days) {
        held.push(format!("{stay_days} days in {} are fewer than {}", candidate.tier_id, rules.min_stay_days));
    }
    if !held.is_empty() {
        return Verdict::Stays { reason: held.join("; ") };
    }
    let reason = format!(
        "probability {} reaches {}; {output_count} outputs of {} needed; {stay_days} days in {} of {} needed; decision {decision}",
        figure(promote_probability),
        figure(rules.min_promote_probability),
        rules.min_outputs,
        candidate.tier_id,
        rules.min_stay_days,
    );
    Verdict::Rises { to_tier_id: next.id.clone(), reason }
}

/// A probability to three places, cut and not rounded: what is below a bound must not read as the bound.
fn figure(probability: f64) -> String {
    format!("{:.3}", (probability * 1_000.0 + 1e-9).floor() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Duration;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + Duration::days(20_000 + days)
    }

    fn candidate(tier_id: &str, promote_probability: f64, output_count: i32) -> Candidate {
        let proposal = Proposal { promote_probability, output_count, as_of: at(0), decision: Uuid::nil(), reason: String::new() };
        Candidate { member: MemberId(Uuid::nil()), tier_id: tier_id.into(), tier_since: at(0), consents: Vec::new(), proposal }
    }

    fn stays(verdict: Verdict) -> String {
        match verdict {
            Verdict::Stays { reason } => reason,
            Verdict::Rises { to_tier_id, .. } => panic!("rose to {to_tier_id}"),
        }
    }

    #[test]
    fn a_member_who_meets_each_rule_exactly_rises_one_tier() {
        let verdict = judge(&candidate("BASE", 0.80, 5), &default_tiers(), &Rules::default(), at(0));
        let Verdict::Rises { to_tier_id, reason } = verdict else { panic!("stayed") };
        assert_eq!(to_tier_id, "CORE");
        assert!(
            reason.starts_with("probability 0.800 reaches 0.800; 5 outputs of 5 needed; 0 days in BASE of 0 needed"),
            "{reason}"
        );
    }

    #[test]
    fn each_rule_that_holds_a_member_is_named_with_its_figures() {
        let rules = Rules { min_stay_days: 30, ..Rules::default() };
        let reason = stays(judge(&candidate("BASE", 0.7999, 4), &default_tiers(), &rules, at(29)));
        assert_eq!(reason, "probability 0.799 is below 0.800; 4 outputs are fewer than 5; 29 days in BASE are fewer than 30");
    }

    #[test]
    fn nobody_rises_above_the_highest_tier() {
        let reason = stays(judge(&candidate("APEX", 1.0, 100), &default_tiers(), &Rules::default(), at(0)));
        assert_eq!(reason, "APEX is the highest tier");
    }

    #[test]
    fn who_withdrew_consent_to_profiling_is_not_judged() {
        let mut member = candidate("BASE", 1.0, 100);
        member.consents = vec![Consent { purpose: Purpose::Profiling, granted: false }];
        let reason = stays(judge(&member, &default_tiers(), &Rules::default(), at(0)));
        assert_eq!(reason, "the consent to profiling is withdrawn");
    }

    #[test]
    fn a_proposal_replaces_an_older_one_and_never_reuses_evidence_that_promoted() {
        let proposal = candidate("BASE", 0.9, 9).proposal;
        assert!(proposal.replaces(None));
        assert!(proposal.replaces(Some((at(0), Consumed(false)))));
        assert!(!proposal.replaces(Some((at(1), Consumed(false)))));
        assert!(!proposal.replaces(Some((at(0), Consumed(true)))));
        assert!(proposal.replaces(Some((at(-1), Consumed(true)))));
    }
}
