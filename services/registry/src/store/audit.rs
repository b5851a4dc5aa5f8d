//! Audit entries of what does not pass the gate as a single mutation.

use koc_chassis::{context, gate::Call};
use sqlx::PgConnection;
use uuid::Uuid;

/// Records that the caller did `method` at work item `id`, and what it came to.
pub async fn insert(conn: &mut PgConnection, call: &Call, method: &str, id: Uuid, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO audit_entry (programme_id, method, request_id, actor, client, reason, trace_id, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, koc_now())",
        call.programme.0,
        method,
        id,
        call.caller.actor,
        call.caller.client,
        reason,
        context::trace_id(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
