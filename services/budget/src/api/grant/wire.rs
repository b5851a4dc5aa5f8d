//! Grants as the contract shows them.

use crate::{
    api::{convert::money, cost_estimate},
    domain::{
        cost::usage::Usage,
        grant::{Grant, Mismatch},
    },
    error::Error,
    flow::fact::{grant_state, optional, resource_kind},
    ids::EstimateId,
    store::estimate::Kept,
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    money::Currency,
};
use koc_proto::koc::budget::v1 as pb;
use std::collections::HashMap;

/// A request on one grant.
pub trait OfGrant {
    fn grant(&self) -> &str;
}

macro_rules! of_grant {
    ($($name:ident),+) => {$(
        impl OfGrant for pb::$name {
            fn grant(&self) -> &str {
                &self.grant_id
            }
        }
    )+};
}

of_grant!(
    ApproveGrantRequest,
    RejectGrantRequest,
    CancelGrantRequest,
    ShipGrantRequest,
    ConfirmGrantDeliveryRequest,
    HandOverGrantRequest,
    ReturnGrantRequest,
    SettleGrantRequest,
    FulfilGrantRequest
);

/// Which grant a request is on.
pub fn grant_id(request: &impl OfGrant) -> String {
    request.grant().to_owned()
}

/// Checks that a usage says how many, and no more.
pub fn only_quantity(usage: &Usage) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    for field in usage.given().into_iter().filter(|field| *field != "quantity") {
        violations.push(Violation::new(format!("usage.{field}"), "USAGE_NOT_TAKEN", "must be absent: to issue it costs nothing"));
    }
    violations.finish()
}

/// A violation of a usage that the request does not hold as one.
pub fn without_usage(error: Error) -> Error {
    match error {
        Error::Invalid(violations) => {
            let bare = |field: &str| field.strip_prefix("usage.").unwrap_or(field).to_owned();
            Error::Invalid(violations.into_iter().map(|v| Violation { field: bare(&v.field), ..v }).collect())
        }
        other => other,
    }
}

/// The estimates that a grant names.
pub fn estimates(grant: &Grant) -> Vec<EstimateId> {
    grant.estimate.into_iter().chain(grant.restated).collect()
}

pub fn grant(grant: &Grant, kept: &HashMap<EstimateId, Kept>, currency: Currency) -> pb::Grant {
    let estimate = grant.estimate.and_then(|id| kept.get(&id));
    let restated = grant.restated.and_then(|id| kept.get(&id));
    let variance = estimate.zip(restated).map(|(first, last)| last.estimate.full() - first.estimate.full());
    let mismatch = |mismatch: &Mismatch| match mismatch {
        Mismatch::TierClass => pb::EligibilityMismatch::TierClass.into(),
        Mismatch::ValueType => pb::EligibilityMismatch::ValueType.into(),
    };
    let reason = match grant.eligibility_reason.as_str() {
        "" => grant.reason.clone(),
        why => format!("{}; although the member does not fit: {why}", grant.reason),
    };
    pb::Grant {
        grant_id: grant.id.to_string(),
        programme_id: grant.programme.to_string(),
        member_id: grant.member.to_string(),
        resource_id: grant.resource.to_string(),
        kind: resource_kind(grant.kind).into(),
        state: grant_state(grant.stage).into(),
        usage: Some(cost_estimate::usage_to_proto(&grant.usage, currency)),
        estimate: estimate.map(|kept| cost_estimate::kept(kept, currency)),
        restated: restated.map(|kept| cost_estimate::kept(kept, currency)),
        variance: variance.and_then(|minor| money(minor, currency)),
        envelope_id: optional(grant.envelope),
        reservation_id: optional(grant.reservation),
        extra_reservation_id: optional(grant.extra_reservation),
        unit_id: optional(grant.unit),
        mismatches: grant.mismatches.iter().map(mismatch).collect(),
        reason,
        shipping_reference: grant.shipping_reference.clone().unwrap_or_default(),
        nda_reference: grant.nda_reference.clone().unwrap_or_default(),
        embargo_until_time: grant.embargo_until_time.map(clock::to_proto),
        requested_by: grant.requested_by.clone(),
        decided_by: grant.decided_by.clone().unwrap_or_default(),
        create_time: Some(clock::to_proto(grant.create_time)),
        update_time: Some(clock::to_proto(grant.update_time)),
    }
}
