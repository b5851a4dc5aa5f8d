//! What this service tells, and what it does with facts of others that it cannot apply.

use crate::world::{HOUR, PATIENCE, World, fact, id, reading, refused, uuid, yuan};
use chrono::TimeDelta;
use futures::StreamExt;
use koc_proto::koc::{
    budget::v1 as budget,
    measurement::v1::{self as pb, Metric, feed_service_client::FeedServiceClient},
};
use koc_tests::wait;
use tonic::Code;

/// What waits: its subject, why, and how often it was tried, by feed and position.
async fn parked(world: &World) -> Vec<(String, String, String, i32)> {
    sqlx::query_as("SELECT source, subject_id::text, reason, attempts FROM parked_fact ORDER BY source, position")
        .fetch_all(&world.measurement.database.admin)
        .await
        .expect("parked facts")
}

async fn wait_for_parked(world: &World, count: usize) -> Vec<(String, String, String, i32)> {
    wait::until("the facts to be parked", PATIENCE, async || {
        let waiting = parked(world).await;
        (waiting.len() == count).then_some(waiting)
    })
    .await
}

#[tokio::test]
async fn a_fact_that_cannot_be_applied_is_parked_with_its_subjects_later_ones_and_others_go_on() {
    let world = World::new().await;
    let member = world.member().await;
    // Something here is not ready for the outputs of one assignment: a whole fact waits, none of its parts.
    let mut held = world.settled(&member, 5, yuan(10));
    held.deliverables.push(held.deliverables[0].clone());
    held.deliverables[1].deliverable_key = "video".into();
    held.tier_id = "GUEST".into();
    let admin = &world.measurement.database.admin;
    let close = "ALTER TABLE output ADD CONSTRAINT output_no_guests CHECK (tier_id <> 'GUEST' OR deliverable_key <> 'video')";
    sqlx::query(close).execute(admin).await.expect("closed");
    // Others will never be applied as they are: money in no currency, a time that is missing, a draw for no output.
    let (mut no_money, mut no_time) = (world.settled(&member, 5, yuan(10)), world.settled(&member, 5, yuan(10)));
    no_money.deliverables[0].cost = Some(koc_proto::google::r#type::Money { currency_code: "???".into(), units: 1, nanos: 0 });
    no_time.deliverables[0].publish_time = None;
    let broken = [&held, &no_money, &no_time].map(|one| (one.assignment_id.as_str(), one.clone()));
    world.tell(&world.task, &broken).await;
    let mut later = world.settled(&member, 5, yuan(10));
    later.assignment_id.clone_from(&held.assignment_id);
    later.deliverables[0].deliverable_key = "photos".into();
    world.tell(&world.task, &[(held.assignment_id.as_str(), later)]).await;
    let draw = budget::ReserveDrawChanged { reserve_draw_id: id(), output_id: "the first one".into(), ..Default::default() };
    world.tell(&world.budget, &[(draw.reserve_draw_id.as_str(), draw.clone())]).await;

    let waiting = wait_for_parked(&world, 5).await;
    let reasons: Vec<_> =
        waiting.iter().map(|(source, subject, reason, _)| (source.as_str(), subject.as_str(), reason.as_str())).collect();
    let assignment = held.assignment_id.as_str();
    assert_eq!((reasons[0].0, reasons[0].1), ("budget", draw.reserve_draw_id.as_str()));
    assert!(reasons[0].2.starts_with("output_id: must be a UUID"), "{reasons:?}");
    assert_eq!((reasons[1].0, reasons[1].1), ("task", assignment));
    assert!(reasons[1].2.contains("output_no_guests"), "{reasons:?}");
    assert_eq!(reasons[2].2, "deliverables.cost is in no currency");
    assert!(reasons[3].2.starts_with("deliverables.publish_time: must be set"), "{reasons:?}");
    assert_eq!((reasons[4].1, reasons[4].2), (assignment, "an earlier fact of its subject is parked"));
    // Others of the same feed and of the other go on.
    let output = world.settle(&[world.settled(&member, 5, yuan(20))]).await.remove(0);
    assert_eq!(world.all_outputs().await.iter().map(|o| o.output_id.as_str()).collect::<Vec<_>>(), [output.as_str()]);
    assert_eq!(world.cost(&output).await, 2_000);

    // Made ready, they are applied in their order, and the rest still shows.
    sqlx::query("ALTER TABLE output DROP CONSTRAINT output_no_guests").execute(admin).await.expect("opened");
    world.measurement.advance(HOUR).await;
    wait::until("the facts to be tried again", PATIENCE, async || {
        let waiting = parked(&world).await;
        let tried = waiting.iter().all(|(_, subject, _, attempts)| subject != assignment && *attempts > 1);
        (waiting.len() == 3 && tried).then_some(())
    })
    .await;
    let mut keys: Vec<_> = world
        .all_outputs()
        .await
        .into_iter()
        .filter(|o| o.assignment_id == held.assignment_id)
        .map(|o| o.deliverable_key)
        .collect();
    assert_eq!(keys.pop().as_deref(), Some("photos"));
    assert_eq!(keys, ["article", "video"]);
}

#[tokio::test]
async fn the_feed_tells_each_change_once_in_order_with_ids_and_figures_alone() {
    let world = World::new().await;
    let elsewhere = id();
    world.create_programme(&elsewhere).await;
    let settled: Vec<_> = (0..3).map(|_| (id(), 40)).map(|(member, days)| world.settled(&member, days, yuan(10))).collect();
    let outputs = world.settle(&settled).await;
    let time = |n: i64| world.ago_days(40) + TimeDelta::hours(n);
    let mut readings: Vec<_> = (1..=30).map(|n| reading(&outputs[0], Metric::Views, 100 * n, time(n))).collect();
    readings.push(reading(&outputs[0], Metric::Views, 9_000, time(31)));
    world.record(readings).await;
    let request = pb::RunDecisionsRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        period_start_time: crate::world::at(world.ago_days(50)),
        period_end_time: crate::world::at(world.ago_days(20)),
        next_period_end_time: crate::world::at(world.ago_days(-10)),
    };
    world.policy(|policy| policy.automatic_actions = Vec::new()).await;
    let made = world.decisions("analyst").run_decisions(request).await.expect("decided").into_inner().decisions;
    let request = pb::ApproveDecisionRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        decision_id: made[0].decision_id.clone(),
        reason: "she told me of her family over dinner".into(),
    };
    world.decisions("controller").approve_decision(request).await.expect("approved");

    // Three outputs, a signal that moves twice, three decisions of which one moves twice.
    let changes = wait::until("the changes to be published", PATIENCE, async || {
        let changes = world.changes().await;
        (changes.len() == 10).then_some(changes)
    })
    .await;
    let positions: Vec<i64> = changes.iter().map(|change| change.position).collect();
    assert_eq!(positions, (1..=10).collect::<Vec<i64>>());
    let registered: Vec<_> = changes.iter().filter_map(fact::<pb::OutputRegistered>).collect();
    assert_eq!(registered.iter().map(|f| f.output_id.clone()).collect::<Vec<_>>(), outputs);
    let signals = changes.iter().filter_map(fact::<pb::SignalChanged>).count();
    let of_first: Vec<_> = changes.iter().filter(|change| change.subject_id == made[0].member_id).collect();
    let states: Vec<_> = of_first.iter().filter_map(|change| fact::<pb::DecisionChanged>(change)).map(|f| f.state()).collect();
    assert_eq!(
        (signals, states),
        (2, vec![pb::DecisionState::Proposed, pb::DecisionState::Applying, pb::DecisionState::Applied])
    );
    let words = "SELECT count(*) FROM told WHERE position(convert_to('dinner', 'UTF8') IN payload) > 0";
    assert_eq!(world.count(words).await, 0);
    let answers = "SELECT count(*) FROM request_record WHERE position(convert_to('dinner', 'UTF8') IN answer) > 0";
    assert_eq!(world.count(answers).await, 0);

    // A stream from the middle, another programme's feed, and one beyond the head.
    let mut feed = FeedServiceClient::new(world.measurement.channel());
    let request = pb::WatchChangesRequest { programme_id: world.programme.clone(), after_position: 7 };
    let mut stream = feed.watch_changes(request).await.expect("a stream").into_inner();
    let mut watched = Vec::new();
    while watched.len() < 3 {
        watched.extend(stream.next().await.expect("more").expect("changes").changes);
    }
    assert_eq!(watched, changes[7..]);
    let request = pb::ListChangesRequest { programme_id: elsewhere, after_position: 0, page_size: 10 };
    let other = feed.list_changes(request).await.expect("a page").into_inner();
    assert_eq!((other.changes.len(), other.head_position), (0, 10));
    let request = pb::ListChangesRequest { programme_id: String::new(), after_position: 11, page_size: 10 };
    let figures = refused(feed.list_changes(request).await, Code::FailedPrecondition, "POSITION_AHEAD");
    assert_eq!(figures["head_position"], "10");
    assert_eq!(uuid(&changes[0].subject_id), uuid(&outputs[0]));
}
