//! Creating members.

use crate::{
    api::convert,
    domain::{
        consent,
        history::{Before, Change, ChangeKind},
        member::{ExternalIdentity, State, TrustLevel, check_identities},
        profile::{Field, Profile},
        search::names,
        suppression::{Identifier, Keys},
        sync::{Provenance, Record},
    },
    error::Error,
    flow::{suppress, tell_consents},
    store::{self, member::Locked},
};
use koc_chassis::{fault::Violations, gate::Work, ids::MemberId, outbox};
use koc_proto::koc::registry::v1 as pb;

pub(super) async fn create(
    work: &mut Work,
    request: pb::CreateMemberRequest,
    keys: &Keys,
) -> Result<pb::CreateMemberResponse, Error> {
    let identities: Vec<ExternalIdentity> = request.external_identities.into_iter().map(convert::identity).collect();
    let mut violations = Violations::default();
    violations.take_all(check_identities(&identities));
    for (i, identity) in identities.iter().enumerate() {
        violations.take(convert::no_mask(format!("external_identities[{i}].external_id"), &identity.external_id));
    }
    if let Some(profile) = &request.profile {
        violations.take_all(convert::unmasked(profile, |_| true));
    }
    let profile = violations.take_all(convert::profile(request.profile.unwrap_or_default()));
    violations.finish()?;
    let profile = profile.unwrap_or_default();

    let programme = work.programme();
    let tier_id = store::tier::lowest(work.conn(), programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let id = MemberId::new();
    let arrival = work.now().await?;
    if let Some((index, holder)) = store::identity::claim_all(work.conn(), programme, id, &identities, arrival).await? {
        let source_system = identities.get(index).map(|i| i.source_system.clone()).unwrap_or_default();
        return Err(Error::ExternalIdentityTaken { index, source_system, holder });
    }
    check_suppression(work, &identities, &profile, keys).await?;
    let now = work.now().await?;
    let provenance = Provenance::of_new(&profile, now);
    let fields = profile.known();
    let consents = consent::changes(&[], &profile.consents);
    let found_by = names(&profile);
    let record = Record { profile, provenance };
    let member = Locked {
        id,
        record,
        state: State::Active,
        suspension_cause: None,
        trust_level: TrustLevel::New,
        version: 1,
        merged_into: None,
    };
    store::member::insert_all(work.conn(), programme, &tier_id, &[member], now).await?;
    store::search::put(work.conn(), programme, &[(id.0, found_by)]).await?;
    let actor = work.actor().to_owned();
    let before = fields.iter().map(|field| Before::unkept(field.own_path())).collect();
    let change = Change::by_api(id, 1, ChangeKind::Created, before);
    store::history::insert_all(work.conn(), programme, &[change], &actor, now).await?;
    let changed_fields = Field::paths(fields);
    work.emit(id.0, &pb::MemberChanged { member_id: id.to_string(), created: true, changed_fields, version: 1 }).await?;
    outbox::append(work.conn(), &tell_consents::facts(programme, id, 1, &consents)).await?;
    work.audit(id.0, None);
    let member = store::member::get(work.conn(), programme, id).await?.map(convert::member);
    Ok(pb::CreateMemberResponse { member })
}

/// MEMBER_SUPPRESSED when an identity, the address or the number is that of a person who was erased. The identities are claimed.
async fn check_suppression(
    work: &mut Work,
    identities: &[ExternalIdentity],
    profile: &Profile,
    keys: &Keys,
) -> Result<(), Error> {
    let mut asked: Vec<(String, Identifier)> = identities
        .iter()
        .enumerate()
        .map(|(i, identity)| (format!("external_identities[{i}]"), Identifier::Identity(identity.clone())))
        .collect();
    asked.extend(Identifier::of_contact(&profile.email, "").map(|email| ("profile.email".to_owned(), email)));
    asked.extend(Identifier::of_contact("", &profile.phone).map(|phone| ("profile.phone".to_owned(), phone)));
    if asked.is_empty() {
        return Ok(());
    }
    let (fields, identifiers): (Vec<String>, Vec<Identifier>) = asked.into_iter().unzip();
    let programme = work.programme();
    let found = suppress::find(work.conn(), programme, keys, &identifiers).await?;
    match fields.into_iter().zip(found).find_map(|(field, by)| (!by.is_empty()).then_some(field)) {
        Some(field) => Err(Error::MemberSuppressed { field }),
        None => Ok(()),
    }
}
