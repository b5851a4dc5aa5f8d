//! Keeping erased persons out. It is looked after their identities are claimed: a claim waits for an erasure that takes the same identity
//! away, and then sees that it is suppressed.

use crate::{
    domain::{
        erasure::ErasureId,
        member::ExternalIdentity,
        suppression::{Digest, Identifier, Keys},
        sync::Row,
        text::identifies,
    },
    error::Error,
    store,
};
use koc_chassis::ids::ProgrammeId;
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// The erasures that identifiers are suppressed by, in their order. Errors: SUPPRESSION_KEY_MISSING when some may be and cannot be found.
pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    keys: &Keys,
    identifiers: &[Identifier],
) -> Result<Vec<BTreeSet<ErasureId>>, Error> {
    let digests: Vec<Vec<Digest>> = identifiers.iter().map(|identifier| keys.digests(programme, identifier)).collect();
    let found = store::suppression::find(conn, programme, &keys.ids(), &digests.concat()).await?;
    if let Some(key_id) = found.missing_key {
        return Err(Error::SuppressionKeyMissing { key_id: Some(key_id) });
    }
    let by = |of_one: &Vec<Digest>| of_one.iter().filter_map(|digest| found.suppressed.get(digest)).flatten().copied().collect();
    Ok(digests.iter().map(by).collect())
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
    let suppressed: BTreeSet<&str> =
        owners.into_iter().zip(found).filter_map(|(owner, by)| (!by.is_empty()).then_some(owner)).collect();
    if !suppressed.is_empty() {
        let ids: Vec<&str> = suppressed.iter().copied().collect();
        store::identity::give_up(conn, programme, source_system, &ids).await?;
    }
    Ok(suppressed.into_iter().map(str::to_owned).collect())
}

/// Those of a source's external ids that are of an erased person. Nobody is erased from here on until the transaction ends.
pub async fn external_ids(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    keys: &Keys,
    source_system: &str,
    ids: &[&str],
) -> Result<BTreeSet<String>, Error> {
    let row = |id: &&str| pb::MemberRow { external_id: (*id).to_owned(), ..Default::default() };
    let rows: Vec<pb::MemberRow> = ids.iter().map(row).collect();
    let erased = of_erased(conn, programme, keys, source_system, &rows).await?;
    Ok(rows.into_iter().zip(erased).filter_map(|(row, erased)| erased.then_some(row.external_id)).collect())
}

/// Which of a source's rows, as they came, tell of an erased person: by the id, and those of nobody who is known also by an address or a
/// number. Nobody is erased from here on until the transaction ends.
pub async fn of_erased(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    keys: &Keys,
    source_system: &str,
    rows: &[pb::MemberRow],
) -> Result<Vec<bool>, Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    store::suppression::hold(conn, programme).await?;
    let ids: Vec<&str> = rows.iter().map(|row| row.external_id.as_str()).filter(|id| identifies(id)).collect();
    let known = store::identity::find_all(conn, programme, source_system, &ids).await?;
    let (mut owners, mut identifiers) = (Vec::new(), Vec::new());
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| !known.contains_key(&row.external_id)) {
        let (source_system, external_id) = (source_system.to_owned(), row.external_id.clone());
        let identity = Identifier::Identity(ExternalIdentity { source_system, external_id });
        let profile = row.profile.as_ref();
        let contacts = profile.into_iter().flat_map(|profile| Identifier::of_contact(&profile.email, &profile.phone));
        for identifier in std::iter::once(identity).chain(contacts) {
            owners.push(at);
            identifiers.push(identifier);
        }
    }
    let mut erased = vec![false; rows.len()];
    for (at, by) in owners.into_iter().zip(find(conn, programme, keys, &identifiers).await?) {
        erased[at] |= !by.is_empty();
    }
    Ok(erased)
}
