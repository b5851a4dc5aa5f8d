//! Cost models, one for each kind. Sums and rates are in units of the currency; a sum is a whole number of its minor units.

use super::{
    depreciation::{Book, Method, Point, residual, schedule},
    from_minor, to_minor,
};
use crate::domain::resource_kind::ResourceKind;
use chrono::NaiveDate;
use koc_chassis::{
    fault::{Violation, Violations},
    money::Currency,
};
use rust_decimal::{Decimal, dec};
use serde::{Deserialize, Serialize};

/// Months over which what is made once is spread, by default.
const DIGITAL_MONTHS: u32 = 6;
const HONOUR_MONTHS: u32 = 24;

text_enum! {
    /// Who pays the tax on what a member gets.
    TaxBearer {
        Member = "MEMBER",
        Brand = "BRAND",
    }
}
serde_text!(TaxBearer);

/// What a resource costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CostModel {
    DigitalAsset(DigitalCost),
    HonourSystem(DigitalCost),
    GiftKit(GiftKitCost),
    RegionalEvent(RegionalEventCost),
    Stipend(StipendCost),
    GiftCard(GiftCardCost),
    LoanVehicle(LoanVehicleCost),
    Travel(TravelCost),
    ProductionCrew(ProductionCrewCost),
    EarlyAccess(EarlyAccessCost),
    InformationPrivilege(InformationPrivilegeCost),
    PaidBoost(PaidBoostCost),
}

/// What is made once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigitalCost {
    pub development: Decimal,
    /// None for the default of the kind.
    pub amortisation_months: Option<u32>,
    pub in_service_date: NaiveDate,
    pub monthly_run: Decimal,
    pub user_rate: Decimal,
    /// Users that a block of capacity serves, and what it costs in a month.
    pub block: Option<(u32, Decimal)>,
    pub user_value_rate: Option<Decimal>,
}

/// A box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiftKitCost {
    pub design: Decimal,
    pub proofing: Decimal,
    pub planned_units: u32,
    pub production_table_id: String,
    pub storage_rate: Decimal,
    pub storage_months: Option<Decimal>,
    pub shipping_table_id: String,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionalEventCost {
    pub venue: Decimal,
    pub set_up: Decimal,
    pub staff: Decimal,
    pub catering_rate: Decimal,
    pub guest_rate: Decimal,
    pub capacity: u32,
}

/// Which tax, and who bears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaxRule {
    pub tax_table_id: String,
    pub tax_category: String,
    pub tax_bearer: TaxBearer,
}

/// Pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StipendCost {
    pub payment: Decimal,
    pub tax: TaxRule,
}

/// A card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiftCardCost {
    pub face_value: Decimal,
    pub discount_share: Option<Decimal>,
    pub issuing_rate: Option<Decimal>,
    pub tax: TaxRule,
}

/// What the money in a car would else have brought: one of them, never two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Opportunity {
    CapitalCharge { annual_share: Option<Decimal> },
    CapitalRecovery { annual_share: Option<Decimal> },
    LostMargin { monthly_margin: Decimal, probability_share: Decimal },
}

/// A car.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoanVehicleCost {
    pub price: Decimal,
    /// None with a market curve.
    pub salvage: Option<Decimal>,
    pub life_months: u32,
    pub in_service_date: NaiveDate,
    pub depreciation_method: Method,
    pub residual_curve: Vec<Point>,
    pub opportunity_cost: Opportunity,
    pub annual_insurance: Decimal,
    pub annual_tax: Decimal,
    pub annual_maintenance: Decimal,
    pub annual_repair: Decimal,
    pub kilometre_table_id: String,
    pub utilisation_share: Option<Decimal>,
}

/// A journey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TravelCost {
    pub transport_table_id: String,
    pub night_rate: Decimal,
    pub day_rate: Decimal,
}

/// A crew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductionCrewCost {
    pub day_rate: Decimal,
    pub equipment_rate: Decimal,
    pub job: Decimal,
}

/// A product before others have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyAccessCost {
    pub preparation: Decimal,
    pub planned_members: u32,
    pub member_rate: Decimal,
}

/// What others do not know yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InformationPrivilegeCost {
    pub session: Decimal,
    pub planned_seats: u32,
    pub seat_rate: Decimal,
    pub agreement_rate: Decimal,
}

/// Paid reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaidBoostCost {
    pub fee_share: Decimal,
    pub set_up: Decimal,
}

