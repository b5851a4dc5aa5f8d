//! Extend and Reverse: a hold that lasts longer, an entry that is undone.

use crate::world::*;
use futures::future::join_all;
use koc_proto::koc::budget::v1::{self as pb, LedgerEntryKind as Kind};
use std::time::Duration;
use tonic::Code;

/// How long a hold lasts by default.
const HOLD: Duration = Duration::from_secs(15 * 60);

#[tokio::test]
async fn a_hold_that_is_extended_outlives_its_first_end_and_expires_at_the_new_one() {
    let world = World::new().await;
    let held = world.reserve(600).await.expect("held");
    let request = world.extend_request(&held.reservation_id, HOLD * 4);
    let answer = world.reservations().extend(request.clone()).await.expect("extended").into_inner();
    let extended = answer.reservation.clone().expect("a reservation");
    assert!(extended.expire_time.map(|time| time.seconds) > held.expire_time.map(|time| time.seconds));
    assert_eq!((parts(&extended), minor(answer.envelope_available.as_ref())), ([600, 0, 0, 0], ENVELOPE - 600));
    // Nobody shortens it.
    let shorter = world.extend(&held.reservation_id, HOLD).await.expect("held long enough");
    assert_eq!(shorter.expire_time, extended.expire_time);

    world.pass(HOLD * 2).await;
    assert_eq!(parts(&world.get(&held.reservation_id).await.expect("there")), [600, 0, 0, 0]);
    world.pass(HOLD * 2).await;
    assert_eq!(parts(&world.get(&held.reservation_id).await.expect("there")), [0, 0, 0, 600]);
    let again = world.reservations().extend(request).await.expect("the first answer");
    assert!(replayed(&again));
    assert_eq!(again.into_inner(), answer);

    // What expired is reserved again, and expires again.
    let revived = world.extend(&held.reservation_id, HOLD).await.expect("reserved again");
    assert_eq!(parts(&revived), [600, 0, 0, 600]);
    assert_eq!(world.balances().await, [600, 0, 0, ENVELOPE - 600]);
    world.pass(HOLD * 2).await;
    assert_eq!(parts(&world.get(&held.reservation_id).await.expect("there")), [0, 0, 0, 1_200]);
    // Two allocations, two holds, two expiries: to extend what is held is no entry.
    assert_eq!(world.verified().await, 6);
}

#[tokio::test]
async fn an_expired_hold_whose_money_went_to_others_is_not_extended() {
    let world = World::new().await;
    let member_id = id();
    let of_member = |amount| pb::ReserveRequest { member_id: member_id.clone(), ..world.reserve_request(amount) };
    world.set_limit(world.limit_request(&member_id, 1_000)).await.expect("a limit");
    let held = world.reserve_with(of_member(600)).await.expect("held").reservation_id;
    world.pass(HOLD * 2).await;
    let others = world.reserve(ENVELOPE - 599).await.expect("held").reservation_id;
    short(world.extend(&held, HOLD).await, "ENVELOPE_EXHAUSTED", &world.envelope, Some(600), 599);
    world.release(&others, None).await.expect("given back");
    world.reserve_with(of_member(401)).await.expect("held");
    let figures = refused(world.extend(&held, HOLD).await, Code::FailedPrecondition, "MEMBER_LIMIT_EXHAUSTED");
    assert_eq!((figures["limit_type"].as_str(), figures["available_minor"].as_str()), ("MEMBER_LIMIT", "599"));
    assert!(figures["limit_id"].starts_with(&member_id));

    world.release(&held, None).await.expect("given back");
    short(world.extend(&held, HOLD).await, "RESERVATION_EXHAUSTED", &held, None, 0);
    refused(world.extend(&id(), HOLD).await, Code::NotFound, "RESERVATION_NOT_FOUND");
    let found = violations(world.extend(&held, Duration::from_secs(401 * 24 * 60 * 60)).await);
    assert_eq!(found, [("time_to_live".to_owned(), "TIME_TO_LIVE_OUT_OF_RANGE".to_owned())]);
    world.verified().await;
}

