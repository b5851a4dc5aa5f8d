//! Grants. A grant's row is locked by whoever moves it.

use super::corrupt;
use crate::{
    domain::{
        cost::usage::Usage,
        grant::{Grant, Mismatch, Stage},
        resource_kind::ResourceKind,
    },
    ids::{EnvelopeId, EstimateId, GrantId, MemberId, PlanId, ProgrammeId, ReservationId, ResourceId, UnitId},
};
use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct GrantRow {
    grant_id: Uuid,
    programme_id: Uuid,
    member_id: Uuid,
    resource_id: Uuid,
    kind: String,
    state: String,
    usage: serde_json::Value,
    session_date: Option<NaiveDate>,
    estimate_id: Option<Uuid>,
    restated_id: Option<Uuid>,
    envelope_id: Option<Uuid>,
    reservation_id: Option<Uuid>,
    extra_reservation_id: Option<Uuid>,
    unit_id: Option<Uuid>,
    mismatches: Vec<String>,
    reason: String,
    eligibility_reason: String,
    shipping_reference: Option<String>,
    nda_reference: Option<String>,
    embargo_until_time: Option<DateTime<Utc>>,
    requested_by: String,
    decided_by: Option<String>,
    create_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
}

impl TryFrom<GrantRow> for Grant {
    type Error = sqlx::Error;

    fn try_from(row: GrantRow) -> Result<Self, sqlx::Error> {
        let mismatch = |text: &String| Mismatch::parse(text).ok_or_else(|| corrupt("resource_grant.mismatches"));
        Ok(Self {
            id: GrantId(row.grant_id),
            programme: ProgrammeId(row.programme_id),
            member: MemberId(row.member_id),
            resource: ResourceId(row.resource_id),
            kind: ResourceKind::parse(&row.kind).ok_or_else(|| corrupt("resource_grant.kind"))?,
            stage: Stage::parse(&row.state).ok_or_else(|| corrupt("resource_grant.state"))?,
            usage: serde_json::from_value::<Usage>(row.usage).map_err(|_| corrupt("resource_grant.usage"))?,
            session_date: row.session_date,
            estimate: row.estimate_id.map(EstimateId),
            restated: row.restated_id.map(EstimateId),
            envelope: row.envelope_id.map(EnvelopeId),
            reservation: row.reservation_id.map(ReservationId),
            extra_reservation: row.extra_reservation_id.map(ReservationId),
            unit: row.unit_id.map(UnitId),
            mismatches: row.mismatches.iter().map(mismatch).collect::<Result<_, _>>()?,
            reason: row.reason,
            eligibility_reason: row.eligibility_reason,
            shipping_reference: row.shipping_reference,
            nda_reference: row.nda_reference,
            embargo_until_time: row.embargo_until_time,
            requested_by: row.requested_by,
            decided_by: row.decided_by,
            create_time: row.create_time,
            update_time: row.update_time,
        })
    }
}

/// Keeps a new grant.
pub async fn insert(conn: &mut PgConnection, grant: &Grant) -> Result<(), sqlx::Error> {
    let usage = serde_json::to_value(&grant.usage).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let mismatches: Vec<String> = grant.mismatches.iter().map(|mismatch| mismatch.as_str().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO resource_grant (grant_id, programme_id, member_id, resource_id, kind, state, usage, session_date, estimate_id,
                                     envelope_id, unit_id, mismatches, reason, eligibility_reason, nda_reference,
                                     embargo_until_time, requested_by, create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $18)",
        grant.id.0,
        grant.programme.0,
        grant.member.0,
        grant.resource.0,
        grant.kind.as_str(),
        grant.stage.as_str(),
        usage,
        grant.session_date,
        grant.estimate.map(|id| id.0),
        grant.envelope.map(|id| id.0),
        grant.unit.map(|id| id.0),
        &mismatches,
        grant.reason,
        grant.eligibility_reason,
        grant.nda_reference,
        grant.embargo_until_time,
        grant.requested_by,
        grant.create_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps where a locked grant stands, and what came with that.
pub async fn update(conn: &mut PgConnection, grant: &Grant) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE resource_grant
         SET state = $2, restated_id = $3, reservation_id = $4, extra_reservation_id = $5, shipping_reference = $6, decided_by = $7,
             update_time = $8
         WHERE grant_id = $1",
        grant.id.0,
        grant.stage.as_str(),
        grant.restated.map(|id| id.0),
        grant.reservation.map(|id| id.0),
        grant.extra_reservation.map(|id| id.0),
        grant.shipping_reference,
        grant.decided_by,
        grant.update_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps others from moving the grant until the transaction ends; what it is, is read by a statement after it.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: GrantId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT 1 FROM resource_grant WHERE grant_id = $1 AND programme_id = $2 FOR NO KEY UPDATE",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// A grant of the programme.
pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, id: GrantId) -> Result<Option<Grant>, sqlx::Error> {
    Ok(list_where(conn, programme, Some(id), None, None, None, 1).await?.pop())
}

/// How many grants are out, or came back and are not settled, that a plan's locked envelopes pay for.
pub async fn out_in(conn: &mut PgConnection, plan: PlanId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
           FROM envelope AS e
           JOIN resource_grant AS g ON g.envelope_id = e.envelope_id
           WHERE e.plan_id = $1 AND g.state IN ('HANDED_OVER', 'RETURNED')"#,
        plan.0,
    )
    .fetch_one(conn)
    .await
}

/// How many grants of a locked resource are not at their end.
pub async fn open_of(conn: &mut PgConnection, resource: ResourceId) -> Result<i64, sqlx::Error> {
    let open: Vec<String> = Stage::ALL.iter().filter(|stage| stage.is_open()).map(|stage| stage.as_str().to_owned()).collect();
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
           FROM resource_grant
           WHERE resource_id = $1 AND state = ANY ($2)"#,
        resource.0,
        &open,
    )
    .fetch_one(conn)
    .await
}

/// Grants of a programme by id, after one; only a member's, only of a resource.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: Option<MemberId>,
    resource: Option<ResourceId>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Grant>, sqlx::Error> {
    list_where(conn, programme, None, member, resource, after, size).await
}

/// Of members that were merged the one is shown that goes on.
async fn list_where(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: Option<GrantId>,
    member: Option<MemberId>,
    resource: Option<ResourceId>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Grant>, sqlx::Error> {
    let members = super::member::ids(conn, programme, member).await?;
    let rows = sqlx::query_as!(
        GrantRow,
        r#"SELECT grant_id, g.programme_id, coalesce(a.leads_to, g.member_id) AS "member_id!", resource_id, kind, state, usage, session_date, estimate_id, restated_id, envelope_id,
                reservation_id, extra_reservation_id, unit_id, mismatches, reason, eligibility_reason, shipping_reference,
                nda_reference, embargo_until_time, requested_by, decided_by, create_time, update_time
         FROM resource_grant AS g
         LEFT JOIN member_alias AS a ON a.programme_id = g.programme_id AND a.member_id = g.member_id
         WHERE g.programme_id = $1
           AND ($2::uuid IS NULL OR grant_id = $2)
           AND ($3::uuid[] IS NULL OR g.member_id = ANY ($3))
           AND ($4::uuid IS NULL OR resource_id = $4)
           AND ($5::uuid IS NULL OR grant_id > $5)
         ORDER BY grant_id
         LIMIT $6"#,
        programme.0,
        id.map(|id| id.0),
        members.as_deref(),
        resource.map(|id| id.0),
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Grant::try_from).collect()
}
