//! Spikes: found in what readings say, raised once, and each strong one asks the budget for money once, if its gates let it.

use crate::world::{HOUR, Outcome, PATIENCE, World, fact, fen, id, outcomes, reading, refused, violations, yuan};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use koc_proto::koc::{
    budget::v1 as budget,
    measurement::v1::{self as pb, DrawState, Metric, SignalLevel},
};
use koc_tests::wait;
use tonic::Code;

/// Hours of steady readings before what a test is about.
const STEADY_HOURS: i64 = 40;

/// When the hour `n` after the first reading of a series is, which begins two days ago.
fn hour(world: &World, n: i64) -> DateTime<Utc> {
    world.ago_days(2) + TimeDelta::hours(n)
}

/// Some hundred views an hour, never the same, for [`STEADY_HOURS`].
fn steady(world: &World, output: &str) -> Vec<pb::Observation> {
    let mut total = 0;
    (1..=STEADY_HOURS)
        .map(|n| {
            total += 100 + (n * 37) % 41 - 20;
            reading(output, Metric::Views, total, hour(world, n))
        })
        .collect()
}

fn last(series: &[pb::Observation]) -> i64 {
    series.last().map_or(0, |o| o.value)
}

/// A steady series with a burst of 2,000 views in the hour after it.
pub fn burst(world: &World, output: &str) -> Vec<pb::Observation> {
    let mut series = steady(world, output);
    series.push(reading(output, Metric::Views, last(&series) + 2_000, hour(world, STEADY_HOURS + 1)));
    series
}

/// An output published just before its series begins.
pub async fn fresh(world: &World) -> String {
    world.output(2, yuan(100)).await
}

pub async fn wait_for_draw(world: &World, signal_id: &str) -> pb::Signal {
    wait::until("the signal's draw to be settled", PATIENCE, async || {
        let request = pb::GetSignalRequest { programme_id: world.programme.clone(), signal_id: signal_id.to_owned() };
        let found = world.signals().get_signal(request).await.expect("there").into_inner().signal.unwrap_or_default();
        (found.draw_state() != DrawState::Pending).then_some(found)
    })
    .await
}

pub async fn of_output(world: &World, output: &str) -> Vec<pb::Signal> {
    let mut found = world.all_signals().await;
    found.retain(|signal| signal.output_id == output);
    found
}

pub async fn all_draws(world: &World) -> Vec<budget::ReserveDraw> {
    let request = budget::ListReserveDrawsRequest { programme_id: world.programme.clone(), ..Default::default() };
    world.draws("planner").list_reserve_draws(request).await.expect("a page").into_inner().reserve_draws
}

