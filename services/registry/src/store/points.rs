//! Points: accounts, the ledger, lots, and what redemptions took from them.

mod write;

pub use write::write;

use super::unknown;
use crate::domain::points::{Account, Draw, Entry, EntryId, Kind, Lot, Origin, Source};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Locks the accounts of members, in the order of their ids, and makes those that are not there yet; ids without a member are left out. The
/// accounts come without lots.
pub async fn lock_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    ids: &[Uuid],
) -> Result<BTreeMap<MemberId, Account>, sqlx::Error> {
    sqlx::query!(
        "INSERT INTO points_account (programme_id, member_id, balance, lifetime_points, last_sequence, listed)
         SELECT m.programme_id, m.member_id, 0, 0, 0, true
         FROM member m
         WHERE m.programme_id = $1 AND m.member_id = ANY ($2)
           AND NOT EXISTS (
               SELECT FROM points_account a WHERE a.programme_id = m.programme_id AND a.member_id = m.member_id
           )
         ORDER BY m.member_id
         ON CONFLICT DO NOTHING",
        programme.0,
        ids,
    )
    .execute(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        "SELECT member_id, balance, lifetime_points, last_sequence, listed
         FROM points_account
         WHERE programme_id = $1 AND member_id = ANY ($2)
         ORDER BY member_id
         FOR NO KEY UPDATE",
        programme.0,
        ids,
    )
    .fetch_all(conn)
    .await?;
    let account = |member, balance, lifetime, last_sequence, listed| Account {
        member,
        balance,
        lifetime,
        last_sequence,
        listed,
        lots: BTreeMap::new(),
    };
    Ok(rows
        .into_iter()
        .map(|r| (MemberId(r.member_id), account(MemberId(r.member_id), r.balance, r.lifetime_points, r.last_sequence, r.listed)))
        .collect())
}

struct EntryRow {
    entry_id: Uuid,
    member_id: Uuid,
    sequence: i64,
    kind: String,
    amount: i64,
    change: i64,
    balance_after: i64,
    lifetime_after: i64,
    source: String,
    reason_code: String,
    origin_sequence: Option<i64>,
    origin_id: Option<Uuid>,
    expire_time: Option<DateTime<Utc>>,
    actor: String,
    entry_time: DateTime<Utc>,
}

impl EntryRow {
    fn into_entry(self) -> Result<Entry, sqlx::Error> {
        let origin = self.origin_id.zip(self.origin_sequence).map(|(id, sequence)| Origin { id: EntryId(id), sequence });
        Ok(Entry {
            id: EntryId(self.entry_id),
            member: MemberId(self.member_id),
            sequence: self.sequence,
            kind: Kind::from_name(&self.kind).ok_or_else(|| unknown("points_entry.kind"))?,
            amount: self.amount,
            change: self.change,
            balance_after: self.balance_after,
            lifetime_after: self.lifetime_after,
            source: Source { reference: self.source, reason_code: self.reason_code },
            origin,
            expire_time: self.expire_time,
            actor: self.actor,
            entry_time: self.entry_time,
        })
    }
}

