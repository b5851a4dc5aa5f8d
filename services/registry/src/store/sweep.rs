//! Whom a full run has seen, and whom it has not.

use crate::domain::sync_run::Run;
use sqlx::PgConnection;

/// Marks ids as seen. The run is locked.
pub async fn mark(conn: &mut PgConnection, run: &Run, external_ids: &[&str]) -> Result<(), sqlx::Error> {
    if external_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO sync_seen (programme_id, sync_run_id, external_id)
         SELECT $1, $2, external_id
         FROM UNNEST($3::text[]) AS external_id
         ON CONFLICT DO NOTHING",
        run.programme.0,
        run.id.0,
        external_ids as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A part of the identities of a source that are not deleted, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub identities: i64,
    /// Those of them that the run may delete: not seen, there when it was opened, and not spoken of since the export was made.
    pub unseen: Vec<String>,
    /// The last of the part; None when it is empty: the walk is at its end.
    pub last: Option<String>,
}

/// The part behind what was walked.
pub async fn walk(conn: &mut PgConnection, run: &Run, limit: i64) -> Result<Part, sqlx::Error> {
    // Each identity of the part is looked up by itself: a run has just filled the table, so that nothing is known of its size, and any other
    // way could read all of it for each part.
    let part = sqlx::query!(
        r#"WITH part AS MATERIALIZED (
               SELECT external_id, create_time <= $6 AND COALESCE(source_time, create_time) <= $7 AS may_go
               FROM external_identity
               WHERE programme_id = $1 AND source_system = $3 AND external_id > $4 AND NOT deleted
               ORDER BY external_id
               LIMIT $5
           )
           SELECT count(*) AS "identities!", max(p.external_id) AS last,
                  COALESCE(array_agg(p.external_id ORDER BY p.external_id) FILTER (WHERE p.may_go AND s.seen IS NULL), '{}') AS "unseen!"
           FROM part AS p
           LEFT JOIN LATERAL (
               SELECT true AS seen
               FROM sync_seen
               WHERE programme_id = $1 AND sync_run_id = $2 AND external_id = p.external_id
               LIMIT 1
           ) AS s ON true"#,
        run.programme.0,
        run.id.0,
        run.settings.source_system,
        run.walked_to.as_deref().unwrap_or_default(),
        limit,
        run.create_time,
        run.settings.as_of,
    )
    .fetch_one(conn)
    .await?;
    Ok(Part { identities: part.identities, unseen: part.unseen, last: part.last })
}

/// Forgets some of those that a run has seen; says how many.
pub async fn forget(conn: &mut PgConnection, run: &Run, limit: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        "DELETE FROM sync_seen
         WHERE ctid = ANY (ARRAY(
             SELECT ctid
             FROM sync_seen
             WHERE programme_id = $1 AND sync_run_id = $2
             LIMIT $3
         ))",
        run.programme.0,
        run.id.0,
        limit,
    )
    .execute(conn)
    .await?;
    Ok(forgotten.rows_affected())
}
