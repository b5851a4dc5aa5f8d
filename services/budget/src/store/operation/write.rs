//! What operations write, in one statement: sets, the keys in their order.

use super::{Kept, Posted};
use crate::{
    domain::{
        books::{Books, EnvelopeBook},
        refusal::Refusal,
        reservation::Reservation,
    },
    error::Error,
    ids::EnvelopeId,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// Writes operations with what came of them, their entries, and the projections that changed.
pub(super) async fn all(
    conn: &mut PgConnection,
    kept: &mut [Kept<'_>],
    posted: &[Posted],
    (before, after): (&Books, &Books),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if kept.is_empty() && posted.is_empty() {
        return Ok(());
    }
    // Keys are inserted in one order, so that two that use the same keys wait for each other without a cycle.
    kept.sort_by_key(|k| (k.operation.key.programme, k.operation.key.method, k.operation.key.request_id));
    let part = |of: fn(&Reservation) -> i64| kept.iter().map(|k| k.held().map(of)).collect::<Vec<Option<i64>>>();
    let refusal = |k: &Kept<'_>| k.outcome.as_ref().err().map(serde_json::to_value::<&Refusal>).transpose();
    let refusals: Vec<Option<serde_json::Value>> =
        kept.iter().map(refusal).collect::<Result<_, _>>().map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    // A reservation that was refused was never made.
    let reservations: Vec<Option<Uuid>> = kept.iter().map(|k| k.held().map(|r| r.id.0)).collect();
    let entries = || posted.iter().map(|p| &p.entry);
    let envelopes: Vec<(&EnvelopeId, &EnvelopeBook)> =
        after.envelopes.iter().filter(|(id, book)| before.envelopes.get(id) != Some(book)).collect();
    let new: Vec<&Reservation> = after.reservations.values().filter(|r| !before.reservations.contains_key(&r.id)).collect();
    let moved = |r: &&Reservation| before.reservations.get(&r.id).is_some_and(|was| was != *r);
    let moved: Vec<&Reservation> = after.reservations.values().filter(moved).collect();
    sqlx::query!(
        "WITH operations AS (
             INSERT INTO operation (operation_id, programme_id, method, request_id, request_hash, reservation_id, amount, reserved,
                                    committed, spent, released, expire_time, available_after, refusal, payment_reference, actor,
                                    client, trace_id, operation_time)
             SELECT *, $19 FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bytea[], $6::uuid[], $7::bigint[],
                                       $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::timestamptz[], $13::bigint[],
                                       $14::jsonb[], $15::text[], $16::text[], $17::text[], $18::text[])
         ), entries AS (
             INSERT INTO ledger_entry (entry_id, programme_id, envelope_id, envelope_sequence, kind, credit_account, debit_account,
                                       amount, reservation_id, available_after, operation_id, actor, reverses_entry_id,
                                       reversal_reason, entry_time)
             SELECT *, $19 FROM UNNEST($20::uuid[], $21::uuid[], $22::uuid[], $23::bigint[], $24::text[], $25::text[], $26::text[],
                                       $27::bigint[], $28::uuid[], $29::bigint[], $30::uuid[], $31::text[], $32::uuid[],
                                       $33::text[])
         ), envelopes AS (
             UPDATE envelope AS e
             SET allocated = c.allocated, reserved = c.reserved, committed = c.committed, spent = c.spent, sequence = c.sequence
             FROM UNNEST($34::uuid[], $35::bigint[], $36::bigint[], $37::bigint[], $38::bigint[], $39::bigint[])
                  AS c (id, allocated, reserved, committed, spent, sequence)
             WHERE e.envelope_id = c.id
         ), made AS (
             INSERT INTO reservation (reservation_id, programme_id, envelope_id, member_id, purpose, amount, reserved, committed,
                                      spent, released, recoverable, expire_time, create_time)
             SELECT *, $19 FROM UNNEST($40::uuid[], $41::uuid[], $42::uuid[], $43::uuid[], $44::text[], $45::bigint[],
                                       $46::bigint[], $47::bigint[], $48::bigint[], $49::bigint[], $50::bigint[],
                                       $51::timestamptz[])
         )
         UPDATE reservation AS r
         SET amount = c.amount, reserved = c.reserved, committed = c.committed, spent = c.spent, released = c.released,
             recoverable = c.recoverable, expire_time = c.expire_time
         FROM UNNEST($52::uuid[], $53::bigint[], $54::bigint[], $55::bigint[], $56::bigint[], $57::bigint[], $58::bigint[],
                     $59::timestamptz[])
              AS c (id, amount, reserved, committed, spent, released, recoverable, expire_time)
         WHERE r.reservation_id = c.id",
        &kept.iter().map(|k| k.id.0).collect::<Vec<_>>(),
        &kept.iter().map(|k| k.operation.key.programme).collect::<Vec<_>>(),
        &kept.iter().map(|k| k.operation.key.method).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|k| k.operation.key.request_id).collect::<Vec<_>>(),
        &kept.iter().map(|k| k.operation.key.hash.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &reservations as &[Option<Uuid>],
        &part(|r| r.parts.amount()) as &[Option<i64>],
        &part(|r| r.parts.reserved) as &[Option<i64>],
        &part(|r| r.parts.committed) as &[Option<i64>],
        &part(|r| r.parts.spent) as &[Option<i64>],
        &part(|r| r.parts.released) as &[Option<i64>],
        &kept.iter().map(|k| k.held().map(|r| r.expire_time)).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &kept.iter().map(|k| k.outcome.as_ref().ok().map(|receipt| receipt.available)).collect::<Vec<_>>() as &[Option<i64>],
        &refusals as &[Option<serde_json::Value>],
        &kept.iter().map(|k| k.operation.payment_reference.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &kept.iter().map(|k| k.operation.actor.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|k| k.operation.client.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|k| k.operation.trace_id.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        now,
        &entries().map(|e| e.id.0).collect::<Vec<_>>(),
        &entries().map(|e| e.programme.0).collect::<Vec<_>>(),
        &entries().map(|e| e.envelope.0).collect::<Vec<_>>(),
        &entries().map(|e| e.envelope_sequence).collect::<Vec<_>>(),
        &entries().map(|e| e.kind.as_str()).collect::<Vec<_>>() as &[&str],
        &entries().map(|e| e.credit.as_str()).collect::<Vec<_>>() as &[&str],
        &entries().map(|e| e.debit.as_str()).collect::<Vec<_>>() as &[&str],
        &entries().map(|e| e.amount).collect::<Vec<_>>(),
        &entries().map(|e| e.reservation.map(|id| id.0)).collect::<Vec<_>>() as &[Option<Uuid>],
        &entries().map(|e| e.available_after).collect::<Vec<_>>(),
        &entries().map(|e| e.operation.0).collect::<Vec<_>>(),
        &entries().map(|e| e.actor.as_str()).collect::<Vec<_>>() as &[&str],
        &entries().map(|e| e.reversal.map(|r| r.of.0)).collect::<Vec<_>>() as &[Option<Uuid>],
        &entries().map(|e| e.reversal.map(|r| r.reason.as_str())).collect::<Vec<_>>() as &[Option<&str>],
        &envelopes.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
        &envelopes.iter().map(|(_, b)| b.balances.allocated).collect::<Vec<_>>(),
        &envelopes.iter().map(|(_, b)| b.balances.reserved).collect::<Vec<_>>(),
        &envelopes.iter().map(|(_, b)| b.balances.committed).collect::<Vec<_>>(),
        &envelopes.iter().map(|(_, b)| b.balances.spent).collect::<Vec<_>>(),
        &envelopes.iter().map(|(_, b)| b.sequence).collect::<Vec<_>>(),
        &new.iter().map(|r| r.id.0).collect::<Vec<_>>(),
        &new.iter().map(|r| r.programme.0).collect::<Vec<_>>(),
        &new.iter().map(|r| r.envelope.0).collect::<Vec<_>>(),
        &new.iter().map(|r| r.member.map(|m| m.0)).collect::<Vec<_>>() as &[Option<Uuid>],
        &new.iter().map(|r| r.purpose.as_str()).collect::<Vec<_>>() as &[&str],
        &new.iter().map(|r| r.parts.amount()).collect::<Vec<_>>(),
        &new.iter().map(|r| r.parts.reserved).collect::<Vec<_>>(),
        &new.iter().map(|r| r.parts.committed).collect::<Vec<_>>(),
        &new.iter().map(|r| r.parts.spent).collect::<Vec<_>>(),
        &new.iter().map(|r| r.parts.released).collect::<Vec<_>>(),
        &new.iter().map(|r| r.recoverable).collect::<Vec<_>>(),
        &new.iter().map(|r| r.expire_time).collect::<Vec<_>>(),
        &moved.iter().map(|r| r.id.0).collect::<Vec<_>>(),
        &moved.iter().map(|r| r.parts.amount()).collect::<Vec<_>>(),
        &moved.iter().map(|r| r.parts.reserved).collect::<Vec<_>>(),
        &moved.iter().map(|r| r.parts.committed).collect::<Vec<_>>(),
        &moved.iter().map(|r| r.parts.spent).collect::<Vec<_>>(),
        &moved.iter().map(|r| r.parts.released).collect::<Vec<_>>(),
        &moved.iter().map(|r| r.recoverable).collect::<Vec<_>>(),
        &moved.iter().map(|r| r.expire_time).collect::<Vec<_>>(),
    )
    .execute(&mut *conn)
    .await?;
    limits(conn, before, after).await?;
    Ok(())
}

async fn limits(conn: &mut PgConnection, before: &Books, after: &Books) -> Result<(), sqlx::Error> {
    // Deciding adds none and takes none away.
    let changed: Vec<_> = before.limits.iter().zip(&after.limits).filter(|(was, is)| was != is).map(|(_, is)| is).collect();
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE member_limit AS l
         SET used = c.used
         FROM UNNEST($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bigint[]) AS c (programme, member, start, used)
         WHERE l.programme_id = c.programme AND l.member_id = c.member AND l.period_start_time = c.start",
        &changed.iter().map(|l| l.programme.0).collect::<Vec<_>>(),
        &changed.iter().map(|l| l.member.0).collect::<Vec<_>>(),
        &changed.iter().map(|l| l.period.start()).collect::<Vec<_>>(),
        &changed.iter().map(|l| l.used).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