impl CostModel {
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::DigitalAsset(_) => ResourceKind::DigitalAsset,
            Self::HonourSystem(_) => ResourceKind::HonourSystem,
            Self::GiftKit(_) => ResourceKind::GiftKit,
            Self::RegionalEvent(_) => ResourceKind::RegionalEvent,
            Self::Stipend(_) => ResourceKind::Stipend,
            Self::GiftCard(_) => ResourceKind::GiftCard,
            Self::LoanVehicle(_) => ResourceKind::LoanVehicle,
            Self::Travel(_) => ResourceKind::Travel,
            Self::ProductionCrew(_) => ResourceKind::ProductionCrew,
            Self::EarlyAccess(_) => ResourceKind::EarlyAccess,
            Self::InformationPrivilege(_) => ResourceKind::InformationPrivilege,
            Self::PaidBoost(_) => ResourceKind::PaidBoost,
        }
    }

    /// The rate tables that an estimate needs.
    pub fn tables(&self) -> Vec<&str> {
        match self {
            Self::GiftKit(kit) => vec![&kit.production_table_id, &kit.shipping_table_id],
            Self::Stipend(stipend) => vec![&stipend.tax.tax_table_id],
            Self::GiftCard(card) => vec![&card.tax.tax_table_id],
            Self::LoanVehicle(car) => vec![&car.kilometre_table_id],
            Self::Travel(travel) => vec![&travel.transport_table_id],
            _ => Vec::new(),
        }
    }

    /// What it is in the books at, month by month; None for kinds that have nothing there.
    pub fn book(&self, currency: Currency) -> Option<Book> {
        match self {
            Self::DigitalAsset(digital) | Self::HonourSystem(digital) => {
                let price = to_minor(digital.development, currency)?;
                let months = schedule(Method::StraightLine, price, 0, self.amortisation_months(), &[]);
                Some(Book { price, in_service: digital.in_service_date, months })
            }
            Self::LoanVehicle(car) => car.book(currency),
            _ => None,
        }
    }

    /// Over how many months what was made once is spread; 0 for other kinds.
    pub fn amortisation_months(&self) -> u32 {
        match self {
            Self::DigitalAsset(digital) => digital.amortisation_months.unwrap_or(DIGITAL_MONTHS),
            Self::HonourSystem(digital) => digital.amortisation_months.unwrap_or(HONOUR_MONTHS),
            _ => 0,
        }
    }

    /// Checks what concerns several fields; all that is wrong at once, with `at` before each field.
    pub fn check(&self, at: &str) -> Result<(), Vec<Violation>> {
        match self {
            Self::LoanVehicle(car) => car.check(at),
            _ => Ok(()),
        }
    }
}

impl LoanVehicleCost {
    /// What is left of it at the end of its life.
    pub fn salvage(&self) -> Decimal {
        self.salvage.unwrap_or_else(|| self.price * residual(&self.residual_curve, self.life_months))
    }

    /// The annual rate of interest by default.
    pub const ANNUAL_SHARE: Decimal = dec!(0.06);
    /// The share of days on which it is planned to be held, by default.
    pub const UTILISATION: Decimal = dec!(0.85);

    fn book(&self, currency: Currency) -> Option<Book> {
        let (price, salvage) = (to_minor(self.price, currency)?, to_minor(self.salvage(), currency)?);
        let months = schedule(self.depreciation_method, price, salvage, self.life_months, &self.residual_curve);
        Some(Book { price, in_service: self.in_service_date, months })
    }

    /// The book value before a month of its life, from 0, in units of the currency.
    pub fn value_before(&self, book: &Book, month: usize, currency: Currency) -> Decimal {
        from_minor(book.value_after(month), currency)
    }

    fn check(&self, at: &str) -> Result<(), Vec<Violation>> {
        let mut violations = Violations::default();
        let mut broken = |field: &str, rule: &str, shape: &str| {
            violations.push(Violation::new(format!("{at}.{field}"), rule, shape));
        };
        if self.salvage.is_some_and(|salvage| salvage > self.price) {
            broken("salvage", "SALVAGE_ABOVE_PRICE", "must be at most the price");
        }
        if self.depreciation_method == Method::MarketCurve {
            if self.salvage.is_some() {
                broken("salvage", "SALVAGE_NOT_TAKEN", "must be absent: the residual curve says what is left");
            }
            let curve = &self.residual_curve;
            if curve.is_empty() {
                broken("residual_curve", "RESIDUAL_CURVE_REQUIRED", "must have points");
            }
            let steady = curve.windows(2).all(|pair| pair[0].month < pair[1].month && pair[0].share >= pair[1].share);
            let covers = curve.last().is_none_or(|point| point.month >= self.life_months);
            if !steady || !covers {
                let shape = "must have rising months and falling shares, up to the end of life";
                broken("residual_curve", "RESIDUAL_CURVE_SHAPE", shape);
            }
        } else {
            if self.salvage.is_none() {
                broken("salvage", "SALVAGE_REQUIRED", "must be set");
            }
            if !self.residual_curve.is_empty() {
                broken("residual_curve", "RESIDUAL_CURVE_NOT_TAKEN", "must be empty: only MARKET_CURVE reads it");
            }
        }
        if self.utilisation_share.is_some_and(|share| share.is_zero()) {
            broken("utilisation_share", "SHARE_OUT_OF_RANGE", "must be more than 0");
        }
        violations.finish()
    }
}
