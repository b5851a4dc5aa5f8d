//! Titles.

use crate::domain::title::{Title, TitleSet};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;
use sqlx::{PgConnection, types::Json};

/// The titles that hold; none before the first set.
pub async fn active(conn: &mut PgConnection, programme: ProgrammeId) -> Result<TitleSet, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT version, titles AS "titles: Json<Vec<Title>>"
           FROM title_set
           WHERE programme_id = $1
           ORDER BY version DESC
           LIMIT 1"#,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(TitleSet::default()) };
    TitleSet::new(row.version, row.titles.0).map_err(|_| super::unknown("title_set.titles"))
}

/// Writes the next version. The programme is locked.
pub async fn insert(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    set: &TitleSet,
    reason: &str,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO title_set (programme_id, version, titles, reason, actor, create_time)
         VALUES ($1, $2, $3, $4, $5, $6)",
        programme.0,
        set.version,
        Json(set.titles()) as Json<&[Title]>,
        reason,
        actor,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}
