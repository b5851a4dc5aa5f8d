//! Time. The database's clock rules, read through the SQL function `koc_now()` of the service's schema: one clock for all
//! replicas, later than the locks that were taken before it is read, and replaceable by a test. Domain code gets it as an argument.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// How far ahead of ours the clock of a source may be: what it dates later is refused, as it would shut out all that comes after.
pub const MAX_AHEAD: TimeDelta = TimeDelta::minutes(10);

/// The time now, by the database's clock.
pub async fn now(conn: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar("SELECT koc_now()").fetch_one(conn).await
}

/// A time as it goes over the wire.
pub fn to_proto(time: DateTime<Utc>) -> prost_types::Timestamp {
    // Nanoseconds of a chrono time stay below two seconds; the second half is for leap seconds, which the wire has none of.
    let nanos = i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).unwrap_or(0);
    prost_types::Timestamp { seconds: time.timestamp(), nanos }
}

/// A time from the wire, cut to the microseconds that Postgres keeps; outside years 1 to 9999 it is a violation of `field`.
pub fn from_proto(field: &str, time: &prost_types::Timestamp) -> Result<DateTime<Utc>, crate::fault::Violation> {
    const FIRST_SECOND: i64 = -62_135_596_800; // 0001-01-01
    const LAST_SECOND: i64 = 253_402_300_799; // 9999-12-31
    u32::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000 && (FIRST_SECOND..=LAST_SECOND).contains(&time.seconds))
        .and_then(|nanos| DateTime::from_timestamp(time.seconds, nanos / 1_000 * 1_000))
        .ok_or_else(|| crate::fault::Violation::new(field, "timestamp", "must be a time between the years 1 and 9999"))
}

/// As [`from_proto`], where the message must be there.
pub fn required(field: &str, time: Option<&prost_types::Timestamp>) -> Result<DateTime<Utc>, crate::fault::Violation> {
    match time {
        Some(time) => from_proto(field, time),
        None => Err(crate::fault::Violation::new(field, "required", "must be set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_wire_to_the_microsecond() {
        let time = DateTime::from_timestamp(1_767_225_600, 123_456_000).expect("in range");
        assert_eq!(from_proto("t", &to_proto(time)), Ok(time));
    }

    #[test]
    fn a_time_out_of_range_names_its_field() {
        let far = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        assert_eq!(from_proto("as_of", &far).expect_err("far").field, "as_of");
        let torn = prost_types::Timestamp { seconds: 0, nanos: -1 };
        assert!(from_proto("as_of", &torn).is_err());
    }
}
