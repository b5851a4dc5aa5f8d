//! Reserve, Commit, Spend, Release: what they move, and what they refuse.

use crate::world::*;
use koc_proto::koc::budget::v1::{self as pb, LedgerEntryKind as Kind};
use std::time::Duration;
use tonic::Code;

/// A little more than a hold lasts by default.
const HOLD: Duration = Duration::from_secs(15 * 60 + 1);

fn kinds(entries: &[pb::LedgerEntry]) -> Vec<(Kind, i64)> {
    entries.iter().map(|entry| (entry.kind(), minor(entry.amount.as_ref()))).collect()
}

#[tokio::test]
async fn money_is_held_owed_paid_and_given_back_to_the_fen() {
    let world = World::new().await;
    let mut request = world.reserve_request(10_001);
    request.member_id = id();
    let answer = world.reservations().reserve(request.clone()).await.expect("held").into_inner();
    let held = answer.reservation.expect("a reservation");
    assert_eq!(minor(answer.envelope_available.as_ref()), ENVELOPE - 10_001);
    assert_eq!((held.member_id.as_str(), held.purpose.as_str()), (request.member_id.as_str(), "assignment/1"));
    let [created, expires] = [&held.create_time, &held.expire_time].map(|time| time.expect("a time"));
    assert_eq!((expires.seconds - created.seconds, expires.nanos), (15 * 60, created.nanos));
    let of = held.reservation_id.as_str();

    assert_eq!(parts(&world.commit(of, Some(7_000)).await.expect("owed")), [3_001, 7_000, 0, 0]);
    assert_eq!(parts(&world.spend(of, Some(4_999)).await.expect("paid")), [3_001, 2_001, 4_999, 0]);
    assert_eq!(parts(&world.release(of, Some(1)).await.expect("given back")), [3_000, 2_001, 4_999, 1]);
    assert_eq!(world.balances().await, [3_000, 2_001, 4_999, ENVELOPE - 10_000]);
    assert_eq!(parts(&world.commit(of, None).await.expect("owed")), [0, 5_001, 4_999, 1]);
    assert_eq!(parts(&world.spend(of, None).await.expect("paid")), [0, 0, 10_000, 1]);
    assert_eq!(parts(&world.get(of).await.expect("there")), [0, 0, 10_000, 1]);

    // A second hold of the same member and one of another, so that there is something to count.
    world.reserve_with(pb::ReserveRequest { request_id: id(), ..request.clone() }).await.expect("held");
    world.reserve_with(pb::ReserveRequest { request_id: id(), member_id: id(), ..request }).await.expect("held");
    let summary = world.summary().await;
    let total = standing(summary.total.as_ref().expect("a total"));
    assert_eq!(total, [20_002, 0, 10_000, ENVELOPE + RESERVE - 30_002]);
    let class = &summary.classes[0];
    assert_eq!((class.resource_class(), class.member_count), (pb::ResourceClass::Incentive, 2));
    assert_eq!(minor(class.amount_per_member.as_ref()), 15_001);
    let reserve = &summary.classes[1];
    assert_eq!((reserve.resource_class(), reserve.member_count), (pb::ResourceClass::StrategicReserve, 0));
    assert_eq!(reserve.amount_per_member, None);
    // Two allocations, three holds, two commits, two payments, one release.
    assert_eq!(world.verified().await, 10);
}

#[tokio::test]
async fn a_commit_gives_the_rest_back_in_the_same_step() {
    let world = World::new().await;
    let held = world.reserve(500).await.expect("held").reservation_id;
    let request = pb::CommitRequest { release_rest: true, ..world.commit_request(&held, Some(301)) };
    let answer = world.reservations().commit(request).await.expect("owed").into_inner();
    assert_eq!(parts(&answer.reservation.expect("a reservation")), [0, 301, 0, 199]);
    assert_eq!(minor(answer.envelope_available.as_ref()), ENVELOPE - 301);
    let entries = world.entries(&world.envelope).await;
    let expected = [(Kind::Allocate, ENVELOPE), (Kind::Reserve, 500), (Kind::Commit, 301), (Kind::Release, 199)];
    assert_eq!(kinds(&entries), expected);
}

