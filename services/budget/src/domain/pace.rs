//! How the use of money stands against the time.

use super::{balances::Balances, period::Period};
use chrono::{DateTime, Utc};

/// See the contract's `Pace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Of the period, in ten-thousandths.
    pub elapsed: i32,
    /// Of what is allocated, in ten-thousandths; None when nothing is.
    pub used: Option<i32>,
    /// What will be used by the period's end, in minor units; None before any of it has passed.
    pub forecast: Option<i64>,
}

impl Pace {
    /// At `now`: a straight line through what is owed and paid so far, and at least what is taken already.
    pub fn at(now: DateTime<Utc>, period: &Period, balances: &Balances) -> Self {
        let micros = |from: DateTime<Utc>, to: DateTime<Utc>| i128::from((to - from).num_microseconds().unwrap_or(i64::MAX));
        let elapsed = micros(period.start(), now.clamp(period.start(), period.end()));
        let whole = micros(period.start(), period.end());
        let in_use = i128::from(balances.in_use());
        let gone = i128::from(balances.committed) + i128::from(balances.spent);
        let forecast = (elapsed > 0).then(|| half_up(gone * whole, elapsed).max(in_use));
        Self {
            elapsed: share(elapsed, whole).unwrap_or(0),
            used: share(in_use, balances.allocated.into()),
            forecast: forecast.and_then(|minor| i64::try_from(minor).ok()),
        }
    }
}

/// In ten-thousandths, rounded half up; None of nothing.
fn share(part: i128, of: i128) -> Option<i32> {
    if of <= 0 {
        return None;
    }
    i32::try_from(half_up(part * 10_000, of)).ok()
}

fn half_up(dividend: i128, divisor: i128) -> i128 {
    (2 * dividend + divisor) / (2 * divisor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    fn pace(now: i64, balances: Balances) -> Pace {
        Pace::at(at(now), &Period::new(at(1_000), at(4_000)).expect("a period"), &balances)
    }

    #[test]
    fn a_third_of_the_time_foretells_three_times_what_is_gone() {
        let balances = Balances { allocated: 900, reserved: 10, committed: 60, spent: 40 };
        let pace = pace(2_000, balances);
        assert_eq!(pace, Pace { elapsed: 3_333, used: Some(1_222), forecast: Some(300) });
    }

    #[test]
    fn what_is_taken_already_is_the_least_that_will_be_used() {
        let balances = Balances { allocated: 900, reserved: 500, committed: 0, spent: 7 };
        assert_eq!(pace(2_000, balances).forecast, Some(507));
        assert_eq!(pace(9_000, balances), Pace { elapsed: 10_000, used: Some(5_633), forecast: Some(507) });
    }

    #[test]
    fn nothing_is_foretold_before_the_period_and_nothing_is_a_share_of_nothing() {
        assert_eq!(pace(1_000, Balances::default()), Pace { elapsed: 0, used: None, forecast: None });
        assert_eq!(pace(0, Balances::default()).forecast, None);
        let most = Balances { allocated: i64::MAX, reserved: 0, committed: 0, spent: i64::MAX };
        assert_eq!(pace(1_001, most).forecast, None, "beyond what can be told");
    }

    proptest! {
        #[test]
        fn a_forecast_never_falls_below_what_is_in_use_and_ends_there(
            now in 0..5_000i64, reserved in 0..1_000i64, committed in 0..1_000i64, spent in 0..1_000i64,
        ) {
            let balances = Balances { allocated: 3_000, reserved, committed, spent };
            let pace = pace(now, balances);
            prop_assert_eq!(pace.forecast.is_some(), now > 1_000);
            prop_assert!(pace.forecast.is_none_or(|forecast| forecast >= balances.in_use()));
            if now >= 4_000 {
                prop_assert_eq!(pace.forecast, Some(balances.in_use()));
            }
        }
    }
}
