//! Services that go away in the middle: the loop ends right, once.

use crate::{
    seat::{Seat, start_task},
    world::{PATIENCE, Settlement, State, World, fact, fen, id, refused},
};
use koc_proto::koc::{budget::v1 as budget, task::v1 as pb};
use koc_tests::{service, wait};
use sqlx::{Postgres, Transaction};
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

/// A second longer than a worker may keep a step.
const LEASE: Duration = Duration::from_secs(31);

async fn reservations(world: &World) -> Vec<budget::Reservation> {
    let request = budget::ListReservationsRequest { programme_id: world.programme.clone(), ..Default::default() };
    world.reservations().list_reservations(request).await.expect("listed").into_inner().reservations
}

#[tokio::test]
async fn while_the_budget_is_away_all_is_remembered_and_done_when_it_is_back() {
    let mut world = World::new().await;
    let task = world.task_with(|_| {}).await;
    let completing = world.in_progress_in(&task).await;
    let live = world.submit(&completing.assignment_id, pb::SubmissionStage::Live, &["article"]).await.expect("handed in");
    world.review(&completing.assignment_id, &live, pb::ReviewVerdict::Approved, &[]).await.expect("approved");
    let giving_up = world.in_progress_in(&task).await;
    let (kept, dropped) = (world.member().await, world.member().await);
    let kept = world.offer(&task, &kept).await.expect("offered").assignment_id;
    let dropped = world.offer(&task, &dropped).await.expect("offered").assignment_id;

    let costly = world.task_with(|r| r.reward = Some(fen(900_001))).await;
    let dear = world.offer(&costly, &world.member().await).await.expect("offered").assignment_id;

    let away = world.budget.stop().await;
    assert_eq!(world.accept(&kept).await.expect("accepted").state(), State::Reserving);
    world.accept(&dropped).await.expect("accepted");
    let declined = world.decline(&dropped).await.expect("declined while the budget is asked");
    assert_eq!((declined.state(), declined.settlement_state()), (State::Declined, Settlement::Settling));
    // Given up, too, and more than there is: the refusal comes late and changes nothing.
    world.accept(&dear).await.expect("accepted");
    world.decline(&dear).await.expect("declined while the budget is asked");
    world.complete(&completing.assignment_id).await.expect("completed");
    world.decline(&giving_up.assignment_id).await.expect("given up");
    // The place is free at once; the money follows.
    assert_eq!(world.places(&task).await, (2, 2));
    wait::until("the budget to be asked in vain", PATIENCE, async || {
        let sql = "SELECT count(*) FROM job WHERE NOT done AND failures > 0";
        let failed: i64 = sqlx::query_scalar(sql).fetch_one(&world.task.database.admin).await.expect("counted");
        (failed == 5).then_some(())
    })
    .await;
    for id in [&kept, &dropped, &completing.assignment_id, &giving_up.assignment_id] {
        assert_ne!(world.get(id).await.expect("found").settlement_state(), Settlement::Settled, "{id}");
    }

    // The task service restarts meanwhile, too.
    let task_away = world.task.stop().await;
    world.start_budget(away).await;
    assert_eq!(world.money().await, [200_000, 0, 700_000]);
    world.start_task(task_away).await;
    world.task.advance(Duration::from_secs(60)).await;
    world.wait_for(&kept, State::InProgress, Settlement::Held).await;
    world.wait_for(&dropped, State::Declined, Settlement::Settled).await;
    world.wait_for(&dear, State::Declined, Settlement::None).await;
    assert_eq!(world.places(&costly).await, (0, 0));
    world.wait_for(&completing.assignment_id, State::Completed, Settlement::Settled).await;
    world.wait_for(&giving_up.assignment_id, State::Declined, Settlement::Settled).await;
    assert_eq!(world.money().await, [100_000, 60_000, 740_000]);
    assert_eq!(reservations(&world).await.len(), 4, "each was held once");
    assert_eq!(world.places(&task).await, (2, 2));
}

