//! Recomputing a programme's ledger in pages, so that memory does not grow with it. To be called in one snapshot.

use super::{EntryRow, by_ids, entries, list};
use crate::{
    domain::{
        balances::{Balances, Parts},
        ledger::Hash,
        verification::{ChainAudit, EnvelopeAudit, Finding, ReservationAudit},
    },
    ids::{EntryId, EnvelopeId, ProgrammeId, ReservationId},
};
use sqlx::PgConnection;
use uuid::Uuid;

/// Rows that are kept in memory at once.
const PAGE: i64 = 1_000;

/// The facts that bring entries into the chain.
const POSTED: &str = "koc.budget.v1.LedgerPosted";

/// What a verification found.
#[derive(Debug)]
pub struct Report {
    pub entry_count: i64,
    pub chained_count: i64,
    pub finding: Option<Finding>,
    /// The hash at the chain's head, as far as it was whole.
    pub head: Hash,
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

/// Recomputes the chain, each envelope, each reservation and each member limit of a programme, and reports the first finding, the
/// chain's before the others: it names a changed entry most closely.
pub async fn verify(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Report, sqlx::Error> {
    let mut chain = ChainAudit::default();
    let mut entry_count = 0;
    let finding = match walk(conn, programme, &mut chain, &mut entry_count).await {
        Ok(()) => None,
        Err(Stop::Found(finding)) => Some(finding),
        Err(Stop::Database(error)) => return Err(error),
    };
    Ok(Report { entry_count, chained_count: chain.length(), finding, head: *chain.head() })
}

async fn walk(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    chain: &mut ChainAudit,
    entry_count: &mut i64,
) -> Result<(), Stop> {
    walk_chain(conn, programme, chain).await?;
    walk_envelopes(conn, programme, entry_count).await?;
    walk_reservations(conn, programme).await?;
    find_strays(conn, programme).await?;
    find_bad_reversals(conn, programme).await?;
    find_unchained(conn, programme).await?;
    check_limits(conn, programme).await
}

async fn walk_chain(conn: &mut PgConnection, programme: ProgrammeId, chain: &mut ChainAudit) -> Result<(), Stop> {
    let mut after = 0;
    loop {
        let links = sqlx::query!(
            "SELECT position, entry_id, hash FROM ledger_chain
             WHERE programme_id = $1 AND position > $2
             ORDER BY position
             LIMIT $3",
            programme.0,
            after,
            PAGE,
        )
        .fetch_all(&mut *conn)
        .await?;
        let Some(last) = links.last().map(|l| l.position) else { return Ok(()) };
        let ids: Vec<EntryId> = links.iter().map(|l| EntryId(l.entry_id)).collect();
        let entries = by_ids(conn, &ids).await?;
        for link in &links {
            let id = EntryId(link.entry_id);
            chain.take(link.position, id, entries.get(&id), &link.hash)?;
        }
        after = last;
    }
}

async fn walk_envelopes(conn: &mut PgConnection, programme: ProgrammeId, entry_count: &mut i64) -> Result<(), Stop> {
    let mut after = Uuid::nil();
    loop {
        let envelopes = sqlx::query!(
            "SELECT envelope_id, allocated, reserved, committed, spent, sequence FROM envelope
             WHERE programme_id = $1 AND envelope_id > $2
             ORDER BY envelope_id
             LIMIT $3",
            programme.0,
            after,
            PAGE,
        )
        .fetch_all(&mut *conn)
        .await?;
        let Some(last) = envelopes.last().map(|e| e.envelope_id) else { return Ok(()) };
        for row in envelopes {
            let id = EnvelopeId(row.envelope_id);
            let mut audit = EnvelopeAudit::new(id);
            let mut sequence = 0;
            loop {
                let entries = list(conn, id, sequence, PAGE).await?;
                let Some(last) = entries.last() else { break };
                sequence = last.envelope_sequence;
                for entry in &entries {
                    audit.take(entry)?;
                    *entry_count += 1;
                }
            }
            let (allocated, reserved, committed, spent) = (row.allocated, row.reserved, row.committed, row.spent);
            audit.finish(&Balances { allocated, reserved, committed, spent }, row.sequence)?;
        }
        after = last;
    }
}

async fn walk_reservations(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), Stop> {
    let mut after = Uuid::nil();
    loop {
        let reservations = sqlx::query!(
            "SELECT reservation_id, envelope_id, reserved, committed, spent, released FROM reservation
             WHERE programme_id = $1 AND reservation_id > $2
             ORDER BY reservation_id
             LIMIT $3",
            programme.0,
            after,
            PAGE,
        )
        .fetch_all(&mut *conn)
        .await?;
        let Some(last) = reservations.last().map(|r| r.reservation_id) else { return Ok(()) };
        let mut audits: std::collections::HashMap<_, _> = reservations
            .iter()
            .map(|r| (r.reservation_id, (EnvelopeId(r.envelope_id), ReservationAudit::new(ReservationId(r.reservation_id)))))
            .collect();
        // The entries of these reservations, paged too: one reservation may have many.
        let ids: Vec<Uuid> = reservations.iter().map(|r| r.reservation_id).collect();
        let (mut after_reservation, mut after_sequence) = (Uuid::nil(), 0);
        loop {
            let rows = sqlx::query_as!(
                EntryRow,
                "SELECT entry_id, programme_id, envelope_id, envelope_sequence, kind, credit_account, debit_account, amount,
                        reservation_id, available_after, operation_id, actor, entry_time, reverses_entry_id, reversal_reason
                 FROM ledger_entry
                 WHERE reservation_id = ANY ($1) AND (reservation_id, envelope_sequence) > ($2, $3)
                 ORDER BY reservation_id, envelope_sequence
                 LIMIT $4",
                &ids,
                after_reservation,
                after_sequence,
                PAGE,
            )
            .fetch_all(&mut *conn)
            .await?;
            let entries = entries(rows)?;
            let Some(last) = entries.last() else { break };
            (after_reservation, after_sequence) = (last.reservation.map(|r| r.0).unwrap_or_default(), last.envelope_sequence);
            for entry in &entries {
                if let Some((envelope, audit)) = entry.reservation.and_then(|id| audits.get_mut(&id.0)) {
                    audit.take(entry, *envelope)?;
                }
            }
        }
        for row in &reservations {
            let Some((_, audit)) = audits.remove(&row.reservation_id) else { continue };
            let (reserved, committed, spent, released) = (row.reserved, row.committed, row.spent, row.released);
            audit.finish(&Parts { reserved, committed, spent, released })?;
        }
        after = last;
    }
}

/// Entries of reservations that are not there.
async fn find_strays(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), Stop> {
    let stray = sqlx::query!(
        r#"SELECT e.entry_id, e.reservation_id AS "reservation_id!"
           FROM envelope AS v
           JOIN ledger_entry AS e ON e.envelope_id = v.envelope_id
           LEFT JOIN reservation AS r ON r.reservation_id = e.reservation_id
           WHERE v.programme_id = $1 AND e.reservation_id IS NOT NULL AND r.reservation_id IS NULL
           ORDER BY e.entry_id
           LIMIT 1"#,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    match stray {
        None => Ok(()),
        Some(row) => {
            let text = format!("entry {} is of reservation {}, which does not exist", row.entry_id, row.reservation_id);
            Err(Finding { text, entry: Some(EntryId(row.entry_id)) }.into())
        }
    }
}

/// Reversals that do not undo an earlier entry of their reservation, of the kind that they undo, or undo more than it moved.
async fn find_bad_reversals(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), Stop> {
    let bad = sqlx::query_scalar!(
        "SELECT r.entry_id
         FROM envelope AS v
         JOIN ledger_entry AS r ON r.envelope_id = v.envelope_id AND r.reverses_entry_id IS NOT NULL
         LEFT JOIN ledger_entry AS e
           ON e.entry_id = r.reverses_entry_id AND e.reservation_id = r.reservation_id
          AND e.envelope_sequence < r.envelope_sequence AND e.amount >= r.amount
          AND (r.kind, e.kind) IN (('REVERSE_COMMIT', 'COMMIT'), ('REVERSE_SPEND', 'SPEND'), ('REFUND', 'SPEND'))
         WHERE v.programme_id = $1 AND e.entry_id IS NULL
         ORDER BY r.entry_id
         LIMIT 1",
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    match bad {
        None => Ok(()),
        Some(id) => {
            let text = format!("entry {id} undoes what it may not: another kind, more than was moved, or nothing that is there");
            Err(Finding { text, entry: Some(EntryId(id)) }.into())
        }
    }
}

/// Entries outside the chain that nobody will bring into it. Only those wait whose facts have no place in the feed yet; an entry that
/// came past the service has no fact, and one that was cut from the chain's end has a fact with a place.
async fn find_unchained(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), Stop> {
    let found = sqlx::query!(
        r#"WITH unchained AS (
               SELECT e.entry_id
               FROM envelope AS v
               JOIN ledger_entry AS e ON e.envelope_id = v.envelope_id
               LEFT JOIN ledger_chain AS c ON c.entry_id = e.entry_id
               WHERE v.programme_id = $1 AND c.entry_id IS NULL
           )
           SELECT (SELECT count(*) FROM unchained) AS "entries!",
                  (SELECT entry_id FROM unchained ORDER BY entry_id LIMIT 1) AS oldest,
                  (SELECT count(*)
                   FROM outbox, UNNEST(programme_ids, type_names) AS f (programme_id, type_name)
                   WHERE f.programme_id = $1 AND f.type_name = $2) AS "waiting!""#,
        programme.0,
        POSTED,
    )
    .fetch_one(conn)
    .await?;
    match found.oldest {
        Some(oldest) if found.entries > found.waiting => {
            let text = format!(
                "{} entries from {oldest} on are not in the chain; {} of them may still come into it",
                found.entries, found.waiting
            );
            Err(Finding { text, entry: Some(EntryId(oldest)) }.into())
        }
        _ => Ok(()),
    }
}

/// What is in use of each limit against the reservations that count towards it.
async fn check_limits(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), Stop> {
    let wrong = sqlx::query!(
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
           WHERE l.programme_id = $1 AND l.used <> coalesce(s.used, 0)
           ORDER BY l.member_id, l.period_start_time
           LIMIT 1"#,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    match wrong {
        None => Ok(()),
        Some(row) => {
            let text = format!(
                "the limit of member {} from {} says that {} is in use; the reservations give {}",
                row.member_id, row.period_start_time, row.used, row.counted
            );
            Err(Finding { text, entry: None }.into())
        }
    }
}
