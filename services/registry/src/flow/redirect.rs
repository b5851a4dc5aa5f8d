//! Accounts of members, some of which may have been merged: who is asked for is found where the id leads, under the lock of its account.
//! A merge locks the accounts of both, so that it comes before or after, and never in between.

use crate::{
    domain::{merge::Refusal, points::Account},
    error::Error,
    store,
};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{Acquire, PgConnection};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// Locks the accounts that ids lead to; ids without a member are left out. All are locked in the order of their ids, so that two calls
/// never wait for each other in a circle: where a merge came between, those that are locked are let go and all are locked anew.
pub async fn lock_accounts(conn: &mut PgConnection, programme: ProgrammeId, ids: &[Uuid]) -> Result<LockedAccounts, Error> {
    let mut merged = store::merge::around(conn, programme, ids).await?;
    loop {
        let ends = |merged: &HashMap<MemberId, MemberId>| -> Vec<Uuid> {
            ids.iter().filter_map(|id| merged.get(&MemberId(*id))).map(|end| end.0).collect()
        };
        let all: BTreeSet<Uuid> = ids.iter().copied().chain(ends(&merged)).collect();
        let all: Vec<Uuid> = all.into_iter().collect();
        let mut savepoint = conn.begin().await?;
        let accounts = store::points::lock_all(&mut savepoint, programme, &all).await?;
        // A merge locks both accounts: under the locks of these nothing changes any more.
        let now = store::merge::around(&mut savepoint, programme, &all).await?;
        if ends(&now).iter().all(|end| accounts.contains_key(&MemberId(*end))) {
            savepoint.commit().await?;
            return Ok(LockedAccounts { accounts, merged: now });
        }
        savepoint.rollback().await?;
        merged = now;
    }
}