#[tokio::test]
async fn without_the_registry_nothing_is_offered_and_what_is_agreed_goes_on() {
    let mut world = World::new().await;
    let (task, member) = (world.task_with(|_| {}).await, world.member().await);
    let agreed = world.offer(&task, &member).await.expect("offered").assignment_id;
    world.accept(&agreed).await.expect("accepted");
    let open = world.offer(&task, &world.member().await).await.expect("offered").assignment_id;
    let request = pb::OfferAssignmentRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        task_id: task.clone(),
        member_id: world.member().await,
    };
    let away = world.registry.stop().await;
    let answer = world.assignments().offer_assignment(request.clone()).await;
    let wait = answer.as_ref().err().and_then(|status| status.get_details_retry_info());
    assert!(wait.is_some_and(|info| info.retry_delay.is_some()), "it says when to come again");
    assert_eq!(refused(answer, Code::Unavailable, "PEER_UNAVAILABLE")["peer"], "registry");
    // Nothing begins without a word on consent; the currency of a programme is known, and money needs no registry.
    assert_eq!(refused(world.accept(&open).await, Code::Unavailable, "PEER_UNAVAILABLE")["peer"], "registry");
    world.wait_for(&agreed, State::InProgress, Settlement::Held).await;
    assert_eq!(world.finish(&agreed, &["article", "video"]).await.earned, Some(crate::world::yuan(1_000)));

    world.start_registry(away).await;
    let offered = wait::until("the registry to be found again", PATIENCE, async || {
        // Under the same request id: what passes is not kept.
        world.assignments().offer_assignment(request.clone()).await.ok()
    });
    assert!(!offered.await.metadata().contains_key("koc-replayed"));
    let away = world.registry.stop().await;
    let again = world.assignments().offer_assignment(request).await.expect("an answer that was given needs no registry");
    assert!(again.metadata().contains_key("koc-replayed"));
    drop(away);
    assert_eq!(world.places(&task).await, (3, 3));
}

/// The task service in a runtime of its own, to be killed with it.
async fn start_mortal(world: &mut World) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (registry_url, budget_url) = (world.registry.url.clone(), world.budget.url.clone());
    let database = service::database(&koc_task::SCHEMA).await;
    let start = start_task(service::free_address(), database, registry_url, budget_url);
    world.task = Seat::new(runtime.spawn(start).await.expect("started"));
    runtime
}

/// Keeps an assignment's row locked, so that no step about it can commit.
async fn block(world: &World, assignment_id: &str) -> Transaction<'static, Postgres> {
    let mut tx = world.task.database.admin.begin().await.expect("a transaction");
    sqlx::query("SELECT 1 FROM assignment WHERE assignment_id = $1::uuid FOR UPDATE")
        .bind(assignment_id)
        .execute(&mut *tx)
        .await
        .expect("the row is there");
    tx
}

#[tokio::test]
async fn a_service_that_is_killed_after_the_budgets_answer_asks_again_and_counts_once() {
    let mut world = World::new().await;
    for stage in ["accept", "complete"] {
        let runtime = start_mortal(&mut world).await;
        let before = world.money().await;
        let held = reservations(&world).await.len();
        let task = world.task_with(|_| {}).await;
        let it = world.offer(&task, &world.member().await).await.expect("offered").assignment_id;
        let (after, state, settlement) = if stage == "accept" {
            ([before[0] + 100_000, before[1]], State::InProgress, Settlement::Held)
        } else {
            ([before[0], before[1] + 60_000], State::Completed, Settlement::Settled)
        };
        if stage == "complete" {
            world.accept(&it).await.expect("accepted");
            world.wait_for(&it, State::InProgress, Settlement::Held).await;
            let live = world.submit(&it, pb::SubmissionStage::Live, &["article"]).await.expect("handed in");
            world.review(&it, &live, pb::ReviewVerdict::Approved, &[]).await.expect("approved");
        }

        let away = world.budget.stop().await;
        match stage {
            "accept" => world.accept(&it).await.expect("accepted"),
            _ => world.complete(&it).await.expect("completed"),
        };
        let lock = block(&world, &it).await;
        world.start_budget(away).await;
        world.task.advance(Duration::from_secs(60)).await;
        wait::until("the budget to have answered", PATIENCE, async || (world.money().await[..2] == after).then_some(())).await;
        runtime.shutdown_background();
        let killed = world.task.killed();
        lock.rollback().await.expect("the lock is given back");

        world.start_task(killed).await;
        // A connection to the killed service may still be failing.
        let between = wait::until("the service to answer", PATIENCE, async || world.get(&it).await.ok()).await;
        assert_ne!((between.state(), between.settlement_state()), (state, settlement), "{stage}: the answer was lost");
        world.task.advance(LEASE).await;
        world.wait_for(&it, state, settlement).await;
        assert_eq!(world.money().await[..2], after, "{stage}");
        assert_eq!(reservations(&world).await.len(), held + 1, "{stage}");
        let told = world.wait_for_changes(&it, if stage == "accept" { 3 } else { 6 }).await;
        let settled = told.iter().filter_map(fact::<pb::AssignmentSettled>).count();
        assert_eq!(settled, usize::from(stage == "complete"));
    }
}
