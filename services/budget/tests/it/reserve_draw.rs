//! Draws on the strategic reserve: by policy, by people, in time, and once.

use crate::world::*;
use futures::future::join_all;
use koc_proto::koc::budget::v1::{self as pb, ReserveDrawState as State};
use koc_tests::{service::TestChannel, wait};
use std::time::Duration;
use tonic::{Code, Status};

pub type Draws = pb::reserve_draw_service_client::ReserveDrawServiceClient<TestChannel>;

const MINUTE: Duration = Duration::from_secs(60);

pub fn draws(world: &World, actor: &str) -> Draws {
    Draws::new(world.budget.channel_of(actor))
}

/// For a new output, with evidence, to be decided within ten minutes of the test's start by the service's clock.
pub async fn request(world: &World, amount: i64) -> pb::RequestReserveDrawRequest {
    let mut decide_by_time = now(world).await;
    decide_by_time.seconds += 600;
    pb::RequestReserveDrawRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        plan_id: String::new(),
        as_of: Some(in_days(0)),
        kind: pb::ReserveDrawKind::ViralBoost.into(),
        amount: Some(fen(amount)),
        member_id: String::new(),
        output_id: id(),
        evidence: vec![pb::EvidenceItem { name: "ratio_to_baseline".into(), value: "7.4".into() }],
        decide_by_time: Some(decide_by_time),
    }
}

pub async fn now(world: &World) -> prost_types::Timestamp {
    let now: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT koc_now()").fetch_one(&world.budget.database.admin).await.expect("a time");
    koc_chassis::clock::to_proto(now)
}

pub async fn ask(world: &World, request: pb::RequestReserveDrawRequest) -> Result<pb::ReserveDraw, Status> {
    Ok(draws(world, "spike-detector").request_reserve_draw(request).await?.into_inner().reserve_draw.unwrap_or_default())
}

pub async fn approve(world: &World, actor: &str, reserve_draw_id: &str) -> Result<pb::ReserveDraw, Status> {
    let (programme_id, reserve_draw_id) = (world.programme.clone(), reserve_draw_id.to_owned());
    let request = pb::ApproveReserveDrawRequest { programme_id, request_id: id(), reserve_draw_id, reason: "it spreads".into() };
    Ok(draws(world, actor).approve_reserve_draw(request).await?.into_inner().reserve_draw.unwrap_or_default())
}

pub async fn reject(world: &World, actor: &str, reserve_draw_id: &str) -> Result<pb::ReserveDraw, Status> {
    let (programme_id, reserve_draw_id) = (world.programme.clone(), reserve_draw_id.to_owned());
    let request = pb::RejectReserveDrawRequest { programme_id, request_id: id(), reserve_draw_id, reason: "too dear".into() };
    Ok(draws(world, actor).reject_reserve_draw(request).await?.into_inner().reserve_draw.unwrap_or_default())
}

pub async fn get(world: &World, reserve_draw_id: &str) -> pb::ReserveDraw {
    let (programme_id, reserve_draw_id) = (world.programme.clone(), reserve_draw_id.to_owned());
    let request = pb::GetReserveDrawRequest { programme_id, reserve_draw_id };
    draws(world, "anyone").get_reserve_draw(request).await.expect("there").into_inner().reserve_draw.unwrap_or_default()
}

