//! Reservations (预占): money held for one purpose.

use super::{balances::Parts, grant};
use crate::ids::{EnvelopeId, MemberId, ProgrammeId, ReservationId};
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::fault::Violation;

/// How long a hold lasts when the caller does not say.
pub const DEFAULT_TIME_TO_LIVE: TimeDelta = TimeDelta::minutes(15);
/// The shortest and the longest hold.
pub const MIN_TIME_TO_LIVE: TimeDelta = TimeDelta::seconds(1);
pub const MAX_TIME_TO_LIVE: TimeDelta = TimeDelta::days(400);

/// Money held for one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub id: ReservationId,
    pub programme: ProgrammeId,
    pub envelope: EnvelopeId,
    pub member: Option<MemberId>,
    pub purpose: String,
    pub parts: Parts,
    /// Part of `released`: what expiry gave back and a Commit may still reserve again. A release by the caller is final.
    pub recoverable: i64,
    pub expire_time: DateTime<Utc>,
    pub create_time: DateTime<Utc>,
}

impl Reservation {
    /// Whether what is held must go back at `now`.
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.parts.reserved > 0 && self.expire_time <= now
    }

    /// Whether it is a grant's, with which its money moves.
    pub fn is_of_grant(&self) -> bool {
        self.purpose.starts_with(grant::PURPOSE)
    }

    /// Whether something was paid, nothing is held or owed, and nothing can be reserved again. A reversal alone changes that.
    pub fn is_wholly_spent(&self) -> bool {
        wholly_spent(&self.parts, self.recoverable)
    }
}

/// See [`Reservation::is_wholly_spent`].
pub fn wholly_spent(parts: &Parts, recoverable: i64) -> bool {
    parts.spent > 0 && parts.reserved == 0 && parts.committed == 0 && recoverable == 0
}

/// Reads how long a hold lasts, `field` being a duration of whole seconds and nanoseconds; 1 second to 400 days. Cut to the
/// microsecond, as the database keeps time: a retry's answer must be the first one to the last digit.
pub fn time_to_live(field: &str, seconds_and_nanos: Option<(i64, i32)>) -> Result<TimeDelta, Violation> {
    let Some((seconds, nanos)) = seconds_and_nanos else { return Ok(DEFAULT_TIME_TO_LIVE) };
    u32::try_from(nanos)
        .ok()
        .and_then(|nanos| TimeDelta::new(seconds, nanos))
        .filter(|ttl| (MIN_TIME_TO_LIVE..=MAX_TIME_TO_LIVE).contains(ttl))
        .map(|ttl| ttl - TimeDelta::nanoseconds(i64::from(ttl.subsec_nanos() % 1_000)))
        .ok_or_else(|| Violation::new(field, "TIME_TO_LIVE_OUT_OF_RANGE", "must be from 1 second to 400 days"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_lasts_fifteen_minutes_unless_told_otherwise() {
        assert_eq!(time_to_live("t", None), Ok(TimeDelta::minutes(15)));
        assert_eq!(time_to_live("t", Some((90, 500_000_000))), Ok(TimeDelta::milliseconds(90_500)));
        assert_eq!(time_to_live("t", Some((1, 1_999))), Ok(TimeDelta::microseconds(1_000_001)));
    }

    #[test]
    fn a_hold_shorter_than_a_second_or_longer_than_four_hundred_days_is_refused() {
        for bad in [(0, 999_999_999), (-5, 0), (34_560_001, 0), (34_560_000, 1), (i64::MAX, 0), (1, -1), (1, 2_000_000_000)] {
            assert_eq!(time_to_live("t", Some(bad)).expect_err("out of range").rule, "TIME_TO_LIVE_OUT_OF_RANGE", "{bad:?}");
        }
        assert!(time_to_live("t", Some((34_560_000, 0))).is_ok());
    }
}
