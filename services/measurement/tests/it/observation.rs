//! Readings: taken once, late ones and corrections told apart, what is wrong with one never held against its neighbours.

use crate::world::{HOUR, Outcome, PATIENCE, World, at, id, outcomes, reading, refused, violations, yuan};
use chrono::TimeDelta;
use futures::{StreamExt, future::join_all};
use koc_proto::koc::measurement::v1::{self as pb, Metric};
use koc_tests::wait;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

/// A stream of batches: where they are sent, and where their answers come.
async fn open(world: &World) -> (mpsc::Sender<pb::RecordObservationsRequest>, Streaming<pb::RecordObservationsResponse>) {
    let (sender, receiver) = mpsc::channel(1);
    let answers = world.observations().record_observations(ReceiverStream::new(receiver)).await.expect("a stream");
    (sender, answers.into_inner())
}

fn batch(world: &World, batch_number: i64, observations: Vec<pb::Observation>) -> pb::RecordObservationsRequest {
    pb::RecordObservationsRequest { programme_id: world.programme.clone(), batch_number, observations }
}

/// Why a reading was rejected, with the figure that was recorded instead.
fn reason(result: &pb::ObservationResult) -> (String, Option<String>) {
    let wire = result.status.as_ref().expect("a rejected reading says why");
    let status = Status::with_details(Code::from(wire.code), wire.message.clone(), wire.encode_to_vec().into());
    let info = status.get_error_details().error_info().cloned().expect("a reason");
    let rule = status.get_error_details().bad_request().and_then(|b| b.field_violations.first().map(|v| v.field.clone()));
    (info.reason, rule.or_else(|| info.metadata.get("recorded_value").cloned()))
}

#[tokio::test]
async fn each_reading_of_a_stream_is_judged_by_itself_and_sent_again_changes_nothing() {
    let world = World::new().await;
    let output = world.output(10, yuan(100)).await;
    let hour = |n: i64| world.ago_days(9) + TimeDelta::hours(n);
    let views = |n: i64, value| reading(&output, Metric::Views, value, hour(n));
    let (sender, mut answers) = open(&world).await;
    use Outcome::{Adjusted, Duplicate, Late, Recorded, Rejected};

    let first = vec![views(1, 100), views(6, 250), views(4, 180), reading(&output, Metric::Likes, 10, hour(6))];
    sender.send(batch(&world, 1, first.clone())).await.expect("the stream is open");
    let answer = answers.next().await.expect("an answer").expect("taken");
    assert_eq!(answer.committed_through, 1);
    assert_eq!(outcomes(&answer.results), [Recorded; 4]);

    let now = world.start + TimeDelta::minutes(9);
    let second = vec![
        views(2, 150),
        views(1, 100),
        views(1, 101),
        reading(&id(), Metric::Views, 1, hour(7)),
        reading(&output, Metric::Saves, 1, world.start + TimeDelta::minutes(30)),
        reading(&output, Metric::Saves, -1, hour(7)),
        pb::Observation { metric: 0, ..views(8, 1) },
        pb::Observation { metric: 99, ..views(8, 1) },
        pb::Observation { observe_time: None, ..views(8, 1) },
        pb::Observation { output_id: "the first one".into(), ..views(8, 1) },
        reading(&output, Metric::Saves, 1_000_000_000_000_001, hour(7)),
        reading(&output, Metric::Follows, 1_000_000_001, hour(7)),
        views(7, 240),
        pb::Observation { paid: true, ..views(7, 70) },
        reading(&output, Metric::Likes, 20, hour(2)),
        views(7, 240),
        views(7, 999),
        reading(&output, Metric::Shares, 3, now),
    ];
    sender.send(batch(&world, 2, second.clone())).await.expect("the stream is open");
    let answer = answers.next().await.expect("an answer").expect("taken");
    assert_eq!(answer.committed_through, 2);
    let told = outcomes(&answer.results);
    assert_eq!(told[..2], [Late, Duplicate]);
    assert_eq!(told[2..12], [Rejected; 10]);
    assert_eq!(told[12..], [Adjusted, Recorded, Late, Duplicate, Rejected, Recorded]);
    let reasons: Vec<_> = answer.results[2..12].iter().map(reason).collect();
    assert_eq!(reasons[0], ("OBSERVATION_CONFLICT".to_owned(), Some("100".to_owned())));
    assert_eq!(reasons[1].0, "OUTPUT_NOT_FOUND");
    let fields = ["observe_time", "value", "metric", "metric", "observe_time", "output_id", "value", "value"];
    assert_eq!(reasons[2..].iter().map(|r| r.1.as_deref().unwrap_or_default()).collect::<Vec<_>>(), fields);
    assert!(reasons[2..].iter().all(|r| r.0 == "FIELD_VIOLATIONS"), "{reasons:?}");
    let indices: Vec<i32> = answer.results.iter().map(|r| r.index).collect();
    assert_eq!(indices, (0..18).collect::<Vec<i32>>());

    // Organic apart from paid; a counter that stepped back is flagged, whichever of its readings came first.
    let totals = world.get_output(&output).await.expect("there").totals;
    let total = |metric: Metric, paid| totals.iter().find(|t| t.metric() == metric && t.paid == paid).cloned().expect("read");
    let shown = |t: pb::MetricTotal| (t.value, t.observe_time, t.adjusted);
    assert_eq!(shown(total(Metric::Views, false)), (240, at(hour(7)), true));
    assert_eq!(shown(total(Metric::Views, true)), (70, at(hour(7)), false));
    assert_eq!(shown(total(Metric::Likes, false)), (10, at(hour(6)), true));
    assert_eq!(shown(total(Metric::Shares, false)), (3, at(now), false));
    assert_eq!(totals.len(), 4);

    let rows = world.count("SELECT count(*) FROM observation").await;
    assert_eq!(rows, 9);
    for again in [first, second] {
        let results = world.record(again).await;
        assert!(outcomes(&results).iter().all(|o| matches!(o, Duplicate | Rejected)), "{results:?}");
    }
    assert_eq!(world.get_output(&output).await.expect("there").totals, totals);
    assert_eq!(world.count("SELECT count(*) FROM observation").await, rows);
}

