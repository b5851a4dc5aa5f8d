//! Members, as far as something is kept of them here; what they are is the registry's.

use koc_chassis::{
    follow::Known,
    ids::{MemberId, ProgrammeId},
};
use sqlx::PgConnection;

/// Members with assignments, by id, after one.
pub async fn known(conn: &mut PgConnection, after: Known, limit: i64) -> Result<Vec<Known>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT DISTINCT member_id, programme_id
         FROM assignment
         WHERE member_id >= $1 AND (member_id, programme_id) > ($1, $2)
         ORDER BY member_id, programme_id
         LIMIT $3",
        after.member.0,
        after.programme.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| Known { member: MemberId(row.member_id), programme: ProgrammeId(row.programme_id) }).collect())
}
