//! Keeping erased persons out. It is looked after their identities are claimed: a claim waits for an erasure that takes the same identity
//! away, and then sees that it is suppressed.

use crate::{
    domain::{
        erasure::ErasureId,
        member::ExternalIdentity,
        suppression::{Digest, Identifier, Keys},
        sync::Row,
    },
    error::Error,
    store,
};
use koc_chassis::ids::ProgrammeId;
use sqlx::PgConnection;
use std::collections::BTreeSet;

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

/// Those of a batch's `new` external ids whose rows tell of an erased person, by the id itself, an address or a number. What a
/// source says of a member that is known is its own business: two people may share a number.
pub async fn newcomers(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    keys: &Keys,
    source_system: &str,
    rows: impl Iterator<Item = &Row>,
    new: &BTreeSet<&str>,
) -> Result<BTreeSet<String>, Error> {
    let mut owners = Vec::new();
    let mut identifiers = Vec::new();
    for row in rows.filter(|row| new.contains(row.external_id.as_str())) {
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

/// Those of a source's external ids that are of an erased person.
pub async fn external_ids(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    keys: &Keys,
    source_system: &str,
    ids: &[&str],
) -> Result<BTreeSet<String>, Error> {
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let identity = |id: &&str| {
        Identifier::Identity(ExternalIdentity { source_system: source_system.to_owned(), external_id: (*id).to_owned() })
    };
    let identifiers: Vec<Identifier> = ids.iter().map(identity).collect();
    let found = find(conn, programme, keys, &identifiers).await?;
    Ok(ids.iter().zip(found).filter_map(|(id, by)| by.map(|_| (*id).to_owned())).collect())
}
