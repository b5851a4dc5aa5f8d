//! Gifts for members who rise a tier.

use super::{envelope::Envelope, plan::ResourceClass, resource_kind::ResourceKind};
use crate::ids::{EnvelopeId, GrantId, MemberId, ProgrammeId, PromotionId, ResourceId};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// After a refusal the grant is asked for again so much later.
pub const AGAIN_AFTER: TimeDelta = TimeDelta::hours(6);
/// So often it is asked for: over a week.
pub const MAX_TRIES: u32 = 28;
/// Why a member that moved to a lower tier, or sideways, gets nothing.
pub const NO_RISE: &str = "NO_RISE";
/// Why one gets nothing whose person has the gift by another id: it was merged while both waited for it.
pub const GIVEN_ALREADY: &str = "GIVEN_ALREADY";

/// What members get who rise to a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gift {
    pub tier_id: String,
    pub resource: ResourceId,
    pub set_by: String,
    pub reason: String,
    pub set_time: DateTime<Utc>,
}

/// Kinds of which one can be given knowing nothing but whom to: nothing is booked, and no use is agreed upon.
pub fn can_be_gift(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::GiftKit | ResourceKind::DigitalAsset)
}

/// A member's rise to a tier with a gift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    pub id: PromotionId,
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub from_tier_id: String,
    pub tier_id: String,
    pub resource: ResourceId,
    pub state: State,
    pub move_time: DateTime<Utc>,
    pub update_time: DateTime<Utc>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// With the reason of the last refusal, if there was one.
    Pending(Option<String>),
    Granted(GrantId),
    Refused(String),
}

/// What a promotion's grant is asked with: fixed before it is, so that a call that is made again asks for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// ISO 3166-2, where it is sent; None when unknown, or when nothing is sent.
    pub region_code: Option<String>,
    /// Absent for what costs nothing to issue.
    pub envelope: Option<EnvelopeId>,
}

/// The envelope of an active plan that pays for a gift: of the resource's class, without parts, for its kind and the member's region or for
/// all. Of several the one that is for the fewest, and of those the one that has most.
pub fn paying(envelopes: &[Envelope], class: ResourceClass, kind: ResourceKind, region: Option<&str>) -> Option<EnvelopeId> {
    let fits = |envelope: &&Envelope| {
        let place = &envelope.place;
        let for_region = place.region.is_none() || place.region.as_deref() == region;
        let for_kind = place.kind.is_none_or(|only| only == kind);
        let is_part_of = |part: &Envelope| part.place.parent == Some(envelope.id);
        place.class == class && for_region && for_kind && !envelopes.iter().any(is_part_of)
    };
    let found = envelopes.iter().filter(fits).max_by_key(|envelope| {
        let narrow = i32::from(envelope.place.region.is_some()) + i32::from(envelope.place.kind.is_some());
        (narrow, envelope.balances.available(), envelope.id)
    });
    found.map(|envelope| envelope.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{balances::Balances, envelope::Place},
        ids::PlanId,
    };
    use uuid::Uuid;

    fn envelope(n: u128, class: ResourceClass, available: i64) -> Envelope {
        Envelope {
            id: EnvelopeId(Uuid::from_u128(n)),
            plan: PlanId(Uuid::nil()),
            place: Place { class, parent: None, region: None, kind: None },
            display_name: String::new(),
            planned: 0,
            balances: Balances { allocated: available, ..Balances::default() },
            overrun_limit: 0,
        }
    }

    fn placed(n: u128, region: Option<&str>, kind: Option<ResourceKind>) -> Envelope {
        let all = envelope(n, ResourceClass::Incentive, 10);
        Envelope { place: Place { region: region.map(str::to_owned), kind, ..all.place.clone() }, ..all }
    }

    fn paying_for(envelopes: &[Envelope]) -> Option<u128> {
        let found = paying(envelopes, ResourceClass::Incentive, ResourceKind::GiftKit, Some("CN-GD"));
        found.map(|id| id.0.as_u128())
    }

    #[test]
    fn the_narrowest_envelope_that_fits_pays_and_of_several_the_fullest() {
        let other = envelope(1, ResourceClass::Inclusive, 1_000);
        let (all, more) = (envelope(2, ResourceClass::Incentive, 10), envelope(3, ResourceClass::Incentive, 20));
        assert_eq!(paying_for(std::slice::from_ref(&other)), None);
        assert_eq!(paying_for(&[other.clone(), all.clone(), more.clone()]), Some(3));
        let elsewhere = placed(4, Some("CN-SH"), None);
        let cars = placed(5, None, Some(ResourceKind::LoanVehicle));
        assert_eq!(paying_for(&[all.clone(), elsewhere, cars]), Some(2));
        let (here, kits) = (placed(6, Some("CN-GD"), None), placed(7, Some("CN-GD"), Some(ResourceKind::GiftKit)));
        assert_eq!(paying_for(&[all.clone(), here.clone(), kits.clone()]), Some(7));
        let part = Envelope { place: Place { parent: Some(kits.id), ..here.place.clone() }, ..placed(8, None, None) };
        assert_eq!(paying_for(&[all, kits, part]), Some(8), "only parts that have none hold reservations");
    }

    #[test]
    fn only_what_needs_nothing_but_a_member_is_a_gift() {
        let gifts: Vec<ResourceKind> = ResourceKind::ALL.iter().copied().filter(|kind| can_be_gift(*kind)).collect();
        assert_eq!(gifts, [ResourceKind::DigitalAsset, ResourceKind::GiftKit]);
    }
}
