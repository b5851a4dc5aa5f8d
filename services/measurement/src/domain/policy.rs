//! What a programme sets for its decisions: the thresholds, what is applied without a person, and what a signal may draw.

use serde::{Deserialize, Serialize};

use super::decision::{Action, DecisionPolicy};

/// One version of a programme's policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgrammePolicy {
    pub thresholds: DecisionPolicy,
    pub automatic: Vec<Action>,
    /// `None`: signals open no draw.
    pub max_draw_per_output_minor: Option<i64>,
}

/// The thresholds that a programme names; the others are the defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NamedThresholds {
    pub target_roi: f64,
    pub floor_roi: f64,
    pub min_outputs: u32,
    /// `None`: any spend will do.
    pub min_spend_minor: Option<i64>,
    pub increase_probability: f64,
    pub reduce_probability: f64,
}

impl ProgrammePolicy {
    /// Version 1 of every programme: an increase, a maintain and a review are applied at once, signals open no draw.
    pub fn initial() -> Self {
        Self {
            thresholds: thresholds(DecisionPolicy::default()),
            automatic: vec![Action::Increase, Action::Maintain, Action::Review],
            max_draw_per_output_minor: None,
        }
    }
}

impl NamedThresholds {
    /// The thresholds with these set. An increase is held at the default mark, or at the one to increase if that is lower.
    pub fn into_thresholds(self, version: u32) -> DecisionPolicy {
        let default = DecisionPolicy::default();
        thresholds(DecisionPolicy {
            version,
            target_roi: self.target_roi,
            floor_roi: self.floor_roi,
            min_outputs: self.min_outputs,
            min_spend_minor: self.min_spend_minor.unwrap_or(0),
            increase_probability: self.increase_probability,
            increase_hold_probability: default.increase_hold_probability.min(self.increase_probability),
            floor_probability: self.reduce_probability,
            ..default
        })
    }
}

/// Reviews are held outside this service and not recorded here, so a reduction cannot wait for a record; it waits for a
/// person's approval instead.
fn thresholds(policy: DecisionPolicy) -> DecisionPolicy {
    DecisionPolicy { reduce_needs_review_record: false, reduce_needs_approval: true, ..policy }
}
