//! Advice over the wire: what it answers, what it takes from a plan, and all that it refuses.

use crate::world::*;
use koc_proto::koc::budget::v1::{self as pb, AllocationBound as Bound, AllocationPolicy as Policy, response_curve::Shape};
use koc_tests::service::TestChannel;
use tonic::{Code, Status};

type Advisor = pb::advisor_service_client::AdvisorServiceClient<TestChannel>;

async fn advise(world: &World, request: pb::AdviseAllocationRequest) -> Result<pb::AdviseAllocationResponse, Status> {
    Ok(Advisor::new(world.budget.channel()).advise_allocation(request).await?.into_inner())
}

fn item(key: &str, shape: Shape) -> pb::AllocationItem {
    pb::AllocationItem { key: key.into(), curve: Some(pb::ResponseCurve { shape: Some(shape) }), ..Default::default() }
}

fn power(theta: f64) -> Shape {
    Shape::Power(pb::PowerCurve { theta, exponent: Some(0.5) })
}

fn ask(world: &World, total: i64, items: Vec<pb::AllocationItem>) -> pb::AdviseAllocationRequest {
    let programme_id = world.programme.clone();
    pb::AdviseAllocationRequest { programme_id, total_budget: Some(fen(total)), items, ..Default::default() }
}

fn amounts(advice: &pb::AdviseAllocationResponse) -> Vec<i64> {
    advice.items.iter().map(|item| minor(item.amount.as_ref())).collect()
}

#[tokio::test]
async fn money_goes_to_where_the_next_yuan_brings_most_and_each_policy_has_its_price() {
    let world = World::new().await;
    let items = vec![
        item("log", Shape::Logarithmic(pb::LogarithmicCurve { a: 1_200.0, b: 500.0 })),
        item("exp", Shape::Exponential(pb::ExponentialCurve { a: 3_000.0, b: 2_000.0 })),
        item("sat", Shape::MichaelisMenten(pb::MichaelisMentenCurve { a: 4_000.0, b: 1_500.0 })),
        item("root", Shape::SquareRoot(pb::SquareRootCurve { a: 90.0, b: 100.0 })),
        pb::AllocationItem { current: Some(fen(10_000)), ..item("power", power(60.0)) },
        item("s", Shape::Hill(pb::HillCurve { a: 2_500.0, b: 800.0, slope: 3.0 })),
        pb::AllocationItem {
            resource_class: pb::ResourceClass::Exclusive.into(),
            ..item("car", Shape::Lots(pb::LotMenu { lots: vec![pb::Lot { cost: Some(fen(90_000)), value: Some(fen(140_001)) }] }))
        },
    ];
    let request = ask(&world, 800_001, items);
    let advice = advise(&world, request.clone()).await.expect("advice");
    assert_eq!(amounts(&advice).iter().sum::<i64>() + minor(advice.unallocated.as_ref()), 800_001);
    let last = advice.items.last().expect("the reserve");
    assert_eq!((last.key.as_str(), minor(last.amount.as_ref())), ("strategic_reserve", 80_000));
    assert_eq!(last.resource_class(), pb::ResourceClass::StrategicReserve);
    assert_eq!((last.bound(), last.shadow_price), (Bound::ReserveDefault, advice.marginal_value));
    for free in advice.items.iter().filter(|item| item.bound() == Bound::Unspecified) {
        let off = free.marginal_return / advice.marginal_value - 1.0;
        assert!(off.abs() < 1e-3, "{free:?} at {}", advice.marginal_value);
    }
    let by_key = |key: &str| advice.items.iter().find(|item| item.key == key).expect("it is there");
    assert_eq!((minor(by_key("power").amount.as_ref()), by_key("power").bound()), (13_000, Bound::ChangeUp));
    // ½ · 60/√130 for a yuan more, against what it brings elsewhere.
    assert!((by_key("power").shadow_price - (30.0 / 130_f64.sqrt() - advice.marginal_value)).abs() < 1e-9);
    assert_eq!((minor(by_key("power").current_expected_value.as_ref()), by_key("log").current.as_ref()), (60_000, None));
    assert_eq!((minor(by_key("car").amount.as_ref()), minor(by_key("car").expected_value.as_ref())), (90_000, 140_001));
    assert_eq!(by_key("car").bound(), Bound::Indivisible);
    let value: i64 = advice.items.iter().map(|item| minor(item.expected_value.as_ref())).sum();
    assert_eq!(minor(advice.expected_value.as_ref()), value);
    let optimality = advice.optimality.as_ref().expect("it says how good it is");
    assert!(minor(optimality.upper_bound.as_ref()) >= value && (0.0..0.1).contains(&optimality.relative_gap));
    assert_eq!(minor(optimality.grid_step.as_ref()), 714); // ⌈(total − reserve − least of power) / 1,000⌉
    let policies: Vec<_> = advice.policy_costs.iter().map(pb::PolicyCost::policy).collect();
    assert_eq!(policies, [Policy::ReserveShare, Policy::ChangeBounds, Policy::Hurdle, Policy::Minima, Policy::GroupBounds]);
    let lost = |i: usize| minor(advice.policy_costs[i].value_lost.as_ref());
    assert!(lost(0) > 0 && lost(1) > 0 && lost(3) == 0, "{:?}", advice.policy_costs);

    // The same question, the same answer; another one, another hash.
    assert_eq!(advise(&world, request.clone()).await.expect("advice"), advice);
    let more = pb::AdviseAllocationRequest { total_budget: Some(fen(800_002)), ..request.clone() };
    assert_ne!(advise(&world, more).await.expect("advice").input_hash, advice.input_hash);

    // A higher hurdle keeps money back, and off it is all spent.
    let with = |hurdle| pb::AdviseAllocationRequest { hurdle: Some(hurdle), ..request.clone() };
    let kept = advise(&world, with(pb::Hurdle { target_roi: Some(1.5), off: false })).await.expect("advice");
    assert_eq!(kept.unallocated_reason(), pb::UnallocatedReason::Hurdle);
    assert!((kept.marginal_value - 2.5).abs() < 1e-12 && minor(kept.unallocated.as_ref()) > 0);
    let spent = advise(&world, with(pb::Hurdle { target_roi: None, off: true })).await.expect("advice");
    assert_eq!((minor(spent.unallocated.as_ref()), spent.unallocated_reason()), (0, pb::UnallocatedReason::Unspecified));
}

