//! Changes of an active plan: proposed by one person, decided by others, ordered against each other and against reservations.

use crate::{planner::*, world::*};
use futures::future::join_all;
use koc_proto::koc::budget::v1::{self as pb, AmendmentState, LedgerEntryKind, ResourceClass, ResourceKind};
use koc_tests::wait;
use tonic::Code;

const KIND: ResourceKind = ResourceKind::Unspecified;

/// What the feed tells of an amendment, once it tells so much.
async fn states(world: &World, amendment_id: &str, count: usize) -> Vec<AmendmentState> {
    let facts = wait::until("the facts", PATIENCE, async || {
        let facts = world.facts_of::<pb::AmendmentChanged>(amendment_id).await;
        (facts.len() >= count).then_some(facts)
    });
    facts.await.iter().map(pb::AmendmentChanged::state).collect()
}

#[tokio::test]
async fn a_proposal_shows_its_difference_and_another_person_makes_it_so() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let before = world.plan_of(&tree.plan).await;
    // Kits get less, Beijing gets more, and the class as a whole too.
    let totals = [(tree.id("core"), 1_100), (tree.id("sh"), 550), (tree.id("bj"), 400), (tree.id("sh kits"), 200)];
    let request = pb::ProposeAmendmentRequest { etag: before.etag.clone(), ..world.amendment_request(&tree.plan, &totals) };
    let proposed = world.propose_with(request).await.expect("proposed");
    assert_eq!(proposed.state(), AmendmentState::Proposed);
    let lines = [("core", 1_000, 1_100), ("sh", 600, 550), ("bj", 300, 400), ("sh kits", 250, 200)];
    assert_eq!(told(&proposed), lines);
    assert_eq!((minor(proposed.total_before.as_ref()), minor(proposed.total_after.as_ref())), (1_100, 1_200));
    assert_eq!((proposed.proposed_by.as_str(), &proposed.base_etag), ("planner", &before.etag));
    // Nothing has changed yet.
    assert_eq!(world.plan_of(&tree.plan).await, before);
    let of = proposed.amendment_id.as_str();
    refused(world.approve_amendment("planner", of).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");

    let request = world.approval(of);
    let approved = world.amendments("controller").approve_amendment(request.clone()).await.expect("applied");
    let applied = approved.into_inner().amendment.expect("an amendment");
    assert_eq!((applied.state(), applied.decided_by.as_str()), (AmendmentState::Applied, "controller"));
    assert_eq!((told(&applied), applied.decision_reason.as_str()), (lines.to_vec(), "agreed"));
    let again = world.amendments("controller").approve_amendment(request).await.expect("the first answer");
    assert!(replayed(&again));
    assert_eq!(again.into_inner().amendment.expect("an amendment"), applied);
    assert_eq!(world.amendment(of).await.expect("there"), applied);

    let summary = world.sums(&tree.plan).await;
    for (name, available) in [("core", 1_100), ("sh", 550), ("bj", 400), ("sh kits", 200), ("sh travel", 300)] {
        assert_eq!(balances_of(&summary, name), [0, 0, 0, available], "{name}");
    }
    let entries = world.entries(&tree.id("sh kits")).await;
    let last = entries.last().expect("an entry");
    assert_eq!((last.kind(), minor(last.amount.as_ref())), (LedgerEntryKind::Deallocate, 50));
    assert_eq!((last.debit_account(), last.actor.as_str()), (pb::LedgerAccount::Funding, "controller"));
    let after = world.plan_of(&tree.plan).await;
    assert_ne!(after.etag, before.etag);
    assert_eq!(states(&world, of, 2).await, [AmendmentState::Proposed, AmendmentState::Applied]);
    world.verified().await;
}

