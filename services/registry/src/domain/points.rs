//! Points (积分): lots, and the entries that move them. A balance is the sum of its entries, and of what is left in the lots, at any time.

use super::name::named;
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::{fault::Violation, ids::MemberId};
use std::collections::BTreeMap;
use uuid::Uuid;

mod parcel;

pub use parcel::Parcel;

#[cfg(test)]
mod tests;

koc_chassis::typed_id! {
    /// One entry of the ledger of points.
    EntryId,
}

/// What comes back to a lot that has expired meanwhile lives so long.
pub const RETURN_LIFE: TimeDelta = TimeDelta::days(30);

named! {
    /// What an entry records.
    Kind {
        Earn = "EARN",
        Redeem = "REDEEM",
        Expire = "EXPIRE",
        Reverse = "REVERSE",
        /// Brought by a merge, or brought back by its end.
        MergeIn = "MERGE_IN",
        /// Taken by a merge, or by its end.
        MergeOut = "MERGE_OUT",
    }
}

/// Where points come from or go, and what for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// A reference such as `assignment/…`.
    pub reference: String,
    pub reason_code: String,
}

/// One entry, as it is kept for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: EntryId,
    pub member: MemberId,
    /// Dense per member, from 1.
    pub sequence: i64,
    pub kind: Kind,
    /// What was asked; more than zero.
    pub amount: i64,
    /// What it added to the balance.
    pub change: i64,
    pub balance_after: i64,
    pub lifetime_after: i64,
    pub source: Source,
    /// The entry that is reversed, or whose lot expired.
    pub origin: Option<Origin>,
    /// Of an earning.
    pub expire_time: Option<DateTime<Utc>>,
    pub actor: String,
    pub entry_time: DateTime<Utc>,
}

/// An entry that another one rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub id: EntryId,
    pub sequence: i64,
}

impl Entry {
    /// What was to be reversed and was not there.
    pub fn shortfall(&self) -> i64 {
        if self.kind == Kind::Reverse { self.amount - self.change.abs() } else { 0 }
    }

    fn origin(&self) -> Origin {
        Origin { id: self.id, sequence: self.sequence }
    }
}

/// What is left of an earning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    pub earning: Origin,
    pub source: Source,
    pub amount: i64,
    pub remaining: i64,
    /// What a reversal of the earning fell short of: what comes back makes it up first.
    pub shortfall: i64,
    pub expire_time: Option<DateTime<Utc>>,
    /// The merges that brought it here, the last one last.
    pub merges: Vec<Uuid>,
}

impl Lot {
    fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.expire_time.is_some_and(|time| time <= now)
    }

    /// First what expires first, then what was earned first.
    fn order(&self) -> (DateTime<Utc>, i64) {
        (self.expire_time.unwrap_or(DateTime::<Utc>::MAX_UTC), self.earning.sequence)
    }
}

/// What a redemption took from a lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The redemption.
    pub sequence: i64,
    pub lot_sequence: i64,
    pub amount: i64,
}

/// A member's points. The lots are those that the change at hand may touch, by the sequence of their earnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub member: MemberId,
    pub balance: i64,
    pub lifetime: i64,
    pub last_sequence: i64,
    /// Whether leaderboards show the member.
    pub listed: bool,
    pub lots: BTreeMap<i64, Lot>,
}

/// Points to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earning {
    pub source: Source,
    pub amount: i64,
    pub expire_time: Option<DateTime<Utc>>,
}

impl Earning {
    /// EXPIRE_TIME_PAST unless there is some time in which they can be redeemed.
    pub fn check_time(&self, now: DateTime<Utc>) -> Result<(), Violation> {
        match self.expire_time {
            Some(time) if time <= now => Err(Violation::new("expire_time", "EXPIRE_TIME_PAST", "must be later than now")),
            _ => Ok(()),
        }
    }
}

/// Why points do not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{asked} points were asked; the balance is {balance}")]
    Insufficient { member: MemberId, asked: i64, balance: i64 },
    #[error("the source was used for {amount} points with this reason")]
    SourceUsed { entry: EntryId, amount: i64 },
    #[error("an entry of the kind {} cannot be reversed", kind.name())]
    NotReversible { entry: EntryId, kind: Kind },
    #[error("{asked} points were to be reversed; the entry has {amount}")]
    ExceedsEntry { entry: EntryId, asked: i64, amount: i64 },
    #[error("the entry was reversed by {amount} points already")]
    Reversed { reversal: EntryId, amount: i64 },
}

/// Who acts, when, and where the ids of entries come from.
pub struct Act<'a> {
    pub actor: &'a str,
    pub now: DateTime<Utc>,
    pub ids: &'a mut (dyn FnMut() -> EntryId + Send),
}

/// What an entry is to record.
struct Movement {
    kind: Kind,
    amount: i64,
    change: i64,
    lifetime_change: i64,
    source: Source,
    origin: Option<Origin>,
    expire_time: Option<DateTime<Utc>>,
}

impl Account {
    /// Gives points, as a lot of their own.
    pub fn earn(&mut self, earning: Earning, act: &mut Act<'_>) -> Entry {
        let Earning { source, amount, expire_time } = earning;
        let (kind, from) = (Kind::Earn, source.clone());
        let movement =
            Movement { kind, amount, change: amount, lifetime_change: amount, source: from, origin: None, expire_time };
        let entry = self.enter(movement, act);
        let lot =
            Lot { earning: entry.origin(), source, amount, remaining: amount, shortfall: 0, expire_time, merges: Vec::new() };
        self.lots.insert(entry.sequence, lot);
        entry
    }

