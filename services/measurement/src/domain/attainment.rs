//! How far the targets of a brief were reached.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::error::{InputError, at_most, in_range, positive};

/// Targets of one brief, and readings, that one computation reads at most.
pub const MAX_TARGETS: usize = 100;
pub const MAX_READINGS: usize = 100_000;

/// A metric, a value, and by when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputTarget {
    pub metric: String,
    /// Greater than zero; more is better.
    pub target: f64,
    /// A reading at this instant still counts.
    pub by: DateTime<Utc>,
    /// Zero or more; weights need not sum to 1.
    pub weight: f64,
}

/// A cumulative metric at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReading {
    pub metric: String,
    pub at: DateTime<Utc>,
    /// Zero or more.
    pub value: f64,
}

/// How a target stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TargetState {
    /// Reached in time.
    Met,
    /// There is still time.
    Open,
    /// The time is up.
    Missed,
}

/// One target against what was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetAttainment {
    pub metric: String,
    pub target: f64,
    /// The latest reading up to the target's time; `None` if there was none.
    pub reached: Option<f64>,
    /// Reached over target, 0 or more, not cut at 1; 0 without a reading.
    pub ratio: f64,
    pub state: TargetState,
}

/// All targets of a brief.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attainment {
    /// Weighted mean of the ratios, each cut at 1 so that excess in one does not hide a miss in another; in [0, 1].
    /// `None` when no target has weight.
    pub overall: Option<f64>,
    /// The same over targets whose time is up or which are met: what can be judged already.
    pub settled: Option<f64>,
    /// In the order of the targets.
    pub targets: Vec<TargetAttainment>,
}

/// Holds `targets` against `readings` as they stand at `now`. Readings later than a target's time, or than `now`, do not
/// count for it. A target is met by the latest reading in time, so a platform's later correction counts.
///
/// # Errors
/// `OutOfRange` for a target that is not positive, or a negative weight or reading; `NotFinite`; `TooMany`.
pub fn attainment(targets: &[OutputTarget], readings: &[MetricReading], now: DateTime<Utc>) -> Result<Attainment, InputError> {
    at_most("targets", targets.len(), MAX_TARGETS)?;
    at_most("readings", readings.len(), MAX_READINGS)?;
    for reading in readings {
        in_range("reading", reading.value, 0.0, f64::MAX)?;
    }
    let mut results = Vec::with_capacity(targets.len());
    for target in targets {
        positive("target", target.target)?;
        in_range("weight", target.weight, 0.0, 1e9)?;
        let reached = readings
            .iter()
            .filter(|reading| reading.metric == target.metric && reading.at <= target.by.min(now))
            .max_by(|a, b| a.at.cmp(&b.at).then(a.value.total_cmp(&b.value)))
            .map(|reading| reading.value);
        let ratio = (reached.unwrap_or(0.0) / target.target).min(f64::MAX);
        let state = if ratio >= 1.0 {
            TargetState::Met
        } else if now <= target.by {
            TargetState::Open
        } else {
            TargetState::Missed
        };
        results.push(TargetAttainment { metric: target.metric.clone(), target: target.target, reached, ratio, state });
    }
    let overall = weighted(targets.iter().zip(&results));
    let settled = weighted(targets.iter().zip(&results).filter(|(_, result)| result.state != TargetState::Open));
    Ok(Attainment { overall, settled, targets: results })
}

fn weighted<'a>(pairs: impl Iterator<Item = (&'a OutputTarget, &'a TargetAttainment)>) -> Option<f64> {
    let (sum, weight) = pairs.fold((0.0, 0.0), |(sum, weight), (target, result)| {
        (sum + target.weight * result.ratio.min(1.0), weight + target.weight)
    });
    (weight > 0.0).then(|| (sum / weight).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).expect("a valid time") + TimeDelta::hours(hours)
    }

    fn target(metric: &str, target: f64, by: i64, weight: f64) -> OutputTarget {
        OutputTarget { metric: metric.to_owned(), target, by: at(by), weight }
    }

    fn reading(metric: &str, hours: i64, value: f64) -> MetricReading {
        MetricReading { metric: metric.to_owned(), at: at(hours), value }
    }

    #[test]
    fn excess_in_one_metric_does_not_hide_a_miss_in_another() {
        let targets = [target("reads", 100.0, 10, 3.0), target("leads", 10.0, 10, 1.0)];
        let readings = [reading("reads", 5, 900.0), reading("leads", 5, 2.0)];
        let result = attainment(&targets, &readings, at(11)).expect("valid input");
        assert!((result.overall.expect("weights") - 0.8).abs() < 1e-12);
        assert!((result.targets[0].ratio - 9.0).abs() < 1e-12);
        let states: Vec<TargetState> = result.targets.iter().map(|t| t.state).collect();
        assert_eq!(states, [TargetState::Met, TargetState::Missed]);
    }

    #[test]
    fn what_comes_after_the_deadline_does_not_count() {
        let readings = [reading("reads", 9, 40.0), reading("reads", 12, 100.0)];
        let late = attainment(&[target("reads", 100.0, 10, 1.0)], &readings, at(20)).expect("valid input");
        assert_eq!((late.targets[0].reached, late.targets[0].state), (Some(40.0), TargetState::Missed));
        let open = attainment(&[target("reads", 100.0, 30, 1.0)], &readings, at(10)).expect("valid input");
        assert_eq!((open.targets[0].reached, open.targets[0].state), (Some(40.0), TargetState::Open));
        assert_eq!(open.settled, None);
    }

    #[test]
    fn a_metric_never_read_attains_nothing() {
        let result = attainment(&[target("reads", 1.0, 1, 1.0)], &[], at(2)).expect("valid input");
        assert_eq!((result.overall, result.targets[0].reached), (Some(0.0), None));
        assert_eq!(attainment(&[], &[], at(0)).expect("valid input").overall, None);
    }

    #[test]
    fn targets_and_readings_that_make_no_sense_are_refused() {
        assert!(attainment(&[target("reads", 0.0, 1, 1.0)], &[], at(0)).is_err());
        assert!(attainment(&[target("reads", 1.0, 1, -1.0)], &[], at(0)).is_err());
        assert!(attainment(&[], &[reading("reads", 0, f64::NAN)], at(0)).is_err());
    }

    proptest! {
        #[test]
        fn attainment_stays_in_the_unit_interval(
            pairs in prop::collection::vec((1e-6_f64..1e9, 0.0_f64..10.0, 0.0_f64..1e12), 0..10)
        ) {
            let targets: Vec<OutputTarget> =
                pairs.iter().enumerate().map(|(i, &(t, w, _))| target(&i.to_string(), t, 5, w)).collect();
            let readings: Vec<MetricReading> =
                pairs.iter().enumerate().map(|(i, &(_, _, v))| reading(&i.to_string(), 1, v)).collect();
            let result = attainment(&targets, &readings, at(6)).expect("valid input");
            prop_assert!(result.overall.is_none_or(|overall| (0.0..=1.0).contains(&overall)));
        }
    }
}
