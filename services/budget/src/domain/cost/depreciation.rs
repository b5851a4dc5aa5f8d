//! How what is owned loses value: schedules by the formulas that spreadsheets use (SLN, DB, DDB, SYD), or by what the market
//! pays. In money each period is rounded half to even, and the last takes what is left, so that a schedule sums to price − salvage.

use chrono::NaiveDate;
use rust_decimal::{Decimal, MathematicalOps, RoundingStrategy, prelude::ToPrimitive};
use serde::{Deserialize, Serialize};

text_enum! {
    /// How a thing loses value.
    Method {
        StraightLine = "STRAIGHT_LINE",
        DecliningBalance = "DECLINING_BALANCE",
        /// The share rounded to three decimals, as spreadsheets do.
        DecliningBalanceRounded = "DECLINING_BALANCE_ROUNDED",
        DoubleDeclining = "DOUBLE_DECLINING",
        SumOfDigits = "SUM_OF_DIGITS",
        MarketCurve = "MARKET_CURVE",
    }
}
serde_text!(Method);

/// A point of a residual curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Age in months.
    pub month: u32,
    /// What is left of the price.
    pub share: Decimal,
}

/// What is left of the price at an age, on straight lines between the points; before the first from 1 at month 0.
pub fn residual(curve: &[Point], month: u32) -> Decimal {
    let mut before = Point { month: 0, share: Decimal::ONE };
    for point in curve {
        if month <= point.month {
            let span = Decimal::from(point.month - before.month);
            return before.share - (before.share - point.share) * Decimal::from(month - before.month) / span;
        }
        before = *point;
    }
    before.share
}

/// The exact amount of each of `periods` periods (at least one); the last takes no remainder. For `MarketCurve` a period is a month of
/// `curve`, which the others do without.
pub fn exact(method: Method, price: Decimal, salvage: Decimal, periods: u32, curve: &[Point]) -> Vec<Decimal> {
    let n = Decimal::from(periods);
    let loss = price - salvage;
    let by_book = |share: Decimal, floor: Decimal| {
        let mut book = price;
        let period = |_| {
            let amount = (book * share).min((book - floor).max(Decimal::ZERO));
            book -= amount;
            amount
        };
        (0..periods).map(period).collect()
    };
    match method {
        Method::StraightLine => vec![loss / n; periods as usize],
        Method::DecliningBalance => by_book(declining_share(price, salvage, periods), Decimal::ZERO),
        Method::DecliningBalanceRounded => {
            let share = declining_share(price, salvage, periods);
            by_book(share.round_dp_with_strategy(3, RoundingStrategy::MidpointAwayFromZero), Decimal::ZERO)
        }
        Method::DoubleDeclining => by_book((Decimal::TWO / n).min(Decimal::ONE), salvage),
        Method::SumOfDigits => {
            let digits = n * (n + Decimal::ONE) / Decimal::TWO;
            (0..periods).map(|period| loss * Decimal::from(periods - period) / digits).collect()
        }
        Method::MarketCurve => (0..periods).map(|month| price * (residual(curve, month) - residual(curve, month + 1))).collect(),
    }
}

/// The share of the book value that is lost in each period: 1 − (salvage / price)^(1 / periods).
fn declining_share(price: Decimal, salvage: Decimal, periods: u32) -> Decimal {
    if price.is_zero() { Decimal::ZERO } else { Decimal::ONE - root(salvage / price, periods) }
}

/// The n-th root of a number from 0 to 1 by Newton's method from above, where it falls steadily.
fn root(of: Decimal, n: u32) -> Decimal {
    const STEPS: u32 = 500;
    if of.is_zero() || n == 1 {
        return of;
    }
    let (count, mut root) = (Decimal::from(n), Decimal::ONE);
    for _ in 0..STEPS {
        let Some(power) = root.checked_powu(u64::from(n - 1)).filter(|power| !power.is_zero()) else { break };
        let next = ((count - Decimal::ONE) * root + of / power) / count;
        if next >= root {
            break;
        }
        root = next;
    }
    root
}

/// The schedule in minor units: each period rounded half to even and never beyond what is left to lose, the last with what is left.
pub fn schedule(method: Method, price: i64, salvage: i64, periods: u32, curve: &[Point]) -> Vec<i64> {
    let mut left = price - salvage;
    let exact = exact(method, Decimal::from(price), Decimal::from(salvage), periods, curve);
    let last = exact.len().saturating_sub(1);
    let period = |(index, amount): (usize, &Decimal)| {
        let rounded = amount.round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven).to_i64();
        let amount = if index == last { left } else { rounded.unwrap_or(left).clamp(0, left) };
        left -= amount;
        amount
    };
    exact.iter().enumerate().map(period).collect()
}

/// The even payment in each period that pays back the loss of value with interest: the annuity of a price and what is left of it
/// (a spreadsheet's −PMT(rate, periods, −price, salvage)).
pub fn annuity(rate: Decimal, periods: u32, price: Decimal, salvage: Decimal) -> Option<Decimal> {
    let loss = price - salvage;
    if rate.is_zero() {
        return loss.checked_div(Decimal::from(periods));
    }
    let growth = (Decimal::ONE + rate).checked_powu(u64::from(periods))?;
    let recovery = rate.checked_mul(growth)?.checked_div(growth - Decimal::ONE)?;
    loss.checked_mul(recovery)?.checked_add(salvage.checked_mul(rate)?)
}

