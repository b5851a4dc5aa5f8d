//! Accounts, entries' kinds, and what an entry does to balances. All amounts are minor units of one currency.

text_enum! {
    /// The accounts of an envelope.
    Account {
        /// Where allocations come from, and what is taken back goes to.
        Funding = "FUNDING",
        Available = "AVAILABLE",
        Reserved = "RESERVED",
        Committed = "COMMITTED",
        Spent = "SPENT",
    }
}

text_enum! {
    /// What an entry records.
    EntryKind {
        Allocate = "ALLOCATE",
        Deallocate = "DEALLOCATE",
        Reserve = "RESERVE",
        Commit = "COMMIT",
        Spend = "SPEND",
        Release = "RELEASE",
        Expire = "EXPIRE",
        /// Undoes a commit.
        ReverseCommit = "REVERSE_COMMIT",
        /// Undoes a spend: owed again.
        ReverseSpend = "REVERSE_SPEND",
        /// Undoes a spend: back with the envelope.
        Refund = "REFUND",
    }
}

impl EntryKind {
    /// The account that is credited: where the money comes from.
    pub fn credit(self) -> Account {
        match self {
            Self::Allocate => Account::Funding,
            Self::Reserve | Self::Deallocate => Account::Available,
            Self::Commit | Self::Release | Self::Expire => Account::Reserved,
            Self::Spend | Self::ReverseCommit => Account::Committed,
            Self::ReverseSpend | Self::Refund => Account::Spent,
        }
    }

    /// The account that is debited: where it goes.
    pub fn debit(self) -> Account {
        match self {
            Self::Allocate | Self::Release | Self::Expire | Self::Refund => Account::Available,
            Self::Deallocate => Account::Funding,
            Self::Reserve | Self::ReverseCommit => Account::Reserved,
            Self::Commit | Self::ReverseSpend => Account::Committed,
            Self::Spend => Account::Spent,
        }
    }
}

/// The books do not add up: an entry would take a balance below zero or beyond 2⁶³ minor units.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {amount} minor units does not fit the balance of {}", .kind.as_str(), .account)]
pub struct Imbalance {
    pub kind: EntryKind,
    pub amount: i64,
    pub account: &'static str,
}

/// How an envelope's money stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Balances {
    pub allocated: i64,
    pub reserved: i64,
    pub committed: i64,
    pub spent: i64,
}

impl Balances {
    /// allocated − reserved − committed − spent; below zero when an overrun is used.
    pub fn available(&self) -> i64 {
        self.allocated - self.in_use()
    }

    /// reserved + committed + spent.
    pub fn in_use(&self) -> i64 {
        self.reserved + self.committed + self.spent
    }

    /// Moves `amount` as an entry of `kind` does, available falling no further below zero than `overrun_limit`. Nothing is moved when
    /// it does not fit.
    pub fn post(&mut self, kind: EntryKind, amount: i64, overrun_limit: i64) -> Result<(), Imbalance> {
        let mut after = *self;
        let fits = amount > 0 && after.shift(kind.credit(), -amount) && after.shift(kind.debit(), amount);
        if !fits || after.available().saturating_add(overrun_limit) < 0 {
            return Err(Imbalance { kind, amount, account: "envelope" });
        }
        *self = after;
        Ok(())
    }

    fn shift(&mut self, account: Account, amount: i64) -> bool {
        let balance = match account {
            // What funding gives is what is allocated; available follows from the others.
            Account::Funding => return add(&mut self.allocated, -amount),
            Account::Available => return true,
            Account::Reserved => &mut self.reserved,
            Account::Committed => &mut self.committed,
            Account::Spent => &mut self.spent,
        };
        add(balance, amount)
    }

