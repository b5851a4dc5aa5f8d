//! A plan's money in a tree: by class, then by region and kind.

use crate::{planner::*, world::*};
use koc_proto::koc::budget::v1::{self as pb, LedgerEntryKind, ResourceClass, ResourceKind};
use tonic::Code;

#[tokio::test]
async fn sums_hold_at_every_level_and_only_leaves_hold_reservations() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let plan = world.plan_of(&tree.plan).await;
    let kits = plan.envelopes.iter().find(|e| e.display_name == "sh kits").expect("there");
    // A child has what it does not name from above.
    assert_eq!(kits.parent_envelope_id, tree.id("sh"));
    assert_eq!(
        (kits.resource_class(), kits.region.as_str(), kits.resource_kind()),
        (ResourceClass::Incentive, "CN-SH", ResourceKind::GiftKit)
    );
    // Each holds in the ledger what its children do not.
    for (name, own) in [("core", 100), ("sh", 50), ("bj", 300), ("sh kits", 250), ("sh travel", 300), ("reserve", 100)] {
        let entries = world.entries(&tree.id(name)).await;
        assert_eq!(entries.len(), 1, "{name}");
        assert_eq!((entries[0].kind(), minor(entries[0].amount.as_ref())), (LedgerEntryKind::Allocate, own), "{name}");
    }
    for parent in ["core", "sh"] {
        let figures = refused(world.reserve_in(&tree.id(parent), 1).await, Code::FailedPrecondition, "ENVELOPE_HAS_CHILDREN");
        assert_eq!(figures["subject"], tree.id(parent));
    }
    let held = world.reserve_in(&tree.id("sh kits"), 200).await.expect("held").reservation_id;
    world.commit(&held, Some(120)).await.expect("owed");
    world.spend(&held, Some(50)).await.expect("paid");
    world.reserve_in(&tree.id("bj"), 7).await.expect("held");
    let summary = world.sums(&tree.plan).await;
    assert_eq!(balances_of(&summary, "sh kits"), [80, 70, 50, 50]);
    assert_eq!(balances_of(&summary, "sh"), [80, 70, 50, 400]);
    assert_eq!(balances_of(&summary, "core"), [87, 70, 50, 793]);
    let total = summary.total.as_ref().expect("a total");
    assert_eq!(standing(total), [87, 70, 50, 893]);
    world.verified().await;
}

#[tokio::test]
async fn a_tree_that_does_not_add_up_or_is_not_one_is_refused_whole() {
    let world = World::new().await;
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let kind = ResourceKind::Unspecified;
    let with = |envelopes| pb::CreatePlanRequest { envelopes, ..world.tree_request() };
    let wrong = vec![
        new_envelope(ResourceClass::Incentive, "core", 99),
        child("sh", "core", "CN-SH", kind, 60),
        child("bj", "core", "CN-BJ", kind, 40),
        child("again", "core", "CN-SH", kind, 0),
        child("same", "sh", "", kind, 0),
        child("lost", "nobody", "CN-GD", kind, 0),
        pb::NewEnvelope { resource_class: ResourceClass::Exclusive.into(), ..child("other class", "core", "CN-GD", kind, 0) },
        new_envelope(ResourceClass::Unspecified, "no class", 0),
    ];
    let expected = [
        pair("envelopes[3]", "SPLIT_INVALID"),
        pair("envelopes[4]", "SPLIT_INVALID"),
        pair("envelopes[5].parent_display_name", "PARENT_UNKNOWN"),
        pair("envelopes[6].resource_class", "CLASS_DIFFERS"),
        pair("envelopes[7].resource_class", "CLASS_MISSING"),
        pair("envelopes[0].allocated", "ENVELOPE_BELOW_CHILDREN"),
    ];
    assert_eq!(violations(world.create_plan(with(wrong)).await), expected);
    let reserve = vec![
        new_envelope(ResourceClass::Incentive, "core", 900),
        new_envelope(ResourceClass::StrategicReserve, "reserve", 100),
        child("part", "reserve", "CN-SH", kind, 1),
    ];
    assert_eq!(violations(world.create_plan(with(reserve)).await), [pair("envelopes[2]", "SPLIT_INVALID")]);
    let region = vec![child("x", "", "Shanghai", kind, 1)];
    assert_eq!(violations(world.create_plan(with(region)).await), [pair("envelopes[0].region", "string.pattern")]);
    // A parent may hold exactly what its children do.
    let exact = vec![new_envelope(ResourceClass::Incentive, "core", 60), child("sh", "core", "CN-SH", kind, 60)];
    let tree = world.active(with(exact)).await;
    assert_eq!(world.entries(&tree.id("core")).await, []);
    assert_eq!(balances_of(&world.sums(&tree.plan).await, "core"), [0, 0, 0, 60]);
}