#[tokio::test]
async fn a_mistake_is_reversed_by_new_entries_that_name_what_they_undo() {
    let world = World::new().await;
    let member_id = id();
    let limit = world.limit_request(&member_id, 1_000);
    world.set_limit(limit.clone()).await.expect("a limit");
    let held = world.reserve_with(pb::ReserveRequest { member_id, ..world.reserve_request(1_000) }).await.expect("held");
    let of = held.reservation_id.as_str();
    world.commit(of, Some(700)).await.expect("owed");
    world.spend(of, Some(300)).await.expect("paid");
    world.spend(of, Some(200)).await.expect("paid");
    let [committed, paid] = [world.entry_of(of, Kind::Commit).await, world.entry_of(of, Kind::Spend).await];

    // The second payment was 50 too much.
    let request = pb::ReverseRequest { amount: Some(fen(50)), ..world.reverse_request(&paid) };
    let answer = world.reservations().reverse(request.clone()).await.expect("owed again").into_inner();
    assert_eq!(parts(answer.reservation.as_ref().expect("a reservation")), [300, 250, 450, 0]);
    let undone = world.entry_of(of, Kind::ReverseSpend).await;
    assert_eq!(
        (undone.reverses_entry_id.as_str(), undone.reversal_reason()),
        (paid.entry_id.as_str(), pb::ReversalReason::WrongAmount)
    );
    assert_eq!((undone.credit_account(), undone.debit_account()), (pb::LedgerAccount::Spent, pb::LedgerAccount::Committed));
    assert_eq!((paid.reverses_entry_id.as_str(), paid.reversal_reason()), ("", pb::ReversalReason::Unspecified));

    // 250 of what was committed are still owed; they fall away and are back with the envelope.
    let fall = pb::ReverseRequest { amount: Some(fen(251)), release: true, ..world.reverse_request(&committed) };
    short(world.reverse_with(fall.clone()).await, "RESERVATION_EXHAUSTED", of, Some(251), 250);
    let fall = pb::ReverseRequest { request_id: id(), amount: Some(fen(250)), ..fall };
    assert_eq!(parts(&world.reverse_with(fall).await.expect("given back")), [300, 0, 450, 250]);
    assert_eq!(world.balances().await, [300, 0, 450, ENVELOPE - 750]);
    assert_eq!(
        minor(world.set_limit(pb::SetMemberLimitRequest { request_id: id(), ..limit }).await.expect("set").used.as_ref()),
        750
    );

    // Again: the first answer, and under another id no second effect.
    let again = world.reservations().reverse(request).await.expect("the first answer");
    assert!(replayed(&again));
    assert_eq!(again.into_inner(), answer);
    let figures = refused(world.reverse_with(world.reverse_request(&paid)).await, Code::FailedPrecondition, "ENTRY_REVERSED");
    assert_eq!(figures["subject"], paid.entry_id);
    let reserved = world.entry_of(of, Kind::Reserve).await;
    let answer = world.reverse_with(world.reverse_request(&reserved)).await;
    assert_eq!(refused(answer, Code::FailedPrecondition, "ENTRY_NOT_REVERSIBLE")["kind"], "RESERVE");
    world.verified().await;
    let told: Vec<pb::LedgerPosted> = world.facts_of(of).await;
    let told: Vec<_> = told.iter().filter(|told| !told.reverses_entry_id.is_empty()).collect();
    let kinds: Vec<_> = told.iter().map(|told| (told.kind(), told.reverses_entry_id.as_str())).collect();
    assert_eq!(kinds, [(Kind::ReverseSpend, paid.entry_id.as_str()), (Kind::ReverseCommit, committed.entry_id.as_str())]);
}

#[tokio::test]
async fn a_refund_is_back_with_the_envelope_and_a_reversed_commit_follows_its_hold() {
    let world = World::new().await;
    let of = world.reserve(1_000).await.expect("held").reservation_id;
    world.commit(&of, Some(700)).await.expect("owed");
    world.spend(&of, Some(300)).await.expect("paid");
    let refund = pb::ReverseRequest {
        release: true,
        reason: pb::ReversalReason::PaymentReturned.into(),
        ..world.reverse_request(&world.entry_of(&of, Kind::Spend).await)
    };
    let answer = world.reservations().reverse(refund).await.expect("refunded").into_inner();
    assert_eq!(parts(&answer.reservation.expect("a reservation")), [300, 400, 0, 300]);
    assert_eq!(minor(answer.envelope_available.as_ref()), ENVELOPE - 700);

    let request =
        pb::ReverseRequest { amount: Some(fen(150)), ..world.reverse_request(&world.entry_of(&of, Kind::Commit).await) };
    assert_eq!(parts(&world.reverse_with(request).await.expect("held again")), [450, 250, 0, 300]);
    world.pass(HOLD * 2).await;
    assert_eq!(parts(&world.get(&of).await.expect("there")), [0, 250, 0, 750]);
    // When the hold is over already, the money goes back at once, and can be committed again.
    world.commit(&of, Some(100)).await.expect("reserved again");
    let last = world.reverse_request(&world.entry_of(&of, Kind::Commit).await);
    assert_eq!(parts(&world.reverse_with(last).await.expect("given back")), [0, 250, 0, 850]);
    assert_eq!(parts(&world.commit(&of, Some(450)).await.expect("reserved again")), [0, 700, 0, 850]);
    world.verified().await;
}

