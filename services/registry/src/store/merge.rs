//! Merges of members, and where merged ids lead.

use crate::domain::{
    badge::AwardId,
    merge::{MergeId, Taken},
    profile::Field,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// A merge as it was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    pub id: MergeId,
    pub winner: MemberId,
    pub loser: MemberId,
    /// The winner's version after it.
    pub winner_version: i64,
    pub taken: Taken,
    /// Lifetime points that the loser brought.
    pub lifetime: i64,
    /// Points on boards that the loser brought.
    pub boards: BTreeMap<String, i64>,
    /// What the winner was given for the loser's badges.
    pub awards: Vec<AwardId>,
}

/// The member that an id leads to: its own, or the one that it was merged into; None when there is no such member.
pub async fn resolve(conn: &mut PgConnection, programme: ProgrammeId, id: MemberId) -> Result<Option<MemberId>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT COALESCE(merged_into, member_id) AS "member_id!"
           FROM member
           WHERE programme_id = $1 AND member_id = $2"#,
        programme.0,
        id.0,
    );
    Ok(found.fetch_optional(conn).await?.map(MemberId))
}

/// Merged members, by id, with where they lead: those of `ids`, and those that lead to one of them.
pub async fn around(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    ids: &[Uuid],
) -> Result<HashMap<MemberId, MemberId>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT member_id, merged_into AS "merged_into!"
           FROM member
           WHERE programme_id = $1 AND merged_into IS NOT NULL AND (member_id = ANY ($2) OR merged_into = ANY ($2))"#,
        programme.0,
        ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (MemberId(row.member_id), MemberId(row.merged_into))).collect())
}

/// All ids of the person that an id belongs to, in their order; none when there is no such member.
pub async fn person(conn: &mut PgConnection, programme: ProgrammeId, id: MemberId) -> Result<Vec<Uuid>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT m.member_id
         FROM (SELECT COALESCE(merged_into, member_id) AS member_id FROM member WHERE programme_id = $1 AND member_id = $2) AS e
         JOIN member m ON m.programme_id = $1 AND (m.member_id = e.member_id OR m.merged_into = e.member_id)
         ORDER BY m.member_id",
        programme.0,
        id.0,
    );
    ids.fetch_all(conn).await
}

/// How many members lead to either of these.
pub async fn count(conn: &mut PgConnection, programme: ProgrammeId, ids: &[Uuid]) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
           FROM member
           WHERE programme_id = $1 AND merged_into = ANY ($2)"#,
        programme.0,
        ids,
    );
    count.fetch_one(conn).await
}

/// Lets the loser, and those that led to it, lead to the winner. Both are locked. Gives those that led to the loser, with their versions.
pub async fn redirect(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    loser: MemberId,
    winner: MemberId,
    now: DateTime<Utc>,
) -> Result<Vec<(MemberId, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        "UPDATE member
         SET merged_into = $3, update_time = CASE WHEN member_id = $2 THEN $4 ELSE update_time END,
             version = CASE WHEN member_id = $2 THEN version + 1 ELSE version END
         WHERE programme_id = $1 AND (member_id = $2 OR merged_into = $2)
         RETURNING member_id, version",
        programme.0,
        loser.0,
        winner.0,
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (MemberId(row.member_id), row.version)).filter(|(id, _)| *id != loser).collect())
}

/// The loser, and those that led to it before it was merged.
pub async fn followers(conn: &mut PgConnection, programme: ProgrammeId, loser: MemberId) -> Result<Vec<Uuid>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        r#"WITH RECURSIVE follower (member_id) AS (
               SELECT $2::uuid
               UNION
               SELECT g.loser_id
               FROM follower f
               JOIN member_merge g ON g.programme_id = $1 AND g.winner_id = f.member_id
               WHERE NOT EXISTS (SELECT FROM member_unmerge u WHERE u.programme_id = g.programme_id AND u.merge_id = g.merge_id)
           )
           SELECT member_id AS "member_id!"
           FROM follower"#,
        programme.0,
        loser.0,
    );
    ids.fetch_all(conn).await
}

/// Lets the loser stand for itself again, and its followers lead to it. Gives these, with their versions.
pub async fn restore(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    loser: MemberId,
    followers: &[Uuid],
    now: DateTime<Utc>,
) -> Result<Vec<(MemberId, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        "UPDATE member
         SET merged_into = NULLIF($2, member_id), update_time = CASE WHEN member_id = $2 THEN $4 ELSE update_time END,
             version = CASE WHEN member_id = $2 THEN version + 1 ELSE version END
         WHERE programme_id = $1 AND member_id = ANY ($3)
         RETURNING member_id, version",
        programme.0,
        loser.0,
        followers,
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (MemberId(row.member_id), row.version)).filter(|(id, _)| *id != loser).collect())
}

