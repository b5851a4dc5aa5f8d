//! From the domain's answer to the contract's.

use super::question::Asked;
use crate::{
    api::convert::{class_to_proto, money},
    domain::advisor::{
        VERSION,
        advice::{Advice, GroupLine, LeftReason},
        question::{Bound, Policy},
    },
    flow::fact::optional,
};
use koc_chassis::money::Currency;
use koc_proto::koc::budget::v1 as pb;

pub fn write(asked: &Asked, advice: &Advice, currency: Currency) -> pb::AdviseAllocationResponse {
    let lines = asked.names.iter().zip(&asked.question.items).zip(&advice.lines);
    let group_of = |i: usize| asked.question.groups.iter().position(|group| group.members.contains(&i));
    let items = lines.enumerate().map(|(i, ((name, item), line))| pb::AllocationAdvice {
        key: name.key.clone(),
        group_key: group_of(i).map(|nr| asked.group_keys[nr].clone()).unwrap_or_default(),
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
    let groups = asked.group_keys.iter().zip(&advice.groups).map(|(key, group)| group_to_proto(key, group, currency));
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
        groups: groups.collect(),
    }
}

fn group_to_proto(key: &str, group: &GroupLine, currency: Currency) -> pb::GroupAdvice {
    let point = |(amount, value): &(i64, i64)| pb::ResponsePoint {
        amount: money(*amount, currency),
        expected_value: money(*value, currency),
    };
    pb::GroupAdvice {
        key: key.to_owned(),
        amount: money(group.amount, currency),
        unallocated: money(group.kept, currency),
        expected_value: money(group.value, currency),
        marginal_value: group.marginal,
        bound: group.bound.map_or(pb::AllocationBound::Unspecified, bound).into(),
        shadow_price: group.shadow_price,
        value_lost: money(group.value_lost, currency),
        further_amount: money(group.further, currency),
        current: group.current.and_then(|current| money(current, currency)),
        current_expected_value: group.current_value.and_then(|value| money(value, currency)),
        response: group.response.iter().map(point).collect(),
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
        Bound::ShareMin => pb::AllocationBound::ShareMin,
        Bound::ShareMax => pb::AllocationBound::ShareMax,
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
        Policy::GroupBounds => pb::AllocationPolicy::GroupBounds,
    }
}
