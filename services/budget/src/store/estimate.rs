//! Estimates that grants rest on: kept as they were made.

use super::corrupt;
use crate::{
    domain::cost::{estimate::Estimate, usage::Usage},
    ids::{EstimateId, ProgrammeId, ResourceId},
};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// An estimate as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub id: EstimateId,
    pub programme: ProgrammeId,
    pub resource: ResourceId,
    pub version: i64,
    pub usage: Usage,
    pub estimate: Estimate,
}

/// Keeps an estimate.
pub async fn insert(conn: &mut PgConnection, kept: &Kept) -> Result<(), sqlx::Error> {
    let encoded = |error| sqlx::Error::Encode(Box::new(error));
    sqlx::query!(
        "INSERT INTO cost_estimate (estimate_id, programme_id, resource_id, resource_version, usage, estimate, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, koc_now())",
        kept.id.0,
        kept.programme.0,
        kept.resource.0,
        kept.version,
        serde_json::to_value(&kept.usage).map_err(encoded)?,
        serde_json::to_value(&kept.estimate).map_err(encoded)?,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Estimates by their ids.
pub async fn by_id(conn: &mut PgConnection, ids: &[EstimateId]) -> Result<HashMap<EstimateId, Kept>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "SELECT estimate_id, programme_id, resource_id, resource_version, usage, estimate
         FROM cost_estimate
         WHERE estimate_id = ANY ($1)",
        &ids,
    )
    .fetch_all(conn)
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let kept = Kept {
            id: EstimateId(row.estimate_id),
            programme: ProgrammeId(row.programme_id),
            resource: ResourceId(row.resource_id),
            version: row.resource_version,
            usage: serde_json::from_value::<Usage>(row.usage).map_err(|_| corrupt("cost_estimate.usage"))?,
            estimate: serde_json::from_value::<Estimate>(row.estimate).map_err(|_| corrupt("cost_estimate.estimate"))?,
        };
        found.insert(kept.id, kept);
    }
    Ok(found)
}
