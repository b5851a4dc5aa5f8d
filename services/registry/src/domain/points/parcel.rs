//! Points that a merge moves from one account to another, and back.

use super::{Account, Act, Entry, Kind, Lot, Movement, Source};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Points on their way from one account to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parcel {
    pub lifetime: i64,
    /// What of it can be redeemed, by when it expires and which merges it came through.
    pub parts: BTreeMap<(Option<DateTime<Utc>>, Vec<Uuid>), i64>,
}

impl Account {
    /// Takes all points out, for a merge. All open lots are known, and none is due.
    pub fn move_out(&mut self, merge: Uuid, act: &mut Act<'_>) -> (Option<Entry>, Parcel) {
        self.take_out(merge, MERGED, self.lifetime, |_| true, act)
    }

    /// Takes out what is left of what a merge brought, and the lifetime points that it brought. As [`Self::move_out`].
    pub fn move_back(&mut self, merge: Uuid, lifetime: i64, act: &mut Act<'_>) -> (Option<Entry>, Parcel) {
        let lifetime = lifetime.min(self.lifetime);
        let (entry, parcel) = self.take_out(merge, UNMERGED, lifetime, |lot| lot.merges.last() == Some(&merge), act);
        let mut parts = BTreeMap::new();
        for ((expire_time, mut merges), amount) in parcel.parts {
            merges.pop();
            *parts.entry((expire_time, merges)).or_default() += amount;
        }
        (entry, Parcel { parts, ..parcel })
    }

    fn take_out(
        &mut self,
        merge: Uuid,
        why: &str,
        lifetime: i64,
        which: impl Fn(&Lot) -> bool,
        act: &mut Act<'_>,
    ) -> (Option<Entry>, Parcel) {
        let mut parcel = Parcel { lifetime, parts: BTreeMap::new() };
        for lot in self.lots.values_mut().filter(|lot| lot.remaining > 0 && which(lot)) {
            *parcel.parts.entry((lot.expire_time, lot.merges.clone())).or_default() += std::mem::take(&mut lot.remaining);
        }
        let taken: i64 = parcel.parts.values().sum();
        let amount = taken.max(lifetime);
        let entry = (amount > 0).then(|| {
            let (kind, source) = (Kind::MergeOut, of_merge(merge, why));
            let (change, lifetime_change) = (-taken, -lifetime);
            self.enter(Movement { kind, amount, change, lifetime_change, source, origin: None, expire_time: None }, act)
        });
        (entry, parcel)
    }

    /// Puts in what a merge brings: an entry for the lifetime points, and one with a lot for each part.
    pub fn move_in(&mut self, merge: Uuid, parcel: Parcel, act: &mut Act<'_>) -> Vec<Entry> {
        let tagged = parcel.parts.into_iter().map(|((expire_time, mut merges), amount)| {
            merges.push(merge);
            ((expire_time, merges), amount)
        });
        let parcel = Parcel { lifetime: parcel.lifetime, parts: tagged.collect() };
        self.put_in(of_merge(merge, MERGED), parcel, act)
    }

    /// Puts back in what a merge had taken out.
    pub fn take_home(&mut self, merge: Uuid, parcel: Parcel, act: &mut Act<'_>) -> Vec<Entry> {
        self.put_in(of_merge(merge, UNMERGED), parcel, act)
    }

    fn put_in(&mut self, source: Source, parcel: Parcel, act: &mut Act<'_>) -> Vec<Entry> {
        let kind = Kind::MergeIn;
        let movement = |amount, change, lifetime_change, expire_time| Movement {
            kind,
            amount,
            change,
            lifetime_change,
            source: source.clone(),
            origin: None,
            expire_time,
        };
        let mut entries = Vec::new();
        if parcel.lifetime > 0 {
            entries.push(self.enter(movement(parcel.lifetime, 0, parcel.lifetime, None), act));
        }
        for ((expire_time, merges), amount) in parcel.parts {
            let entry = self.enter(movement(amount, amount, 0, expire_time), act);
            let (earning, source) = (entry.origin(), source.clone());
            let lot = Lot { earning, source, amount, remaining: amount, shortfall: 0, expire_time, merges };
            self.lots.insert(entry.sequence, lot);
            entries.push(entry);
        }
        entries
    }
}

const MERGED: &str = "MERGED";
const UNMERGED: &str = "UNMERGED";

fn of_merge(merge: Uuid, why: &str) -> Source {
    Source { reference: format!("merge/{merge}"), reason_code: why.to_owned() }
}