    /// The sum of several; None beyond 2⁶³ minor units.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Balances>) -> Option<Balances> {
        all.into_iter().try_fold(Balances::default(), |sum, one| {
            Some(Balances {
                allocated: sum.allocated.checked_add(one.allocated)?,
                reserved: sum.reserved.checked_add(one.reserved)?,
                committed: sum.committed.checked_add(one.committed)?,
                spent: sum.spent.checked_add(one.spent)?,
            })
        })
    }
}

/// How a reservation's money stands: four disjoint parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    pub reserved: i64,
    pub committed: i64,
    pub spent: i64,
    pub released: i64,
}

impl Parts {
    /// All that was ever reserved.
    pub fn amount(&self) -> i64 {
        self.reserved + self.committed + self.spent + self.released
    }

    /// reserved + committed + spent: what counts towards a member's limit.
    pub fn in_use(&self) -> i64 {
        self.reserved + self.committed + self.spent
    }

    /// Moves `amount` as an entry of `kind` does. Nothing is moved when it does not fit.
    pub fn post(&mut self, kind: EntryKind, amount: i64) -> Result<(), Imbalance> {
        let mut after = *self;
        let fits = amount > 0
            && match kind {
                EntryKind::Allocate | EntryKind::Deallocate => false,
                // The whole must fit too: it grows with this alone.
                EntryKind::Reserve => after.amount().checked_add(amount).is_some() && add(&mut after.reserved, amount),
                EntryKind::Commit => add(&mut after.reserved, -amount) && add(&mut after.committed, amount),
                EntryKind::Spend => add(&mut after.committed, -amount) && add(&mut after.spent, amount),
                EntryKind::Release | EntryKind::Expire => add(&mut after.reserved, -amount) && add(&mut after.released, amount),
                EntryKind::ReverseCommit => add(&mut after.committed, -amount) && add(&mut after.reserved, amount),
                EntryKind::ReverseSpend => add(&mut after.spent, -amount) && add(&mut after.committed, amount),
                EntryKind::Refund => add(&mut after.spent, -amount) && add(&mut after.released, amount),
            };
        if !fits {
            return Err(Imbalance { kind, amount, account: "reservation" });
        }
        *self = after;
        Ok(())
    }
}

fn add(balance: &mut i64, amount: i64) -> bool {
    match balance.checked_add(amount) {
        Some(sum) if sum >= 0 => {
            *balance = sum;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_takes_a_balance_below_zero() {
        for kind in EntryKind::ALL.iter().copied().filter(|kind| *kind != EntryKind::Allocate) {
            let (mut balances, mut parts) = (Balances::default(), Parts::default());
            assert!(balances.post(kind, 1, 0).is_err(), "{kind:?}");
            assert_eq!(balances, Balances::default());
            assert!(kind == EntryKind::Reserve || parts.post(kind, 1).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn available_falls_as_far_as_the_overrun_limit_lets_it() {
        let mut balances = Balances { allocated: 10, ..Balances::default() };
        assert!(balances.post(EntryKind::Reserve, 16, 5).is_err());
        assert_eq!(balances.post(EntryKind::Reserve, 15, 5), Ok(()));
        assert_eq!(balances.available(), -5);
        assert!(balances.post(EntryKind::Reserve, 1, 5).is_err());
    }

    #[test]
    fn an_entry_without_an_amount_is_no_entry() {
        let mut balances = Balances { allocated: 10, ..Balances::default() };
        assert!(balances.post(EntryKind::Reserve, 0, 0).is_err());
        assert!(balances.post(EntryKind::Reserve, -1, 0).is_err());
    }

    #[test]
    fn an_allocation_beyond_the_range_is_refused_whole() {
        let mut balances = Balances { allocated: i64::MAX, ..Balances::default() };
        assert!(balances.post(EntryKind::Allocate, 1, 0).is_err());
        assert_eq!(balances.allocated, i64::MAX);
    }

    #[test]
    fn each_kind_credits_one_account_and_debits_another() {
        for kind in EntryKind::ALL {
            assert_ne!(kind.credit(), kind.debit());
        }
    }
}