/// Earnings and redemptions that were made with these sources.
pub async fn of_sources(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    keys: &[(MemberId, Kind, &Source)],
) -> Result<Vec<Entry>, sqlx::Error> {
    let members: Vec<Uuid> = keys.iter().map(|(member, ..)| member.0).collect();
    let kinds: Vec<&str> = keys.iter().map(|(_, kind, _)| kind.name()).collect();
    let references: Vec<&str> = keys.iter().map(|(.., source)| source.reference.as_str()).collect();
    let reasons: Vec<&str> = keys.iter().map(|(.., source)| source.reason_code.as_str()).collect();
    let rows = sqlx::query_as!(
        EntryRow,
        r#"SELECT e.entry_id, e.member_id, e.sequence, e.kind, e.amount, e.change, e.balance_after, e.lifetime_after, e.source,
                  e.reason_code, e.origin_sequence, NULL::uuid AS origin_id, e.expire_time, e.actor, e.entry_time
           FROM UNNEST($2::uuid[], $3::text[], $4::text[], $5::text[]) AS k (member_id, kind, source, reason_code)
           JOIN points_entry e ON e.programme_id = $1 AND e.member_id = k.member_id AND e.source = k.source
                AND e.reason_code = k.reason_code AND e.kind = k.kind
           WHERE e.kind IN ('EARN', 'REDEEM')"#,
        programme.0,
        &members,
        &kinds as &[&str],
        &references as &[&str],
        &reasons as &[&str],
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(EntryRow::into_entry).collect()
}

pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, id: EntryId) -> Result<Option<Entry>, sqlx::Error> {
    let row = sqlx::query_as!(
        EntryRow,
        r#"SELECT e.entry_id, e.member_id, e.sequence, e.kind, e.amount, e.change, e.balance_after, e.lifetime_after, e.source,
                  e.reason_code, e.origin_sequence, o.entry_id AS "origin_id?", e.expire_time, e.actor, e.entry_time
           FROM points_entry e
           LEFT JOIN points_entry o ON o.programme_id = e.programme_id AND o.member_id = e.member_id
                AND o.sequence = e.origin_sequence
           WHERE e.programme_id = $1 AND e.entry_id = $2"#,
        programme.0,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(EntryRow::into_entry).transpose()
}

/// The entry by which another one was reversed.
pub async fn reversal_of(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    sequence: i64,
) -> Result<Option<Entry>, sqlx::Error> {
    let row = sqlx::query_as!(
        EntryRow,
        r#"SELECT e.entry_id, e.member_id, e.sequence, e.kind, e.amount, e.change, e.balance_after, e.lifetime_after, e.source,
                  e.reason_code, e.origin_sequence, o.entry_id AS "origin_id?", e.expire_time, e.actor, e.entry_time
           FROM points_entry e
           JOIN points_entry o ON o.programme_id = e.programme_id AND o.member_id = e.member_id AND o.sequence = e.origin_sequence
           WHERE e.programme_id = $1 AND e.member_id = $2 AND e.origin_sequence = $3 AND e.kind = 'REVERSE'"#,
        programme.0,
        member.0,
        sequence,
    )
    .fetch_optional(conn)
    .await?;
    row.map(EntryRow::into_entry).transpose()
}

/// A member's entries before one of them, newest first.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    before: i64,
    limit: i64,
) -> Result<Vec<Entry>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EntryRow,
        r#"SELECT e.entry_id, e.member_id, e.sequence, e.kind, e.amount, e.change, e.balance_after, e.lifetime_after, e.source,
                  e.reason_code, e.origin_sequence, o.entry_id AS "origin_id?", e.expire_time, e.actor, e.entry_time
           FROM points_entry e
           LEFT JOIN points_entry o ON o.programme_id = e.programme_id AND o.member_id = e.member_id
                AND o.sequence = e.origin_sequence
           WHERE e.programme_id = $1 AND e.member_id = $2 AND e.sequence < $3
           ORDER BY e.sequence DESC
           LIMIT $4"#,
        programme.0,
        member.0,
        before,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(EntryRow::into_entry).collect()
}

struct LotRow {
    member_id: Uuid,
    sequence: i64,
    entry_id: Uuid,
    source: String,
    reason_code: String,
    amount: i64,
    remaining: i64,
    shortfall: i64,
    expire_time: Option<DateTime<Utc>>,
    merges: Vec<Uuid>,
}

impl LotRow {
    fn into_lot(self) -> Lot {
        Lot {
            earning: Origin { id: EntryId(self.entry_id), sequence: self.sequence },
            source: Source { reference: self.source, reason_code: self.reason_code },
            amount: self.amount,
            remaining: self.remaining,
            shortfall: self.shortfall,
            expire_time: self.expire_time,
            merges: self.merges,
        }
    }
}

/// Puts the lots whose time is over into the accounts of their members, which are locked; at most `limit`, those first that were over first.
pub async fn load_due(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    accounts: &mut BTreeMap<MemberId, Account>,
    now: DateTime<Utc>,
    limit: Option<i64>,
) -> Result<(), sqlx::Error> {
    let members: Vec<Uuid> = accounts.keys().map(|member| member.0).collect();
    let rows = sqlx::query_as!(
        LotRow,
        "SELECT l.member_id, l.sequence, e.entry_id, e.source, e.reason_code, l.amount, l.remaining, l.shortfall, l.expire_time, l.merges
         FROM points_lot l
         JOIN points_entry e ON e.programme_id = l.programme_id AND e.member_id = l.member_id AND e.sequence = l.sequence
         WHERE l.programme_id = $1 AND l.member_id = ANY ($2) AND l.remaining > 0 AND l.expire_time <= $3
         ORDER BY l.expire_time, l.member_id, l.sequence
         LIMIT $4",
        programme.0,
        &members,
        now,
        limit,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        if let Some(account) = accounts.get_mut(&MemberId(row.member_id)) {
            account.lots.insert(row.sequence, row.into_lot());
        }
    }
    Ok(())
}

/// Which lots a change of an account may touch.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// All that are open.
    All,
    /// Of those that are open and not over by then, the first that hold so many points together, and the lots of these earnings.
    Holding { points: i64, not_due: DateTime<Utc>, also: &'a [i64] },
}

/// Lots that are read at first; four times as many as before when they do not hold enough.
const FIRST_LOTS: i64 = 256;

