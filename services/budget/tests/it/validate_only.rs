//! Rehearsals: the answer of now, and nothing kept.

use crate::world::*;
use koc_proto::koc::budget::v1::{self as pb, LedgerEntryKind as Kind};
use std::time::Duration;
use tonic::Code;

/// All rows that a mutation could leave; its facts, whether they have their place in the feed yet or not.
async fn kept(world: &World) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM operation) + (SELECT count(*) FROM ledger_entry) + (SELECT count(*) FROM reservation)
                      + (SELECT count(*) FROM fact) + (SELECT coalesce(sum(cardinality(fact_ids)), 0) FROM outbox)
                      + (SELECT sum(sequence)::bigint FROM envelope) WHERE $1 <> ''";
    world.count(sql, "all").await
}

#[tokio::test]
async fn a_rehearsal_answers_as_the_call_would_and_keeps_nothing() {
    let world = World::new().await;
    let mut client = world.reservations();
    let held = world.reserve(100).await.expect("held");
    let of = held.reservation_id.as_str();
    world.commit(of, Some(60)).await.expect("owed");
    world.spend(of, Some(20)).await.expect("paid");
    let paid = world.entry_of(of, Kind::Spend).await;
    world.verified().await;
    let before = (kept(&world).await, world.get(of).await.expect("there"), world.balances().await);

    let request = pb::ReserveRequest { validate_only: true, ..world.reserve_request(300) };
    let answer = client.reserve(request.clone()).await.expect("it would be held").into_inner();
    let made = answer.reservation.expect("a reservation");
    assert_eq!(
        (made.reservation_id.as_str(), parts(&made), minor(answer.envelope_available.as_ref())),
        ("", [300, 0, 0, 0], ENVELOPE - 400)
    );
    let commit = pb::CommitRequest { validate_only: true, release_rest: true, ..world.commit_request(of, Some(30)) };
    let answer = client.commit(commit).await.expect("it would be owed").into_inner().reservation.expect("a reservation");
    assert_eq!((answer.reservation_id.as_str(), parts(&answer)), (of, [0, 70, 20, 10]));
    let spend = pb::SpendRequest { validate_only: true, ..world.spend_request(of, None) };
    assert_eq!(
        parts(&client.spend(spend).await.expect("it would be paid").into_inner().reservation.expect("one")),
        [40, 0, 60, 0]
    );
    let release = pb::ReleaseRequest { validate_only: true, ..world.release_request(of, None) };
    let answer = client.release(release).await.expect("it would go back").into_inner();
    assert_eq!(parts(&answer.reservation.expect("one")), [0, 40, 20, 40]);
    let extend = pb::ExtendRequest { validate_only: true, ..world.extend_request(of, Duration::from_secs(100_000)) };
    let answer = client.extend(extend).await.expect("it would last").into_inner().reservation.expect("one");
    assert!(answer.expire_time.map(|time| time.seconds) > held.expire_time.map(|time| time.seconds));
    let reverse = pb::ReverseRequest { validate_only: true, release: true, ..world.reverse_request(&paid) };
    assert_eq!(parts(&world.reverse_with(reverse).await.expect("it would be refunded")), [40, 40, 0, 20]);
    // A refusal is not kept either.
    let refusal = pb::ReserveRequest { validate_only: true, ..world.reserve_request(ENVELOPE) };
    short(client.reserve(refusal).await, "ENVELOPE_EXHAUSTED", &world.envelope, Some(ENVELOPE), ENVELOPE - 100);
    assert_eq!((kept(&world).await, world.get(of).await.expect("there"), world.balances().await), before);

    // The request id is free for the real call, and is the real call's from then on.
    let real = pb::ReserveRequest { validate_only: false, ..request.clone() };
    assert!(!replayed(&client.reserve(real).await.expect("held")));
    refused(client.reserve(request).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    world.verified().await;
}

#[tokio::test]
async fn a_batch_is_rehearsed_as_a_whole() {
    let world = World::new().await;
    let before = kept(&world).await;
    let requests = vec![world.reserve_request(ENVELOPE - 1), world.reserve_request(2), world.reserve_request(1)];
    let request = pb::BatchReserveRequest { programme_id: world.programme.clone(), requests, validate_only: true };
    for _ in 0..2 {
        let results = world.reservations().batch_reserve(request.clone()).await.expect("a result each").into_inner().results;
        let held: Vec<bool> = results.iter().map(|result| result.response.is_some()).collect();
        assert_eq!(held, [true, false, true]);
    }
    assert_eq!(kept(&world).await, before);
    // To rehearse some of a batch is not possible.
    let mut request = pb::BatchReserveRequest { validate_only: false, ..request };
    request.requests[1].validate_only = true;
    let results = world.reservations().batch_reserve(request).await.expect("a result each").into_inner().results;
    let status = results[1].status.clone().expect("refused");
    assert!(results[0].response.is_some() && status.message.contains("VALIDATE_ONLY_MISMATCH"), "{status:?}");
}

#[tokio::test]
async fn a_rehearsal_waits_for_nobody() {
    let world = World::new().await;
    let (member, held) = (id(), world.reserve(40).await.expect("held"));
    let mut others = world.db().begin().await.expect("a transaction");
    sqlx::query("SELECT FROM envelope FOR UPDATE").execute(&mut *others).await.expect("locked");
    sqlx::query("SELECT FROM reservation FOR UPDATE").execute(&mut *others).await.expect("locked");
    let reserve = pb::ReserveRequest { validate_only: true, member_id: member, ..world.reserve_request(300) };
    let rehearsed = world.reservations().reserve(reserve).await.expect("decided").into_inner();
    assert_eq!(minor(rehearsed.envelope_available.as_ref()), ENVELOPE - 340);
    let commit = pb::CommitRequest { validate_only: true, ..world.commit_request(&held.reservation_id, None) };
    let rehearsed = world.reservations().commit(commit).await.expect("decided").into_inner();
    assert_eq!(parts(rehearsed.reservation.as_ref().expect("owed")), [0, 40, 0, 0]);
    others.rollback().await.expect("rolled back");
    assert_eq!(world.balances().await, [40, 0, 0, ENVELOPE - 40]);
}
