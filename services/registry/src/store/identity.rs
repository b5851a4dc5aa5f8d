//! External identities: who is who in the source systems.

use crate::domain::{
    member::ExternalIdentity,
    presence::{Presence, Standing},
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Whose an identity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub member: MemberId,
    /// Claimed just now, for a member that this transaction is to write.
    pub new: bool,
    /// It came to this member by a merge.
    pub merged: bool,
    /// What the source said of it.
    pub standing: Standing,
}

fn standing(source_time: Option<DateTime<Utc>>, deleted: bool) -> Standing {
    Standing { last: source_time.map(|time| Presence { time, deleted }) }
}

pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    identity: &ExternalIdentity,
) -> Result<Option<MemberId>, sqlx::Error> {
    let member = sqlx::query_scalar!(
        "SELECT member_id
         FROM external_identity
         WHERE programme_id = $1 AND source_system = $2 AND external_id = $3",
        programme.0,
        identity.source_system,
        identity.external_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(member.map(MemberId))
}

/// Finds whose the ids of a source system are, and claims those that are nobody's for new members, one each, with what is said of them.
/// Of two transactions that claim the same id, the second waits for the first and finds its member.
pub async fn find_or_claim(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    said: &BTreeMap<&str, Presence>,
    now: DateTime<Utc>,
) -> Result<BTreeMap<String, Claim>, sqlx::Error> {
    let all: Vec<&str> = said.keys().copied().collect();
    let mut claims = find_all(conn, programme, source_system, &all).await?;
    let missing: Vec<&str> = all.into_iter().filter(|id| !claims.contains_key(*id)).collect();
    if missing.is_empty() {
        return Ok(claims);
    }
    let members: Vec<Uuid> = missing.iter().map(|_| MemberId::new().0).collect();
    let words: Vec<Presence> = missing.iter().filter_map(|id| said.get(id).copied()).collect();
    let times: Vec<DateTime<Utc>> = words.iter().map(|word| word.time).collect();
    let deleted: Vec<bool> = words.iter().map(|word| word.deleted).collect();
    let claimed = sqlx::query!(
        r#"INSERT INTO external_identity (
               programme_id, source_system, external_id, member_id, create_time, source_time, deleted
           )
           SELECT $1, $2, i.external_id, i.member_id, $5, i.source_time, i.deleted
           FROM UNNEST($3::text[], $4::uuid[], $6::timestamptz[], $7::boolean[])
                AS i (external_id, member_id, source_time, deleted)
           ON CONFLICT DO NOTHING
           RETURNING external_id, member_id, source_time, deleted"#,
        programme.0,
        source_system,
        &missing as &[&str],
        &members,
        now,
        &times,
        &deleted,
    )
    .fetch_all(&mut *conn)
    .await?;
    claims.extend(claimed.into_iter().map(|c| {
        let standing = standing(c.source_time, c.deleted);
        (c.external_id, Claim { member: MemberId(c.member_id), new: true, merged: false, standing })
    }));
    let lost: Vec<&str> = missing.into_iter().filter(|id| !claims.contains_key(*id)).collect();
    if !lost.is_empty() {
        claims.extend(find_all(conn, programme, source_system, &lost).await?);
    }
    Ok(claims)
}

/// Finds whose the ids of a source system are. Each is looked up for itself: to a planner without statistics, as in a new registry, all ids
/// of a source seem to be few enough to read them.
pub async fn find_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    external_ids: &[&str],
) -> Result<BTreeMap<String, Claim>, sqlx::Error> {
    if external_ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT i.external_id, i.member_id, i.origin_member_id IS NOT NULL AS "merged!", i.source_time, i.deleted
           FROM UNNEST($3::text[]) AS k (external_id)
           CROSS JOIN LATERAL (
               SELECT external_id, member_id, origin_member_id, source_time, deleted
               FROM external_identity
               WHERE programme_id = $1 AND source_system = $2 AND external_id = k.external_id
               LIMIT 1
           ) AS i"#,
        programme.0,
        source_system,
        external_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let claim = |member, merged, standing| Claim { member: MemberId(member), new: false, merged, standing };
    Ok(rows.into_iter().map(|r| (r.external_id, claim(r.member_id, r.merged, standing(r.source_time, r.deleted)))).collect())
}

