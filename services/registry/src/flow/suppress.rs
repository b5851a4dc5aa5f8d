//! Keeping erased persons out. It is looked after their identities are claimed: a claim waits for an erasure that takes the same identity
//! away, and then sees that it is suppressed.

use crate::{
    domain::{
        erasure::ErasureId,
        suppression::{Digest, Identifier, Keys},
        sync::Row,
    },
    error::Error,
    store::{self, identity::Claim},
};
use koc_chassis::ids::ProgrammeId;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// The erasures that identifiers are suppressed by, in their order. Errors: SUPPRESSION_KEY_MISSING when some may be and cannot be found.
pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    keys: &Keys,
    identifiers: &[Identifier],
) -> Result<Vec<Option<ErasureId>>, Error> {
    let digests: Vec<Vec<Digest>> = identifiers.iter().map(|identifier| keys.digests(programme, identifier)).collect();
    let found = store::suppression::find(conn, programme, &keys.ids(), &digests.concat()).await?;
    if let Some(key_id) = found.missing_key {
        return Err(Error::SuppressionKeyMissing { key_id: Some(key_id) });
    }
    Ok(digests.iter().map(|of_one| of_one.iter().find_map(|digest| found.suppressed.get(digest).copied())).collect())
}

/// The external ids of a batch that are new and whose rows tell of an erased person, by the id itself, an address or a number. What a
/// source says of a member that is known is its own business: two people may share a number.
pub async fn newcomers(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    keys: &Keys,
    source_system: &str,
    rows: impl Iterator<Item = &Row>,
    claims: &BTreeMap<String, Claim>,
) -> Result<BTreeSet<String>, Error> {
    let mut owners = Vec::new();
    let mut identifiers = Vec::new();
    for row in rows.filter(|row| claims.get(&row.external_id).is_some_and(|claim| claim.new)) {
        for identifier in row.identifiers(source_system) {
            owners.push(row.external_id.as_str());
            identifiers.push(identifier);
        }
    }
    if identifiers.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = find(conn, programme, keys, &identifiers).await?;
    let suppressed: BTreeSet<&str> = owners.into_iter().zip(found).filter_map(|(owner, by)| by.map(|_| owner)).collect();
    if !suppressed.is_empty() {
        let ids: Vec<&str> = suppressed.iter().copied().collect();
        store::identity::give_up(conn, programme, source_system, &ids).await?;
    }
    Ok(suppressed.into_iter().map(str::to_owned).collect())
}
