//! What a member's return really is, given few outputs: a Bayesian bootstrap that borrows from the cohort.
//!
//! Rubin (1981, *The Bayesian bootstrap*): a posterior draw of a mean reweights the observations by independent standard
//! exponentials. Each draw also holds a few pseudo-observations from the cohort, so that a member with two lucky posts
//! is not taken for a star (cf. Muliere & Secchi 1996 on the proper Bayesian bootstrap).
//!
//! Results are the same bit for bit on every machine: the generator is ChaCha8 seeded with SHA-256 of the inputs and the
//! policy, in an order that does not depend on how they were listed; exponentials are drawn by comparisons alone (von
//! Neumann 1951); and nothing but the four basic operations, which IEEE 754 fixes, touches the numbers on the way.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::distribution::quantile_of_sorted;
use super::error::{InputError, at_most, in_range, non_negative_minor, share};

/// Limits on what one posterior reads and does.
pub const MAX_MEMBER_OUTPUTS: usize = 10_000;
pub const MAX_COHORT_RESULTS: usize = 100_000;
const MAX_DRAWS: u32 = 100_000;
const MAX_PSEUDO_OBSERVATIONS: u32 = 1_000;
const MAX_PERIODS_AGO: u32 = 1_000;
/// Winsorising rescales so that the cohort mean stays. Where that would more than double every ratio, the mean lives in the
/// tail itself, and the ratios are left as they are.
const MAX_WINSOR_RESCALE: f64 = 2.0;

/// Why there is no posterior.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PosteriorError {
    /// Nothing was spent on the member's outputs, so there is no return to speak of.
    #[error("nothing was spent on these outputs")]
    NoSpend,
    /// No output of the cohort had a cost.
    #[error("the cohort holds no output with a cost")]
    EmptyCohort,
    #[error(transparent)]
    Input(#[from] InputError),
}

/// What an output brought and cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputResult {
    /// May be negative.
    pub value_minor: i64,
    /// Zero or more.
    pub cost_minor: i64,
    /// 0 for the current period. Ignored in a cohort.
    pub periods_ago: u32,
}

/// What the posterior is computed from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PosteriorInputs {
    /// The member's outputs of the trailing window.
    pub outputs: Vec<OutputResult>,
    /// Outputs of members like this one over the trailing 180 days (same tier and type; 30 or more, else the broader
    /// cohort). Those without a cost are left out.
    pub cohort: Vec<OutputResult>,
    /// The return that is wanted, and the one that is the least to bear; −1 or more.
    pub target_roi: f64,
    pub floor_roi: f64,
}

/// How the posterior is computed. Part of the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PosteriorPolicy {
    pub version: u32,
    /// K, 100 to 100,000.
    pub draws: u32,
    /// m₀: weight of the cohort, in outputs.
    pub pseudo_observations: u32,
    /// Weight of an output per period of age, in (0, 1].
    pub decay_per_period: f64,
    /// Ratios above this quantile of the cohort are cut to it, in [0.5, 1].
    pub winsor_quantile: f64,
}

impl Default for PosteriorPolicy {
    fn default() -> Self {
        Self { version: 1, draws: 2_000, pseudo_observations: 5, decay_per_period: 0.8, winsor_quantile: 0.98 }
    }
}

/// The posterior of a member's return, ROI = Σ value/Σ cost − 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Posterior {
    pub mean: f64,
    pub q05: f64,
    pub q50: f64,
    pub q95: f64,
    /// P(ROI > target), P(ROI > floor) and P(ROI > 2·target + 0.5), in [0, 1].
    pub p_target: f64,
    pub p_floor: f64,
    pub p_stretch: f64,
    pub target_roi: f64,
    pub floor_roi: f64,
    /// Outputs of the member.
    pub outputs: u32,
    pub spend_minor: i64,
    /// m₀/(n + m₀): how much of this is the cohort's.
    pub prior_share: f64,
    pub cohort_size: u32,
    /// The ratio of value to cost at which outputs were cut.
    pub winsor_cap: f64,
    /// The seed, SHA-256 of inputs and policy, in hexadecimal.
    pub seed: String,
    pub policy_version: u32,
}

/// Winsorised ratios of a cohort.
#[derive(Debug, Clone, PartialEq)]
pub struct WinsorisedCohort {
    /// Ascending.
    pub ratios: Vec<f64>,
    pub cap: f64,
    /// Factor that restores the mean after cutting, 1 or more.
    pub rescale: f64,
}

