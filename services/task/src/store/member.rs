//! Members, as far as something is kept of them here; what they are is the registry's.

use koc_chassis::ids::MemberId;
use sqlx::PgConnection;

/// Class of the advisory locks on members. The database is shared with other services, so their classes differ.
const MEMBER_LOCK: i32 = 0x6b74_6d62;

/// Lets an offer to a member, and the end of its offers, follow each other until the transaction ends: whichever comes second knows of the
/// first. Before the locks of tasks.
pub async fn lock(conn: &mut PgConnection, member: MemberId) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1, hashtext($2::uuid::text))", MEMBER_LOCK, member.0).execute(conn).await?;
    Ok(())
}
