//! The end of a plan: what is held, what is owed, and where the rest goes.

use crate::{planner::*, world::*};
use koc_proto::koc::budget::v1::{
    self as pb, AmendmentState,
    LedgerEntryKind::{Allocate, Deallocate},
    OpenReservations::{Refuse, Release, Unspecified},
    PlanState, ResourceClass,
};
use koc_tests::wait;
use tonic::Code;

#[tokio::test]
async fn what_is_held_is_released_when_that_is_said_and_what_is_owed_stays() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let [kits, bj] = ["sh kits", "bj"].map(|name| tree.id(name));
    let owed = world.reserve_in(&kits, 200).await.expect("held").reservation_id;
    world.commit(&owed, Some(120)).await.expect("owed");
    let held = world.reserve_in(&bj, 30).await.expect("held").reservation_id;
    for open in [Unspecified, Refuse] {
        let figures = refused(world.close(&tree.plan, open, "").await, Code::FailedPrecondition, "OPEN_RESERVATIONS");
        assert_eq!((figures["count"].as_str(), &figures["subject"]), ("2", &tree.plan));
    }
    let proposed = world.close(&tree.plan, Release, "").await.expect("proposed");
    assert_eq!((proposed.state(), proposed.kind()), (AmendmentState::Proposed, pb::AmendmentKind::Close));
    assert_eq!((minor(proposed.total_before.as_ref()), minor(proposed.total_after.as_ref())), (1_100, 120));
    refused(world.approve_amendment("planner", &proposed.amendment_id).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    // Until then the plan goes on, and what happens counts.
    assert_eq!(world.plan_of(&tree.plan).await.state(), PlanState::Active);
    let more = world.reserve_in(&tree.id("sh travel"), 40).await.expect("held").reservation_id;
    world.commit(&more, None).await.expect("owed");
    let applied = world.approve_amendment("controller", &proposed.amendment_id).await.expect("closed");
    assert_eq!(
        told(&applied),
        [
            ("core", 1_000, 160),
            ("sh", 600, 160),
            ("bj", 300, 0),
            ("sh kits", 250, 120),
            ("sh travel", 300, 40),
            ("reserve", 100, 0)
        ]
    );
    assert_eq!(world.amendment(&applied.amendment_id).await.expect("there"), applied);

    assert_eq!(world.plan_of(&tree.plan).await.state(), PlanState::Closed);
    assert_eq!(parts(&world.get(&held).await.expect("there")), [0, 0, 0, 30]);
    assert_eq!(parts(&world.get(&owed).await.expect("there")), [0, 120, 0, 80]);
    let figures = refused(world.reserve_in(&kits, 1).await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!((figures["state"].as_str(), &figures["subject"]), ("CLOSED", &tree.plan));
    // What was released is gone for good; what is owed is paid.
    short(world.commit(&held, None).await, "RESERVATION_EXHAUSTED", &held, None, 0);
    assert_eq!(parts(&world.spend(&owed, None).await.expect("paid")), [0, 0, 120, 80]);
    assert_eq!(balances_of(&world.sums(&tree.plan).await, "core"), [0, 40, 120, 0]);
    refused(world.close(&tree.plan, Release, "").await, Code::FailedPrecondition, "PLAN_STATE");
    let change = world.propose(&tree.plan, &[(bj.clone(), 1)]).await;
    refused(change, Code::FailedPrecondition, "PLAN_STATE");
    wait::until("the fact", PATIENCE, async || {
        let facts = world.facts_of::<pb::PlanChanged>(&tree.plan).await;
        facts.iter().any(|fact| fact.state() == PlanState::Closed).then_some(())
    })
    .await;
    world.verified().await;
}

#[tokio::test]
async fn what_expired_in_a_plan_is_not_committed_after_it_was_closed() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let expired = world.reserve_in(&tree.id("bj"), 30).await.expect("held").reservation_id;
    world.pass(DAY).await;
    let closing = world.close(&tree.plan, Refuse, "").await.expect("proposed");
    world.approve_amendment("controller", &closing.amendment_id).await.expect("closed");
    let figures = refused(world.commit(&expired, None).await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!((figures["state"].as_str(), &figures["subject"]), ("CLOSED", &tree.plan));
}

#[tokio::test]
async fn a_plan_without_money_to_move_is_closed_at_once() {
    let world = World::new().await;
    let envelopes = vec![new_envelope(ResourceClass::Inclusive, "all", 100)];
    let tree = world.active(pb::CreatePlanRequest { envelopes, ..world.plan_request() }).await;
    let all = world.reserve_in(&tree.id("all"), 100).await.expect("held").reservation_id;
    world.commit(&all, None).await.expect("owed");
    let closed = world.close(&tree.plan, Refuse, "").await.expect("closed");
    assert_eq!((closed.state(), closed.decided_by.as_str()), (AmendmentState::Applied, ""));
    assert_eq!((closed.proposed_by.as_str(), closed.lines.len()), ("planner", 0));
    assert_eq!(world.plan_of(&tree.plan).await.state(), PlanState::Closed);
    world.spend(&all, None).await.expect("paid");
    world.verified().await;
}

#[tokio::test]
async fn what_is_left_is_carried_over_to_the_same_region_and_kind_or_to_the_class() {
    let world = World::new().await;
    let old = world.active(world.tree_request()).await;
    // The next plan knows no Shanghai travel.
    let mut envelopes = branches();
    envelopes.remove(4);
    let request = pb::CreatePlanRequest { display_name: "next".into(), envelopes, ..world.plan_request() };
    let draft = world.create_plan(request).await.expect("a plan");
    let itself = violations(world.close(&old.plan, Refuse, &old.plan).await);
    assert_eq!(itself, [("carry_over_plan_id".to_owned(), "CARRY_OVER_TO_ITSELF".to_owned())]);
    let figures = refused(world.close(&old.plan, Refuse, &draft.plan_id).await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!((figures["state"].as_str(), &figures["subject"]), ("DRAFT", &draft.plan_id));
    world.activate(&draft.plan_id).await;
    let (next, etag) = (Tree::of(&draft), world.plan_of(&draft.plan_id).await.etag);

    let owed = world.reserve_in(&old.id("sh kits"), 70).await.expect("held").reservation_id;
    world.commit(&owed, None).await.expect("owed");
    let closing = world.close(&old.plan, Refuse, &next.plan).await.expect("proposed");
    let pending = world.propose(&next.plan, &[(next.id("bj"), 310)]).await.expect("proposed");
    let applied = world.approve_amendment("controller", &closing.amendment_id).await.expect("closed");
    let gone =
        [("core", 1_000, 70), ("sh", 600, 70), ("bj", 300, 0), ("sh kits", 250, 70), ("sh travel", 300, 0), ("reserve", 100, 0)];
    let come = [("core", 1_000, 1_930), ("sh", 600, 830), ("bj", 300, 600), ("sh kits", 250, 430), ("reserve", 100, 200)];
    assert_eq!(told(&applied), [&gone[..], &come[..]].concat());
    let plans: Vec<_> = applied.lines.iter().map(|line| line.plan_id.as_str()).collect();
    assert_eq!(plans, [vec![old.plan.as_str(); 6], vec![next.plan.as_str(); 5]].concat());

    // Nothing is lost on the way.
    let (left, there) = (world.sums(&old.plan).await, world.sums(&next.plan).await);
    assert_eq!(
        (standing(left.total.as_ref().expect("a total")), standing(there.total.as_ref().expect("a total"))),
        ([0, 70, 0, 0], [0, 0, 0, 2_130])
    );
    assert_eq!(balances_of(&there, "core"), [0, 0, 0, 1_930]);
    let last = |entries: &[pb::LedgerEntry]| entries.last().map(|e| (e.kind(), minor(e.amount.as_ref())));
    assert_eq!(last(&world.entries(&old.id("sh travel")).await), Some((Deallocate, 300)));
    // The class gets what has no place of its own: 100 of the class, 300 of travel.
    assert_eq!(last(&world.entries(&next.id("core")).await), Some((Allocate, 400)));
    // The next plan was changed by it: what was proposed upon it before is proposed anew.
    assert_ne!(world.plan_of(&next.plan).await.etag, etag);
    let stale = world.approve_amendment("controller", &pending.amendment_id).await;
    refused(stale, Code::FailedPrecondition, "AMENDMENT_CONFLICT");
    world.verified().await;
}

#[tokio::test]
async fn nothing_is_carried_over_to_where_it_does_not_fit() {
    let world = World::new().await;
    let old = world.active(world.tree_request()).await;
    let envelopes = vec![new_envelope(ResourceClass::Inclusive, "all", 100)];
    let bare = world.active(pb::CreatePlanRequest { envelopes, ..world.plan_request() }).await;
    let answer = world.close(&old.plan, Refuse, &bare.plan).await;
    let figures = refused(answer, Code::FailedPrecondition, "CARRY_OVER_TARGET_MISSING");
    assert_eq!((figures["resource_class"].as_str(), &figures["subject"]), ("INCENTIVE", &bare.plan));
    // 1,000 and 100 more in a plan whose reserve is at its most: 15 of 100.
    let envelopes =
        vec![new_envelope(ResourceClass::Incentive, "core", 85), new_envelope(ResourceClass::StrategicReserve, "reserve", 15)];
    let policy = Some(pb::PlanPolicy { min_reserve_percent: Some(14), ..Default::default() });
    let narrow = world.active(pb::CreatePlanRequest { envelopes, policy, ..world.plan_request() }).await;
    let answer = world.close(&old.plan, Refuse, &narrow.plan).await;
    let figures = refused(answer, Code::FailedPrecondition, "RESERVE_SHARE_OUT_OF_BOUNDS");
    assert_eq!(figures["subject"], narrow.plan);
    refused(world.close(&old.plan, Refuse, &id()).await, Code::NotFound, "PLAN_NOT_FOUND");
    assert_eq!(world.plan_of(&old.plan).await.state(), PlanState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_closed_while_many_reserve_is_closed_with_all_or_refuses_them() {
    let world = World::new().await;
    for _ in 0..3 {
        let tree = world.active(world.tree_request()).await;
        let bj = tree.id("bj");
        let closing = world.close(&tree.plan, Release, "").await.expect("proposed");
        let reserve = futures::future::join_all((0..8).map(|_| world.reserve_in(&bj, 30)));
        let (held, closed) = tokio::join!(reserve, world.approve_amendment("controller", &closing.amendment_id));
        closed.expect("closed");
        for answer in held {
            match answer {
                Ok(held) => assert_eq!(parts(&world.get(&held.reservation_id).await.expect("there")), [0, 0, 0, 30]),
                Err(status) => drop(refused::<()>(Err(status), Code::FailedPrecondition, "PLAN_STATE")),
            }
        }
        let summary = world.sums(&tree.plan).await;
        assert_eq!(standing(summary.total.as_ref().expect("a total")), [0, 0, 0, 0]);
    }
    world.verified().await;
}

#[tokio::test]
async fn what_comes_back_to_a_closed_plan_is_taken_when_it_is_closed_again() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let bj = tree.id("bj");
    let paid = world.reserve_in(&bj, 30).await.expect("held").reservation_id;
    world.commit(&paid, None).await.expect("owed");
    world.spend(&paid, None).await.expect("paid");
    let closing = world.close(&tree.plan, Refuse, "").await.expect("proposed");
    world.approve_amendment("controller", &closing.amendment_id).await.expect("closed");
    let spend = world.entry_of(&paid, pb::LedgerEntryKind::Spend).await;
    let refund = pb::ReverseRequest { release: true, ..world.reverse_request(&spend) };
    world.reverse_with(refund).await.expect("refunded");
    assert_eq!(world.available(&bj).await, 30);

    let again = world.close(&tree.plan, Refuse, "").await.expect("proposed");
    assert_eq!((again.state(), told(&again)), (AmendmentState::Proposed, vec![("core", 30, 0), ("bj", 30, 0)]));
    world.approve_amendment("controller", &again.amendment_id).await.expect("closed");
    assert_eq!(world.plan_of(&tree.plan).await.state(), PlanState::Closed);
    assert_eq!(standing(world.sums(&tree.plan).await.total.as_ref().expect("a total")), [0, 0, 0, 0]);
    refused(world.close(&tree.plan, Refuse, "").await, Code::FailedPrecondition, "PLAN_STATE");
    world.verified().await;
}
