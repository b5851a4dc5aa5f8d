//! Briefs and their revisions.

use crate::domain::{
    BriefId,
    brief::{Brief, BriefContent, Revision},
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

struct BriefRow {
    brief_id: Uuid,
    display_name: String,
    create_time: DateTime<Utc>,
}

impl BriefRow {
    fn with(self, revisions: Vec<Revision>) -> Brief {
        Brief { id: self.brief_id.into(), display_name: self.display_name, create_time: self.create_time, revisions }
    }
}

/// Adds a brief without revisions.
pub async fn insert(conn: &mut PgConnection, programme: ProgrammeId, brief: &Brief) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO brief (brief_id, programme_id, display_name, create_time)
         VALUES ($1, $2, $3, $4)",
        brief.id.0,
        programme.0,
        brief.display_name,
        brief.create_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a draft revision.
pub async fn insert_draft(
    conn: &mut PgConnection,
    brief: BriefId,
    number: i32,
    content: &BriefContent,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO brief_draft (brief_id, revision, content)
         VALUES ($1, $2, $3)",
        brief.0,
        number,
        Json(content) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes the draft revision a published one; says whether there was a draft.
pub async fn publish_draft(conn: &mut PgConnection, brief: BriefId, now: DateTime<Utc>) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar!(
        "WITH draft AS (
             DELETE FROM brief_draft
             WHERE brief_id = $1
             RETURNING brief_id, revision, content
         )
         INSERT INTO brief_revision (brief_id, revision, content, publish_time)
         SELECT brief_id, revision, content, $2
         FROM draft
         RETURNING revision",
        brief.0,
        now,
    )
    .fetch_optional(conn)
    .await
}

/// Takes the lock of a brief: its revisions change one at a time. Says whether it exists.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, brief: BriefId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT brief_id
         FROM brief
         WHERE brief_id = $1 AND programme_id = $2
         FOR UPDATE",
        brief.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// A brief with all its revisions, the draft last.
pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, brief: BriefId) -> Result<Option<Brief>, sqlx::Error> {
    let row = sqlx::query_as!(
        BriefRow,
        "SELECT brief_id, display_name, create_time
         FROM brief
         WHERE brief_id = $1 AND programme_id = $2",
        brief.0,
        programme.0,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let revisions = sqlx::query!(
        r#"SELECT revision AS "revision!", content AS "content!: Json<BriefContent>", publish_time
         FROM (
             SELECT revision, content, publish_time
             FROM brief_revision
             WHERE brief_id = $1
             UNION ALL
             SELECT revision, content, NULL
             FROM brief_draft
             WHERE brief_id = $1
         ) AS revisions
         ORDER BY revision"#,
        brief.0,
    )
    .fetch_all(conn)
    .await?;
    let revisions = revisions
        .into_iter()
        .map(|r| Revision { number: r.revision, content: r.content.0, publish_time: r.publish_time })
        .collect();
    Ok(Some(row.with(revisions)))
}

/// Whether a programme has this brief.
pub async fn exists(conn: &mut PgConnection, programme: ProgrammeId, brief: BriefId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM brief WHERE brief_id = $1 AND programme_id = $2) AS "exists!""#,
        brief.0,
        programme.0,
    )
    .fetch_one(conn)
    .await
}

/// What a published revision says.
pub async fn published(conn: &mut PgConnection, brief: BriefId, number: i32) -> Result<Option<BriefContent>, sqlx::Error> {
    let content = sqlx::query_scalar!(
        r#"SELECT content AS "content: Json<BriefContent>"
         FROM brief_revision
         WHERE brief_id = $1 AND revision = $2"#,
        brief.0,
        number,
    )
    .fetch_optional(conn)
    .await?;
    Ok(content.map(|Json(content)| content))
}

/// Briefs after `after` by creation, each with its latest revision; at most `limit`.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Brief>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT b.brief_id, b.display_name, b.create_time, r.revision AS "revision!",
                r.content AS "content!: Json<BriefContent>", r.publish_time
         FROM brief AS b
         CROSS JOIN LATERAL (
             SELECT revision, content, NULL::timestamptz AS publish_time
             FROM brief_draft
             WHERE brief_id = b.brief_id
             UNION ALL
             SELECT revision, content, publish_time
             FROM brief_revision
             WHERE brief_id = b.brief_id
             ORDER BY revision DESC
             LIMIT 1
         ) AS r
         WHERE b.programme_id = $1 AND ($2::uuid IS NULL OR b.brief_id > $2)
         ORDER BY b.brief_id
         LIMIT $3"#,
        programme.0,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    let briefs = rows.into_iter().map(|r| {
        let revision = Revision { number: r.revision, content: r.content.0, publish_time: r.publish_time };
        BriefRow { brief_id: r.brief_id, display_name: r.display_name, create_time: r.create_time }.with(vec![revision])
    });
    Ok(briefs.collect())
}
