//! The few distributions and running moments that the other modules stand on.

use serde::{Deserialize, Serialize};
use statrs::function::beta::{beta_reg, ln_beta};
use statrs::function::erf::{erfc, erfc_inv};

use super::error::{InputError, finite};

/// Steps of the continued fraction before its last value is taken as it is. It converges in the order of the square
/// root of the larger shape, so this suffices exactly up to shapes of about 10^7; past that the relative error stays
/// small, since the fraction is already close.
const CONTINUED_FRACTION_MAX_STEPS: u32 = 10_000;
const CONTINUED_FRACTION_TOLERANCE: f64 = 1e-15;
/// Keeps a vanishing denominator of Lentz's method away from zero.
const LENTZ_TINY: f64 = 1e-300;
/// Halvings in [`beta_quantile`]: 2^-60 is below the precision of the argument.
const BISECTION_STEPS: u32 = 60;

/// The standard normal distribution function, P(Z ≤ z), in [0, 1].
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / std::f64::consts::SQRT_2)
}

/// The z for which P(Z ≤ z) = `p`; minus or plus infinity at 0 and 1.
pub fn normal_quantile(p: f64) -> f64 {
    let z = -std::f64::consts::SQRT_2 * erfc_inv(2.0 * p);
    // One step of Newton's method: the library's inverse is good to some nine digits.
    let correction = (normal_cdf(z) - p) / normal_density(z);
    if correction.is_finite() { z - correction } else { z }
}

