//! Writing what a movement of points changed, whatever its size in four statements.

use crate::domain::points::{Account, Draw, Entry, Lot};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Writes entries with what they changed in accounts that are locked. The draws are those of the redemptions among the entries.
pub async fn write(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    before: &BTreeMap<MemberId, Account>,
    after: &BTreeMap<MemberId, Account>,
    entries: &[Entry],
    draws: &[(MemberId, Draw)],
) -> Result<(), sqlx::Error> {
    if entries.is_empty() {
        return Ok(());
    }
    insert_entries(conn, programme, entries).await?;
    put_lots(conn, programme, before, after).await?;
    insert_draws(conn, programme, draws).await?;
    let changed: Vec<&Account> = after.values().filter(|account| before.get(&account.member) != Some(account)).collect();
    let members: Vec<Uuid> = changed.iter().map(|account| account.member.0).collect();
    let balances: Vec<i64> = changed.iter().map(|account| account.balance).collect();
    let lifetimes: Vec<i64> = changed.iter().map(|account| account.lifetime).collect();
    let sequences: Vec<i64> = changed.iter().map(|account| account.last_sequence).collect();
    sqlx::query!(
        "UPDATE points_account AS a
         SET balance = n.balance, lifetime_points = n.lifetime_points, last_sequence = n.last_sequence
         FROM UNNEST($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
              AS n (member_id, balance, lifetime_points, last_sequence)
         WHERE a.programme_id = $1 AND a.member_id = n.member_id",
        programme.0,
        &members,
        &balances,
        &lifetimes,
        &sequences,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_entries(conn: &mut PgConnection, programme: ProgrammeId, entries: &[Entry]) -> Result<(), sqlx::Error> {
    let members: Vec<Uuid> = entries.iter().map(|e| e.member.0).collect();
    let sequences: Vec<i64> = entries.iter().map(|e| e.sequence).collect();
    let ids: Vec<Uuid> = entries.iter().map(|e| e.id.0).collect();
    let kinds: Vec<&str> = entries.iter().map(|e| e.kind.name()).collect();
    let amounts: Vec<i64> = entries.iter().map(|e| e.amount).collect();
    let changes: Vec<i64> = entries.iter().map(|e| e.change).collect();
    let balances: Vec<i64> = entries.iter().map(|e| e.balance_after).collect();
    let lifetimes: Vec<i64> = entries.iter().map(|e| e.lifetime_after).collect();
    let sources: Vec<&str> = entries.iter().map(|e| e.source.reference.as_str()).collect();
    let reasons: Vec<&str> = entries.iter().map(|e| e.source.reason_code.as_str()).collect();
    let origins: Vec<Option<i64>> = entries.iter().map(|e| e.origin.map(|origin| origin.sequence)).collect();
    let expire_times: Vec<Option<DateTime<Utc>>> = entries.iter().map(|e| e.expire_time).collect();
    let actors: Vec<&str> = entries.iter().map(|e| e.actor.as_str()).collect();
    let entry_times: Vec<DateTime<Utc>> = entries.iter().map(|e| e.entry_time).collect();
    sqlx::query!(
        "INSERT INTO points_entry (
             programme_id, member_id, sequence, entry_id, kind, amount, change, balance_after, lifetime_after, source,
             reason_code, origin_sequence, expire_time, actor, entry_time
         )
         SELECT $1, n.*
         FROM UNNEST(
             $2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
             $10::text[], $11::text[], $12::bigint[], $13::timestamptz[], $14::text[], $15::timestamptz[]
         ) AS n",
        programme.0,
        &members,
        &sequences,
        &ids,
        &kinds as &[&str],
        &amounts,
        &changes,
        &balances,
        &lifetimes,
        &sources as &[&str],
        &reasons as &[&str],
        &origins as &[Option<i64>],
        &expire_times as &[Option<DateTime<Utc>>],
        &actors as &[&str],
        &entry_times,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the lots that are new or not what they were.
async fn put_lots(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    before: &BTreeMap<MemberId, Account>,
    after: &BTreeMap<MemberId, Account>,
) -> Result<(), sqlx::Error> {
    let mut changed: Vec<(Uuid, &Lot)> = Vec::new();
    for account in after.values() {
        let was = |sequence: &i64| before.get(&account.member).and_then(|account| account.lots.get(sequence));
        let lots = account.lots.iter().filter(|(sequence, lot)| was(sequence) != Some(lot));
        changed.extend(lots.map(|(_, lot)| (account.member.0, lot)));
    }
    if changed.is_empty() {
        return Ok(());
    }
    let members: Vec<Uuid> = changed.iter().map(|(member, _)| *member).collect();
    let sequences: Vec<i64> = changed.iter().map(|(_, lot)| lot.earning.sequence).collect();
    let amounts: Vec<i64> = changed.iter().map(|(_, lot)| lot.amount).collect();
    let remaining: Vec<i64> = changed.iter().map(|(_, lot)| lot.remaining).collect();
    let shortfalls: Vec<i64> = changed.iter().map(|(_, lot)| lot.shortfall).collect();
    let expire_times: Vec<Option<DateTime<Utc>>> = changed.iter().map(|(_, lot)| lot.expire_time).collect();
    let ids = |lot: &Lot| lot.merges.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",");
    let merges: Vec<String> = changed.iter().map(|(_, lot)| ids(lot)).collect();
    sqlx::query!(
        "INSERT INTO points_lot (programme_id, member_id, sequence, amount, remaining, shortfall, expire_time, merges)
         SELECT $1, n.member_id, n.sequence, n.amount, n.remaining, n.shortfall, n.expire_time, string_to_array(n.merges, ',')::uuid[]
         FROM UNNEST($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::text[])
              AS n (member_id, sequence, amount, remaining, shortfall, expire_time, merges)
         ON CONFLICT ON CONSTRAINT points_lot_pkey DO UPDATE
         SET remaining = excluded.remaining, shortfall = excluded.shortfall, expire_time = excluded.expire_time",
        programme.0,
        &members,
        &sequences,
        &amounts,
        &remaining,
        &shortfalls,
        &expire_times as &[Option<DateTime<Utc>>],
        &merges,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_draws(conn: &mut PgConnection, programme: ProgrammeId, draws: &[(MemberId, Draw)]) -> Result<(), sqlx::Error> {
    if draws.is_empty() {
        return Ok(());
    }
    let members: Vec<Uuid> = draws.iter().map(|(member, _)| member.0).collect();
    let sequences: Vec<i64> = draws.iter().map(|(_, draw)| draw.sequence).collect();
    let lots: Vec<i64> = draws.iter().map(|(_, draw)| draw.lot_sequence).collect();
    let amounts: Vec<i64> = draws.iter().map(|(_, draw)| draw.amount).collect();
    sqlx::query!(
        "INSERT INTO points_draw (programme_id, member_id, sequence, lot_sequence, amount)
         SELECT $1, n.*
         FROM UNNEST($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n",
        programme.0,
        &members,
        &sequences,
        &lots,
        &amounts,
    )
    .execute(conn)
    .await?;
    Ok(())
}
