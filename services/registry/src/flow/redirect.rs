//! Accounts of members, some of which may have been merged: who is asked for is found where the id leads, under the lock of its account.
//! A merge locks the accounts of both, so that it comes before or after, and never in between.

use crate::{
    domain::{merge::Refusal, points::Account},
    error::Error,
    store,
};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Accounts that are locked, without lots.
pub struct LockedAccounts {
    pub accounts: BTreeMap<MemberId, Account>,
    /// Merged members with where they lead: those asked for, and those that lead to one of them.
    merged: HashMap<MemberId, MemberId>,
}

impl LockedAccounts {
    /// The member that an id leads to.
    pub fn led(&self, id: MemberId) -> MemberId {
        self.merged.get(&id).copied().unwrap_or(id)
    }

    /// The members that lead to this one.
    pub fn followers(&self, winner: MemberId) -> impl Iterator<Item = MemberId> {
        self.merged.iter().filter(move |(_, to)| **to == winner).map(|(id, _)| *id)
    }

    /// MEMBER_MERGED when the id leads elsewhere: what is kept under it stands still.
    pub fn check_own(&self, member: MemberId) -> Result<(), Error> {
        match self.merged.get(&member) {
            Some(into) => Err(Refusal::Merged { member, into: *into }.into()),
            None => Ok(()),
        }
    }
}

/// Locks the accounts that ids lead to; ids without a member are left out.
pub async fn lock_accounts(conn: &mut PgConnection, programme: ProgrammeId, ids: &[Uuid]) -> Result<LockedAccounts, Error> {
    let mut accounts = store::points::lock_all(conn, programme, ids).await?;
    let mut merged = store::merge::around(conn, programme, ids).await?;
    loop {
        // Where the ids lead, that is not locked yet. A winner may be merged in turn until its account is locked.
        let ends = |merged: &HashMap<MemberId, MemberId>| -> Vec<Uuid> {
            let ends = ids.iter().filter_map(|id| merged.get(&MemberId(*id)));
            ends.filter(|end| !accounts.contains_key(end)).map(|end| end.0).collect()
        };
        let missing = ends(&merged);
        if missing.is_empty() {
            return Ok(LockedAccounts { accounts, merged });
        }
        accounts.extend(store::points::lock_all(conn, programme, &missing).await?);
        let all: Vec<Uuid> = ids.iter().copied().chain(missing).collect();
        merged = store::merge::around(conn, programme, &all).await?;
    }
}
