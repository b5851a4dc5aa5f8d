//! The kinds whose costs are sums of rates.

use super::{
    CostError,
    model::{
        EarlyAccessCost, GiftCardCost, GiftKitCost, InformationPrivilegeCost, PaidBoostCost, ProductionCrewCost,
        RegionalEventCost, StipendCost, TravelCost,
    },
    rate_table::TableKind,
    sheet::{Nature, Sheet},
    tax::tax,
};
use rust_decimal::{Decimal, dec};

/// Months that a kit is stored, by default.
const STORAGE_MONTHS: Decimal = dec!(3);

pub fn gift_kit(sheet: &mut Sheet<'_>, cost: &GiftKitCost) -> Result<(), CostError> {
    let kits = sheet.quantity();
    let months = sheet.assumed("storage_months", &cost.storage_months, STORAGE_MONTHS);
    sheet.assumed("planned_units", &Some(cost.planned_units), 1);
    let region = sheet.usage.region_code.clone();
    let Some(region) = sheet.required("region_code", &region) else { return Ok(()) };
    let volume = Decimal::from(cost.planned_units);
    let (production, produced) = sheet.rate(&cost.production_table_id, TableKind::Steps, "", volume)?;
    let (shipping, shipped) = sheet.rate(&cost.shipping_table_id, TableKind::Keyed, &region, Decimal::ONE)?;
    let (design, proofing) = (sheet.part(cost.design, cost.planned_units), sheet.part(cost.proofing, cost.planned_units));
    sheet.add("design", Nature::Spread, kits, "kit", design);
    sheet.add("proofing", Nature::Spread, kits, "kit", proofing);
    sheet.add_from(produced, "production", Nature::Marginal, kits, "kit", production);
    sheet.add("storage", Nature::Marginal, kits * months, "kit-month", cost.storage_rate);
    sheet.add_from(shipped, "shipping", Nature::Marginal, kits, "kit", shipping);
    sheet.unit_cost(kits);
    Ok(())
}

pub fn regional_event(sheet: &mut Sheet<'_>, cost: &RegionalEventCost) {
    let guests = sheet.usage.guests;
    let Some(guests) = sheet.required("guests", &guests) else { return };
    if guests > i64::from(cost.capacity) {
        sheet.broken("guests", "CAPACITY_EXCEEDED", &format!("must be at most {}", cost.capacity));
    }
    let guests = Decimal::from(guests);
    sheet.add("venue", Nature::Fixed, Decimal::ONE, "event", cost.venue);
    sheet.add("set_up", Nature::Fixed, Decimal::ONE, "event", cost.set_up);
    sheet.add("staff", Nature::Fixed, Decimal::ONE, "event", cost.staff);
    sheet.add("catering", Nature::Marginal, guests, "guest", cost.catering_rate);
    sheet.add("guest_supplies", Nature::Marginal, guests, "guest", cost.guest_rate);
    sheet.unit_cost(guests);
}

pub fn stipend(sheet: &mut Sheet<'_>, cost: &StipendCost) -> Result<(), CostError> {
    let payments = sheet.quantity();
    sheet.add("payment", Nature::Marginal, payments, "payment", cost.payment);
    tax(sheet, &cost.tax, cost.payment, payments)
}

pub fn gift_card(sheet: &mut Sheet<'_>, cost: &GiftCardCost) -> Result<(), CostError> {
    let cards = sheet.quantity();
    let discount = sheet.assumed("discount_share", &cost.discount_share, Decimal::ZERO);
    let issuing = sheet.assumed("issuing_rate", &cost.issuing_rate, Decimal::ZERO);
    let price = super::computed_rate(cost.face_value * (Decimal::ONE - discount));
    sheet.add("card", Nature::Marginal, cards, "card", price);
    sheet.add("issuing", Nature::Marginal, cards, "card", issuing);
    tax(sheet, &cost.tax, cost.face_value, cards)
}

pub fn travel(sheet: &mut Sheet<'_>, cost: &TravelCost) -> Result<(), CostError> {
    let persons = sheet.quantity();
    let region = sheet.usage.region_code.clone();
    let region = sheet.required("region_code", &region);
    let (Some((_, days)), Some(region)) = (sheet.period(), region) else { return Ok(()) };
    let (transport, source) = sheet.rate(&cost.transport_table_id, TableKind::Keyed, &region, Decimal::ONE)?;
    let (days, nights) = (Decimal::from(days), Decimal::from(days - 1));
    sheet.add_from(source, "transport", Nature::Marginal, persons, "person", transport);
    sheet.add("nights", Nature::Marginal, persons * nights, "person-night", cost.night_rate);
    sheet.add("allowance", Nature::Marginal, persons * days, "person-day", cost.day_rate);
    sheet.unit_cost(persons);
    Ok(())
}

pub fn production_crew(sheet: &mut Sheet<'_>, cost: &ProductionCrewCost) {
    let crews = sheet.quantity();
    let Some((_, days)) = sheet.period() else { return };
    let days = Decimal::from(days) * crews;
    sheet.add("crew", Nature::Marginal, days, "crew-day", cost.day_rate);
    sheet.add("equipment", Nature::Marginal, days, "crew-day", cost.equipment_rate);
    sheet.add("job", Nature::Marginal, crews, "job", cost.job);
}

pub fn early_access(sheet: &mut Sheet<'_>, cost: &EarlyAccessCost) {
    let members = sheet.quantity();
    let preparation = sheet.part(cost.preparation, cost.planned_members);
    sheet.assumed("planned_members", &Some(cost.planned_members), 1);
    sheet.add("preparation", Nature::Spread, members, "member", preparation);
    sheet.add("access", Nature::Marginal, members, "member", cost.member_rate);
    sheet.unit_cost(members);
}

pub fn information_privilege(sheet: &mut Sheet<'_>, cost: &InformationPrivilegeCost) {
    let seats = sheet.quantity();
    let session = sheet.part(cost.session, cost.planned_seats);
    sheet.assumed("planned_seats", &Some(cost.planned_seats), 1);
    sheet.add("session", Nature::Fixed, seats, "seat", session);
    sheet.add("seat", Nature::Marginal, seats, "seat", cost.seat_rate);
    sheet.add("agreement", Nature::Marginal, seats, "member", cost.agreement_rate);
    sheet.unit_cost(seats);
}

pub fn paid_boost(sheet: &mut Sheet<'_>, cost: &PaidBoostCost) {
    let spend = sheet.usage.media_spend;
    let Some(spend) = sheet.required("media_spend", &spend) else { return };
    let source = sheet.of_usage();
    sheet.add_from(source, "media", Nature::Marginal, Decimal::ONE, "campaign", spend);
    sheet.add("fee", Nature::Marginal, spend, "currency unit", cost.fee_share);
    sheet.add("set_up", Nature::Fixed, Decimal::ONE, "campaign", cost.set_up);
}
