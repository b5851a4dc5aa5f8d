//! What an operation locks and reads.

use super::{Known, KnownOperations, Locks, MEMBER_LOCK, Operation};
use crate::{
    domain::{
        balances::{Balances, EntryKind, Parts},
        books::{EnvelopeBook, Persons, Receipt},
        member_limit::LimitUse,
        period::Period,
        plan::{ResourceClass, Stage},
        refusal::Refusal,
        reservation::Reservation,
        reversal::Original,
    },
    ids::{EntryId, EnvelopeId, MemberId, PlanId, ProgrammeId, ReservationId},
    store::corrupt,
};
use chrono::{DateTime, Utc};
use koc_chassis::clock;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

struct EnvelopeRow {
    envelope_id: Uuid,
    programme_id: Uuid,
    plan_id: Uuid,
    resource_class: String,
    has_children: bool,
    allocated: i64,
    reserved: i64,
    committed: i64,
    spent: i64,
    overrun_limit: i64,
    sequence: i64,
    plan_state: String,
    period_start_time: DateTime<Utc>,
    period_end_time: DateTime<Utc>,
    read_time: DateTime<Utc>,
}

impl TryFrom<EnvelopeRow> for EnvelopeBook {
    type Error = sqlx::Error;

    fn try_from(row: EnvelopeRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            programme: ProgrammeId(row.programme_id),
            plan: PlanId(row.plan_id),
            is_reserve: row.resource_class == ResourceClass::StrategicReserve.as_str(),
            has_children: row.has_children,
            stage: Stage::parse(&row.plan_state).ok_or_else(|| corrupt("plan.state"))?,
            period: Period::new(row.period_start_time, row.period_end_time).map_err(|_| corrupt("plan.period_end_time"))?,
            balances: Balances { allocated: row.allocated, reserved: row.reserved, committed: row.committed, spent: row.spent },
            overrun_limit: row.overrun_limit,
            sequence: row.sequence,
        })
    }
}

/// The envelopes that are named and those of the reservations that are, with what their plans say, and the time. Locks are taken by id
/// before anything is read.
pub(super) async fn envelopes(
    conn: &mut PgConnection,
    envelopes: &HashSet<EnvelopeId>,
    reservations: &HashSet<ReservationId>,
    locks: Locks,
) -> Result<(BTreeMap<EnvelopeId, EnvelopeBook>, DateTime<Utc>), sqlx::Error> {
    let envelopes: Vec<Uuid> = envelopes.iter().map(|id| id.0).collect();
    let reservations: Vec<Uuid> = reservations.iter().map(|id| id.0).collect();
    let rows = match locks {
        Locks::Taken => {
            sqlx::query_as!(
                EnvelopeRow,
                r#"SELECT envelope_id AS "envelope_id!", programme_id AS "programme_id!", plan_id AS "plan_id!",
                          resource_class AS "resource_class!", has_children AS "has_children!", allocated AS "allocated!",
                          reserved AS "reserved!", committed AS "committed!", spent AS "spent!", overrun_limit AS "overrun_limit!",
                          sequence AS "sequence!", plan_state AS "plan_state!", period_start_time AS "period_start_time!",
                          period_end_time AS "period_end_time!", read_time AS "read_time!"
                   FROM lock_envelopes($1, $2)"#,
                &envelopes,
                &reservations,
            )
            .fetch_all(&mut *conn)
            .await?
        }
        Locks::None => {
            sqlx::query_as!(
                EnvelopeRow,
                r#"SELECT e.envelope_id, e.programme_id, e.plan_id, e.resource_class, e.has_children, e.allocated, e.reserved, e.committed,
                          e.spent, e.overrun_limit, e.sequence, p.state AS plan_state, p.period_start_time, p.period_end_time,
                          koc_now() AS "read_time!"
                   FROM envelope AS e
                   JOIN plan AS p ON p.plan_id = e.plan_id
                   WHERE e.envelope_id = ANY ($1)
                      OR e.envelope_id IN (SELECT r.envelope_id FROM reservation AS r WHERE r.reservation_id = ANY ($2))"#,
                &envelopes,
                &reservations,
            )
            .fetch_all(&mut *conn)
            .await?
        }
    };
    let now = match rows.first() {
        Some(row) => row.read_time,
        None => clock::now(conn).await?,
    };
    let books = rows.into_iter().map(|row| Ok((EnvelopeId(row.envelope_id), row.try_into()?)));
    Ok((books.collect::<Result<_, sqlx::Error>>()?, now))
}