#[tokio::test]
async fn more_than_is_there_is_refused_with_the_figures_and_moves_nothing() {
    let world = World::new().await;
    let held = world.reserve(500).await.expect("held").reservation_id;
    let exhausted = "RESERVATION_EXHAUSTED";
    short(world.commit(&held, Some(501)).await, exhausted, &held, Some(501), 500);
    short(world.release(&held, Some(501)).await, exhausted, &held, Some(501), 500);
    short(world.spend(&held, Some(1)).await, exhausted, &held, Some(1), 0);
    short(world.spend(&held, None).await, exhausted, &held, None, 0);
    world.commit(&held, None).await.expect("owed");
    short(world.commit(&held, None).await, exhausted, &held, None, 0);
    short(world.spend(&held, Some(501)).await, exhausted, &held, Some(501), 500);
    short(world.release(&held, Some(1)).await, exhausted, &held, Some(1), 0);
    // Whoever settles a reservation need not know that nothing is held.
    assert_eq!(parts(&world.release(&held, None).await.expect("nothing to give back")), [0, 500, 0, 0]);

    let available = ENVELOPE - 500;
    let figures = refused(world.reserve(available + 1).await, Code::FailedPrecondition, "ENVELOPE_EXHAUSTED");
    assert_eq!((figures["limit_type"].as_str(), figures["limit_id"].as_str()), ("ENVELOPE", world.envelope.as_str()));
    assert_eq!((figures["asked"].as_str(), figures["available"].as_str()), ("8995.01", "8995.00"));
    world.reserve(available).await.expect("the last of it");
    short(world.reserve(1).await, "ENVELOPE_EXHAUSTED", &world.envelope, Some(1), 0);
    assert_eq!(world.balances().await, [available, 500, 0, 0]);
    assert_eq!(world.verified().await, 5);
}

#[tokio::test]
async fn an_expired_hold_gives_the_money_back_and_a_commit_takes_it_again() {
    let world = World::new().await;
    let held = world.reserve(600).await.expect("held").reservation_id;
    world.commit(&held, Some(100)).await.expect("owed");
    let kept = pb::ReserveRequest { time_to_live: Some(seconds(2 * 60 * 60)), ..world.reserve_request(50) };
    let kept = world.reserve_with(kept).await.expect("held").reservation_id;
    world.pass(HOLD).await;
    assert_eq!(parts(&world.get(&held).await.expect("there")), [0, 100, 0, 500]);
    assert_eq!(parts(&world.get(&kept).await.expect("there")), [50, 0, 0, 0]);
    assert_eq!(world.balances().await, [50, 100, 0, ENVELOPE - 150]);
    let expired = world.entries(&world.envelope).await.pop().expect("an entry");
    assert_eq!((expired.kind(), minor(expired.amount.as_ref())), (Kind::Expire, 500));
    assert_eq!(expired.actor, "koc.budget.expiry");

    // Owed money does not expire; what expired is there to be committed once, in parts too.
    world.spend(&held, None).await.expect("paid");
    short(world.commit(&held, Some(501)).await, "RESERVATION_EXHAUSTED", &held, Some(501), 500);
    assert_eq!(parts(&world.commit(&held, Some(200)).await.expect("reserved again")), [0, 200, 100, 500]);
    assert_eq!(parts(&world.commit(&held, None).await.expect("reserved again")), [0, 500, 100, 500]);
    short(world.commit(&held, None).await, "RESERVATION_EXHAUSTED", &held, None, 0);
    assert_eq!(world.balances().await, [50, 500, 100, ENVELOPE - 650]);
    world.verified().await;
}

