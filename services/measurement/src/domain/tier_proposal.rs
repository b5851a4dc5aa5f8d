//! Whether a member should be proposed for the next tier.

use serde::{Deserialize, Serialize};

use super::cohort::rate::RateCount;
use super::distribution::{normal_cdf, normal_density, normal_quantile};
use super::error::{InputError, in_range, share};

/// Shares are kept this far from 0 and 1 before they are put on the normal axis.
const MIN_SHARE: f64 = 0.01;
/// Beta(2, 2): weakly in favour of the middle.
const SHARE_PRIOR: f64 = 2.0;

/// Parameters of the proposal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TierPolicy {
    pub version: u32,
    /// Weights of value, consistency and conduct; they sum to 1.
    pub value_weight: f64,
    pub consistency_weight: f64,
    pub conduct_weight: f64,
    /// τ: standard deviation of members' true levels.
    pub between_sd: f64,
    /// The level to reach, in τ; 0.842 is the 80th percentile of the tier.
    pub cut_up: f64,
    /// P(level > cut) that a promotion takes.
    pub promote_probability: f64,
    /// Periods in a row it takes, and the weight of evidence at which one is enough.
    pub promote_periods: u32,
    pub single_period_weight: f64,
}

impl Default for TierPolicy {
    fn default() -> Self {
        Self {
            version: 1,
            value_weight: 0.6,
            consistency_weight: 0.2,
            conduct_weight: 0.2,
            between_sd: 0.7,
            cut_up: 0.842,
            promote_probability: 0.80,
            promote_periods: 2,
            single_period_weight: 8.0,
        }
    }
}

/// What a proposal is made from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TierInputs {
    /// Posterior of the member's value level on the z axis ([`super::types::TypeScore`] of the primary or best type),
    /// and the weight of evidence behind it.
    pub value_mean: f64,
    pub value_sd: f64,
    pub value_weight: f64,
    /// Periods with at least one output among all periods.
    pub active_periods: RateCount,
    /// Deliveries on time and to specification among all deliveries.
    pub good_conduct: RateCount,
    /// Periods in a row, before this one, in which the probability was reached ([`TierProposal::streak`]).
    pub previous_streak: u32,
    /// Whether the next tier has room, and whether the member may hold it (consent, trust level, no open review).
    pub capacity_available: bool,
    pub eligible: bool,
}

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TierAction {
    Promote,
    Hold,
}

/// One condition of a promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TierReason {
    /// Stable, in snake case.
    pub name: String,
    pub met: bool,
    /// The same with its figures.
    pub text: String,
}

/// A proposal with its reasons. The registry decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TierProposal {
    pub action: TierAction,
    /// Posterior of θ_T, and P(θ_T > cut), in [0, 1].
    pub level_mean: f64,
    pub level_sd: f64,
    pub probability: f64,
    /// Periods in a row with the probability reached, this one included; to be handed to the next proposal.
    pub streak: u32,
    /// Every condition, met or not.
    pub reasons: Vec<TierReason>,
    pub policy_version: u32,
}

