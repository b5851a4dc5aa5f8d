//! To what end: readings, signals, decisions.

use super::{
    people,
    sample::{Cast, Plan, Reading},
    stage::{ANALYST, FINANCE, HEAD, Stage, must},
    work::Done,
};
use crate::client::{self, PATIENCE};
use anyhow::Context;
use koc_chassis::clock;
use koc_proto::koc::{budget::v1 as budget, measurement::v1 as pb};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

/// Readings in one batch.
const BATCH: usize = 500;

/// Sets the value model and the decision policy.
pub async fn set_rules(stage: &Stage) -> anyhow::Result<()> {
    let request = pb::CreateValueModelRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id("value model"),
        value_model: Some(pb::ValueModel { attribution_days: 90, ..Default::default() }),
        reason: "orders by code count with their margin; followers and media prices do not".to_owned(),
    };
    must!(ANALYST, stage.values(), create_value_model, request)?;
    let policy = &stage.sample.decision_policy;
    let request = pb::CreateDecisionPolicyRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id("decision policy"),
        policy: Some(pb::DecisionPolicy {
            version: 0,
            target_roi: policy.target_roi.parse()?,
            floor_roi: policy.floor_roi.parse()?,
            min_outputs: policy.min_outputs,
            min_spend: None,
            increase_probability: policy.increase_probability.parse()?,
            reduce_probability: policy.review_probability.parse()?,
            automatic_actions: [pb::DecisionAction::Increase, pb::DecisionAction::Maintain, pb::DecisionAction::Review]
                .map(i32::from)
                .to_vec(),
            max_draw_per_output: Some(stage.amount(&stage.sample.reserve.viral_boost_cny)?),
        }),
        reason: "break even, and do not judge by fewer than five outputs".to_owned(),
    };
    must!(HEAD, stage.decisions(), create_decision_policy, request)?;
    Ok(())
}

/// Streams the quarter's readings in, and follows what they set off.
pub async fn measure(stage: &Stage, plan: &Plan, done: &[Done]) -> anyhow::Result<()> {
    let outputs = outputs(stage, done).await?;
    let mut observations = Vec::new();
    for reading in stage.sample.readings.iter().filter(|r| r.task.starts_with(&plan.quarter)) {
        let key = format!("{} {} {}", reading.member, reading.task, reading.deliverable);
        let output = outputs.get(&key).with_context(|| format!("there is no output {key}"))?;
        observations.extend(to_observations(stage, reading, output)?);
    }
    let outcomes = record(stage, observations).await?;
    let outcomes: Vec<String> = outcomes.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
    stage.say(&format!("  {} outputs measured by readings: {}", outputs.len(), outcomes.join(", ")));
    follow_signals(stage, &outputs).await
}

/// The outputs that arose from the deliveries, by member, task and deliverable.
async fn outputs(stage: &Stage, done: &[Done]) -> anyhow::Result<HashMap<String, pb::Output>> {
    let mut outputs = HashMap::new();
    for done in done {
        let found = client::until("the outputs of a delivery to be registered", async || {
            let request = pb::ListOutputsRequest {
                programme_id: stage.programme_id(),
                page_size: 100,
                page_token: String::new(),
                member_id: String::new(),
                assignment_id: done.assignment_id.clone(),
            };
            let found = must!(ANALYST, stage.outputs(), list_outputs, request)?.outputs;
            Ok((found.len() == done.delivered).then_some(found))
        })
        .await?;
        outputs.extend(found.into_iter().map(|o| (format!("{} {} {}", done.external_id, done.task, o.deliverable_key), o)));
    }
    Ok(outputs)
}

fn to_observations(stage: &Stage, reading: &Reading, output: &pb::Output) -> anyhow::Result<Vec<pb::Observation>> {
    let metric =
        pb::Metric::from_str_name(&format!("METRIC_{}", reading.metric)).context("a metric of the sample is not known")?;
    let observation = |metric: pb::Metric, value: i64| pb::Observation {
        output_id: output.output_id.clone(),
        metric: metric.into(),
        value,
        observe_time: Some(clock::to_proto(reading.observed_at)),
        paid: reading.paid,
    };
    let mut all = vec![observation(metric, reading.counter)];
    if let Some(margin) = reading.margin_cny.as_deref().filter(|m| !m.is_empty()) {
        let margin = stage.amount(margin)?;
        let minor =
            koc_chassis::money::Money::parse("margin", &margin, stage.currency).map_err(|v| anyhow::anyhow!(v.description))?;
        all.push(observation(pb::Metric::OrderMargin, minor.minor));
    }
    Ok(all)
}

