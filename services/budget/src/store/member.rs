//! Members, as far as something is kept of them here; what they are is the registry's.

use crate::ids::{MemberId, ProgrammeId};
use koc_chassis::follow::Known;
use sqlx::PgConnection;

/// Members that money, limits, grants or draws are kept of, by id, after one.
pub async fn known(conn: &mut PgConnection, after: Known, limit: i64) -> Result<Vec<Known>, sqlx::Error> {
    // The best of each index, then of all.
    let rows = sqlx::query!(
        r#"SELECT member_id AS "member_id!", programme_id AS "programme_id!"
           FROM (
               (SELECT DISTINCT member_id, programme_id
                FROM reservation
                WHERE member_id >= $1 AND (member_id, programme_id) > ($1, $2)
                ORDER BY member_id, programme_id
                LIMIT $3)
               UNION
               (SELECT DISTINCT member_id, programme_id
                FROM member_limit
                WHERE (member_id, programme_id) > ($1, $2)
                ORDER BY member_id, programme_id
                LIMIT $3)
               UNION
               (SELECT DISTINCT member_id, programme_id
                FROM resource_grant
                WHERE member_id >= $1 AND (member_id, programme_id) > ($1, $2)
                ORDER BY member_id, programme_id
                LIMIT $3)
               UNION
               (SELECT DISTINCT member_id, programme_id
                FROM reserve_draw
                WHERE member_id IS NOT NULL AND (member_id, programme_id) > ($1, $2)
                ORDER BY member_id, programme_id
                LIMIT $3)
           ) AS k
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
