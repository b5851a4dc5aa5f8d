//! Operations of many callers in one transaction: each gets its own answer, and none harms another.

use crate::world::*;
use futures::future::join_all;
use koc_budget::{
    domain::{books::Command, refusal::Refusal},
    error::Error,
    flow::lane::{Lane, OPERATIONS},
    ids::{EnvelopeId, ReservationId},
    store::operation::Operation,
};
use koc_chassis::{
    fault::ServiceError,
    gate::RequestKey,
    lane::{Limits, Unserved},
    money::Currency,
    postgres::Db,
};
use std::sync::Arc;
use tonic::Code;
use uuid::Uuid;

fn uuid(text: &str) -> Uuid {
    Uuid::parse_str(text).expect("an id")
}

/// The service's database, entered as another replica would.
fn db(world: &World) -> Db {
    Db::new(&world.budget.database.app_url, "budget", 2).expect("an address")
}

/// A lane as another replica has it; it works until it is dropped.
fn lane(db: &Db, limits: Limits) -> Lane {
    let (lane, work) = Lane::new(db, limits);
    tokio::spawn(work);
    lane
}

fn operation(world: &World, command: Command) -> Operation {
    let key = RequestKey { programme: uuid(&world.programme), method: "test", request_id: Uuid::now_v7(), hash: vec![1; 32] };
    Operation {
        key,
        command,
        currency: Currency::from_code("CNY").expect("a currency"),
        payment_reference: None,
        actor: "tester".into(),
        client: "tester".into(),
        trace_id: None,
        is_callers: true,
    }
}

fn reserve(world: &World, envelope: &str, amount: i64) -> Operation {
    let command = Command::Reserve {
        reservation: ReservationId::new(),
        envelope: EnvelopeId(uuid(envelope)),
        member: None,
        purpose: "assignment/1".into(),
        amount,
        time_to_live: chrono::TimeDelta::hours(1),
    };
    operation(world, command)
}

fn release(world: &World, reservation: ReservationId) -> Operation {
    operation(world, Command::Release { reservation, amount: None })
}

#[tokio::test]
async fn one_group_is_one_transaction_and_each_operation_in_it_gets_its_own_answer() {
    let world = World::new().await;
    let lane = lane(&db(&world), OPERATIONS);
    let envelope = world.envelope_of(1_000).await;
    let first = reserve(&world, &envelope, 600);
    let reservation = first.command.reservation().expect("it makes one");
    // The same once more; another under its name; one too large, and a smaller one behind it that is not held up.
    let again = reserve(&world, &envelope, 600);
    let again = Operation { key: first.key.clone(), ..again };
    let other = Operation { key: RequestKey { hash: vec![2; 32], ..first.key.clone() }, ..reserve(&world, &envelope, 1) };
    let too_much = reserve(&world, &envelope, 401);
    let refused_again = too_much.clone();
    let small = reserve(&world, &envelope, 400);
    let commit = operation(&world, Command::Commit { reservation, amount: Some(500), release_rest: true });
    let nowhere = reserve(&world, &id(), 1);
    let key = first.key.request_id;
    let group = vec![first, again, other, too_much, refused_again, small, commit, nowhere];
    let answers = lane.run_all(group).await.expect("served");

    let [first, again, other, too_much, refused_again, small, commit, nowhere] = answers.try_into().expect("one each");
    let (first, again) = (first.expect("held"), again.expect("held before"));
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.message, again.message);
    assert_eq!(first.message.available, 400);
    assert!(matches!(other, Err(Error::RequestIdReused)), "{other:?}");
    for refused in [too_much, refused_again] {
        let Err(Error::Refused { refusal: Refusal::EnvelopeExhausted { asked, available, .. }, .. }) = refused else {
            panic!("refused for money: {refused:?}")
        };
        assert_eq!((asked, available), (401, 400));
    }
    assert_eq!(small.expect("held").message.available, 0);
    let parts = commit.expect("owed").message.reservation.expect("a reservation").parts;
    assert_eq!((parts.reserved, parts.committed, parts.released), (0, 500, 100));
    assert!(matches!(nowhere, Err(Error::EnvelopeNotFound(_))), "{nowhere:?}");

    // Kept are four: two holds, a refusal, a commit; by one transaction.
    let kept = "SELECT count(*) FROM operation WHERE xmin = (SELECT xmin FROM operation WHERE request_id = $1::uuid)";
    assert_eq!(world.count(kept, &key.to_string()).await, 4);
    assert_eq!(world.available(&envelope).await, 100);
    world.verified().await;
}