#[tokio::test]
async fn a_stream_ends_at_a_batch_out_of_order_and_when_the_service_goes_and_keeps_what_it_acknowledged() {
    let mut world = World::new().await;
    let output = world.output(10, yuan(100)).await;
    let nine_days_ago = world.ago_days(9);
    let views = |n: i64| vec![reading(&output, Metric::Views, n, nine_days_ago + TimeDelta::hours(n))];

    let (sender, mut answers) = open(&world).await;
    sender.send(batch(&world, 1, views(1))).await.expect("the stream is open");
    answers.next().await.expect("an answer").expect("taken");
    sender.send(batch(&world, 3, views(3))).await.expect("the stream is open");
    assert_eq!(violations(answers.next().await.expect("an answer")), [("batch_number".into(), "BATCH_NUMBER".into())]);
    assert!(answers.next().await.is_none());

    let (sender, mut answers) = open(&world).await;
    sender.send(batch(&world, 1, Vec::new())).await.expect("the stream is open");
    let broken = violations(answers.next().await.expect("an answer"));
    assert_eq!(broken[0].0, "observations");

    let (sender, mut answers) = open(&world).await;
    sender.send(batch(&world, 1, views(2))).await.expect("the stream is open");
    answers.next().await.expect("an answer").expect("taken");
    let gone = async {
        let answer = answers.next().await.expect("an answer");
        refused(answer, Code::Unavailable, "DRAINING")
    };
    tokio::join!(world.measurement.stop(), gone);
    drop(sender);
    world.start_measurement().await;

    // What was acknowledged is there; what was not is sent again, with what was.
    let all: Vec<_> = (1..=3).flat_map(views).collect();
    assert_eq!(outcomes(&world.record(all).await), [Outcome::Duplicate, Outcome::Duplicate, Outcome::Recorded]);
    let totals = world.get_output(&output).await.expect("there").totals;
    assert_eq!((totals[0].value, totals.len()), (3, 1));

    // A clock that is finer than what is kept: the same reading all the same.
    let fine = prost_types::Timestamp { nanos: 123_456_789, ..at(world.start).unwrap_or_default() };
    let fine = pb::Observation { observe_time: Some(fine), ..reading(&output, Metric::Views, 9, world.start) };
    let past = pb::Observation { observe_time: at(world.start), ..fine.clone() };
    assert_eq!(outcomes(&world.record(vec![past, fine.clone()]).await), [Outcome::Recorded; 2]);
    assert_eq!(outcomes(&world.record(vec![fine]).await), [Outcome::Duplicate]);
}

