//! Recomputing a programme's ledger part by part, so that memory does not grow with it. Each part is to be called in one snapshot; the next
//! may be in a later one: see [`crate::domain::verification::course`].

use super::{EntryRow, corrupt};
use crate::{
    domain::{
        balances::{Balances, EntryKind, Parts},
        ledger::LedgerEntry,
        verification::{
            ChainAudit, EnvelopeAudit, Finding, ReservationAudit, ReservationEntry,
            course::{Course, Extent, Place},
        },
    },
    ids::{EntryId, EnvelopeId, MemberId, ProgrammeId, ReservationId},
};
use futures::TryStreamExt;
use sqlx::PgConnection;
use std::collections::HashSet;

/// The facts that bring entries into the chain.
const POSTED: &str = "koc.budget.v1.LedgerPosted";
/// Reservations in a part, for each of its entries: most have several entries.
const ENTRIES_PER_RESERVATION: i64 = 4;
/// The same of members' limits: all reservations of the member are looked at for each.
const ENTRIES_PER_LIMIT: i64 = 40;

/// Everything is found by its key: a plan that is made for other statistics than the table has by now would read all of it for each part. And
/// one process of the database does it, whoever else wants the others.
const SETTINGS: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
                        SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off";

/// Reads from a LedgerPosted fact which entry it is of.
pub type EntryOf = fn(&[u8]) -> Option<EntryId>;

/// How much of a programme's ledger a verification covers.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub programme: ProgrammeId,
    /// Entries in a part, at most: they are read one by one and not kept.
    pub size: i64,
    pub entry_of: EntryOf,
}

enum Stop {
    Found(Finding),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Finding> for Stop {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}

/// The entry in a row that has all its columns.
macro_rules! entry {
    ($row:ident) => {
        LedgerEntry::try_from(EntryRow {
            entry_id: $row.entry_id,
            programme_id: $row.programme_id,
            envelope_id: $row.envelope_id,
            envelope_sequence: $row.envelope_sequence,
            kind: $row.kind,
            credit_account: $row.credit_account,
            debit_account: $row.debit_account,
            amount: $row.amount,
            reservation_id: $row.reservation_id,
            available_after: $row.available_after,
            operation_id: $row.operation_id,
            actor: $row.actor,
            entry_time: $row.entry_time,
            reverses_entry_id: $row.reverses_entry_id,
            reversal_reason: $row.reversal_reason,
        })?
    };
}

/// How large a programme's ledger is, by its envelopes' rows and the chain's end.
pub async fn extent(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Extent, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT coalesce((SELECT sum(sequence) FROM envelope WHERE programme_id = $1), 0)::bigint AS "entries!",
                  coalesce((SELECT max(position) FROM ledger_chain WHERE programme_id = $1), 0) AS "links!""#,
        programme.0,
    )
    .fetch_one(conn)
    .await?;
    Ok(Extent { entries: row.entries, links: row.links })
}

/// Verifies the next part and moves the course past it; gives the first thing that is wrong. After an error of the database the course is
/// of no use.
pub async fn verify_part(conn: &mut PgConnection, scope: &Scope, course: &mut Course) -> Result<Option<Finding>, sqlx::Error> {
    sqlx::raw_sql(SETTINGS).execute(&mut *conn).await?;
    match part(conn, scope, course).await {
        Ok(()) => Ok(None),
        Err(Stop::Found(finding)) => Ok(Some(finding)),
        // To try again does not help: somebody wrote what the service cannot have written.
        Err(Stop::Database(sqlx::Error::Decode(error))) => {
            Ok(Some(Finding { text: format!("a row of the ledger cannot be read: {error}"), entry: None }))
        }
        Err(Stop::Database(error)) => Err(error),
    }
}

async fn part(conn: &mut PgConnection, scope: &Scope, course: &mut Course) -> Result<(), Stop> {
    let counts = &mut course.counts;
    match &mut course.place {
        Place::Chain { until } => {
            walk_chain(conn, scope, &mut course.chain, *until).await?;
            counts.links = course.chain.length();
            if counts.links == *until {
                course.place = Place::Envelopes { after: None, open: None };
            }
        }
        Place::Envelopes { after, open } => {
            if walk_envelopes(conn, scope, after, open, &mut counts.entries).await? {
                course.place = Place::Reservations { after: None };
            }
        }
        Place::Reservations { after } => {
            if walk_reservations(conn, scope, after, &mut counts.reservations).await? {
                course.place = Place::Limits { after: None };
            }
        }
        Place::Limits { after } => {
            if walk_limits(conn, scope, after, &mut counts.limits).await? {
                course.place = Place::End;
            }
        }
        Place::End => {}
    }
    Ok(())
}