#[tokio::test]
async fn a_commit_on_a_hold_whose_money_went_to_others_is_refused_for_money() {
    let world = World::new().await;
    let held = world.reserve(600).await.expect("held").reservation_id;
    // The hold is overdue at the very commit, seen by it before the sweep or after.
    world.budget.advance(HOLD).await;
    let others = world.reserve(ENVELOPE - 599).await;
    let others = match others {
        Ok(others) => others,
        // The sweep had not come yet: what is overdue is given back by whoever touches it.
        Err(status) => {
            short::<()>(Err(status), "ENVELOPE_EXHAUSTED", &world.envelope, Some(ENVELOPE - 599), ENVELOPE - 600);
            world.pass(Duration::ZERO).await;
            world.reserve(ENVELOPE - 599).await.expect("held")
        }
    };
    short(world.commit(&held, None).await, "ENVELOPE_EXHAUSTED", &world.envelope, Some(600), 599);
    assert_eq!(parts(&world.commit(&held, Some(599)).await.expect("as far as it goes")), [0, 599, 0, 600]);
    // A release gives all back for good.
    world.release(&others.reservation_id, None).await.expect("given back");
    assert_eq!(parts(&world.release(&held, None).await.expect("final")), [0, 599, 0, 600]);
    short(world.commit(&held, Some(1)).await, "RESERVATION_EXHAUSTED", &held, Some(1), 0);
    world.verified().await;
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

#[tokio::test]
async fn all_that_is_wrong_with_a_request_is_said_at_once() {
    let world = World::new().await;
    let bad = |amount, time_to_live| pb::ReserveRequest { amount, time_to_live, ..world.reserve_request(1) };
    let rules = async |request| violations(world.reservations().reserve(request).await);
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let out_of_range = pair("time_to_live", "TIME_TO_LIVE_OUT_OF_RANGE");

    let dollars = Some(koc_proto::google::r#type::Money { currency_code: "USD".into(), ..fen(1) });
    let found = rules(bad(dollars, Some(prost_types::Duration { seconds: 0, nanos: 999_999_999 }))).await;
    assert_eq!(found, [pair("amount.currency_code", "CURRENCY_MISMATCH"), out_of_range.clone()]);
    let fine = Some(koc_proto::google::r#type::Money { nanos: 15_000_000, ..fen(0) });
    let found = rules(bad(fine, Some(seconds(400 * 24 * 60 * 60 + 1)))).await;
    assert_eq!(found, [pair("amount.nanos", "AMOUNT_TOO_FINE"), out_of_range.clone()]);
    assert_eq!(rules(bad(Some(fen(0)), None)).await, [pair("amount", "AMOUNT_NOT_POSITIVE")]);
    assert_eq!(rules(bad(Some(fen(-1)), None)).await, [pair("amount", "AMOUNT_NOT_POSITIVE")]);
    let huge = Some(koc_proto::google::r#type::Money { units: i64::MAX, ..fen(0) });
    assert_eq!(rules(bad(huge, None)).await, [pair("amount.units", "AMOUNT_TOO_LARGE")]);

    let empty = pb::ReserveRequest { member_id: "x".into(), purpose: "An Order".into(), ..Default::default() };
    let fields: Vec<String> = rules(empty).await.into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["programme_id", "request_id", "envelope_id", "member_id", "purpose", "amount"]);

    // The largest amount there is can be asked for, and is refused for money.
    short(world.reserve(i64::MAX).await, "ENVELOPE_EXHAUSTED", &world.envelope, Some(i64::MAX), ENVELOPE);
    let held = world.reserve(5).await.expect("held").reservation_id;
    let nothing = world.commit(&held, Some(0)).await;
    assert_eq!(violations(nothing), [pair("amount", "AMOUNT_NOT_POSITIVE")]);
    short(world.commit(&held, Some(i64::MAX)).await, "RESERVATION_EXHAUSTED", &held, Some(i64::MAX), 5);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_whoever_asks() {
    let world = World::new().await;
    let nowhere = id();
    let missing = pb::ReserveRequest { envelope_id: nowhere.clone(), ..world.reserve_request(1) };
    let figures = refused(world.reserve_with(missing).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
    assert_eq!(figures["resource_id"], nowhere);
    refused(world.commit(&nowhere, None).await, Code::NotFound, "RESERVATION_NOT_FOUND");
    refused(world.spend(&nowhere, None).await, Code::NotFound, "RESERVATION_NOT_FOUND");
    refused(world.release(&nowhere, None).await, Code::NotFound, "RESERVATION_NOT_FOUND");
    refused(world.get(&nowhere).await, Code::NotFound, "RESERVATION_NOT_FOUND");

    // What another programme has is not there either, whether that programme has plans or not.
    let held = world.reserve(5).await.expect("held").reservation_id;
    let other = world.create_programme("CNY").await;
    for planned in [false, true] {
        if planned {
            let request = pb::CreatePlanRequest { programme_id: other.clone(), ..world.plan_request() };
            world.create_plan(request).await.expect("a plan");
        }
        let request = pb::ReserveRequest { programme_id: other.clone(), ..world.reserve_request(1) };
        refused(world.reserve_with(request).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
        let request = pb::ReleaseRequest { programme_id: other.clone(), ..world.release_request(&held, None) };
        refused(world.reservations().release(request).await, Code::NotFound, "RESERVATION_NOT_FOUND");
        let request = pb::GetReservationRequest { programme_id: other.clone(), reservation_id: held.clone() };
        refused(world.reservations().get_reservation(request).await, Code::NotFound, "RESERVATION_NOT_FOUND");
    }
    assert_eq!(parts(&world.get(&held).await.expect("untouched")), [5, 0, 0, 0]);
}

#[tokio::test]
async fn reservations_are_listed_in_pages_by_envelope_and_member() {
    let world = World::new().await;
    let member = id();
    let mut of_member = Vec::new();
    for n in 0..5 {
        let member_id = if n % 2 == 0 { member.clone() } else { String::new() };
        let held = world.reserve_with(pb::ReserveRequest { member_id, ..world.reserve_request(1) }).await.expect("held");
        if n % 2 == 0 {
            of_member.push(held.reservation_id);
        }
    }
    let request = pb::ListReservationsRequest {
        programme_id: world.programme.clone(),
        page_size: 2,
        page_token: String::new(),
        envelope_id: world.envelope.clone(),
        member_id: member,
    };
    let ids =
        |page: &pb::ListReservationsResponse| page.reservations.iter().map(|r| r.reservation_id.clone()).collect::<Vec<_>>();
    let first = world.reservations().list_reservations(request.clone()).await.expect("a page").into_inner();
    assert_eq!(ids(&first), of_member[..2]);
    let next = pb::ListReservationsRequest { page_token: first.next_page_token.clone(), ..request.clone() };
    let second = world.reservations().list_reservations(next.clone()).await.expect("a page").into_inner();
    assert_eq!((ids(&second), second.next_page_token.as_str()), (of_member[2..].to_vec(), ""));
    let all = pb::ListReservationsRequest { member_id: String::new(), page_size: 0, ..request };
    assert_eq!(world.reservations().list_reservations(all).await.expect("a page").into_inner().reservations.len(), 5);
    let other_filter = pb::ListReservationsRequest { member_id: String::new(), ..next };
    let found = violations(world.reservations().list_reservations(other_filter).await);
    assert_eq!(found, [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
}

#[tokio::test]
async fn the_reserve_is_drawn_on_and_never_reserved() {
    let world = World::new().await;
    let summary = world.summary().await;
    let reserve =
        summary.envelopes.iter().find(|e| e.resource_class() == pb::ResourceClass::StrategicReserve).expect("it has one");
    let request = pb::ReserveRequest { envelope_id: reserve.envelope_id.clone(), ..world.reserve_request(1) };
    let figures = refused(world.reserve_with(request.clone()).await, Code::FailedPrecondition, "RESERVE_NEEDS_DRAW");
    assert_eq!(figures["subject"], reserve.envelope_id);
    // Nor under the name of a draw, or of a grant.
    for own in ["reserve_draw", "grant"] {
        let request = pb::ReserveRequest { purpose: format!("{own}/{}", id()), request_id: id(), ..request.clone() };
        assert_eq!(violations(world.reserve_with(request).await), [("purpose".to_owned(), "PURPOSE_RESERVED".to_owned())]);
    }
    assert_eq!(world.available(&reserve.envelope_id).await, RESERVE);
}
