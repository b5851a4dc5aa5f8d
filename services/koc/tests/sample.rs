//! The files of the shipped sample agree with each other.

#![allow(clippy::unwrap_used)] // Helpers of tests: the lint's own exception covers only test functions.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Deserialize;

const MEMBERS: &str = include_str!("../sample/members.csv");
const PROGRAMME: &str = include_str!("../sample/programme.toml");
const READINGS: &str = include_str!("../sample/readings.csv");
/// What the sample may weigh in the repository.
const MAX_SAMPLE_BYTES: usize = 400_000;

#[derive(Deserialize)]
struct Programme {
    value_model: ValueModel,
    plans: Vec<Plan>,
    briefs: Vec<Brief>,
    tasks: Vec<Task>,
    cast: Vec<Person>,
}

#[derive(Deserialize)]
struct ValueModel {
    margin_per_order_cny: String,
}

#[derive(Deserialize)]
struct Plan {
    quarter: String,
    total_cny: String,
    envelopes: Vec<Envelope>,
}

#[derive(Deserialize)]
struct Envelope {
    class: String,
    amount_cny: String,
}

#[derive(Deserialize)]
struct Brief {
    key: String,
    deliverables: Vec<Deliverable>,
}

#[derive(Deserialize)]
struct Deliverable {
    key: String,
    weight: u32,
}

#[derive(Deserialize)]
struct Task {
    key: String,
    quarter: String,
    brief: String,
}

#[derive(Deserialize)]
struct Person {
    external_id: String,
    tier: String,
    cost_per_assignment_cny: String,
    deliveries: Vec<Delivery>,
    refused: Option<Refusal>,
}

#[derive(Deserialize)]
struct Delivery {
    task: String,
    delivered: Vec<String>,
}

#[derive(Deserialize)]
struct Refusal {
    task: String,
    class: String,
}

#[derive(Deserialize)]
struct Reading {
    member: String,
    task: String,
    deliverable: String,
    metric: String,
    counter: i64,
    margin_cny: String,
    observed_at: String,
    paid: bool,
}

fn programme() -> Programme {
    toml::from_str(PROGRAMME).unwrap()
}

fn readings() -> Vec<Reading> {
    csv::Reader::from_reader(READINGS.as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn fen(text: &str) -> i64 {
    let (yuan, rest) = text.split_once('.').unwrap();
    assert_eq!(rest.len(), 2, "{text}");
    format!("{yuan}{rest}").parse().unwrap()
}

fn class_of(tier: &str) -> &'static str {
    match tier {
        "BASE" => "INCLUSIVE",
        "CORE" => "INCENTIVE",
        "APEX" => "EXCLUSIVE",
        other => panic!("{other} is no default tier"),
    }
}

#[test]
fn the_sample_stays_small() {
    assert!(MEMBERS.len() + PROGRAMME.len() + READINGS.len() < MAX_SAMPLE_BYTES);
}

#[test]
fn every_member_of_the_cast_is_in_the_export_once() {
    let mut export = csv::Reader::from_reader(MEMBERS.as_bytes());
    let ids: Vec<_> = export.records().map(|row| row.unwrap()[0].to_owned()).collect();
    for person in programme().cast {
        assert_eq!(ids.iter().filter(|id| **id == person.external_id).count(), 1, "{}", person.external_id);
    }
}

#[test]
fn envelopes_add_up_to_their_plan_and_weights_to_a_hundred() {
    let programme = programme();
    for plan in &programme.plans {
        let sum: i64 = plan.envelopes.iter().map(|envelope| fen(&envelope.amount_cny)).sum();
        assert_eq!(sum, fen(&plan.total_cny), "{}", plan.quarter);
    }
    for brief in &programme.briefs {
        assert_eq!(brief.deliverables.iter().map(|part| part.weight).sum::<u32>(), 100, "{}", brief.key);
    }
}

#[test]
fn the_money_holds_every_delivery_and_not_the_one_that_is_to_be_refused() {
    let programme = programme();
    let quarter = |task: &str| &programme.tasks.iter().find(|other| other.key == task).unwrap().quarter;
    let mut left: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for plan in &programme.plans {
        for envelope in &plan.envelopes {
            left.insert((&plan.quarter, &envelope.class), fen(&envelope.amount_cny));
        }
    }
    for person in &programme.cast {
        for delivery in &person.deliveries {
            let envelope = (quarter(&delivery.task).as_str(), class_of(&person.tier));
            *left.get_mut(&envelope).unwrap() -= fen(&person.cost_per_assignment_cny);
        }
    }
    assert!(left.values().all(|left| *left >= 0), "{left:?}");
    let refused: Vec<_> = programme.cast.iter().filter_map(|person| Some((person, person.refused.as_ref()?))).collect();
    assert_eq!(refused.len(), 1);
    for (person, refusal) in refused {
        assert_eq!(refusal.class, class_of(&person.tier));
        let available = left[&(quarter(&refusal.task).as_str(), refusal.class.as_str())];
        assert!(fen(&person.cost_per_assignment_cny) > available);
    }
}

#[test]
fn every_reading_belongs_to_a_delivery_and_every_delivery_is_read() {
    let programme = programme();
    let mut delivered = BTreeSet::new();
    for person in &programme.cast {
        for delivery in &person.deliveries {
            let task = programme.tasks.iter().find(|task| task.key == delivery.task).unwrap();
            let brief = programme.briefs.iter().find(|brief| brief.key == task.brief).unwrap();
            for part in &delivery.delivered {
                assert!(brief.deliverables.iter().any(|deliverable| deliverable.key == *part), "{part}");
                delivered.insert((person.external_id.clone(), delivery.task.clone(), part.clone()));
            }
        }
    }
    let read: BTreeSet<_> = readings().into_iter().map(|reading| (reading.member, reading.task, reading.deliverable)).collect();
    assert_eq!(read, delivered);
}

#[test]
fn the_margin_of_orders_is_their_number_times_the_value_models() {
    let margin = fen(&programme().value_model.margin_per_order_cny);
    for reading in readings() {
        match reading.metric.as_str() {
            "ORDERS" => assert_eq!(fen(&reading.margin_cny), reading.counter * margin),
            _ => assert_eq!(reading.margin_cny, ""),
        }
    }
}

#[test]
fn some_readings_are_late_some_repeated_and_one_counter_steps_back() {
    let (mut late, mut repeated, mut stepped_back) = (0, 0, 0);
    let mut known = HashSet::new();
    let mut newest: BTreeMap<_, (String, i64)> = BTreeMap::new();
    for Reading { member, task, deliverable, metric, paid, observed_at, counter, .. } in readings() {
        let series = (member, task, deliverable, metric, paid);
        if !known.insert((series.clone(), observed_at.clone())) {
            repeated += 1;
            continue;
        }
        match newest.get(&series) {
            Some((time, _)) if *time > observed_at => {
                late += 1;
                continue;
            }
            Some((_, before)) if *before > counter => stepped_back += 1,
            _ => {}
        }
        newest.insert(series, (observed_at, counter));
    }
    assert_eq!((late, repeated, stepped_back), (12, 10, 1));
}