    /// Empties the lots whose time is over, an entry each.
    pub fn expire_due(&mut self, act: &mut Act<'_>) -> Vec<Entry> {
        let now = act.now;
        let mut entries = Vec::new();
        for sequence in self.in_order(|lot| lot.is_due(now)) {
            let Some(lot) = self.lots.get_mut(&sequence) else { continue };
            let (amount, source, origin) = (std::mem::take(&mut lot.remaining), lot.source.clone(), Some(lot.earning));
            let change = -amount;
            let movement = Movement { kind: Kind::Expire, amount, change, lifetime_change: 0, source, origin, expire_time: None };
            entries.push(self.enter(movement, act));
        }
        entries
    }

    /// Takes points from the lots that expire first. As many of the open lots as hold the amount are known, those that expire first,
    /// and none is due.
    pub fn redeem(&mut self, source: Source, amount: i64, act: &mut Act<'_>) -> Result<(Entry, Vec<Draw>), Refusal> {
        if amount > self.balance {
            return Err(Refusal::Insufficient { member: self.member, asked: amount, balance: self.balance });
        }
        let (order, mut taken) = (self.in_order(|_| true), Vec::new());
        self.take(&order, amount, &mut taken);
        let change = -amount;
        let movement =
            Movement { kind: Kind::Redeem, amount, change, lifetime_change: 0, source, origin: None, expire_time: None };
        let entry = self.enter(movement, act);
        let sequence = entry.sequence;
        let draws = taken.into_iter().map(|(lot_sequence, amount)| Draw { sequence, lot_sequence, amount }).collect();
        Ok((entry, draws))
    }

    /// Reverses an earning or a redemption, by `amount` of it. Of the open lots as many are known as hold the amount, those that expire
    /// first, and those of the origin and of its `draws`; none is due. Points that are no longer there stay away: the entry falls short of them, and the balance never goes below zero.
    pub fn reverse(&mut self, origin: &Entry, draws: &[Draw], amount: i64, act: &mut Act<'_>) -> Result<Entry, Refusal> {
        if amount > origin.amount {
            return Err(Refusal::ExceedsEntry { entry: origin.id, asked: amount, amount: origin.amount });
        }
        let (change, lifetime_change) = match origin.kind {
            Kind::Earn => (-self.take_back(origin.sequence, amount), -amount),
            Kind::Redeem => (self.give_back(draws, amount, act.now), 0),
            kind @ (Kind::Expire | Kind::Reverse | Kind::MergeIn | Kind::MergeOut) => {
                return Err(Refusal::NotReversible { entry: origin.id, kind });
            }
        };
        let (source, origin) = (origin.source.clone(), Some(origin.origin()));
        let movement = Movement { kind: Kind::Reverse, amount, change, lifetime_change, source, origin, expire_time: None };
        Ok(self.enter(movement, act))
    }

    /// Takes an earning's points from its own lot, then from the others; gives how many there were.
    fn take_back(&mut self, sequence: i64, amount: i64) -> i64 {
        let taken = amount.min(self.balance);
        let mut order = vec![sequence];
        order.extend(self.in_order(|lot| lot.earning.sequence != sequence));
        self.take(&order, taken, &mut Vec::new());
        if let Some(lot) = self.lots.get_mut(&sequence) {
            lot.shortfall = amount - taken;
        }
        taken
    }

    /// Puts points back where a redemption took them, first where they live longest; gives how many there were after the shortfalls of
    /// the lots.
    fn give_back(&mut self, draws: &[Draw], amount: i64, now: DateTime<Utc>) -> i64 {
        let mut draws: Vec<&Draw> = draws.iter().collect();
        draws.sort_unstable_by_key(|draw| std::cmp::Reverse(self.lots.get(&draw.lot_sequence).map(Lot::order)));
        let (mut left, mut given) = (amount, 0);
        for draw in draws {
            let Some(lot) = self.lots.get_mut(&draw.lot_sequence) else { continue };
            let part = draw.amount.min(left);
            left -= part;
            let made_up = part.min(lot.shortfall);
            lot.shortfall -= made_up;
            let back = part - made_up;
            if back > 0 && lot.is_due(now) {
                lot.expire_time = Some(now + RETURN_LIFE);
            }
            lot.remaining += back;
            given += back;
        }
        given
    }

    /// Takes `amount` from lots in this order, and says how much from each.
    fn take(&mut self, order: &[i64], amount: i64, taken: &mut Vec<(i64, i64)>) {
        let mut left = amount;
        for sequence in order {
            let Some(lot) = self.lots.get_mut(sequence) else { continue };
            let part = lot.remaining.min(left);
            if part > 0 {
                lot.remaining -= part;
                left -= part;
                taken.push((*sequence, part));
            }
        }
        debug_assert_eq!(left, 0, "the lots hold the balance");
    }

    /// Open lots, first what expires first.
    fn in_order(&self, which: impl Fn(&Lot) -> bool) -> Vec<i64> {
        let mut lots: Vec<&Lot> = self.lots.values().filter(|lot| lot.remaining > 0 && which(lot)).collect();
        lots.sort_unstable_by_key(|lot| lot.order());
        lots.into_iter().map(|lot| lot.earning.sequence).collect()
    }

    fn enter(&mut self, movement: Movement, act: &mut Act<'_>) -> Entry {
        let Movement { kind, amount, change, lifetime_change, source, origin, expire_time } = movement;
        self.last_sequence += 1;
        self.balance += change;
        self.lifetime += lifetime_change;
        Entry {
            id: (act.ids)(),
            member: self.member,
            sequence: self.last_sequence,
            kind,
            amount,
            change,
            balance_after: self.balance,
            lifetime_after: self.lifetime,
            source,
            origin,
            expire_time,
            actor: act.actor.to_owned(),
            entry_time: act.now,
        }
    }
}
