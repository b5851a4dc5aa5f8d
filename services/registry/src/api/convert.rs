//! Between the wire and the domain.

use crate::domain::{
    badge::ConditionKind,
    consent::{Consent, Purpose},
    erasure::Ground,
    history::ChangeKind,
    member::{ExternalIdentity, Member, State, SuspensionCause, TrustLevel},
    member_feed::EventKind,
    points::Kind,
    profile::{Channel, Field, Motivation, Profile, Vehicle},
    programme::Programme,
    tier::{Outcome, ResourceClass, verdict::Risk},
    value::{Score, ValueType},
    webhook::{Columns, DeliveryState, WebhookState},
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    page,
};
use koc_proto::{koc::registry::v1 as pb, personal};

/// An enum with a twin on the wire.
pub trait Wire: Sized {
    fn to_wire(self) -> i32;
    /// Unspecified and unknown numbers are violations of `field`.
    fn from_wire(field: &str, number: i32) -> Result<Self, Violation>;
}

macro_rules! wire_enum {
    ($($twin:ident = $name:ident { $($variant:ident),+ })+) => {$(
        impl Wire for $name {
            fn to_wire(self) -> i32 {
                match self { $(Self::$variant => pb::$twin::$variant as i32),+ }
            }

            fn from_wire(field: &str, number: i32) -> Result<Self, Violation> {
                match pb::$twin::try_from(number) {
                    $(Ok(pb::$twin::$variant) => Ok(Self::$variant),)+
                    _ => Err(Violation::new(field, "enum.not_in", format!("must be a value of {}; got {number}", stringify!($twin)))),
                }
            }
        }
    )+};
}

pub(super) use wire_enum;

wire_enum! {
    Motivation = Motivation { Helping, Mastery, Gathering, Recognition, Reward }
    MemberChangeKind = ChangeKind { Created, Updated, Suspended, Reinstated, MergedInto, TookIn, Unmerged, GaveBack, Erased }
    MemberEventKind = EventKind {
        Snapshot, Created, Updated, Suspended, Reinstated, Merged, Unmerged, TierChanged, PointsChanged, TitleChanged, BadgeAwarded,
        BadgeRevoked, Erased
    }
    WebhookState = WebhookState { Active, Paused, Disabled }
    WebhookColumns = Columns { None, Masked, Whole }
    WebhookDeliveryState = DeliveryState { Pending, Delivered, Failed }
    MemberState = State { Active, Suspended, Erased }
    MemberSuspensionCause = SuspensionCause { Caller, SourceDeleted }
    ErasureGround = Ground { Requested, ConsentWithdrawn, NotNeeded, Unlawful, LegalDuty }
    TrustLevel = TrustLevel { New, Proven, Trusted, Partner }
    ValueType = ValueType { Social, Content, Insight }
    ConsentPurpose = Purpose { Participation, Profiling, ContentUse, Contact }
    TierOutcome = Outcome { Rose, Fell, Stayed, Reviewed, Dormant, Cleared, Assigned, HoldEnded }
    TierRisk = Risk { Review, Low, Fall, Dormant }
    ResourceClass = ResourceClass { Inclusive, Incentive, Exclusive }
    PointsEntryKind = Kind { Earn, Redeem, Expire, Reverse, MergeIn, MergeOut }
    BadgeConditionKind = ConditionKind { LifetimePoints, Tier, ValueType, BadgeCount }
}

pub fn programme(programme: Programme) -> pb::Programme {
    pb::Programme {
        programme_id: programme.id.to_string(),
        display_name: programme.display_name,
        currency_code: programme.currency.code().to_owned(),
        time_zone: programme.time_zone.name().to_owned(),
        create_time: Some(clock::to_proto(programme.create_time)),
    }
}

/// A profile from the wire, held to the rules of [`Profile::canonical`].
pub fn profile(wire: pb::MemberProfile) -> Result<Profile, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut motivations = Vec::with_capacity(wire.motivations.len());
    for (i, number) in wire.motivations.iter().enumerate() {
        motivations.extend(violations.take(Motivation::from_wire(&format!("profile.motivations[{i}]"), *number)));
    }
    let mut consents = Vec::with_capacity(wire.consents.len());
    for (i, consent) in wire.consents.iter().enumerate() {
        let purpose = violations.take(Purpose::from_wire(&format!("profile.consents[{i}].purpose"), consent.purpose));
        consents.extend(purpose.map(|purpose| Consent { purpose, granted: consent.granted }));
    }
    let channel = |c: pb::Channel| Channel { platform: c.platform, handle: c.handle, followers: c.followers };
    let canonical = Profile {
        display_name: wire.display_name,
        email: wire.email,
        phone: wire.phone,
        region_code: wire.region_code,
        city: wire.city,
        channels: wire.channels.into_iter().map(channel).collect(),
        vehicles: wire.vehicles.into_iter().map(|v| Vehicle { model: v.model, vin: v.vin }).collect(),
        motivations,
        tags: wire.tags,
        consents,
    }
    .canonical();
    let profile = violations.take_all(canonical);
    violations.finish()?;
    Ok(profile.unwrap_or_default())
}

