//! Members, as far as something is kept of them here; what they are is the registry's.

use super::operation::MEMBER_LOCK;
use crate::ids::{MemberId, ProgrammeId};
use koc_chassis::members;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

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

/// Keeps all operations on the money of these members out until the transaction ends, and of those that are one person with any of them:
/// operations hold the same locks shared. Gives all of them.
pub async fn lock_persons(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    of: &[MemberId],
) -> Result<Vec<MemberId>, sqlx::Error> {
    let mut locked = BTreeSet::new();
    loop {
        let mut all = BTreeSet::new();
        for member in of {
            all.extend(members::group(conn, programme, *member).await?);
            all.insert(*member);
        }
        // Who holds one lock of a person keeps others from being merged with it: the second round finds no more, unless a merge came between.
        if all.is_subset(&locked) {
            return Ok(all.into_iter().collect());
        }
        sqlx::query(
            "SELECT pg_advisory_xact_lock($1, m.hash)
             FROM (SELECT DISTINCT hashtext(id::text) AS hash FROM UNNEST($2::uuid[]) AS u (id) ORDER BY hash) AS m",
        )
        .bind(MEMBER_LOCK)
        .bind(all.iter().map(|member| member.0).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
        locked = all;
    }
}
