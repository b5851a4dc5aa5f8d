//! The thresholds of a decision.

use serde::{Deserialize, Serialize};

use super::Action;
use crate::domain::digest::content_id;
use crate::domain::error::{InputError, in_range, non_negative_minor, share};
use crate::domain::posterior::PosteriorPolicy;

/// What the allocator may choose from, as factors on the member's current spend.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    pub low: f64,
    pub high: f64,
}

/// Everything a decision depends on besides its inputs. A policy is never edited: a change is a new version.
///
/// Of the defaults, 0.80 and 0.20 were compared with others in simulation (an increase at 0.80 was right in about nine
/// cases of ten with 8 to 24 outputs, in eight of ten with 2 to 6); the rest are assumptions. Replay
/// history before changing them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionPolicy {
    pub version: u32,
    pub posterior: PosteriorPolicy,
    /// The wanted return, and the least to bear. 0.0 is break-even.
    pub target_roi: f64,
    pub floor_roi: f64,
    /// Periods whose outputs count, the current one included.
    pub window_periods: u32,
    /// Evidence below which nothing is decided. A brand with few outputs per member lowers the first.
    pub min_outputs: u32,
    pub min_spend_minor: i64,
    pub min_half_lives: f64,
    /// P(ROI > target) from which to increase, and from which an increase is held.
    pub increase_probability: f64,
    pub increase_hold_probability: f64,
    /// P(ROI > target) up to which to review, and from which a review clears.
    pub review_probability: f64,
    pub review_clear_probability: f64,
    /// P(ROI > floor) up to which a result is too weak to bear.
    pub floor_probability: f64,
    /// Drop of the score that calls for a review, in standard deviations.
    pub score_drop_sigma: f64,
    /// Factors on the limit. The strong one takes two periods in a row with P(ROI > 2·target + 0.5) at the level to increase.
    pub increase_multiplier: f64,
    pub strong_increase_multiplier: f64,
    pub reduce_multiplier: f64,
    /// After REVIEW, reduce only once the review has been recorded.
    pub reduce_needs_review_record: bool,
    /// A person has to agree to every reduction, not only to one after a breach.
    pub reduce_needs_approval: bool,
    pub increase_bounds: Bounds,
    pub maintain_bounds: Bounds,
    pub review_bounds: Bounds,
    pub reduce_bounds: Bounds,
}

impl Default for DecisionPolicy {
    fn default() -> Self {
        Self {
            version: 1,
            posterior: PosteriorPolicy::default(),
            target_roi: 0.0,
            floor_roi: -0.3,
            window_periods: 4,
            min_outputs: 5,
            min_spend_minor: 1,
            min_half_lives: 1.0,
            increase_probability: 0.80,
            increase_hold_probability: 0.65,
            review_probability: 0.35,
            review_clear_probability: 0.45,
            floor_probability: 0.20,
            score_drop_sigma: 2.0,
            increase_multiplier: 1.25,
            strong_increase_multiplier: 1.50,
            reduce_multiplier: 0.75,
            reduce_needs_review_record: true,
            reduce_needs_approval: false,
            increase_bounds: Bounds { low: 1.00, high: 1.50 },
            maintain_bounds: Bounds { low: 0.90, high: 1.10 },
            review_bounds: Bounds { low: 0.70, high: 1.00 },
            reduce_bounds: Bounds { low: 0.30, high: 0.75 },
        }
    }
}

impl DecisionPolicy {
    /// SHA-256 of the policy's content, in hexadecimal.
    pub fn id(&self) -> String {
        content_id("koc.decision_policy.v1", self)
    }

    /// The allocator's bounds after an outcome.
    pub fn bounds_of(&self, action: Action) -> Bounds {
        match action {
            Action::Increase => self.increase_bounds,
            Action::Maintain => self.maintain_bounds,
            Action::Review => self.review_bounds,
            Action::Reduce => self.reduce_bounds,
        }
    }

    /// Whether the thresholds make sense together: floor ≤ target; review ≤ clear ≤ hold ≤ increase; factors and
    /// bounds ordered.
    ///
    /// # Errors
    /// `OutOfRange`, `NotFinite`, `NegativeAmount`, naming the parameter.
    pub fn check(&self) -> Result<(), InputError> {
        in_range("target_roi", self.target_roi, -1.0, 1e6)?;
        in_range("floor_roi", self.floor_roi, -1.0, self.target_roi)?;
        in_range("window_periods", f64::from(self.window_periods), 1.0, 1_000.0)?;
        in_range("min_outputs", f64::from(self.min_outputs), 1.0, 10_000.0)?;
        non_negative_minor("min_spend_minor", self.min_spend_minor)?;
        in_range("min_half_lives", self.min_half_lives, 0.0, 1e6)?;
        share("increase_probability", self.increase_probability)?;
        in_range("increase_hold_probability", self.increase_hold_probability, 0.0, self.increase_probability)?;
        in_range("review_clear_probability", self.review_clear_probability, 0.0, self.increase_hold_probability)?;
        in_range("review_probability", self.review_probability, 0.0, self.review_clear_probability)?;
        share("floor_probability", self.floor_probability)?;
        in_range("score_drop_sigma", self.score_drop_sigma, 0.0, 1e6)?;
        in_range("increase_multiplier", self.increase_multiplier, 1.0, 10.0)?;
        in_range("strong_increase_multiplier", self.strong_increase_multiplier, self.increase_multiplier, 10.0)?;
        share("reduce_multiplier", self.reduce_multiplier)?;
        for bounds in [self.increase_bounds, self.maintain_bounds, self.review_bounds, self.reduce_bounds] {
            in_range("bounds.high", bounds.high, 0.0, 10.0)?;
            in_range("bounds.low", bounds.low, 0.0, bounds.high)?;
        }
        Ok(())
    }
}