#[tokio::test]
async fn only_entries_of_the_reservation_are_there_to_be_reversed() {
    let world = World::new().await;
    let of = world.reserve(100).await.expect("held").reservation_id;
    world.commit(&of, None).await.expect("owed");
    let other = world.reserve(100).await.expect("held").reservation_id;
    let request = world.reverse_request(&world.entry_of(&of, Kind::Commit).await);
    let of_other = pb::ReverseRequest { reservation_id: other, ..request.clone() };
    assert_eq!(refused(world.reverse_with(of_other).await, Code::NotFound, "ENTRY_NOT_FOUND")["resource_id"], request.entry_id);
    let nowhere = pb::ReverseRequest { entry_id: id(), request_id: id(), ..request.clone() };
    refused(world.reverse_with(nowhere).await, Code::NotFound, "ENTRY_NOT_FOUND");
    let missing = pb::ReverseRequest { reservation_id: id(), request_id: id(), ..request.clone() };
    refused(world.reverse_with(missing).await, Code::NotFound, "RESERVATION_NOT_FOUND");
    let silent = pb::ReverseRequest { reason: 0, amount: Some(fen(0)), entry_id: "x".into(), ..request.clone() };
    let fields: Vec<String> = violations(world.reverse_with(silent).await).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["entry_id", "reason"]);
    let nothing = pb::ReverseRequest { amount: Some(fen(0)), ..request };
    assert_eq!(violations(world.reverse_with(nothing).await), [("amount".to_owned(), "AMOUNT_NOT_POSITIVE".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_reversed_once_however_many_try() {
    let world = World::new().await;
    let of = world.reserve(100).await.expect("held").reservation_id;
    world.commit(&of, None).await.expect("owed");
    world.spend(&of, None).await.expect("paid");
    let paid = world.entry_of(&of, Kind::Spend).await;
    let attempt = |nr: i64| pb::ReverseRequest { amount: Some(fen(nr)), release: nr % 2 == 0, ..world.reverse_request(&paid) };
    let answers = join_all((1..=16).map(attempt).map(|request| world.reverse_with(request))).await;
    let (done, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refusals.len()), (1, 15));
    for refusal in refusals {
        refused(refusal, Code::FailedPrecondition, "ENTRY_REVERSED");
    }
    world.verified().await;
}

#[tokio::test]
async fn a_reversal_that_came_past_the_service_is_found() {
    let world = World::new().await;
    let of = world.reserve(100).await.expect("held").reservation_id;
    world.commit(&of, None).await.expect("owed");
    world.verified().await;
    // Sums and order are as they should be; what it undoes is not.
    let admin = &world.budget.database.admin;
    for sql in [
        "INSERT INTO ledger_entry
         SELECT gen_random_uuid(), programme_id, envelope_id, envelope_sequence + 1, 'REVERSE_COMMIT', 'COMMITTED', 'RESERVED', amount,
                reservation_id, available_after, operation_id, actor, entry_time, gen_random_uuid(), 'DUPLICATE'
         FROM ledger_entry WHERE kind = 'COMMIT'",
        "UPDATE envelope SET sequence = sequence + 1, reserved = committed, committed = 0 WHERE committed > 0",
        "UPDATE reservation SET reserved = committed, committed = 0",
    ] {
        sqlx::query(sql).execute(admin).await.expect("changed");
    }
    let found = world.verify().await;
    assert!(!found.valid && found.finding.contains("undoes what it may not"), "{}", found.finding);
    assert_eq!(found.bad_entry_id, world.entry_of(&of, Kind::ReverseCommit).await.entry_id);
}
