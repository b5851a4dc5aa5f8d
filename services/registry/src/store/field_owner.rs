//! Whose the fields of a programme's profiles are.

use super::unknown;
use crate::domain::{
    ownership::{Owners, ownable},
    profile::Field,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;
use sqlx::PgConnection;
use std::collections::HashMap;

/// The owner of a field as it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Empty: nobody.
    pub source_system: String,
    pub version: i64,
    pub actor: String,
    pub update_time: DateTime<Utc>,
}

/// What was ever set, by field.
pub async fn list(conn: &mut PgConnection, programme: ProgrammeId) -> Result<HashMap<Field, Set>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT field, source_system, version, actor, update_time
         FROM field_owner
         WHERE programme_id = $1",
        programme.0,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let field = ownable(&row.field).map_err(|_| unknown("field_owner.field"))?;
            let (version, update_time) = (row.version, row.update_time);
            Ok((field, Set { source_system: row.source_system, version, actor: row.actor, update_time }))
        })
        .collect()
}

/// The owners as they are now.
pub async fn owners(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Owners, sqlx::Error> {
    let set = list(conn, programme).await?.into_iter();
    Ok(Owners::new(set.map(|(field, set)| (field, set.source_system)).filter(|(_, source)| !source.is_empty())))
}

/// Sets the owner of a field. The programme's row is locked.
pub async fn put(conn: &mut PgConnection, programme: ProgrammeId, field: Field, set: &Set) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO field_owner (programme_id, field, source_system, version, actor, update_time)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (programme_id, field) DO UPDATE
         SET source_system = $3, version = $4, actor = $5, update_time = $6",
        programme.0,
        field.name(),
        set.source_system,
        set.version,
        set.actor,
        set.update_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}