/// Sends readings over the stream, and over a new one when it breaks: readings are their own key.
async fn record(stage: &Stage, observations: Vec<pb::Observation>) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut outcomes = BTreeMap::new();
    let mut open = None;
    for batch in observations.chunks(BATCH) {
        let give_up = Instant::now() + PATIENCE;
        let results = loop {
            match send(stage, &mut open, batch).await {
                Ok(results) => break results,
                Err(status) if client::passes(&status) && Instant::now() < give_up => {
                    open = None;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(status) => anyhow::bail!("readings were refused: {}", client::describe(&status)),
            }
        };
        for result in results {
            let outcome = result.outcome().as_str_name().trim_start_matches("OBSERVATION_OUTCOME_").to_lowercase();
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    Ok(outcomes)
}

type Open = (mpsc::Sender<pb::RecordObservationsRequest>, tonic::Streaming<pb::RecordObservationsResponse>, i64);

async fn send(
    stage: &Stage,
    open: &mut Option<Open>,
    batch: &[pb::Observation],
) -> Result<Vec<pb::ObservationResult>, tonic::Status> {
    let lost = || tonic::Status::unavailable("the stream ended");
    let (sender, mut answers, sent) = match open.take() {
        Some(open) => open,
        None => {
            let (sender, receiver) = mpsc::channel(1);
            let answers = stage.observations().record_observations(ReceiverStream::new(receiver)).await?.into_inner();
            (sender, answers, 0)
        }
    };
    let batch_number = sent + 1;
    let request =
        pb::RecordObservationsRequest { programme_id: stage.programme_id(), batch_number, observations: batch.to_vec() };
    let sent = sender.send(request).await;
    let answer = answers.message().await?.ok_or_else(lost)?;
    sent.map_err(|_| lost())?;
    *open = Some((sender, answers, batch_number));
    Ok(answer.results)
}

/// All signals of the programme.
pub async fn signals(stage: &Stage) -> anyhow::Result<Vec<pb::Signal>> {
    let (programme_id, page_token, output_id) = (stage.programme_id(), String::new(), String::new());
    let request = pb::ListSignalsRequest { programme_id, page_size: 1000, page_token, output_id };
    Ok(must!(ANALYST, stage.signals(), list_signals, request)?.signals)
}

/// Waits until each spike that asks for money has its draw, buys what was approved, and waits until its cost has reached the
/// output.
async fn follow_signals(stage: &Stage, outputs: &HashMap<String, pb::Output>) -> anyhow::Result<()> {
    let signals = client::until("the signals' draws to be requested", async || {
        let signals = signals(stage).await?;
        Ok(signals.iter().all(|s| s.draw_state() != pb::DrawState::Pending).then_some(signals))
    })
    .await?;
    for signal in signals {
        let Some((key, output)) = outputs.iter().find(|(_, o)| o.output_id == signal.output_id) else { continue };
        stage.say(&format!(
            "  Spike: {key}, {} at {:.1} times its baseline, score {:.1}: {}",
            signal.metric().as_str_name().trim_start_matches("METRIC_"),
            signal.ratio_to_baseline,
            signal.score,
            signal.level().as_str_name().trim_start_matches("SIGNAL_LEVEL_")
        ));
        if signal.reserve_draw_id.is_empty() {
            stage.say(&format!("    no draw: {}", signal.draw_reason));
            continue;
        }
        let request =
            budget::GetReserveDrawRequest { programme_id: stage.programme_id(), reserve_draw_id: signal.reserve_draw_id.clone() };
        let draw =
            must!(FINANCE, stage.draws(), get_reserve_draw, request)?.reserve_draw.context("an answer without its draw")?;
        stage.say(&format!(
            "    draw on the reserve: {} {}, by {}: {}",
            stage.money(draw.amount.as_ref()),
            draw.state().as_str_name().trim_start_matches("RESERVE_DRAW_STATE_"),
            match draw.decided_by.as_str() {
                "" if draw.automatic => "policy",
                "" => "nobody",
                person => person,
            },
            draw.decision_reason
        ));
        if draw.reservation_id.is_empty() {
            continue;
        }
        let request = budget::CommitRequest {
            programme_id: stage.programme_id(),
            request_id: stage.request_id(&format!("boost commit {key}")),
            reservation_id: draw.reservation_id.clone(),
            amount: None,
            release_rest: false,
            ..Default::default()
        };
        must!(FINANCE, stage.reservations(), commit, request)?;
        let request = budget::SpendRequest {
            programme_id: stage.programme_id(),
            request_id: stage.request_id(&format!("boost spend {key}")),
            reservation_id: draw.reservation_id.clone(),
            amount: None,
            payment_reference: "boost".to_owned(),
            ..Default::default()
        };
        must!(FINANCE, stage.reservations(), spend, request)?;
        let before = output.cost.clone().unwrap_or_default().marginal;
        let after = client::until("the boost's cost to reach its output", async || {
            let request = pb::GetOutputRequest { programme_id: stage.programme_id(), output_id: signal.output_id.clone() };
            let now = must!(ANALYST, stage.outputs(), get_output, request)?.output;
            let cost = now.and_then(|o| o.cost).and_then(|c| c.marginal);
            // In a run that goes on, the cost may have been there from the start.
            let bought = draw.state() == budget::ReserveDrawState::Spent || cost != before;
            Ok(cost.filter(|_| bought))
        })
        .await?;
        stage.say(&format!("    the boost is bought; the output has cost {} now", stage.money(Some(&after))));
    }
    Ok(())
}

/// Has the quarter decided on, approves what waits for a person, and tells each decision. True when they are what the sample
/// expects.
pub async fn decide(stage: &Stage, index: usize) -> anyhow::Result<bool> {
    let plan = &stage.sample.plans[index];
    let (start, end) = stage.sample.period(plan)?;
    let request = pb::RunDecisionsRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("decide {}", plan.quarter)),
        period_start_time: Some(clock::to_proto(start)),
        period_end_time: Some(clock::to_proto(end)),
        next_period_end_time: Some(clock::to_proto(stage.sample.next_period_end(index)?)),
    };
    let decisions = must!(ANALYST, stage.decisions(), run_decisions, request)?.decisions;
    let mut right = true;
    for part in &stage.sample.cast {
        let member_id = people::member_id(stage, &part.external_id).await?;
        let decision = decisions.iter().find(|d| d.member_id == member_id);
        let Some(expected) = part.expected.get(&plan.quarter) else {
            right &= decision.is_none();
            continue;
        };
        let decision = decision.with_context(|| format!("there is no decision on {}", part.external_id))?;
        right &= tell(stage, part, decision, expected);
        if decision.state() == pb::DecisionState::Proposed {
            let request = pb::ApproveDecisionRequest {
                programme_id: stage.programme_id(),
                request_id: stage.request_id(&format!("approve {} {}", plan.quarter, part.external_id)),
                decision_id: decision.decision_id.clone(),
                reason: "the review found no cause that would pass by itself".to_owned(),
            };
            must!(HEAD, stage.decisions(), approve_decision, request)?;
            stage.say("      approved by the programme's head");
        }
    }
    for decision in &decisions {
        client::until("a decision to be applied", async || {
            let request =
                pb::GetDecisionRequest { programme_id: stage.programme_id(), decision_id: decision.decision_id.clone() };
            let now = must!(ANALYST, stage.decisions(), get_decision, request)?.decision;
            Ok(now.filter(|d| d.state() == pb::DecisionState::Applied))
        })
        .await?;
    }
    stage.say(&format!(
        "  {} decisions are applied: value profiles and tier proposals at the registry, limits at the budget",
        decisions.len()
    ));
    Ok(right)
}