/// The limits that money of these plans counts towards: of the members, and of those that are one person with them. With where their ids
/// lead, and who is suspended. Locks are taken before they are read, by key.
pub(super) async fn limits(
    conn: &mut PgConnection,
    envelopes: &BTreeMap<EnvelopeId, EnvelopeBook>,
    members: &HashSet<MemberId>,
    locks: Locks,
) -> Result<(Vec<LimitUse>, Persons), sqlx::Error> {
    let programmes: Vec<Uuid> = envelopes.values().map(|e| e.programme.0).collect::<HashSet<_>>().into_iter().collect();
    let plans: Vec<Uuid> = envelopes.values().map(|e| e.plan.0).collect::<HashSet<_>>().into_iter().collect();
    let ids: Vec<Uuid> = members.iter().map(|m| m.0).collect();
    if locks == Locks::Taken {
        sqlx::query!("SELECT lock_limits($1, $2, $3, $4)", MEMBER_LOCK, &programmes, &ids, &plans).execute(&mut *conn).await?;
    }
    let rows = sqlx::query!(
        r#"WITH asked AS MATERIALIZED (
               SELECT p.id AS programme_id, m.id AS member_id, coalesce(a.leads_to, m.id) AS leads_to
               FROM UNNEST($1::uuid[]) AS p (id)
               CROSS JOIN UNNEST($2::uuid[]) AS m (id)
               LEFT JOIN member_alias AS a ON a.programme_id = p.id AND a.member_id = m.id
           ), person AS MATERIALIZED (
               SELECT programme_id, leads_to AS member_id, leads_to FROM asked
               UNION
               SELECT a.programme_id, a.member_id, a.leads_to
               FROM asked
               JOIN member_alias AS a USING (programme_id, leads_to)
           ), counted AS MATERIALIZED (
               SELECT l.programme_id, l.member_id, person.leads_to, l.period_start_time, l.period_end_time, l.amount, l.used
               FROM person
               JOIN member_limit AS l USING (programme_id, member_id)
               WHERE EXISTS (SELECT FROM plan AS p
                             WHERE p.plan_id = ANY ($3) AND p.programme_id = l.programme_id
                               AND l.period_start_time <= p.period_start_time AND p.period_end_time <= l.period_end_time)
           )
           SELECT asked.programme_id AS "programme_id!", asked.member_id AS "asked_id!", asked.leads_to AS "leads_to!",
                  coalesce(f.suspended, false) AS "suspended!", l.member_id AS "member_id?", l.period_start_time AS "start?",
                  l.period_end_time AS "end?", l.amount AS "amount?", l.used AS "used?"
           FROM asked
           LEFT JOIN followed_member AS f ON f.programme_id = asked.programme_id AND f.member_id = asked.leads_to
           LEFT JOIN counted AS l ON l.programme_id = asked.programme_id AND l.leads_to = asked.leads_to"#,
        &programmes,
        &ids,
        &plans,
    )
    .fetch_all(conn)
    .await?;
    let (mut limits, mut persons) = (BTreeMap::new(), Persons::default());
    for row in rows {
        let (programme, person) = (ProgrammeId(row.programme_id), MemberId(row.leads_to));
        let mut lead = |member: MemberId| {
            if member != person {
                persons.leads.insert((programme, member), person);
            }
        };
        lead(MemberId(row.asked_id));
        if let (Some(member), Some(start), Some(end), Some(limit), Some(used)) =
            (row.member_id.map(MemberId), row.start, row.end, row.amount, row.used)
        {
            lead(member);
            let period = Period::new(start, end).map_err(|_| corrupt("member_limit.period_end_time"))?;
            limits.insert((programme, member, start), LimitUse { programme, member, period, limit, used });
        }
        if row.suspended {
            persons.suspended.insert((programme, person));
        }
    }
    Ok((limits.into_values().collect(), persons))
}

