//! What measured outputs were worth: from counters to evidence, from evidence to value and score among their like.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::cohort::{self, COHORT_MIN_OUTPUTS, Cohort, CohortLevel, RobustScale, Sample};
use super::distribution::quantile_of_sorted;
use super::error::InputError;
use super::maturity::age_bucket;
use super::output::{Counters, Measured, Metric, Output};
use super::posterior::OutputResult;
use super::spike::boost::RatioInBand;
use super::types::TypeEvidence;
use super::value::{AttributedOrder, ContentEvidence, Engagement, Grade, OutputEvidence, OutputValue, ValueModel, value_output};

/// How long outputs count in the cohorts of others, in days.
pub const COHORT_DAYS: i64 = 180;
/// Outputs of one cohort that one normalisation reads; beyond it the newest count.
const MAX_COHORT_OUTPUTS: usize = 2_000;
/// Outputs without which a score says nothing.
const MIN_SCORE_OUTPUTS: usize = 5;
/// The least scale of scores, in points, so that a cohort of near-equals does not turn noise into distance.
const MIN_SCORE_SCALE: f64 = 2.0;

/// An output's counters as evidence. Margin and follows count organic and paid, since the boost stands in the cost;
/// engagement counts organic alone. `percentiles` are places in the cohort.
fn evidence(counters: &Counters, percentiles: &Percentiles) -> ContentEvidence {
    let margin = counters.both(Metric::OrderMargin).filter(|margin| *margin > 0);
    let orders = margin.map(|margin| AttributedOrder {
        order_id: "attributed by code or tracked link".to_owned(),
        margin_minor: i64::try_from(margin).unwrap_or(i64::MAX),
        credit: 1.0,
        grade: Grade::A,
    });
    ContentEvidence {
        orders: orders.into_iter().collect(),
        new_followers: counters.both(Metric::Follows).unwrap_or(0),
        engagement: engagement(counters),
        reach_percentile: percentiles.reach,
        engagement_percentile: percentiles.engagement,
        purchase_influence_percentile: percentiles.orders,
        ..ContentEvidence::default()
    }
}

fn engagement(counters: &Counters) -> Engagement {
    let organic = |metric| counters.organic(metric).unwrap_or(0);
    Engagement {
        reads: organic(Metric::Views),
        likes: organic(Metric::Likes),
        saves: organic(Metric::Saves),
        comments: organic(Metric::Comments),
        shares: organic(Metric::Shares),
        follows: organic(Metric::Follows),
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Percentiles {
    reach: Option<f64>,
    engagement: Option<f64>,
    orders: Option<f64>,
}

/// What a measured output was worth.
#[derive(Debug, Clone)]
pub struct Appraised<'a> {
    pub measured: &'a Measured,
    pub value: OutputValue,
}

impl Appraised<'_> {
    /// The weakest grade of evidence in its cash value; `None` if it had none.
    pub fn weakest_grade(&self) -> Option<Grade> {
        self.value.components.iter().map(|component| component.grade).max()
    }
}

/// Reads, engagement per read and orders per read of one output; the last two only where somebody read it.
#[derive(Debug, Clone, Copy)]
struct Qualities {
    reach: Option<f64>,
    engagement: Option<f64>,
    orders: Option<f64>,
}

impl Qualities {
    fn of(counters: &Counters, model: &ValueModel) -> Self {
        let reads = counters.organic(Metric::Views);
        let per_read = |count: Option<u64>| reads.filter(|reads| *reads > 0).and_then(|r| Some(count? as f64 / r as f64));
        Self {
            reach: reads.map(|reads| reads as f64),
            engagement: model.engagement_per_read(&engagement(counters)),
            orders: per_read(counters.organic(Metric::Orders)),
        }
    }
}

/// What is compared of the outputs of one cohort.
struct Samples {
    reach: Sample,
    engagement: Sample,
    orders: Sample,
}

impl Samples {
    fn of(qualities: &[Qualities]) -> Result<Self, InputError> {
        let sample = |quality: fn(&Qualities) -> Option<f64>| Sample::new(qualities.iter().filter_map(quality).collect());
        Ok(Self { reach: sample(|q| q.reach)?, engagement: sample(|q| q.engagement)?, orders: sample(|q| q.orders)? })
    }
}

/// The outputs of a programme as they stood at one time, to compare each with its like.
pub struct Field<'a> {
    measured: &'a [Measured],
    model: &'a ValueModel,
    as_of: DateTime<Utc>,
    /// Of outputs of the trailing 180 days.
    cohorts: BTreeMap<(CohortLevel, String), Samples>,
}