/// Walks the chain on, up to link `until`.
async fn walk_chain(conn: &mut PgConnection, scope: &Scope, chain: &mut ChainAudit, until: i64) -> Result<(), Stop> {
    let through = until.min(chain.length() + scope.size);
    {
        let mut links = sqlx::query!(
            r#"SELECT c.position, c.hash, v.envelope_id IS NOT NULL AS "placed!",
                      e.entry_id, e.programme_id, e.envelope_id, e.envelope_sequence, e.kind, e.credit_account, e.debit_account, e.amount,
                      e.reservation_id, e.available_after, e.operation_id, e.actor, e.entry_time, e.reverses_entry_id, e.reversal_reason
               FROM ledger_chain AS c
               JOIN ledger_entry AS e ON e.entry_id = c.entry_id
               LEFT JOIN envelope AS v ON v.envelope_id = e.envelope_id AND v.programme_id = c.programme_id
               WHERE c.programme_id = $1 AND c.position > $2 AND c.position <= $3
               ORDER BY c.position"#,
            scope.programme.0,
            chain.length(),
            through,
        )
        .fetch(&mut *conn);
        while let Some(row) = links.try_next().await? {
            if row.position != chain.length() + 1 {
                break;
            }
            let (position, hash, placed) = (row.position, row.hash, row.placed);
            let entry = entry!(row);
            chain.take(position, entry.id, Some(&entry), &hash)?;
            if !placed {
                let text = "is of an envelope that its programme does not have";
                return Err(Finding::at(entry.id, entry.envelope, entry.envelope_sequence, text).into());
            }
        }
    }
    if chain.length() == through {
        return Ok(());
    }
    let next = sqlx::query!(
        "SELECT position, entry_id, hash FROM ledger_chain WHERE programme_id = $1 AND position > $2 ORDER BY position LIMIT 1",
        scope.programme.0,
        chain.length(),
    )
    .fetch_optional(conn)
    .await?;
    match next {
        // It has no entry, or comes where another should.
        Some(link) => Ok(chain.take(link.position, EntryId(link.entry_id), None, &link.hash)?),
        None => {
            let text = format!("the chain ends at link {}; it had {until} when the verification began", chain.length());
            Err(Finding { text, entry: None }.into())
        }
    }
}

/// Walks the envelopes on; says whether it has come to the last one's end.
async fn walk_envelopes(
    conn: &mut PgConnection,
    scope: &Scope,
    after: &mut Option<EnvelopeId>,
    open: &mut Option<EnvelopeAudit>,
    entry_count: &mut i64,
) -> Result<bool, Stop> {
    let mut left = scope.size;
    while left > 0 {
        let mut audit = match open.take() {
            Some(audit) => audit,
            None => {
                let next = sqlx::query_scalar!(
                    "SELECT envelope_id FROM envelope
                     WHERE programme_id = $1 AND envelope_id > coalesce($2, '00000000-0000-0000-0000-000000000000'::uuid)
                     ORDER BY envelope_id
                     LIMIT 1",
                    scope.programme.0,
                    after.map(|id| id.0),
                )
                .fetch_optional(&mut *conn)
                .await?;
                let Some(id) = next else { return Ok(true) };
                EnvelopeAudit::new(EnvelopeId(id))
            }
        };
        let before = audit.sequence();
        walk_entries(conn, scope, &mut audit, left).await?;
        let taken = audit.sequence() - before;
        *entry_count += taken;
        if taken == left {
            *open = Some(audit);
            return Ok(false);
        }
        // Its last entry was read in this snapshot, in which the row is read too.
        let row = sqlx::query!(
            "SELECT allocated, reserved, committed, spent, sequence FROM envelope WHERE envelope_id = $1",
            audit.id().0,
        )
        .fetch_optional(&mut *conn)
        .await?;
        let Some(row) = row else {
            let text = format!("envelope {} has {} entries and does not exist any more", audit.id(), audit.sequence());
            return Err(Finding { text, entry: None }.into());
        };
        let (allocated, reserved, committed, spent) = (row.allocated, row.reserved, row.committed, row.spent);
        *after = Some(audit.id());
        audit.finish(&Balances { allocated, reserved, committed, spent }, row.sequence)?;
        // An envelope without entries takes its time too.
        left -= taken.max(1);
    }
    Ok(false)
}