/// Errors: MASKED_VALUE for each text that is a mask, of the fields that `asked` names. It came from an answer that hid the value, which
/// writing it would destroy.
pub fn unmasked(wire: &pb::MemberProfile, asked: impl Fn(Field) -> bool) -> Result<(), Vec<Violation>> {
    let mut texts = vec![
        (Field::DisplayName, Field::DisplayName.path(), &wire.display_name),
        (Field::Email, Field::Email.path(), &wire.email),
        (Field::Phone, Field::Phone.path(), &wire.phone),
        (Field::City, Field::City.path(), &wire.city),
    ];
    let at = |field: Field, i: usize, name: &str| (field, format!("{}[{i}]{name}", field.path()));
    let mut list = |(field, path), text| texts.push((field, path, text));
    for (i, channel) in wire.channels.iter().enumerate() {
        list(at(Field::Channels, i, ".handle"), &channel.handle);
    }
    for (i, vehicle) in wire.vehicles.iter().enumerate() {
        list(at(Field::Vehicles, i, ".vin"), &vehicle.vin);
    }
    for (i, tag) in wire.tags.iter().enumerate() {
        list(at(Field::Tags, i, ""), tag);
    }
    let mut violations = Violations::default();
    for (_, path, text) in texts.into_iter().filter(|(field, ..)| asked(*field)) {
        violations.take(no_mask(path, text));
    }
    violations.finish()
}

/// Errors: MASKED_VALUE.
pub fn no_mask(path: impl Into<String>, text: &str) -> Result<(), Violation> {
    let rule = "must be the value itself; this is the mask that is shown without the scope `registry.pii`";
    if personal::is_mask(text) { Err(Violation::new(path, "MASKED_VALUE", rule)) } else { Ok(()) }
}

pub fn profile_to_wire(profile: Profile) -> pb::MemberProfile {
    let channel = |c: Channel| pb::Channel { platform: c.platform, handle: c.handle, followers: c.followers };
    pb::MemberProfile {
        display_name: profile.display_name,
        email: profile.email,
        phone: profile.phone,
        region_code: profile.region_code,
        city: profile.city,
        channels: profile.channels.into_iter().map(channel).collect(),
        vehicles: profile.vehicles.into_iter().map(|v| pb::Vehicle { model: v.model, vin: v.vin }).collect(),
        motivations: profile.motivations.into_iter().map(Wire::to_wire).collect(),
        tags: profile.tags,
        consents: profile
            .consents
            .into_iter()
            .map(|c| pb::Consent { purpose: c.purpose.to_wire(), granted: c.granted })
            .collect(),
    }
}

/// A suspension from before causes were kept is a caller's.
fn suspension_cause(state: State, cause: Option<SuspensionCause>) -> i32 {
    match state {
        State::Active => pb::MemberSuspensionCause::Unspecified as i32,
        State::Suspended => cause.unwrap_or(SuspensionCause::Caller).to_wire(),
        State::Erased => pb::MemberSuspensionCause::Unspecified as i32,
    }
}

pub fn identity(wire: pb::ExternalIdentity) -> ExternalIdentity {
    ExternalIdentity { source_system: wire.source_system, external_id: wire.external_id }
}

pub fn member(member: Member) -> pb::Member {
    let identity = |i: ExternalIdentity| pb::ExternalIdentity { source_system: i.source_system, external_id: i.external_id };
    pb::Member {
        member_id: member.id.to_string(),
        programme_id: member.programme.to_string(),
        profile: Some(profile_to_wire(member.profile)),
        external_identities: member.external_identities.into_iter().map(identity).collect(),
        deleted_identities: member.deleted_identities.into_iter().map(identity).collect(),
        suspension_cause: suspension_cause(member.state, member.suspension_cause),
        state: member.state.to_wire(),
        trust_level: member.trust_level.to_wire(),
        tier_id: member.tier_id,
        tier_since: Some(clock::to_proto(member.tier_since)),
        value_scores: member.scores.into_iter().map(score_to_wire).collect(),
        etag: page::etag(member.version),
        create_time: Some(clock::to_proto(member.create_time)),
        update_time: Some(clock::to_proto(member.update_time)),
    }
}

pub fn scores(wire: Vec<pb::ValueScore>) -> Result<Vec<Score>, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut scores = Vec::with_capacity(wire.len());
    for (i, score) in wire.into_iter().enumerate() {
        let value_type = violations.take(ValueType::from_wire(&format!("scores[{i}].value_type"), score.value_type));
        scores.extend(value_type.map(|value_type| Score {
            value_type,
            score: score.score,
            confidence: score.confidence,
            labelled: score.labelled,
            evidence_output_ids: score.evidence_output_ids,
        }));
    }
    violations.finish().map(|()| scores)
}

pub fn score_to_wire(score: Score) -> pb::ValueScore {
    pb::ValueScore {
        value_type: score.value_type.to_wire(),
        score: score.score,
        confidence: score.confidence,
        labelled: score.labelled,
        evidence_output_ids: score.evidence_output_ids,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_and_unknown_numbers_name_their_field() {
        for number in [0, 99] {
            let broken = TrustLevel::from_wire("trust_level", number).expect_err("no level");
            assert_eq!((broken.field.as_str(), broken.rule.as_str()), ("trust_level", "enum.not_in"));
        }
        assert_eq!(TrustLevel::from_wire("trust_level", TrustLevel::Partner.to_wire()), Ok(TrustLevel::Partner));
    }

    #[test]
    fn a_profile_survives_the_wire() {
        let wire = pb::MemberProfile {
            display_name: "小何".into(),
            email: "he@example.com".into(),
            phone: "+8613900000000".into(),
            region_code: "CN-GD".into(),
            city: "广州".into(),
            channels: vec![pb::Channel { platform: "DOUYIN".into(), handle: "he".into(), followers: Some(0) }],
            vehicles: vec![pb::Vehicle { model: "Aurora E5".into(), vin: "LX1".into() }],
            motivations: vec![pb::Motivation::Helping as i32, pb::Motivation::Reward as i32],
            tags: vec!["a".into(), "b".into()],
            consents: vec![pb::Consent { purpose: pb::ConsentPurpose::Contact as i32, granted: false }],
        };
        assert_eq!(profile_to_wire(profile(wire.clone()).expect("no rule broken")), wire);
    }
}
