//! What was observed about an output, ready to be valued.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::cohort::rate::RateCount;
use crate::domain::error::{InputError, finite, share};

/// What a member is good at producing, and so what an output counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ValueType {
    Social,
    Content,
    Insight,
}

impl ValueType {
    pub const ALL: [Self; 3] = [Self::Social, Self::Content, Self::Insight];
}

/// How good the evidence for an amount is. The best comes first, so that `min` picks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Grade {
    /// Deterministic: a code, a tracked link, a referral id; a confirmed invoice.
    A,
    /// Modelled on complete paths, or measured against a control.
    B,
    /// Reported by people: a survey, an owner's estimate.
    C,
    /// A raw change that nothing was compared with.
    D,
}

/// Which way the comments on an output lean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OpinionDirection {
    Insufficient,
    Favourable,
    Neutral,
    Polarised,
    Unfavourable,
}

/// The evidence for one output, by what it counts as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "value_type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutputEvidence {
    Content(ContentEvidence),
    Insight(InsightEvidence),
    Social(SocialEvidence),
}

/// An order to which this output led.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttributedOrder {
    /// The shop's id; an order that appears more than once counts once, on its strongest evidence.
    pub order_id: String,
    /// Contribution margin; negative for an order at a loss.
    pub margin_minor: i64,
    /// This output's share of the credit, in [0, 1].
    pub credit: f64,
    pub grade: Grade,
}

/// The output used once more, where something would else have been commissioned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reuse {
    pub replacement_cost_minor: i64,
    pub grade: Grade,
}

/// What an audience did, organic only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Engagement {
    pub reads: u64,
    pub likes: u64,
    pub saves: u64,
    pub comments: u64,
    pub shares: u64,
    pub follows: u64,
}

/// A piece of content. Percentiles are places in the cohort, in [0, 1]; `None` means not measured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ContentEvidence {
    pub orders: Vec<AttributedOrder>,
    pub reuses: Vec<Reuse>,
    /// Followers that it brought, by paid reach too.
    pub new_followers: u64,
    pub engagement: Engagement,
    pub reach_percentile: Option<f64>,
    /// Of [`super::ValueModel::engagement_per_read`].
    pub engagement_percentile: Option<f64>,
    /// Of the shrunk net opinion.
    pub opinion_percentile: Option<f64>,
    /// Discussion depth, 0 to 100.
    pub depth_score: Option<f64>,
    pub purchase_influence_percentile: Option<f64>,
}

/// A suggestion that was adopted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdoptedSuggestion {
    pub suggestion_id: String,
    /// Benefit over the twelve months from shipping.
    pub benefit_minor: i64,
    /// How much of it is owed to this output, in [0, 1].
    pub share: f64,
    /// Confirmed by whoever owns the benefit, or estimated.
    pub confirmed: bool,
    pub grade: Grade,
}

/// An insight report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InsightEvidence {
    pub adopted: Vec<AdoptedSuggestion>,
    /// Suggestions not yet decided on.
    pub pending: u32,
    /// Adopted among decided.
    pub decided: RateCount,
    /// Mean benefit of an adopted suggestion in the cohort; `None` if none has been.
    pub mean_benefit_minor: Option<i64>,
    /// Novelty weighted by severity, in [0, 1].
    pub novelty: Option<f64>,
    pub benefit_percentile: Option<f64>,
}

/// A quantity in the 28 days before and the 28 days after.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BeforeAfter {
    pub before: f64,
    pub after: f64,
}

/// How activity moved among those who took part and among matched members who did not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ActivityChange {
    /// Active members among those who took part.
    pub participants: BeforeAfter,
    /// The same among as many matched members; `None` without such a group.
    pub control: Option<BeforeAfter>,
    /// Grade when there is a control.
    pub grade: Grade,
}

impl ActivityChange {
    /// (after − before) of the participants less that of the control group. Without a control it is the raw change,
    /// and its grade is D whatever was claimed.
    ///
    /// # Errors
    /// `NotFinite`.
    pub fn uplift(&self) -> Result<(f64, Grade), InputError> {
        let raw = finite("participants", self.participants.after - self.participants.before)?;
        match self.control {
            None => Ok((raw, Grade::D)),
            Some(control) => Ok((raw - finite("control", control.after - control.before)?, self.grade)),
        }
    }
}

/// Ties formed among those who took part, each in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cohesion {
    /// Pairs that replied to each other among pairs with a reply.
    pub reciprocity: f64,
    /// Attendees who dealt with at least two others in 28 days.
    pub connected_share: f64,
}

/// An event, or other work on the community.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SocialEvidence {
    pub new_followers: i64,
    pub followers_grade: Grade,
    pub activity: Option<ActivityChange>,
    pub qualified_leads: u32,
    pub leads_grade: Grade,
    pub uplift_percentile: Option<f64>,
    pub leads_percentile: Option<f64>,
    /// Attended among those who said they would.
    pub attendance: Option<RateCount>,
    pub cohesion: Option<Cohesion>,
}

/// One entry per order id: the strongest grade, and of equals the larger credit, so that a survey answer never adds to
/// a tracked link for the same order.
pub(super) fn strongest_per_order(orders: &[AttributedOrder]) -> Result<Vec<&AttributedOrder>, InputError> {
    let mut strongest: BTreeMap<&str, &AttributedOrder> = BTreeMap::new();
    for order in orders {
        share("credit", order.credit)?;
        let kept = strongest.entry(&order.order_id).or_insert(order);
        let rank = |o: &AttributedOrder| (std::cmp::Reverse(o.grade), (o.credit * 1e12) as i64, o.margin_minor);
        if rank(order) > rank(kept) {
            *kept = order;
        }
    }
    Ok(strongest.into_values().collect())
}