#[tokio::test]
async fn of_two_amendments_in_flight_the_second_is_proposed_anew() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let first = world.propose(&tree.plan, &[(tree.id("sh kits"), 200)]).await.expect("proposed");
    let second = world.propose(&tree.plan, &[(tree.id("sh kits"), 260)]).await.expect("proposed");
    let applied = world.approve_amendment("controller", &first.amendment_id).await.expect("applied");
    // What a child does not take stays with its parent.
    assert_eq!(told(&applied), [("sh", 600, 600), ("sh kits", 250, 200)]);
    let conflict = world.approve_amendment("controller", &second.amendment_id).await;
    let figures = refused(conflict, Code::FailedPrecondition, "AMENDMENT_CONFLICT");
    assert_eq!(figures["base_etag"], second.base_etag);
    assert_eq!(figures["plan_etag"], world.plan_of(&tree.plan).await.etag);
    assert_eq!(world.available(&tree.id("sh kits")).await, 200);
    let anew = world.propose(&tree.plan, &[(tree.id("sh kits"), 260)]).await.expect("proposed");
    assert_eq!(told(&anew)[1], ("sh kits", 200, 260));
    // An old etag proposes nothing.
    let stale =
        pb::ProposeAmendmentRequest { etag: first.base_etag, ..world.amendment_request(&tree.plan, &[(tree.id("bj"), 299)]) };
    refused(world.propose_with(stale).await, Code::Aborted, "ETAG_MISMATCH");
}

