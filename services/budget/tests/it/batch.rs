//! Many requests in one call: each decided in order, each with an end of its own.

use crate::world::*;
use koc_proto::{google::rpc, koc::budget::v1 as pb};
use prost::Message;
use tonic::{Code, Status};

/// The status of a result, as the single call would have failed.
#[track_caller]
fn failed(status: Option<&rpc::Status>) -> Result<(), Status> {
    let status = status.expect("a status");
    Err(Status::with_details(Code::from_i32(status.code), status.message.clone(), status.encode_to_vec().into()))
}

async fn reserve_all(world: &World, requests: Vec<pb::ReserveRequest>) -> Vec<pb::ReserveResult> {
    let request = pb::BatchReserveRequest { programme_id: world.programme.clone(), requests, validate_only: false };
    let results = world.reservations().batch_reserve(request).await.expect("a result each").into_inner().results;
    assert!(results.iter().zip(0..).all(|(result, index)| result.index == index), "in order");
    assert!(results.iter().all(|result| result.response.is_some() != result.status.is_some()), "one of the two");
    results
}

#[tokio::test]
async fn each_request_of_a_batch_is_decided_in_order_and_harms_no_other() {
    let world = World::new().await;
    let first = world.reserve_request(ENVELOPE - 100);
    let too_much = world.reserve_request(101);
    let broken = pb::ReserveRequest { purpose: "An Order".into(), member_id: "x".into(), ..world.reserve_request(1) };
    let nothing = world.reserve_request(0);
    let nowhere = pb::ReserveRequest { envelope_id: id(), ..world.reserve_request(1) };
    let foreign = pb::ReserveRequest { programme_id: id(), ..world.reserve_request(1) };
    let draw = pb::ReserveRequest { envelope_id: world.reserve.clone(), ..world.reserve_request(1) };
    // It may leave the programme to the batch, and is the same request then.
    let last = pb::ReserveRequest { programme_id: String::new(), ..world.reserve_request(100) };
    let reused = pb::ReserveRequest { request_id: first.request_id.clone(), ..world.reserve_request(7) };
    let requests = vec![first.clone(), too_much, broken, nothing, nowhere, foreign, draw, first.clone(), last.clone(), reused];
    let results = reserve_all(&world, requests.clone()).await;

    let available = |n: usize| minor(results[n].response.as_ref().expect("held").envelope_available.as_ref());
    assert_eq!((available(0), available(8)), (100, 0));
    assert_eq!(results[7], pb::ReserveResult { index: 7, replayed: true, ..results[0].clone() });
    short(failed(results[1].status.as_ref()), "ENVELOPE_EXHAUSTED", &world.envelope, Some(101), 100);
    let fields: Vec<String> = violations(failed(results[2].status.as_ref())).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["member_id", "purpose"]);
    let rule = |n: usize| violations(failed(results[n].status.as_ref())).pop().expect("a violation").1;
    assert_eq!(
        (rule(3), rule(5), rule(9)),
        ("AMOUNT_NOT_POSITIVE".into(), "PROGRAMME_MISMATCH".into(), "REQUEST_ID_REUSED".into())
    );
    refused(failed(results[4].status.as_ref()), Code::NotFound, "ENVELOPE_NOT_FOUND");
    refused(failed(results[6].status.as_ref()), Code::FailedPrecondition, "RESERVE_NEEDS_DRAW");
    assert_eq!(world.balances().await, [ENVELOPE, 0, 0, 0]);

    // The same again, in a batch and alone: the same answers, and nothing moves.
    let again = reserve_all(&world, requests.clone()).await;
    for (again, result) in again.iter().zip(&results) {
        let told = |status: &Option<rpc::Status>| status.as_ref().map(|status| (status.code, status.message.clone()));
        assert_eq!((&again.response, told(&again.status)), (&result.response, told(&result.status)));
    }
    for (request, result) in [(&requests[0], &results[0]), (&requests[8], &results[8])] {
        let request = pb::ReserveRequest { programme_id: world.programme.clone(), ..request.clone() };
        let alone = world.reservations().reserve(request).await.expect("the first answer");
        assert!(replayed(&alone));
        assert_eq!(Some(alone.into_inner()), result.response);
    }
    let alone = world.reservations().reserve(requests[1].clone()).await.map(|_| ());
    short(alone, "ENVELOPE_EXHAUSTED", &world.envelope, Some(101), 100);
    world.verified().await;
}

