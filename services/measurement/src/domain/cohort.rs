//! Comparing an output with its like, and borrowing from them where its own evidence is thin.

pub mod credibility;
pub mod rate;

use serde::{Deserialize, Serialize};

use super::distribution::{normal_cdf, quantile_of_sorted};
use super::error::{InputError, finite, in_range};

/// Outputs a cohort needs before its ranks are trusted and before a broader cohort is no longer asked.
pub const COHORT_MIN_OUTPUTS: usize = 30;
/// Outputs of one cohort that are read at most; the caller samples beyond that.
pub const COHORT_MAX_OUTPUTS: usize = 1_000_000;
/// 1/Φ⁻¹(0.75): makes the median absolute deviation of a normal sample estimate its standard deviation.
pub const MAD_TO_SD: f64 = 1.482_602_218_505_602;
/// The least scale on the ln(1 + x) axis, so that a cohort of near-equals does not turn noise into distance.
pub const MIN_LOG_SCALE: f64 = 0.10;
/// Robust z scores are cut at plus and minus this.
pub const MAX_Z: f64 = 4.0;

/// How specific a cohort is. A cohort holds the outputs of the trailing 180 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CohortLevel {
    /// Same platform, output kind, tier and age bucket.
    Exact,
    /// Same platform and output kind.
    PlatformKind,
    /// Same output kind.
    Kind,
    /// Every output of the programme.
    Programme,
}

/// The values of one metric over one cohort, made ready once to place many in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    sorted: Vec<f64>,
    /// Of ln(1 + x); `None` without values.
    logs: Option<RobustScale>,
}

impl Sample {
    /// From one raw value per output, in any order; each a count or a rate.
    ///
    /// # Errors
    /// `OutOfRange` for a negative value, `NotFinite`, `TooMany`.
    pub fn new(mut values: Vec<f64>) -> Result<Self, InputError> {
        let logs: Vec<f64> =
            values.iter().map(|&value| Ok(in_range("cohort", value, 0.0, f64::MAX)?.ln_1p())).collect::<Result<_, _>>()?;
        let logs = if logs.is_empty() { None } else { Some(RobustScale::fit(&logs)?) };
        values.sort_by(f64::total_cmp);
        Ok(Self { sorted: values, logs })
    }

    /// How many values there are.
    pub fn size(&self) -> usize {
        self.sorted.len()
    }

    /// The mid-rank percentile of `x`: (rank − 0.5)/n with ties sharing their mean rank, which equals
    /// (values below + half of the equal ones)/n (Hazen 1914). In [0, 1]; half without values.
    fn mid_rank_percentile(&self, x: f64) -> f64 {
        let below = self.sorted.partition_point(|value| *value < x);
        let equal = self.sorted[below..].partition_point(|value| *value <= x);
        if self.sorted.is_empty() { 0.5 } else { (below as f64 + 0.5 * equal as f64) / self.sorted.len() as f64 }
    }
}

/// One cohort that a value may be placed in.
#[derive(Debug, Clone, Copy)]
pub struct Cohort<'a> {
    pub level: CohortLevel,
    pub sample: &'a Sample,
}

/// What a normalised value rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NormalisationBasis {
    /// The rank among [`COHORT_MIN_OUTPUTS`] or more.
    Rank,
    /// A normal curve through the robust z of a smaller cohort.
    RobustNormal,
}

/// A metric placed in its cohort.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Normalised {
    /// In [0, 1]; 0.5 is the middle of the cohort.
    pub percentile: f64,
    /// In [−4, 4], on the ln(1 + x) axis.
    pub z: f64,
    pub level: CohortLevel,
    pub cohort_size: usize,
    pub basis: NormalisationBasis,
}

/// Picks the first cohort with at least [`COHORT_MIN_OUTPUTS`] values from `cohorts`, which go from the most specific
/// to the broadest; if none has, the last that is not empty. `None` when all are empty.
pub fn back_off<'a>(cohorts: &[Cohort<'a>]) -> Option<Cohort<'a>> {
    cohorts
        .iter()
        .find(|cohort| cohort.sample.size() >= COHORT_MIN_OUTPUTS)
        .or_else(|| cohorts.iter().rev().find(|cohort| cohort.sample.size() > 0))
        .copied()
}

/// Median and scaled median absolute deviation of a sample (Rousseeuw & Croux 1993 review both).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RobustScale {
    pub median: f64,
    /// Estimates the standard deviation of a normal sample, yet half of the values may be wild.
    pub scaled_mad: f64,
}

impl RobustScale {
    /// # Errors
    /// `Empty`, `TooMany`, `NotFinite`.
    pub fn fit(values: &[f64]) -> Result<Self, InputError> {
        super::error::at_most("cohort", values.len(), COHORT_MAX_OUTPUTS)?;
        for &value in values {
            finite("cohort", value)?;
        }
        let median = median(values.to_vec()).ok_or(InputError::Empty { field: "cohort" })?;
        let distances = values.iter().map(|value| (value - median).abs()).collect();
        let mad = self::median(distances).ok_or(InputError::Empty { field: "cohort" })?;
        Ok(Self { median, scaled_mad: MAD_TO_SD * mad })
    }