#[tokio::test]
async fn money_that_was_reserved_first_is_not_taken() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let kits = tree.id("sh kits");
    let amendment = world.propose(&tree.plan, &[(kits.clone(), 100)]).await.expect("proposed");
    let held = world.reserve_in(&kits, 120).await.expect("held").reservation_id;
    let answer = world.approve_amendment("controller", &amendment.amendment_id).await;
    short(answer, "ENVELOPE_EXHAUSTED", &kits, Some(150), 130);
    assert_eq!(world.amendment(&amendment.amendment_id).await.expect("there").state(), AmendmentState::Proposed);
    assert_eq!(world.entries(&kits).await.len(), 2);
    // Nor is it proposed while it is plain that it cannot be.
    short(world.propose(&tree.plan, &[(kits.clone(), 119)]).await, "ENVELOPE_EXHAUSTED", &kits, Some(131), 130);
    world.release(&held, None).await.expect("given back");
    world.approve_amendment("controller", &amendment.amendment_id).await.expect("applied");
    short(world.reserve_in(&kits, 101).await, "ENVELOPE_EXHAUSTED", &kits, Some(101), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amendment_that_races_reservations_is_ordered_by_the_envelope() {
    let world = World::new().await;
    for _ in 0..4 {
        let tree = world.active(world.tree_request()).await;
        let bj = tree.id("bj");
        let amendment = world.propose(&tree.plan, &[(bj.clone(), 100), (tree.id("core"), 800)]).await.expect("proposed");
        let reserve = join_all((0..10).map(|_| world.reserve_in(&bj, 30)));
        let (held, applied) = tokio::join!(reserve, world.approve_amendment("controller", &amendment.amendment_id));
        let given = held.iter().filter(|answer| answer.is_ok()).count() as i64 * 30;
        let allocated = match applied {
            Ok(_) => 100,
            Err(status) => {
                let figures = refused::<()>(Err(status), Code::FailedPrecondition, "ENVELOPE_EXHAUSTED");
                assert_eq!((figures["limit_id"].as_str(), figures["asked_minor"].as_str()), (bj.as_str(), "200"));
                300
            }
        };
        assert_eq!(given, allocated / 30 * 30, "each gets what is there when it comes");
        held.into_iter().filter(Result::is_err).for_each(|answer| {
            refused(answer, Code::FailedPrecondition, "ENVELOPE_EXHAUSTED");
        });
        let summary = world.sums(&tree.plan).await;
        assert_eq!(balances_of(&summary, "bj"), [given, 0, 0, allocated - given]);
        assert_eq!(balances_of(&summary, "core"), [given, 0, 0, 700 + allocated - given]);
    }
    world.verified().await;
}

#[tokio::test]
async fn a_new_envelope_comes_to_be_with_the_amendment_and_below_what_never_held_money() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let request = pb::ProposeAmendmentRequest {
        new_envelopes: vec![
            child("gd", "core", "CN-GD", KIND, 80),
            child("gd travel", "gd", "", ResourceKind::Travel, 30),
            child("bj kits", "bj", "", ResourceKind::GiftKit, 100),
        ],
        ..world.amendment_request(&tree.plan, &[])
    };
    let amendment = world.propose_with(request).await.expect("proposed");
    // Within what is there already: the class holds 100 that no child has, Beijing all of its own.
    assert_eq!(
        told(&amendment),
        [("core", 1_000, 1_000), ("bj", 300, 300), ("gd", 0, 80), ("gd travel", 0, 30), ("bj kits", 0, 100)]
    );
    let new = |name: &str| amendment.lines.iter().find(|l| l.display_name == name).expect("a line").envelope_id.clone();
    refused(world.reserve_in(&new("gd travel"), 1).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
    // Beijing is about to be split, and holds a reservation before: then it cannot be.
    let held = world.reserve_in(&tree.id("bj"), 1).await.expect("held").reservation_id;
    world.release(&held, None).await.expect("given back");
    let answer = world.approve_amendment("controller", &amendment.amendment_id).await;
    let figures = refused(answer, Code::FailedPrecondition, "ENVELOPE_HAS_RESERVATIONS");
    assert_eq!(figures["subject"], tree.id("bj"));
    let split = pb::ProposeAmendmentRequest {
        new_envelopes: vec![child("bj kits", "bj", "", ResourceKind::GiftKit, 100)],
        ..world.amendment_request(&tree.plan, &[])
    };
    refused(world.propose_with(split).await, Code::FailedPrecondition, "ENVELOPE_HAS_RESERVATIONS");

    let request = pb::ProposeAmendmentRequest {
        new_envelopes: vec![
            child("gd", "core", "CN-GD", KIND, 80),
            child("gd travel", "gd", "", ResourceKind::Travel, 30),
            new_envelope(ResourceClass::Exclusive, "apex", 10),
        ],
        ..world.amendment_request(&tree.plan, &[])
    };
    let amendment = world.propose_with(request).await.expect("proposed");
    world.approve_amendment("controller", &amendment.amendment_id).await.expect("applied");
    let plan = world.plan_of(&tree.plan).await;
    assert_eq!(plan.envelopes.len(), 9);
    let tree = Tree::of(&plan);
    refused(world.reserve_in(&tree.id("gd"), 1).await, Code::FailedPrecondition, "ENVELOPE_HAS_CHILDREN");
    world.reserve_in(&tree.id("gd travel"), 30).await.expect("held");
    let summary = world.sums(&tree.plan).await;
    assert_eq!((balances_of(&summary, "gd"), balances_of(&summary, "core")), ([30, 0, 0, 50], [30, 0, 0, 970]));
    assert_eq!(balances_of(&summary, "apex"), [0, 0, 0, 10]);
    world.verified().await;
}

#[tokio::test]
async fn an_amended_plan_holds_the_rules_of_a_new_one() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    // The reserve's share: 100 of 1,100 now.
    for total in [52, 177] {
        let found = violations(world.propose(&tree.plan, &[(tree.id("reserve"), total)]).await);
        assert_eq!(found, [pair("changes[0].allocated", "RESERVE_SHARE_OUT_OF_BOUNDS")], "{total}");
    }
    let found = violations(world.propose(&tree.plan, &[(tree.id("core"), 1_901)]).await);
    assert_eq!(found, [pair("changes", "RESERVE_SHARE_OUT_OF_BOUNDS")]);
    let moved = violations(world.transfer(&tree.plan, &tree.id("bj"), &tree.id("reserve"), 66).await);
    assert_eq!(moved, [pair("amount", "RESERVE_SHARE_OUT_OF_BOUNDS")]);
    let found = violations(world.propose(&tree.plan, &[(tree.id("bj"), 401), (tree.id("sh"), 549)]).await);
    assert_eq!(found, [pair("changes[1].allocated", "ENVELOPE_BELOW_CHILDREN")]);
    let found = violations(world.propose(&tree.plan, &[(tree.id("bj"), 401)]).await);
    assert_eq!(found, [pair("changes", "ENVELOPE_BELOW_CHILDREN")], "the class cannot hold it");
    let found = violations(world.propose(&tree.plan, &[(tree.id("bj"), 300)]).await);
    assert_eq!(found, [pair("changes", "AMENDMENT_EMPTY")]);
    let request = pb::ProposeAmendmentRequest {
        new_envelopes: vec![child("bj", "core", "CN-GD", KIND, 1)],
        ..world.amendment_request(&tree.plan, &[(tree.id("bj"), 1), (tree.id("bj"), -1), (tree.id("bj"), 2)])
    };
    let expected = [pair("changes[1].allocated", "AMOUNT_NEGATIVE"), pair("changes[2].envelope_id", "ENVELOPE_REPEATED")];
    assert_eq!(violations(world.propose_with(request).await), expected);
    let elsewhere = world.envelope.clone();
    let figures = refused(world.propose(&tree.plan, &[(elsewhere.clone(), 1)]).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
    assert_eq!(figures["resource_id"], elsewhere);
    refused(world.propose(&id(), &[(tree.id("bj"), 1)]).await, Code::NotFound, "PLAN_NOT_FOUND");
    let draft = world.create_plan(world.tree_request()).await.expect("a plan");
    let of_draft = [(Tree::of(&draft).id("bj"), 1)];
    let figures = refused(world.propose(&draft.plan_id, &of_draft).await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!(figures["state"], "DRAFT");
    refused(world.approve_amendment("controller", &id()).await, Code::NotFound, "AMENDMENT_NOT_FOUND");
}

#[tokio::test]
async fn a_transfer_is_an_amendment_whose_sum_is_zero() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let [kits, bj, travel] = ["sh kits", "bj", "sh travel"].map(|name| tree.id(name));
    let itself = violations(world.transfer(&tree.plan, &kits, &kits, 1).await);
    assert_eq!(itself, [("to_envelope_id".to_owned(), "TRANSFER_TO_ITSELF".to_owned())]);
    short(world.transfer(&tree.plan, &kits, &bj, 251).await, "ENVELOPE_EXHAUSTED", &kits, Some(251), 250);
    // What an envelope's children have is not its own to give.
    short(world.transfer(&tree.plan, &tree.id("sh"), &bj, 51).await, "ENVELOPE_EXHAUSTED", &tree.id("sh"), Some(51), 50);

    let within = world.transfer(&tree.plan, &kits, &travel, 20).await.expect("proposed");
    assert_eq!(told(&within), [("sh kits", 250, 230), ("sh travel", 300, 320)]);
    world.approve_amendment("controller", &within.amendment_id).await.expect("applied");
    let across = world.transfer(&tree.plan, &kits, &bj, 230).await.expect("proposed");
    assert_eq!(across.kind(), pb::AmendmentKind::Transfer);
    assert_eq!(told(&across), [("sh", 600, 370), ("bj", 300, 530), ("sh kits", 230, 0)]);
    assert_eq!(across.total_before, across.total_after);
    refused(world.approve_amendment("planner", &across.amendment_id).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    world.approve_amendment("controller", &across.amendment_id).await.expect("applied");
    let summary = world.sums(&tree.plan).await;
    let available = |name: &str| balances_of(&summary, name)[3];
    assert_eq!([available("core"), available("sh"), available("bj"), available("sh kits")], [1_000, 370, 530, 0]);
    let entries = world.entries(&bj).await;
    assert_eq!(entries.last().map(|e| (e.kind(), minor(e.amount.as_ref()))), Some((LedgerEntryKind::Allocate, 230)));
    world.verified().await;
}

#[tokio::test]
async fn an_amendment_is_decided_once_by_as_many_people_as_the_policy_asks_for() {
    let world = World::new().await;
    let policy = Some(pb::PlanPolicy { required_approvals: 2, ..Default::default() });
    let plan = world.create_plan(pb::CreatePlanRequest { policy, ..world.tree_request() }).await.expect("a plan");
    world.submit_plan("planner", &plan.plan_id, "").await.expect("submitted");
    for approver in ["controller", "director"] {
        world.approve_plan(approver, &plan.plan_id, "").await.expect("approved");
    }
    world.activate_plan("planner", &plan.plan_id, "").await.expect("active");
    let tree = Tree::of(&plan);
    let propose = async || world.propose(&tree.plan, &[(tree.id("bj"), 310)]).await.expect("proposed").amendment_id;

    let amendment = propose().await;
    let once = world.approve_amendment("controller", &amendment).await.expect("approved once");
    assert_eq!((once.state(), once.approvals.len(), once.decided_by.as_str()), (AmendmentState::Proposed, 1, ""));
    refused(world.approve_amendment("controller", &amendment).await, Code::FailedPrecondition, "APPROVER_REPEATED");
    assert_eq!(world.available(&tree.id("bj")).await, 300);
    let applied = world.approve_amendment("director", &amendment).await.expect("applied");
    assert_eq!((applied.state(), applied.approvals.len()), (AmendmentState::Applied, 2));
    assert_eq!(world.available(&tree.id("bj")).await, 310);
    let late = world.approve_amendment("auditor", &amendment).await;
    let figures = refused(late, Code::FailedPrecondition, "AMENDMENT_STATE");
    assert_eq!((figures["state"].as_str(), &figures["subject"]), ("APPLIED", &amendment));

    let amendment = world.propose(&tree.plan, &[(tree.id("bj"), 320)]).await.expect("proposed").amendment_id;
    let rejection = || pb::RejectAmendmentRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        amendment_id: amendment.clone(),
        reason: "not this year".into(),
    };
    let withdrawal = |amendment_id: &str| pb::WithdrawAmendmentRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        amendment_id: amendment_id.to_owned(),
        reason: "a typing error".into(),
    };
    let own = world.amendments("planner").reject_amendment(rejection()).await;
    refused(own, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    let others = world.amendments("controller").withdraw_amendment(withdrawal(&amendment)).await;
    refused(others, Code::FailedPrecondition, "NOT_THE_REQUESTER");
    let rejected = world.amendments("controller").reject_amendment(rejection()).await.expect("rejected");
    let rejected = rejected.into_inner().amendment.expect("an amendment");
    assert_eq!((rejected.state(), rejected.decision_reason.as_str()), (AmendmentState::Rejected, "not this year"));
    refused(world.approve_amendment("director", &amendment).await, Code::FailedPrecondition, "AMENDMENT_STATE");
    let second = world.propose(&tree.plan, &[(tree.id("bj"), 330)]).await.expect("proposed").amendment_id;
    let withdrawn = world.amendments("planner").withdraw_amendment(withdrawal(&second)).await.expect("withdrawn");
    assert_eq!(withdrawn.into_inner().amendment.expect("an amendment").state(), AmendmentState::Withdrawn);

    let list = pb::ListAmendmentsRequest {
        programme_id: world.programme.clone(),
        page_size: 2,
        page_token: String::new(),
        plan_id: tree.plan.clone(),
    };
    let first = world.amendments("anyone").list_amendments(list.clone()).await.expect("a page").into_inner();
    let next = pb::ListAmendmentsRequest { page_token: first.next_page_token, ..list.clone() };
    let rest = world.amendments("anyone").list_amendments(next).await.expect("a page").into_inner();
    let states: Vec<_> = first.amendments.iter().chain(&rest.amendments).map(pb::Amendment::state).collect();
    assert_eq!(states, [AmendmentState::Applied, AmendmentState::Rejected, AmendmentState::Withdrawn]);
    let others = pb::ListAmendmentsRequest { plan_id: world.plan.clone(), ..list };
    let none = world.amendments("anyone").list_amendments(others).await.expect("a page").into_inner();
    assert_eq!((none.amendments.len(), none.next_page_token.as_str()), (0, ""));
}

#[tokio::test]
async fn an_amendment_that_nobody_decides_lapses() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let amendment = world.propose(&tree.plan, &[(tree.id("bj"), 310)]).await.expect("proposed").amendment_id;
    world.budget.advance(30 * DAY).await;
    let figures = refused(world.approve_amendment("controller", &amendment).await, Code::FailedPrecondition, "AMENDMENT_STATE");
    assert_eq!(figures["state"], "LAPSED");
    let lapsed = wait::until("the amendment to lapse", PATIENCE, async || {
        let found = world.amendment(&amendment).await.expect("there");
        (found.state() == AmendmentState::Lapsed).then_some(found)
    })
    .await;
    assert_eq!(lapsed.decided_by, "");
    assert_eq!(states(&world, &amendment, 2).await, [AmendmentState::Proposed, AmendmentState::Lapsed]);
    assert_eq!(world.available(&tree.id("bj")).await, 300);
}

