//! Reading the ledger, its chain, and its verification. Entries are written by [`super::operation`] alone.

mod past;
mod verify;

pub use past::{add_checkpoints, balances_at, members_at};
pub use verify::{EntryOf, Scope, extent, verify_part};

use super::corrupt;
use crate::{
    domain::{
        balances::{Account, EntryKind},
        ledger::{GENESIS, Hash, LedgerEntry},
        reversal::{Reversal, ReversalReason},
    },
    ids::{EntryId, EnvelopeId, OperationId, ProgrammeId, ReservationId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

struct EntryRow {
    entry_id: Uuid,
    programme_id: Uuid,
    envelope_id: Uuid,
    envelope_sequence: i64,
    kind: String,
    credit_account: String,
    debit_account: String,
    amount: i64,
    reservation_id: Option<Uuid>,
    available_after: i64,
    operation_id: Uuid,
    actor: String,
    entry_time: DateTime<Utc>,
    reverses_entry_id: Option<Uuid>,
    reversal_reason: Option<String>,
}

impl TryFrom<EntryRow> for LedgerEntry {
    type Error = sqlx::Error;

    fn try_from(row: EntryRow) -> Result<Self, sqlx::Error> {
        let account = |text: &str| Account::parse(text).ok_or_else(|| corrupt("ledger_entry.credit_account or .debit_account"));
        let reason = |text: &str| ReversalReason::parse(text).ok_or_else(|| corrupt("ledger_entry.reversal_reason"));
        let reversal = match (row.reverses_entry_id, row.reversal_reason) {
            (Some(of), Some(text)) => Some(Reversal { of: EntryId(of), reason: reason(&text)? }),
            (None, None) => None,
            _ => return Err(corrupt("ledger_entry.reverses_entry_id")),
        };
        Ok(Self {
            id: EntryId(row.entry_id),
            programme: ProgrammeId(row.programme_id),
            envelope: EnvelopeId(row.envelope_id),
            envelope_sequence: row.envelope_sequence,
            kind: EntryKind::parse(&row.kind).ok_or_else(|| corrupt("ledger_entry.kind"))?,
            credit: account(&row.credit_account)?,
            debit: account(&row.debit_account)?,
            amount: row.amount,
            reservation: row.reservation_id.map(ReservationId),
            available_after: row.available_after,
            operation: OperationId(row.operation_id),
            actor: row.actor,
            entry_time: row.entry_time,
            reversal,
        })
    }
}

fn entries(rows: Vec<EntryRow>) -> Result<Vec<LedgerEntry>, sqlx::Error> {
    rows.into_iter().map(LedgerEntry::try_from).collect()
}

/// Entries of an envelope in its order, after one.
pub async fn list(
    conn: &mut PgConnection,
    envelope: EnvelopeId,
    after_sequence: i64,
    size: i64,
) -> Result<Vec<LedgerEntry>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EntryRow,
        "SELECT entry_id, programme_id, envelope_id, envelope_sequence, kind, credit_account, debit_account, amount, reservation_id,
                available_after, operation_id, actor, entry_time, reverses_entry_id, reversal_reason
         FROM ledger_entry
         WHERE envelope_id = $1 AND envelope_sequence > $2
         ORDER BY envelope_sequence
         LIMIT $3",
        envelope.0,
        after_sequence,
        size,
    )
    .fetch_all(conn)
    .await?;
    entries(rows)
}

/// As [`list`], of one reservation.
pub async fn list_of_reservation(
    conn: &mut PgConnection,
    envelope: EnvelopeId,
    reservation: ReservationId,
    after_sequence: i64,
    size: i64,
) -> Result<Vec<LedgerEntry>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EntryRow,
        "SELECT entry_id, programme_id, envelope_id, envelope_sequence, kind, credit_account, debit_account, amount, reservation_id,
                available_after, operation_id, actor, entry_time, reverses_entry_id, reversal_reason
         FROM ledger_entry
         WHERE reservation_id = $1 AND envelope_id = $2 AND envelope_sequence > $3
         ORDER BY envelope_sequence
         LIMIT $4",
        reservation.0,
        envelope.0,
        after_sequence,
        size,
    )
    .fetch_all(conn)
    .await?;
    entries(rows)
}

/// Entries by their ids; those that are not there are left out.
pub async fn by_ids(conn: &mut PgConnection, ids: &[EntryId]) -> Result<HashMap<EntryId, LedgerEntry>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EntryRow,
        "SELECT entry_id, programme_id, envelope_id, envelope_sequence, kind, credit_account, debit_account, amount, reservation_id,
                available_after, operation_id, actor, entry_time, reverses_entry_id, reversal_reason
         FROM ledger_entry
         WHERE entry_id = ANY ($1)",
        &ids.iter().map(|id| id.0).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await?;
    Ok(entries(rows)?.into_iter().map(|entry| (entry.id, entry)).collect())
}

/// A link of a programme's chain.
pub struct Link {
    pub programme: ProgrammeId,
    pub position: i64,
    pub entry: EntryId,
    pub hash: Hash,
}

/// The last position of a programme's chain, and its hash.
pub async fn chain_head(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(i64, Hash), sqlx::Error> {
    let row = sqlx::query!(
        "SELECT position, hash FROM ledger_chain WHERE programme_id = $1 ORDER BY position DESC LIMIT 1",
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    match row {
        None => Ok((0, GENESIS)),
        Some(row) => Ok((row.position, row.hash.try_into().map_err(|_| corrupt("ledger_chain.hash"))?)),
    }
}

/// Adds links.
pub async fn append_links(conn: &mut PgConnection, links: &[Link]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO ledger_chain (programme_id, position, entry_id, hash)
         SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::uuid[], $4::bytea[])",
        &links.iter().map(|l| l.programme.0).collect::<Vec<_>>(),
        &links.iter().map(|l| l.position).collect::<Vec<_>>(),
        &links.iter().map(|l| l.entry.0).collect::<Vec<_>>(),
        &links.iter().map(|l| l.hash.to_vec()).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
