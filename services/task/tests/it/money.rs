//! Money: held on acceptance, owed for what was accepted, given back otherwise.

use crate::world::{ENVELOPE_UNITS, Settlement, State, World, content, fact, fen, id, in_days, minor, yuan};
use koc_proto::koc::{budget::v1 as budget, task::v1 as pb};
use koc_tests::wait;

/// Accepts an offer of a new task made by `change` to a member; gives what the budget's answer made of it.
async fn unfunded(world: &World, member: &str, change: impl FnOnce(&mut pb::CreateTaskRequest)) -> (String, pb::Unfunded) {
    let task = world.task_with(change).await;
    let offered = world.offer(&task, member).await.expect("offered");
    let accepted = world.accept(&offered.assignment_id).await.expect("accepted");
    assert_eq!((accepted.state(), accepted.settlement_state()), (State::Reserving, Settlement::None));
    let found = world.wait_for(&offered.assignment_id, State::Unfunded, Settlement::None).await;
    assert_eq!((found.reservation_id.as_str(), world.places(&task).await), ("", (0, 0)));
    world.offer(&task, member).await.expect("the place is free again, also for the same member");
    (task, found.unfunded.expect("it says why"))
}

#[tokio::test]
async fn an_accepted_reward_is_held_in_the_budget_for_its_member_beyond_the_last_review() {
    let world = World::new().await;
    let task = world.task_with(|r| (r.reward, r.review_days) = (Some(fen(123_456)), 5)).await;
    let assignment = world.in_progress_in(&task).await;
    let hold = world.reservation(&assignment.reservation_id).await;
    assert_eq!(hold.purpose, format!("assignment/{}", assignment.assignment_id));
    assert_eq!((&hold.member_id, &hold.envelope_id), (&assignment.member_id, &world.envelope));
    assert_eq!((minor(hold.amount.as_ref()), minor(hold.reserved.as_ref())), (123_456, 123_456));
    // 30 days to the delivery, 5 to its review, a week.
    let days = |t: Option<&prost_types::Timestamp>| t.map(|t| (t.seconds + 300).div_euclid(86_400));
    assert_eq!(days(hold.expire_time.as_ref()), days(Some(&in_days(42))));
    assert_eq!(world.money().await, [123_456, 0, 900_000 - 123_456]);
    assert_eq!(world.places(&task).await, (1, 1));
}

#[tokio::test]
async fn a_refusal_for_money_comes_back_with_its_figures_and_frees_the_place() {
    let world = World::new().await;
    let member = world.member().await;
    let (_, no_money) = unfunded(&world, &member, |r| r.reward = Some(fen(900_001))).await;
    assert_eq!((no_money.reason.as_str(), no_money.limit_type.as_str()), ("ENVELOPE_EXHAUSTED", "ENVELOPE"));
    assert_eq!(no_money.limit_id, world.envelope);
    assert_eq!((minor(no_money.asked.as_ref()), minor(no_money.available.as_ref())), (900_001, 900_000));

    let limit = budget::SetMemberLimitRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member.clone(),
        period_start_time: Some(prost_types::Timestamp { seconds: in_days(0).seconds - 864_000, nanos: 0 }),
        period_end_time: Some(in_days(1_010)),
        limit: Some(yuan(999)),
        decision_id: String::new(),
        reason: "a small beginning".into(),
    };
    world.limits().set_member_limit(limit).await.expect("a limit");
    let (_, limited) = unfunded(&world, &member, |_| {}).await;
    assert_eq!((limited.reason.as_str(), limited.limit_type.as_str()), ("MEMBER_LIMIT_EXHAUSTED", "MEMBER_LIMIT"));
    assert!(limited.limit_id.starts_with(&member), "{}", limited.limit_id);
    assert_eq!((minor(limited.asked.as_ref()), minor(limited.available.as_ref())), (100_000, 99_900));

    // Without figures, as no limit was the cause.
    let (_, unknown) = unfunded(&world, &member, |r| r.envelope_id = id()).await;
    assert_eq!((unknown.reason.as_str(), unknown.limit_type.as_str(), unknown.asked), ("ENVELOPE_NOT_FOUND", "", None));
    let mut world = world;
    let idle_envelope = world.idle_envelope().await;
    let (_, idle) = unfunded(&world, &member, |r| r.envelope_id = idle_envelope).await;
    assert_eq!((idle.reason.as_str(), idle.available), ("PLAN_STATE", None));
    assert_eq!(world.money().await, [0, 0, ENVELOPE_UNITS * 100]);
}

/// A published brief whose deliverables have these weights, named `d0` and so on.
async fn weighted(world: &World, weights: &[i32]) -> String {
    let spec = |(i, weight_percent): (usize, &i32)| pb::DeliverableSpec {
        deliverable_key: format!("d{i}"),
        weight_percent: *weight_percent,
        ..content().deliverables[0].clone()
    };
    let content = pb::BriefContent { deliverables: weights.iter().enumerate().map(spec).collect(), ..content() };
    let request = pb::CreateBriefRequest { content: Some(content), ..world.brief_request() };
    let brief = world.briefs().create_brief(request).await.expect("a brief").into_inner().brief.unwrap_or_default();
    world.publish_brief(&brief.brief_id).await.expect("published");
    brief.brief_id
}