#[tokio::test]
async fn a_burst_asks_for_money_once_however_often_it_is_told() {
    let world = World::new().await;
    world.policy(|policy| policy.max_draw_per_output = Some(yuan(80))).await;
    let output = fresh(&world).await;
    let series = burst(&world, &output);
    let (past, peak) = series.split_at(series.len() - 1);
    world.record(past.to_vec()).await;
    assert_eq!(world.all_signals().await, []);

    // The same burst from four sources at once, and then once more.
    let answers = join_all((0..4).map(|_| world.record(peak.to_vec()))).await;
    let recorded = answers.iter().flatten().filter(|r| r.outcome() == Outcome::Recorded).count();
    assert_eq!(recorded, 1);
    assert_eq!(outcomes(&world.record(series.clone()).await), vec![Outcome::Duplicate; series.len()]);
    let raised = of_output(&world, &output).await;
    assert_eq!(raised.len(), 1);
    let signal = wait_for_draw(&world, &raised[0].signal_id).await;
    assert_eq!((signal.metric(), signal.level()), (Metric::Views, SignalLevel::Money));
    assert!(signal.score >= 4.0 && signal.ratio_to_baseline >= 2.5, "{signal:?}");
    assert!((signal.window_count - 2_000.0).abs() < 1e-9);
    assert!((signal.expected_count - 100.0).abs() < 10.0, "{signal:?}");
    assert_eq!(signal.observe_time, peak[0].observe_time);

    // 80.00 is what the output may draw; a quarter of the reserve is 250.00, and up to 100.00 needs no person.
    assert_eq!((signal.draw_state(), fen(signal.draw_amount.as_ref())), (DrawState::Requested, 8_000));
    let draws = all_draws(&world).await;
    assert_eq!(draws.len(), 1);
    let draw = &draws[0];
    assert_eq!((draw.reserve_draw_id.as_str(), draw.output_id.as_str()), (signal.reserve_draw_id.as_str(), output.as_str()));
    assert_eq!((draw.state(), draw.automatic), (budget::ReserveDrawState::Approved, true));
    assert_eq!((draw.kind(), fen(draw.amount.as_ref())), (budget::ReserveDrawKind::ViralBoost, 8_000));
    let evidence = |name: &str| draw.evidence.iter().find(|e| e.name == name).map(|e| e.value.as_str());
    assert_eq!((evidence("window_count"), evidence("gate_organic")), (Some("2000"), Some("met")));
    assert_eq!(evidence("gate_likes_plausible"), Some("not evaluated"));

    // What the feed says of it.
    let told: Vec<_> = wait::until("the facts to be published", PATIENCE, async || {
        let told: Vec<_> = world.changes().await.iter().filter_map(fact::<pb::SignalChanged>).collect();
        (told.len() >= 2).then_some(told)
    })
    .await;
    assert_eq!(told.iter().map(pb::SignalChanged::draw_state).collect::<Vec<_>>(), [DrawState::Pending, DrawState::Requested]);
    assert!(told.iter().all(|t| t.output_id == output && t.level() == SignalLevel::Money));
}

#[tokio::test]
async fn an_alarm_is_silent_for_a_day_and_a_second_one_asks_for_what_is_left() {
    let world = World::new().await;
    world.policy(|policy| policy.max_draw_per_output = Some(yuan(300))).await;
    let output = fresh(&world).await;
    let mut series = burst(&world, &output);
    let mut total = last(&series);
    world.record(series.clone()).await;
    let first = of_output(&world, &output).await;
    let first = wait_for_draw(&world, &first[0].signal_id).await;
    // A quarter of 1,000.00 binds, which is more than the plan gives without a person.
    assert_eq!((first.draw_state(), fen(first.draw_amount.as_ref())), (DrawState::Requested, 25_000));
    let waiting = &all_draws(&world).await[0];
    assert_eq!((waiting.state(), waiting.decided_by.as_str()), (budget::ReserveDrawState::Requested, ""));
    let approve = |actor| {
        let request = budget::ApproveReserveDrawRequest {
            programme_id: world.programme.clone(),
            request_id: id(),
            reserve_draw_id: waiting.reserve_draw_id.clone(),
            reason: "it sells".into(),
        };
        let mut draws = world.draws(actor);
        async move { draws.approve_reserve_draw(request).await }
    };
    // The service that asked is no person who may approve.
    refused(approve("measurement").await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    approve("controller").await.expect("approved");

    // Another burst within the day raises nothing; one after it does, also in the same batch.
    world.measurement.advance(72 * HOUR).await;
    world.budget.advance(72 * HOUR).await;
    let burst_at = [STEADY_HOURS + 10, STEADY_HOURS + 40];
    series.clear();
    for n in STEADY_HOURS + 2..=STEADY_HOURS + 40 {
        total += if burst_at.contains(&n) { 9_000 } else { 100 + n % 7 };
        series.push(reading(&output, Metric::Views, total, hour(&world, n)));
    }
    world.record(series).await;
    let raised = of_output(&world, &output).await;
    assert_eq!(raised.len(), 2);
    let second = wait_for_draw(&world, &raised[1].signal_id).await;
    assert_eq!(second.observe_time, crate::world::at(hour(&world, burst_at[1])));
    assert_eq!((second.draw_state(), fen(second.draw_amount.as_ref())), (DrawState::Requested, 5_000), "{second:?}");
    let amounts: Vec<_> = all_draws(&world).await.iter().map(|d| fen(d.amount.as_ref())).collect();
    assert_eq!(amounts, [25_000, 5_000]);
}

#[tokio::test]
async fn a_draw_that_was_not_granted_leaves_the_output_what_it_may_draw() {
    let world = World::new().await;
    world.policy(|policy| policy.max_draw_per_output = Some(yuan(150))).await;
    let output = fresh(&world).await;
    let series = burst(&world, &output);
    world.record(series.clone()).await;
    let first = of_output(&world, &output).await;
    let first = wait_for_draw(&world, &first[0].signal_id).await;
    assert_eq!(fen(first.draw_amount.as_ref()), 15_000);
    let request = budget::RejectReserveDrawRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        reserve_draw_id: first.reserve_draw_id,
        reason: "not this one".into(),
    };
    world.draws("controller").reject_reserve_draw(request).await.expect("rejected");
    wait::until("the rejection to be told", PATIENCE, async || {
        (world.count("SELECT count(*) FROM reserve_draw WHERE dropped").await == 1).then_some(())
    })
    .await;

    world.measurement.advance(72 * HOUR).await;
    world.budget.advance(72 * HOUR).await;
    let mut total = last(&series);
    let later = (STEADY_HOURS + 2..=STEADY_HOURS + 40).map(|n| {
        total += if n == STEADY_HOURS + 40 { 9_000 } else { 100 + n % 7 };
        reading(&output, Metric::Views, total, hour(&world, n))
    });
    world.record(later.collect()).await;
    let raised = of_output(&world, &output).await;
    let second = wait_for_draw(&world, &raised[1].signal_id).await;
    assert_eq!((second.draw_state(), fen(second.draw_amount.as_ref())), (DrawState::Requested, 15_000), "{second:?}");
}

