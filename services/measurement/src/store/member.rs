//! Members, as far as something is kept of them here; what they are is the registry's.

use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    members,
};
use sqlx::PgConnection;
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
