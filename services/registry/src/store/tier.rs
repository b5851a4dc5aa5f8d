//! Tiers, their policies, proposals and moves.

use super::unknown;
use crate::domain::{
    consent::Consent,
    tier::{Candidate, Consumed, Policy, Proposal, ResourceClass, Rules, Tier},
};
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

/// Writes a version of the policy.
pub async fn insert_policy(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    policy: &Policy,
    reason: &str,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let Policy { version, rules } = policy;
    sqlx::query!(
        "INSERT INTO tier_policy (
             programme_id, version, min_promote_probability, min_stay_days, min_outputs, reason, actor, create_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        programme.0,
        version,
        rules.min_promote_probability,
        rules.min_stay_days,
        rules.min_outputs,
        reason,
        actor,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes the next version the active one, and says which that is. The programme is locked.
pub async fn next_policy_version(conn: &mut PgConnection, programme: ProgrammeId) -> Result<i32, sqlx::Error> {
    let version = sqlx::query_scalar!(
        "UPDATE programme
         SET tier_policy_version = tier_policy_version + 1
         WHERE programme_id = $1
         RETURNING tier_policy_version",
        programme.0,
    );
    version.fetch_one(conn).await
}

/// The active policy; None when there is no such programme.
pub async fn active_policy(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Option<Policy>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT t.version, t.min_promote_probability, t.min_stay_days, t.min_outputs
         FROM programme p
         JOIN tier_policy t ON t.programme_id = p.programme_id AND t.version = p.tier_policy_version
         WHERE p.programme_id = $1",
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Policy {
        version: row.version,
        rules: Rules {
            min_promote_probability: row.min_promote_probability,
            min_stay_days: row.min_stay_days,
            min_outputs: row.min_outputs,
        },
    }))
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
    proposal: &Proposal,
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
        proposal.promote_probability,
        proposal.output_count,
        proposal.as_of,
        proposal.decision,
        proposal.reason,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks members with an open proposal who are neither suspended nor merged, in the order of their ids from after one of them on, and the proposals.
pub async fn lock_candidates(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT m.member_id, m.tier_id, m.tier_since, m.consents AS "consents: Json<Vec<Consent>>",
                  p.promote_probability, p.output_count, p.as_of, p.decision_id, p.reason
           FROM tier_proposal p
           JOIN member m ON m.programme_id = p.programme_id AND m.member_id = p.member_id
           WHERE p.programme_id = $1 AND p.member_id > $2 AND p.consume_time IS NULL AND m.state = 'ACTIVE' AND m.merged_into IS NULL
           ORDER BY p.member_id
           LIMIT $3
           FOR NO KEY UPDATE OF m, p"#,
        programme.0,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Candidate {
            member: MemberId(row.member_id),
            tier_id: row.tier_id,
            tier_since: row.tier_since,
            consents: row.consents.0,
            proposal: Proposal {
                promote_probability: row.promote_probability,
                output_count: row.output_count,
                as_of: row.as_of,
                decision: row.decision_id,
                reason: row.reason,
            },
        })
        .collect())
}

/// A member's move between two tiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub member: MemberId,
    pub from_tier_id: String,
    pub to_tier_id: String,
    pub reason: String,
    pub policy_version: i32,
    /// The decision behind the proposal.
    pub decision: Uuid,
    pub time: DateTime<Utc>,
}

/// Moves members that are locked: into their new tiers, with the moves recorded and the proposals consumed. Gives the versions that this makes.
pub async fn apply_moves(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    moves: &[Move],
    actor: &str,
    now: DateTime<Utc>,
) -> Result<HashMap<MemberId, i64>, sqlx::Error> {
    if moves.is_empty() {
        return Ok(HashMap::new());
    }
    let members: Vec<Uuid> = moves.iter().map(|m| m.member.0).collect();
    let to_tier_ids: Vec<&str> = moves.iter().map(|m| m.to_tier_id.as_str()).collect();
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
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE tier_proposal
         SET consume_time = $3
         WHERE programme_id = $1 AND member_id = ANY ($2)",
        programme.0,
        &members,
        now,
    )
    .execute(&mut *conn)
    .await?;
    let from_tier_ids: Vec<&str> = moves.iter().map(|m| m.from_tier_id.as_str()).collect();
    let reasons: Vec<&str> = moves.iter().map(|m| m.reason.as_str()).collect();
    let versions: Vec<i32> = moves.iter().map(|m| m.policy_version).collect();
    let decisions: Vec<Uuid> = moves.iter().map(|m| m.decision).collect();
    sqlx::query!(
        "INSERT INTO tier_move (
             programme_id, member_id, from_tier_id, to_tier_id, reason, policy_version, decision_id, actor, move_time
         )
         SELECT $1, n.*, $8, $9
         FROM UNNEST($2::uuid[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::uuid[]) AS n",
        programme.0,
        &members,
        &from_tier_ids as &[&str],
        &to_tier_ids as &[&str],
        &reasons as &[&str],
        &versions,
        &decisions,
        actor,
        now,
    )
    .execute(&mut *conn)
    .await?;
    Ok(made.into_iter().map(|row| (MemberId(row.member_id), row.version)).collect())
}

/// A member's last moves, newest first.
pub async fn list_moves(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    limit: i64,
) -> Result<Vec<Move>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT from_tier_id, to_tier_id, reason, policy_version, decision_id, move_time
         FROM tier_move
         WHERE programme_id = $1 AND member_id = $2
         ORDER BY tier_move_id DESC
         LIMIT $3",
        programme.0,
        member.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Move {
            member,
            from_tier_id: row.from_tier_id,
            to_tier_id: row.to_tier_id,
            reason: row.reason,
            policy_version: row.policy_version,
            decision: row.decision_id,
            time: row.move_time,
        })
        .collect())
}
