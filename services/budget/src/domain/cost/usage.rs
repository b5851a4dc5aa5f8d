//! How a resource is used.

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// What a usage says; each kind takes some of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The day whose rates count.
    pub date: NaiveDate,
    pub quantity: Option<i64>,
    pub region_code: Option<String>,
    pub start_date: Option<NaiveDate>,
    /// The day after the last.
    pub end_date: Option<NaiveDate>,
    pub kilometres: Option<Decimal>,
    pub incidents: Vec<Incident>,
    pub guests: Option<i64>,
    pub active_users: Option<i64>,
    pub months: Option<i64>,
    pub media_spend: Option<Decimal>,
    pub tax_category: Option<String>,
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    pub cost: Decimal,
    /// The member's.
    pub fault_share: Decimal,
}

impl Usage {
    /// The names of what it says beside the day.
    pub fn given(&self) -> Vec<&'static str> {
        let named = [
            ("quantity", self.quantity.is_some()),
            ("region_code", self.region_code.is_some()),
            ("start_date", self.start_date.is_some()),
            ("end_date", self.end_date.is_some()),
            ("kilometres", self.kilometres.is_some()),
            ("incidents", !self.incidents.is_empty()),
            ("guests", self.guests.is_some()),
            ("active_users", self.active_users.is_some()),
            ("months", self.months.is_some()),
            ("media_spend", self.media_spend.is_some()),
            ("tax_category", self.tax_category.is_some()),
        ];
        named.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}
