//! How a plan stands, now and then, and how it goes against the time.

use crate::{planner::*, world::*};
use koc_chassis::postgres::Db;
use koc_proto::koc::budget::v1::{self as pb, ResourceClass};
use tonic::Code;

fn at(time: &prost_types::Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000 + i128::from(time.nanos / 1_000)
}

fn half_up(dividend: i128, divisor: i128) -> i128 {
    (dividend * 2 / divisor + 1) / 2
}

#[tokio::test]
async fn the_ledger_gives_every_time_past_again() {
    let world = World::new().await;
    let db = Db::new(&world.budget.database.app_url, "budget", 2).expect("an address");
    let tree = world.active(world.tree_request()).await;
    let [kits, bj] = ["sh kits", "bj"].map(|name| tree.id(name));
    let members = [id(), id()];
    let for_member = |member: &str, envelope: &str, amount| pb::ReserveRequest {
        envelope_id: envelope.to_owned(),
        member_id: member.to_owned(),
        ..world.reserve_request(amount)
    };
    let mut seen = vec![world.sums(&tree.plan).await];
    let mut reservation = String::new();
    for step in 0..7 {
        world.pass(DAY).await;
        match step {
            0 => reservation = world.reserve_with(for_member(&members[0], &kits, 100)).await.expect("held").reservation_id,
            1 => drop(world.commit(&reservation, Some(60)).await.expect("owed again")),
            2 => drop(world.reserve_with(for_member(&members[1], &bj, 40)).await.expect("held")),
            3 => drop(world.spend(&reservation, Some(10)).await.expect("paid")),
            4 => drop(world.reserve_in(&bj, 5).await.expect("held")),
            5 => {
                let transfer = world.transfer(&tree.plan, &bj, &kits, 20).await.expect("proposed");
                world.approve_amendment("controller", &transfer.amendment_id).await.expect("applied");
            }
            _ => {
                let closing = world.close(&tree.plan, pb::OpenReservations::Refuse, "").await.expect("proposed");
                world.approve_amendment("controller", &closing.amendment_id).await.expect("closed");
            }
        }
        // As of before and after checkpoints, between them, and at them.
        if step % 2 == 1 {
            assert!(koc_budget::flow::checkpoint_balances::step(&db, 1).await.expect("noted") > 0);
        }
        seen.push(world.sums(&tree.plan).await);
    }
    for (nr, then) in seen.iter().enumerate() {
        let request = pb::GetPlanSummaryRequest { as_of_time: then.as_of_time, ..world.summary_request(&tree.plan) };
        let again = world.summary_with(request).await.expect("a summary");
        assert_eq!(&again, then, "step {nr}");
    }
    // Of one envelope, without its children.
    let mut ledger = pb::ledger_service_client::LedgerServiceClient::new(world.budget.channel());
    let request = |envelope: &str, as_of_time| pb::GetEnvelopeBalancesRequest {
        programme_id: world.programme.clone(),
        envelope_id: envelope.to_owned(),
        as_of_time,
    };
    for (step, expected) in [(0, [0, 0, 0, 250]), (1, [100, 0, 0, 150]), (2, [0, 60, 0, 190]), (7, [0, 50, 10, 0])] {
        let answer = ledger.get_envelope_balances(request(&kits, seen[step].as_of_time)).await.expect("balances").into_inner();
        assert_eq!(standing(answer.balances.as_ref().expect("balances")), expected, "step {step}");
        assert_eq!(answer.as_of_time, seen[step].as_of_time);
    }
    let now = ledger.get_envelope_balances(request(&tree.id("core"), None)).await.expect("balances").into_inner();
    assert_eq!(standing(now.balances.as_ref().expect("balances")), [0, 0, 0, 0]);
    // Before it was activated nothing stood in the ledger; and nobody knows the future.
    let before = pb::GetPlanSummaryRequest { as_of_time: Some(in_days(-1)), ..world.summary_request(&tree.plan) };
    let total = world.summary_with(before).await.expect("a summary").total.expect("a total");
    assert_eq!(minor(total.allocated.as_ref()), 0);
    let future = |time| (vec![("as_of_time".to_owned(), "TIME_IN_FUTURE".to_owned())], time);
    let (expected, time) = future(Some(in_days(3_000)));
    let asked = pb::GetPlanSummaryRequest { as_of_time: time, ..world.summary_request(&tree.plan) };
    assert_eq!(violations(world.summary_with(asked).await), expected);
    assert_eq!(violations(ledger.get_envelope_balances(request(&kits, time)).await), expected);
    refused(ledger.get_envelope_balances(request(&id(), None)).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
}

#[tokio::test]
async fn the_use_of_money_is_set_against_the_time() {
    let world = World::new().await;
    let request = pb::CreatePlanRequest {
        period_start_time: Some(in_days(0)),
        period_end_time: Some(in_days(100)),
        ..world.tree_request()
    };
    let draft = world.create_plan(request).await.expect("a plan");
    let planned = world.sums(&draft.plan_id).await;
    assert!(planned.pace.is_none() && planned.envelopes.iter().all(|e| e.pace.is_none()), "nothing can be used yet");
    assert_eq!(standing(planned.total.as_ref().expect("a total")), [0, 0, 0, 1_100]);
    world.activate(&draft.plan_id).await;
    let tree = Tree::of(&draft);
    let held = world.reserve_in(&tree.id("sh kits"), 200).await.expect("held").reservation_id;
    world.commit(&held, Some(60)).await.expect("owed");
    world.spend(&held, Some(20)).await.expect("paid");
    world.budget.advance(25 * DAY).await;

    let summary = world.sums(&tree.plan).await;
    let now = at(summary.as_of_time.as_ref().expect("a time"));
    let (start, end) = (at(&in_days(0)), at(&in_days(100)));
    assert!(start < now && now < end);
    // Recomputed from what the answer itself says.
    let check = |pace: Option<&pb::Pace>, balances: Option<&pb::Balances>| {
        let (pace, balances) = (pace.expect("a pace"), balances.expect("balances"));
        let [reserved, committed, spent, _] = standing(balances).map(i128::from);
        assert_eq!(i128::from(pace.elapsed_basis_points), half_up((now - start) * 10_000, end - start));
        let line = half_up((committed + spent) * (end - start), now - start);
        assert_eq!(i128::from(minor(pace.forecast.as_ref())), line.max(reserved + committed + spent));
        let allocated = i128::from(minor(balances.allocated.as_ref()));
        assert_eq!(pace.used_basis_points.map(i128::from), Some(half_up((reserved + committed + spent) * 10_000, allocated)));
    };
    check(summary.pace.as_ref(), summary.total.as_ref());
    summary.envelopes.iter().for_each(|e| check(e.pace.as_ref(), e.balances.as_ref()));
    summary.classes.iter().for_each(|c| check(c.pace.as_ref(), c.balances.as_ref()));
    // A quarter of the time has passed, so four times what is gone: 60 of 200, the hold being over by now or not.
    let kits = summary.envelopes.iter().find(|e| e.display_name == "sh kits").and_then(|e| e.pace.as_ref()).expect("a pace");
    assert!((2_490..=2_510).contains(&kits.elapsed_basis_points), "{kits:?}");
    assert!((239..=241).contains(&minor(kits.forecast.as_ref())), "{kits:?}");

    world.budget.advance(200 * DAY).await;
    let over = world.sums(&tree.plan).await.pace.expect("a pace");
    assert_eq!(over.elapsed_basis_points, 10_000);
    let early = pb::GetPlanSummaryRequest { as_of_time: Some(in_days(-1)), ..world.summary_request(&tree.plan) };
    let early = world.summary_with(early).await.expect("a summary").pace.expect("a pace");
    assert_eq!((early.elapsed_basis_points, early.used_basis_points, early.forecast), (0, None, None));
}

#[tokio::test]
async fn an_amount_per_member_counts_members_and_their_money_alone() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let members = [id(), id(), id()];
    let reserve = async |member: &str, name: &str, amount| {
        let request =
            pb::ReserveRequest { envelope_id: tree.id(name), member_id: member.to_owned(), ..world.reserve_request(amount) };
        world.reserve_with(request).await.expect("held").reservation_id
    };
    // One member in two envelopes of a class is one; what was given back counts for nobody; what is for nobody counts for no member.
    let first = reserve(&members[0], "sh kits", 50).await;
    reserve(&members[0], "bj", 25).await;
    reserve(&members[1], "bj", 26).await;
    let third = reserve(&members[2], "bj", 40).await;
    world.release(&third, None).await.expect("given back");
    reserve("", "bj", 100).await;
    world.commit(&first, Some(50)).await.expect("owed");
    let summary = world.sums(&tree.plan).await;
    let class = summary.classes.iter().find(|c| c.resource_class() == ResourceClass::Incentive).expect("the class");
    assert_eq!(standing(class.balances.as_ref().expect("balances")), [151, 50, 0, 799]);
    // 101 for two, rounded half up.
    assert_eq!((class.member_count, minor(class.amount_per_member.as_ref())), (2, 51));
    let reserve = summary.classes.iter().find(|c| c.resource_class() == ResourceClass::StrategicReserve).expect("the class");
    assert_eq!((reserve.member_count, reserve.amount_per_member.as_ref()), (0, None));
    let then = pb::GetPlanSummaryRequest { as_of_time: summary.as_of_time, ..world.summary_request(&tree.plan) };
    assert_eq!(world.summary_with(then).await.expect("a summary"), summary);
}