#[tokio::test]
async fn readings_sent_at_the_same_time_by_many_count_once() {
    let world = World::new().await;
    let member = world.member().await;
    let settled: Vec<_> = (0..4).map(|_| world.settled(&member, 10, yuan(100))).collect();
    let outputs = world.settle(&settled).await;
    // Each sender has the outputs in another order.
    let readings = |turn: usize| -> Vec<pb::Observation> {
        let all = (0..40_i64).flat_map(|n| outputs.iter().map(move |output| (n, output)));
        let mut all: Vec<_> =
            all.map(|(n, output)| reading(output, Metric::Views, 10 * n, world.ago_days(9) + TimeDelta::minutes(n))).collect();
        all.rotate_left(turn * 37);
        all
    };
    let answers = join_all((0..4).map(|turn| world.record(readings(turn)))).await;
    let recorded = answers.iter().flatten().filter(|r| r.outcome() != Outcome::Duplicate).count();
    assert_eq!(recorded, 160);
    assert_eq!(world.count("SELECT count(*) FROM observation").await, 160);
    for output in world.all_outputs().await {
        assert_eq!((output.totals[0].value, output.totals[0].adjusted), (390, false));
    }
}

#[tokio::test]
async fn targets_are_reached_by_what_was_read_in_time_organic_and_paid() {
    use koc_proto::koc::task::v1::{Metric as TaskMetric, OutputTarget};
    let world = World::new().await;
    let mut settled = world.settled(&world.member().await, 20, yuan(100));
    let target = |metric: TaskMetric, target_value, within_days| OutputTarget {
        metric: metric.into(),
        target_value,
        within_days,
        tier_id: String::new(),
    };
    settled.output_targets = vec![target(TaskMetric::Views, 1_000, 10), target(TaskMetric::Likes, 50, 30)];
    let output = world.settle(&[settled]).await.remove(0);
    let day = |n: i64| world.ago_days(20) + TimeDelta::days(n);
    let paid = |value, n| pb::Observation { paid: true, ..reading(&output, Metric::Views, value, day(n)) };
    let organic = |value, n| reading(&output, Metric::Views, value, day(n));
    world.record(vec![organic(600, 5), organic(900, 10), organic(5_000, 11), paid(100, 9), paid(600, 12)]).await;

    let found = world.get_output(&output).await.expect("there").attainments;
    let shown: Vec<_> = found.iter().map(|a| (a.metric(), a.target_value, a.reached_value, a.due_time)).collect();
    assert_eq!(shown, [(Metric::Views, 1_000, 1_000, at(day(10))), (Metric::Likes, 50, 0, at(day(30)))]);
    assert!((found[0].attainment - 1.0).abs() < 1e-12 && found[1].attainment.abs() < 1e-12);
}

#[tokio::test]
async fn a_source_whose_clock_is_ahead_waits_until_its_time_has_come() {
    let world = World::new().await;
    let output = world.output(1, yuan(100)).await;
    let ahead = vec![reading(&output, Metric::Views, 5, world.start + TimeDelta::hours(2))];
    assert_eq!(outcomes(&world.record(ahead.clone()).await), [Outcome::Rejected]);
    world.measurement.advance(2 * HOUR).await;
    assert_eq!(outcomes(&world.record(ahead).await), [Outcome::Recorded]);
    wait::until("the total to show", PATIENCE, async || {
        let totals = world.get_output(&output).await.expect("there").totals;
        (totals.len() == 1 && totals[0].value == 5).then_some(())
    })
    .await;
}