#[tokio::test]
async fn an_operation_that_cannot_be_posted_stands_alone_in_the_end() {
    let world = World::new().await;
    let lane = lane(&db(&world), OPERATIONS);
    let (whole, broken) = (world.envelope_of(1_000).await, world.envelope_of(1_000).await);
    let held = lane.run(reserve(&world, &broken, 100)).await.expect("held").message.reservation.expect("a reservation");
    // Its envelope knows nothing of the hold any more: to give it back does not add up.
    let forget = "UPDATE envelope SET reserved = 0 WHERE envelope_id = $1";
    sqlx::query(forget).bind(uuid(&broken)).execute(&world.budget.database.admin).await.expect("forgotten");
    let mut group: Vec<Operation> = (0..7).map(|_| reserve(&world, &whole, 100)).collect();
    group.insert(4, release(&world, held.id));
    let mut answers = lane.run_all(group).await.expect("served");
    assert!(matches!(answers.remove(4), Err(Error::Imbalance(_))));
    let available: Vec<i64> = answers.into_iter().map(|answer| answer.expect("held").message.available).collect();
    assert_eq!(available, [900, 800, 700, 600, 500, 400, 300], "in order");
    assert_eq!(world.available(&whole).await, 300);
}

#[tokio::test]
async fn what_goes_beyond_the_queue_is_told_to_come_back_and_nothing_of_it_is_done() {
    let world = World::new().await;
    let lane = lane(&db(&world), Limits { group: 2, queue: 3 });
    let envelope = world.envelope_of(1_000).await;
    let group = |size: usize| (0..size).map(|_| reserve(&world, &envelope, 1)).collect::<Vec<_>>();
    let refused = lane.run_all(group(4)).await.expect_err("more than may wait");
    assert!(matches!(refused, Error::Unserved(Unserved::QueueFull)), "{refused:?}");
    let fault = refused.fault();
    assert_eq!((fault.code, fault.reason.as_str(), fault.stored), (Code::ResourceExhausted, "QUEUE_FULL", false));
    assert!(fault.retry_after.is_some());
    assert_eq!(world.available(&envelope).await, 1_000);
    assert!(lane.run_all(group(3)).await.expect("served").iter().all(Result::is_ok));
    assert_eq!(world.available(&envelope).await, 997);
}

#[tokio::test]
async fn who_gives_up_finds_the_answer_under_the_same_request_id() {
    let world = World::new().await;
    let lane = lane(&db(&world), OPERATIONS);
    let asked = reserve(&world, &world.envelope, 70);
    let mut impatient = Box::pin(lane.run(asked.clone()));
    assert!(futures::poll!(impatient.as_mut()).is_pending());
    drop(impatient);
    let answer = lane.run(asked.clone()).await.expect("held");
    assert!(answer.replayed);
    assert_eq!(answer.message.reservation.map(|r| Some(r.id)), Some(asked.command.reservation()));
    assert_eq!(world.balances().await[0], 70);
}

#[tokio::test]
async fn a_used_request_id_is_known_among_new_ones_and_also_where_nothing_would_be_found() {
    let world = World::new().await;
    let lane = lane(&db(&world), OPERATIONS);
    let (used, new) = (reserve(&world, &world.envelope, 70), reserve(&world, &world.envelope, 5));
    let held = lane.run(used.clone()).await.expect("held").message;
    // Many groups later, when keys are taken for new again.
    for _ in 0..70 {
        lane.run(release(&world, held.reservation.as_ref().expect("one").id)).await.expect("released");
    }
    let mut elsewhere = Operation { command: reserve(&world, &Uuid::now_v7().to_string(), 70).command, ..used.clone() };
    elsewhere.key.hash = vec![2; 32]; // another body
    let mut answers = lane.run_all(vec![new, used.clone(), elsewhere.clone()]).await.expect("served").into_iter();
    assert!(!answers.next().expect("first").expect("held").replayed);
    let again = answers.next().expect("second").expect("held before");
    assert_eq!((again.replayed, again.message), (true, held));
    assert!(matches!(answers.next(), Some(Err(Error::RequestIdReused))));
    for _ in 0..70 {
        lane.run(reserve(&world, &world.envelope, 1)).await.expect("held");
    }
    assert!(matches!(lane.run(elsewhere).await, Err(Error::RequestIdReused)), "and alone");
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_on_one_envelope_give_what_is_there_and_each_request_one_answer() {
    const CALLERS: usize = 32;
    let world = World::new().await;
    let envelope = world.envelope_of(500).await;
    let lanes: Vec<Lane> = (0..3).map(|_| lane(&db(&world), OPERATIONS)).collect();
    let lanes = Arc::new(lanes);
    // Each caller sends each request through two replicas at once, as after a lost connection; together they ask for 768.
    let caller = async |nr: usize| {
        let mut held = 0;
        for turn in 0..8 {
            let asked = reserve(&world, &envelope, 3);
            let (first, second) = (&lanes[(nr + turn) % 3], &lanes[(nr + turn + 1) % 3]);
            match tokio::join!(first.run(asked.clone()), second.run(asked)) {
                (Ok(first), Ok(second)) => {
                    assert_eq!(first.message, second.message);
                    assert_ne!(first.replayed, second.replayed);
                    held += 3;
                }
                (Err(Error::Refused { refusal: first, .. }), Err(Error::Refused { refusal: second, .. })) => {
                    assert_eq!(first, second)
                }
                other => panic!("one request, two answers: {other:?}"),
            }
        }
        held
    };
    let held: i64 = join_all((0..CALLERS).map(caller)).await.into_iter().sum();
    assert_eq!((held, world.available(&envelope).await), (498, 2));
    world.verified().await;
}
