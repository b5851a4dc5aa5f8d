//! Rates (engagement, conversion, adoption) shrunk to their cohort by a beta-binomial empirical Bayes estimate.

use serde::{Deserialize, Serialize};

use crate::domain::distribution::beta_quantile;
use crate::domain::error::{InputError, positive};

/// The prior weighs at least 2 and at most 2,000 trials, whatever the moments say.
const CONCENTRATION_BOUNDS: (f64, f64) = (2.0, 2_000.0);

/// Successes among trials; successes ≤ trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateCount {
    pub successes: u64,
    pub trials: u64,
}

impl RateCount {
    fn check(self) -> Result<Self, InputError> {
        if self.successes <= self.trials {
            return Ok(self);
        }
        let (value, limit) = (self.successes, self.trials);
        Err(InputError::Exceeds { field: "successes", value, limit_field: "trials", limit })
    }
}

/// A Beta(alpha, beta) belief about a rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BetaPrior {
    pub alpha: f64,
    pub beta: f64,
}

/// A shrunk rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateEstimate {
    /// In (0, 1).
    pub mean: f64,
    /// 5 % and 95 % posterior quantiles.
    pub q05: f64,
    pub q95: f64,
    /// Share of the estimate that comes from the prior, in (0, 1].
    pub prior_share: f64,
}

impl BetaPrior {
    /// Where nothing is known: 0.5 % of exposures convert.
    pub const CONVERSION: Self = Self { alpha: 1.0, beta: 199.0 };
    /// Where nothing is known: one suggestion in ten is adopted.
    pub const ADOPTION: Self = Self { alpha: 1.0, beta: 9.0 };
    /// Where nothing is known: 4 % of readers engage.
    pub const ENGAGEMENT: Self = Self { alpha: 2.0, beta: 48.0 };

    /// Fits the prior to a cohort by moments (Kleinman 1973): m = Σx/Σn, the between variance s² from the weighted
    /// spread of the rates less what sampling explains, concentration κ = m(1 − m)/s² − 1 cut to [2, 2000],
    /// alpha = mκ, beta = (1 − m)κ. Falls back to `default` when the cohort holds fewer than two rates, or only
    /// successes, or none: moments then say nothing.
    ///
    /// # Errors
    /// `Exceeds` when successes outnumber trials; `OutOfRange` for a default with a shape that is not positive.
    pub fn fit(cohort: &[RateCount], default: Self) -> Result<Self, InputError> {
        let default = default.check()?;
        let (mut used, mut successes, mut trials, mut trials_squared) = (0_u64, 0.0, 0.0, 0.0);
        for count in cohort {
            let RateCount { successes: x, trials: n } = count.check()?;
            if n > 0 {
                used += 1;
                successes += x as f64;
                trials += n as f64;
                trials_squared += (n as f64).powi(2);
            }
        }
        let mean = successes / trials;
        if used < 2 || mean <= 0.0 || mean >= 1.0 {
            return Ok(default);
        }
        let spread: f64 = cohort
            .iter()
            .filter(|count| count.trials > 0)
            .map(|count| {
                let n = count.trials as f64;
                n * (count.successes as f64 / n - mean).powi(2)
            })
            .sum();
        let freedom = (used - 1) as f64;
        let binomial = mean * (1.0 - mean);
        let denominator = trials - trials_squared / trials - freedom;
        let between = if denominator > 0.0 { (spread - freedom * binomial) / denominator } else { 0.0 };
        let (least, most) = CONCENTRATION_BOUNDS;
        let concentration = if between > 0.0 { (binomial / between - 1.0).clamp(least, most) } else { most };
        Ok(Self { alpha: mean * concentration, beta: (1.0 - mean) * concentration })
    }

    /// The rate after `count`: mean (alpha + x)/(alpha + beta + n) and its 90 % interval (Robbins 1956; Casella 1985
    /// for the empirical Bayes reading).
    ///
    /// # Errors
    /// `Exceeds` when successes outnumber trials; `OutOfRange` for shapes that are not positive.
    pub fn estimate(self, count: RateCount) -> Result<RateEstimate, InputError> {
        let Self { alpha, beta } = self.check()?;
        let RateCount { successes, trials } = count.check()?;
        let a = alpha + successes as f64;
        let b = beta + (trials - successes) as f64;
        Ok(RateEstimate {
            mean: a / (a + b),
            q05: beta_quantile(a, b, 0.05),
            q95: beta_quantile(a, b, 0.95),
            prior_share: (alpha + beta) / (a + b),
        })
    }

    /// The mean of the belief.
    pub fn mean(self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    pub(crate) fn check(self) -> Result<Self, InputError> {
        positive("alpha", self.alpha)?;
        positive("beta", self.beta)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cohort_without_spread_shrinks_hard() {
        let cohort = vec![RateCount { successes: 10, trials: 100 }; 40];
        let prior = BetaPrior::fit(&cohort, BetaPrior::CONVERSION).expect("valid counts");
        assert!((prior.alpha + prior.beta - 2_000.0).abs() < 1e-9);
        assert!((prior.mean() - 0.1).abs() < 1e-12);
    }

    #[test]
    fn the_fitted_concentration_recovers_a_known_spread() {
        // Rates .1 and .3 in equal parts: m = .2, s² = .01, κ = .16/.01 − 1 = 15, up to sampling terms of 1/n.
        let cohort: Vec<RateCount> =
            (0..400).map(|i| RateCount { successes: if i % 2 == 0 { 10_000 } else { 30_000 }, trials: 100_000 }).collect();
        let prior = BetaPrior::fit(&cohort, BetaPrior::CONVERSION).expect("valid counts");
        assert!((prior.alpha + prior.beta - 15.0).abs() < 0.1, "{prior:?}");
    }

    #[test]
    fn a_cohort_that_says_nothing_leaves_the_default() {
        let none = [RateCount { successes: 0, trials: 50 }, RateCount { successes: 0, trials: 20 }];
        assert_eq!(BetaPrior::fit(&none, BetaPrior::ADOPTION), Ok(BetaPrior::ADOPTION));
        assert_eq!(BetaPrior::fit(&[], BetaPrior::ADOPTION), Ok(BetaPrior::ADOPTION));
    }

    #[test]
    fn more_successes_than_trials_are_refused() {
        let refused = BetaPrior::CONVERSION.estimate(RateCount { successes: 3, trials: 2 });
        assert_eq!(refused, Err(InputError::Exceeds { field: "successes", value: 3, limit_field: "trials", limit: 2 }));
    }

    proptest! {
        #[test]
        fn a_rate_lies_between_its_own_and_the_prior_and_inside_its_interval(x in 0_u64..500, more in 1_u64..5_000) {
            let count = RateCount { successes: x, trials: x + more };
            let estimate = BetaPrior::ENGAGEMENT.estimate(count).expect("a valid count");
            let own = x as f64 / (x + more) as f64;
            let prior = BetaPrior::ENGAGEMENT.mean();
            prop_assert!(estimate.mean >= own.min(prior) - 1e-12 && estimate.mean <= own.max(prior) + 1e-12);
            prop_assert!(0.0 <= estimate.q05 && estimate.q05 < estimate.q95 && estimate.q95 <= 1.0);
        }
    }
}