/// Keeps what a source said last of identities whose members are locked, or claimed just now.
pub async fn hear(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    heard: &BTreeMap<&str, Presence>,
) -> Result<(), sqlx::Error> {
    if heard.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = heard.keys().copied().collect();
    let times: Vec<DateTime<Utc>> = heard.values().map(|word| word.time).collect();
    let deleted: Vec<bool> = heard.values().map(|word| word.deleted).collect();
    sqlx::query!(
        "UPDATE external_identity AS i
         SET source_time = h.source_time, deleted = h.deleted
         FROM UNNEST($3::text[], $4::timestamptz[], $5::boolean[]) AS h (external_id, source_time, deleted)
         WHERE i.programme_id = $1 AND i.source_system = $2 AND i.external_id = h.external_id",
        programme.0,
        source_system,
        &ids as &[&str],
        &times,
        &deleted,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many identities these members have that are not deleted, of those that have any.
pub async fn count_live(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
) -> Result<BTreeMap<MemberId, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT member_id, count(*) FILTER (WHERE NOT deleted) AS "live!"
           FROM external_identity
           WHERE programme_id = $1 AND member_id = ANY ($2)
           GROUP BY member_id"#,
        programme.0,
        members,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (MemberId(row.member_id), row.live)).collect())
}

/// The deletions of identities that were nobody's when they were deleted. Who has claimed them before this knows of all that are committed.
pub async fn tombstones(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    external_ids: &[&str],
) -> Result<BTreeMap<String, Presence>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT external_id, source_time
         FROM identity_tombstone
         WHERE programme_id = $1 AND source_system = $2 AND external_id = ANY ($3)",
        programme.0,
        source_system,
        external_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.external_id, Presence { time: row.source_time, deleted: true })).collect())
}

/// Gives identities back that were claimed just now and are to be nobody's, and remembers that the source deleted them.
pub async fn bury(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    deletions: &BTreeMap<&str, Presence>,
) -> Result<(), sqlx::Error> {
    if deletions.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = deletions.keys().copied().collect();
    let times: Vec<DateTime<Utc>> = deletions.values().map(|word| word.time).collect();
    sqlx::query!(
        "DELETE FROM external_identity
         WHERE programme_id = $1 AND source_system = $2 AND external_id = ANY ($3)",
        programme.0,
        source_system,
        &ids as &[&str],
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO identity_tombstone AS t (programme_id, source_system, external_id, source_time)
         SELECT $1, $2, d.external_id, d.source_time
         FROM UNNEST($3::text[], $4::timestamptz[]) AS d (external_id, source_time)
         ON CONFLICT (programme_id, source_system, external_id) DO UPDATE
         SET source_time = GREATEST(t.source_time, excluded.source_time)",
        programme.0,
        source_system,
        &ids as &[&str],
        &times,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets deletions of identities that are somebody's now: what stands there counts.
pub async fn unbury(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    external_ids: &[&str],
) -> Result<(), sqlx::Error> {
    if external_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "DELETE FROM identity_tombstone
         WHERE programme_id = $1 AND source_system = $2 AND external_id = ANY ($3)",
        programme.0,
        source_system,
        external_ids as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// All identities of members.
pub async fn of_members(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
) -> Result<Vec<ExternalIdentity>, sqlx::Error> {
    let identities = sqlx::query_as!(
        ExternalIdentity,
        "SELECT source_system, external_id
         FROM external_identity
         WHERE programme_id = $1 AND member_id = ANY ($2)",
        programme.0,
        members,
    );
    identities.fetch_all(conn).await
}

/// Gives up ids that were claimed in this transaction.
pub async fn give_up(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    external_ids: &[&str],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM external_identity
         WHERE programme_id = $1 AND source_system = $2 AND external_id = ANY ($3)",
        programme.0,
        source_system,
        external_ids as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Claims identities for one new member; gives the first that is somebody else's, by its place in `identities`, and whose.
pub async fn claim_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    identities: &[ExternalIdentity],
    now: DateTime<Utc>,
) -> Result<Option<(usize, MemberId)>, sqlx::Error> {
    let mut ordered: Vec<&ExternalIdentity> = identities.iter().collect();
    ordered.sort_unstable();
    let systems: Vec<&str> = ordered.iter().map(|i| i.source_system.as_str()).collect();
    let ids: Vec<&str> = ordered.iter().map(|i| i.external_id.as_str()).collect();
    let claimed = sqlx::query!(
        "INSERT INTO external_identity (programme_id, source_system, external_id, member_id, create_time)
         SELECT $1, i.source_system, i.external_id, $2, $5
         FROM UNNEST($3::text[], $4::text[]) AS i (source_system, external_id)
         ON CONFLICT DO NOTHING
         RETURNING source_system, external_id",
        programme.0,
        member.0,
        &systems as &[&str],
        &ids as &[&str],
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    let claimed: BTreeSet<ExternalIdentity> =
        claimed.into_iter().map(|c| ExternalIdentity { source_system: c.source_system, external_id: c.external_id }).collect();
    for (index, identity) in identities.iter().enumerate().filter(|(_, identity)| !claimed.contains(*identity)) {
        if let Some(holder) = find(conn, programme, identity).await? {
            return Ok(Some((index, holder)));
        }
    }
    Ok(None)
}
