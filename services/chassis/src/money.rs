//! Money: a whole number of minor units of one currency. Never a float, never rounded on the way in.

use crate::fault::Violation;
use koc_proto::google::r#type::Money as Wire;

/// A currency by ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency(iso_currency::Currency);

const NANOS_PER_UNIT: i128 = 1_000_000_000;

impl Currency {
    /// Finds a currency by its three-letter code; None for unknown ones and for those without minor units (gold, test codes).
    pub fn from_code(code: &str) -> Option<Self> {
        let currency = iso_currency::Currency::from_code(code)?;
        currency.exponent().filter(|e| *e <= 9).map(|_| Self(currency))
    }

    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Minor units in a unit: 100 for CNY, 1 for JPY, 1,000 for KWD.
    pub fn minor_per_unit(self) -> i64 {
        10_i64.pow(u32::from(self.0.exponent().unwrap_or(0)))
    }
}

/// An amount in minor units of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

impl Money {
    pub fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Reads an amount of `currency` from `field`. Another currency, an amount finer than the currency allows, parts of
    /// different sign and an amount beyond 2⁶³ minor units are violations; nothing is rounded.
    pub fn parse(field: &str, wire: &Wire, currency: Currency) -> Result<Self, Violation> {
        if wire.currency_code != currency.code() {
            let shape =
                format!("must be in {}; got a code of {} characters", currency.code(), wire.currency_code.chars().count());
            return Err(Violation::new(format!("{field}.currency_code"), "CURRENCY_MISMATCH", shape));
        }
        let nanos = i128::from(wire.nanos);
        if nanos.abs() >= NANOS_PER_UNIT || (nanos != 0 && wire.units != 0 && (nanos > 0) != (wire.units > 0)) {
            let rule = "must lie between -999,999,999 and 999,999,999 and have the sign of units";
            return Err(Violation::new(format!("{field}.nanos"), "AMOUNT_MALFORMED", rule));
        }
        let minor_per_unit = i128::from(currency.minor_per_unit());
        let nanos_per_minor = NANOS_PER_UNIT / minor_per_unit;
        if nanos % nanos_per_minor != 0 {
            let rule = format!("must be a whole number of 1/{minor_per_unit} {}; it is finer", currency.code());
            return Err(Violation::new(format!("{field}.nanos"), "AMOUNT_TOO_FINE", rule));
        }
        let minor = i128::from(wire.units) * minor_per_unit + nanos / nanos_per_minor;
        i64::try_from(minor)
            .map(|minor| Self { minor, currency })
            .map_err(|_| Violation::new(format!("{field}.units"), "AMOUNT_TOO_LARGE", "must be below 2^63 minor units"))
    }

    /// As [`Self::parse`], where the message must be there.
    pub fn parse_required(field: &str, wire: Option<&Wire>, currency: Currency) -> Result<Self, Violation> {
        match wire {
            Some(wire) => Self::parse(field, wire, currency),
            None => Err(Violation::new(field, "required", "must be set")),
        }
    }

    /// As [`Self::parse_required`], for an amount that must be more than zero.
    pub fn parse_positive(field: &str, wire: Option<&Wire>, currency: Currency) -> Result<Self, Violation> {
        let money = Self::parse_required(field, wire, currency)?;
        if money.minor <= 0 {
            return Err(Violation::new(field, "AMOUNT_NOT_POSITIVE", "must be more than zero"));
        }
        Ok(money)
    }

    /// As [`Self::parse_required`], for an amount that must be zero or more.
    pub fn parse_not_negative(field: &str, wire: Option<&Wire>, currency: Currency) -> Result<Self, Violation> {
        let money = Self::parse_required(field, wire, currency)?;
        if money.minor < 0 {
            return Err(Violation::new(field, "AMOUNT_NEGATIVE", "must be zero or more"));
        }
        Ok(money)
    }

    pub fn to_proto(self) -> Wire {
        let minor_per_unit = self.currency.minor_per_unit();
        let nanos_per_minor = 1_000_000_000 / minor_per_unit;
        let nanos = i32::try_from(self.minor % minor_per_unit * nanos_per_minor).unwrap_or(0); // below a unit: fits
        Wire { currency_code: self.currency.code().to_owned(), units: self.minor / minor_per_unit, nanos }
    }

