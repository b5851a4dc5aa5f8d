//! What becomes of a member's work when the member is erased.

use crate::world::{Settlement, State, World, id, refused};
use koc_proto::koc::task::v1::{ReviewVerdict as Verdict, SubmissionStage as Stage};
use koc_tests::erasure::{erase, followed};
use tonic::Code;

#[tokio::test]
async fn an_erased_members_words_go_and_work_that_was_accepted_is_paid() {
    let world = World::new().await;
    let tasks = [world.task_with(|_| {}).await, world.task_with(|_| {}).await, world.task_with(|_| {}).await];
    let member = world.member().await;
    let mut ids = Vec::new();
    for task in &tasks {
        ids.push(world.offer(task, &member).await.expect("offered").assignment_id);
    }
    let [accepted, working, offered] = [&ids[0], &ids[1], &ids[2]];
    for it in [accepted, working] {
        world.accept(it).await.expect("accepted");
        world.wait_for(it, State::InProgress, Settlement::Held).await;
    }
    let live = world.submit(accepted, Stage::Live, &["article", "video"]).await.expect("handed in");
    world.review(accepted, &live, Verdict::Approved, &["article"]).await.expect("approved");
    let concept = world.submit(working, Stage::Concept, &["article"]).await.expect("handed in");
    world.review(working, &concept, Verdict::ChangesRequested, &[]).await.expect("sent back");
    // Another's work in the same task stays as it is.
    let other = world.in_progress_in(&tasks[1]).await.assignment_id;
    world.submit(&other, Stage::Concept, &["article"]).await.expect("handed in");
    let again = world.submit_request(working, Stage::Draft, &["video"]);
    let first = world.assignments().submit_work(again.clone()).await.expect("handed in").into_inner();
    assert_eq!(first.assignment.expect("shown").assignment_id, *working);

    let erasure = erase(world.registry.channel(), &world.programme, &member).await.expect("erased");
    let counts = followed(world.registry.channel(), &world.programme, &erasure.erasure_id, "task").await;

    assert_eq!((counts["submitted_deliverable"], counts["review"]), (4, 2));
    world.wait_for(accepted, State::Completed, Settlement::Settled).await;
    world.wait_for(working, State::Declined, Settlement::Settled).await;
    assert_eq!(world.get(offered).await.expect("found").state(), State::Expired);
    // The article's 60 % is owed, the rest went back; the other's hold stands.
    assert_eq!(world.money().await, [100_000, 60_000, 740_000]);
    assert_eq!(world.places(&tasks[1]).await, (1, 1));
    let left = "SELECT count(*) FROM submitted_deliverable AS d JOIN submission AS s USING (submission_id)
                JOIN assignment AS a USING (assignment_id) LEFT JOIN review AS r ON r.submission_id = s.submission_id
                WHERE a.member_id = $1::uuid AND (d.url IS NOT NULL OR d.body IS NOT NULL OR r.remark IS NOT NULL)";
    let left: i64 = sqlx::query_scalar(left).bind(&member).fetch_one(&world.task.database.admin).await.expect("a number");
    assert_eq!(left, 0);
    let kept = world.get(&other).await.expect("found").submissions;
    assert!(!kept[0].deliverables[0].text.is_empty() && !kept[0].deliverables[0].url.is_empty());

    // A retry of what was said before is refused, as its answer is gone, and has no effect.
    refused(world.assignments().submit_work(again).await, Code::FailedPrecondition, "MEMBER_ERASED");
    // And nothing begins anew.
    refused(world.offer(&tasks[0], &member).await, Code::NotFound, "MEMBER_NOT_FOUND");
    let stranger = erase(world.registry.channel(), &world.programme, &id()).await;
    refused(stranger, Code::NotFound, "MEMBER_NOT_FOUND");
}