#[tokio::test]
async fn a_plan_gives_classes_current_amounts_and_what_is_in_use() {
    let world = World::new().await;
    world.reserve(800_000).await.expect("held");
    let poor = pb::AllocationItem { envelope_id: world.envelope.clone(), ..item("core", power(1.0)) };
    let request = pb::AdviseAllocationRequest {
        plan_id: world.plan.clone(),
        total_budget: None,
        change_bounds: Some(pb::ChangeBounds { off: true, ..Default::default() }),
        ..ask(&world, 1, vec![poor, item("new", power(100.0))])
    };
    let advice = advise(&world, request.clone()).await.expect("advice");
    let core = &advice.items[0];
    assert_eq!((core.resource_class(), minor(core.current.as_ref())), (pb::ResourceClass::Incentive, ENVELOPE));
    assert_eq!(advice.items[2].envelope_id, world.reserve);
    assert_eq!(minor(advice.items[2].current.as_ref()), RESERVE);
    assert_eq!(amounts(&advice)[0], 25); // ½/√x = 1
    // To amend that very plan, what is held stays.
    let amended = advise(&world, pb::AdviseAllocationRequest { amend_plan: true, ..request.clone() }).await.expect("advice");
    assert_eq!((amounts(&amended)[0], amended.items[0].bound()), (800_000, Bound::Lower));
    assert_eq!(amounts(&amended), [800_000, 100_000, 100_000]);
    assert_ne!(amended.input_hash, advice.input_hash);

    let nowhere = pb::AdviseAllocationRequest { plan_id: id(), ..request.clone() };
    refused(advise(&world, nowhere).await, Code::NotFound, "PLAN_NOT_FOUND");
    let foreign = pb::AllocationItem { envelope_id: id(), ..item("core", power(1.0)) };
    let foreign = pb::AdviseAllocationRequest { items: vec![foreign], ..request };
    refused(advise(&world, foreign).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
    let elsewhere = pb::AdviseAllocationRequest { programme_id: id(), ..ask(&world, 100, vec![item("a", power(1.0))]) };
    refused(advise(&world, elsewhere).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
}

#[tokio::test]
async fn a_question_without_an_answer_is_told_all_that_is_wrong() {
    let world = World::new().await;
    let wrong = async |request: pb::AdviseAllocationRequest| violations(advise(&world, request).await);
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let good = || item("a", power(10.0));

    // Numbers that are none, and shapes that are missing, are stopped at the door.
    let odd = |theta: f64| item("odd", power(theta));
    let hill = item("s", Shape::Hill(pb::HillCurve { a: f64::NAN, b: 0.0, slope: 1.0 }));
    let shapeless = pb::AllocationItem { curve: Some(pb::ResponseCurve { shape: None }), ..good() };
    let request = ask(&world, 100, vec![odd(f64::INFINITY), odd(-1.0), hill, shapeless]);
    let found = wrong(request).await;
    let fields: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
    let expected = [
        "items[0].curve.power.theta",
        "items[1].curve.power.theta",
        "items[2].curve.hill.a",
        "items[2].curve.hill.a",
        "items[2].curve.hill.b",
        "items[2].curve.hill.slope",
        "items[3].curve.shape",
    ];
    assert_eq!(fields, expected, "{found:?}");
    assert_eq!(wrong(ask(&world, 100, Vec::new())).await, [pair("items", "repeated.min_items")]);

    let reserve = |key: &str| pb::AllocationItem {
        key: key.into(),
        resource_class: pb::ResourceClass::StrategicReserve.into(),
        ..Default::default()
    };
    let car = |cost: i64| Shape::Lots(pb::LotMenu { lots: vec![pb::Lot { cost: Some(fen(cost)), value: Some(fen(-1)) }] });
    let request = pb::AdviseAllocationRequest {
        amend_plan: true,
        reserve_share: Some(pb::ReserveShare { min_bp: Some(900), max_bp: Some(800), default_bp: None }),
        items: vec![
            pb::AllocationItem { lower_bound: Some(fen(11)), upper_bound: Some(fen(10)), ..good() },
            pb::AllocationItem { envelope_id: id(), current: Some(fen(-1)), ..good() },
            pb::AllocationItem { upper_bound: Some(fen(100)), ..item("car", car(1)) },
            pb::AllocationItem { lower_bound: Some(fen(1)), ..item("van", Shape::Lots(pb::LotMenu { lots: vec![] })) },
        ],
        ..ask(&world, 1, Vec::new())
    };
    let at_the_door = wrong(request.clone()).await;
    assert_eq!(at_the_door, [pair("items[3].curve.lots.lots", "repeated.min_items")]);
    let mut request = request;
    request.items[3] = pb::AllocationItem { key: "bare".into(), ..Default::default() };
    request.items.extend([reserve("r1"), reserve("r2")]);
    request.total_budget = None;
    let expected = [
        pair("plan_id", "PLAN_MISSING"),
        pair("total_budget", "PLAN_MISSING"),
        pair("reserve_share", "SHARES_CONTRADICT"),
        pair("items[0].upper_bound", "BOUNDS_CONTRADICT"),
        pair("items[1].key", "ITEM_DUPLICATE"),
        pair("items[1].envelope_id", "PLAN_MISSING"),
        pair("items[1].current", "AMOUNT_NEGATIVE"),
        pair("items[2].curve.lots.lots[0].value", "AMOUNT_NEGATIVE"),
        pair("items[3].curve", "CURVE_MISSING"),
        pair("items", "RESERVE_DUPLICATE"),
    ];
    assert_eq!(wrong(request).await, expected);

    let bound = pb::AllocationItem {
        upper_bound: Some(fen(100)),
        ..item("car", Shape::Lots(pb::LotMenu { lots: vec![pb::Lot { cost: Some(fen(5)), value: Some(fen(9)) }] }))
    };
    assert_eq!(wrong(ask(&world, 100, vec![bound])).await, [pair("items[0].curve.lots", "LOTS_HAVE_NO_BOUNDS")]);
    let steep = |key: String| item(&key, Shape::Hill(pb::HillCurve { a: 1.0, b: 1.0, slope: 2.0 }));
    let many = (0..201).map(|i| steep(i.to_string())).collect();
    assert_eq!(wrong(ask(&world, 100, many)).await, [pair("items", "TOO_MANY_INDIVISIBLE")]);
    let dear = pb::AdviseAllocationRequest { total_budget: Some(fen(100_000_000_000_001)), ..ask(&world, 1, vec![good()]) };
    assert_eq!(wrong(dear).await, [pair("total_budget", "AMOUNT_TOO_LARGE")]);
    let squeezed = pb::AllocationItem { upper_bound: Some(fen(400)), ..reserve("r") };
    let squeezed = pb::AllocationItem { curve: good().curve, ..squeezed };
    assert_eq!(wrong(ask(&world, 10_000, vec![squeezed])).await, [pair("items[0].upper_bound", "BOUNDS_CONTRADICT")]);

    // Minima beyond the total: all that are part of the sum, the largest first.
    let least = |key: &str, amount: i64| pb::AllocationItem { lower_bound: Some(fen(amount)), ..item(key, power(1.0)) };
    let fallen = pb::AllocationItem { current: Some(fen(60_000)), ..item("c", power(1.0)) };
    let request = ask(&world, 100_000, vec![least("a", 50_000), item("b", power(1.0)), fallen]);
    let expected = [
        pair("items[0].lower_bound", "MINIMA_EXCEED_BUDGET"),
        pair("items[2].current", "MINIMA_EXCEED_BUDGET"),
        pair("reserve_share", "MINIMA_EXCEED_BUDGET"),
    ];
    assert_eq!(wrong(request).await, expected);
}

#[tokio::test]
async fn groups_share_the_money_first_and_each_of_their_bounds_has_its_price() {
    let world = World::new().await;
    let of = |class: pb::ResourceClass, item| pb::AllocationItem { resource_class: class.into(), ..item };
    let (incentive, exclusive) = (pb::ResourceClass::Incentive, pb::ResourceClass::Exclusive);
    // Powers share as the squares of what they bring: of 9,000 yuan without the reserve, 5,000, 3,200 and 800.
    let items = vec![
        of(incentive, item("a", power(500.0))),
        of(exclusive, item("b", power(400.0))),
        pb::AllocationItem { group_key: "crew".into(), ..of(exclusive, item("c", power(200.0))) },
    ];
    let groups = vec![
        pb::AllocationGroup {
            key: "incentive".into(),
            resource_class: incentive.into(),
            max_bp: Some(3_000),
            ..Default::default()
        },
        pb::AllocationGroup { key: "exclusive".into(), resource_class: exclusive.into(), ..Default::default() },
        pb::AllocationGroup { key: "crew".into(), lower_bound: Some(fen(200_000)), ..Default::default() },
    ];
    let request = pb::AdviseAllocationRequest { groups, ..ask(&world, 1_000_000, items) };
    let advice = advise(&world, request.clone()).await.expect("advice");
    assert_eq!(amounts(&advice), [300_000, 400_000, 200_000, 100_000]);
    let keys: Vec<&str> = advice.items.iter().map(|item| item.group_key.as_str()).collect();
    assert_eq!(keys, ["incentive", "exclusive", "crew", ""]);
    let [held, free, crew] = &advice.groups[..] else { panic!("{:?}", advice.groups) };
    assert_eq!((minor(held.amount.as_ref()), held.bound()), (300_000, Bound::ShareMax));
    assert_eq!((minor(free.amount.as_ref()), free.bound(), free.shadow_price), (400_000, Bound::Unspecified, 0.0));
    assert_eq!((minor(crew.amount.as_ref()), crew.bound()), (200_000, Bound::Lower));
    // ½ · θ/√x of a yuan more, and what that is worth beyond the split's.
    let marginal = |theta: f64, yuan: f64| 0.5 * theta / yuan.sqrt();
    let elsewhere = marginal(400.0, 4_000.0);
    assert!((advice.marginal_value - elsewhere).abs() < 1e-9 && (free.marginal_value - elsewhere).abs() < 1e-9);
    assert!((held.shadow_price - (marginal(500.0, 3_000.0) - elsewhere)).abs() < 1e-9, "{held:?}");
    assert!((crew.shadow_price - (elsewhere - marginal(200.0, 2_000.0))).abs() < 1e-9, "{crew:?}");
    // Without the first group's bound it shares 7,000 yuan with the second as 25 : 16.
    let value = |x: [f64; 3]| 500.0 * x[0].sqrt() + 400.0 * x[1].sqrt() + 200.0 * x[2].sqrt();
    let (now, freed) = (value([3_000.0, 4_000.0, 2_000.0]), value([7_000.0 * 25.0 / 41.0, 7_000.0 * 16.0 / 41.0, 2_000.0]));
    assert!((minor(held.value_lost.as_ref()) as f64 - 100.0 * (freed - now)).abs() <= 1.0, "{held:?} {}", freed - now);
    let all = advice.policy_costs.iter().find(|cost| cost.policy() == Policy::GroupBounds).expect("it is there");
    let best = value([5_000.0, 3_200.0, 800.0]);
    assert!((minor(all.value_lost.as_ref()) as f64 - 100.0 * (best - now)).abs() <= 1.0, "{all:?}");
    assert_eq!((held.response.len(), minor(held.response[32].amount.as_ref())), (33, 1_000_000));
    assert_eq!(minor(held.response[32].expected_value.as_ref()), 5_000_000);
    // Another bound, another hash.
    let mut other = request.clone();
    other.groups[0].max_bp = Some(3_001);
    assert_ne!(advise(&world, other).await.expect("advice").input_hash, advice.input_hash);

    // By what stands below an envelope of a plan.
    let mut below = request.clone();
    below.plan_id = world.plan.clone();
    below.change_bounds = Some(pb::ChangeBounds { off: true, ..Default::default() });
    below.items[0].envelope_id = world.envelope.clone();
    below.groups[0] = pb::AllocationGroup {
        key: "core".into(),
        envelope_id: world.envelope.clone(),
        max_bp: Some(3_000),
        ..Default::default()
    };
    let advice = advise(&world, below.clone()).await.expect("advice");
    assert_eq!((advice.items[0].group_key.as_str(), amounts(&advice)), ("core", vec![300_000, 400_000, 200_000, 100_000]));
    below.groups[0].envelope_id = id();
    refused(advise(&world, below).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
}

#[tokio::test]
async fn groups_that_cannot_be_are_told_all_that_is_wrong() {
    let world = World::new().await;
    let wrong = async |request: pb::AdviseAllocationRequest| violations(advise(&world, request).await);
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let exclusive: i32 = pb::ResourceClass::Exclusive.into();
    let named = |key: &str| pb::AllocationGroup { key: key.into(), ..Default::default() };
    let reserve: i32 = pb::ResourceClass::StrategicReserve.into();
    let groups = vec![
        pb::AllocationGroup { resource_class: exclusive, ..named("g") },
        pb::AllocationGroup { resource_class: exclusive, lower_bound: Some(fen(-1)), ..named("g") },
        pb::AllocationGroup { resource_class: reserve, envelope_id: id(), ..named("r") },
    ];
    let items = vec![
        pb::AllocationItem { resource_class: exclusive, ..item("a", power(1.0)) },
        pb::AllocationItem { group_key: "none".into(), ..item("b", power(1.0)) },
        pb::AllocationItem { key: "kept".into(), resource_class: reserve, group_key: "g".into(), ..Default::default() },
    ];
    let request = pb::AdviseAllocationRequest { groups, ..ask(&world, 1_000, items) };
    let expected = [
        pair("groups[1].key", "GROUP_DUPLICATE"),
        pair("groups[1].lower_bound", "AMOUNT_NEGATIVE"),
        pair("groups[2].envelope_id", "PLAN_MISSING"),
        pair("items[0].group_key", "GROUP_AMBIGUOUS"),
        pair("items[1].group_key", "GROUP_UNKNOWN"),
        pair("items[2].group_key", "RESERVE_IN_GROUP"),
    ];
    assert_eq!(wrong(request.clone()).await, expected);
    let with = |groups| {
        let items = vec![pb::AllocationItem { resource_class: exclusive, ..item("a", power(1.0)) }];
        pb::AdviseAllocationRequest { groups, ..ask(&world, 1_000, items) }
    };
    assert_eq!(
        wrong(with(vec![pb::AllocationGroup { resource_class: reserve, ..named("r") }])).await,
        [pair("groups[0].resource_class", "RESERVE_IN_GROUP")]
    );
    let empty = pb::AllocationGroup { resource_class: exclusive, lower_bound: Some(fen(500)), max_bp: Some(4_999), ..named("g") };
    assert_eq!(wrong(with(vec![empty])).await, [pair("groups[0]", "BOUNDS_CONTRADICT")]);
    let dear = pb::AllocationGroup { resource_class: exclusive, min_bp: Some(9_001), ..named("g") };
    let expected = [pair("groups[0].min_bp", "MINIMA_EXCEED_BUDGET"), pair("reserve_share", "MINIMA_EXCEED_BUDGET")];
    assert_eq!(wrong(with(vec![dear])).await, expected);
    assert_eq!(wrong(with((0..21).map(|i| named(&i.to_string())).collect())).await, [pair("groups", "repeated.max_items")]);
}
