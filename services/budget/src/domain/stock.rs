//! What grants take from: stock of kits, days of cars, crews and seats. And the memo accounts, where costs without cash stand.

use super::cost::estimate::{Estimate, Payment};
use crate::ids::{EstimateId, GrantId, MemoEntryId, MovementId, ProgrammeId, ResourceId, UnitId};
use chrono::{DateTime, NaiveDate, Utc};

/// One movement of a stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    pub id: MovementId,
    pub resource: ResourceId,
    /// Below zero for what went out.
    pub quantity: i64,
    pub on_hand_after: i64,
    pub grant: Option<GrantId>,
    pub reference: String,
    pub actor: String,
    pub create_time: DateTime<Utc>,
}

/// One car, crew or seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub id: UnitId,
    pub programme: ProgrammeId,
    pub resource: ResourceId,
    pub display_name: String,
}

/// A unit is taken from its first day up to, and without, its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    pub grant: GrantId,
    pub unit: UnitId,
    pub start: NaiveDate,
    pub end: NaiveDate,
    pub ended: bool,
}

text_enum! {
    /// The memo accounts.
    MemoAccount {
        Grants = "GRANTS",
        Consumption = "CONSUMPTION",
        Opportunity = "OPPORTUNITY",
    }
}

/// A cost without cash: it leaves `credit` for `debit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoEntry {
    pub id: MemoEntryId,
    pub grant: GrantId,
    pub estimate: EstimateId,
    /// Which item of the estimate, from 0.
    pub ordinal: i32,
    pub item: String,
    pub credit: MemoAccount,
    pub debit: MemoAccount,
    pub amount: i64,
    pub actor: String,
    pub create_time: DateTime<Utc>,
}

/// The entries for what an estimate holds without cash.
pub fn memo_entries(grant: GrantId, id: EstimateId, estimate: &Estimate, actor: &str, now: DateTime<Utc>) -> Vec<MemoEntry> {
    let unpaid = (0_i32..).zip(&estimate.items).filter(|(_, item)| item.payment == Payment::NonCash && item.amount > 0);
    let entry = |(ordinal, item): (i32, &super::cost::estimate::Item)| MemoEntry {
        id: MemoEntryId::new(),
        grant,
        estimate: id,
        ordinal,
        item: item.name.clone(),
        credit: if item.opportunity { MemoAccount::Opportunity } else { MemoAccount::Consumption },
        debit: MemoAccount::Grants,
        amount: item.amount,
        actor: actor.to_owned(),
        create_time: now,
    };
    unpaid.map(entry).collect()
}
