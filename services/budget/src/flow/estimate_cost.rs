//! Estimates of uses, by the rate tables in the database.

use crate::{
    domain::{
        cost::{
            estimate::{Estimate, estimate},
            usage::Usage,
        },
        resource::Resource,
    },
    error::Error,
    store::{self, estimate::Kept},
};
use koc_chassis::money::Currency;
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// Estimates a use of a resource by the rate tables that count on the usage's day.
pub async fn estimated(
    conn: &mut PgConnection,
    resource: &Resource,
    usage: &Usage,
    currency: Currency,
) -> Result<Estimate, Error> {
    let ids: Vec<String> = resource.model.tables().into_iter().map(str::to_owned).collect();
    let tables = store::rate_table::in_force(conn, resource.programme, &ids, usage.date).await?;
    Ok(estimate(&resource.model, resource.version, usage, &tables, currency)?)
}

/// Estimates another use by the cost model and the rate tables of an estimate that is kept, whatever came after them.
pub async fn restated(conn: &mut PgConnection, kept: &Kept, usage: &Usage, currency: Currency) -> Result<Estimate, Error> {
    let resource = store::resource::find(conn, kept.programme, kept.resource, Some(kept.version)).await?;
    let resource = resource.ok_or(Error::ResourceNotFound(kept.resource))?;
    let used: BTreeSet<(String, i64)> = kept
        .estimate
        .items
        .iter()
        .filter_map(|item| item.source.table.as_ref())
        .map(|(id, version, _)| (id.clone(), *version))
        .collect();
    let mut tables = Vec::with_capacity(used.len());
    for (id, version) in used {
        let table = store::rate_table::find(conn, kept.programme, &id, version).await?;
        tables.push(table.ok_or(Error::RateTableNotFound(id))?);
    }
    Ok(estimate(&resource.model, resource.version, usage, &tables, currency)?)
}
