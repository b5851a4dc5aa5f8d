//! Members by their names.

use crate::domain::search::{Match, Place};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use uuid::Uuid;

/// Says under which names members are found, where that has changed. The members are locked.
pub async fn put(conn: &mut PgConnection, programme: ProgrammeId, members: &[Uuid]) -> Result<(), sqlx::Error> {
    if members.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO member_search AS s (programme_id, member_id, names)
         SELECT programme_id, member_id, search_names(display_name, channels)
         FROM member
         WHERE programme_id = $1 AND member_id = ANY ($2)
         ON CONFLICT ON CONSTRAINT member_search_pkey DO UPDATE
         SET names = excluded.names
         WHERE s.names <> excluded.names",
        programme.0,
        members,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets a member be found no more.
pub async fn remove(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM member_search
         WHERE programme_id = $1 AND member_id = $2",
        programme.0,
        member.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The next of those with a name that the text is, begins or is part of, best matches first, and the newer member first among equals.
pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    text: &str,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH asked AS (SELECT search_text($2) AS text)
           SELECT f.member_id, f.rank AS "rank!"
           FROM (
               SELECT s.member_id,
                      (SELECT min(CASE WHEN n.name = a.text THEN 0 WHEN starts_with(n.name, a.text) THEN 1 ELSE 2 END)
                       FROM unnest(s.names) AS n (name), asked a
                       WHERE strpos(n.name, a.text) > 0) AS rank
               FROM member_search s
               WHERE s.programme_id = $1
                 -- A text without any would be in everybody's.
                 AND search_grams($1, ARRAY[search_text($2)]) <> '{}'
                 AND search_grams(s.programme_id, s.names) @> search_grams($1, ARRAY[search_text($2)])
           ) AS f
           WHERE f.rank IS NOT NULL AND (f.rank > $3 OR f.rank = $3 AND f.member_id < $4)
           ORDER BY f.rank, f.member_id DESC
           LIMIT $5"#,
        programme.0,
        text,
        after.map_or(-1, |place| place.matched.rank()),
        after.map_or(Uuid::max(), |place| place.member.0),
        limit,
    )
    .fetch_all(conn)
    .await?;
    let places = rows.into_iter().map(|row| Place { member: MemberId(row.member_id), matched: Match::of_rank(row.rank) });
    Ok(places.collect())
}
