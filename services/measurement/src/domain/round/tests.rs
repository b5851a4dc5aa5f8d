//! The shipped sample, both quarters, from readings to decisions.

use super::*;
use crate::domain::{
    decision::Action,
    ids::OutputId,
    output::{Counters, Metric, Output},
    period::trailing_starts,
};
use chrono::{DateTime, FixedOffset, Utc};
use koc_chassis::ids::ProgrammeId;
use serde::Deserialize;
use std::collections::HashMap;
use uuid::Uuid;

const PROGRAMME: &str = include_str!("../../../../koc/sample/programme.toml");
const READINGS: &str = include_str!("../../../../koc/sample/readings.csv");

#[derive(Deserialize)]
struct Sample {
    briefs: Vec<Brief>,
    tasks: Vec<Task>,
    cast: Vec<Person>,
}

#[derive(Deserialize)]
struct Brief {
    key: String,
    deliverables: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    key: String,
    kind: String,
    platform: String,
    weight: i64,
}

#[derive(Deserialize)]
struct Task {
    key: String,
    brief: String,
}

#[derive(Deserialize)]
struct Person {
    external_id: String,
    tier: String,
    cost_per_assignment_cny: String,
    expected: HashMap<String, String>,
    deliveries: Vec<Delivery>,
}

#[derive(Deserialize)]
struct Delivery {
    task: String,
    delivered: Vec<String>,
    live_at: String,
}

fn sample() -> Sample {
    toml::from_str(PROGRAMME).expect("the sample is TOML")
}

/// Members by the number that the export gives them.
fn member(external_id: &str) -> MemberId {
    MemberId(Uuid::from_u128(external_id.parse().expect("a number")))
}

fn at(text: &str) -> DateTime<Utc> {
    DateTime::<FixedOffset>::parse_from_rfc3339(text).expect("a time").to_utc()
}

type Key = (String, String, String);

fn outputs(sample: &Sample) -> Vec<(Key, Output)> {
    let mut outputs = Vec::new();
    for person in &sample.cast {
        let cost: i64 = person.cost_per_assignment_cny.replace('.', "").parse().expect("two decimals");
        for delivery in &person.deliveries {
            let task = sample.tasks.iter().find(|task| task.key == delivery.task).expect("a task");
            let brief = sample.briefs.iter().find(|brief| brief.key == task.brief).expect("a brief");
            for part in brief.deliverables.iter().filter(|part| delivery.delivered.contains(&part.key)) {
                let output = Output {
                    id: OutputId(Uuid::from_u128(outputs.len() as u128 + 1)),
                    programme: ProgrammeId(Uuid::nil()),
                    member: member(&person.external_id),
                    assignment: Uuid::nil(),
                    brief: Uuid::nil(),
                    deliverable_key: part.key.clone(),
                    kind: format!("DELIVERABLE_KIND_{}", part.kind),
                    platform: part.platform.clone(),
                    tier: person.tier.clone(),
                    published_at: at(&delivery.live_at),
                    currency: "CNY".to_owned(),
                    reward_minor: cost * part.weight / 100,
                    boost_minor: 0,
                    created_at: at(&delivery.live_at),
                };
                outputs.push(((person.external_id.clone(), delivery.task.clone(), part.key.clone()), output));
            }
        }
    }
    outputs
}

/// The outputs published before `end`, with what was read until then.
fn measured(outputs: &[(Key, Output)], end: DateTime<Utc>) -> Vec<Measured> {
    type Series = (Key, String, bool);
    let mut latest: HashMap<Series, (DateTime<Utc>, u64, u64)> = HashMap::new();
    for line in READINGS.lines().skip(1) {
        let columns: Vec<&str> = line.split(',').collect();
        let [person, task, deliverable, _, metric, counter, margin, time, paid] = columns[..] else { panic!("{line}") };
        let (key, time) = ((person.to_owned(), task.to_owned(), deliverable.to_owned()), at(time));
        let margin = margin.replace('.', "").parse().unwrap_or(0);
        let entry = latest.entry((key, metric.to_owned(), paid == "true")).or_insert((time, 0, 0));
        if time >= entry.0 && time <= end {
            *entry = (time, counter.parse().expect("a number"), margin);
        }
    }
    let of = |key: &Key| {
        let mut counters = Counters::default();
        for ((_, metric, paid), (_, counter, margin)) in latest.iter().filter(|((other, ..), _)| other == key) {
            let metric = match metric.as_str() {
                "VIEWS" => Metric::Views,
                "LIKES" => Metric::Likes,
                "COMMENTS" => Metric::Comments,
                "SHARES" => Metric::Shares,
                "SAVES" => Metric::Saves,
                "FOLLOWS" => Metric::Follows,
                _ => Metric::Orders,
            };
            counters.set(metric, *paid, *counter);
            if metric == Metric::Orders {
                counters.set(Metric::OrderMargin, *paid, *margin);
            }
        }
        counters
    };
    let published = outputs.iter().filter(|(_, output)| output.published_at < end);
    published.map(|(key, output)| Measured { output: output.clone(), counters: of(key) }).collect()
}

