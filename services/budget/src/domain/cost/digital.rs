//! What is made once and handed out to many: to issue it costs nothing, and what one user costs is what uptake makes it.

use super::{
    depreciation::{Method, exact},
    model::{CostModel, DigitalCost},
    months_between,
    sheet::{Nature, Sheet},
};
use rust_decimal::{Decimal, RoundingStrategy};

/// cost per month = F / L + M + c × users + s × ⌈users / block⌉; break-even users = (F / L + M) / (v − c), rounded up, where v > c.
pub fn digital(sheet: &mut Sheet<'_>, model: &CostModel, cost: &DigitalCost) {
    let life = model.amortisation_months();
    let issued = sheet.quantity();
    let months = sheet.usage.months;
    let months = sheet.assumed("months", &months, 1);
    sheet.assumed("amortisation_months", &cost.amortisation_months, life);
    let users = sheet.usage.active_users;
    let users = sheet.required("active_users", &users);
    let age = months_between(cost.in_service_date, sheet.usage.date);
    if age < 0 {
        sheet.broken("date", "OUT_OF_SERVICE", "must not be before in_service_date");
    }
    let Some(users) = users else { return };
    // What is written off costs nothing any more.
    let amortised = months.min((i64::from(life) - age).max(0));
    let per_month = exact(Method::StraightLine, cost.development, Decimal::ZERO, life, &[])[0];
    let per_month = super::computed_rate(per_month);
    let (users, months) = (Decimal::from(users), Decimal::from(months));
    sheet.add("issue", Nature::Marginal, issued, "member", Decimal::ZERO);
    sheet.add("development", Nature::Spread, Decimal::from(amortised), "month", per_month);
    sheet.add("run", Nature::Fixed, months, "month", cost.monthly_run);
    sheet.add("users", Nature::Marginal, users * months, "user-month", cost.user_rate);
    let mut marginal = cost.user_rate;
    if let Some((size, rate)) = cost.block {
        let blocks = (users / Decimal::from(size)).round_dp_with_strategy(0, RoundingStrategy::ToPositiveInfinity);
        sheet.add("capacity", Nature::Marginal, blocks * months, "block-month", rate);
        marginal += rate / Decimal::from(size);
    }
    sheet.unit_cost(users * months);
    sheet.figure("marginal_unit_cost", marginal);
    if let Some(value) = cost.user_value_rate.filter(|value| *value > cost.user_rate) {
        let fixed = if amortised > 0 { per_month } else { Decimal::ZERO } + cost.monthly_run;
        if let Some(even) = fixed.checked_div(value - cost.user_rate) {
            sheet.figure("break_even_active_users", even.round_dp_with_strategy(0, RoundingStrategy::ToPositiveInfinity));
        }
    }
}
