//! Tiers, proposals and moves.

pub mod dry_run;
pub mod policy;
pub mod standing;

use super::unknown;
use crate::domain::tier::{Consumed, Outcome, Proposal, Reading, ResourceClass, Tier};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};
use std::collections::HashMap;
use uuid::Uuid;

pub async fn insert_all(conn: &mut PgConnection, programme: ProgrammeId, tiers: &[Tier]) -> Result<(), sqlx::Error> {
    let ids: Vec<&str> = tiers.iter().map(|tier| tier.id.as_str()).collect();
    let ranks: Vec<i32> = tiers.iter().map(|tier| tier.rank).collect();
    let classes: Vec<&str> = tiers.iter().map(|tier| tier.resource_class.name()).collect();
    sqlx::query!(
        "INSERT INTO tier (programme_id, tier_id, rank, resource_class)
         SELECT $1, t.*
         FROM UNNEST($2::text[], $3::integer[], $4::text[]) AS t",
        programme.0,
        &ids as &[&str],
        &ranks,
        &classes as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The tiers of a programme, lowest first; none when there is no such programme.
pub async fn list(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Vec<Tier>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT tier_id, rank, resource_class
         FROM tier
         WHERE programme_id = $1
         ORDER BY rank",
        programme.0,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let resource_class = ResourceClass::from_name(&row.resource_class).ok_or_else(|| unknown("tier.resource_class"))?;
            Ok(Tier { id: row.tier_id, rank: row.rank, resource_class })
        })
        .collect()
}

/// How many members each tier has; tiers without members are left out.
pub async fn member_counts(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT tier_id, count(*) AS "members!"
           FROM member
           WHERE programme_id = $1 AND merged_into IS NULL
           GROUP BY tier_id"#,
        programme.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.tier_id, row.members)).collect())
}

/// The tier in which members begin; None when there is no such programme.
pub async fn lowest(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Option<String>, sqlx::Error> {
    let lowest = sqlx::query_scalar!(
        "SELECT tier_id
         FROM tier
         WHERE programme_id = $1
         ORDER BY rank
         LIMIT 1",
        programme.0,
    );
    lowest.fetch_optional(conn).await
}

/// The end of the period that a member's last proposal rests on, and whether it has promoted the member. The member is locked.
pub async fn standing_proposal(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
) -> Result<Option<(DateTime<Utc>, Consumed)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT as_of, consume_time IS NOT NULL AS "consumed!"
           FROM tier_proposal
           WHERE programme_id = $1 AND member_id = $2"#,
        programme.0,
        member.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.as_of, Consumed(row.consumed))))
}

