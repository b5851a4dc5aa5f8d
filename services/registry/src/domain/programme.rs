//! Programmes (项目): one brand in one market.

use super::text::storable;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use koc_chassis::{
    fault::{Violation, Violations},
    ids::ProgrammeId,
    money::Currency,
};

/// A brand's programme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programme {
    pub id: ProgrammeId,
    pub display_name: String,
    /// All money of the programme is in it.
    pub currency: Currency,
    /// Calendar rules use it.
    pub time_zone: Tz,
    pub create_time: DateTime<Utc>,
}

/// What a new programme is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProgramme {
    pub display_name: String,
    pub currency: Currency,
    pub time_zone: Tz,
}

impl NewProgramme {
    /// Reads the names of the currency and of the time zone.
    pub fn parse(display_name: String, currency_code: &str, time_zone: &str) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        violations.take(storable("display_name", &display_name));
        let currency = violations.take(parse_currency(currency_code));
        let time_zone = violations.take(parse_time_zone(time_zone));
        match (currency, time_zone) {
            (Some(currency), Some(time_zone)) => violations.finish().map(|()| Self { display_name, currency, time_zone }),
            _ => Err(violations.finish().err().unwrap_or_default()),
        }
    }
}

/// Errors: CURRENCY_UNKNOWN.
pub fn parse_currency(code: &str) -> Result<Currency, Violation> {
    Currency::from_code(code)
        .ok_or_else(|| Violation::new("currency_code", "CURRENCY_UNKNOWN", "must be a currency of ISO 4217 with minor units"))
}

/// Errors: TIME_ZONE_UNKNOWN.
pub fn parse_time_zone(name: &str) -> Result<Tz, Violation> {
    name.parse().map_err(|_| Violation::new("time_zone", "TIME_ZONE_UNKNOWN", "must be an IANA name such as Asia/Shanghai"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_currency_and_an_unknown_time_zone_are_reported_together() {
        let broken = NewProgramme::parse("Aurora".into(), "ZZZ", "Asia/Nowhere").expect_err("two rules");
        let rules: Vec<_> = broken.iter().map(|v| v.rule.as_str()).collect();
        assert_eq!(rules, ["CURRENCY_UNKNOWN", "TIME_ZONE_UNKNOWN"]);
    }

    #[test]
    fn a_programme_keeps_the_names_it_was_given() {
        let programme = NewProgramme::parse("Aurora".into(), "CNY", "Asia/Shanghai").expect("both exist");
        assert_eq!((programme.currency.code(), programme.time_zone.name()), ("CNY", "Asia/Shanghai"));
    }
}
