//! What resources cost. Rates and exact amounts are decimals in units of the currency; an item's amount becomes money once, half to the
//! even minor unit, and every total is a sum of such amounts.

pub mod depreciation;
pub mod estimate;
pub mod model;
pub mod rate_table;
pub mod usage;

mod digital;
mod kinds;
mod sheet;
mod tax;
mod vehicle;

use chrono::{Datelike, NaiveDate};
use koc_chassis::{fault::Violation, money::Currency};
use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive};

/// Decimals of a rate that is computed.
pub const RATE_DECIMALS: u32 = 6;
/// What a decimal of a request stays below.
const MAX_DECIMAL: i64 = 1_000_000_000_000;
/// The most decimals of one.
const MAX_DECIMALS: u32 = 12;

/// Why there is no estimate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CostError {
    Invalid(Vec<Violation>),
    /// No version of the table counts on the day, or it has no row for the key.
    RateMissing {
        table: String,
        key: String,
        date: NaiveDate,
    },
    /// The table is read in another way than the cost model needs.
    TableKind {
        table: String,
        is: rate_table::TableKind,
        must_be: rate_table::TableKind,
    },
}

/// The one rounding: an exact amount in units of the currency to minor units, half to even. None beyond 2⁶³.
pub fn to_minor(amount: Decimal, currency: Currency) -> Option<i64> {
    let minor = amount.checked_mul(Decimal::from(currency.minor_per_unit()))?;
    minor.round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven).to_i64()
}

/// Minor units as an amount in units of the currency.
pub fn from_minor(minor: i64, currency: Currency) -> Decimal {
    Decimal::from(minor) / Decimal::from(currency.minor_per_unit())
}

/// A rate that was computed, as it is shown and multiplied.
pub fn computed_rate(rate: Decimal) -> Decimal {
    rate.round_dp_with_strategy(RATE_DECIMALS, RoundingStrategy::MidpointNearestEven).normalize()
}

/// Reads a decimal of zero or more; RATE_MALFORMED otherwise.
pub fn parse_decimal(field: &str, text: &str) -> Result<Decimal, Violation> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let parsed = plain.then(|| Decimal::from_str_exact(text).ok()).flatten();
    parsed.filter(|d| d.scale() <= MAX_DECIMALS && *d < Decimal::from(MAX_DECIMAL)).map(|d| d.normalize()).ok_or_else(|| {
        let shape = format!("must be a decimal from 0 to below {MAX_DECIMAL} with at most {MAX_DECIMALS} decimals");
        Violation::new(field, "RATE_MALFORMED", shape)
    })
}

/// Reads a share from 0 to 1; SHARE_OUT_OF_RANGE beyond.
pub fn parse_share(field: &str, text: &str) -> Result<Decimal, Violation> {
    let share = parse_decimal(field, text)?;
    if share > Decimal::ONE {
        return Err(Violation::new(field, "SHARE_OUT_OF_RANGE", "must be from 0 to 1"));
    }
    Ok(share)
}

/// Reads a day as `YYYY-MM-DD`; DATE_INVALID for one that no calendar has.
pub fn parse_date(field: &str, text: &str) -> Result<NaiveDate, Violation> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        // The day after it is one too.
        .filter(|date| (1900..=9998).contains(&date.year()))
        .ok_or_else(|| Violation::new(field, "DATE_INVALID", "must be a day of the years 1900 to 9998, as YYYY-MM-DD"))
}

/// Whole months from one day to a later one; below zero for an earlier one.
pub fn months_between(from: NaiveDate, to: NaiveDate) -> i64 {
    let months = i64::from(to.year() - from.year()) * 12 + i64::from(to.month()) - i64::from(from.month());
    months - i64::from(to.day() < from.day())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rust_decimal::dec;

    fn cny() -> Currency {
        Currency::from_code("CNY").expect("CNY is a currency")
    }

    #[test]
    fn an_amount_becomes_money_half_to_even() {
        assert_eq!(to_minor(dec!(0.125), cny()), Some(12));
        assert_eq!(to_minor(dec!(0.135), cny()), Some(14));
        assert_eq!(to_minor(dec!(0.1350001), cny()), Some(14));
        assert_eq!(to_minor(dec!(92233720368547758.08), cny()), None);
        assert_eq!(from_minor(12_345, cny()), dec!(123.45));
        assert_eq!(to_minor(dec!(7.5), Currency::from_code("JPY").expect("yen")), Some(8));
    }

    #[test]
    fn decimals_are_plain_and_bounded() {
        assert_eq!(parse_decimal("r", "0.050"), Ok(dec!(0.05)));
        for bad in ["", "-1", "+1", "1e3", "1_000", " 1", "1000000000000", "0.0000000000001", "1.2.3", "."] {
            assert_eq!(parse_decimal("r", bad).expect_err(bad).rule, "RATE_MALFORMED", "{bad}");
        }
        assert_eq!(parse_share("s", "1.01").expect_err("above").rule, "SHARE_OUT_OF_RANGE");
    }

    #[test]
    fn whole_months_end_on_the_same_day() {
        let day = |text| parse_date("d", text).expect("a day");
        assert_eq!(months_between(day("2026-01-15"), day("2026-02-14")), 0);
        assert_eq!(months_between(day("2026-01-15"), day("2026-02-15")), 1);
        assert_eq!(months_between(day("2026-01-15"), day("2026-01-14")), -1);
        assert_eq!(parse_date("d", "2026-02-30").expect_err("no day").rule, "DATE_INVALID");
    }
}