/// Gives the loser's external identities to the winner; says how many.
pub async fn move_identities(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    loser: MemberId,
    winner: MemberId,
) -> Result<u64, sqlx::Error> {
    let moved = sqlx::query!(
        "UPDATE external_identity
         SET member_id = $3, origin_member_id = COALESCE(origin_member_id, $2)
         WHERE programme_id = $1 AND member_id = $2",
        programme.0,
        loser.0,
        winner.0,
    );
    Ok(moved.execute(conn).await?.rows_affected())
}

/// Gives the loser back its own identities and those of its followers; says how many.
pub async fn return_identities(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    loser: MemberId,
    winner: MemberId,
    followers: &[Uuid],
) -> Result<u64, sqlx::Error> {
    let moved = sqlx::query!(
        "UPDATE external_identity
         SET member_id = $2, origin_member_id = NULLIF(origin_member_id, $2)
         WHERE programme_id = $1 AND member_id = $3 AND origin_member_id = ANY ($4)",
        programme.0,
        loser.0,
        winner.0,
        followers,
    );
    Ok(moved.execute(conn).await?.rows_affected())
}

pub async fn insert(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    merge: &Merge,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let awards: Vec<Uuid> = merge.awards.iter().map(|award| award.0).collect();
    sqlx::query!(
        "INSERT INTO member_merge (
             programme_id, merge_id, winner_id, loser_id, winner_version, taken, lifetime_points, boards, award_ids, actor,
             merge_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        programme.0,
        merge.id.0,
        merge.winner.0,
        merge.loser.0,
        merge.winner_version,
        Json(&merge.taken) as Json<&Taken>,
        merge.lifetime,
        Json(&merge.boards) as Json<&BTreeMap<String, i64>>,
        &awards,
        actor,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn undo(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    merge: MergeId,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO member_unmerge (programme_id, merge_id, actor, unmerge_time)
         VALUES ($1, $2, $3, $4)",
        programme.0,
        merge.0,
        actor,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The merge by which a member was last merged and which stands.
pub async fn of_loser(conn: &mut PgConnection, programme: ProgrammeId, loser: MemberId) -> Result<Option<Merge>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT g.merge_id, g.winner_id, g.winner_version, g.taken AS "taken: Json<Taken>", g.lifetime_points,
                  g.boards AS "boards: Json<BTreeMap<String, i64>>", g.award_ids
           FROM member_merge g
           WHERE g.programme_id = $1 AND g.loser_id = $2
             AND NOT EXISTS (SELECT FROM member_unmerge u WHERE u.programme_id = g.programme_id AND u.merge_id = g.merge_id)"#,
        programme.0,
        loser.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Merge {
        id: MergeId(row.merge_id),
        winner: MemberId(row.winner_id),
        loser,
        winner_version: row.winner_version,
        taken: row.taken.0,
        lifetime: row.lifetime_points,
        boards: row.boards.0,
        awards: row.award_ids.into_iter().map(AwardId).collect(),
    }))
}

/// Whom the winner took in last, of the merges that stand: the one whose merge made the highest version.
pub async fn last_loser(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    winner: MemberId,
) -> Result<Option<MemberId>, sqlx::Error> {
    let loser = sqlx::query_scalar!(
        "SELECT g.loser_id
         FROM member_merge g
         WHERE g.programme_id = $1 AND g.winner_id = $2
           AND NOT EXISTS (SELECT FROM member_unmerge u WHERE u.programme_id = g.programme_id AND u.merge_id = g.merge_id)
         ORDER BY g.winner_version DESC
         LIMIT 1",
        programme.0,
        winner.0,
    );
    Ok(loser.fetch_optional(conn).await?.map(MemberId))
}

/// What fields of a member held before the change that made this version.
pub async fn befores(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    version: i64,
) -> Result<HashMap<Field, Value>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT field, content AS "content: Json<Value>"
           FROM member_change_value
           WHERE programme_id = $1 AND member_id = $2 AND version = $3"#,
        programme.0,
        member.0,
        version,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().filter_map(|row| Some((Field::of_own_path(&row.field)?, row.content.0))).collect())
}
