//! The rules by which members rise and fall, and their versions.
//!
//! Levels and cuts are in standard deviations of the members' true levels. A member rises above the upper cut and falls below the lower one;
//! between them it keeps its tier, so that noise around one cut moves nobody to and fro. Falling is slower than rising: to lose a status
//! hurts loyalty more than to win it helps (Wagner, Hennig-Thurau, Rudolph 2009), so it takes a warned review and two more periods.

use super::Tier;
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::fault::{Violation, Violations};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

koc_chassis::typed_id! {
    /// One draft of a policy.
    DraftId,
}

/// Drafts of one programme that are open at once.
pub const MAX_OPEN_DRAFTS: i64 = 50;

/// The rules by which members rise and fall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// The least probability that the member's level is above `cut_up`.
    pub min_promote_probability: f64,
    /// The least whole days in the present tier before a move or a review.
    pub min_stay_days: i32,
    /// The least outputs that a rise rests on.
    pub min_outputs: i32,
    pub cut_up: f64,
    /// Periods in a row in which the probability is reached, and the weight of evidence from which one is enough.
    pub promote_periods: i32,
    pub single_period_weight: f64,
    pub cut_keep: f64,
    /// The least probability that the level is below `cut_keep`.
    pub min_demote_probability: f64,
    /// Periods in a row after that of the review; 0: nobody is reviewed or falls by level.
    pub demote_periods: i32,
    pub period_days: i32,
    /// Periods without an output after which a member is reviewed; 0: never.
    pub dormant_periods: i32,
    /// How many members a tier takes by rises.
    pub capacities: Vec<Capacity>,
}

/// How many members a tier takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    pub tier_id: String,
    pub max_members: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            min_promote_probability: 0.80,
            min_stay_days: 0,
            min_outputs: 5,
            cut_up: 0.842,
            promote_periods: 2,
            single_period_weight: 8.0,
            cut_keep: -0.385,
            min_demote_probability: 0.80,
            demote_periods: 2,
            period_days: 91,
            dormant_periods: 2,
            capacities: Vec::new(),
        }
    }
}

impl Rules {
    /// What a version from before members could fall meant: one period was enough, and nobody fell.
    pub fn rising_only(min_promote_probability: f64, min_stay_days: i32, min_outputs: i32) -> Self {
        Self {
            min_promote_probability,
            min_stay_days,
            min_outputs,
            promote_periods: 1,
            demote_periods: 0,
            dormant_periods: 0,
            ..Self::default()
        }
    }

    /// Readings less than this apart are of one period.
    pub fn half_period(&self) -> TimeDelta {
        TimeDelta::days(1) * self.period_days / 2
    }

    /// That the bands do not overlap, so that no level can rise and fall at once, and that capacities name tiers.
    pub fn check(&self, tiers: &[Tier]) -> Result<(), Vec<Violation>> {
        let mut violations = Violations::default();
        let overlap = |field: &str, rule: String| Violation::new(format!("policy.{field}"), "TIER_BANDS_OVERLAP", rule);
        if self.demote_periods > 0 {
            if self.cut_keep >= self.cut_up {
                violations.push(overlap("cut_keep", format!("must be below cut_up, {}; got {}", self.cut_up, self.cut_keep)));
            }
            if self.min_promote_probability + self.min_demote_probability <= 1.0 {
                let rule = format!(
                    "must be more than 1 together with min_promote_probability, {}; got {}",
                    self.min_promote_probability, self.min_demote_probability
                );
                violations.push(overlap("min_demote_probability", rule));
            }
        }
        let mut named = HashSet::new();
        for (i, Capacity { tier_id, .. }) in self.capacities.iter().enumerate() {
            let field = format!("policy.capacities[{i}].tier_id");
            if !tiers.iter().any(|tier| tier.id == *tier_id) {
                violations.push(Violation::new(field, "TIER_UNKNOWN", "must be a tier of the programme"));
            } else if !named.insert(tier_id) {
                violations.push(Violation::new(field, "TIER_REPEATED", "must not be named twice"));
            }
        }
        violations.finish()
    }
}

/// One version of the rules; never edited.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// From 1.
    pub version: i32,
    pub rules: Rules,
}

/// A version and how it came into force.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub policy: Policy,
    pub effective_time: DateTime<Utc>,
    pub reason: String,
    pub actor: String,
    /// Of its draft; empty for what came without one.
    pub authors: Vec<String>,
    pub create_time: DateTime<Utc>,
}

/// A draft of a policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub id: DraftId,
    pub rules: Rules,
    pub reason: String,
    pub state: DraftState,
    /// Who wrote and changed it.
    pub authors: Vec<String>,
    /// From 1; rises with each change.
    pub revision: i64,
    pub create_time: DateTime<Utc>,
    pub update_time: DateTime<Utc>,
}

/// What became of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftState {
    Open,
    /// It became this version.
    Activated(i32),
    Discarded,
}

/// Why a draft is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such draft")]
    NotFound { draft: DraftId },
    #[error("the draft is closed")]
    Closed { draft: DraftId },
    #[error("the draft was changed meanwhile: it is at revision {revision}")]
    Changed { draft: DraftId, revision: i64 },
    #[error("who wrote a draft may not bring it into force")]
    ApproverIsRequester,
    #[error("the programme has {MAX_OPEN_DRAFTS} open drafts, and no more are kept")]
    TooMany,
}

impl Draft {
    pub fn new(rules: Rules, reason: String, author: &str, now: DateTime<Utc>) -> Self {
        let authors = vec![author.to_owned()];
        let (state, revision) = (DraftState::Open, 1);
        Self { id: DraftId::new(), rules, reason, state, authors, revision, create_time: now, update_time: now }
    }

    /// With other rules, by somebody who is one of its authors from now on.
    pub fn change(self, rules: Rules, reason: String, author: &str, now: DateTime<Utc>) -> Result<Self, Refusal> {
        self.open()?;
        let mut authors = self.authors;
        if !authors.iter().any(|known| known == author) {
            authors.push(author.to_owned());
        }
        Ok(Self { rules, reason, authors, revision: self.revision + 1, update_time: now, ..self })
    }

    pub fn discard(self, now: DateTime<Utc>) -> Result<Self, Refusal> {
        self.open()?;
        Ok(Self { state: DraftState::Discarded, revision: self.revision + 1, update_time: now, ..self })
    }

    /// As the version that it becomes, by somebody who is none of its authors.
    pub fn activate(self, version: i32, approver: &str, now: DateTime<Utc>) -> Result<Self, Refusal> {
        self.open()?;
        if self.authors.iter().any(|author| author == approver) {
            return Err(Refusal::ApproverIsRequester);
        }
        Ok(Self { state: DraftState::Activated(version), revision: self.revision + 1, update_time: now, ..self })
    }

    pub fn open(&self) -> Result<(), Refusal> {
        match self.state {
            DraftState::Open => Ok(()),
            _ => Err(Refusal::Closed { draft: self.id }),
        }
    }
}