    /// Distance of `x` from the median in robust standard deviations of at least `min_scale`, cut at ±[`MAX_Z`].
    pub fn z(&self, x: f64, min_scale: f64) -> f64 {
        ((x - self.median) / self.scaled_mad.max(min_scale)).clamp(-MAX_Z, MAX_Z)
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    quantile_of_sorted(&values, 0.5)
}

/// Places a heavy-tailed count (reads, likes, reach) in its cohort: the rank percentile when the cohort has
/// [`COHORT_MIN_OUTPUTS`], else Φ of the robust z of ln(1 + x). `None` when every cohort is empty: then the metric
/// counts as missing, not as average.
///
/// # Errors
/// `OutOfRange` for a negative count, `NotFinite`.
pub fn normalise(cohorts: &[Cohort<'_>], x: f64) -> Result<Option<Normalised>, InputError> {
    in_range("value", x, 0.0, f64::MAX)?;
    let Some(Cohort { level, sample }) = back_off(cohorts) else { return Ok(None) };
    let Some(logs) = &sample.logs else { return Ok(None) };
    let z = logs.z(x.ln_1p(), MIN_LOG_SCALE);
    let (percentile, basis) = if sample.size() >= COHORT_MIN_OUTPUTS {
        (sample.mid_rank_percentile(x), NormalisationBasis::Rank)
    } else {
        (normal_cdf(z), NormalisationBasis::RobustNormal)
    };
    Ok(Some(Normalised { percentile, z, level, cohort_size: sample.size(), basis }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_robust_scale_matches_scipy() {
        // scipy.stats.median_abs_deviation([1, 2, 3, 4, 100], scale='normal').
        let scale = RobustScale::fit(&[1.0, 2.0, 3.0, 4.0, 100.0]).expect("five finite values");
        assert!((scale.scaled_mad - 1.482_602_218_505_602).abs() < 1e-15);
        assert!((scale.median - 3.0).abs() < 1e-15);
    }

    fn sample(values: &[f64]) -> Sample {
        Sample::new(values.to_vec()).expect("counts")
    }

    #[test]
    fn ties_share_their_rank() {
        let sample = sample(&[3.0, 2.0, 1.0, 2.0]);
        for (x, percentile) in [(0.5, 0.0), (1.0, 0.125), (2.0, 0.5), (2.5, 0.75), (3.0, 0.875), (9.0, 1.0)] {
            assert!((sample.mid_rank_percentile(x) - percentile).abs() < 1e-15, "{x}");
        }
    }

    #[test]
    fn a_thin_cohort_gives_way_to_the_next_broader_one() {
        let (thin, broad) = (sample(&[1.0; COHORT_MIN_OUTPUTS - 1]), sample(&[1.0; COHORT_MIN_OUTPUTS]));
        let cohorts = [
            Cohort { level: CohortLevel::Exact, sample: &thin },
            Cohort { level: CohortLevel::Kind, sample: &broad },
            Cohort { level: CohortLevel::Programme, sample: &broad },
        ];
        assert_eq!(back_off(&cohorts).map(|cohort| cohort.level), Some(CohortLevel::Kind));
        assert_eq!(back_off(&cohorts[..1]).map(|cohort| cohort.level), Some(CohortLevel::Exact));
        assert!(back_off(&[Cohort { level: CohortLevel::Programme, sample: &sample(&[]) }]).is_none());
    }

    #[test]
    fn a_small_cohort_is_read_through_the_normal_curve() {
        let values = sample(&[10.0, 100.0, 1000.0]);
        let cohorts = [Cohort { level: CohortLevel::Programme, sample: &values }];
        let middle = normalise(&cohorts, 100.0).expect("valid counts").expect("a cohort");
        assert_eq!(middle.basis, NormalisationBasis::RobustNormal);
        assert!((middle.percentile - 0.5).abs() < 1e-12);
    }

    #[test]
    fn without_any_cohort_the_metric_is_missing() {
        assert_eq!(normalise(&[], 5.0), Ok(None));
    }

    proptest! {
        #[test]
        fn percentiles_stay_in_the_unit_interval_and_rise_with_the_value(
            values in prop::collection::vec(0.0_f64..1e12, 1..80), x in 0.0_f64..1e12, more in 0.0_f64..1e12
        ) {
            let values = sample(&values);
            let cohorts = [Cohort { level: CohortLevel::Programme, sample: &values }];
            let low = normalise(&cohorts, x).expect("valid counts").expect("a cohort");
            let high = normalise(&cohorts, x + more).expect("valid counts").expect("a cohort");
            prop_assert!((0.0..=1.0).contains(&low.percentile));
            prop_assert!((-MAX_Z..=MAX_Z).contains(&low.z));
            prop_assert!(low.percentile <= high.percentile);
        }

        #[test]
        fn bad_numbers_are_refused_and_never_panic(x in prop::num::f64::ANY, y in prop::num::f64::ANY) {
            let Ok(values) = Sample::new(vec![y]) else { return Ok(()) };
            let cohorts = [Cohort { level: CohortLevel::Programme, sample: &values }];
            if let Ok(Some(placed)) = normalise(&cohorts, x) {
                prop_assert!(placed.z.is_finite() && (0.0..=1.0).contains(&placed.percentile));
            }
        }
    }
}