fn quarters() -> [Period; 2] {
    let [q1, q2, q3, q4] =
        ["2026-01-01", "2026-04-01", "2026-07-01", "2026-10-01"].map(|day| at(&format!("{day}T00:00:00+08:00")));
    [Period { start: q1, end: q2, next_end: q3 }, Period { start: q2, end: q3, next_end: q4 }]
}

fn play(policy: &ProgrammePolicy) -> Vec<Verdicts> {
    let outputs = outputs(&sample());
    let (mut before, mut decided, mut verdicts) = (BTreeMap::new(), Vec::new(), Vec::<Verdicts>::new());
    for period in quarters() {
        let round = Round {
            period,
            starts: trailing_starts(&period, &decided, policy.thresholds.window_periods),
            measured: measured(&outputs, period.end),
            before: std::mem::take(&mut before),
            model: ValueModel::standard("CNY"),
            policy: policy.clone(),
        };
        let found = round.judge().expect("a round");
        before = found.judged.iter().map(|one| (one.member, Before::from(&one.judgement))).collect();
        decided.push((period.start, period.end));
        verdicts.push(found);
    }
    verdicts
}

#[test]
fn the_shipped_sample_is_decided_as_its_cast_expects() {
    let verdicts = play(&ProgrammePolicy::initial());
    for person in sample().cast {
        for (quarter, expected) in &person.expected {
            let verdicts = if quarter == "2026Q1" { &verdicts[0] } else { &verdicts[1] };
            let judged = verdicts.judged.iter().find(|one| one.member == member(&person.external_id)).expect("a decision");
            let found = judged.judgement.decision.action.name();
            assert_eq!(found, expected, "{} in {quarter}: {}", person.external_id, judged.judgement.explanation);
        }
    }
}

#[test]
fn a_round_compares_with_thirty_outputs_or_with_all() {
    let mut levels = BTreeSet::new();
    for verdicts in play(&ProgrammePolicy::initial()) {
        for one in &verdicts.judged {
            let pool = &verdicts.pools[&one.inputs.pool_id];
            assert!(pool.results.len() >= 30 || pool.level == PoolLevel::Programme);
            levels.insert(pool.level);
        }
    }
    assert!(levels.len() > 1, "{levels:?}");
}

#[test]
fn judging_the_stored_text_again_gives_the_same_bytes() {
    for verdicts in play(&ProgrammePolicy::initial()) {
        for one in &verdicts.judged {
            let text = serde_json::to_string(&one.inputs).expect("it serializes");
            let inputs: Inputs = serde_json::from_str(&text).expect("it reads back");
            assert_eq!(inputs.id(), one.inputs.id());
            let again = judge(&inputs, &verdicts.pools[&inputs.pool_id].results).expect("the same inputs");
            let bytes = |judgement: &Judgement| serde_json::to_vec(judgement).expect("it serializes");
            assert_eq!(bytes(&again), bytes(&one.judgement));
        }
    }
}

#[test]
fn the_next_limit_follows_from_what_the_work_earned() {
    for one in play(&ProgrammePolicy::initial()).iter().flat_map(|verdicts| &verdicts.judged) {
        let factor = match one.judgement.decision.action {
            Action::Increase if one.judgement.decision.limit_multiplier > 1.4 => 150,
            Action::Increase => 125,
            Action::Maintain => 110,
            Action::Review => 100,
            Action::Reduce => 75,
        };
        assert_eq!(one.judgement.next_limit_minor, Some(one.inputs.reward_minor * factor / 100));
    }
}
