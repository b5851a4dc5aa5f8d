//! Outputs, and what their counters said at one time.

use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::OutputId;
use super::value::ValueType;

/// What can be measured of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Metric {
    Views = 1,
    Likes = 2,
    Comments = 3,
    Shares = 4,
    Saves = 5,
    Follows = 6,
    /// Orders attributed by code or tracked link.
    Orders = 7,
    /// Contribution margin of those orders, in minor units.
    OrderMargin = 8,
}

impl Metric {
    const ALL: [Self; 8] =
        [Self::Views, Self::Likes, Self::Comments, Self::Shares, Self::Saves, Self::Follows, Self::Orders, Self::OrderMargin];

    /// The metric with a number of the contract's enumeration.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| i32::from(metric.number()) == number)
    }

    /// Its number in the contract's enumeration.
    pub fn number(self) -> i16 {
        self as i16
    }
}

/// An accepted deliverable being measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub id: OutputId,
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub assignment: Uuid,
    pub brief: Uuid,
    pub deliverable_key: String,
    /// E.g. `DELIVERABLE_KIND_ARTICLE`.
    pub kind: String,
    /// Empty when on none.
    pub platform: String,
    /// The member's tier when it was offered.
    pub tier: String,
    pub published_at: DateTime<Utc>,
    pub currency: String,
    /// Its part of what the assignment earned, less what reversals took back.
    pub reward_minor: i64,
    /// What was drawn from the reserve to boost it.
    pub boost_minor: i64,
    pub created_at: DateTime<Utc>,
}

impl Output {
    /// What it alone caused: reward and boosts. Fixed costs and lent things are not told to this service yet, so the wider
    /// bases hold the same amount.
    pub fn cost_minor(&self) -> i64 {
        self.reward_minor.saturating_add(self.boost_minor)
    }

    /// What it counts as.
    pub fn value_type(&self) -> ValueType {
        match self.kind.as_str() {
            "DELIVERABLE_KIND_EVENT" => ValueType::Social,
            "DELIVERABLE_KIND_COMMUNITY_FEEDBACK"
            | "DELIVERABLE_KIND_COMPETITOR_ANALYSIS"
            | "DELIVERABLE_KIND_INSIGHT_REPORT" => ValueType::Insight,
            _ => ValueType::Content,
        }
    }

    /// Its age at `time` in hours; 0 before publication.
    pub fn age_hours(&self, time: DateTime<Utc>) -> f64 {
        (time.signed_duration_since(self.published_at).num_milliseconds() as f64 / 3_600_000.0).max(0.0)
    }

    /// Half-life of its platform's attention, in hours.
    pub fn half_life_hours(&self) -> f64 {
        super::maturity::default_half_life_hours(&self.platform.to_lowercase())
    }
}

/// Counters of one output at one time. `None` was never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    organic: [Option<u64>; 8],
    paid: [Option<u64>; 8],
}

impl Counters {
    pub fn set(&mut self, metric: Metric, paid: bool, value: u64) {
        let side = if paid { &mut self.paid } else { &mut self.organic };
        side[metric as usize - 1] = Some(value);
    }

    pub fn organic(&self, metric: Metric) -> Option<u64> {
        self.organic[metric as usize - 1]
    }

    /// Organic and paid reach together; `None` when neither was read.
    pub fn both(&self, metric: Metric) -> Option<u64> {
        let (organic, paid) = (self.organic[metric as usize - 1], self.paid[metric as usize - 1]);
        (organic.is_some() || paid.is_some()).then(|| organic.unwrap_or(0).saturating_add(paid.unwrap_or(0)))
    }
}

/// An output with its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    pub output: Output,
    pub counters: Counters,
}