impl<'a> Field<'a> {
    /// # Errors
    /// `NotFinite` for a time that is none.
    pub fn new(measured: &'a [Measured], model: &'a ValueModel, as_of: DateTime<Utc>) -> Result<Self, InputError> {
        let mut newest: Vec<&Measured> = measured.iter().filter(|m| in_window(&m.output, as_of)).collect();
        newest.sort_by_key(|m| (std::cmp::Reverse(m.output.published_at), m.output.id));
        let mut cohorts: BTreeMap<(CohortLevel, String), Vec<Qualities>> = BTreeMap::new();
        for one in newest {
            let qualities = Qualities::of(&one.counters, model);
            for key in cohort_keys(&one.output, as_of)? {
                let members = cohorts.entry(key).or_default();
                if members.len() < MAX_COHORT_OUTPUTS {
                    members.push(qualities);
                }
            }
        }
        let cohorts = cohorts.into_iter().map(|(key, members)| Ok((key, Samples::of(&members)?))).collect::<Result<_, _>>()?;
        Ok(Self { measured, model, as_of, cohorts })
    }

    /// Values an output and scores it within its cohort. No score without [`MIN_SCORE_OUTPUTS`] to compare with.
    ///
    /// # Errors
    /// Those of [`value_output`].
    pub fn appraise(&self, measured: &'a Measured) -> Result<Appraised<'a>, InputError> {
        let own = Qualities::of(&measured.counters, self.model);
        let keys = cohort_keys(&measured.output, self.as_of)?;
        let samples: Vec<_> = keys.iter().filter_map(|key| Some((key.0, self.cohorts.get(key)?))).collect();
        let place = |own: Option<f64>, quality: fn(&Samples) -> &Sample| {
            let Some(own) = own else { return Ok(None) };
            let cohorts: Vec<_> =
                samples.iter().map(|(level, samples)| Cohort { level: *level, sample: quality(samples) }).collect();
            let placed = cohort::normalise(&cohorts, own)?;
            Ok(placed.filter(|placed| placed.cohort_size >= MIN_SCORE_OUTPUTS).map(|placed| placed.percentile))
        };
        let percentiles = Percentiles {
            reach: place(own.reach, |s| &s.reach)?,
            engagement: place(own.engagement, |s| &s.engagement)?,
            orders: place(own.orders, |s| &s.orders)?,
        };
        value(measured, self.model, &percentiles)
    }

    /// Every output valued, in the order of `measured`.
    ///
    /// # Errors
    /// Those of [`Self::appraise`].
    pub fn appraise_all(&self) -> Result<Vec<Appraised<'a>>, InputError> {
        self.measured.iter().map(|measured| self.appraise(measured)).collect()
    }
}

fn value<'a>(measured: &'a Measured, model: &ValueModel, percentiles: &Percentiles) -> Result<Appraised<'a>, InputError> {
    let evidence = OutputEvidence::Content(evidence(&measured.counters, percentiles));
    Ok(Appraised { measured, value: value_output(&evidence, model)? })
}

/// Values outputs by themselves, without a score, in their order.
///
/// # Errors
/// Those of [`value_output`].
pub fn value_all<'a>(measured: &'a [Measured], model: &ValueModel) -> Result<Vec<Appraised<'a>>, InputError> {
    measured.iter().map(|one| value(one, model, &Percentiles::default())).collect()
}

fn in_window(output: &Output, as_of: DateTime<Utc>) -> bool {
    output.published_at <= as_of && output.published_at > as_of - TimeDelta::days(COHORT_DAYS)
}

/// The cohorts of an output, the most specific first.
fn cohort_keys(output: &Output, as_of: DateTime<Utc>) -> Result<[(CohortLevel, String); 4], InputError> {
    let Output { platform, kind, tier, .. } = output;
    let bucket = age_bucket(output.age_hours(as_of))?;
    Ok([
        (CohortLevel::Exact, format!("{platform}/{kind}/{tier}/{bucket}")),
        (CohortLevel::PlatformKind, format!("{platform}/{kind}")),
        (CohortLevel::Kind, kind.clone()),
        (CohortLevel::Programme, String::new()),
    ])
}

/// Cash value of an output, without its place among others.
///
/// # Errors
/// Those of [`value_output`].
pub fn cash_minor(measured: &Measured, model: &ValueModel) -> Result<i64, InputError> {
    Ok(value(measured, model, &Percentiles::default())?.value.cash_minor)
}

