//! More money for a draw, and what it all brought.

use crate::{
    reserve_draw::*,
    reserve_policy::{set, two_above},
    world::*,
};
use futures::future::join_all;
use koc_proto::koc::budget::v1::{self as pb, ReserveDrawState as State};
use tonic::{Code, Status};

async fn more(world: &World, draw: &str, amount: i64) -> pb::TopUpReserveDrawRequest {
    let asked = request(world, amount).await;
    pb::TopUpReserveDrawRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        reserve_draw_id: draw.to_owned(),
        amount: asked.amount,
        evidence: asked.evidence,
        decide_by_time: asked.decide_by_time,
        reason: "it spreads on".into(),
    }
}

async fn top_up(world: &World, actor: &str, request: pb::TopUpReserveDrawRequest) -> Result<pb::ReserveDraw, Status> {
    Ok(draws(world, actor).top_up_reserve_draw(request).await?.into_inner().reserve_draw.unwrap_or_default())
}

fn outcome(world: &World, draw: &str) -> pb::ReportDrawOutcomeRequest {
    pb::ReportDrawOutcomeRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        reserve_draw_id: draw.to_owned(),
        value: Some(fen(123_456)),
        figures: vec![pb::EvidenceItem { name: "extra_views".into(), value: "81000".into() }],
        note: "cheaper than the first push".into(),
    }
}

async fn report(world: &World, request: pb::ReportDrawOutcomeRequest) -> Result<pb::ReserveDraw, Status> {
    Ok(draws(world, "analyst").report_draw_outcome(request).await?.into_inner().reserve_draw.unwrap_or_default())
}

async fn listed(world: &World, wanted: pb::ListReserveDrawsRequest) -> Vec<String> {
    let wanted = pb::ListReserveDrawsRequest { programme_id: world.programme.clone(), ..wanted };
    let page = draws(world, "anyone").list_reserve_draws(wanted).await.expect("a page").into_inner();
    page.reserve_draws.into_iter().map(|draw| draw.reserve_draw_id).collect()
}