#[tokio::test]
async fn what_is_accepted_is_owed_by_weight_to_the_last_fen_and_the_rest_goes_back() {
    let world = World::new().await;
    let brief = weighted(&world, &[33, 33, 34]).await;
    let mut owed = 0;
    // Of 1.01: 0.33, 0.33 and 0.35, as the remainder of the last part is the largest. Of 1.00 each gets its percent. One fen is
    // all the last one's: the others earn nothing, and what they are worth goes back.
    for (reward, keys, costs) in [
        (101, vec!["d0", "d1", "d2"], vec![33, 33, 35]),
        (101, vec!["d0", "d2"], vec![33, 35]),
        (101, vec!["d1"], vec![33]),
        (100, vec!["d2"], vec![34]),
        (1, vec!["d2"], vec![1]),
        (1, vec!["d0", "d1"], vec![0, 0]),
    ] {
        let task = world.task_with(|r| (r.brief_id, r.reward) = (brief.clone(), Some(fen(reward)))).await;
        let assignment = world.in_progress_in(&task).await;
        let settled = world.finish(&assignment.assignment_id, &keys).await;
        let earned: i64 = costs.iter().sum();
        assert_eq!(minor(settled.earned.as_ref()), earned);
        assert_eq!(settled.accepted_deliverable_keys, keys);
        let paid = world.reservation(&assignment.reservation_id).await;
        let parts = [&paid.amount, &paid.reserved, &paid.committed, &paid.spent, &paid.released].map(|m| minor(m.as_ref()));
        assert_eq!(parts, [reward, 0, earned, 0, reward - earned]);
        owed += earned;

        let changes = world.wait_for_changes(&assignment.assignment_id, 6).await;
        let facts: Vec<_> = changes.iter().filter_map(fact::<pb::AssignmentSettled>).collect();
        let [told] = facts.as_slice() else { panic!("told once, not {} times", facts.len()) };
        assert_eq!(minor(told.earned.as_ref()), earned);
        let parts: Vec<_> = told.deliverables.iter().map(|d| (d.deliverable_key.as_str(), minor(d.cost.as_ref()))).collect();
        assert_eq!(parts, keys.iter().copied().zip(costs).collect::<Vec<_>>());
    }
    assert_eq!(world.money().await, [0, owed, 900_000 - owed]);
}

#[tokio::test]
async fn a_partial_approval_pays_its_part_and_is_told_with_what_it_should_reach() {
    let world = World::new().await;
    let assignment = world.in_progress().await;
    let it = assignment.assignment_id.as_str();
    let live = world.submit(it, pb::SubmissionStage::Live, &["video", "article"]).await.expect("handed in");
    world.review(it, &live, pb::ReviewVerdict::Approved, &["video"]).await.expect("approved");
    let completed = world.complete(it).await.expect("completed");
    assert_eq!((completed.state(), completed.settlement_state()), (State::Completed, Settlement::Settling));
    assert_eq!(completed.earned, Some(yuan(400)));
    world.wait_for(it, State::Completed, Settlement::Settled).await;
    assert_eq!(world.money().await, [0, 40_000, 860_000]);

    let changes = world.wait_for_changes(it, 6).await;
    let told = changes.iter().find_map(fact::<pb::AssignmentSettled>).expect("it is told");
    let expected = pb::AssignmentSettled {
        assignment_id: it.into(),
        task_id: assignment.task_id.clone(),
        member_id: assignment.member_id.clone(),
        tier_id: "BASE".into(),
        brief_id: assignment.brief_id.clone(),
        brief_revision: 1,
        reservation_id: assignment.reservation_id.clone(),
        earned: Some(yuan(400)),
        deliverables: vec![pb::AcceptedDeliverable {
            deliverable_key: "video".into(),
            kind: pb::DeliverableKind::Video.into(),
            cost: Some(yuan(400)),
            platform: "XIAOHONGSHU".into(),
            publish_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
        }],
        // Those for all and those of the member's tier.
        output_targets: content().output_targets[..2].to_vec(),
    };
    assert_eq!(told, expected);
}

#[tokio::test]
async fn work_that_is_given_up_gives_all_its_money_back_at_each_stage() {
    let world = World::new().await;
    let task = world.task_with(|_| {}).await;
    let (started, handed_in, sent_back) =
        (world.in_progress_in(&task).await, world.in_progress_in(&task).await, world.in_progress_in(&task).await);
    world.submit(&handed_in.assignment_id, pb::SubmissionStage::Draft, &["article"]).await.expect("handed in");
    let draft = world.submit(&sent_back.assignment_id, pb::SubmissionStage::Draft, &["article"]).await.expect("handed in");
    world.review(&sent_back.assignment_id, &draft, pb::ReviewVerdict::ChangesRequested, &[]).await.expect("sent back");
    assert_eq!(world.money().await, [300_000, 0, 600_000]);
    for assignment in [started, handed_in, sent_back] {
        let declined = world.decline(&assignment.assignment_id).await.expect("given up");
        assert_eq!((declined.state(), declined.settlement_state()), (State::Declined, Settlement::Settling));
        let ended = world.wait_for(&assignment.assignment_id, State::Declined, Settlement::Settled).await;
        let released = world.reservation(&ended.reservation_id).await;
        assert_eq!((minor(released.reserved.as_ref()), minor(released.released.as_ref())), (0, 100_000));
    }
    assert_eq!(world.money().await, [0, 0, 900_000]);
    assert_eq!(world.places(&task).await, (0, 0));
    // Nothing is left to be done about any of them.
    wait::until("all jobs to be done", crate::world::PATIENCE, async || {
        let sql = "SELECT count(*) FROM job WHERE NOT done";
        let left: i64 = sqlx::query_scalar(sql).fetch_one(&world.task.database.admin).await.expect("counted");
        (left == 0).then_some(())
    })
    .await;
}