/// Entries that are asked to be undone, and whether they were: read after the locks, under which alone an entry is undone.
pub(super) async fn originals(
    conn: &mut PgConnection,
    entries: impl Iterator<Item = EntryId>,
) -> Result<BTreeMap<EntryId, Original>, sqlx::Error> {
    let ids: Vec<Uuid> = entries.map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT e.entry_id, e.reservation_id AS "reservation_id!", e.kind, e.amount,
                  EXISTS (SELECT FROM ledger_entry AS r
                          WHERE r.envelope_id = e.envelope_id AND r.reverses_entry_id = e.entry_id) AS "reversed!"
           FROM ledger_entry AS e
           WHERE e.entry_id = ANY ($1) AND e.reservation_id IS NOT NULL"#,
        &ids,
    )
    .fetch_all(conn)
    .await?;
    let mut found = BTreeMap::new();
    for row in rows {
        let (reservation, kind) =
            (ReservationId(row.reservation_id), EntryKind::parse(&row.kind).ok_or_else(|| corrupt("ledger_entry.kind"))?);
        found.insert(EntryId(row.entry_id), Original { reservation, kind, amount: row.amount, reversed: row.reversed });
    }
    Ok(found)
}

/// What was kept of these operations before.
pub(super) async fn known<'a>(
    conn: &mut PgConnection,
    operations: impl Iterator<Item = &'a Operation> + Clone,
) -> Result<KnownOperations, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT o.programme_id, o.method, o.request_id, o.request_hash, o.reservation_id AS "reservation_id?", o.reserved, o.committed,
                  o.spent, o.released, o.expire_time, o.available_after, o.refusal,
                  r.envelope_id AS "envelope_id?", r.member_id, r.purpose AS "purpose?", r.create_time AS "create_time?"
           FROM UNNEST($1::uuid[], $2::text[], $3::uuid[]) AS k (programme_id, method, request_id)
           JOIN operation AS o USING (programme_id, method, request_id)
           LEFT JOIN reservation AS r ON r.reservation_id = o.reservation_id"#,
        &operations.clone().map(|o| o.key.programme).collect::<Vec<_>>(),
        &operations.clone().map(|o| o.key.method).collect::<Vec<_>>() as &[&str],
        &operations.map(|o| o.key.request_id).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await?;
    let mut known = KnownOperations::new();
    for row in rows {
        let programme = ProgrammeId(row.programme_id);
        let outcome = match (row.available_after, row.refusal) {
            (Some(available), None) => {
                let parts = (row.reserved, row.committed, row.spent, row.released);
                let kept = (row.reservation_id, row.envelope_id, row.purpose, row.expire_time, row.create_time);
                let reservation = match (kept, parts) {
                    (
                        (Some(id), Some(envelope), Some(purpose), Some(expire_time), Some(create_time)),
                        (Some(reserved), Some(committed), Some(spent), Some(released)),
                    ) => Some(Reservation {
                        id: ReservationId(id),
                        programme,
                        envelope: EnvelopeId(envelope),
                        member: row.member_id.map(MemberId),
                        purpose,
                        parts: Parts { reserved, committed, spent, released },
                        // No part of an answer.
                        recoverable: 0,
                        expire_time,
                        create_time,
                    }),
                    ((None, ..), _) => None,
                    _ => return Err(corrupt("operation.reservation_id")),
                };
                Ok(Receipt { reservation, available })
            }
            (None, Some(refusal)) => Err(serde_json::from_value::<Refusal>(refusal).map_err(|_| corrupt("operation.refusal"))?),
            _ => return Err(corrupt("operation.available_after")),
        };
        known.insert((row.programme_id, row.method, row.request_id), Known { hash: row.request_hash, outcome });
    }
    Ok(known)
}