/// Cash value per 1,000 organic reads of outputs together; `None` when nobody read them.
///
/// # Errors
/// Those of [`value_output`].
pub fn cash_per_thousand_reads<'a>(
    measured: impl IntoIterator<Item = &'a Measured>,
    model: &ValueModel,
) -> Result<Option<f64>, InputError> {
    let (mut cash, mut reads) = (0.0, 0.0);
    for one in measured {
        cash += cash_minor(one, model)? as f64;
        reads += one.counters.organic(Metric::Views).unwrap_or(0) as f64;
    }
    Ok((reads > 0.0).then(|| cash / reads * 1_000.0))
}

/// A count per read of one output, and the band from the 1st to the 99th percentile in which its like hold it; `None` without
/// the count, reads, or [`COHORT_MIN_OUTPUTS`] to compare with.
pub fn ratio_in_band(own: &Counters, like: &[Measured], metric: Metric) -> Option<RatioInBand> {
    let ratio = |counters: &Counters| {
        let reads = counters.organic(Metric::Views).filter(|reads| *reads > 0)?;
        Some(counters.organic(metric)? as f64 / reads as f64)
    };
    let mut ratios: Vec<f64> = like.iter().filter_map(|one| ratio(&one.counters)).collect();
    if ratios.len() < COHORT_MIN_OUTPUTS {
        return None;
    }
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (quantile_of_sorted(&ratios, 0.01)?, quantile_of_sorted(&ratios, 0.99)?);
    Some(RatioInBand { value: ratio(own)?, low, high })
}

/// With whom a return was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PoolLevel {
    /// Outputs of the same tier and value type.
    TierType,
    /// Outputs of the same value type.
    Type,
    /// Every output of the programme.
    Programme,
}

/// Values and costs of outputs that a member's return borrows from.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub level: PoolLevel,
    pub results: Vec<OutputResult>,
}

/// The narrowest pool around `like` with [`COHORT_MIN_OUTPUTS`] outputs that cost something; the widest if none has. A small pool
/// would be ruled by the member's own results and by one or two others.
pub fn pool(appraised: &[Appraised<'_>], like: &Output, as_of: DateTime<Utc>) -> Pool {
    let at = |level: PoolLevel| {
        let fits = |other: &Output| match level {
            PoolLevel::TierType => other.tier == like.tier && other.value_type() == like.value_type(),
            PoolLevel::Type => other.value_type() == like.value_type(),
            PoolLevel::Programme => true,
        };
        let mut members: Vec<&Appraised<'_>> = appraised
            .iter()
            .filter(|a| {
                let output = &a.measured.output;
                output.cost_minor() > 0 && in_window(output, as_of) && fits(output)
            })
            .collect();
        members.sort_by_key(|a| (std::cmp::Reverse(a.measured.output.published_at), a.measured.output.id));
        members.truncate(MAX_COHORT_OUTPUTS);
        let results = members.iter().map(|a| result(a, 0)).collect();
        Pool { level, results }
    };
    [PoolLevel::TierType, PoolLevel::Type]
        .into_iter()
        .map(at)
        .find(|pool| pool.results.len() >= COHORT_MIN_OUTPUTS)
        .unwrap_or_else(|| at(PoolLevel::Programme))
}

/// Value and cost of an output.
pub fn result(appraised: &Appraised<'_>, periods_ago: u32) -> OutputResult {
    let cost_minor = appraised.measured.output.cost_minor();
    OutputResult { value_minor: appraised.value.cash_minor, cost_minor, periods_ago }
}

/// How good each scored output is among those of its value type, as evidence for what its member is good at. Counters tell of
/// pieces of content alone: reports and events give evidence once adoptions and attendance are measured.
///
/// # Errors
/// `NotFinite`.
pub fn type_evidence(
    appraised: &[Appraised<'_>],
    of: &[&Appraised<'_>],
    as_of: DateTime<Utc>,
) -> Result<Vec<TypeEvidence>, InputError> {
    let scored = |a: &Appraised<'_>| {
        let content = a.measured.output.value_type() == super::value::ValueType::Content;
        a.value.score.as_ref().filter(|_| content).map(|score| score.value)
    };
    let all: Vec<f64> = appraised.iter().filter(|a| in_window(&a.measured.output, as_of)).filter_map(scored).collect();
    if all.len() < MIN_SCORE_OUTPUTS {
        return Ok(Vec::new());
    }
    let scale = RobustScale::fit(&all)?;
    let evidence = of.iter().filter_map(|a| {
        let z = scale.z(scored(a)?, MIN_SCORE_SCALE);
        let output = &a.measured.output;
        Some(TypeEvidence {
            evidence_id: output.id.to_string(),
            value_type: output.value_type(),
            z,
            grade: Grade::A, // Counted by the platform.
            age_days: output.age_hours(as_of) / 24.0,
        })
    });
    Ok(evidence.collect())
}
