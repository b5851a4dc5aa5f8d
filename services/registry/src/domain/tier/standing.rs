//! What is known of a member when its tier is judged.

use super::Rules;
use crate::domain::consent::Consent;
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::ids::MemberId;
use serde::{Deserialize, Serialize};
use statrs::function::erf::erfc;
use uuid::Uuid;

/// How many of a member's last readings are looked at: more than the periods that any policy asks for in a row.
pub const MAX_READINGS: usize = 20;

/// What is believed of a level: a normal distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub mean: f64,
    pub sd: f64,
}

impl Level {
    /// P(level > cut).
    pub fn above(&self, cut: f64) -> f64 {
        0.5 * erfc((cut - self.mean) / (self.sd * std::f64::consts::SQRT_2))
    }

    /// P(level < cut).
    pub fn below(&self, cut: f64) -> f64 {
        0.5 * erfc((self.mean - cut) / (self.sd * std::f64::consts::SQRT_2))
    }
}

/// What measurement found about a member's level.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    pub reading: Reading,
    pub reason: String,
}

/// One period's measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// End of the period measured.
    pub as_of: DateTime<Utc>,
    pub level: Option<Level>,
    /// What was told instead of a level.
    pub told_probability: f64,
    /// Of the evidence.
    pub weight: f64,
    pub output_count: i32,
    /// Measurement's decision.
    pub decision: Uuid,
}

impl Reading {
    /// Probability that the level is above the upper cut.
    pub fn promote_probability(&self, rules: &Rules) -> f64 {
        self.level.map_or(self.told_probability, |level| level.above(rules.cut_up))
    }

    /// Probability that the level is below the lower cut: unknown, and so never reached, without a level.
    pub fn demote_probability(&self, rules: &Rules) -> f64 {
        self.level.map_or(0.0, |level| level.below(rules.cut_keep))
    }

    pub fn is_high(&self, rules: &Rules) -> bool {
        self.promote_probability(rules) >= rules.min_promote_probability
    }

    pub fn is_low(&self, rules: &Rules) -> bool {
        rules.demote_periods > 0 && self.level.is_some() && self.demote_probability(rules) >= rules.min_demote_probability
    }
}

impl Proposal {
    /// Whether it takes the place of the one that stands: not older, and newer than evidence that has moved its member already.
    pub fn replaces(&self, standing: Option<(DateTime<Utc>, Consumed)>) -> bool {
        match standing {
            None => true,
            Some((as_of, Consumed(false))) => self.reading.as_of >= as_of,
            Some((as_of, Consumed(true))) => self.reading.as_of > as_of,
        }
    }
}

/// Whether a proposal has moved its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumed(pub bool);

/// A member's review: the warning before a fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Review {
    pub since: DateTime<Utc>,
    /// End of the period that brought it, or the time at which nothing was found to be measured.
    pub as_of: DateTime<Utc>,
    pub dormant: bool,
}

/// What is kept of a member's tier beside the tier itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Readings up to here have moved the member, or were overruled by hand, and count no more.
    pub counted_to: Option<DateTime<Utc>>,
    pub review: Option<Review>,
    pub hold: Option<Hold>,
}

/// A person holds a member in its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// None: until somebody ends it.
    pub end: Option<DateTime<Utc>>,
}

impl Hold {
    pub fn stands(&self, now: DateTime<Utc>) -> bool {
        self.end.is_none_or(|end| now < end)
    }
}

/// A member at the time it is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub member: MemberId,
    pub tier_id: String,
    pub tier_since: DateTime<Utc>,
    pub consents: Vec<Consent>,
    pub standing: Standing,
    /// Newest first, at most [`MAX_READINGS`].
    pub readings: Vec<Reading>,
}

impl Candidate {
    /// The readings that count, newest first: of each period the newest, until a period is missing.
    pub fn periods(&self, rules: &Rules) -> Vec<&Reading> {
        let (least, most) = (rules.half_period(), TimeDelta::days(1) * rules.period_days * 3 / 2);
        let mut found: Vec<&Reading> = Vec::new();
        for reading in &self.readings {
            if self.standing.counted_to.is_some_and(|to| reading.as_of <= to) {
                break;
            }
            match found.last() {
                Some(later) if later.as_of - reading.as_of < least => {}
                Some(later) if later.as_of - reading.as_of > most => break,
                _ => found.push(reading),
            }
        }
        found
    }

    /// From when on it is taken for dormant; None when the policy does not ask.
    pub fn dormant_from(&self, rules: &Rules) -> Option<DateTime<Utc>> {
        if rules.dormant_periods == 0 {
            return None;
        }
        let active = self.readings.iter().filter(|reading| reading.output_count > 0).map(|reading| reading.as_of).max();
        let last = active.map_or(self.tier_since, |active| active.max(self.tier_since));
        let half_periods = rules.dormant_periods * 2 + 1;
        last.checked_add_signed(TimeDelta::days(1) * rules.period_days * half_periods / 2)
    }
}