#[tokio::test]
async fn steady_series_raise_nothing_and_neither_do_paid_late_or_corrected_readings() {
    let world = World::new().await;
    world.policy(|policy| policy.max_draw_per_output = Some(yuan(80))).await;
    let member = world.member().await;
    let settled: Vec<_> = (0..12).map(|_| world.settled(&member, 2, yuan(100))).collect();
    let outputs = world.settle(&settled).await;
    let mut readings: Vec<_> = outputs.iter().flat_map(|output| steady(&world, output)).collect();
    world.record(readings.clone()).await;

    let next = hour(&world, STEADY_HOURS + 1);
    let total = last(&readings);
    // A purchased audience, a metric that is not watched, a correction and its return, a hole that fills late, a gap.
    let mut after = vec![
        pb::Observation { paid: true, ..reading(&outputs[0], Metric::Views, 90_000, next) },
        reading(&outputs[1], Metric::Likes, 90_000, next),
        reading(&outputs[2], Metric::Views, total - 2_000, next),
        reading(&outputs[2], Metric::Views, total - 1_900, hour(&world, STEADY_HOURS + 2)),
        reading(&outputs[3], Metric::Views, 90_000, hour(&world, 20) + TimeDelta::minutes(5)),
        reading(&outputs[4], Metric::Views, total + 700, hour(&world, STEADY_HOURS + 7)),
        reading(&outputs[5], Metric::Views, total + 2_000, hour(&world, STEADY_HOURS) + TimeDelta::minutes(2)),
    ];
    let told = outcomes(&world.record(after.clone()).await);
    assert_eq!((told[2], told[4]), (Outcome::Adjusted, Outcome::Late));
    readings.append(&mut after);
    world.record(readings).await;
    assert_eq!(world.all_signals().await, []);
    assert_eq!(all_draws(&world).await, []);
}

