//! What a use costs, and from what it follows. An estimate is a function of cost model, usage and the rate tables in force: the same
//! three give the same one.

use super::{CostError, digital, kinds, model::CostModel, rate_table::RateTable, sheet::Sheet, usage::Usage, vehicle};
use chrono::NaiveDate;
use koc_chassis::money::Currency;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

text_enum! {
    /// How a cost answers to one more.
    Behaviour {
        Marginal = "MARGINAL",
        Fixed = "FIXED",
    }
}
serde_text!(Behaviour);

text_enum! {
    /// Whether money leaves.
    Payment {
        Cash = "CASH",
        NonCash = "NON_CASH",
    }
}
serde_text!(Payment);

text_enum! {
    /// What is known of the tax.
    TaxStatus {
        NotTaxed = "NOT_TAXED",
        Determined = "DETERMINED",
        Undetermined = "UNDETERMINED",
    }
}
serde_text!(TaxStatus);

/// Where a rate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Name, version and first day of a rate table; None when the rate stands elsewhere.
    pub table: Option<(String, i64, NaiveDate)>,
    pub text: String,
}

impl Source {
    pub fn of_table(table: &RateTable) -> Self {
        Self { table: Some((table.id.clone(), table.version, table.valid_from)), text: table.source.clone() }
    }
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub name: String,
    pub quantity: Decimal,
    pub unit: String,
    pub rate: Decimal,
    /// quantity × rate in minor units, rounded half to even.
    pub amount: i64,
    pub source: Source,
    pub behaviour: Behaviour,
    pub payment: Payment,
    /// Whether it is what the money would else have brought.
    pub opportunity: bool,
}

/// A figure that was not measured here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assumption {
    pub name: String,
    pub value: String,
    pub is_default: bool,
}

/// A figure beside the items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: Decimal,
}

/// What is known of the tax. Amounts in minor units, there when it is determined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tax {
    pub status: TaxStatus,
    pub category: String,
    pub withheld: Option<i64>,
    pub net: Option<i64>,
    pub source: Option<Source>,
}

impl Tax {
    pub fn none() -> Self {
        Self { status: TaxStatus::NotTaxed, category: String::new(), withheld: None, net: None, source: None }
    }
}

/// What a use costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    pub items: Vec<Item>,
    pub assumptions: Vec<Assumption>,
    pub figures: Vec<Figure>,
    pub tax: Tax,
}

impl Estimate {
    // That the sum of all amounts stays below 2⁶³ was checked when the estimate was made.
    fn sum(&self, of: impl Fn(&Item) -> bool) -> i64 {
        self.items.iter().filter(|item| of(item)).map(|item| item.amount).sum()
    }

    /// What one more adds.
    pub fn marginal(&self) -> i64 {
        self.sum(|item| item.behaviour == Behaviour::Marginal)
    }

    pub fn cash(&self) -> i64 {
        self.sum(|item| item.payment == Payment::Cash)
    }

    pub fn non_cash(&self) -> i64 {
        self.sum(|item| item.payment == Payment::NonCash)
    }

    /// All but what the money would else have brought.
    pub fn amortised(&self) -> i64 {
        self.sum(|item| !item.opportunity)
    }

    pub fn full(&self) -> i64 {
        self.sum(|_| true)
    }
}

/// Estimates a use; `version` is that of the model, `tables` those in force on the usage's day. What is wrong with the usage is told
/// all at once.
pub fn estimate(
    model: &CostModel,
    version: i64,
    usage: &Usage,
    tables: &[RateTable],
    currency: Currency,
) -> Result<Estimate, CostError> {
    let mut sheet = Sheet::new(version, usage, tables, currency);
    match model {
        CostModel::DigitalAsset(cost) | CostModel::HonourSystem(cost) => digital::digital(&mut sheet, model, cost),
        CostModel::GiftKit(cost) => kinds::gift_kit(&mut sheet, cost)?,
        CostModel::RegionalEvent(cost) => kinds::regional_event(&mut sheet, cost),
        CostModel::Stipend(cost) => kinds::stipend(&mut sheet, cost)?,
        CostModel::GiftCard(cost) => kinds::gift_card(&mut sheet, cost)?,
        CostModel::LoanVehicle(cost) => vehicle::loan(&mut sheet, model, cost)?,
        CostModel::Travel(cost) => kinds::travel(&mut sheet, cost)?,
        CostModel::ProductionCrew(cost) => kinds::production_crew(&mut sheet, cost),
        CostModel::EarlyAccess(cost) => kinds::early_access(&mut sheet, cost),
        CostModel::InformationPrivilege(cost) => kinds::information_privilege(&mut sheet, cost),
        CostModel::PaidBoost(cost) => kinds::paid_boost(&mut sheet, cost),
    }
    sheet.finish()
}

#[cfg(test)]
mod tests;