impl WinsorisedCohort {
    /// Cuts ratios above their `quantile` and rescales all, so that the mean stays what it was: heavy tails lose their
    /// sway over single members, not their part in the total.
    pub fn new(mut ratios: Vec<f64>, quantile: f64) -> Option<Self> {
        ratios.sort_by(f64::total_cmp);
        let cap = quantile_of_sorted(&ratios, quantile)?;
        let before: f64 = ratios.iter().sum();
        let after: f64 = ratios.iter().map(|ratio| ratio.min(cap)).sum();
        let rescale = before / after;
        if after > 0.0 && (1.0..=MAX_WINSOR_RESCALE).contains(&rescale) {
            for ratio in &mut ratios {
                *ratio = ratio.min(cap) * rescale;
            }
            return Some(Self { ratios, cap, rescale });
        }
        let cap = *ratios.last()?;
        Some(Self { ratios, cap, rescale: 1.0 })
    }

    /// The same cut and rescaling for a ratio from outside the cohort.
    pub fn apply(&self, ratio: f64) -> f64 {
        ratio.min(self.cap) * self.rescale
    }
}

/// Computes the posterior. An output without a cost adds its value and no cost, unwinsorised.
///
/// # Errors
/// [`PosteriorError::NoSpend`], [`PosteriorError::EmptyCohort`]; `OutOfRange`, `NotFinite`, `NegativeAmount`, `TooMany`,
/// `AmountOverflow`.
pub fn posterior(inputs: &PosteriorInputs, policy: &PosteriorPolicy) -> Result<Posterior, PosteriorError> {
    check(inputs, policy)?;
    let (outputs, cohort) = (canonical(&inputs.outputs), canonical(&inputs.cohort));
    let spend_minor = super::money::sum_minor("spend", outputs.iter().map(|output| output.cost_minor))?;
    if spend_minor == 0 {
        return Err(PosteriorError::NoSpend);
    }
    let ratios: Vec<f64> = cohort
        .iter()
        .filter(|result| result.cost_minor > 0)
        .map(|result| result.value_minor as f64 / result.cost_minor as f64)
        .collect();
    let cohort_size = ratios.len() as u32;
    let pool = WinsorisedCohort::new(ratios, policy.winsor_quantile).ok_or(PosteriorError::EmptyCohort)?;

    let terms: Vec<Term> = outputs.iter().map(|output| Term::new(output, &pool, policy.decay_per_period)).collect();
    let mean_cost = spend_minor as f64 / outputs.len() as f64;
    let seed = seed(inputs, &outputs, &cohort, policy);
    let mut source = Source(ChaCha8Rng::from_seed(seed));
    let mut draws = Vec::with_capacity(policy.draws as usize);
    for _ in 0..policy.draws {
        let (mut value, mut cost) = (0.0, 0.0);
        for term in &terms {
            let weight = source.exponential() * term.decay;
            value += weight * term.value;
            cost += weight * term.cost;
        }
        for _ in 0..policy.pseudo_observations {
            let ratio = pool.ratios[source.index(pool.ratios.len())];
            let weight = source.exponential();
            value += weight * ratio * mean_cost;
            cost += weight * mean_cost;
        }
        // All weights vanish only if every exponential is exactly zero; the draw is then the plain mean.
        draws.push(if cost > 0.0 { value / cost - 1.0 } else { plain_roi(&terms) });
    }
    draws.sort_by(f64::total_cmp);
    let count = draws.len() as f64;
    let above = |threshold: f64| draws.iter().filter(|&&roi| roi > threshold).count() as f64 / count;
    let quantile = |p| quantile_of_sorted(&draws, p).ok_or(PosteriorError::EmptyCohort);
    let pseudo = f64::from(policy.pseudo_observations);
    Ok(Posterior {
        mean: draws.iter().sum::<f64>() / count,
        q05: quantile(0.05)?,
        q50: quantile(0.5)?,
        q95: quantile(0.95)?,
        p_target: above(inputs.target_roi),
        p_floor: above(inputs.floor_roi),
        p_stretch: above(2.0 * inputs.target_roi + 0.5),
        target_roi: inputs.target_roi,
        floor_roi: inputs.floor_roi,
        outputs: outputs.len() as u32,
        spend_minor,
        prior_share: pseudo / (outputs.len() as f64 + pseudo),
        cohort_size,
        winsor_cap: pool.cap,
        seed: hex::encode(seed),
        policy_version: policy.version,
    })
}

