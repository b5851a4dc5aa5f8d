//! What the clock does: deliveries that are late, reviews that are late, holds that ran out.

use crate::world::{DAY, DELIVERY_DAYS, PATIENCE, Settlement, State, World, fen, id, minor, refused};
use koc_proto::koc::{
    budget::v1 as budget,
    task::v1::{self as pb, ReviewVerdict as Verdict, SubmissionStage as Stage},
};
use koc_tests::wait;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn what_is_not_delivered_in_time_expires_and_what_is_waits_for_its_review() {
    let world = World::new().await;
    let task = world.task_with(|_| {}).await;
    let [idle, sent_back, concept, draft, live] = [0; 5].map(|_| world.in_progress_in(&task));
    let (idle, sent_back, concept, draft, live) = (idle.await, sent_back.await, concept.await, draft.await, live.await);
    let hand_in = async |a: &pb::Assignment, stage| world.submit(&a.assignment_id, stage, &["article"]).await.expect("in time");
    let back = hand_in(&sent_back, Stage::Draft).await;
    world.review(&sent_back.assignment_id, &back, Verdict::ChangesRequested, &[]).await.expect("sent back");
    let (concept_work, draft_work, live_work) =
        (hand_in(&concept, Stage::Concept).await, hand_in(&draft, Stage::Draft).await, hand_in(&live, Stage::Live).await);
    assert_eq!(world.money().await, [500_000, 0, 400_000]);

    world.task.advance(DAY * DELIVERY_DAYS).await;
    let late =
        refused(world.submit(&live.assignment_id, Stage::Live, &["video"]).await, Code::FailedPrecondition, "DELIVERY_CLOSED");
    assert!(late.contains_key("delivery_deadline"), "{late:?}");
    for ended in [&idle, &sent_back] {
        let expired = world.wait_for(&ended.assignment_id, State::Expired, Settlement::Settled).await;
        assert_eq!(minor(world.reservation(&expired.reservation_id).await.released.as_ref()), 100_000);
        let closed = refused(world.decline(&ended.assignment_id).await, Code::FailedPrecondition, "ASSIGNMENT_STATE");
        assert_eq!(closed["state"], "EXPIRED");
    }
    assert_eq!(world.money().await, [300_000, 0, 600_000]);

    // Reviewed late: what is good is paid, what would need more work is over.
    world.review(&concept.assignment_id, &concept_work, Verdict::Approved, &[]).await.expect("reviewed");
    world.review(&draft.assignment_id, &draft_work, Verdict::ChangesRequested, &[]).await.expect("reviewed");
    world.review(&live.assignment_id, &live_work, Verdict::Approved, &[]).await.expect("reviewed");
    world.wait_for(&concept.assignment_id, State::Expired, Settlement::Settled).await;
    world.wait_for(&draft.assignment_id, State::Expired, Settlement::Settled).await;
    world.complete(&live.assignment_id).await.expect("completed");
    world.wait_for(&live.assignment_id, State::Completed, Settlement::Settled).await;
    assert_eq!(world.money().await, [0, 60_000, 840_000]);
    assert_eq!(world.places(&task).await, (1, 1));
}

#[tokio::test]
async fn a_deadline_that_was_called_too_early_is_called_again() {
    let world = World::new().await;
    let task = world.task_with(|_| {}).await;
    let late = world.in_progress_in(&task).await;
    let offered = world.offer(&task, &world.member().await).await.expect("offered");
    let admin = &world.task.database.admin;
    // As by a clock that steps back between the look for due jobs and the job's own.
    let due = "UPDATE job SET run_time = koc_now() WHERE NOT done";
    assert_eq!(sqlx::query(due).execute(admin).await.expect("set").rows_affected(), 2);
    wait::until("both to be put off", PATIENCE, async || {
        let sql = "SELECT count(*) FROM job WHERE NOT done AND attempt = 2 AND run_time > koc_now() + interval '6 days'";
        let put_off: i64 = sqlx::query_scalar(sql).fetch_one(admin).await.expect("counted");
        (put_off == 2).then_some(())
    })
    .await;
    assert_eq!(world.get(&offered.assignment_id).await.expect("found").state(), State::Offered);
    world.task.advance(DAY * DELIVERY_DAYS).await;
    world.wait_for(&offered.assignment_id, State::Expired, Settlement::None).await;
    world.wait_for(&late.assignment_id, State::Expired, Settlement::Settled).await;
    assert_eq!(world.money().await, [0, 0, 900_000]);
}

