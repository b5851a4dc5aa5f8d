//! Cost models between the contract and the domain. Fields have the same names on both sides; each is read and written by its type.

use crate::domain::cost::{
    depreciation::{Method, Point},
    from_minor,
    model::{
        CostModel, DigitalCost, EarlyAccessCost, GiftCardCost, GiftKitCost, InformationPrivilegeCost, LoanVehicleCost,
        Opportunity, PaidBoostCost, ProductionCrewCost, RegionalEventCost, StipendCost, TaxBearer, TaxRule, TravelCost,
    },
    parse_date, parse_decimal, parse_share, to_minor,
};
use chrono::NaiveDate;
use koc_chassis::{
    fault::{Violation, Violations},
    money::{Currency, Money},
};
use koc_proto::{google::r#type::Money as Wire, koc::budget::v1 as pb};
use pb::{cost_model::Model, opportunity_cost::Method as Forgone};
use rust_decimal::Decimal;

/// The largest sum, in units of the currency: what follows from it can be computed exactly.
const MAX_SUM: i64 = 10_000_000_000_000;

/// Reads a model's fields; what is wrong is kept, so that all of it is told at once.
pub struct Reader {
    at: String,
    currency: Currency,
    violations: Violations,
}

impl Reader {
    /// `at` stands before each field; empty for the request itself.
    pub fn new(at: &str, currency: Currency) -> Self {
        Self { at: at.to_owned(), currency, violations: Violations::default() }
    }

    pub fn finish(self) -> Result<(), Vec<Violation>> {
        self.violations.finish()
    }

    fn field(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    pub fn sum(&mut self, name: &str, wire: &Option<Wire>) -> Option<Decimal> {
        let field = self.field(name);
        let money = self.violations.take(Money::parse_not_negative(&field, wire.as_ref(), self.currency))?;
        let sum = from_minor(money.minor, self.currency);
        if sum > Decimal::from(MAX_SUM) {
            self.violations.push(Violation::new(field, "AMOUNT_TOO_LARGE", format!("must be at most {MAX_SUM}")));
            return None;
        }
        Some(sum)
    }

    pub fn optional_sum(&mut self, name: &str, wire: &Option<Wire>) -> Option<Option<Decimal>> {
        if wire.is_none() { Some(None) } else { self.sum(name, wire).map(Some) }
    }

    pub fn rate(&mut self, name: &str, text: &str) -> Option<Decimal> {
        let field = self.field(name);
        self.violations.take(parse_decimal(&field, text))
    }

    pub fn optional_rate(&mut self, name: &str, text: &str) -> Option<Option<Decimal>> {
        if text.is_empty() { Some(None) } else { self.rate(name, text).map(Some) }
    }

    pub fn share(&mut self, name: &str, text: &str) -> Option<Decimal> {
        let field = self.field(name);
        self.violations.take(parse_share(&field, text))
    }

    fn optional_share(&mut self, name: &str, text: &str) -> Option<Option<Decimal>> {
        if text.is_empty() { Some(None) } else { self.share(name, text).map(Some) }
    }

    pub fn date(&mut self, name: &str, text: &str) -> Option<NaiveDate> {
        let field = self.field(name);
        self.violations.take(parse_date(&field, text))
    }

    // The contract bounds counts.
    fn count<T: Copy + TryInto<u32>>(&mut self, _: &str, count: &T) -> Option<u32> {
        (*count).try_into().ok()
    }

    fn optional_count<T: Copy + TryInto<u32>>(&mut self, name: &str, count: &T) -> Option<Option<u32>> {
        self.count(name, count).map(|count| (count > 0).then_some(count))
    }

    fn text(&mut self, _: &str, text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn block(&mut self, users: i64, cost: &Option<Wire>) -> Option<Option<(u32, Decimal)>> {
        if (users == 0) != cost.is_none() {
            let field = self.field("block");
            self.violations.push(Violation::new(field, "BLOCK_INCOMPLETE", "must be set exactly when block_users is"));
            return None;
        }
        if users == 0 {
            return Some(None);
        }
        let users = self.count("block_users", &users);
        Some(Some((users?, self.sum("block", cost)?)))
    }

    fn curve(&mut self, points: &[pb::ResidualPoint]) -> Option<Vec<Point>> {
        let points: Vec<Option<Point>> = points
            .iter()
            .enumerate()
            .map(|(index, point)| {
                let share = self.share(&format!("residual_curve[{index}].share"), &point.share);
                Some(Point { month: u32::try_from(point.month).ok()?, share: share? })
            })
            .collect();
        points.into_iter().collect()
    }

    fn opportunity(&mut self, cost: &Option<pb::OpportunityCost>) -> Option<Opportunity> {
        let at = self.field("opportunity_cost");
        let mut within = Reader::new(&at, self.currency);
        let found = match cost.as_ref()?.method.as_ref()? {
            Forgone::CapitalCharge(charge) => within
                .optional_share("capital_charge.annual_share", &charge.annual_share)
                .map(|annual_share| Opportunity::CapitalCharge { annual_share }),
            Forgone::CapitalRecovery(recovery) => within
                .optional_share("capital_recovery.annual_share", &recovery.annual_share)
                .map(|annual_share| Opportunity::CapitalRecovery { annual_share }),
            Forgone::LostMargin(margin) => {
                let monthly = within.sum("lost_margin.monthly_margin", &margin.monthly_margin);
                let share = within.share("lost_margin.probability_share", &margin.probability_share);
                monthly
                    .zip(share)
                    .map(|(monthly_margin, probability_share)| Opportunity::LostMargin { monthly_margin, probability_share })
            }
        };
        self.violations.take_all(within.finish());
        found
    }
}

/// How each type of field is written.
mod write {
    use super::{Currency, Decimal, Money, NaiveDate, Wire, to_minor};

    pub fn sum(sum: &Decimal, currency: Currency) -> Option<Wire> {
        to_minor(*sum, currency).map(|minor| Money::new(minor, currency).to_proto())
    }

    pub fn optional_sum(value: &Option<Decimal>, currency: Currency) -> Option<Wire> {
        value.as_ref().and_then(|value| sum(value, currency))
    }

    pub fn rate(rate: &Decimal, _: Currency) -> String {
        rate.to_string()
    }

    pub fn optional_rate(rate: &Option<Decimal>, _: Currency) -> String {
        rate.map(|rate| rate.to_string()).unwrap_or_default()
    }

    pub fn share(share: &Decimal, currency: Currency) -> String {
        rate(share, currency)
    }

    pub fn optional_share(share: &Option<Decimal>, currency: Currency) -> String {
        optional_rate(share, currency)
    }

    pub fn count<T: TryFrom<u32> + Default>(count: &u32, _: Currency) -> T {
        T::try_from(*count).unwrap_or_default()
    }

    pub fn text(text: &str, _: Currency) -> String {
        text.to_owned()
    }

    pub fn date(date: &NaiveDate, _: Currency) -> String {
        date.to_string()
    }
}

/// Reading and writing a message whose fields stand one beside the other.
macro_rules! flat {
    ($($read:ident, $write:ident: $name:ident { $($field:ident: $kind:ident),+ $(,)? })+) => {$(
        fn $read(reader: &mut Reader, wire: &pb::$name) -> Option<$name> {
            // All are read before the first missing one ends it.
            $(let $field = reader.$kind(stringify!($field), &wire.$field);)+
            Some($name { $($field: $field?),+ })
        }

        fn $write(cost: &$name, currency: Currency) -> pb::$name {
            pb::$name { $($field: write::$kind(&cost.$field, currency)),+ }
        }
    )+};
}

flat! {
    gift_kit, gift_kit_to_proto: GiftKitCost {
        design: sum, proofing: sum, planned_units: count, production_table_id: text, storage_rate: rate,
        storage_months: optional_rate, shipping_table_id: text,
    }
    regional_event, regional_event_to_proto: RegionalEventCost {
        venue: sum, set_up: sum, staff: sum, catering_rate: rate, guest_rate: rate, capacity: count,
    }
    travel, travel_to_proto: TravelCost { transport_table_id: text, night_rate: rate, day_rate: rate }
    production_crew, production_crew_to_proto: ProductionCrewCost { day_rate: rate, equipment_rate: rate, job: sum }
    early_access, early_access_to_proto: EarlyAccessCost { preparation: sum, planned_members: count, member_rate: rate }
    information_privilege, information_privilege_to_proto: InformationPrivilegeCost {
        session: sum, planned_seats: count, seat_rate: rate, agreement_rate: rate,
    }
    paid_boost, paid_boost_to_proto: PaidBoostCost { fee_share: share, set_up: sum }
}

fn digital(reader: &mut Reader, wire: &pb::DigitalCost) -> Option<DigitalCost> {
    let development = reader.sum("development", &wire.development);
    let amortisation_months = reader.optional_count("amortisation_months", &wire.amortisation_months);
    let in_service_date = reader.date("in_service_date", &wire.in_service_date);
    let monthly_run = reader.sum("monthly_run", &wire.monthly_run);
    let user_rate = reader.rate("user_rate", &wire.user_rate);
    let block = reader.block(wire.block_users, &wire.block);
    let user_value_rate = reader.optional_rate("user_value_rate", &wire.user_value_rate);
    Some(DigitalCost {
        development: development?,
        amortisation_months: amortisation_months?,
        in_service_date: in_service_date?,
        monthly_run: monthly_run?,
        user_rate: user_rate?,
        block: block?,
        user_value_rate: user_value_rate?,
    })
}

fn digital_to_proto(cost: &DigitalCost, currency: Currency) -> pb::DigitalCost {
    pb::DigitalCost {
        development: write::sum(&cost.development, currency),
        amortisation_months: cost.amortisation_months.map_or(0, |months| write::count(&months, currency)),
        in_service_date: cost.in_service_date.to_string(),
        monthly_run: write::sum(&cost.monthly_run, currency),
        user_rate: cost.user_rate.to_string(),
        block_users: cost.block.map_or(0, |(users, _)| i64::from(users)),
        block: write::optional_sum(&cost.block.map(|(_, cost)| cost), currency),
        user_value_rate: write::optional_rate(&cost.user_value_rate, currency),
    }
}

/// The contract lets only defined values but UNSPECIFIED through.
fn tax_bearer(bearer: i32) -> Option<TaxBearer> {
    match pb::TaxBearer::try_from(bearer) {
        Ok(pb::TaxBearer::Member) => Some(TaxBearer::Member),
        Ok(pb::TaxBearer::Brand) => Some(TaxBearer::Brand),
        Ok(pb::TaxBearer::Unspecified) | Err(_) => None,
    }
}

fn tax_bearer_to_proto(bearer: TaxBearer) -> i32 {
    match bearer {
        TaxBearer::Member => pb::TaxBearer::Member.into(),
        TaxBearer::Brand => pb::TaxBearer::Brand.into(),
    }
}

fn stipend(reader: &mut Reader, wire: &pb::StipendCost) -> Option<StipendCost> {
    let (tax_table_id, tax_category) = (wire.tax_table_id.clone(), wire.tax_category.clone());
    let payment = reader.sum("payment", &wire.payment);
    let tax_bearer = tax_bearer(wire.tax_bearer)?;
    Some(StipendCost { payment: payment?, tax: TaxRule { tax_table_id, tax_category, tax_bearer } })
}

fn stipend_to_proto(cost: &StipendCost, currency: Currency) -> pb::StipendCost {
    pb::StipendCost {
        payment: write::sum(&cost.payment, currency),
        tax_table_id: cost.tax.tax_table_id.clone(),
        tax_category: cost.tax.tax_category.clone(),
        tax_bearer: tax_bearer_to_proto(cost.tax.tax_bearer),
    }
}

fn gift_card(reader: &mut Reader, wire: &pb::GiftCardCost) -> Option<GiftCardCost> {
    let (tax_table_id, tax_category) = (wire.tax_table_id.clone(), wire.tax_category.clone());
    let face_value = reader.sum("face_value", &wire.face_value);
    let discount_share = reader.optional_share("discount_share", &wire.discount_share);
    let issuing_rate = reader.optional_rate("issuing_rate", &wire.issuing_rate);
    let tax = TaxRule { tax_table_id, tax_category, tax_bearer: tax_bearer(wire.tax_bearer)? };
    Some(GiftCardCost { face_value: face_value?, discount_share: discount_share?, issuing_rate: issuing_rate?, tax })
}

fn gift_card_to_proto(cost: &GiftCardCost, currency: Currency) -> pb::GiftCardCost {
    pb::GiftCardCost {
        face_value: write::sum(&cost.face_value, currency),
        discount_share: write::optional_share(&cost.discount_share, currency),
        issuing_rate: write::optional_rate(&cost.issuing_rate, currency),
        tax_table_id: cost.tax.tax_table_id.clone(),
        tax_category: cost.tax.tax_category.clone(),
        tax_bearer: tax_bearer_to_proto(cost.tax.tax_bearer),
    }
}

fn depreciation_method(method: i32) -> Option<Method> {
    match pb::DepreciationMethod::try_from(method) {
        Ok(pb::DepreciationMethod::StraightLine) => Some(Method::StraightLine),
        Ok(pb::DepreciationMethod::DecliningBalance) => Some(Method::DecliningBalance),
        Ok(pb::DepreciationMethod::DecliningBalanceRounded) => Some(Method::DecliningBalanceRounded),
        Ok(pb::DepreciationMethod::DoubleDeclining) => Some(Method::DoubleDeclining),
        Ok(pb::DepreciationMethod::SumOfDigits) => Some(Method::SumOfDigits),
        Ok(pb::DepreciationMethod::MarketCurve) => Some(Method::MarketCurve),
        Ok(pb::DepreciationMethod::Unspecified) | Err(_) => None,
    }
}

fn depreciation_method_to_proto(method: Method) -> pb::DepreciationMethod {
    match method {
        Method::StraightLine => pb::DepreciationMethod::StraightLine,
        Method::DecliningBalance => pb::DepreciationMethod::DecliningBalance,
        Method::DecliningBalanceRounded => pb::DepreciationMethod::DecliningBalanceRounded,
        Method::DoubleDeclining => pb::DepreciationMethod::DoubleDeclining,
        Method::SumOfDigits => pb::DepreciationMethod::SumOfDigits,
        Method::MarketCurve => pb::DepreciationMethod::MarketCurve,
    }
}

fn loan_vehicle(reader: &mut Reader, wire: &pb::LoanVehicleCost) -> Option<LoanVehicleCost> {
    let price = reader.sum("price", &wire.price);
    let salvage = reader.optional_sum("salvage", &wire.salvage);
    let life_months = reader.count("life_months", &wire.life_months);
    let in_service_date = reader.date("in_service_date", &wire.in_service_date);
    let residual_curve = reader.curve(&wire.residual_curve);
    let opportunity_cost = reader.opportunity(&wire.opportunity_cost);
    let annual_insurance = reader.sum("annual_insurance", &wire.annual_insurance);
    let annual_tax = reader.sum("annual_tax", &wire.annual_tax);
    let annual_maintenance = reader.sum("annual_maintenance", &wire.annual_maintenance);
    let annual_repair = reader.sum("annual_repair", &wire.annual_repair);
    let utilisation_share = reader.optional_share("utilisation_share", &wire.utilisation_share);
    Some(LoanVehicleCost {
        price: price?,
        salvage: salvage?,
        life_months: life_months?,
        in_service_date: in_service_date?,
        depreciation_method: depreciation_method(wire.depreciation_method)?,
        residual_curve: residual_curve?,
        opportunity_cost: opportunity_cost?,
        annual_insurance: annual_insurance?,
        annual_tax: annual_tax?,
        annual_maintenance: annual_maintenance?,
        annual_repair: annual_repair?,
        kilometre_table_id: wire.kilometre_table_id.clone(),
        utilisation_share: utilisation_share?,
    })
}

fn opportunity_to_proto(cost: &Opportunity, currency: Currency) -> pb::OpportunityCost {
    let annual = |share: &Option<Decimal>| write::optional_share(share, currency);
    let method = match cost {
        Opportunity::CapitalCharge { annual_share } => {
            Forgone::CapitalCharge(pb::CapitalCharge { annual_share: annual(annual_share) })
        }
        Opportunity::CapitalRecovery { annual_share } => {
            Forgone::CapitalRecovery(pb::CapitalRecovery { annual_share: annual(annual_share) })
        }
        Opportunity::LostMargin { monthly_margin, probability_share } => Forgone::LostMargin(pb::LostMargin {
            monthly_margin: write::sum(monthly_margin, currency),
            probability_share: probability_share.to_string(),
        }),
    };
    pb::OpportunityCost { method: Some(method) }
}

fn loan_vehicle_to_proto(cost: &LoanVehicleCost, currency: Currency) -> pb::LoanVehicleCost {
    let point = |point: &Point| pb::ResidualPoint { month: write::count(&point.month, currency), share: point.share.to_string() };
    pb::LoanVehicleCost {
        price: write::sum(&cost.price, currency),
        salvage: write::optional_sum(&cost.salvage, currency),
        life_months: write::count(&cost.life_months, currency),
        in_service_date: write::date(&cost.in_service_date, currency),
        depreciation_method: depreciation_method_to_proto(cost.depreciation_method).into(),
        residual_curve: cost.residual_curve.iter().map(point).collect(),
        opportunity_cost: Some(opportunity_to_proto(&cost.opportunity_cost, currency)),
        annual_insurance: write::sum(&cost.annual_insurance, currency),
        annual_tax: write::sum(&cost.annual_tax, currency),
        annual_maintenance: write::sum(&cost.annual_maintenance, currency),
        annual_repair: write::sum(&cost.annual_repair, currency),
        kilometre_table_id: cost.kilometre_table_id.clone(),
        utilisation_share: write::optional_share(&cost.utilisation_share, currency),
    }
}

/// Reads a cost model; all that is wrong with it at once.
pub fn from_proto(wire: Option<&pb::CostModel>, currency: Currency) -> Result<CostModel, Vec<Violation>> {
    let Some(model) = wire.and_then(|wire| wire.model.as_ref()) else {
        return Err(vec![Violation::new("cost_model.model", "required", "must be set")]);
    };
    let kind = match model {
        Model::DigitalAsset(_) => "digital_asset",
        Model::HonourSystem(_) => "honour_system",
        Model::GiftKit(_) => "gift_kit",
        Model::RegionalEvent(_) => "regional_event",
        Model::Stipend(_) => "stipend",
        Model::GiftCard(_) => "gift_card",
        Model::LoanVehicle(_) => "loan_vehicle",
        Model::Travel(_) => "travel",
        Model::ProductionCrew(_) => "production_crew",
        Model::EarlyAccess(_) => "early_access",
        Model::InformationPrivilege(_) => "information_privilege",
        Model::PaidBoost(_) => "paid_boost",
    };
    let at = format!("cost_model.{kind}");
    let mut reader = Reader::new(&at, currency);
    let read = &mut reader;
    let found = match model {
        Model::DigitalAsset(wire) => digital(read, wire).map(CostModel::DigitalAsset),
        Model::HonourSystem(wire) => digital(read, wire).map(CostModel::HonourSystem),
        Model::GiftKit(wire) => gift_kit(read, wire).map(CostModel::GiftKit),
        Model::RegionalEvent(wire) => regional_event(read, wire).map(CostModel::RegionalEvent),
        Model::Stipend(wire) => stipend(read, wire).map(CostModel::Stipend),
        Model::GiftCard(wire) => gift_card(read, wire).map(CostModel::GiftCard),
        Model::LoanVehicle(wire) => loan_vehicle(read, wire).map(CostModel::LoanVehicle),
        Model::Travel(wire) => travel(read, wire).map(CostModel::Travel),
        Model::ProductionCrew(wire) => production_crew(read, wire).map(CostModel::ProductionCrew),
        Model::EarlyAccess(wire) => early_access(read, wire).map(CostModel::EarlyAccess),
        Model::InformationPrivilege(wire) => information_privilege(read, wire).map(CostModel::InformationPrivilege),
        Model::PaidBoost(wire) => paid_boost(read, wire).map(CostModel::PaidBoost),
    };
    reader.finish()?;
    let found = found.ok_or_else(Vec::new)?;
    found.check(&at)?;
    Ok(found)
}

pub fn to_proto(model: &CostModel, currency: Currency) -> pb::CostModel {
    let model = match model {
        CostModel::DigitalAsset(cost) => Model::DigitalAsset(digital_to_proto(cost, currency)),
        CostModel::HonourSystem(cost) => Model::HonourSystem(digital_to_proto(cost, currency)),
        CostModel::GiftKit(cost) => Model::GiftKit(gift_kit_to_proto(cost, currency)),
        CostModel::RegionalEvent(cost) => Model::RegionalEvent(regional_event_to_proto(cost, currency)),
        CostModel::Stipend(cost) => Model::Stipend(stipend_to_proto(cost, currency)),
        CostModel::GiftCard(cost) => Model::GiftCard(gift_card_to_proto(cost, currency)),
        CostModel::LoanVehicle(cost) => Model::LoanVehicle(loan_vehicle_to_proto(cost, currency)),
        CostModel::Travel(cost) => Model::Travel(travel_to_proto(cost, currency)),
        CostModel::ProductionCrew(cost) => Model::ProductionCrew(production_crew_to_proto(cost, currency)),
        CostModel::EarlyAccess(cost) => Model::EarlyAccess(early_access_to_proto(cost, currency)),
        CostModel::InformationPrivilege(cost) => Model::InformationPrivilege(information_privilege_to_proto(cost, currency)),
        CostModel::PaidBoost(cost) => Model::PaidBoost(paid_boost_to_proto(cost, currency)),
    };
    pb::CostModel { model: Some(model) }
}
