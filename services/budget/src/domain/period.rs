//! A stretch of time: from its first instant up to, and without, its end.

use chrono::{DateTime, Utc};
use koc_chassis::fault::Violation;

/// A period that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

impl Period {
    /// PERIOD_EMPTY, at `period_end_time`, unless the end comes after the start.
    pub fn new(start: DateTime<Utc>, end: DateTime<Utc>) -> Result<Self, Violation> {
        if start < end {
            Ok(Self { start, end })
        } else {
            Err(Violation::new("period_end_time", "PERIOD_EMPTY", "must be after period_start_time"))
        }
    }

    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }

    pub fn end(&self) -> DateTime<Utc> {
        self.end
    }

    /// Whether `inner` lies wholly in this one.
    pub fn contains(&self, inner: &Period) -> bool {
        self.start <= inner.start && inner.end <= self.end
    }

    /// Whether they share an instant.
    pub fn overlaps(&self, other: &Period) -> bool {
        self.start < other.end && other.start < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    fn period(start: i64, end: i64) -> Period {
        Period::new(at(start), at(end)).expect("not empty")
    }

    #[test]
    fn a_period_without_an_instant_is_refused() {
        assert_eq!(Period::new(at(5), at(5)).expect_err("empty").rule, "PERIOD_EMPTY");
        assert_eq!(Period::new(at(6), at(5)).expect_err("backwards").field, "period_end_time");
    }

    #[test]
    fn periods_that_touch_do_not_overlap() {
        assert!(!period(0, 10).overlaps(&period(10, 20)));
        assert!(period(0, 10).overlaps(&period(9, 20)));
        assert!(period(0, 10).overlaps(&period(2, 3)));
    }

    #[test]
    fn a_period_contains_itself_and_what_lies_within() {
        assert!(period(0, 10).contains(&period(0, 10)));
        assert!(period(0, 10).contains(&period(3, 4)));
        assert!(!period(0, 10).contains(&period(3, 11)));
    }
}