/// Proposes to promote or to hold.
///
/// θ_T = 0.6 · value + 0.2 · consistency + 0.2 · conduct. Consistency and conduct are shares with a Beta(2, 2) prior, put on
/// the value's axis as τ·Φ⁻¹(share), with the variance of the delta method (Oehlert 1992); the three are taken as
/// independent, so that θ_T is normal. Promotes at P(θ_T > cut) ≥ 0.80 in two periods in a row, or in one with much
/// evidence, if there is room and the member is eligible.
///
/// # Errors
/// `OutOfRange`, `NotFinite`, `Exceeds`.
pub fn propose_tier(inputs: &TierInputs, policy: &TierPolicy) -> Result<TierProposal, InputError> {
    check(policy)?;
    in_range("value_mean", inputs.value_mean, -100.0, 100.0)?;
    in_range("value_sd", inputs.value_sd, 1e-9, 100.0)?;
    in_range("value_weight", inputs.value_weight, 0.0, f64::MAX)?;
    let consistency = latent_share("active_periods", inputs.active_periods, policy.between_sd)?;
    let conduct = latent_share("good_conduct", inputs.good_conduct, policy.between_sd)?;
    let level_mean = policy.value_weight * inputs.value_mean
        + policy.consistency_weight * consistency.mean
        + policy.conduct_weight * conduct.mean;
    let variance = (policy.value_weight * inputs.value_sd).powi(2)
        + (policy.consistency_weight * consistency.sd).powi(2)
        + (policy.conduct_weight * conduct.sd).powi(2);
    let level_sd = variance.sqrt();
    let cut = policy.cut_up * policy.between_sd;
    let probability = normal_cdf((level_mean - cut) / level_sd);
    let reached = probability >= policy.promote_probability;
    let streak = if reached { inputs.previous_streak.saturating_add(1) } else { 0 };
    let one_is_enough = inputs.value_weight >= policy.single_period_weight;
    let needed = if one_is_enough { 1 } else { policy.promote_periods };
    let reason = |name: &str, met: bool, text: String| TierReason { name: name.to_owned(), met, text };
    let reasons = vec![
        reason(
            "level_above_cut",
            reached,
            format!(
                "P(level > {cut:.2}) is {probability:.2}, {:.2} is needed; level {level_mean:.2} ± {level_sd:.2} from value \
                 {:.2}, consistency {:.2} (share {:.2}), conduct {:.2} (share {:.2}).",
                policy.promote_probability, inputs.value_mean, consistency.mean, consistency.share, conduct.mean, conduct.share,
            ),
        ),
        reason(
            "sustained",
            streak >= needed,
            format!(
                "Reached in {streak} periods in a row, {needed} needed; evidence weighs {:.1}, one period is enough from {:.1}.",
                inputs.value_weight, policy.single_period_weight
            ),
        ),
        reason("eligible", inputs.eligible, "The member may hold the next tier.".to_owned()),
        reason("capacity_available", inputs.capacity_available, "The next tier has room.".to_owned()),
    ];
    let action = if reasons.iter().all(|reason| reason.met) { TierAction::Promote } else { TierAction::Hold };
    Ok(TierProposal { action, level_mean, level_sd, probability, streak, reasons, policy_version: policy.version })
}

struct LatentShare {
    share: f64,
    mean: f64,
    sd: f64,
}

fn latent_share(field: &'static str, count: RateCount, between_sd: f64) -> Result<LatentShare, InputError> {
    if count.successes > count.trials {
        let (value, limit) = (count.successes, count.trials);
        return Err(InputError::Exceeds { field, value, limit_field: "trials", limit });
    }
    let a = SHARE_PRIOR + count.successes as f64;
    let b = SHARE_PRIOR + (count.trials - count.successes) as f64;
    let share = (a / (a + b)).clamp(MIN_SHARE, 1.0 - MIN_SHARE);
    let variance = a * b / ((a + b).powi(2) * (a + b + 1.0));
    let z = normal_quantile(share);
    Ok(LatentShare { share, mean: between_sd * z, sd: between_sd * variance.sqrt() / normal_density(z) })
}