/// Lets both clocks pass the end of all holds of 44 days, and waits until the budget has taken them back.
async fn outlive_holds(world: &World) {
    world.task.advance(DAY * 45).await;
    world.budget.advance(DAY * 45).await;
    wait::until("the holds to run out", PATIENCE, async || (world.money().await[0] == 0).then_some(())).await;
}

#[tokio::test]
async fn a_hold_that_ran_out_is_paid_from_what_is_available_and_asked_for_until_it_is() {
    let world = World::new().await;
    let task = world.task_with(|_| {}).await;
    let (paid, given_up, owed) =
        (world.in_progress_in(&task).await, world.in_progress_in(&task).await, world.in_progress_in(&task).await);
    for assignment in [&paid, &given_up, &owed] {
        let it = assignment.assignment_id.as_str();
        let live = world.submit(it, Stage::Live, &["article", "video"]).await.expect("handed in");
        world.review(it, &live, Verdict::Approved, &["video"]).await.expect("approved");
    }
    outlive_holds(&world).await;
    assert_eq!(world.money().await, [0, 0, 900_000]);

    // The money is there: reserved again and owed in one step.
    world.complete(&paid.assignment_id).await.expect("completed");
    world.wait_for(&paid.assignment_id, State::Completed, Settlement::Settled).await;
    assert_eq!(world.money().await, [0, 40_000, 860_000]);
    // There is nothing to give back any more.
    world.decline(&given_up.assignment_id).await.expect("given up");
    world.wait_for(&given_up.assignment_id, State::Declined, Settlement::Settled).await;
    assert_eq!(world.money().await, [0, 40_000, 860_000]);

    // Somebody else has the money: what is owed stays owed, and is asked for again after an hour.
    let request = budget::ReserveRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        envelope_id: world.envelope.clone(),
        member_id: String::new(),
        purpose: "event/other".into(),
        amount: Some(fen(860_000)),
        time_to_live: None,
        ..Default::default()
    };
    let other = world.reservations().reserve(request).await.expect("held").into_inner().reservation.unwrap_or_default();
    world.complete(&owed.assignment_id).await.expect("completed");
    let asked = async |attempt: i32| {
        wait::until("the refusal", PATIENCE, async || {
            let sql = "SELECT max(attempt) FROM job WHERE kind = 'settle_assignment' AND subject_id = $1::uuid AND NOT done";
            let query = sqlx::query_scalar::<_, Option<i32>>(sql).bind(&owed.assignment_id);
            (query.fetch_one(&world.task.database.admin).await.expect("a job") == Some(attempt)).then_some(())
        })
        .await;
    };
    asked(2).await;
    world.task.advance(Duration::from_secs(3_601)).await;
    asked(3).await;
    let waiting = world.get(&owed.assignment_id).await.expect("found");
    assert_eq!((waiting.state(), waiting.settlement_state()), (State::Completed, Settlement::Settling));
    let request = budget::ReleaseRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        reservation_id: other.reservation_id,
        amount: None,
        ..Default::default()
    };
    world.reservations().release(request).await.expect("given back");
    world.task.advance(Duration::from_secs(3_601)).await;
    world.wait_for(&owed.assignment_id, State::Completed, Settlement::Settled).await;
    assert_eq!(world.money().await, [0, 80_000, 820_000]);
    let told = world.wait_for_changes(&owed.assignment_id, 6).await;
    assert_eq!(told.iter().filter_map(crate::world::fact::<pb::AssignmentSettled>).count(), 1);
}
