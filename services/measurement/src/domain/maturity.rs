//! How far along a young output is: projecting a count to its mature total.

use serde::{Deserialize, Serialize};

use super::distribution::Welford;
use super::error::{InputError, in_range, positive};

/// Age at which an output counts as mature, in hours (30 days).
pub const MATURITY_HOURS: f64 = 720.0;
/// Matured outputs a platform, kind and age bucket needs before its own growth is used.
pub const MIN_MATURED_OUTPUTS: u64 = 20;
/// Upper ends of the age buckets, in hours.
pub const AGE_BUCKETS_HOURS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 48.0, 96.0, 168.0];
/// Φ⁻¹(0.95).
const Z_95: f64 = 1.645;

/// The index into [`AGE_BUCKETS_HOURS`] of the bucket that holds `age_hours`: the nearest bound that is not below it;
/// anything older than the last bound falls into the last.
///
/// # Errors
/// `NotFinite`; `OutOfRange` for a negative age.
pub fn age_bucket(age_hours: f64) -> Result<usize, InputError> {
    in_range("age_hours", age_hours, 0.0, f64::MAX)?;
    let last = AGE_BUCKETS_HOURS.len() - 1;
    Ok(AGE_BUCKETS_HOURS.iter().position(|&bound| age_hours <= bound).unwrap_or(last))
}

/// The default half-life of a platform's attention, in hours: the age at which half of the 30-day total has come in.
/// The figures for X, Facebook, Instagram, LinkedIn, YouTube and Pinterest are those of Graffius (*Lifespan of social
/// media posts*, 2018 and later); no trustworthy public figure was found for the Chinese platforms, so theirs are
/// assumptions to be replaced by the programme's own median. Names are lower case; an unknown one gets 48 h.
pub fn default_half_life_hours(platform: &str) -> f64 {
    match platform {
        "x" => 0.375,
        "facebook" => 0.5,
        "instagram" => 19.0,
        "linkedin" => 24.0,
        "youtube" => 144.0,
        "pinterest" => 2_520.0,
        "weibo" => 6.0,
        "douyin" | "wechat" => 48.0,
        "xiaohongshu" => 168.0,
        "autohome" | "forum" => 336.0,
        _ => 48.0,
    }
}

/// What a projection rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProjectionBasis {
    /// The output is older than the horizon: the count stands.
    Mature,
    /// The growth of matured outputs of the same platform, kind and age.
    Measured,
    /// Exponential saturation with the platform's half-life.
    HalfLife,
}

/// A count projected to [`MATURITY_HOURS`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    pub median: f64,
    pub mean: f64,
    /// The 90 % interval; `None` where no spread has been measured.
    pub interval: Option<(f64, f64)>,
    pub basis: ProjectionBasis,
}

/// Projects `count_now` at `age_hours` to its total at 30 days.
///
/// With [`MIN_MATURED_OUTPUTS`] in `log_growth` (of ln(N(30 d)/N(age)) over matured outputs at this age) the
/// log-normal growth of Szabo & Huberman (2010, *Predicting the popularity of online content*): median N·e^μ, mean
/// N·e^(μ+σ²/2), 90 % interval N·e^(μ ± 1.645σ). Before that, saturation F(t) = 1 − 2^(−t/half-life).
///
/// # Errors
/// `OutOfRange` for a negative count, or an age or half-life that is not positive; `NotFinite`.
pub fn project_to_maturity(
    count_now: f64,
    age_hours: f64,
    log_growth: &Welford,
    half_life_hours: f64,
) -> Result<Projection, InputError> {
    in_range("count_now", count_now, 0.0, f64::MAX)?;
    positive("age_hours", age_hours)?;
    positive("half_life_hours", half_life_hours)?;
    if age_hours >= MATURITY_HOURS {
        let interval = Some((count_now, count_now));
        return Ok(Projection { median: count_now, mean: count_now, interval, basis: ProjectionBasis::Mature });
    }
    let projection = match log_growth.variance() {
        Some(variance) if log_growth.n >= MIN_MATURED_OUTPUTS => {
            let sd = variance.sqrt();
            let at = |exponent: f64| count_now * exponent.exp();
            Projection {
                median: at(log_growth.mean),
                mean: at(log_growth.mean + variance / 2.0),
                interval: Some((at(log_growth.mean - Z_95 * sd), at(log_growth.mean + Z_95 * sd))),
                basis: ProjectionBasis::Measured,
            }
        }
        _ => {
            let reached = |hours: f64| -(-hours / half_life_hours * std::f64::consts::LN_2).exp_m1();
            let total = count_now * reached(MATURITY_HOURS) / reached(age_hours);
            Projection { median: total, mean: total, interval: None, basis: ProjectionBasis::HalfLife }
        }
    };
    super::error::finite("projection", projection.mean)?;
    Ok(projection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_one_half_life_half_of_the_total_is_in() {
        let projection = project_to_maturity(500.0, 6.0, &Welford::default(), 6.0).expect("valid input");
        assert!((projection.median - 1_000.0).abs() < 1e-6);
        assert_eq!((projection.basis, projection.interval), (ProjectionBasis::HalfLife, None));
    }

    #[test]
    fn measured_growth_takes_over_at_twenty_matured_outputs() {
        let mut growth = Welford::default();
        for i in 0..MIN_MATURED_OUTPUTS {
            let basis = project_to_maturity(100.0, 24.0, &growth, 48.0).expect("valid input").basis;
            assert_eq!(basis, ProjectionBasis::HalfLife);
            growth.push(if i % 2 == 0 { 0.5 } else { 1.5 }).expect("finite");
        }
        let projection = project_to_maturity(100.0, 24.0, &growth, 48.0).expect("valid input");
        assert_eq!(projection.basis, ProjectionBasis::Measured);
        assert!((projection.median - 100.0 * 1.0_f64.exp()).abs() < 1e-9);
        let (low, high) = projection.interval.expect("a measured spread");
        assert!(low < projection.median && projection.median < projection.mean && projection.mean < high);
    }

    #[test]
    fn buckets_double_and_end_open() {
        let buckets: Vec<usize> =
            [0.0, 1.0, 1.5, 24.0, 25.0, 168.0, 9_999.0].iter().filter_map(|&age| age_bucket(age).ok()).collect();
        assert_eq!(buckets, [0, 0, 1, 5, 6, 8, 8]);
        assert!(age_bucket(-1.0).is_err() && age_bucket(f64::NAN).is_err());
    }

    #[test]
    fn a_count_that_is_not_a_number_is_refused() {
        let refused = project_to_maturity(f64::NAN, 1.0, &Welford::default(), 6.0);
        assert_eq!(refused, Err(InputError::NotFinite { field: "count_now" }));
    }
}
