//! Members by their names.

use crate::domain::{
    profile::{Channel, Profile},
    search::{self, Match, Place},
};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Says under which names members are found. The members are locked, and each comes once.
pub async fn put(conn: &mut PgConnection, programme: ProgrammeId, named: &[(Uuid, BTreeSet<String>)]) -> Result<(), sqlx::Error> {
    if named.is_empty() {
        return Ok(());
    }
    let Columns { members, names, grams } = Columns::of(programme, named);
    sqlx::query!(
        "INSERT INTO member_search AS s (programme_id, member_id, names, grams)
         SELECT $1, n.member_id, string_to_array(n.names, ' '), n.grams::bigint[]
         FROM UNNEST($2::uuid[], $3::text[], $4::text[]) AS n (member_id, names, grams)
         ON CONFLICT ON CONSTRAINT member_search_pkey DO UPDATE
         SET names = excluded.names, grams = excluded.grams
         WHERE s.names <> excluded.names OR s.grams IS NULL",
        programme.0,
        &members,
        &names,
        &grams,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An array of arrays must be a rectangle in Postgres, so the names and the grams of each come as one text. Names have no blanks.
struct Columns {
    members: Vec<Uuid>,
    names: Vec<String>,
    grams: Vec<String>,
}

impl Columns {
    fn of(programme: ProgrammeId, named: &[(Uuid, BTreeSet<String>)]) -> Self {
        let joined = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let array = |names: &BTreeSet<String>| {
            let grams: Vec<String> = search::grams(programme, names).iter().map(i64::to_string).collect();
            format!("{{{}}}", grams.join(","))
        };
        Self {
            members: named.iter().map(|(member, _)| *member).collect(),
            names: named.iter().map(|(_, names)| joined(names)).collect(),
            grams: named.iter().map(|(_, names)| array(names)).collect(),
        }
    }
}

/// As [`put`], for members as they are stored.
pub async fn put_stored(conn: &mut PgConnection, programme: ProgrammeId, members: &[Uuid]) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT member_id, display_name, channels AS "channels: Json<Vec<Channel>>"
           FROM member
           WHERE programme_id = $1 AND member_id = ANY ($2)"#,
        programme.0,
        members,
    )
    .fetch_all(&mut *conn)
    .await?;
    let named: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let profile = Profile { display_name: row.display_name, channels: row.channels.0, ..Profile::default() };
            (row.member_id, search::names(&profile))
        })
        .collect();
    put(conn, programme, &named).await
}

/// Works out the grams of some names that have none, of those that nobody else has locked; says of how many.
pub async fn complete(conn: &mut PgConnection, limit: i64) -> Result<usize, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT programme_id, member_id, names
         FROM member_search
         WHERE grams IS NULL
         ORDER BY programme_id, member_id
         LIMIT $1
         FOR UPDATE SKIP LOCKED",
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut of: BTreeMap<ProgrammeId, Vec<(Uuid, BTreeSet<String>)>> = BTreeMap::new();
    for row in &rows {
        let names = row.names.iter().map(|name| search::compared(name)).filter(|name| !name.is_empty()).collect();
        of.entry(ProgrammeId(row.programme_id)).or_default().push((row.member_id, names));
    }
    for (programme, named) in of {
        put(conn, programme, &named).await?;
    }
    Ok(rows.len())
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
    let text = search::compared(text);
    let grams: Vec<i64> = search::grams(programme, [&text]).into_iter().collect();
    if grams.is_empty() {
        // It would be in everybody's name.
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"SELECT f.member_id AS "member_id!", f.rank AS "rank!"
           FROM (
               SELECT s.member_id,
                      (SELECT min(CASE WHEN n.name = $2 THEN 0 WHEN starts_with(n.name, $2) THEN 1 ELSE 2 END)
                       FROM unnest(s.names) AS n (name)
                       WHERE strpos(n.name, $2) > 0) AS rank
               FROM (
                   SELECT member_id, names FROM member_search WHERE programme_id = $1 AND grams @> $6
                   UNION ALL
                   SELECT member_id, names FROM member_search WHERE programme_id = $1 AND grams IS NULL
               ) AS s
           ) AS f
           WHERE f.rank IS NOT NULL AND (f.rank > $3 OR f.rank = $3 AND f.member_id < $4)
           ORDER BY f.rank, f.member_id DESC
           LIMIT $5"#,
        programme.0,
        text,
        after.map_or(-1, |place| place.matched.rank()),
        after.map_or(Uuid::max(), |place| place.member.0),
        limit,
        &grams,
    )
    .fetch_all(conn)
    .await?;
    let places = rows.into_iter().map(|row| Place { member: MemberId(row.member_id), matched: Match::of_rank(row.rank) });
    Ok(places.collect())
}
