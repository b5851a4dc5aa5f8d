//! What the registry's feed told of members, as each service that reads it keeps it: who is suspended, what consent was withdrawn, and
//! whose id leads to whom. Told twice or out of order it comes to the same: of a member the highest version counts, of a merge the latest.

use crate::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// What a consent is for, as the registry knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Participation,
    Profiling,
    ContentUse,
    Contact,
}

impl Purpose {
    pub const ALL: [Self; 4] = [Self::Participation, Self::Profiling, Self::ContentUse, Self::Contact];

    pub fn name(self) -> &'static str {
        match self {
            Self::Participation => "PARTICIPATION",
            Self::Profiling => "PROFILING",
            Self::ContentUse => "CONTENT_USE",
            Self::Contact => "CONTACT",
        }
    }
}

/// A member of a programme, in the order of the registry's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub programme: ProgrammeId,
    pub member: MemberId,
}

impl Place {
    /// Before all.
    pub const FIRST: Self = Self { programme: ProgrammeId(Uuid::nil()), member: MemberId(Uuid::nil()) };
    /// After all.
    pub const LAST: Self = Self { programme: ProgrammeId(Uuid::max()), member: MemberId(Uuid::max()) };
}

/// How a member stands, by what was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    pub suspended: bool,
    withdrawn: Vec<String>,
}

impl Standing {
    /// Withdrew these purposes; see [`Purpose::name`].
    pub fn new(suspended: bool, withdrawn: Vec<String>) -> Self {
        Self { suspended, withdrawn }
    }

    /// Whether consent for a purpose was withdrawn.
    pub fn withdrew(&self, purpose: Purpose) -> bool {
        self.withdrawn.iter().any(|name| name == purpose.name())
    }
}

/// Keeps that a member was suspended or reinstated at a version of it.
pub async fn put_suspended(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    version: i64,
    suspended: bool,
) -> Result<bool, sqlx::Error> {
    let put = sqlx::query(
        "INSERT INTO followed_member AS m (programme_id, member_id, suspended, withdrawn, version)
         VALUES ($1, $2, $3, '{}', $4)
         ON CONFLICT (programme_id, member_id) DO UPDATE
         SET suspended = excluded.suspended, version = excluded.version
         WHERE m.version <= excluded.version",
    )
    .bind(programme.0)
    .bind(member.0)
    .bind(suspended)
    .bind(version)
    .execute(conn)
    .await?;
    Ok(put.rows_affected() > 0)
}

/// Keeps that a member gave or withdrew its consent at a version of it.
pub async fn put_consent(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    version: i64,
    purpose: Purpose,
    granted: bool,
) -> Result<bool, sqlx::Error> {
    let put = sqlx::query(
        "INSERT INTO followed_member AS m (programme_id, member_id, suspended, withdrawn, version)
         VALUES ($1, $2, false, CASE WHEN $4 THEN '{}' ELSE ARRAY[$3] END, $5)
         ON CONFLICT (programme_id, member_id) DO UPDATE
         SET withdrawn = array_remove(m.withdrawn, $3) || excluded.withdrawn, version = excluded.version
         WHERE m.version <= excluded.version",
    )
    .bind(programme.0)
    .bind(member.0)
    .bind(purpose.name())
    .bind(granted)
    .bind(version)
    .execute(conn)
    .await?;
    Ok(put.rows_affected() > 0)
}

/// Keeps how a member stands at a version of it. False when something newer was told: nothing changed then.
pub async fn put(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    version: i64,
    standing: &Standing,
) -> Result<bool, sqlx::Error> {
    let put = sqlx::query(
        "INSERT INTO followed_member AS m (programme_id, member_id, suspended, withdrawn, version)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (programme_id, member_id) DO UPDATE
         SET suspended = excluded.suspended, withdrawn = excluded.withdrawn, version = excluded.version
         WHERE m.version <= excluded.version",
    )
    .bind(programme.0)
    .bind(member.0)
    .bind(standing.suspended)
    .bind(&standing.withdrawn)
    .bind(version)
    .execute(conn)
    .await?;
    Ok(put.rows_affected() > 0)
}

/// A merge, or the undoing of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    pub programme: ProgrammeId,
    /// Nil when nobody said which it was.
    pub id: Uuid,
    pub loser: MemberId,
    pub winner: MemberId,
    pub undone: bool,
}

/// Keeps a merge or its undoing, and where ids lead by it. False when a later one is known, or the same: nothing changed then.
pub async fn put_merge(conn: &mut PgConnection, merge: &Merge) -> Result<bool, sqlx::Error> {
    let put = sqlx::query(
        "INSERT INTO followed_merge AS m (programme_id, loser_id, winner_id, merge_id, undone)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (programme_id, loser_id) DO UPDATE
         SET winner_id = excluded.winner_id, merge_id = excluded.merge_id, undone = excluded.undone
         WHERE (m.merge_id, m.undone) < (excluded.merge_id, excluded.undone)",
    )
    .bind(merge.programme.0)
    .bind(merge.loser.0)
    .bind(merge.winner.0)
    .bind(merge.id)
    .bind(merge.undone)
    .execute(&mut *conn)
    .await?;
    if put.rows_affected() == 0 {
        return Ok(false);
    }
    lead(conn, merge.programme, merge.loser).await?;
    Ok(true)
}