/// Puts lots into an account that is locked: no more than are wanted, however many a member has.
pub async fn load_lots(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    account: &mut Account,
    wanted: Wanted<'_>,
) -> Result<(), sqlx::Error> {
    let (points, not_due, also) = match wanted {
        Wanted::All => (i64::MAX, None, &[][..]),
        Wanted::Holding { points, not_due, also } => (points, Some(not_due), also),
    };
    // No lot that is open holds less than a point.
    let mut limit = points.clamp(1, if not_due.is_some() { FIRST_LOTS } else { i64::MAX });
    loop {
        let rows = sqlx::query_as!(
            LotRow,
            r#"SELECT l.member_id AS "member_id!", l.sequence AS "sequence!", e.entry_id, e.source, e.reason_code, l.amount AS "amount!",
                      l.remaining AS "remaining!", l.shortfall AS "shortfall!", l.expire_time, l.merges AS "merges!"
               FROM (
                   (SELECT *
                    FROM points_lot
                    WHERE programme_id = $1 AND member_id = $2 AND remaining > 0 AND ($3::timestamptz IS NULL OR expire_time IS NULL OR expire_time > $3)
                    ORDER BY expire_time, sequence
                    LIMIT $4)
                   UNION
                   (SELECT *
                    FROM points_lot
                    WHERE programme_id = $1 AND member_id = $2 AND sequence = ANY ($5))
               ) AS l
               JOIN points_entry e ON e.programme_id = l.programme_id AND e.member_id = l.member_id AND e.sequence = l.sequence"#,
            programme.0,
            account.member.0,
            not_due,
            limit,
            also,
        )
        .fetch_all(&mut *conn)
        .await?;
        let open = rows.iter().filter(|row| !also.contains(&row.sequence));
        let (lots, held) = open.fold((0, 0_i64), |(lots, held), row| (lots + 1, held.saturating_add(row.remaining)));
        if held < points && lots + i64::try_from(also.len()).unwrap_or(0) >= limit {
            limit = limit.saturating_mul(4);
            continue;
        }
        account.lots.extend(rows.into_iter().map(|row| (row.sequence, row.into_lot())));
        return Ok(());
    }
}

/// What a redemption took.
pub async fn draws(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    sequence: i64,
) -> Result<Vec<Draw>, sqlx::Error> {
    let draws = sqlx::query_as!(
        Draw,
        "SELECT sequence, lot_sequence, amount
         FROM points_draw
         WHERE programme_id = $1 AND member_id = $2 AND sequence = $3",
        programme.0,
        member.0,
        sequence,
    );
    draws.fetch_all(conn).await
}

/// Members with lots whose time is over, in the order in which it was; at most `limit`, and perhaps one of them more than once.
pub async fn due(conn: &mut PgConnection, limit: i64) -> Result<Vec<(ProgrammeId, MemberId)>, sqlx::Error> {
    // The time by a subquery: compared with a volatile function, the index would not serve.
    let rows = sqlx::query!(
        "SELECT programme_id, member_id
         FROM points_lot
         WHERE remaining > 0 AND expire_time <= (SELECT koc_now())
         ORDER BY expire_time
         LIMIT $1",
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (ProgrammeId(row.programme_id), MemberId(row.member_id))).collect())
}

/// Makes this transaction the only one that sweeps points; false when another does.
pub async fn sweep_alone(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    const SWEEP_LOCK: i64 = 0x6b6f_632e_706f_696e;
    let alone = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "alone!""#, SWEEP_LOCK);
    alone.fetch_one(conn).await
}

/// What a member can redeem at a time, and what expires next after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    pub balance: i64,
    pub lifetime: i64,
    pub listed: bool,
    /// Points, and when they expire.
    pub next_expiring: Option<(i64, DateTime<Utc>)>,
}

/// Nothing for a member without an account. What is overdue and not yet swept counts as expired.
pub async fn holding(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    now: DateTime<Utc>,
) -> Result<Holding, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT a.lifetime_points, a.listed,
                  a.balance - COALESCE((
                      SELECT sum(l.remaining)
                      FROM points_lot l
                      WHERE l.programme_id = $1 AND l.member_id = $2 AND l.remaining > 0 AND l.expire_time <= $3
                  ), 0)::bigint AS "balance!",
                  n.expire_time AS "next_expire_time?", n.points AS "next_points?"
           FROM points_account a
           LEFT JOIN LATERAL (
               SELECT l.expire_time, sum(l.remaining)::bigint AS points
               FROM points_lot l
               WHERE l.programme_id = $1 AND l.member_id = $2 AND l.remaining > 0 AND l.expire_time > $3
               GROUP BY l.expire_time
               ORDER BY l.expire_time
               LIMIT 1
           ) AS n ON true
           WHERE a.programme_id = $1 AND a.member_id = $2"#,
        programme.0,
        member.0,
        now,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or_else(Holding::default, |row| Holding {
        balance: row.balance,
        lifetime: row.lifetime_points,
        listed: row.listed,
        next_expiring: row.next_points.zip(row.next_expire_time),
    }))
}