#[tokio::test]
async fn an_amendment_lets_an_envelope_overrun_and_takes_back_no_overrun_that_is_used() {
    let world = World::new().await;
    let tree = world.active(world.tree_request()).await;
    let bj = tree.id("bj");
    let overrun = |envelope_id: &str, limit| pb::ProposeAmendmentRequest {
        changes: vec![pb::EnvelopeChange {
            envelope_id: envelope_id.to_owned(),
            allocated: None,
            overrun_limit: Some(fen(limit)),
        }],
        ..world.amendment_request(&tree.plan, &[])
    };
    let reserve = violations(world.propose_with(overrun(&tree.id("reserve"), 1)).await);
    assert_eq!(reserve, [("changes[0].overrun_limit".to_owned(), "RESERVE_OVERRUN".to_owned())]);
    let more = world.propose_with(overrun(&bj, 50)).await.expect("proposed");
    assert_eq!(told(&more), [("bj", 300, 300)]);
    let limits =
        |line: &pb::AmendmentLine| [&line.overrun_limit_before, &line.overrun_limit_after].map(|money| minor(money.as_ref()));
    assert_eq!(limits(&more.lines[0]), [0, 50]);
    refused(world.reserve_in(&bj, 340).await, Code::FailedPrecondition, "ENVELOPE_EXHAUSTED");
    world.approve_amendment("controller", &more.amendment_id).await.expect("applied");
    let held = world.reserve_in(&bj, 340).await.expect("held").reservation_id;
    assert_eq!(balances_of(&world.sums(&tree.plan).await, "bj"), [340, 0, 0, -40]);

    let less = world.propose_with(overrun(&bj, 39)).await.expect("proposed");
    let answer = world.approve_amendment("controller", &less.amendment_id).await;
    let figures = refused(answer, Code::FailedPrecondition, "ENVELOPE_EXHAUSTED");
    let figure = |name: &str| figures[name].clone();
    assert_eq!([figure("asked_minor"), figure("available_minor")], ["11".to_owned(), "-40".to_owned()]);
    // What may be overrun is not there to be given to another, and an overdrawn envelope closes with what it owes.
    short(world.transfer(&tree.plan, &bj, &tree.id("sh kits"), 1).await, "ENVELOPE_EXHAUSTED", &bj, Some(1), -40);
    world.release(&held, Some(1)).await.expect("given back");
    world.approve_amendment("controller", &less.amendment_id).await.expect("applied");
    world.commit(&held, None).await.expect("owed");
    let closing = world.close(&tree.plan, pb::OpenReservations::Refuse, "").await.expect("proposed");
    world.approve_amendment("controller", &closing.amendment_id).await.expect("closed");
    assert_eq!(balances_of(&world.sums(&tree.plan).await, "bj"), [0, 339, 0, -39]);
    world.verified().await;
}
