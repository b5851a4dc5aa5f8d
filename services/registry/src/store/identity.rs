//! External identities: who is who in the source systems.

use crate::domain::member::ExternalIdentity;
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

/// Finds whose the ids of a source system are, and claims those that are nobody's for new members, one each. Of two transactions
/// that claim the same id, the second waits for the first and finds its member.
pub async fn find_or_claim(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    external_ids: &BTreeSet<&str>,
    now: DateTime<Utc>,
) -> Result<BTreeMap<String, Claim>, sqlx::Error> {
    let all: Vec<&str> = external_ids.iter().copied().collect();
    let mut claims = find_all(conn, programme, source_system, &all).await?;
    let missing: Vec<&str> = all.into_iter().filter(|id| !claims.contains_key(*id)).collect();
    if missing.is_empty() {
        return Ok(claims);
    }
    let members: Vec<Uuid> = missing.iter().map(|_| MemberId::new().0).collect();
    let claimed = sqlx::query!(
        "INSERT INTO external_identity (programme_id, source_system, external_id, member_id, create_time)
         SELECT $1, $2, i.external_id, i.member_id, $5
         FROM UNNEST($3::text[], $4::uuid[]) AS i (external_id, member_id)
         ON CONFLICT DO NOTHING
         RETURNING external_id, member_id",
        programme.0,
        source_system,
        &missing as &[&str],
        &members,
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    claims
        .extend(claimed.into_iter().map(|c| (c.external_id, Claim { member: MemberId(c.member_id), new: true, merged: false })));
    let lost: Vec<&str> = missing.into_iter().filter(|id| !claims.contains_key(*id)).collect();
    if !lost.is_empty() {
        claims.extend(find_all(conn, programme, source_system, &lost).await?);
    }
    Ok(claims)
}

/// Finds whose the ids of a source system are.
pub async fn find_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    source_system: &str,
    external_ids: &[&str],
) -> Result<BTreeMap<String, Claim>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT external_id, member_id, origin_member_id IS NOT NULL AS "merged!"
           FROM external_identity
           WHERE programme_id = $1 AND source_system = $2 AND external_id = ANY ($3)"#,
        programme.0,
        source_system,
        external_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| (r.external_id, Claim { member: MemberId(r.member_id), new: false, merged: r.merged })).collect())
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