/// Takes the next entries of an envelope: each has its reservation, undoes what it may, and is in the chain or will be.
async fn walk_entries(conn: &mut PgConnection, scope: &Scope, audit: &mut EnvelopeAudit, size: i64) -> Result<(), Stop> {
    let mut unchained = Vec::new();
    {
        let mut rows = sqlx::query!(
            r#"SELECT c.entry_id IS NOT NULL AS "chained!",
                      e.reservation_id IS NULL OR r.reservation_id IS NOT NULL AS "held!",
                      e.reverses_entry_id IS NULL OR u.entry_id IS NOT NULL AS "undoes!",
                      e.entry_id, e.programme_id, e.envelope_id, e.envelope_sequence, e.kind, e.credit_account, e.debit_account, e.amount,
                      e.reservation_id, e.available_after, e.operation_id, e.actor, e.entry_time, e.reverses_entry_id, e.reversal_reason
               FROM ledger_entry AS e
               LEFT JOIN ledger_chain AS c ON c.entry_id = e.entry_id
               LEFT JOIN reservation AS r ON r.reservation_id = e.reservation_id
               LEFT JOIN ledger_entry AS u
                 ON u.entry_id = e.reverses_entry_id AND u.reservation_id = e.reservation_id
                AND u.envelope_sequence < e.envelope_sequence AND u.amount >= e.amount
                AND (e.kind, u.kind) IN (('REVERSE_COMMIT', 'COMMIT'), ('REVERSE_SPEND', 'SPEND'), ('REFUND', 'SPEND'))
               WHERE e.envelope_id = $1 AND e.envelope_sequence > $2
               ORDER BY e.envelope_sequence
               LIMIT $3"#,
            audit.id().0,
            audit.sequence(),
            size,
        )
        .fetch(&mut *conn);
        while let Some(row) = rows.try_next().await? {
            let (chained, held, undoes) = (row.chained, row.held, row.undoes);
            let entry = entry!(row);
            audit.take(&entry)?;
            let bad = |text: &str| Err(Finding::at(entry.id, entry.envelope, entry.envelope_sequence, text).into());
            if let (false, Some(id)) = (held, entry.reservation) {
                return bad(&format!("is of reservation {id}, which does not exist"));
            }
            if !undoes {
                return bad("undoes what it may not: another kind, more than was moved, or nothing that is there");
            }
            if !chained {
                unchained.push((entry.id, entry.envelope_sequence));
            }
        }
    }
    if unchained.is_empty() {
        return Ok(());
    }
    // Only those wait whose facts have no place in the feed yet; an entry that came past the service has no fact, and one that was cut
    // from the chain's end has a fact with a place.
    let mut alien: HashSet<EntryId> = unchained.iter().map(|(id, _)| *id).collect();
    let mut waiting = sqlx::query_scalar!(
        r#"SELECT f.payload AS "payload!"
           FROM outbox, UNNEST(programme_ids, type_names, payloads) AS f (programme_id, type_name, payload)
           WHERE f.programme_id = $1 AND f.type_name = $2"#,
        scope.programme.0,
        POSTED,
    )
    .fetch(conn);
    while let Some(payload) = waiting.try_next().await? {
        alien.remove(&(scope.entry_of)(&payload).ok_or_else(|| corrupt("outbox.payloads"))?);
    }
    match unchained.into_iter().find(|(id, _)| alien.contains(id)) {
        None => Ok(()),
        Some((id, sequence)) => {
            let text = format!("is not in the chain and nobody will bring it there; so are {} after it", alien.len() - 1);
            Err(Finding::at(id, audit.id(), sequence, &text).into())
        }
    }
}

