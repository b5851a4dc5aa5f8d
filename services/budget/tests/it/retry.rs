//! The same request again: the first answer, whatever happened since.

use crate::world::*;
use koc_proto::koc::budget::v1 as pb;
use tonic::Code;

#[tokio::test]
async fn a_retry_gets_its_first_answer_even_a_year_later() {
    let world = World::new().await;
    let mut client = world.reservations();
    let long = Some(prost_types::Duration { seconds: 400 * 24 * 60 * 60, nanos: 0 });
    // Finer than the database keeps time, so that the first answer must not be finer than the second.
    let fine = Some(prost_types::Duration { seconds: 3_600, nanos: 123_456_789 });
    let member_id = id();
    let reserve = pb::ReserveRequest { time_to_live: long, member_id, ..world.reserve_request(1_000) };
    let brief = pb::ReserveRequest { time_to_live: fine, ..world.reserve_request(10) };
    let held = client.reserve(reserve.clone()).await.expect("held").into_inner();
    let briefly = client.reserve(brief.clone()).await.expect("held").into_inner();
    let of = held.reservation.as_ref().expect("a reservation").reservation_id.clone();
    let commit = pb::CommitRequest { release_rest: true, ..world.commit_request(&of, Some(700)) };
    let (spend, release) = (world.spend_request(&of, Some(300)), world.release_request(&of, None));
    let part = world.release_request(&of, Some(100));
    let given = client.release(part.clone()).await.expect("given back").into_inner();
    let owed = client.commit(commit.clone()).await.expect("owed").into_inner();
    let paid = client.spend(spend.clone()).await.expect("paid").into_inner();
    let nothing = client.release(release.clone()).await.expect("nothing to give back").into_inner();
    let too_much = world.reserve_request(ENVELOPE);
    let refusal = client.reserve(too_much.clone()).await.expect_err("refused");
    let twice = world.commit_request(&of, Some(1));
    let spent_refusal = client.commit(twice.clone()).await.expect_err("refused");

    // Much happens: all is paid, money comes back, and a year passes.
    world.spend(&of, None).await.expect("paid");
    world.pass(DAY * 366).await;

    let again = client.reserve(reserve.clone()).await.expect("the first answer");
    assert!(replayed(&again));
    assert_eq!(again.into_inner(), held);
    assert_eq!(client.reserve(brief).await.expect("the first answer").into_inner(), briefly);
    assert_eq!(client.commit(commit).await.expect("the first answer").into_inner(), owed);
    assert_eq!(client.spend(spend).await.expect("the first answer").into_inner(), paid);
    assert_eq!(client.release(part).await.expect("the first answer").into_inner(), given);
    assert_eq!(client.release(release).await.expect("the first answer").into_inner(), nothing);
    let told = |status: tonic::Status, reason| {
        (status.message().to_owned(), refused::<()>(Err(status), Code::FailedPrecondition, reason))
    };
    let again = client.reserve(too_much).await.expect_err("the first refusal");
    assert_eq!(told(again, "ENVELOPE_EXHAUSTED"), told(refusal, "ENVELOPE_EXHAUSTED"));
    let again = client.commit(twice).await.expect_err("the first refusal");
    assert_eq!(told(again, "RESERVATION_EXHAUSTED"), told(spent_refusal, "RESERVATION_EXHAUSTED"));
    assert_eq!(parts(&world.get(&of).await.expect("today's state")), [0, 0, 700, 300]);
    // Two allocations and eight that moved money: two holds, one release of 100, a commit with release, two payments, an expiry.
    assert_eq!(world.verified().await, 10);
}

#[tokio::test]
async fn a_request_id_with_another_body_is_refused_by_each_method() {
    let world = World::new().await;
    let mut client = world.reservations();
    let reserve = world.reserve_request(100);
    let of = world.reserve_with(reserve.clone()).await.expect("held").reservation_id;
    let (commit, spend) = (world.commit_request(&of, Some(50)), world.spend_request(&of, Some(20)));
    let release = world.release_request(&of, Some(10));
    client.commit(commit.clone()).await.expect("owed");
    client.spend(spend.clone()).await.expect("paid");
    client.release(release.clone()).await.expect("given back");
    let too_much = world.reserve_request(ENVELOPE);
    client.reserve(too_much.clone()).await.expect_err("refused");

    let reused = [("request_id".to_owned(), "REQUEST_ID_REUSED".to_owned())];
    let other = client.reserve(pb::ReserveRequest { purpose: "assignment/2".into(), ..reserve.clone() }).await;
    refused(other, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let other = client.reserve(pb::ReserveRequest { envelope_id: world.reserve.clone(), ..reserve.clone() }).await;
    assert_eq!(violations(other), reused);
    let other = client.reserve(pb::ReserveRequest { amount: Some(fen(1)), ..too_much }).await;
    assert_eq!(violations(other), reused);
    let other = client.commit(pb::CommitRequest { release_rest: true, ..commit }).await;
    assert_eq!(violations(other), reused);
    let other = client.spend(pb::SpendRequest { payment_reference: "invoice-8".into(), ..spend }).await;
    assert_eq!(violations(other), reused);
    let other = client.release(pb::ReleaseRequest { amount: None, ..release }).await;
    assert_eq!(violations(other), reused);

    // Another method is another matter, with the same id too.
    let same_id = pb::CommitRequest { request_id: reserve.request_id, ..world.commit_request(&of, Some(5)) };
    let answer = client.commit(same_id).await.expect("owed").into_inner().reservation.expect("a reservation");
    assert_eq!(parts(&answer), [35, 35, 20, 10]);
    world.verified().await;
}

#[tokio::test]
async fn what_is_not_a_refusal_by_a_rule_of_money_is_not_kept() {
    let world = World::new().await;
    let mut client = world.reservations();
    // Not found: the same request succeeds once the envelope is there, under the id that it was asked with.
    let programme = world.create_programme("CNY").await;
    let early = pb::ReserveRequest { programme_id: programme.clone(), ..world.reserve_request(1) };
    refused(client.reserve(early.clone()).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
    let bad = pb::ReserveRequest { amount: Some(fen(0)), ..world.reserve_request(1) };
    violations(client.reserve(bad.clone()).await);
    let mended = pb::ReserveRequest { amount: Some(fen(1)), ..bad };
    let answer = client.reserve(mended).await.expect("held");
    assert!(!replayed(&answer));
    let kept = world.count("SELECT count(*) FROM operation WHERE request_id = $1::uuid", &early.request_id).await;
    assert_eq!(kept, 0);

    // A plan that is not active is a rule: the refusal stays after the plan is active.
    let drafted = world.create_plan(world.plan_request()).await.expect("a plan");
    let envelope_id = drafted.envelopes[0].envelope_id.clone();
    let request = pb::ReserveRequest { envelope_id, ..world.reserve_request(1) };
    let figures = refused(client.reserve(request.clone()).await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!((figures["subject"].as_str(), figures["state"].as_str()), (drafted.plan_id.as_str(), "DRAFT"));
    world.activate(&drafted.plan_id).await;
    refused(client.reserve(request.clone()).await, Code::FailedPrecondition, "PLAN_STATE");
    client.reserve(pb::ReserveRequest { request_id: id(), ..request }).await.expect("held");
}