/// The standard normal density at z.
pub fn normal_density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The quantile of a Beta(`alpha`, `beta`) distribution, by bisection on the regularised incomplete beta function:
/// slower than a series, and never wrong by more than the last bits. Shapes must be positive, `p` in [0, 1].
pub fn beta_quantile(alpha: f64, beta: f64, p: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..BISECTION_STEPS {
        let middle = 0.5 * (low + high);
        if beta_reg(alpha, beta, middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// ln I_x(a, b), the logarithm of the regularised incomplete beta function, for a, b > 0 and x in (0, 1).
///
/// The continued fraction of DLMF 8.17.22 evaluated by Lentz's method, with its prefix kept as a logarithm, so that
/// probabilities far below the smallest `f64` keep their size.
pub fn ln_beta_reg(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        f64::NEG_INFINITY
    } else if x >= 1.0 {
        0.0
    } else {
        ln_beta_reg_of_parts(a, b, x, 1.0 - x)
    }
}

/// [`ln_beta_reg`] with y = 1 − x given apart, so that neither loses its last digits to the other.
fn ln_beta_reg_of_parts(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let ln_x = if x > 0.5 { (-y).ln_1p() } else { x.ln() };
    let ln_y = if y > 0.5 { (-x).ln_1p() } else { y.ln() };
    if x > (a + 1.0) / (a + b + 2.0) {
        // The fraction converges slowly here, but the complement is at hand and the result is not small.
        let complement = ln_beta_reg_fraction(b, a, y, ln_y, ln_x).exp();
        return (-complement.min(1.0 - f64::EPSILON)).ln_1p();
    }
    ln_beta_reg_fraction(a, b, x, ln_x, ln_y).min(0.0)
}

fn ln_beta_reg_fraction(a: f64, b: f64, x: f64, ln_x: f64, ln_y: f64) -> f64 {
    let guard = |value: f64| if value.abs() < LENTZ_TINY { LENTZ_TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..=CONTINUED_FRACTION_MAX_STEPS {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        let change = d * c;
        fraction *= change;
        if (change - 1.0).abs() < CONTINUED_FRACTION_TOLERANCE {
            break;
        }
    }
    a * ln_x + b * ln_y - a.ln() - ln_beta(a, b) + fraction.ln()
}

/// ln P(N ≥ `count`) for a negative binomial N with the given `mean` and `size` k (variance mean + mean²/k).
///
/// The tail equals I_{1−q}(count, k) with q = k/(k + mean) (Johnson, Kemp & Kotz, *Univariate Discrete
/// Distributions*, 5.6). `count` may be fractional, which interpolates; zero or less gives ln 1 = 0.
/// `mean` and `size` must be positive.
pub fn ln_negative_binomial_tail(count: f64, mean: f64, size: f64) -> f64 {
    if count <= 0.0 { 0.0 } else { ln_beta_reg_of_parts(count, size, mean / (size + mean), size / (size + mean)) }
}

/// The quantile of ascending `sorted` at `p` in [0, 1], linear between order statistics (Hyndman & Fan 1996, type 7).
/// `None` when there are no values.
pub fn quantile_of_sorted(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = p.clamp(0.0, 1.0) * last as f64;
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let fraction = position - below as f64;
    Some(sorted[below] + fraction * (sorted[above] - sorted[below]))
}

/// Running mean and variance in constant space (Welford 1962).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Welford {
    /// Values seen.
    pub n: u64,
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub m2: f64,
}

impl Welford {
    /// Takes in one value.
    ///
    /// # Errors
    /// `NotFinite`; the state is then unchanged.
    pub fn push(&mut self, value: f64) -> Result<(), InputError> {
        finite("value", value)?;
        self.n += 1;
        let before = value - self.mean;
        self.mean += before / self.n as f64;
        self.m2 += before * (value - self.mean);
        Ok(())
    }

    /// The unbiased sample variance; `None` below two values.
    pub fn variance(&self) -> Option<f64> {
        (self.n >= 2).then(|| (self.m2 / (self.n - 1) as f64).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_negative_binomial_tail_matches_scipy() {
        // scipy.stats.nbinom, mean 12, size 4, P(X >= 40).
        let p = ln_negative_binomial_tail(40.0, 12.0, 4.0).exp();
        assert!((p - 0.002_429_922_389_680_66).abs() < 1e-15, "{p}");
    }

    #[test]
    fn the_negative_binomial_tail_tends_to_the_poisson_tail() {
        // scipy.stats.poisson, mean 12, P(X >= 40); a size of 1e9 leaves no over-dispersion to speak of.
        let p = ln_negative_binomial_tail(40.0, 12.0, 1e9).exp();
        assert!((p / 1.558_711_310_236_478_1e-10 - 1.0).abs() < 1e-5, "{p}");
    }

    #[test]
    fn a_tail_below_the_smallest_float_keeps_its_size() {
        // Far out the tail decays by about (1 − q) per unit, so 10,000 units more cost 10,000 · ln(1 − q).
        let (mean, size) = (1.0, 2.0);
        let step = ln_negative_binomial_tail(30_000.0, mean, size) - ln_negative_binomial_tail(20_000.0, mean, size);
        let per_unit = (mean / (size + mean)).ln();
        assert!((step / (10_000.0 * per_unit) - 1.0).abs() < 1e-3, "{step}");
    }

    #[test]
    fn normal_quantiles_invert_the_distribution_function() {
        for p in [1e-6, 0.05, 0.3, 0.5, 0.8, 0.999] {
            assert!((normal_cdf(normal_quantile(p)) - p).abs() < 1e-12);
        }
        assert!((normal_quantile(0.7) - 0.524_400_512_708_041).abs() < 1e-9);
    }

    #[test]
    fn the_jeffreys_interval_matches_statsmodels() {
        // statsmodels proportion_confint(7, 20, method='jeffreys').
        assert!((beta_quantile(7.5, 13.5, 0.025) - 0.172_28).abs() < 5e-6);
        assert!((beta_quantile(7.5, 13.5, 0.975) - 0.567_77).abs() < 5e-6);
    }

    proptest! {
        #[test]
        fn the_incomplete_beta_agrees_with_an_independent_implementation(
            a in 0.1_f64..200.0, b in 0.1_f64..200.0, x in 0.001_f64..0.999
        ) {
            let ours = ln_beta_reg(a, b, x).exp();
            prop_assert!((0.0..=1.0).contains(&ours));
            prop_assert!((ours - beta_reg(a, b, x)).abs() < 1e-9);
        }

        #[test]
        fn running_moments_equal_the_two_pass_ones(values in prop::collection::vec(-1e6_f64..1e6, 2..60)) {
            let mut state = Welford::default();
            for value in &values {
                state.push(*value).expect("the values are finite");
            }
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
            prop_assert!((state.mean - mean).abs() <= 1e-6);
            let ours = state.variance().expect("there are two values or more");
            prop_assert!((ours - variance).abs() <= 1e-9 * variance.max(1.0));
        }
    }
}