#[tokio::test]
async fn without_the_gates_a_signal_stands_and_no_money_is_asked() {
    let world = World::new().await;
    let [unpriced, bought, spoilt] = [fresh(&world).await, fresh(&world).await, fresh(&world).await];
    // The first policy lets signals draw nothing.
    world.record(burst(&world, &unpriced)).await;
    let signal = of_output(&world, &unpriced).await.remove(0);
    let signal = wait_for_draw(&world, &signal.signal_id).await;
    assert_eq!((signal.draw_state(), signal.draw_amount.clone(), signal.reserve_draw_id.as_str()), (DrawState::None, None, ""));
    assert!(signal.draw_reason.contains("policy sets no amount"), "{}", signal.draw_reason);

    // A paid push in the day before: the burst is not organic.
    world.policy(|policy| policy.max_draw_per_output = Some(yuan(80))).await;
    let mut pushed = burst(&world, &bought);
    let paid = |n: i64, value| pb::Observation { paid: true, ..reading(&bought, Metric::Views, value, hour(&world, n)) };
    pushed.extend([paid(10, 500), paid(STEADY_HOURS, 800)]);
    world.record(pushed).await;
    let signal = of_output(&world, &bought).await.remove(0);
    let signal = wait_for_draw(&world, &signal.signal_id).await;
    assert_eq!(signal.draw_state(), DrawState::None);
    assert!(signal.draw_reason.contains("Gates not met, so no draw: organic."), "{}", signal.draw_reason);

    // Likes far outside of what thirty like it have.
    let member = world.member().await;
    let like: Vec<_> = (0..30).map(|_| world.settled(&member, 2, yuan(100))).collect();
    let mut readings = Vec::new();
    for (n, output) in (0_i64..).zip(world.settle(&like).await) {
        readings.push(reading(&output, Metric::Views, 1_000, hour(&world, 1)));
        readings.push(reading(&output, Metric::Likes, 20 + n, hour(&world, 1)));
    }
    world.record(readings).await;
    let mut farmed = burst(&world, &spoilt);
    farmed.push(reading(&spoilt, Metric::Likes, 5_000, hour(&world, STEADY_HOURS)));
    world.record(farmed).await;
    let signal = of_output(&world, &spoilt).await.remove(0);
    let signal = wait_for_draw(&world, &signal.signal_id).await;
    assert_eq!(signal.draw_state(), DrawState::None);
    assert!(signal.draw_reason.contains("Gates not met, so no draw: likes_plausible."), "{}", signal.draw_reason);
    assert_eq!(all_draws(&world).await, []);

    let request = |page_size, page_token: String, output_id: &str| pb::ListSignalsRequest {
        programme_id: world.programme.clone(),
        page_size,
        page_token,
        output_id: output_id.to_owned(),
    };
    let first = world.signals().list_signals(request(2, String::new(), "")).await.expect("a page").into_inner();
    let rest = world.signals().list_signals(request(2, first.next_page_token.clone(), "")).await.expect("a page").into_inner();
    let listed: Vec<_> = first.signals.iter().chain(&rest.signals).map(|s| s.output_id.clone()).collect();
    assert_eq!(listed, [unpriced, bought, spoilt.clone()]);
    assert_eq!(rest.next_page_token, "");
    let other_filter = world.signals().list_signals(request(2, first.next_page_token, &spoilt)).await;
    assert_eq!(violations(other_filter), [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
    let request = pb::GetSignalRequest { programme_id: world.programme.clone(), signal_id: id() };
    refused(world.signals().get_signal(request).await, Code::NotFound, "SIGNAL_NOT_FOUND");
}

#[tokio::test]
async fn a_draw_is_opened_once_though_the_budget_is_down_and_this_service_restarts() {
    let mut world = World::new().await;
    world.policy(|policy| policy.max_draw_per_output = Some(yuan(80))).await;
    let output = fresh(&world).await;
    world.budget.stop().await;
    world.record(burst(&world, &output)).await;
    let signal = of_output(&world, &output).await.remove(0);
    wait::until("the job to have failed", PATIENCE, async || {
        let failed = world.count("SELECT count(*) FROM job WHERE kind = 'open_draw' AND last_error IS NOT NULL").await;
        (failed == 1).then_some(())
    })
    .await;
    assert_eq!(of_output(&world, &output).await.remove(0).draw_state(), DrawState::Pending);

    world.measurement.stop().await;
    world.start_measurement().await;
    world.start_budget().await;
    world.measurement.advance(HOUR).await;
    let signal = wait_for_draw(&world, &signal.signal_id).await;
    assert_eq!((signal.draw_state(), fen(signal.draw_amount.as_ref())), (DrawState::Requested, 8_000));
    assert_eq!(all_draws(&world).await.len(), 1);
}
