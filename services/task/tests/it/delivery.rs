//! Work handed in and judged.

use crate::world::{Settlement, State, World, deliverable, id, refused, violations};
use koc_proto::koc::task::v1::{self as pb, ReviewVerdict as Verdict, SubmissionStage as Stage};
use tonic::Code;

#[tokio::test]
async fn work_goes_through_its_stages_to_an_approved_live_submission() {
    let world = World::new().await;
    let assignment = world.in_progress().await;
    let it = assignment.assignment_id.as_str();
    let settlement = |a: &pb::Assignment| (a.state(), a.settlement_state());
    assert_eq!(refused(world.complete(it).await, Code::FailedPrecondition, "ASSIGNMENT_STATE")["state"], "IN_PROGRESS");
    let early = world.review(it, &id(), Verdict::Approved, &[]).await;
    assert_eq!(refused(early, Code::FailedPrecondition, "ASSIGNMENT_STATE")["state"], "IN_PROGRESS");

    // A concept and a draft send the member back to work.
    let concept = world.submit(it, Stage::Concept, &["article"]).await.expect("handed in");
    let approved = world.review(it, &concept, Verdict::Approved, &[]).await.expect("reviewed");
    assert_eq!(settlement(&approved), (State::InProgress, Settlement::Held));
    let draft = world.submit(it, Stage::Draft, &["article", "video"]).await.expect("handed in");
    let changes = world.review(it, &draft, Verdict::ChangesRequested, &[]).await.expect("reviewed");
    assert_eq!(settlement(&changes), (State::ChangesRequested, Settlement::Held));
    let again = world.review(it, &draft, Verdict::Approved, &[]).await;
    assert_eq!(refused(again, Code::FailedPrecondition, "ASSIGNMENT_STATE")["state"], "CHANGES_REQUESTED");
    refused(world.complete(it).await, Code::FailedPrecondition, "ASSIGNMENT_STATE");

    // Only the latest submission counts, and only a LIVE one can be completed.
    let second = world.submit(it, Stage::Draft, &["article"]).await.expect("handed in");
    let third = world.submit(it, Stage::Live, &["article", "video"]).await.expect("handed in");
    for earlier in [&draft, &second, &id()] {
        let late = world.review(it, earlier, Verdict::Approved, &[]).await;
        assert_eq!(refused(late, Code::FailedPrecondition, "SUBMISSION_NOT_LATEST")["latest_submission_id"], third);
    }
    refused(world.complete(it).await, Code::FailedPrecondition, "NOTHING_ACCEPTED");
    let live = world.review(it, &third, Verdict::Approved, &["video"]).await.expect("reviewed");
    assert_eq!(settlement(&live), (State::Submitted, Settlement::Held));
    // The reviewer may think again, until it is completed.
    world.review(it, &third, Verdict::Approved, &["article"]).await.expect("reviewed");
    // A later submission takes what was said back.
    let fourth = world.submit(it, Stage::Live, &["video"]).await.expect("handed in");
    refused(world.complete(it).await, Code::FailedPrecondition, "NOTHING_ACCEPTED");
    world.review(it, &fourth, Verdict::Approved, &[]).await.expect("reviewed");
    let completed = world.complete(it).await.expect("completed");
    assert_eq!(completed.accepted_deliverable_keys, ["video"]);
    for late in [world.submit(it, Stage::Live, &["video"]).await.map(drop), world.decline(it).await.map(drop)] {
        assert_eq!(refused(late, Code::FailedPrecondition, "ASSIGNMENT_STATE")["state"], "COMPLETED");
    }

    // All of it is kept, oldest first, with text and comments for those who may read them.
    let kept = world.get(it).await.expect("found").submissions;
    let ids: Vec<_> = kept.iter().map(|s| s.submission_id.clone()).collect();
    assert_eq!(ids, [concept, draft, second, third, fourth]);
    assert_eq!(kept[1].deliverables, [deliverable("article"), deliverable("video")]);
    let verdicts: Vec<_> = kept.iter().map(|s| s.review.as_ref().map(pb::Review::verdict)).collect();
    let approved = Some(Verdict::Approved);
    assert_eq!(verdicts, [approved, Some(Verdict::ChangesRequested), None, approved, approved]);
    let last = kept[3].review.clone().expect("reviewed");
    assert_eq!(last.accepted_deliverable_keys, ["article"]);
    assert_eq!((last.comment.as_str(), last.reviewer.as_str()), ("the light is lovely", "tester"));
}

