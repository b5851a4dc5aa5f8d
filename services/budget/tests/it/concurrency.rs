//! Many at once: nobody gets what is not there, and nobody gets it twice.

use crate::world::*;
use futures::future::join_all;
use koc_proto::koc::budget::v1 as pb;
use std::collections::HashSet;
use tonic::{Code, Status};

const CLIENTS: usize = 64;
/// Of an envelope that they empty.
const MONEY: i64 = 5_000;

/// Amounts of one client, mixed and the same in each run; together with the others' more than there is.
fn amounts(client: usize) -> impl Iterator<Item = i64> {
    let seed = client as u64 + 1;
    (1..=4_u64).map(move |n| ((seed * 2_654_435_761 + n * 40_503) >> 7) % 97 + 1).map(|amount| amount.cast_signed())
}

/// Checks that a refusal names the envelope, and that less was there than was asked.
#[track_caller]
fn exhausted(answer: Result<pb::Reservation, Status>, envelope: &str, amount: i64) {
    let figures = refused(answer, Code::FailedPrecondition, "ENVELOPE_EXHAUSTED");
    let number = |name: &str| figures[name].parse::<i64>().expect("a number");
    assert_eq!((figures["limit_type"].as_str(), figures["limit_id"].as_str()), ("ENVELOPE", envelope));
    assert_eq!(number("asked_minor"), amount);
    assert!(number("available_minor") < amount && number("available_minor") >= 0, "{figures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_empty_an_envelope_and_never_go_past_it() {
    let world = World::new().await;
    let envelope = world.envelope_of(MONEY).await;
    let client = async |nr: usize| {
        let mut reservations = pb::reservation_service_client::ReservationServiceClient::new(world.budget.channel());
        let mut held = 0;
        for amount in amounts(nr) {
            let request = pb::ReserveRequest { envelope_id: envelope.clone(), ..world.reserve_request(amount) };
            match reservations.reserve(request).await {
                Ok(answer) => {
                    assert!(minor(answer.get_ref().envelope_available.as_ref()) >= 0);
                    held += amount;
                }
                Err(status) => exhausted(Err(status), &envelope, amount),
            }
        }
        held
    };
    let held: i64 = join_all((0..CLIENTS).map(client)).await.into_iter().sum();
    let asked: i64 = (0..CLIENTS).flat_map(amounts).sum();
    assert!(asked > MONEY, "they ask for more than there is: {asked}");
    assert_eq!(world.available(&envelope).await, MONEY - held);
    // The last fen can be had, and then no more.
    let left = MONEY - held;
    let request = |amount| pb::ReserveRequest { envelope_id: envelope.clone(), ..world.reserve_request(amount) };
    if left > 0 {
        world.reserve_with(request(left)).await.expect("the last of it");
    }
    exhausted(world.reserve_with(request(1)).await, &envelope, 1);
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_twice_and_at_the_same_time_count_once() {
    let world = World::new().await;
    let envelope = world.envelope_of(MONEY).await;
    let call = async |request: pb::ReserveRequest| {
        let mut client = world.reservations();
        (client.reserve(request.clone()).await.map(|answer| answer.into_inner()), request)
    };
    // Each request three times: twice side by side, and once more when both have their answer.
    let client = async |nr: usize| {
        let mut held = Vec::new();
        for amount in amounts(nr).take(2) {
            let request = pb::ReserveRequest { envelope_id: envelope.clone(), ..world.reserve_request(amount) };
            let ((first, request), (second, _)) = tokio::join!(call(request.clone()), call(request));
            let (third, _) = call(request).await;
            match (first, second, third) {
                (Ok(first), Ok(second), Ok(third)) => {
                    assert!(first == second && second == third);
                    held.push((first.reservation.expect("a reservation").reservation_id, amount));
                }
                (Err(first), Err(second), Err(third)) => {
                    assert!(first.message() == second.message() && second.message() == third.message());
                    exhausted(Err(third), &envelope, amount);
                }
                other => panic!("one request, two answers: {other:?}"),
            }
        }
        held
    };
    let held: Vec<_> = join_all((0..CLIENTS).map(client)).await.into_iter().flatten().collect();
    let ids: HashSet<_> = held.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), held.len());
    let sum: i64 = held.iter().map(|(_, amount)| amount).sum();
    assert_eq!(world.available(&envelope).await, MONEY - sum);
    let kept = world.count("SELECT count(*) FROM reservation WHERE envelope_id = $1::uuid", &envelope).await;
    assert_eq!(kept, i64::try_from(held.len()).expect("few"));
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_for_two_envelopes_at_once_has_one_effect() {
    let world = World::new().await;
    let other = world.envelope_of(MONEY).await;
    let available = async || world.available(&other).await + world.available(&world.envelope).await;
    let before = available().await;
    let race = async |_: usize| {
        let request = world.reserve_request(7);
        let second = pb::ReserveRequest { envelope_id: other.clone(), ..request.clone() };
        let (first, second) = tokio::join!(world.reserve_with(request), world.reserve_with(second));
        let (won, lost) = if first.is_ok() { (first, second) } else { (second, first) };
        won.expect("one of them is held");
        assert_eq!(violations(lost), [("request_id".to_owned(), "REQUEST_ID_REUSED".to_owned())]);
    };
    join_all((0..32).map(race)).await;
    assert_eq!(available().await, before - 32 * 7);
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_of_a_reservation_resolves_once_however_many_settle_it() {
    let world = World::new().await;
    let held = world.reserve(100).await.expect("held").reservation_id;
    let (world, held) = (&world, held.as_str());
    // 32 want to commit 7 and 32 want to release 5: together 384 of 100.
    let commits = join_all((0..32).map(|_| world.commit(held, Some(7))));
    let releases = join_all((0..32).map(|_| world.release(held, Some(5))));
    let (commits, releases) = tokio::join!(commits, releases);
    let count = |answers: Vec<Result<pb::Reservation, Status>>, amount: i64| {
        let (done, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        for refusal in refusals {
            let figures = refused(refusal, Code::FailedPrecondition, "RESERVATION_EXHAUSTED");
            assert_eq!((figures["limit_id"].as_str(), figures["asked_minor"].as_str()), (held, amount.to_string().as_str()));
            assert!(figures["available_minor"].parse::<i64>().expect("a number") < amount);
        }
        amount * i64::try_from(done.len()).expect("few")
    };
    let (committed, released) = (count(commits, 7), count(releases, 5));
    let [left, owed, paid, given] = parts(&world.get(held).await.expect("there"));
    assert_eq!([owed, paid, given], [committed, 0, released]);
    assert!((0..5).contains(&left), "all that could be settled is: {left} of 100 is left");

    // And what is owed is paid once.
    let payments = join_all((0..16).map(|_| world.spend(held, None))).await;
    assert_eq!(payments.iter().filter(|p| p.is_ok()).count(), 1);
    // Commit of the whole against release of the whole: one of them has it. To release nothing is no error.
    for _ in 0..8 {
        let held = world.reserve(10).await.expect("held").reservation_id;
        let (commit, release) = tokio::join!(world.commit(&held, None), world.release(&held, None));
        release.expect("releases what there is");
        let expected = if commit.is_ok() { [0, 10, 0, 0] } else { [0, 0, 0, 10] };
        assert_eq!(parts(&world.get(&held).await.expect("there")), expected);
    }
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_and_commits_at_the_same_time_keep_the_money_whole() {
    let world = World::new().await;
    let request = |_| pb::ReserveRequest {
        time_to_live: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..world.reserve_request(10)
    };
    // More than the sweep takes in one step.
    let held = join_all((0..150).map(request).map(|request| world.reserve_with(request))).await;
    let held: Vec<String> = held.into_iter().map(|held| held.expect("held").reservation_id).collect();
    world.budget.advance(std::time::Duration::from_secs(61)).await;
    let commits = join_all(held.iter().step_by(2).map(|held| world.commit(held, Some(4))));
    let (commits, ()) = tokio::join!(commits, world.pass(std::time::Duration::ZERO));
    commits.into_iter().for_each(|commit| assert_eq!(parts(&commit.expect("reserved again")), [0, 4, 0, 10]));
    assert_eq!(world.balances().await, [0, 75 * 4, 0, ENVELOPE - 75 * 4]);
    let expired =
        world.count("SELECT count(*) FROM ledger_entry WHERE envelope_id = $1::uuid AND kind = 'EXPIRE'", &world.envelope);
    assert_eq!(expired.await, 150);
    world.verified().await;
}