/// Writes a member's proposal in place of the last one. The member is locked.
pub async fn put_proposal(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    Proposal { reading, reason }: &Proposal,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO tier_proposal (
             programme_id, member_id, promote_probability, output_count, as_of, decision_id, reason, record_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT ON CONSTRAINT tier_proposal_pkey DO UPDATE
         SET promote_probability = excluded.promote_probability, output_count = excluded.output_count, as_of = excluded.as_of,
             decision_id = excluded.decision_id, reason = excluded.reason, record_time = excluded.record_time,
             consume_time = NULL",
        programme.0,
        member.0,
        reading.told_probability,
        reading.output_count,
        reading.as_of,
        reading.decision,
        reason,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A member's move between two tiers.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    pub member: MemberId,
    pub from_tier_id: String,
    pub to_tier_id: String,
    pub outcome: Outcome,
    pub reason: String,
    pub policy_version: i32,
    /// What it was judged by, newest first.
    pub readings: Vec<Reading>,
    pub actor: String,
    pub time: DateTime<Utc>,
}

impl Move {
    /// Whether the member is in another tier after it.
    pub fn leads(&self) -> bool {
        self.from_tier_id != self.to_tier_id
    }
}

/// Puts members that are locked into their new tiers. Gives the versions that this makes.
pub async fn put_tiers(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    moves: &[Move],
    now: DateTime<Utc>,
) -> Result<HashMap<MemberId, i64>, sqlx::Error> {
    let (members, to_tier_ids): (Vec<Uuid>, Vec<&str>) =
        moves.iter().filter(|m| m.leads()).map(|m| (m.member.0, m.to_tier_id.as_str())).unzip();
    if members.is_empty() {
        return Ok(HashMap::new());
    }
    let made = sqlx::query!(
        "UPDATE member AS m
         SET tier_id = n.tier_id, tier_since = $4, version = m.version + 1, update_time = $4
         FROM UNNEST($2::uuid[], $3::text[]) AS n (member_id, tier_id)
         WHERE m.programme_id = $1 AND m.member_id = n.member_id
         RETURNING m.member_id, m.version",
        programme.0,
        &members,
        &to_tier_ids as &[&str],
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(made.into_iter().map(|row| (MemberId(row.member_id), row.version)).collect())
}

/// Says of members that what is proposed for them has moved them.
pub async fn consume_proposals(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE tier_proposal
         SET consume_time = $3
         WHERE programme_id = $1 AND member_id = ANY ($2) AND consume_time IS NULL",
        programme.0,
        members,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records moves.
pub async fn insert_moves(conn: &mut PgConnection, programme: ProgrammeId, moves: &[Move]) -> Result<(), sqlx::Error> {
    if moves.is_empty() {
        return Ok(());
    }
    let members: Vec<Uuid> = moves.iter().map(|m| m.member.0).collect();
    let from_tier_ids: Vec<&str> = moves.iter().map(|m| m.from_tier_id.as_str()).collect();
    let to_tier_ids: Vec<&str> = moves.iter().map(|m| m.to_tier_id.as_str()).collect();
    let outcomes: Vec<&str> = moves.iter().map(|m| m.outcome.name()).collect();
    let reasons: Vec<&str> = moves.iter().map(|m| m.reason.as_str()).collect();
    let versions: Vec<i32> = moves.iter().map(|m| m.policy_version).collect();
    // What no decision brought has none.
    let decisions: Vec<Uuid> = moves.iter().map(|m| m.readings.first().map_or(Uuid::nil(), |reading| reading.decision)).collect();
    let readings: Vec<Json<&[Reading]>> = moves.iter().map(|m| Json(m.readings.as_slice())).collect();
    let actors: Vec<&str> = moves.iter().map(|m| m.actor.as_str()).collect();
    let times: Vec<DateTime<Utc>> = moves.iter().map(|m| m.time).collect();
    sqlx::query!(
        "INSERT INTO tier_move (
             programme_id, member_id, from_tier_id, to_tier_id, outcome, reason, policy_version, decision_id, readings, actor, move_time
         )
         SELECT $1, n.*
         FROM UNNEST(
             $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::uuid[], $9::jsonb[], $10::text[],
             $11::timestamptz[]
         ) AS n",
        programme.0,
        &members,
        &from_tier_ids as &[&str],
        &to_tier_ids as &[&str],
        &outcomes as &[&str],
        &reasons as &[&str],
        &versions,
        &decisions,
        &readings as &[Json<&[Reading]>],
        &actors as &[&str],
        &times,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A member's last moves, newest first.
pub async fn list_moves(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    limit: i64,
) -> Result<Vec<Move>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT from_tier_id, to_tier_id, outcome, reason, policy_version, readings AS "readings: Json<Vec<Reading>>", actor, move_time
           FROM tier_move
           WHERE programme_id = $1 AND member_id = $2
           ORDER BY tier_move_id DESC
           LIMIT $3"#,
        programme.0,
        member.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Move {
                member,
                from_tier_id: row.from_tier_id,
                to_tier_id: row.to_tier_id,
                outcome: Outcome::from_name(&row.outcome).ok_or_else(|| unknown("tier_move.outcome"))?,
                reason: row.reason,
                policy_version: row.policy_version,
                readings: row.readings.0,
                actor: row.actor,
                time: row.move_time,
            })
        })
        .collect()
}
