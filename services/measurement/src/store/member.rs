//! Members, as far as something is kept of them here; what they are is the registry's.

use koc_chassis::{
    follow::Known,
    ids::{MemberId, ProgrammeId},
    members,
};
use sqlx::PgConnection;
use uuid::Uuid;

/// Members with outputs or decisions, by id, after one.
pub async fn known(conn: &mut PgConnection, after: Known, limit: i64) -> Result<Vec<Known>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT member_id AS "member_id!", programme_id AS "programme_id!"
           FROM (SELECT member_id, programme_id FROM output
                 UNION
                 SELECT member_id, programme_id FROM decision) AS k
           WHERE (member_id, programme_id) > ($1, $2)
           ORDER BY member_id, programme_id
           LIMIT $3"#,
        after.member.0,
        after.programme.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| Known { member: MemberId(row.member_id), programme: ProgrammeId(row.programme_id) }).collect())
}

/// The ids of a person: the one that goes on, then those that lead to it. None for no member.
pub async fn ids(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: Option<MemberId>,
) -> Result<Option<Vec<Uuid>>, sqlx::Error> {
    let Some(member) = member else { return Ok(None) };
    let group = members::group(conn, programme, member).await?;
    Ok(Some(group.into_iter().map(|id| id.0).collect()))
}