/// Writes anew where a member leads, and with it those that lead to it.
async fn lead(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<(), sqlx::Error> {
    let end: Option<Uuid> = sqlx::query_scalar(
        "WITH RECURSIVE way (member_id) AS (
             SELECT $2
             UNION
             SELECT m.winner_id
             FROM way
             JOIN followed_merge AS m ON m.programme_id = $1 AND m.loser_id = way.member_id AND NOT m.undone
         )
         SELECT member_id
         FROM way
         WHERE NOT EXISTS (SELECT FROM followed_merge AS m
                           WHERE m.programme_id = $1 AND m.loser_id = way.member_id AND NOT m.undone)",
    )
    .bind(programme.0)
    .bind(member.0)
    .fetch_optional(&mut *conn)
    .await?;
    // Two that lead to each other: of one of them something is still to be told, which comes here again.
    let Some(end) = end else { return Ok(()) };
    sqlx::query(
        "WITH RECURSIVE followers (member_id) AS (
             SELECT $2
             UNION
             SELECT m.loser_id
             FROM followers AS f
             JOIN followed_merge AS m ON m.programme_id = $1 AND m.winner_id = f.member_id AND NOT m.undone
         ), gone AS (
             DELETE FROM member_alias WHERE programme_id = $1 AND member_id = $3
         )
         INSERT INTO member_alias (programme_id, member_id, leads_to)
         SELECT $1, member_id, $3 FROM followers WHERE member_id <> $3
         ON CONFLICT (programme_id, member_id) DO UPDATE
         SET leads_to = excluded.leads_to",
    )
    .bind(programme.0)
    .bind(member.0)
    .bind(end)
    .execute(conn)
    .await?;
    Ok(())
}

/// The member that an id leads to, and then all whose ids lead to that one: one person. Alone when nobody was merged.
pub async fn group(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<Vec<MemberId>, sqlx::Error> {
    let rows: Vec<(Uuid, Option<Uuid>)> = sqlx::query_as(
        "SELECT e.id, a.member_id
         FROM (SELECT coalesce((SELECT leads_to FROM member_alias WHERE programme_id = $1 AND member_id = $2), $2) AS id) AS e
         LEFT JOIN member_alias AS a ON a.programme_id = $1 AND a.leads_to = e.id
         ORDER BY a.member_id",
    )
    .bind(programme.0)
    .bind(member.0)
    .fetch_all(conn)
    .await?;
    let end = rows.first().map_or(member, |(end, _)| MemberId(*end));
    Ok(std::iter::once(end).chain(rows.into_iter().filter_map(|(_, follower)| follower.map(MemberId))).collect())
}

/// Where those of these members lead that were merged; the others are left out.
pub async fn led(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[MemberId],
) -> Result<HashMap<MemberId, MemberId>, sqlx::Error> {
    if members.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let rows: Vec<(Uuid, Uuid)> =
        sqlx::query_as("SELECT member_id, leads_to FROM member_alias WHERE programme_id = $1 AND member_id = ANY ($2)")
            .bind(programme.0)
            .bind(ids)
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|(id, to)| (MemberId(id), MemberId(to))).collect())
}

/// How the member that an id leads to stands.
pub async fn standing(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<Standing, sqlx::Error> {
    let found: Option<(bool, Vec<String>)> = sqlx::query_as(
        "SELECT suspended, withdrawn
         FROM followed_member
         WHERE programme_id = $1
           AND member_id = coalesce((SELECT leads_to FROM member_alias WHERE programme_id = $1 AND member_id = $2), $2)",
    )
    .bind(programme.0)
    .bind(member.0)
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|(suspended, withdrawn)| Standing::new(suspended, withdrawn)).unwrap_or_default())
}

/// As [`standing`], if what was told of the member is of a later version than `version`.
pub async fn standing_since(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    version: i64,
) -> Result<Option<Standing>, sqlx::Error> {
    let found: Option<(bool, Vec<String>)> = sqlx::query_as(
        "SELECT suspended, withdrawn
         FROM followed_member
         WHERE programme_id = $1 AND member_id = $2 AND version > $3",
    )
    .bind(programme.0)
    .bind(member.0)
    .bind(version)
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|(suspended, withdrawn)| Standing::new(suspended, withdrawn)))
}

/// As [`standing`], of many whose ids lead nowhere else; those of whom nothing was told are left out.
pub async fn standings(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[MemberId],
) -> Result<HashMap<MemberId, Standing>, sqlx::Error> {
    if members.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let rows: Vec<(Uuid, bool, Vec<String>)> = sqlx::query_as(
        "SELECT member_id, suspended, withdrawn
         FROM followed_member
         WHERE programme_id = $1 AND member_id = ANY ($2)",
    )
    .bind(programme.0)
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(id, suspended, withdrawn)| (MemberId(id), Standing::new(suspended, withdrawn))).collect())
}

/// Members that do not take part in everything, after one, each with the version at which that was told.
pub async fn stopped(conn: &mut PgConnection, after: Place, limit: i64) -> Result<Vec<(Place, i64)>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid, i64)> = sqlx::query_as(
        "SELECT programme_id, member_id, version
         FROM followed_member
         WHERE (programme_id, member_id) > ($1, $2) AND (suspended OR withdrawn <> '{}')
         ORDER BY programme_id, member_id
         LIMIT $3",
    )
    .bind(after.programme.0)
    .bind(after.member.0)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    let at = |(programme, member, version)| (Place { programme: ProgrammeId(programme), member: MemberId(member) }, version);
    Ok(rows.into_iter().map(at).collect())
}

/// Keeps that a member takes part in everything, unless something was told of it since `version`. What let it go was a later change than
/// that, so what is told of `version` again has no effect.
pub async fn let_go(conn: &mut PgConnection, at: Place, version: i64) -> Result<bool, sqlx::Error> {
    let put = sqlx::query(
        "UPDATE followed_member
         SET suspended = false, withdrawn = '{}', version = version + 1
         WHERE programme_id = $1 AND member_id = $2 AND version = $3",
    )
    .bind(at.programme.0)
    .bind(at.member.0)
    .bind(version)
    .execute(conn)
    .await?;
    Ok(put.rows_affected() > 0)
}
