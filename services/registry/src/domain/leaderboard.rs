//! Leaderboards: who has the most points, ever or in a month. A rank is one more than the number of members with more points, so equals
//! share it. To count those quickly, points fall into buckets that are narrow where most members are.

use chrono::{DateTime, Datelike, Utc};
use chrono_tz::Tz;

/// Months before the present one that are kept.
const KEPT_MONTHS: i32 = 12;
/// Points below [`FIRST_SHARED`] have a bucket each; above, each doubling has so many.
const PER_DOUBLING: i64 = 1 << BITS;
const BITS: u32 = 9;
const FIRST_SHARED: i64 = 2 * PER_DOUBLING;

/// What is ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Board {
    Lifetime,
    Month(Month),
}

/// A month of a programme's calendar, counted from the year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i32);

impl Month {
    /// The month of an instant where the programme is.
    pub fn of(time: DateTime<Utc>, time_zone: Tz) -> Self {
        let local = time.with_timezone(&time_zone);
        Self(local.year() * 12 + local.month0().cast_signed())
    }

    /// Reads a month such as 2026-11.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let (year, month): (i32, i32) = (year.parse().ok()?, month.parse().ok()?);
        (1..=12).contains(&month).then_some(Self(year * 12 + month - 1))
    }

    /// The first month whose board is kept when this is the present one.
    pub fn first_kept(self) -> Self {
        Self(self.0 - KEPT_MONTHS)
    }

    pub fn name(self) -> String {
        format!("{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

impl Board {
    /// The board that is stored under a name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "LIFETIME" => Some(Self::Lifetime),
            month => Month::parse(month).map(Self::Month),
        }
    }

    /// The name it is stored under. That of a month comes before that of a later one, and before LIFETIME.
    pub fn name(self) -> String {
        match self {
            Self::Lifetime => "LIFETIME".to_owned(),
            Self::Month(month) => month.name(),
        }
    }
}

/// A range of points, by a number that rises with them. None where nobody is ranked: at 0.
pub fn bucket(points: i64) -> Option<i32> {
    let bits = i64::BITS - points.leading_zeros();
    match points {
        ..=0 => None,
        1..FIRST_SHARED => i32::try_from(points).ok(),
        _ => {
            // The leading bit and the BITS after it are kept.
            let doubling = bits - 1 - BITS;
            i32::try_from(i64::from(doubling) * PER_DOUBLING + (points >> doubling)).ok()
        }
    }
}

/// The most points that fall into the same bucket.
pub fn bucket_end(points: i64) -> i64 {
    let bits = i64::BITS - points.leading_zeros();
    points | ((1 << bits.saturating_sub(1 + BITS)) - 1)
}

/// Ranks of rows that follow each other on a board, from their points: the first row's rank is known, and that of the second number of
/// points; between the others nobody is missing.
pub fn ranks(points: &[i64], first: i64, second: Option<i64>) -> Vec<i64> {
    let mut ranks: Vec<i64> = Vec::with_capacity(points.len());
    let (mut shared_from, mut numbers) = (0, 1);
    for (i, of) in points.iter().enumerate() {
        let rank = match i.checked_sub(1) {
            None => first,
            Some(before) if points[before] == *of => ranks[before],
            Some(before) => {
                numbers += 1;
                let counted = ranks[before] + i64::try_from(i - shared_from).unwrap_or(i64::MAX);
                shared_from = i;
                if numbers == 2 { second.unwrap_or(counted) } else { counted }
            }
        };
        ranks.push(rank);
    }
    ranks
}

/// The second number of points among rows that follow each other.
pub fn second_number(points: &[i64]) -> Option<i64> {
    points.iter().copied().find(|of| Some(of) != points.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use proptest::prelude::*;

    #[test]
    fn a_month_is_that_of_the_programmes_time_zone() {
        let last_second = Utc.with_ymd_and_hms(2026, 10, 31, 15, 59, 59).single().expect("a time");
        let shanghai = |time| Month::of(time, chrono_tz::Asia::Shanghai).name();
        assert_eq!(shanghai(last_second), "2026-10");
        assert_eq!(shanghai(last_second + chrono::TimeDelta::seconds(1)), "2026-11");
        assert_eq!(Month::of(last_second, chrono_tz::UTC).name(), "2026-10");
    }

    #[test]
    fn a_year_of_months_before_the_present_one_is_kept() {
        let present = Month::parse("2026-01").expect("a month");
        assert_eq!(present.first_kept().name(), "2025-01");
        assert_eq!((Month::parse("2026-13"), Month::parse("2026"), Month::parse("x-01")), (None, None, None));
        assert!(Board::Month(present).name() < Board::Lifetime.name());
    }

    #[test]
    fn small_numbers_have_a_bucket_each_and_nobody_is_ranked_at_none() {
        assert_eq!((bucket(0), bucket(-5)), (None, None));
        assert!((1..FIRST_SHARED).all(|points| bucket(points) == i32::try_from(points).ok() && bucket_end(points) == points));
        assert_eq!(bucket_end(i64::MAX), i64::MAX);
    }

    proptest! {
        #[test]
        fn buckets_rise_with_points_are_narrow_and_leave_none_out(points in 1..i64::MAX) {
            let end = bucket_end(points);
            prop_assert!(end >= points);
            prop_assert_eq!(bucket(end), bucket(points));
            prop_assert!(bucket(points).is_some());
            if end < i64::MAX {
                prop_assert_eq!(bucket(end + 1), bucket(points).map(|bucket| bucket + 1));
            }
            prop_assert!(end - points < (points / PER_DOUBLING).max(1));
        }

        #[test]
        fn ranks_of_a_part_are_those_of_the_whole(mut all in prop::collection::vec(1..12i64, 1..40), from in 0..40usize, len in 1..20usize) {
            all.sort_unstable_by_key(|points| std::cmp::Reverse(*points));
            let rank = |points: i64| 1 + i64::try_from(all.iter().filter(|of| **of > points).count()).expect("few");
            let from = from % all.len();
            let part = &all[from..(from + len).min(all.len())];
            let found = ranks(part, rank(part[0]), second_number(part).map(rank));
            prop_assert_eq!(found, part.iter().map(|points| rank(*points)).collect::<Vec<_>>());
        }
    }
}
