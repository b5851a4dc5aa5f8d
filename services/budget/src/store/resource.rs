//! The catalogue. A resource's row is locked by whoever changes it; its versions are only added.

use super::corrupt;
use crate::{
    domain::{
        cost::model::CostModel,
        plan::ResourceClass,
        resource::{Resource, Retirement},
        resource_kind::ResourceKind,
    },
    ids::{ProgrammeId, ResourceId},
};
use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct ResourceRow {
    resource_id: Uuid,
    programme_id: Uuid,
    resource_class: String,
    display_name: String,
    cost_model: serde_json::Value,
    version: i64,
    revision: i64,
    retire_date: Option<NaiveDate>,
    book_value: Option<i64>,
    proceeds: Option<i64>,
    set_by: String,
    reason: String,
    create_time: DateTime<Utc>,
    version_time: DateTime<Utc>,
}

impl TryFrom<ResourceRow> for Resource {
    type Error = sqlx::Error;

    fn try_from(row: ResourceRow) -> Result<Self, sqlx::Error> {
        let ended = |date| Retirement { date, book_value: row.book_value, proceeds: row.proceeds };
        Ok(Self {
            id: ResourceId(row.resource_id),
            programme: ProgrammeId(row.programme_id),
            class: ResourceClass::parse(&row.resource_class).ok_or_else(|| corrupt("resource_version.resource_class"))?,
            display_name: row.display_name,
            model: serde_json::from_value::<CostModel>(row.cost_model).map_err(|_| corrupt("resource_version.cost_model"))?,
            version: row.version,
            retirement: row.retire_date.map(ended),
            revision: row.revision,
            set_by: row.set_by,
            reason: row.reason,
            create_time: row.create_time,
            version_time: row.version_time,
        })
    }
}

/// Keeps a new resource with its first version. A name that is taken breaks `resource_name`.
pub async fn insert(conn: &mut PgConnection, new: &Resource) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO resource (resource_id, programme_id, kind, display_name, version, revision, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        new.id.0,
        new.programme.0,
        new.model.kind().as_str(),
        new.display_name,
        new.version,
        new.revision,
        new.create_time,
    )
    .execute(&mut *conn)
    .await?;
    insert_version(conn, new).await
}

/// Keeps a new version of a locked resource. A name that is taken breaks `resource_name`.
pub async fn update(conn: &mut PgConnection, changed: &Resource) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE resource SET display_name = $2, version = $3, revision = $4 WHERE resource_id = $1",
        changed.id.0,
        changed.display_name,
        changed.version,
        changed.revision,
    )
    .execute(&mut *conn)
    .await?;
    insert_version(conn, changed).await
}

async fn insert_version(conn: &mut PgConnection, resource: &Resource) -> Result<(), sqlx::Error> {
    let model = serde_json::to_value(&resource.model).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query!(
        "INSERT INTO resource_version (resource_id, version, resource_class, display_name, cost_model, set_by, reason, version_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        resource.id.0,
        resource.version,
        resource.class.as_str(),
        resource.display_name,
        model,
        resource.set_by,
        resource.reason,
        resource.version_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps how a locked resource ended.
pub async fn retire(conn: &mut PgConnection, resource: &Resource) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE resource SET revision = $2, retire_date = $3, book_value = $4, proceeds = $5 WHERE resource_id = $1",
        resource.id.0,
        resource.revision,
        resource.retirement.map(|end| end.date),
        resource.retirement.and_then(|end| end.book_value),
        resource.retirement.and_then(|end| end.proceeds),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps others from changing the resource until the transaction ends; what it is, is read by a statement after it.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: ResourceId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT 1 FROM resource WHERE resource_id = $1 AND programme_id = $2 FOR NO KEY UPDATE",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Keeps others from changing the resource, as [`lock`] does, but not from holding it so.
pub async fn share(conn: &mut PgConnection, programme: ProgrammeId, id: ResourceId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!("SELECT 1 FROM resource WHERE resource_id = $1 AND programme_id = $2 FOR SHARE", id.0, programme.0)
        .fetch_optional(conn)
        .await?;
    Ok(())
}

/// A resource of the programme, in a version or, without one, in its newest.
pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: ResourceId,
    version: Option<i64>,
) -> Result<Option<Resource>, sqlx::Error> {
    let row = sqlx::query_as!(
        ResourceRow,
        "SELECT r.resource_id, r.programme_id, v.resource_class, v.display_name, v.cost_model, v.version, r.revision, r.retire_date,
                r.book_value, r.proceeds, v.set_by, v.reason, r.create_time, v.version_time
         FROM resource AS r
         JOIN resource_version AS v ON v.resource_id = r.resource_id AND v.version = coalesce($3::bigint, r.version)
         WHERE r.resource_id = $1 AND r.programme_id = $2",
        id.0,
        programme.0,
        version,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Resource::try_from).transpose()
}

/// Resources of a programme by id, after one, in their newest versions; only of a kind, only retired ones or only others.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    kind: Option<ResourceKind>,
    retired: Option<bool>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Resource>, sqlx::Error> {
    let rows = sqlx::query_as!(
        ResourceRow,
        "SELECT r.resource_id, r.programme_id, v.resource_class, v.display_name, v.cost_model, v.version, r.revision, r.retire_date,
                r.book_value, r.proceeds, v.set_by, v.reason, r.create_time, v.version_time
         FROM resource AS r
         JOIN resource_version AS v ON v.resource_id = r.resource_id AND v.version = r.version
         WHERE r.programme_id = $1
           AND ($2::text IS NULL OR r.kind = $2)
           AND ($3::boolean IS NULL OR (r.retire_date IS NOT NULL) = $3)
           AND ($4::uuid IS NULL OR r.resource_id > $4)
         ORDER BY r.resource_id
         LIMIT $5",
        programme.0,
        kind.map(ResourceKind::as_str),
        retired,
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Resource::try_from).collect()
}
