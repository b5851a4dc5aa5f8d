//! Periods that decisions are made on.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A period, and the one after it, which begins where this one ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    pub start: DateTime<Utc>,
    /// First instant after it.
    pub end: DateTime<Utc>,
    pub next_end: DateTime<Utc>,
}

/// First instants of the trailing periods, the present one's first. A period before is the one that was decided up to
/// where the next begins; where none was, it is as long as the present one.
pub fn trailing_starts(present: &Period, decided: &[(DateTime<Utc>, DateTime<Utc>)], periods: u32) -> Vec<DateTime<Utc>> {
    let length = present.end.signed_duration_since(present.start);
    let mut starts = vec![present.start];
    while starts.len() < periods as usize {
        let boundary = starts[starts.len() - 1];
        let known = decided.iter().find(|(_, end)| *end == boundary).map(|(start, _)| *start);
        starts.push(known.unwrap_or(boundary - length));
    }
    starts
}

/// How many periods before the present one `time` lies, by [`trailing_starts`]; `None` before the first of them.
pub fn periods_ago(starts: &[DateTime<Utc>], time: DateTime<Utc>) -> Option<u32> {
    starts.iter().position(|start| time >= *start).and_then(|position| u32::try_from(position).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn periods_before_are_those_decided_or_as_long_as_the_present_one() {
        let day = |n: i64| DateTime::from_timestamp(1_700_000_000, 0).expect("in range") + TimeDelta::days(n);
        let present = Period { start: day(0), end: day(90), next_end: day(181) };
        let starts = trailing_starts(&present, &[(day(-92), day(0)), (day(-400), day(-300))], 4);
        assert_eq!(starts, [day(0), day(-92), day(-182), day(-272)]);
        let ago: Vec<Option<u32>> = [5, 0, -1, -92, -93, -272, -273].map(|n| periods_ago(&starts, day(n))).into();
        assert_eq!(ago, [Some(0), Some(0), Some(1), Some(1), Some(2), Some(3), None]);
    }
}