fn check(policy: &TierPolicy) -> Result<(), InputError> {
    share("value_weight", policy.value_weight)?;
    share("consistency_weight", policy.consistency_weight)?;
    share("conduct_weight", policy.conduct_weight)?;
    let sum = policy.value_weight + policy.consistency_weight + policy.conduct_weight;
    in_range("weights", sum, 1.0 - 1e-9, 1.0 + 1e-9)?;
    in_range("between_sd", policy.between_sd, 1e-3, 1e3)?;
    in_range("cut_up", policy.cut_up, -10.0, 10.0)?;
    in_range("promote_probability", policy.promote_probability, 0.5, 1.0)?;
    in_range("promote_periods", f64::from(policy.promote_periods), 1.0, 100.0)?;
    in_range("single_period_weight", policy.single_period_weight, 0.0, f64::MAX)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strong() -> TierInputs {
        TierInputs {
            value_mean: 1.1,
            value_sd: 0.25,
            value_weight: 6.0,
            active_periods: RateCount { successes: 8, trials: 8 },
            good_conduct: RateCount { successes: 20, trials: 20 },
            previous_streak: 0,
            capacity_available: true,
            eligible: true,
        }
    }

    fn run(inputs: &TierInputs) -> TierProposal {
        propose_tier(inputs, &TierPolicy::default()).expect("valid inputs")
    }

    fn unmet(inputs: &TierInputs) -> Vec<String> {
        run(inputs).reasons.into_iter().filter(|reason| !reason.met).map(|reason| reason.name).collect()
    }

    #[test]
    fn two_strong_periods_promote_and_one_does_not() {
        let first = run(&strong());
        assert_eq!((first.action, first.streak), (TierAction::Hold, 1));
        assert_eq!(unmet(&strong()), ["sustained"]);
        let second = run(&TierInputs { previous_streak: first.streak, ..strong() });
        assert_eq!((second.action, second.streak), (TierAction::Promote, 2));
    }

    #[test]
    fn much_evidence_promotes_at_once() {
        assert_eq!(run(&TierInputs { value_weight: 8.0, ..strong() }).action, TierAction::Promote);
    }

    #[test]
    fn a_weak_period_ends_the_streak() {
        let weak = TierInputs { value_mean: 0.2, previous_streak: 5, ..strong() };
        let proposal = run(&weak);
        assert_eq!((proposal.action, proposal.streak), (TierAction::Hold, 0));
    }

    #[test]
    fn room_and_eligibility_are_named_when_they_lack() {
        let barred = TierInputs { previous_streak: 1, capacity_available: false, eligible: false, ..strong() };
        assert_eq!(unmet(&barred), ["eligible", "capacity_available"]);
        assert_eq!(run(&barred).action, TierAction::Hold);
    }

    #[test]
    fn late_and_careless_work_lowers_the_level() {
        let careless = TierInputs { good_conduct: RateCount { successes: 2, trials: 20 }, ..strong() };
        assert!(run(&careless).probability < run(&strong()).probability - 0.1);
    }

    #[test]
    fn inputs_that_make_no_sense_are_refused() {
        let policy = TierPolicy::default();
        let nan = TierInputs { value_mean: f64::NAN, ..strong() };
        assert_eq!(propose_tier(&nan, &policy), Err(InputError::NotFinite { field: "value_mean" }));
        let more = TierInputs { good_conduct: RateCount { successes: 2, trials: 1 }, ..strong() };
        assert!(matches!(propose_tier(&more, &policy), Err(InputError::Exceeds { field: "good_conduct", .. })));
        let weights = TierPolicy { value_weight: 0.9, ..policy };
        assert!(matches!(propose_tier(&strong(), &weights), Err(InputError::OutOfRange { field: "weights", .. })));
    }

    proptest! {
        #[test]
        fn the_probability_is_one_and_promotion_needs_every_condition(
            value_mean in -3.0_f64..3.0, value_sd in 0.01_f64..1.0, value_weight in 0.0_f64..20.0,
            active in 0_u64..20, idle in 0_u64..20, good in 0_u64..50, bad in 0_u64..50,
            previous_streak in 0_u32..4, capacity_available: bool, eligible: bool
        ) {
            let proposal = run(&TierInputs {
                value_mean, value_sd, value_weight,
                active_periods: RateCount { successes: active, trials: active + idle },
                good_conduct: RateCount { successes: good, trials: good + bad },
                previous_streak, capacity_available, eligible,
            });
            prop_assert!((0.0..=1.0).contains(&proposal.probability) && proposal.level_sd > 0.0);
            let promoted = proposal.action == TierAction::Promote;
            prop_assert_eq!(promoted, proposal.reasons.iter().all(|reason| reason.met));
            prop_assert!(!promoted || proposal.probability >= 0.80 && capacity_available && eligible);
        }
    }
}
