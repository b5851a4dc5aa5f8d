//! A car on loan, by total cost of ownership. The costs of a month × 12 / (365 × utilisation) are what a day costs; days that nobody
//! holds the car stay with the programme.

use super::{
    CostError, computed_rate,
    depreciation::{Book, annuity},
    from_minor,
    model::{CostModel, LoanVehicleCost, Opportunity},
    months_between,
    rate_table::TableKind,
    sheet::{Nature, Sheet},
};
use chrono::{Days, NaiveDate};
use rust_decimal::{Decimal, dec};

const MONTHS_IN_YEAR: Decimal = dec!(12);
const DAYS_IN_YEAR: Decimal = dec!(365);

pub fn loan(sheet: &mut Sheet<'_>, model: &CostModel, cost: &LoanVehicleCost) -> Result<(), CostError> {
    let utilisation = sheet.assumed("utilisation_share", &cost.utilisation_share, LoanVehicleCost::UTILISATION);
    let kilometres = sheet.usage.kilometres;
    let kilometres = sheet.assumed("kilometres", &kilometres, Decimal::ZERO);
    sheet.takes("incidents");
    sheet.assumed("depreciation_method", &Some(cost.depreciation_method.as_str()), "");
    let Some((start, days)) = sheet.period() else { return Ok(()) };
    if start < cost.in_service_date {
        sheet.broken("start_date", "OUT_OF_SERVICE", "must not be before in_service_date");
        return Ok(());
    }
    let Some(book) = model.book(sheet.currency) else {
        sheet.too_large();
        return Ok(());
    };
    let per_day = |annual: Decimal| annual.checked_div(DAYS_IN_YEAR * utilisation).map(computed_rate).unwrap_or_default();
    let held = by_month_of_life(cost.in_service_date, start, days);
    let mut charge = Decimal::ZERO;

    owned(sheet, cost, &book, &held, &per_day, &mut charge);
    let whole = Decimal::from(days);
    for (name, annual) in [
        ("insurance", cost.annual_insurance),
        ("tax", cost.annual_tax),
        ("maintenance", cost.annual_maintenance),
        ("repair", cost.annual_repair),
    ] {
        let rate = per_day(annual);
        charge += rate;
        sheet.add(name, Nature::Fixed, whole, "day", rate);
    }
    for name in ["energy", "tyres"] {
        let (rate, source) = sheet.rate(&cost.kilometre_table_id, TableKind::Keyed, name, Decimal::ONE)?;
        sheet.add_from(source, name, Nature::Marginal, kilometres, "km", rate);
    }
    for incident in &sheet.usage.incidents.clone() {
        let source = sheet.of_usage();
        sheet.add_from(source, "incident", Nature::Marginal, incident.fault_share, "share", incident.cost);
    }
    sheet.figure("charge_per_day", charge);
    sheet.figure("book_value", from_minor(book.value_on(start), sheet.currency));
    Ok(())
}

/// Depreciation, and what the money in the car would else have brought; adds the first day's rates to `charge`.
fn owned(
    sheet: &mut Sheet<'_>,
    cost: &LoanVehicleCost,
    book: &Book,
    held: &[(usize, i64)],
    per_day: &dyn Fn(Decimal) -> Decimal,
    charge: &mut Decimal,
) {
    let currency = sheet.currency;
    let depreciation = |month: usize| from_minor(book.months.get(month).copied().unwrap_or(0), currency) * MONTHS_IN_YEAR;
    let mut add = |sheet: &mut Sheet<'_>, name, nature, annual: &dyn Fn(usize) -> Decimal| {
        for (index, (days, rate)) in merged(held, &|month| per_day(annual(month))).into_iter().enumerate() {
            if index == 0 {
                *charge += rate;
            }
            sheet.add(name, nature, Decimal::from(days), "day", rate);
        }
    };
    match &cost.opportunity_cost {
        Opportunity::CapitalCharge { annual_share } => {
            let share = sheet.assumed("annual_share", annual_share, LoanVehicleCost::ANNUAL_SHARE);
            add(sheet, "depreciation", Nature::Spread, &depreciation);
            let mean =
                |month: usize| from_minor(book.value_after(month), currency) + from_minor(book.value_after(month + 1), currency);
            add(sheet, "capital_charge", Nature::Forgone, &|month| share * mean(month) / Decimal::TWO);
        }
        Opportunity::CapitalRecovery { annual_share } => {
            let share = sheet.assumed("annual_share", annual_share, LoanVehicleCost::ANNUAL_SHARE);
            let rate = share / MONTHS_IN_YEAR;
            let even = annuity(rate, cost.life_months, cost.price, cost.salvage()).unwrap_or(cost.price);
            // When all is paid back only the interest on what is left goes on.
            let ended = |month: usize| month >= cost.life_months as usize;
            let monthly = |month: usize| if ended(month) { cost.salvage() * rate } else { even };
            add(sheet, "capital_recovery", Nature::Spread, &|month| monthly(month) * MONTHS_IN_YEAR);
        }
        Opportunity::LostMargin { monthly_margin, probability_share } => {
            add(sheet, "depreciation", Nature::Spread, &depreciation);
            let annual = *monthly_margin * *probability_share * MONTHS_IN_YEAR;
            add(sheet, "lost_margin", Nature::Forgone, &|_| annual);
        }
    }
}

/// The days of a loan by the month of the car's life, from 0, in which they lie.
fn by_month_of_life(in_service: NaiveDate, start: NaiveDate, days: i64) -> Vec<(usize, i64)> {
    let mut held: Vec<(usize, i64)> = Vec::new();
    let days = u64::try_from(days).unwrap_or(0);
    for day in (0..days).filter_map(|offset| start.checked_add_days(Days::new(offset))) {
        let month = usize::try_from(months_between(in_service, day)).unwrap_or(0);
        match held.last_mut() {
            Some((last, count)) if *last == month => *count += 1,
            _ => held.push((month, 1)),
        }
    }
    held
}

/// The days at each rate, those at the same one together.
fn merged(held: &[(usize, i64)], rate: &dyn Fn(usize) -> Decimal) -> Vec<(i64, Decimal)> {
    let mut merged: Vec<(i64, Decimal)> = Vec::new();
    for (month, days) in held {
        let rate = rate(*month);
        match merged.last_mut() {
            Some((count, last)) if *last == rate => *count += days,
            _ => merged.push((*days, rate)),
        }
    }
    merged
}
