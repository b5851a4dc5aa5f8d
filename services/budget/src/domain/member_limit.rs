//! Limits per member and period, beside those of the envelopes.

use super::{
    balances::{EntryKind, Imbalance},
    period::Period,
};
use crate::ids::{DecisionId, MemberId, ProgrammeId};

/// A limit as reservations are held against it. Amounts in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUse {
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub period: Period,
    /// The most that may be in use.
    pub limit: i64,
    /// Reserved, committed and spent in plans whose period lies in this one.
    pub used: i64,
}

impl LimitUse {
    /// Whether money of a plan of `period` counts towards it.
    pub fn counts(&self, programme: ProgrammeId, member: MemberId, period: &Period) -> bool {
        self.programme == programme && self.member == member && self.period.contains(period)
    }

    /// Follows an entry.
    pub fn post(&mut self, kind: EntryKind, amount: i64) -> Result<(), Imbalance> {
        let change = match kind {
            EntryKind::Reserve => amount,
            EntryKind::Release | EntryKind::Expire | EntryKind::Refund => -amount,
            EntryKind::Allocate
            | EntryKind::Deallocate
            | EntryKind::Commit
            | EntryKind::Spend
            | EntryKind::ReverseCommit
            | EntryKind::ReverseSpend => 0,
        };
        match self.used.checked_add(change).filter(|used| *used >= 0) {
            Some(used) => self.used = used,
            None => return Err(Imbalance { kind, amount, account: "member limit" }),
        }
        Ok(())
    }
}

/// A limit as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLimit {
    pub usage: LimitUse,
    /// The decision it comes from; None when set by hand.
    pub decision: Option<DecisionId>,
    pub reason: String,
}
