//! Gifts for tiers, and promotions. A promotion's row is written by its job alone.

use super::corrupt;
use crate::{
    domain::promotion::{Gift, Promotion, State},
    ids::{GrantId, MemberId, ProgrammeId, PromotionId, ResourceId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct PromotionRow {
    promotion_id: Uuid,
    programme_id: Uuid,
    member_id: Uuid,
    from_tier_id: String,
    tier_id: String,
    resource_id: Uuid,
    state: String,
    grant_id: Option<Uuid>,
    refusal: Option<String>,
    move_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
}

impl TryFrom<PromotionRow> for Promotion {
    type Error = sqlx::Error;

    fn try_from(row: PromotionRow) -> Result<Self, sqlx::Error> {
        let state = match (row.state.as_str(), row.grant_id, row.refusal) {
            ("PENDING", None, refusal) => State::Pending(refusal),
            ("GRANTED", Some(grant), _) => State::Granted(GrantId(grant)),
            ("REFUSED", None, Some(refusal)) => State::Refused(refusal),
            _ => return Err(corrupt("promotion.state")),
        };
        Ok(Self {
            id: PromotionId(row.promotion_id),
            programme: ProgrammeId(row.programme_id),
            member: MemberId(row.member_id),
            from_tier_id: row.from_tier_id,
            tier_id: row.tier_id,
            resource: ResourceId(row.resource_id),
            state,
            move_time: row.move_time,
            update_time: row.update_time,
        })
    }
}

/// Marks the gift for a tier, in the place of the one before.
pub async fn set_gift(conn: &mut PgConnection, programme: ProgrammeId, gift: &Gift) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO promotion_gift (programme_id, tier_id, resource_id, set_by, reason, set_time)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (programme_id, tier_id) DO UPDATE
         SET resource_id = excluded.resource_id, set_by = excluded.set_by, reason = excluded.reason, set_time = excluded.set_time",
        programme.0,
        gift.tier_id,
        gift.resource.0,
        gift.set_by,
        gift.reason,
        gift.set_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// There is no gift for the tier from now on.
pub async fn clear_gift(conn: &mut PgConnection, programme: ProgrammeId, tier_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM promotion_gift WHERE programme_id = $1 AND tier_id = $2", programme.0, tier_id)
        .execute(conn)
        .await?;
    Ok(())
}

/// The gifts by tier.
pub async fn gifts(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Vec<Gift>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT tier_id, resource_id, set_by, reason, set_time
         FROM promotion_gift
         WHERE programme_id = $1
         ORDER BY tier_id",
        programme.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Gift {
            tier_id: row.tier_id,
            resource: ResourceId(row.resource_id),
            set_by: row.set_by,
            reason: row.reason,
            set_time: row.set_time,
        })
        .collect())
}

/// A member's move to a tier, told by the registry.
#[derive(Debug, Clone, Copy)]
pub struct Moved<'a> {
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub from_tier_id: &'a str,
    pub to_tier_id: &'a str,
    pub time: DateTime<Utc>,
}

/// Begins a promotion, if there was a gift for the tier by then; None when there was none, or the person has had it, by any of its ids.
pub async fn begin(conn: &mut PgConnection, moved: Moved<'_>) -> Result<Option<PromotionId>, sqlx::Error> {
    let person = super::member::ids(conn, moved.programme, Some(moved.member)).await?.unwrap_or_default();
    let begun = sqlx::query_scalar!(
        "INSERT INTO promotion (promotion_id, programme_id, member_id, from_tier_id, tier_id, resource_id, state, move_time, update_time)
         SELECT $1, g.programme_id, $3, $5, g.tier_id, g.resource_id, 'PENDING', $7, koc_now()
         FROM promotion_gift AS g
         WHERE g.programme_id = $2 AND g.tier_id = $6 AND g.set_time <= $7
           AND NOT EXISTS (SELECT FROM promotion AS p
                           WHERE p.programme_id = $2 AND p.member_id = ANY ($4) AND p.tier_id = $6)
         ON CONFLICT ON CONSTRAINT promotion_once DO NOTHING
         RETURNING promotion_id",
        PromotionId::new().0,
        moved.programme.0,
        moved.member.0,
        &person,
        moved.from_tier_id,
        moved.to_tier_id,
        moved.time,
    )
    .fetch_optional(conn)
    .await?;
    Ok(begun.map(PromotionId))
}

/// Whether the same person, by another id, has had the gift for the tier, or is to have it: of several that wait the oldest gets it.
pub async fn has_another(conn: &mut PgConnection, promotion: &Promotion) -> Result<bool, sqlx::Error> {
    let person = super::member::ids(conn, promotion.programme, Some(promotion.member)).await?.unwrap_or_default();
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM promotion
                          WHERE programme_id = $1 AND member_id = ANY ($2) AND tier_id = $3 AND promotion_id <> $4
                            AND (state = 'GRANTED' OR (state = 'PENDING' AND promotion_id < $4))) AS "found!""#,
        promotion.programme.0,
        &person,
        promotion.tier_id,
        promotion.id.0,
    );
    found.fetch_one(conn).await
}

/// Keeps what came of a promotion.
pub async fn put_state(conn: &mut PgConnection, id: PromotionId, state: &State) -> Result<(), sqlx::Error> {
    let (name, grant, refusal) = match state {
        State::Pending(refusal) => ("PENDING", None, refusal.as_deref()),
        State::Granted(grant) => ("GRANTED", Some(grant.0), None),
        State::Refused(refusal) => ("REFUSED", None, Some(refusal.as_str())),
    };
    sqlx::query!(
        "UPDATE promotion
         SET state = $2, grant_id = $3, refusal = $4, update_time = koc_now()
         WHERE promotion_id = $1",
        id.0,
        name,
        grant,
        refusal,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, id: PromotionId) -> Result<Option<Promotion>, sqlx::Error> {
    let before = Uuid::from_u128(id.0.as_u128().saturating_sub(1));
    let found = list(conn, programme, None, Some(before), 1).await?;
    Ok(found.into_iter().find(|promotion| promotion.id == id))
}

/// Promotions of a programme by creation, after one; only a person's.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: Option<MemberId>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Promotion>, sqlx::Error> {
    let members = super::member::ids(conn, programme, member).await?;
    let rows = sqlx::query_as!(
        PromotionRow,
        "SELECT promotion_id, programme_id, member_id, from_tier_id, tier_id, resource_id, state, grant_id, refusal, move_time,
                update_time
         FROM promotion
         WHERE programme_id = $1
           AND ($2::uuid[] IS NULL OR member_id = ANY ($2))
           AND ($3::uuid IS NULL OR promotion_id > $3)
         ORDER BY promotion_id
         LIMIT $4",
        programme.0,
        members.as_deref(),
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Promotion::try_from).collect()
}