fn tell(stage: &Stage, part: &Cast, decision: &pb::Decision, expected: &str) -> bool {
    let action = decision.action().as_str_name().trim_start_matches("DECISION_ACTION_");
    let posterior = decision.posterior.as_ref().map_or(String::new(), |p| {
        format!(", return {:+.2} [{:+.2}, {:+.2}], P(above target) {:.2}", p.mean, p.q05, p.q95, p.probability_above_target)
    });
    let (outputs, were) = if decision.output_count == 1 { ("output", "was") } else { ("outputs", "were") };
    stage.say(&format!(
        "  {action:<8} {} ({}): {} {outputs} cost {} and {were} worth {}{posterior}",
        part.external_id,
        part.part,
        decision.output_count,
        stage.money(decision.cost.as_ref()),
        stage.money(decision.value.as_ref()),
    ));
    stage.say(&format!("      {}: {}", decision.rule_id, decision.explanation));
    if let Some(counterfactual) = decision.counterfactuals.first() {
        stage.say(&format!("      {counterfactual}"));
    }
    if let Some(limit) = &decision.next_limit {
        stage.say(&format!("      limit for the next quarter: {}", stage.money(Some(limit))));
    }
    if action != expected {
        stage.say(&format!("      NOT what the sample expects: {expected}"));
    }
    action == expected
}
