//! From the domain's answer to the contract's.

use super::question::Asked;
use crate::{
    api::convert::{class_to_proto, money},
    domain::advisor::{
        VERSION,
        advice::{Advice, LeftReason},
        question::{Bound, Policy},
    },
    flow::fact::optional,
};
use koc_chassis::money::Currency;
use koc_proto::koc::budget::v1 as pb;

pub fn write(asked: &Asked, advice: &Advice, currency: Currency) -> pb::AdviseAllocationResponse {
    let lines = asked.names.iter().zip(&asked.question.items).zip(&advice.lines);
    let items = lines.map(|((name, item), line)| pb::AllocationAdvice {
        key: name.key.clone(),
        envelope_id: optional(name.envelope),
        resource_class: item.class.map_or(pb::ResourceClass::Unspecified, class_to_proto).into(),
        amount: money(line.amount, currency),
        expected_value: money(line.value, currency),
        marginal_return: line.marginal,
        bound: line.bound.map_or(pb::AllocationBound::Unspecified, bound).into(),
        shadow_price: line.shadow_price,
        current: line.current.and_then(|current| money(current, currency)),
        current_expected_value: line.current_value.and_then(|value| money(value, currency)),
    });
    let costs = advice.costs.iter().map(|cost| pb::PolicyCost {
        policy: policy(cost.policy).into(),
        value_lost: money(cost.value_lost, currency),
        further_amount: money(cost.further, currency),
    });
    pb::AdviseAllocationResponse {
        version: VERSION.to_owned(),
        input_hash: hex::encode(asked.question.hash()),
        items: items.collect(),
        unallocated: money(advice.left, currency),
        unallocated_reason: advice.left_reason.map_or(pb::UnallocatedReason::Unspecified, left).into(),
        marginal_value: advice.multiplier,
        expected_value: money(advice.value(), currency),
        current_expected_value: money(advice.current_value(), currency),
        optimality: Some(pb::Optimality {
            upper_bound: money(advice.bound, currency),
            relative_gap: advice.gap,
            grid_step: advice.step.and_then(|step| money(step, currency)),
        }),
        policy_costs: costs.collect(),
    }
}

fn bound(bound: Bound) -> pb::AllocationBound {
    match bound {
        Bound::Lower => pb::AllocationBound::Lower,
        Bound::Upper => pb::AllocationBound::Upper,
        Bound::ChangeDown => pb::AllocationBound::ChangeDown,
        Bound::ChangeUp => pb::AllocationBound::ChangeUp,
        Bound::ReserveMin => pb::AllocationBound::ReserveMin,
        Bound::ReserveMax => pb::AllocationBound::ReserveMax,
        Bound::ReserveDefault => pb::AllocationBound::ReserveDefault,
        Bound::Indivisible => pb::AllocationBound::Indivisible,
    }
}

fn left(reason: LeftReason) -> pb::UnallocatedReason {
    match reason {
        LeftReason::Hurdle => pb::UnallocatedReason::Hurdle,
        LeftReason::UpperBounds => pb::UnallocatedReason::UpperBounds,
        LeftReason::Indivisible => pb::UnallocatedReason::Indivisible,
    }
}

fn policy(policy: Policy) -> pb::AllocationPolicy {
    match policy {
        Policy::ReserveShare => pb::AllocationPolicy::ReserveShare,
        Policy::ChangeBounds => pb::AllocationPolicy::ChangeBounds,
        Policy::Hurdle => pb::AllocationPolicy::Hurdle,
        Policy::Minima => pb::AllocationPolicy::Minima,
    }
}
