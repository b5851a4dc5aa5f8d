//! Audit entries of what does not pass the gate as a single mutation.

use koc_chassis::{context, gate::Call, ids::ProgrammeId};
use sqlx::PgConnection;
use uuid::Uuid;

/// In which programme something is done, and by whom.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    pub programme: ProgrammeId,
    pub actor: &'a str,
    /// The platform that called, or the part of the registry that acts by itself.
    pub client: &'a str,
}

impl<'a> From<&'a Call> for Act<'a> {
    fn from(call: &'a Call) -> Self {
        Self { programme: call.programme, actor: &call.caller.actor, client: &call.caller.client }
    }
}

/// Records that somebody did `method` at work item `id`, and what it came to.
pub async fn insert(conn: &mut PgConnection, act: Act<'_>, method: &str, id: Uuid, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO audit_entry (programme_id, method, request_id, actor, client, reason, trace_id, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, koc_now())",
        act.programme.0,
        method,
        id,
        act.actor,
        act.client,
        reason,
        context::trace_id(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
