//! The sample: `sample/programme.toml` says what the fields mean.

use anyhow::Context;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;
use serde::Deserialize;
use std::collections::BTreeMap;

const PROGRAMME: &str = include_str!("../../sample/programme.toml");
const READINGS: &str = include_str!("../../sample/readings.csv");
pub const MEMBERS: &str = include_str!("../../sample/members.csv");
pub const MAPPING: &str = include_str!("../../sample/hubspot.toml");

#[derive(Debug, Deserialize)]
pub struct Sample {
    pub programme: Programme,
    pub value_model: ValueModel,
    pub decision_policy: DecisionPolicy,
    pub plans: Vec<Plan>,
    pub reserve: Reserve,
    pub briefs: Vec<Brief>,
    pub tasks: Vec<Task>,
    pub cast: Vec<Cast>,
    #[serde(skip)]
    pub readings: Vec<Reading>,
}

#[derive(Debug, Deserialize)]
pub struct Programme {
    pub name: String,
    pub currency: String,
    #[serde(deserialize_with = "crate::import::time_zone")]
    pub time_zone: Tz,
    pub source_system: String,
}

#[derive(Debug, Deserialize)]
pub struct ValueModel {
    #[allow(dead_code, reason = "says how the readings were made; the readings carry the margin itself")]
    pub margin_per_order_cny: String,
}

#[derive(Debug, Deserialize)]
pub struct DecisionPolicy {
    pub target_roi: String,
    pub floor_roi: String,
    pub increase_probability: String,
    pub review_probability: String,
    pub min_outputs: i32,
}

#[derive(Debug, Deserialize)]
pub struct Plan {
    pub quarter: String,
    pub starts_on: NaiveDate,
    pub ends_on: NaiveDate,
    pub envelopes: Vec<Envelope>,
}

#[derive(Debug, Deserialize)]
pub struct Envelope {
    pub class: String,
    pub amount_cny: String,
}

#[derive(Debug, Deserialize)]
pub struct Reserve {
    pub auto_approve_cny: String,
    pub viral_boost_cny: String,
}

#[derive(Debug, Deserialize)]
pub struct Brief {
    pub key: String,
    pub title: String,
    pub goal: String,
    pub product: String,
    pub key_messages: Vec<String>,
    pub avoid: Vec<String>,
    pub disclosure_label: String,
    pub creative_freedom: String,
    pub deliverables: Vec<Deliverable>,
    pub targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
pub struct Deliverable {
    pub key: String,
    pub kind: String,
    pub platform: String,
    pub weight: i32,
}

#[derive(Debug, Deserialize)]
pub struct Target {
    pub tier: String,
    pub metric: String,
    pub value: i64,
    pub within_days: i32,
}

#[derive(Debug, Deserialize)]
pub struct Task {
    pub key: String,
    pub quarter: String,
    pub brief: String,
    pub capacity: i32,
    pub tiers: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Cast {
    pub external_id: String,
    pub part: String,
    pub tier: String,
    pub cost_per_assignment_cny: String,
    /// Quarter to action.
    pub expected: BTreeMap<String, String>,
    pub deliveries: Vec<Delivery>,
    pub refused: Option<Refused>,
}

#[derive(Debug, Deserialize)]
pub struct Delivery {
    pub task: String,
    pub delivered: Vec<String>,
    pub live_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
pub struct Refused {
    pub task: String,
}

/// One row of the readings.
#[derive(Debug, Deserialize)]
pub struct Reading {
    pub member: String,
    pub task: String,
    pub deliverable: String,
    pub metric: String,
    pub counter: i64,
    pub margin_cny: Option<String>,
    pub observed_at: DateTime<Utc>,
    pub paid: bool,
}

impl Sample {
    /// The sample in this program.
    pub fn shipped() -> anyhow::Result<Self> {
        let mut sample: Self = toml::from_str(PROGRAMME).context("the sample's programme.toml")?;
        let rows = csv::Reader::from_reader(READINGS.as_bytes()).into_deserialize();
        sample.readings = rows.collect::<Result<_, _>>().context("the sample's readings.csv")?;
        Ok(sample)
    }

    /// First instant of a quarter, and first instant after it.
    pub fn period(&self, plan: &Plan) -> anyhow::Result<(DateTime<Utc>, DateTime<Utc>)> {
        let after = plan.ends_on.succ_opt().context("the last day there is")?;
        Ok((self.midnight(plan.starts_on)?, self.midnight(after)?))
    }

    /// First instant after the quarter that follows: the next plan's, or three months on.
    pub fn next_period_end(&self, index: usize) -> anyhow::Result<DateTime<Utc>> {
        match self.plans.get(index + 1) {
            Some(next) => Ok(self.period(next)?.1),
            None => {
                let after = self.plans[index].ends_on.succ_opt().context("the last day there is")?;
                self.midnight(after.checked_add_months(chrono::Months::new(3)).context("the last month there is")?)
            }
        }
    }

    fn midnight(&self, day: NaiveDate) -> anyhow::Result<DateTime<Utc>> {
        let local = day.and_time(NaiveTime::MIN).and_local_timezone(self.programme.time_zone);
        Ok(local.earliest().context("a day without a midnight")?.to_utc())
    }
}