    /// Splits the amount in proportion to `weights`, in whole minor units that sum to it exactly: each part is rounded down and
    /// what is left goes, one unit each, to the largest remainders, the earlier first (largest-remainder method). All zero
    /// weights give all to the first part. For amounts of zero or more.
    pub fn split(self, weights: &[u32]) -> Vec<Money> {
        let total: i128 = weights.iter().map(|w| i128::from(*w)).sum();
        if weights.is_empty() {
            return Vec::new();
        }
        let amount = i128::from(self.minor.max(0));
        let exact = |w: u32| if total == 0 { (0, 0) } else { (amount * i128::from(w) / total, amount * i128::from(w) % total) };
        let mut parts: Vec<i128> = weights.iter().map(|w| exact(*w).0).collect();
        let mut left = amount - parts.iter().sum::<i128>();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(exact(weights[*i]).1));
        for i in order.iter().cycle() {
            if left == 0 {
                break;
            }
            // With all weights zero the whole amount is left: it goes to the first part at once.
            let step = if total == 0 { left } else { 1 };
            parts[*i] += step;
            left -= step;
        }
        parts.into_iter().map(|minor| Money::new(i64::try_from(minor).unwrap_or(i64::MAX), self.currency)).collect()
    }
}

impl std::fmt::Display for Money {
    /// `CNY 1234.50`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let per_unit = self.currency.minor_per_unit();
        let (units, rest) =
            (self.minor.unsigned_abs() / per_unit.unsigned_abs(), self.minor.unsigned_abs() % per_unit.unsigned_abs());
        let sign = if self.minor < 0 { "-" } else { "" };
        let digits = usize::from(self.currency.0.exponent().unwrap_or(0));
        match digits {
            0 => write!(f, "{} {sign}{units}", self.currency.code()),
            _ => write!(f, "{} {sign}{units}.{rest:0digits$}", self.currency.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cny() -> Currency {
        Currency::from_code("CNY").expect("CNY is a currency")
    }

    fn wire(units: i64, nanos: i32) -> Wire {
        Wire { currency_code: "CNY".into(), units, nanos }
    }

    #[test]
    fn an_amount_finer_than_the_currency_is_refused_not_rounded() {
        let refused = Money::parse("amount", &wire(1, 5_000_000), cny()).expect_err("half a fen");
        assert_eq!((refused.field.as_str(), refused.rule.as_str()), ("amount.nanos", "AMOUNT_TOO_FINE"));
        assert_eq!(Money::parse("amount", &wire(1, 50_000_000), cny()).expect("5 fen").minor, 105);
    }

    #[test]
    fn parts_of_different_sign_and_other_currencies_are_refused() {
        assert_eq!(Money::parse("a", &wire(1, -10_000_000), cny()).expect_err("signs").rule, "AMOUNT_MALFORMED");
        let dollars = Wire { currency_code: "USD".into(), units: 1, nanos: 0 };
        assert_eq!(Money::parse("a", &dollars, cny()).expect_err("currency").rule, "CURRENCY_MISMATCH");
        assert_eq!(Money::parse("a", &wire(i64::MAX, 0), cny()).expect_err("size").rule, "AMOUNT_TOO_LARGE");
    }

    #[test]
    fn currencies_without_minor_units_have_none() {
        assert_eq!(Currency::from_code("JPY").expect("yen").minor_per_unit(), 1);
        assert_eq!(Currency::from_code("KWD").expect("dinar").minor_per_unit(), 1_000);
        assert_eq!(Currency::from_code("ZZZ"), None);
        assert_eq!(Money::new(-105, cny()).to_string(), "CNY -1.05");
    }

    proptest! {
        #[test]
        fn money_survives_the_wire(minor in any::<i64>()) {
            let money = Money::new(minor, cny());
            prop_assert_eq!(Money::parse("a", &money.to_proto(), cny()), Ok(money));
        }

        #[test]
        fn parts_sum_to_the_whole_and_stay_within_one_unit_of_their_share(
            minor in 0..i64::MAX, weights in prop::collection::vec(0u32..1_000, 1..20),
        ) {
            let parts = Money::new(minor, cny()).split(&weights);
            prop_assert_eq!(parts.iter().map(|p| i128::from(p.minor)).sum::<i128>(), i128::from(minor));
            let total: i128 = weights.iter().map(|w| i128::from(*w)).sum();
            if total > 0 {
                for (part, weight) in parts.iter().zip(&weights) {
                    let share = i128::from(minor) * i128::from(*weight) / total;
                    prop_assert!((i128::from(part.minor) - share).abs() <= 1);
                }
            }
        }
    }
}