/// Waits until a draw's facts are published, in order.
pub async fn told(world: &World, draw: &str, expected: &[State]) {
    let facts = wait::until("the draw's facts", PATIENCE, async || {
        let facts: Vec<pb::ReserveDrawChanged> = world.facts_of(draw).await;
        (facts.len() >= expected.len()).then_some(facts)
    });
    assert_eq!(facts.await.iter().map(pb::ReserveDrawChanged::state).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn policy_approves_up_to_its_limit_with_evidence_and_all_else_waits_for_a_person() {
    let world = World::new().await;
    let asked = pb::RequestReserveDrawRequest { member_id: id(), ..request(&world, DRAW_LIMIT).await };
    let member = asked.member_id.clone();
    world.set_limit(world.limit_request(&member, 0)).await.expect("a limit");
    let draw = ask(&world, asked.clone()).await.expect("taken");
    assert_eq!(
        (draw.state(), draw.automatic, draw.decided_by.as_str(), draw.requested_by.as_str()),
        (State::Approved, true, "", "spike-detector")
    );
    assert!(draw.decision_reason.starts_with("automatic:"), "{}", draw.decision_reason);
    assert_eq!((draw.evidence.as_slice(), draw.plan_id.as_str()), (asked.evidence.as_slice(), world.plan.as_str()));
    // The hold is the draw's, on the reserve, and outside of the member's limit.
    let held = world.get(&draw.reservation_id).await.expect("there");
    assert_eq!(parts(&held), [DRAW_LIMIT, 0, 0, 0]);
    assert_eq!((held.envelope_id.as_str(), held.member_id.as_str()), (world.reserve.as_str(), ""));
    assert_eq!(held.purpose, format!("reserve_draw/{}", draw.reserve_draw_id));
    assert_eq!(held.expire_time.expect("a time").seconds - held.create_time.expect("a time").seconds, 90 * 24 * 60 * 60);
    assert_eq!(world.available(&world.reserve).await, RESERVE - DRAW_LIMIT);

    let over = request(&world, DRAW_LIMIT + 1).await;
    let bare = pb::RequestReserveDrawRequest { evidence: Vec::new(), ..request(&world, 1).await };
    for asked in [over, bare] {
        let waiting = ask(&world, asked).await.expect("taken");
        assert_eq!((waiting.state(), waiting.reservation_id.as_str(), waiting.decided_by.as_str()), (State::Requested, "", ""));
        let of = waiting.reserve_draw_id.as_str();
        refused(approve(&world, "spike-detector", of).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
        refused(reject(&world, "spike-detector", of).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
        let approved = approve(&world, "controller", of).await.expect("approved");
        assert_eq!((approved.state(), approved.decided_by.as_str()), (State::Approved, "controller"));
        assert_eq!(approved.decision_reason, "it spreads");
        for late in [approve(&world, "controller", of).await, reject(&world, "controller", of).await] {
            let figures = refused(late, Code::FailedPrecondition, "DRAW_STATE");
            assert_eq!((figures["subject"].as_str(), figures["state"].as_str()), (of, "APPROVED"));
        }
        told(&world, of, &[State::Requested, State::Approved]).await;
    }
    assert_eq!(world.available(&world.reserve).await, RESERVE - 2 * DRAW_LIMIT - 2);
    // The first answer again, with nothing moved.
    assert_eq!(ask(&world, asked.clone()).await.expect("the first answer"), draw);
    let other = ask(&world, pb::RequestReserveDrawRequest { amount: Some(fen(1)), ..asked }).await;
    assert_eq!(violations(other), [("request_id".to_owned(), "REQUEST_ID_REUSED".to_owned())]);
    world.verified().await;
}

#[tokio::test]
async fn a_draw_is_rejected_or_lapses_and_its_output_may_ask_again() {
    let world = World::new().await;
    let first = pb::RequestReserveDrawRequest { evidence: Vec::new(), ..request(&world, 100).await };
    let again = |decide_by_time| pb::RequestReserveDrawRequest { request_id: id(), decide_by_time, ..first.clone() };
    let draw = ask(&world, first.clone()).await.expect("taken").reserve_draw_id;
    // While the first waits, the output cools down.
    let figures = refused(ask(&world, again(first.decide_by_time)).await, Code::FailedPrecondition, "DRAW_COOLING_DOWN");
    assert_eq!(figures["subject"], first.output_id);
    let rejected = reject(&world, "controller", &draw).await.expect("rejected");
    assert_eq!((rejected.state(), rejected.decision_reason.as_str()), (State::Rejected, "too dear"));
    refused(approve(&world, "controller", &draw).await, Code::FailedPrecondition, "DRAW_STATE");

    let second = ask(&world, again(first.decide_by_time)).await.expect("taken").reserve_draw_id;
    world.budget.advance(MINUTE * 11).await;
    // Late by the clock, whether it is marked as lapsed already or not.
    let figures = refused(approve(&world, "controller", &second).await, Code::FailedPrecondition, "DRAW_STATE");
    assert_eq!(figures["state"], "LAPSED");
    let lapsed = wait::until("the draw to lapse", PATIENCE, async || {
        let draw = get(&world, &second).await;
        (draw.state() == State::Lapsed).then_some(draw)
    });
    let lapsed = lapsed.await;
    assert_eq!((lapsed.decided_by.as_str(), lapsed.automatic), ("", false));
    assert_eq!((lapsed.decision_reason.as_str(), world.available(&world.reserve).await), ("nobody decided it in time", RESERVE));
    told(&world, &draw, &[State::Requested, State::Rejected]).await;
    told(&world, &second, &[State::Requested, State::Lapsed]).await;

    // An approved draw cools the output down for a day from when it was asked for.
    let later = request(&world, 100).await.decide_by_time;
    let third = pb::RequestReserveDrawRequest { evidence: request(&world, 1).await.evidence, ..again(later) };
    let third = ask(&world, third).await.expect("taken");
    assert_eq!(third.state(), State::Approved);
    world.budget.advance(DAY - MINUTE).await;
    let soon = request(&world, 100).await.decide_by_time;
    refused(ask(&world, again(soon)).await, Code::FailedPrecondition, "DRAW_COOLING_DOWN");
    world.budget.advance(MINUTE).await;
    assert_eq!(ask(&world, again(soon)).await.expect("taken").state(), State::Requested);

    let list = pb::ListReserveDrawsRequest { programme_id: world.programme.clone(), page_size: 3, ..Default::default() };
    let page = draws(&world, "anyone").list_reserve_draws(list.clone()).await.expect("a page").into_inner();
    let ids: Vec<_> = page.reserve_draws.iter().map(|draw| draw.reserve_draw_id.as_str()).collect();
    assert_eq!(ids, [draw.as_str(), second.as_str(), third.reserve_draw_id.as_str()]);
    let next = pb::ListReserveDrawsRequest { page_token: page.next_page_token, ..list };
    let page = draws(&world, "anyone").list_reserve_draws(next).await.expect("a page").into_inner();
    assert_eq!((page.reserve_draws.len(), page.next_page_token.as_str()), (1, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_the_reserve_goes_to_one_of_many_draws() {
    let world = World::new().await;
    // Policy would approve each of them; three find the money, the others wait for a person.
    let asked = join_all((0..14).map(|_| request(&world, DRAW_LIMIT))).await;
    let answers = join_all(asked.into_iter().map(|asked| ask(&world, asked))).await;
    let answers: Vec<_> = answers.into_iter().map(|draw| draw.expect("taken")).collect();
    let (approved, waiting): (Vec<_>, Vec<_>) = answers.into_iter().partition(|draw| draw.state() == State::Approved);
    let left = RESERVE - 3 * DRAW_LIMIT;
    assert_eq!((approved.len(), world.available(&world.reserve).await), (3, left));
    let of = waiting[0].reserve_draw_id.as_str();
    short(approve(&world, "controller", of).await, "ENVELOPE_EXHAUSTED", &world.reserve, Some(DRAW_LIMIT), left);
    assert_eq!(get(&world, of).await.state(), State::Requested);
    // Money comes back: a refusal does not stand in the way of another attempt, and of many one succeeds.
    world.release(&approved[0].reservation_id, None).await.expect("given back");
    let attempts = waiting.iter().map(|draw| approve(&world, "controller", &draw.reserve_draw_id));
    let attempts = join_all(attempts).await;
    assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1);
    for attempt in attempts.into_iter().filter(Result::is_err) {
        short(attempt, "ENVELOPE_EXHAUSTED", &world.reserve, Some(DRAW_LIMIT), left);
    }
    // One draw decided by many at once: one decision.
    world.release(&approved[1].reservation_id, None).await.expect("given back");
    let mut open = Vec::new();
    for draw in &waiting {
        if get(&world, &draw.reserve_draw_id).await.state() == State::Requested {
            open.push(draw.reserve_draw_id.clone());
        }
    }
    let (approvals, rejections) = tokio::join!(
        join_all((0..4).map(|_| approve(&world, "controller", &open[0]))),
        join_all((0..4).map(|_| reject(&world, "treasurer", &open[0])))
    );
    let decisions: Vec<_> = approvals.into_iter().chain(rejections).collect();
    assert_eq!(decisions.iter().filter(|decision| decision.is_ok()).count(), 1);
    for decision in decisions.into_iter().filter(Result::is_err) {
        refused(decision, Code::FailedPrecondition, "DRAW_STATE");
    }
    // Two requests for one output at once: one stands.
    let twice = request(&world, 1).await;
    let again = pb::RequestReserveDrawRequest { request_id: id(), ..twice.clone() };
    let (first, second) = tokio::join!(ask(&world, twice), ask(&world, again));
    let (stands, cools) = if first.is_ok() { (first, second) } else { (second, first) };
    stands.expect("taken");
    refused(cools, Code::FailedPrecondition, "DRAW_COOLING_DOWN");
    world.verified().await;
}

#[tokio::test]
async fn a_draw_whose_payment_was_a_mistake_is_not_spent_any_more() {
    let world = World::new().await;
    let draw = ask(&world, request(&world, 1_000).await).await.expect("taken");
    let (of, held) = (draw.reserve_draw_id.as_str(), draw.reservation_id.as_str());
    world.commit(held, None).await.expect("owed");
    world.spend(held, None).await.expect("paid");
    let paid = world.entry_of(held, pb::LedgerEntryKind::Spend).await;
    world.reverse_with(world.reverse_request(&paid)).await.expect("owed again");
    assert_eq!(get(&world, of).await.state(), State::Approved);
    world.spend(held, None).await.expect("paid");
    told(&world, of, &[State::Approved, State::Spent, State::Approved, State::Spent]).await;
    world.verified().await;
}

#[tokio::test]
async fn a_draw_is_spent_once_all_its_money_is_paid_or_given_back() {
    let world = World::new().await;
    let draw = ask(&world, request(&world, 1_000).await).await.expect("taken");
    let (of, held) = (draw.reserve_draw_id.as_str(), draw.reservation_id.as_str());
    world.commit(held, Some(600)).await.expect("owed");
    world.spend(held, Some(400)).await.expect("paid");
    world.spend(held, None).await.expect("paid");
    assert_eq!(get(&world, of).await.state(), State::Approved);
    // The rest is not needed: with it given back, all is paid.
    world.release(held, None).await.expect("given back");
    world.release(held, None).await.expect("nothing to give back");
    assert_eq!(get(&world, of).await.state(), State::Spent);
    told(&world, of, &[State::Approved, State::Spent]).await;

    let draw = ask(&world, request(&world, 1_000).await).await.expect("taken");
    let (of, held) = (draw.reserve_draw_id.as_str(), draw.reservation_id.as_str());
    world.commit(held, None).await.expect("owed");
    world.spend(held, Some(999)).await.expect("paid");
    assert_eq!(get(&world, of).await.state(), State::Approved);
    world.spend(held, None).await.expect("paid");
    told(&world, of, &[State::Approved, State::Spent]).await;

    // A hold that expired may still be reserved again, until it is released for good.
    let draw = ask(&world, request(&world, 1_000).await).await.expect("taken");
    let (of, held) = (draw.reserve_draw_id.as_str(), draw.reservation_id.as_str());
    world.commit(held, Some(1)).await.expect("owed");
    world.spend(held, None).await.expect("paid");
    world.pass(DAY * 91).await;
    assert_eq!(get(&world, of).await.state(), State::Approved);
    world.release(held, None).await.expect("nothing to give back");
    told(&world, of, &[State::Approved, State::Spent]).await;
    let all_back = ask(&world, request(&world, 1_000).await).await.expect("taken");
    world.release(&all_back.reservation_id, None).await.expect("given back");
    assert_eq!(get(&world, &all_back.reserve_draw_id).await.state(), State::Approved);
    world.verified().await;
}

#[tokio::test]
async fn a_draw_needs_an_active_plan_with_a_reserve_and_time_to_decide() {
    let world = World::new().await;
    let good = request(&world, 100).await;
    let with = |change: &dyn Fn(&mut pb::RequestReserveDrawRequest)| {
        let mut request = pb::RequestReserveDrawRequest { request_id: id(), ..good.clone() };
        change(&mut request);
        ask(&world, request)
    };
    refused(with(&|r| r.as_of = Some(in_days(-2))).await, Code::NotFound, "PLAN_NOT_FOUND");
    refused(with(&|r| r.as_of = Some(in_days(1_000))).await, Code::NotFound, "PLAN_NOT_FOUND");
    refused(with(&|r| r.plan_id = r.request_id.clone()).await, Code::NotFound, "PLAN_NOT_FOUND");
    let drafted = world.create_plan(world.plan_request()).await.expect("a plan").plan_id;
    let figures = refused(with(&|r| r.plan_id.clone_from(&drafted)).await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!(figures["state"], "DRAFT");
    let envelope = world.envelope_of(100).await;
    let sql = "SELECT plan_id::text FROM envelope WHERE envelope_id = $1::uuid";
    let bare: String = sqlx::query_scalar(sql).bind(envelope).fetch_one(&world.budget.database.admin).await.expect("a plan");
    refused(with(&|r| r.plan_id.clone_from(&bare)).await, Code::FailedPrecondition, "RESERVE_MISSING");

    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let past = with(&|r| r.decide_by_time = Some(in_days(-1))).await;
    assert_eq!(violations(past), [pair("decide_by_time", "DECIDE_BY_PAST")]);
    let wrong =
        with(&|r| (r.amount, r.decide_by_time) = (Some(fen(0)), Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })));
    assert_eq!(violations(wrong.await), [pair("amount", "AMOUNT_NOT_POSITIVE"), pair("decide_by_time", "timestamp")]);
    let item = |name: &str| pb::EvidenceItem { name: name.into(), value: "1".into() };
    let wrong = with(&|r| (r.kind, r.evidence) = (0, vec![item("ok"), item("Not Ok")])).await;
    let fields: Vec<_> = violations(wrong).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["kind", "evidence[1].name"]);
    let nowhere = id();
    refused(approve(&world, "controller", &nowhere).await, Code::NotFound, "DRAW_NOT_FOUND");
    refused(reject(&world, "controller", &nowhere).await, Code::NotFound, "DRAW_NOT_FOUND");
    assert_eq!(world.available(&world.reserve).await, RESERVE);
}