/// What is owned and written down month by month. Amounts in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    pub price: i64,
    pub in_service: NaiveDate,
    /// What each month takes off.
    pub months: Vec<i64>,
}

impl Book {
    /// What the months before take off; all of them at the end of life.
    pub fn value_after(&self, months: usize) -> i64 {
        self.price - self.months.iter().take(months).sum::<i64>()
    }

    /// What it is in the books at on a day: whole months are written off.
    pub fn value_on(&self, date: NaiveDate) -> i64 {
        self.value_after(usize::try_from(super::months_between(self.in_service, date)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rust_decimal::dec;

    fn rounded(values: &[Decimal], decimals: u32) -> Vec<Decimal> {
        values.iter().map(|v| v.round_dp(decimals).normalize()).collect()
    }

    /// From formulajs 4.6.1: SLN, DDB, DB and SYD of cost 200,000, salvage 80,000, life 5.
    #[test]
    fn schedules_are_those_of_spreadsheets() {
        let of = |method| exact(method, dec!(200_000), dec!(80_000), 5, &[]);
        assert_eq!(of(Method::StraightLine), [dec!(24_000); 5]);
        assert_eq!(of(Method::DoubleDeclining), [dec!(80_000), dec!(40_000), dec!(0), dec!(0), dec!(0)]);
        assert_eq!(of(Method::SumOfDigits), [dec!(40_000), dec!(32_000), dec!(24_000), dec!(16_000), dec!(8_000)]);
        let rounded_share = of(Method::DecliningBalanceRounded);
        assert_eq!(rounded_share[..3], [dec!(33_400), dec!(27_822.2), dec!(23_175.8926)]);
        // With the exact share, 1 − 0.4^(1/5) = 0.16744679…, nothing is left to correct.
        let exact_share = of(Method::DecliningBalance);
        assert_eq!(rounded(&exact_share[..1], 2), [dec!(33_489.36)]);
        assert_eq!(exact_share.iter().sum::<Decimal>().round_dp(10), dec!(120_000));
    }

    #[test]
    fn a_curve_loses_what_the_market_takes_off() {
        let curve = [
            Point { month: 12, share: dec!(0.75) },
            Point { month: 24, share: dec!(0.63) },
            Point { month: 36, share: dec!(0.53) },
        ];
        assert_eq!(residual(&curve, 6), dec!(0.875));
        assert_eq!((residual(&curve, 36), residual(&curve, 40)), (dec!(0.53), dec!(0.53)));
        let months = schedule(Method::MarketCurve, 30_000_000, 15_900_000, 36, &curve);
        assert_eq!((months[0], months[12], months[24]), (625_000, 300_000, 250_000));
        assert_eq!(months.iter().sum::<i64>(), 14_100_000);
    }

    /// From formulajs and numpy-financial.
    #[test]
    fn an_annuity_is_that_of_spreadsheets() {
        let monthly = |price, salvage| annuity(dec!(0.06) / dec!(12), 36, price, salvage).expect("in range");
        // Theirs, in binary floating point, is 3287.974370640015; with fifty digits it is this.
        assert_eq!(monthly(dec!(200_000), dec!(110_000)).round_dp(12), dec!(3287.974370639961));
        assert!((monthly(dec!(200_000), dec!(110_000)) - dec!(3287.974370640015)).abs() < dec!(0.000_000_000_1));
        assert_eq!(monthly(dec!(300_000), dec!(135_000)).round_dp(2), dec!(5694.62));
        assert_eq!(annuity(dec!(0), 36, dec!(300_000), dec!(120_000)), Some(dec!(5_000)));
    }

    #[test]
    fn a_book_is_worth_what_is_not_written_off() {
        let months = schedule(Method::StraightLine, 1_000, 100, 7, &[]);
        assert_eq!(months, [129, 129, 129, 129, 129, 129, 126]);
        let in_service = NaiveDate::from_ymd_opt(2026, 1, 31).expect("a day");
        let book = Book { price: 1_000, in_service, months };
        let on = |year, month, day| book.value_on(NaiveDate::from_ymd_opt(year, month, day).expect("a day"));
        assert_eq!((on(2025, 12, 31), on(2026, 2, 28), on(2026, 3, 31)), (1_000, 1_000, 742));
        assert_eq!((on(2026, 8, 31), on(2040, 1, 1)), (100, 100));
    }

    proptest! {
        #[test]
        fn a_schedule_sums_to_price_less_salvage_and_never_rises_in_value(
            price in 0_i64..1_000_000_000_000, part in 0_i64..=1_000, periods in 1_u32..=240,
        ) {
            let salvage = price / 1_000 * part;
            let curve = [Point { month: 240, share: Decimal::new(part, 3) }];
            for method in Method::ALL {
                let salvage = match method {
                    Method::MarketCurve => {
                        (Decimal::from(price) * residual(&curve, periods)).round().to_i64().expect("below the price")
                    }
                    _ => salvage,
                };
                let months = schedule(*method, price, salvage, periods, &curve);
                prop_assert_eq!(months.len(), periods as usize);
                prop_assert_eq!(months.iter().sum::<i64>(), price - salvage, "{:?}", method);
                prop_assert!(months.iter().all(|amount| *amount >= 0), "{:?}", method);
            }
        }
    }
}
