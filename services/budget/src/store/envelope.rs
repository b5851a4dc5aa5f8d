//! Envelopes. What stands in them is written by [`super::operation`] alone.

use super::corrupt;
use crate::{
    domain::{
        balances::Balances,
        envelope::{Envelope, Place},
        plan::ResourceClass,
        resource_kind::ResourceKind,
    },
    ids::{EnvelopeId, PlanId, ProgrammeId},
};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

struct EnvelopeRow {
    envelope_id: Uuid,
    plan_id: Uuid,
    parent_id: Option<Uuid>,
    resource_class: String,
    region: Option<String>,
    resource_kind: Option<String>,
    display_name: String,
    planned: i64,
    allocated: i64,
    reserved: i64,
    committed: i64,
    spent: i64,
    overrun_limit: i64,
}

impl TryFrom<EnvelopeRow> for Envelope {
    type Error = sqlx::Error;

    fn try_from(row: EnvelopeRow) -> Result<Self, sqlx::Error> {
        let EnvelopeRow { allocated, reserved, committed, spent, .. } = row;
        Ok(Self {
            id: EnvelopeId(row.envelope_id),
            plan: PlanId(row.plan_id),
            place: place(&row.resource_class, row.parent_id, row.region, row.resource_kind)?,
            display_name: row.display_name,
            planned: row.planned,
            balances: Balances { allocated, reserved, committed, spent },
            overrun_limit: row.overrun_limit,
        })
    }
}

/// A place as columns hold it.
pub(super) fn place(
    class: &str,
    parent: Option<Uuid>,
    region: Option<String>,
    kind: Option<String>,
) -> Result<Place, sqlx::Error> {
    let kind = kind.map(|kind| ResourceKind::parse(&kind).ok_or_else(|| corrupt("resource_kind"))).transpose()?;
    let class = ResourceClass::parse(class).ok_or_else(|| corrupt("resource_class"))?;
    Ok(Place { class, parent: parent.map(EnvelopeId), region, kind })
}

/// An envelope to be added.
pub struct Added<'a> {
    pub id: EnvelopeId,
    pub place: &'a Place,
    pub display_name: &'a str,
    /// What activation allocates to it, without its children.
    pub planned: i64,
    /// How far available may fall below zero.
    pub overrun_limit: i64,
}

/// Adds envelopes to a plan, after those that it has. Parents come first, and are locked when they were there before.
pub async fn insert(
    conn: &mut PgConnection,
    plan: PlanId,
    programme: ProgrammeId,
    added: &[Added<'_>],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO envelope (envelope_id, plan_id, programme_id, ordinal, parent_id, resource_class, region, resource_kind, display_name,
                               planned, overrun_limit)
         SELECT e.id, $1, $2, (e.nr - 1 + (SELECT count(*) FROM envelope WHERE plan_id = $1))::integer, e.parent, e.class, e.region, e.kind,
                e.name, e.planned, e.overrun
         FROM UNNEST($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bigint[])
              WITH ORDINALITY AS e (id, parent, class, region, kind, name, planned, overrun, nr)",
        plan.0,
        programme.0,
        &added.iter().map(|a| a.id.0).collect::<Vec<_>>(),
        &added.iter().map(|a| a.place.parent.map(|p| p.0)).collect::<Vec<_>>() as &[Option<Uuid>],
        &added.iter().map(|a| a.place.class.as_str().to_owned()).collect::<Vec<_>>(),
        &added.iter().map(|a| a.place.region.clone()).collect::<Vec<_>>() as &[Option<String>],
        &added.iter().map(|a| a.place.kind.map(|k| k.as_str().to_owned())).collect::<Vec<_>>() as &[Option<String>],
        &added.iter().map(|a| a.display_name.to_owned()).collect::<Vec<_>>(),
        &added.iter().map(|a| a.planned).collect::<Vec<_>>(),
        &added.iter().map(|a| a.overrun_limit).collect::<Vec<_>>(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE envelope SET has_children = true WHERE envelope_id = ANY ($1) AND NOT has_children",
        &added.iter().filter_map(|a| a.place.parent).map(|p| p.0).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes how far the available of locked envelopes may fall below zero.
pub async fn set_overruns(conn: &mut PgConnection, limits: &[(EnvelopeId, i64)]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE envelope AS e
         SET overrun_limit = c.overrun
         FROM UNNEST($1::uuid[], $2::bigint[]) AS c (id, overrun)
         WHERE e.envelope_id = c.id",
        &limits.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
        &limits.iter().map(|(_, limit)| *limit).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes the envelopes of a locked draft, for others to take their place.
pub async fn clear(conn: &mut PgConnection, plan: PlanId) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM envelope WHERE plan_id = $1", plan.0).execute(conn).await?;
    Ok(())
}

/// The envelopes of a plan in the order given: parents before their children.
pub async fn list(conn: &mut PgConnection, plan: PlanId) -> Result<Vec<Envelope>, sqlx::Error> {
    let rows = sqlx::query_as!(
        EnvelopeRow,
        "SELECT envelope_id, plan_id, parent_id, resource_class, region, resource_kind, display_name, planned, allocated, reserved,
                committed, spent, overrun_limit
         FROM envelope
         WHERE plan_id = $1
         ORDER BY ordinal",
        plan.0,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Envelope::try_from).collect()
}

/// Locks all envelopes of plans, by id: until the transaction ends no money moves in them but by it.
pub async fn lock_all(conn: &mut PgConnection, plans: &[PlanId]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT envelope_id FROM envelope WHERE plan_id = ANY ($1) ORDER BY envelope_id FOR NO KEY UPDATE",
        &plans.iter().map(|p| p.0).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Of these, locked, the first that ever held a reservation.
pub async fn with_reservations(conn: &mut PgConnection, ids: &[EnvelopeId]) -> Result<Option<EnvelopeId>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT e.id AS "id!" FROM UNNEST($1::uuid[]) AS e (id)
           WHERE EXISTS (SELECT FROM reservation AS r WHERE r.envelope_id = e.id)
           ORDER BY e.id
           LIMIT 1"#,
        &ids.iter().map(|id| id.0).collect::<Vec<_>>(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(EnvelopeId))
}

/// Whether the programme has the envelope.
pub async fn exists(conn: &mut PgConnection, programme: ProgrammeId, id: EnvelopeId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!("SELECT 1 FROM envelope WHERE envelope_id = $1 AND programme_id = $2", id.0, programme.0)
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

/// How many members have money held, owed or paid in each class of a plan, and how much all of them together.
pub async fn members(conn: &mut PgConnection, plan: PlanId) -> Result<HashMap<ResourceClass, (i64, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT e.resource_class, count(DISTINCT r.member_id) AS "members!",
                  coalesce(sum(r.reserved + r.committed + r.spent), 0)::bigint AS "in_use!"
           FROM envelope AS e
           JOIN reservation AS r ON r.envelope_id = e.envelope_id
           WHERE e.plan_id = $1 AND r.member_id IS NOT NULL AND r.reserved + r.committed + r.spent > 0
           GROUP BY e.resource_class"#,
        plan.0,
    )
    .fetch_all(conn)
    .await?;
    let class = |text: &str| ResourceClass::parse(text).ok_or_else(|| corrupt("envelope.resource_class"));
    rows.into_iter().map(|row| Ok((class(&row.resource_class)?, (row.members, row.in_use)))).collect()
}
