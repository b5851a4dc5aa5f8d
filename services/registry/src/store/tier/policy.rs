//! Versions of the tier policy, and drafts.

use crate::domain::tier::{
    Policy, Rules,
    policy::{Draft, DraftId, DraftState, Version},
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;
use sqlx::{PgConnection, types::Json};

/// Writes a version. The programme is locked.
pub async fn insert(conn: &mut PgConnection, programme: ProgrammeId, version: &Version) -> Result<(), sqlx::Error> {
    let rules = &version.policy.rules;
    sqlx::query!(
        "INSERT INTO tier_policy (
             programme_id, version, min_promote_probability, min_stay_days, min_outputs, rules, effective_time, reason, actor, authors,
             create_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        programme.0,
        version.policy.version,
        rules.min_promote_probability,
        rules.min_stay_days,
        rules.min_outputs,
        Json(rules) as _,
        version.effective_time,
        version.reason,
        version.actor,
        &version.authors,
        version.create_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the next version number. The programme is locked.
pub async fn next_version(conn: &mut PgConnection, programme: ProgrammeId) -> Result<i32, sqlx::Error> {
    let version = sqlx::query_scalar!(
        "UPDATE programme
         SET tier_policy_version = tier_policy_version + 1
         WHERE programme_id = $1
         RETURNING tier_policy_version",
        programme.0,
    );
    version.fetch_one(conn).await
}

struct Row {
    version: i32,
    min_promote_probability: f64,
    min_stay_days: i32,
    min_outputs: i32,
    rules: Option<Json<Rules>>,
    effective_time: DateTime<Utc>,
    reason: String,
    actor: String,
    authors: Vec<String>,
    create_time: DateTime<Utc>,
}

impl From<Row> for Version {
    fn from(row: Row) -> Self {
        let before = || Rules::rising_only(row.min_promote_probability, row.min_stay_days, row.min_outputs);
        Self {
            policy: Policy { version: row.version, rules: row.rules.map_or_else(before, |rules| rules.0) },
            effective_time: row.effective_time,
            reason: row.reason,
            actor: row.actor,
            authors: row.authors,
            create_time: row.create_time,
        }
    }
}

/// The version in force at a time, now when None; None before the first, and when there is no such programme.
pub async fn at(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    time: Option<DateTime<Utc>>,
) -> Result<Option<Version>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT version, min_promote_probability, min_stay_days, min_outputs, rules AS "rules: Json<Rules>",
                  coalesce(effective_time, create_time) AS "effective_time!", reason, actor, authors, create_time
           FROM tier_policy
           WHERE programme_id = $1 AND coalesce(effective_time, create_time) <= coalesce($2, koc_now())
           ORDER BY coalesce(effective_time, create_time) DESC, version DESC
           LIMIT 1"#,
        programme.0,
        time,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Into::into))
}

/// The policy in force; None when there is no such programme.
pub async fn active(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Option<Policy>, sqlx::Error> {
    Ok(at(conn, programme, None).await?.map(|version| version.policy))
}

/// Versions before one, newest first.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<Version>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT version, min_promote_probability, min_stay_days, min_outputs, rules AS "rules: Json<Rules>",
                  coalesce(effective_time, create_time) AS "effective_time!", reason, actor, authors, create_time
           FROM tier_policy
           WHERE programme_id = $1 AND version < coalesce($2, 2147483647)
           ORDER BY version DESC
           LIMIT $3"#,
        programme.0,
        before,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub async fn insert_draft(conn: &mut PgConnection, programme: ProgrammeId, draft: &Draft) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO tier_policy_draft (
             programme_id, draft_id, rules, reason, authors, revision, discarded, create_time, update_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, false, $7, $8)",
        programme.0,
        draft.id.0,
        Json(&draft.rules) as _,
        draft.reason,
        &draft.authors,
        draft.revision,
        draft.create_time,
        draft.update_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what became of a draft. The programme is locked.
pub async fn update_draft(conn: &mut PgConnection, programme: ProgrammeId, draft: &Draft) -> Result<(), sqlx::Error> {
    let activated = match draft.state {
        DraftState::Activated(version) => Some(version),
        DraftState::Open | DraftState::Discarded => None,
    };
    sqlx::query!(
        "UPDATE tier_policy_draft
         SET rules = $3, reason = $4, authors = $5, revision = $6, discarded = $7, activated_version = $8, update_time = $9
         WHERE programme_id = $1 AND draft_id = $2",
        programme.0,
        draft.id.0,
        Json(&draft.rules) as _,
        draft.reason,
        &draft.authors,
        draft.revision,
        draft.state == DraftState::Discarded,
        activated,
        draft.update_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

struct DraftRow {
    draft_id: uuid::Uuid,
    rules: Json<Rules>,
    reason: String,
    authors: Vec<String>,
    revision: i64,
    discarded: bool,
    activated_version: Option<i32>,
    create_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
}

impl From<DraftRow> for Draft {
    fn from(row: DraftRow) -> Self {
        let state = match row.activated_version {
            Some(version) => DraftState::Activated(version),
            None if row.discarded => DraftState::Discarded,
            None => DraftState::Open,
        };
        Self {
            id: DraftId(row.draft_id),
            rules: row.rules.0,
            reason: row.reason,
            state,
            authors: row.authors,
            revision: row.revision,
            create_time: row.create_time,
            update_time: row.update_time,
        }
    }
}

pub async fn draft(conn: &mut PgConnection, programme: ProgrammeId, id: DraftId) -> Result<Option<Draft>, sqlx::Error> {
    let row = sqlx::query_as!(
        DraftRow,
        r#"SELECT draft_id, rules AS "rules: Json<Rules>", reason, authors, revision, discarded, activated_version, create_time, update_time
           FROM tier_policy_draft
           WHERE programme_id = $1 AND draft_id = $2"#,
        programme.0,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Into::into))
}

/// Drafts before one, newest first.
pub async fn drafts(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    before: Option<uuid::Uuid>,
    limit: i64,
) -> Result<Vec<Draft>, sqlx::Error> {
    let rows = sqlx::query_as!(
        DraftRow,
        r#"SELECT draft_id, rules AS "rules: Json<Rules>", reason, authors, revision, discarded, activated_version, create_time, update_time
           FROM tier_policy_draft
           WHERE programme_id = $1 AND ($2::uuid IS NULL OR draft_id < $2)
           ORDER BY draft_id DESC
           LIMIT $3"#,
        programme.0,
        before,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// How many drafts are open. The programme is locked.
pub async fn open_drafts(conn: &mut PgConnection, programme: ProgrammeId) -> Result<i64, sqlx::Error> {
    let open = sqlx::query_scalar!(
        r#"SELECT count(*) AS "open!"
           FROM tier_policy_draft
           WHERE programme_id = $1 AND NOT discarded AND activated_version IS NULL"#,
        programme.0,
    );
    open.fetch_one(conn).await
}