/// Walks the reservations on; says whether it has come to the last.
async fn walk_reservations(
    conn: &mut PgConnection,
    scope: &Scope,
    after: &mut Option<ReservationId>,
    count: &mut i64,
) -> Result<bool, Stop> {
    let size = (scope.size / ENTRIES_PER_RESERVATION).max(1);
    let mut taken = 0;
    let mut open: Option<(ReservationAudit, Parts)> = None;
    let finish = |open: Option<(ReservationAudit, Parts)>| open.map_or(Ok(()), |(audit, stored)| audit.finish(&stored));
    // One statement: it sees each reservation with its own entries.
    let mut rows = sqlx::query!(
        r#"WITH part AS (
               SELECT reservation_id, envelope_id, reserved, committed, spent, released FROM reservation
               WHERE programme_id = $1 AND reservation_id > coalesce($2, '00000000-0000-0000-0000-000000000000'::uuid)
               ORDER BY reservation_id
               LIMIT $3
           )
           SELECT p.reservation_id AS "reservation_id!", p.envelope_id AS "envelope_id!", p.reserved AS "reserved!",
                  p.committed AS "committed!", p.spent AS "spent!", p.released AS "released!",
                  e.entry_id AS "entry_id?", e.envelope_id AS "of?", e.envelope_sequence AS "sequence?", e.kind AS "kind?", e.amount AS "amount?"
           FROM part AS p
           LEFT JOIN ledger_entry AS e ON e.reservation_id = p.reservation_id
           ORDER BY p.reservation_id, e.envelope_sequence"#,
        scope.programme.0,
        after.map(|id| id.0),
        size,
    )
    .fetch(conn);
    while let Some(row) = rows.try_next().await? {
        let id = ReservationId(row.reservation_id);
        if open.as_ref().is_none_or(|(audit, _)| audit.id() != id) {
            finish(open.take())?;
            taken += 1;
            *after = Some(id);
            let (reserved, committed, spent, released) = (row.reserved, row.committed, row.spent, row.released);
            open = Some((ReservationAudit::new(id, EnvelopeId(row.envelope_id)), Parts { reserved, committed, spent, released }));
        }
        let (Some(entry_id), Some(of), Some(envelope_sequence), Some(kind), Some(amount), Some((audit, _))) =
            (row.entry_id, row.of, row.sequence, row.kind, row.amount, open.as_mut())
        else {
            continue;
        };
        let kind = EntryKind::parse(&kind).ok_or_else(|| corrupt("ledger_entry.kind"))?;
        audit.take(&ReservationEntry { id: EntryId(entry_id), envelope: EnvelopeId(of), envelope_sequence, kind, amount })?;
    }
    finish(open)?;
    *count += taken;
    Ok(taken < size)
}

/// Compares what is in use of each limit with the reservations that count towards it; says whether it has come to the last.
async fn walk_limits(
    conn: &mut PgConnection,
    scope: &Scope,
    after: &mut Option<(MemberId, chrono::DateTime<chrono::Utc>)>,
    count: &mut i64,
) -> Result<bool, Stop> {
    let size = (scope.size / ENTRIES_PER_LIMIT).max(1);
    let limits = sqlx::query!(
        r#"SELECT l.member_id, l.period_start_time, l.used, coalesce(s.used, 0)::bigint AS "counted!"
           FROM member_limit AS l
           LEFT JOIN LATERAL (
               SELECT sum(r.reserved + r.committed + r.spent) AS used
               FROM reservation AS r
               JOIN envelope AS e ON e.envelope_id = r.envelope_id
               JOIN plan AS p ON p.plan_id = e.plan_id
               WHERE r.programme_id = l.programme_id AND r.member_id = l.member_id
                 AND l.period_start_time <= p.period_start_time AND p.period_end_time <= l.period_end_time
           ) AS s ON true
           WHERE l.programme_id = $1
             AND (l.member_id, l.period_start_time)
                 > (coalesce($2, '00000000-0000-0000-0000-000000000000'::uuid), coalesce($3, '-infinity'::timestamptz))
           ORDER BY l.member_id, l.period_start_time
           LIMIT $4"#,
        scope.programme.0,
        after.map(|(member, _)| member.0),
        after.map(|(_, start)| start),
        size,
    )
    .fetch_all(conn)
    .await?;
    if let Some(row) = limits.iter().find(|row| row.used != row.counted) {
        let text = format!(
            "the limit of member {} from {} says that {} is in use; the reservations give {}",
            row.member_id, row.period_start_time, row.used, row.counted
        );
        return Err(Finding { text, entry: None }.into());
    }
    let taken = i64::try_from(limits.len()).unwrap_or(i64::MAX);
    *count += taken;
    if let Some(last) = limits.last() {
        *after = Some((MemberId(last.member_id), last.period_start_time));
    }
    Ok(taken < size)
}