struct Term {
    value: f64,
    cost: f64,
    decay: f64,
}

impl Term {
    fn new(output: &OutputResult, pool: &WinsorisedCohort, decay_per_period: f64) -> Self {
        let (value, cost) = (output.value_minor as f64, output.cost_minor as f64);
        let value = if output.cost_minor > 0 { pool.apply(value / cost) * cost } else { value };
        // A product in a loop, since the library's powers differ between machines in the last bit.
        let decay = (0..output.periods_ago).fold(1.0, |decay, _| decay * decay_per_period);
        Self { value, cost, decay }
    }
}

fn plain_roi(terms: &[Term]) -> f64 {
    let value: f64 = terms.iter().map(|term| term.value).sum();
    let cost: f64 = terms.iter().map(|term| term.cost).sum();
    value / cost - 1.0
}

fn check(inputs: &PosteriorInputs, policy: &PosteriorPolicy) -> Result<(), InputError> {
    at_most("outputs", inputs.outputs.len(), MAX_MEMBER_OUTPUTS)?;
    at_most("cohort", inputs.cohort.len(), MAX_COHORT_RESULTS)?;
    for output in inputs.outputs.iter().chain(&inputs.cohort) {
        non_negative_minor("cost_minor", output.cost_minor)?;
        in_range("periods_ago", f64::from(output.periods_ago), 0.0, f64::from(MAX_PERIODS_AGO))?;
    }
    in_range("target_roi", inputs.target_roi, -1.0, 1e6)?;
    in_range("floor_roi", inputs.floor_roi, -1.0, inputs.target_roi)?;
    in_range("draws", f64::from(policy.draws), 100.0, f64::from(MAX_DRAWS))?;
    in_range("pseudo_observations", f64::from(policy.pseudo_observations), 0.0, f64::from(MAX_PSEUDO_OBSERVATIONS))?;
    in_range("decay_per_period", share("decay_per_period", policy.decay_per_period)?, 0.01, 1.0)?;
    in_range("winsor_quantile", policy.winsor_quantile, 0.5, 1.0)?;
    Ok(())
}

/// The results in an order of their own, so that the order in which a store listed them does not matter.
fn canonical(results: &[OutputResult]) -> Vec<OutputResult> {
    let mut results = results.to_vec();
    results.sort_by_key(|result| (result.periods_ago, result.value_minor, result.cost_minor));
    results
}

fn seed(inputs: &PosteriorInputs, outputs: &[OutputResult], cohort: &[OutputResult], policy: &PosteriorPolicy) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"koc.posterior.v1\0");
    hasher.update(policy.version.to_be_bytes());
    hasher.update(policy.draws.to_be_bytes());
    hasher.update(policy.pseudo_observations.to_be_bytes());
    for number in [policy.decay_per_period, policy.winsor_quantile, inputs.target_roi, inputs.floor_roi] {
        hasher.update(number.to_bits().to_be_bytes());
    }
    for results in [outputs, cohort] {
        hasher.update((results.len() as u64).to_be_bytes());
        for result in results {
            hasher.update(result.periods_ago.to_be_bytes());
            hasher.update(result.value_minor.to_be_bytes());
            hasher.update(result.cost_minor.to_be_bytes());
        }
    }
    hasher.finalize().into()
}

/// Random numbers without any library function that rounds differently elsewhere.
struct Source(ChaCha8Rng);

impl Source {
    /// In [0, 1), a multiple of 2^−53.
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// Below `len`; the bias is len/2^64.
    fn index(&mut self, len: usize) -> usize {
        ((u128::from(self.0.next_u64()) * len as u128) >> 64) as usize
    }

    /// A standard exponential by von Neumann's comparisons (1951, *Various techniques used in connection with random
    /// digits*): a run u₁ ≥ u₂ ≥ … that stops at an odd length yields u₁ plus the number of failed runs.
    fn exponential(&mut self) -> f64 {
        let mut failed_runs = 0.0;
        loop {
            let first = self.uniform();
            let (mut last, mut odd) = (first, true);
            loop {
                let next = self.uniform();
                if next >= last {
                    break;
                }
                last = next;
                odd = !odd;
            }
            if odd {
                return failed_runs + first;
            }
            failed_runs += 1.0;
        }
    }
}

#[cfg(test)]
mod tests;