/// All money of a hold is paid.
async fn pay(world: &World, draw: &pb::ReserveDraw) {
    world.commit(&draw.reservation_id, None).await.expect("owed");
    world.spend(&draw.reservation_id, None).await.expect("paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_is_decided_by_what_it_makes_of_the_sum() {
    let world = World::new().await;
    let limits = pb::ReserveTerms { automatic_limit: Some(fen(10_000)), max_share_bp: Some(4_000), ..two_above(20_000) };
    set(&world, limits).await;
    let first = ask(&world, request(&world, 6_000).await).await.expect("taken");
    let of = first.reserve_draw_id.as_str();
    // Within the automatic limit together, then beyond it, then beyond what one person may approve.
    let asked = more(&world, of, 4_000).await;
    let second = top_up(&world, "spike-detector", asked.clone()).await.expect("taken");
    assert_eq!((second.state(), second.automatic, second.first_draw_id.as_str()), (State::Approved, true, of));
    assert_eq!((second.output_id.as_str(), second.kind()), (first.output_id.as_str(), first.kind()));
    assert_eq!(top_up(&world, "spike-detector", asked).await.expect("the first answer"), second);
    assert_eq!(world.available(&world.reserve).await, RESERVE - 10_000);
    let third = top_up(&world, "planner", more(&world, of, 1).await).await.expect("taken");
    assert_eq!((third.state(), third.approvals_needed), (State::Requested, 1));
    let fourth = top_up(&world, "planner", more(&world, of, 10_000).await).await.expect("taken");
    assert_eq!((fourth.state(), fourth.approvals_needed), (State::Requested, 2));
    // Neither who asked for the top-up nor who asked for the first draw.
    for asker in ["planner", "spike-detector"] {
        let refusal = approve(&world, asker, &third.reserve_draw_id).await;
        refused(refusal, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    }
    approve(&world, "controller", &third.reserve_draw_id).await.expect("approved");
    approve(&world, "controller", &fourth.reserve_draw_id).await.expect("half approved");
    let fourth = approve(&world, "treasurer", &fourth.reserve_draw_id).await.expect("approved");
    assert_eq!((fourth.state(), world.available(&world.reserve).await), (State::Approved, RESERVE - 20_001));
    // One draw may take 40 % of the reserve, with its top-ups: of many at once those that fit are taken.
    let many = join_all((0..6).map(|_| more(&world, of, 9_000))).await;
    let answers = join_all(many.into_iter().map(|asked| top_up(&world, "planner", asked))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    for answer in answers.into_iter().filter(Result::is_err) {
        let figures = refused(answer, Code::FailedPrecondition, "DRAW_TOO_LARGE");
        assert_eq!((figures["asked_minor"].as_str(), figures["available_minor"].as_str()), ("47001", "40000"));
    }
    let figures = refused(
        top_up(&world, "planner", more(&world, &fourth.reserve_draw_id, 1).await).await,
        Code::FailedPrecondition,
        "DRAW_IS_TOP_UP",
    );
    assert_eq!(figures["first_draw"], of);
    refused(top_up(&world, "planner", more(&world, &id(), 1).await).await, Code::NotFound, "DRAW_NOT_FOUND");
    let waiting = ask(&world, request(&world, 10_001).await).await.expect("taken").reserve_draw_id;
    let figures =
        refused(top_up(&world, "planner", more(&world, &waiting, 1).await).await, Code::FailedPrecondition, "DRAW_STATE");
    assert_eq!(figures["state"], "REQUESTED");
    let wrong = pb::TopUpReserveDrawRequest { decide_by_time: Some(in_days(-1)), ..more(&world, of, 1).await };
    assert_eq!(violations(top_up(&world, "planner", wrong).await), [("decide_by_time".to_owned(), "DECIDE_BY_PAST".to_owned())]);
    let wrong = pb::TopUpReserveDrawRequest { amount: Some(fen(0)), ..more(&world, of, 1).await };
    assert_eq!(violations(top_up(&world, "planner", wrong).await), [("amount".to_owned(), "AMOUNT_NOT_POSITIVE".to_owned())]);
    world.verified().await;
}

#[tokio::test]
async fn what_a_draw_brought_is_reported_once_with_its_top_ups_and_shows_when_it_is_late() {
    let world = World::new().await;
    let hours = 24 * 30;
    set(
        &world,
        pb::ReserveTerms { automatic_limit: Some(fen(DRAW_LIMIT)), report_within_hours: Some(hours), ..Default::default() },
    )
    .await;
    let first = ask(&world, request(&world, 1_000).await).await.expect("taken");
    let of = first.reserve_draw_id.as_str();
    let due = first.report_due_time.expect("a time").seconds - first.create_time.expect("a time").seconds;
    assert_eq!(due, i64::from(hours) * 60 * 60);
    let second = top_up(&world, "planner", more(&world, of, 500).await).await.expect("taken");
    let unused = top_up(&world, "planner", more(&world, of, 500).await).await.expect("taken");
    let bare = pb::TopUpReserveDrawRequest { evidence: Vec::new(), ..more(&world, of, 500).await };
    let waiting = top_up(&world, "planner", bare).await.expect("taken").reserve_draw_id;
    // Only when all of it is decided and paid.
    let early = async |state: &str| {
        let figures = refused(report(&world, outcome(&world, of)).await, Code::FailedPrecondition, "DRAW_STATE");
        assert_eq!(figures["state"], state);
    };
    early("APPROVED").await;
    pay(&world, &first).await;
    early("APPROVED").await;
    pay(&world, &second).await;
    world.release(&unused.reservation_id, None).await.expect("given back");
    early("REQUESTED").await;
    reject(&world, "controller", &waiting).await.expect("rejected");
    let other = ask(&world, request(&world, 700).await).await.expect("taken");
    let returned = ask(&world, request(&world, 700).await).await.expect("taken");
    world.release(&returned.reservation_id, None).await.expect("given back");

    let figures =
        refused(report(&world, outcome(&world, &second.reserve_draw_id)).await, Code::FailedPrecondition, "DRAW_IS_TOP_UP");
    assert_eq!(figures["first_draw"], of);
    refused(report(&world, outcome(&world, &id())).await, Code::NotFound, "DRAW_NOT_FOUND");
    let wrong = pb::ReportDrawOutcomeRequest { value: Some(fen(-1)), ..outcome(&world, of) };
    assert_eq!(violations(report(&world, wrong).await), [("value".to_owned(), "AMOUNT_NEGATIVE".to_owned())]);

    // By when it is due it shows as late, unless all its money came back.
    let late = || pb::ListReserveDrawsRequest { report_overdue: true, ..Default::default() };
    assert!(listed(&world, late()).await.is_empty());
    world.budget.advance(DAY * 30).await;
    assert_eq!(listed(&world, late()).await, [of, &second.reserve_draw_id, &other.reserve_draw_id]);
    let of_output = pb::ListReserveDrawsRequest { output_id: other.output_id.clone(), ..late() };
    assert_eq!(listed(&world, of_output).await, [other.reserve_draw_id.as_str()]);

    let asked = outcome(&world, of);
    let reported = report(&world, asked.clone()).await.expect("reported");
    let brought = reported.outcome.clone().expect("an outcome");
    assert_eq!(
        (reported.state(), minor(brought.value.as_ref()), brought.reported_by.as_str()),
        (State::Reported, 123_456, "analyst")
    );
    assert_eq!((brought.figures.as_slice(), brought.note.as_str()), (asked.figures.as_slice(), asked.note.as_str()));
    assert_eq!(report(&world, asked).await.expect("the first answer"), reported);
    early("REPORTED").await;
    let with_it = get(&world, &second.reserve_draw_id).await;
    assert_eq!((with_it.state(), with_it.outcome), (State::Reported, Some(brought)));
    assert_eq!(listed(&world, late()).await, [other.reserve_draw_id.as_str()]);
    told(&world, of, &[State::Approved, State::Spent, State::Reported]).await;
    told(&world, &second.reserve_draw_id, &[State::Approved, State::Spent, State::Reported]).await;
    refused(top_up(&world, "planner", more(&world, of, 1).await).await, Code::FailedPrecondition, "DRAW_STATE");

    // The list knows the states as they are shown.
    pay(&world, &other).await;
    let in_state = |state: State| pb::ListReserveDrawsRequest { state: state.into(), ..Default::default() };
    let all = listed(&world, pb::ListReserveDrawsRequest { plan_id: world.plan.clone(), ..Default::default() }).await;
    let mut found = Vec::new();
    for state in [State::Requested, State::Approved, State::Rejected, State::Lapsed, State::Spent, State::Reported] {
        for draw in listed(&world, in_state(state)).await {
            assert_eq!(get(&world, &draw).await.state(), state);
            found.push(draw);
        }
    }
    found.sort();
    assert_eq!((found.len(), found), (6, all));
    assert!(listed(&world, pb::ListReserveDrawsRequest { plan_id: id(), ..Default::default() }).await.is_empty());
    assert!(listed(&world, pb::ListReserveDrawsRequest { member_id: id(), ..Default::default() }).await.is_empty());
    world.verified().await;
}
