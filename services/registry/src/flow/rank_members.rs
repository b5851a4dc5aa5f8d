//! Members on leaderboards: their points, and how many lie in each range of them. Whoever moves points writes the members' own rows, and
//! leaves a note of the change in the counts; a worker adds the notes up, so that nobody waits for a count that all share.

use crate::{
    domain::{
        leaderboard::{Board, Month, bucket},
        points::Account,
    },
    error::Error,
    store::{self, leaderboard::Score},
};
use chrono::TimeDelta;
use koc_chassis::{
    clock,
    fault::chain,
    ids::{MemberId, ProgrammeId},
    postgres::Db,
};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Notes that are added up in one transaction.
const BATCH: i64 = 5_000;

/// What members gained on boards; below zero what they lost.
pub type Gains = BTreeMap<(Board, MemberId), i64>;

/// Adds what members gained. The accounts are theirs, and locked.
pub async fn add(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    gains: &Gains,
    accounts: &BTreeMap<MemberId, Account>,
) -> Result<(), Error> {
    let gains: BTreeMap<(String, MemberId), i64> =
        gains.iter().filter(|(_, gain)| **gain != 0).map(|((board, member), gain)| ((board.name(), *member), *gain)).collect();
    if gains.is_empty() {
        return Ok(());
    }
    let boards: BTreeSet<&String> = gains.keys().map(|(board, _)| board).collect();
    let boards: Vec<String> = boards.into_iter().cloned().collect();
    let members: BTreeSet<Uuid> = gains.keys().map(|(_, member)| member.0).collect();
    let members: Vec<Uuid> = members.into_iter().collect();
    let before = store::leaderboard::points(conn, programme, &boards, &members).await?;
    let (mut scores, mut shifts) = (Vec::with_capacity(gains.len()), BTreeMap::new());
    for ((board, member), gain) in gains {
        let listed = accounts.get(&member).is_some_and(|account| account.listed);
        let key = (board, member);
        let had = before.get(&key).copied().unwrap_or(0);
        let (board, points) = (key.0, (had + gain).max(0));
        if listed {
            shift(&mut shifts, &board, bucket(had), -1);
            shift(&mut shifts, &board, bucket(points), 1);
        }
        scores.push(Score { board, member, points, listed });
    }
    shifts.retain(|_, members| *members != 0);
    store::leaderboard::put(conn, programme, &scores).await?;
    store::leaderboard::insert_shifts(conn, programme, &shifts).await?;
    Ok(())
}

/// Shows a member on leaderboards, or hides it: what whoever suspends, erases or reinstates a member does with it, in the same transaction.
/// Points go on meanwhile. False when there is no such member.
pub async fn show(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId, listed: bool) -> Result<bool, Error> {
    let accounts = store::points::lock_all(conn, programme, &[member.0]).await?;
    let Some(account) = accounts.get(&member) else { return Ok(false) };
    if account.listed == listed {
        return Ok(true);
    }
    store::leaderboard::set_listed(conn, programme, member, listed).await?;
    let mut shifts = BTreeMap::new();
    let mut scores = store::leaderboard::of_member(conn, programme, member).await?;
    for score in &mut scores {
        score.listed = listed;
        shift(&mut shifts, &score.board, bucket(score.points), if listed { 1 } else { -1 });
    }
    store::leaderboard::put(conn, programme, &scores).await?;
    store::leaderboard::insert_shifts(conn, programme, &shifts).await?;
    Ok(true)
}

fn shift(shifts: &mut BTreeMap<(String, i32), i64>, board: &str, bucket: Option<i32>, members: i64) {
    if let Some(bucket) = bucket {
        *shifts.entry((board.to_owned(), bucket)).or_default() += members;
    }
}

/// Adds up all notes, some at a time. Failures are logged; the next run tries again, and ranks are right meanwhile.
pub async fn count(db: Db) {
    loop {
        match step(&db).await {
            Ok(n) if n == BATCH as usize => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(error = chain(&error), "counts of leaderboards could not be added up; trying again");
                return;
            }
        }
    }
}

/// Adds up at most [`BATCH`] notes; says how many. Of several replicas one counts at a time.
pub async fn step(db: &Db) -> Result<usize, Error> {
    let mut tx = db.begin().await?;
    if !store::leaderboard::count_alone(&mut tx).await? {
        return Ok(0);
    }
    let added = store::leaderboard::add_up(&mut tx, BATCH).await?;
    tx.commit().await?;
    Ok(added)
}

/// Removes the boards of months that are no longer kept, some rows at a time. Failures are logged.
pub async fn forget_months(db: Db) {
    if let Err(error) = try_forget(&db).await {
        tracing::warn!(error = chain(&error), "boards of past months could not be removed; trying again");
    }
}

async fn try_forget(db: &Db) -> Result<(), Error> {
    let mut conn = db.read().await?;
    let now = clock::now(&mut conn).await?;
    let programmes = store::programme::list(&mut conn).await?;
    drop(conn);
    for programme in programmes {
        // A month late: whoever wrote into a board when it was kept has committed long since.
        let first_kept = Month::of(now - TimeDelta::days(31), programme.time_zone).first_kept().name();
        loop {
            let mut tx = db.begin().await?;
            if !store::leaderboard::count_alone(&mut tx).await? {
                return Ok(());
            }
            let removed = store::leaderboard::purge(&mut tx, programme.id, &first_kept, BATCH).await?;
            tx.commit().await?;
            if removed == 0 {
                break;
            }
        }
    }
    Ok(())
}