#[tokio::test]
async fn flawed_work_is_refused_with_all_its_flaws_and_changes_nothing() {
    let world = World::new().await;
    let assignment = world.in_progress().await;
    let it = assignment.assignment_id.as_str();
    let mut request = world.submit_request(it, Stage::Live, &["article", "song", "article"]);
    request.deliverables[0].url = String::new();
    request.deliverables[2].publish_time = None;
    let flaws = violations(world.assignments().submit_work(request.clone()).await);
    let named = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let expected = [
        named("deliverables[0]", "LIVE_NEEDS_URL"),
        named("deliverables[1].deliverable_key", "DELIVERABLE_UNKNOWN"),
        named("deliverables[2].deliverable_key", "DELIVERABLE_DUPLICATE"),
        named("deliverables[2]", "LIVE_NEEDS_URL"),
    ];
    assert_eq!(flaws, expected);
    // Not stored: mended, it goes through under the same id.
    request.deliverables = vec![deliverable("article")];
    request.deliverables[0].text = "字".repeat(20_000);
    request.deliverables[0].url = format!("https://example.com/{}", "u".repeat(1_980));
    let submission = world.assignments().submit_work(request).await.expect("mended").into_inner().submission_id;

    let bare = pb::SubmittedDeliverable { deliverable_key: "article".into(), ..Default::default() };
    let mut torn = world.submit_request(it, Stage::Draft, &[]);
    assert_eq!(violations(world.assignments().submit_work(torn.clone()).await), [named("deliverables", "repeated.min_items")]);
    torn.deliverables = vec![pb::SubmittedDeliverable {
        platform: "weibo".into(),
        url: "u".repeat(2_001),
        text: "字".repeat(20_001),
        publish_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
        ..bare
    }];
    let fields: Vec<_> = violations(world.assignments().submit_work(torn).await).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["deliverables[0].platform", "deliverables[0].url", "deliverables[0].text"]);

    let unknown = world.review(it, &submission, Verdict::Approved, &["article", "video", "song"]).await;
    let expected = [1, 2].map(|place| named(&format!("accepted_deliverable_keys[{place}]"), "DELIVERABLE_UNKNOWN"));
    assert_eq!(violations(unknown), expected);
    let now = world.get(it).await.expect("found");
    assert_eq!((now.state(), now.submissions.len()), (State::Submitted, 1));
    assert_eq!(now.submissions[0].review, None);

    refused(world.submit(&id(), Stage::Draft, &["article"]).await, Code::NotFound, "ASSIGNMENT_NOT_FOUND");
    refused(world.review(&id(), &submission, Verdict::Approved, &[]).await, Code::NotFound, "ASSIGNMENT_NOT_FOUND");
    refused(world.complete(&id()).await, Code::NotFound, "ASSIGNMENT_NOT_FOUND");
    refused(world.accept(&id()).await, Code::NotFound, "ASSIGNMENT_NOT_FOUND");
    refused(world.decline(&id()).await, Code::NotFound, "ASSIGNMENT_NOT_FOUND");
    refused(world.get(&id()).await, Code::NotFound, "ASSIGNMENT_NOT_FOUND");
}

#[tokio::test]
async fn an_assignment_takes_fifty_submissions_and_says_so() {
    let world = World::new().await;
    let assignment = world.in_progress().await;
    let it = assignment.assignment_id.as_str();
    let mut last = String::new();
    for _ in 0..50 {
        last = world.submit(it, Stage::Live, &["article"]).await.expect("handed in");
    }
    let one_more = refused(world.submit(it, Stage::Live, &["video"]).await, Code::FailedPrecondition, "SUBMISSION_LIMIT");
    assert_eq!((one_more["subject"].as_str(), one_more["max_submissions"].as_str()), (it, "50"));
    // The last one stands, to be judged and paid.
    world.review(it, &last, Verdict::Approved, &[]).await.expect("reviewed");
    assert_eq!(world.complete(it).await.expect("completed").submissions.len(), 50);
}

#[tokio::test]
async fn rejected_work_ends_the_assignment_and_gives_money_and_place_back() {
    let world = World::new().await;
    let task = world.task_with(|r| r.capacity = 1).await;
    let assignment = world.in_progress_in(&task).await;
    let it = assignment.assignment_id.as_str();
    assert_eq!(world.money().await, [100_000, 0, 800_000]);
    let live = world.submit(it, Stage::Live, &["article"]).await.expect("handed in");
    world.review(it, &live, Verdict::Approved, &[]).await.expect("approved");
    // Also after an approval, while it is not completed.
    let rejected = world.review(it, &live, Verdict::Rejected, &["article"]).await.expect("rejected");
    assert_eq!((rejected.state(), rejected.settlement_state()), (State::Rejected, Settlement::Settling));
    let ended = world.wait_for(it, State::Rejected, Settlement::Settled).await;
    let review = ended.submissions[0].review.clone().expect("reviewed");
    assert_eq!((review.verdict(), review.accepted_deliverable_keys.len()), (Verdict::Rejected, 0));
    assert_eq!((ended.reservation_id, ended.earned), (assignment.reservation_id, None));
    assert_eq!(world.money().await, [0, 0, 900_000]);
    for late in [world.decline(it).await, world.complete(it).await, world.review(it, &live, Verdict::Approved, &[]).await] {
        assert_eq!(refused(late, Code::FailedPrecondition, "ASSIGNMENT_STATE")["state"], "REJECTED");
    }
    world.offer(&task, &assignment.member_id).await.expect("the place is free, also for the same member");
}
