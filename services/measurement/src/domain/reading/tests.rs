use super::*;
use chrono::TimeDelta;
use std::collections::HashMap;

const SAMPLE: &str = include_str!("../../../../koc/sample/readings.csv");

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).expect("in range")
}

fn views(output: OutputId, at: DateTime<Utc>, value: i64) -> Observation {
    Observation { series: Series { output, metric: Metric::Views, paid: false }, at, value }
}

#[test]
fn a_total_follows_the_latest_reading_and_remembers_a_step_back() {
    let output = OutputId::new();
    let at = |hours| start() + TimeDelta::hours(hours);
    let mut total = None;
    assert_eq!(Total::take(&mut total, &views(output, at(2), 100)), Placement::Latest);
    assert_eq!(Total::take(&mut total, &views(output, at(1), 900)), Placement::Late);
    assert_eq!(Total::take(&mut total, &views(output, at(3), 90)), Placement::Adjusted);
    assert_eq!(Total::take(&mut total, &views(output, at(4), 95)), Placement::Latest);
    assert_eq!(total, Some(Total { value: 95, at: at(4), adjusted: true }));
}

struct Row<'a> {
    key: (&'a str, &'a str, &'a str),
    metric: &'a str,
    value: i64,
    at: DateTime<Utc>,
    paid: bool,
}

fn sample() -> Vec<Row<'static>> {
    let rows = SAMPLE.lines().skip(1).map(|line| {
        let columns: Vec<&str> = line.split(',').collect();
        let [member, task, deliverable, _, metric, counter, _, at, paid] = columns[..] else { panic!("nine columns: {line}") };
        Row {
            key: (member, task, deliverable),
            metric,
            value: counter.parse().expect("a number"),
            at: at.parse().expect("a time"),
            paid: paid == "true",
        }
    });
    rows.collect()
}

/// Member, task and deliverable.
type Key = (&'static str, &'static str, &'static str);

/// Shows the detector the sample as it arrives, `batch` readings at a time.
fn alarms_of_the_sample(batch: usize) -> Vec<(Key, Trigger, DateTime<Utc>)> {
    let rows = sample();
    let mut ids: HashMap<(&str, &str, &str), OutputId> = HashMap::new();
    let mut states: BTreeMap<OutputId, SpikeState> = BTreeMap::new();
    let mut totals: HashMap<Series, Option<Total>> = HashMap::new();
    let mut known = std::collections::HashSet::new();
    let mut found = Vec::new();
    for rows in rows.chunks(batch) {
        let mut fresh = Vec::new();
        for row in rows.iter().filter(|row| row.metric == "VIEWS") {
            let output = *ids.entry(row.key).or_insert_with(OutputId::new);
            // The first reading of each output is at its publication.
            states.entry(output).or_insert_with(|| SpikeState::new(row.at));
            let observation = Observation {
                series: Series { paid: row.paid, ..views(output, row.at, 0).series },
                at: row.at,
                value: row.value,
            };
            if known.insert((observation.series, observation.at)) {
                fresh.push(observation);
            }
        }
        fresh.sort_by_key(|o| (o.series, o.at));
        fresh.retain(|o| Total::take(totals.entry(o.series).or_default(), o) != Placement::Late && is_watched(&o.series));
        for alarm in watch(&mut states, &fresh).expect("valid readings") {
            let key = ids.iter().find(|(_, id)| **id == alarm.output).map(|(key, _)| *key).expect("a known output");
            found.push((key, alarm.trigger, alarm.at));
        }
    }
    found
}

#[test]
fn in_the_shipped_sample_the_burst_alone_asks_for_money_and_once() {
    for batch in [1, 7, 200, 1_000] {
        let alarms = alarms_of_the_sample(batch);
        let money: Vec<_> = alarms.iter().filter(|(_, trigger, _)| *trigger == Trigger::Money).collect();
        assert_eq!(money.len(), 1, "in batches of {batch}: {alarms:?}");
        let (key, _, at) = money[0];
        assert_eq!(*key, ("52000106", "2026Q2-roadtrip", "video"));
        let burst: DateTime<Utc> = "2026-05-18T12:00:00Z".parse().expect("a time");
        assert!(*at > burst && *at <= burst + TimeDelta::hours(4), "{at}");
        assert!(alarms.iter().all(|(other, ..)| other == key), "{alarms:?}");
    }
}