#[tokio::test]
async fn a_thousand_holds_are_committed_paid_and_given_back_by_four_calls() {
    let world = World::new().await;
    let requests: Vec<_> = (0..1_000).map(|_| world.reserve_request(10)).collect();
    let held = reserve_all(&world, requests).await;
    let of: Vec<String> = held
        .into_iter()
        .map(|result| result.response.and_then(|response| response.reservation).expect("held").reservation_id)
        .collect();
    let programme_id = world.programme.clone();
    let mut client = world.reservations();
    // Each of them twice: the second has nothing left to commit.
    let requests = of.iter().flat_map(|of| [world.commit_request(of, Some(6)), world.commit_request(of, Some(5))]).take(1_000);
    let request =
        pb::BatchCommitRequest { programme_id: programme_id.clone(), requests: requests.collect(), validate_only: false };
    let owed = client.batch_commit(request).await.expect("a result each").into_inner().results;
    for (result, of) in owed.chunks(2).zip(&of) {
        assert_eq!(parts(result[0].response.as_ref().and_then(|r| r.reservation.as_ref()).expect("owed")), [4, 6, 0, 0]);
        short(failed(result[1].status.as_ref()), "RESERVATION_EXHAUSTED", of, Some(5), 4);
    }
    let requests = of.iter().map(|of| world.spend_request(of, None)).collect();
    let request = pb::BatchSpendRequest { programme_id: programme_id.clone(), requests, validate_only: false };
    let paid = client.batch_spend(request).await.expect("a result each").into_inner().results;
    assert_eq!(paid.iter().filter(|result| result.response.is_some()).count(), 500);
    let requests = of.iter().map(|of| world.release_request(of, None)).collect();
    let request = pb::BatchReleaseRequest { programme_id: programme_id.clone(), requests, validate_only: false };
    let given = client.batch_release(request).await.expect("a result each").into_inner().results;
    assert!(given.iter().all(|result| result.response.is_some()));
    assert_eq!(world.balances().await, [0, 0, 3_000, ENVELOPE - 3_000]);

    let missing = [id(), id()];
    let asked = [&of[998..], &missing[..1], &of[..998], &missing[1..]].concat();
    let mut request = pb::BatchGetReservationsRequest { programme_id, reservation_ids: asked[..1_000].to_vec() };
    let found = client.batch_get_reservations(request.clone()).await.expect("a page").into_inner();
    let shown: Vec<_> = found.reservations.iter().map(|r| r.reservation_id.as_str()).collect();
    assert_eq!(shown, asked[..1_000].iter().filter(|id| !missing.contains(id)).collect::<Vec<_>>());
    assert_eq!((parts(&found.reservations[2]), found.missing_reservation_ids), ([0, 0, 6, 4], vec![missing[0].clone()]));
    request.reservation_ids = asked;
    let found = violations(client.batch_get_reservations(request).await);
    assert_eq!(found, [("reservation_ids".to_owned(), "repeated.max_items".to_owned())]);
    world.verified().await;
}

#[tokio::test]
async fn holds_are_extended_and_entries_undone_in_batches() {
    let world = World::new().await;
    let (held, owed) = (world.reserve(100).await.expect("held"), world.reserve(50).await.expect("held"));
    world.commit(&owed.reservation_id, None).await.expect("owed");
    let week = std::time::Duration::from_secs(7 * 86_400);
    let programme_id = world.programme.clone();
    let requests = vec![
        world.extend_request(&held.reservation_id, week),
        world.extend_request(&owed.reservation_id, week),
        world.extend_request(&id(), week),
    ];
    let request = pb::BatchExtendRequest { programme_id: programme_id.clone(), requests, validate_only: false };
    let results = world.reservations().batch_extend(request.clone()).await.expect("a result each").into_inner().results;
    let extended = results[0].response.as_ref().and_then(|r| r.reservation.as_ref()).expect("extended");
    let end = |r: &pb::Reservation| r.expire_time.as_ref().map(|t| t.seconds).expect("a time");
    assert!(end(extended) > end(&held), "it lasts longer");
    short(failed(results[1].status.as_ref()), "RESERVATION_EXHAUSTED", &owed.reservation_id, None, 0);
    refused(failed(results[2].status.as_ref()), Code::NotFound, "RESERVATION_NOT_FOUND");
    let again = world.reservations().batch_extend(request).await.expect("a result each").into_inner().results;
    assert!(again[0].replayed && again[0].response == results[0].response);

    let entry = world.entry_of(&owed.reservation_id, pb::LedgerEntryKind::Commit).await;
    let requests = vec![world.reverse_request(&entry), world.reverse_request(&entry)];
    let request = pb::BatchReverseRequest { programme_id, requests, validate_only: true };
    let rehearsed = world.reservations().batch_reverse(request.clone()).await.expect("a result each").into_inner().results;
    let request = pb::BatchReverseRequest { validate_only: false, ..request };
    let results = world.reservations().batch_reverse(request).await.expect("a result each").into_inner().results;
    for results in [rehearsed, results] {
        let undone = results[0].response.as_ref().and_then(|r| r.reservation.as_ref()).expect("undone");
        assert_eq!(parts(undone), [50, 0, 0, 0]);
        refused(failed(results[1].status.as_ref()), Code::FailedPrecondition, "ENTRY_REVERSED");
    }
    world.verified().await;
}

#[tokio::test]
async fn a_batch_is_neither_empty_nor_beyond_a_thousand() {
    let world = World::new().await;
    for (count, rule) in [(0, "repeated.min_items"), (1_001, "repeated.max_items")] {
        let requests = vec![pb::ReleaseRequest::default(); count];
        let request = pb::BatchReleaseRequest { programme_id: world.programme.clone(), requests, validate_only: false };
        let found = violations(world.reservations().batch_release(request).await);
        assert_eq!(found, [("requests".to_owned(), rule.to_owned())]);
    }
    // A programme without plans has no reservation, and each is told so.
    let programme_id = world.create_programme("CNY").await;
    let requests = vec![pb::ReleaseRequest { programme_id: String::new(), ..world.release_request(&id(), None) }];
    let request = pb::BatchReleaseRequest { programme_id: programme_id.clone(), requests, validate_only: false };
    let results = world.reservations().batch_release(request).await.expect("a result").into_inner().results;
    refused(failed(results[0].status.as_ref()), Code::NotFound, "RESERVATION_NOT_FOUND");
    let request = pb::BatchGetReservationsRequest { programme_id, reservation_ids: vec![id()] };
    let found = world.reservations().batch_get_reservations(request.clone()).await.expect("a page").into_inner();
    assert_eq!(found.missing_reservation_ids, request.reservation_ids);
}
