//! The score of an output among outputs of its type, 0 to 100.

use serde::{Deserialize, Serialize};

use super::evidence::{ContentEvidence, InsightEvidence, SocialEvidence};
use super::model::ValueModel;
use crate::domain::error::{InputError, in_range, share};

/// A weighted mean of what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// 0 to 100.
    pub value: f64,
    /// Share of the weights that was measured, in (0, 1]. A score with little coverage says little.
    pub coverage: f64,
    /// Every part of the score; those not measured have no value.
    pub parts: Vec<ScorePart>,
}

/// One part of a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScorePart {
    pub name: String,
    pub weight: f64,
    /// In [0, 1]; `None` if not measured.
    pub value: Option<f64>,
}

fn part(name: &'static str, weight: f64, value: Option<f64>) -> Result<ScorePart, InputError> {
    let value = value.map(|value| share(name, value)).transpose()?;
    Ok(ScorePart { name: name.to_owned(), weight, value })
}

/// The mean over the measured parts, weights renormalised; `None` when none was measured.
fn combine(parts: Vec<ScorePart>) -> Option<Score> {
    let all: f64 = parts.iter().map(|part| part.weight).sum();
    let measured: f64 = parts.iter().filter(|part| part.value.is_some()).map(|part| part.weight).sum();
    let sum: f64 = parts.iter().filter_map(|part| Some(part.weight * part.value?)).sum();
    if measured <= 0.0 {
        return None;
    }
    Some(Score { value: (100.0 * sum / measured).clamp(0.0, 100.0), coverage: (measured / all).min(1.0), parts })
}

pub(super) fn score_content(content: &ContentEvidence, model: &ValueModel) -> Result<Option<Score>, InputError> {
    let weights = &model.content_weights;
    let depth = content.depth_score.map(|depth| in_range("depth_score", depth, 0.0, 100.0)).transpose()?;
    Ok(combine(vec![
        part("reach", weights.reach, content.reach_percentile)?,
        part("engagement", weights.engagement, content.engagement_percentile)?,
        part("opinion", weights.opinion, content.opinion_percentile)?,
        part("depth", weights.depth, depth.map(|depth| depth / 100.0))?,
        part("purchase_influence", weights.purchase_influence, content.purchase_influence_percentile)?,
    ]))
}

/// The adoption part compares the shrunk adoption rate with the rate that counts as full; without a decided suggestion it
/// is not measured, rather than the prior's.
pub(super) fn score_insight(insight: &InsightEvidence, model: &ValueModel) -> Result<Option<Score>, InputError> {
    let weights = &model.insight_weights;
    let adoption = model.adoption_prior.estimate(insight.decided)?.mean;
    let adoption = (insight.decided.trials > 0).then(|| (adoption / model.full_adoption).min(1.0));
    Ok(combine(vec![
        part("adoption", weights.adoption, adoption)?,
        part("novelty", weights.novelty, insight.novelty)?,
        part("benefit", weights.benefit, insight.benefit_percentile)?,
    ]))
}

pub(super) fn score_social(social: &SocialEvidence, model: &ValueModel) -> Result<Option<Score>, InputError> {
    let weights = &model.social_weights;
    let cohesion = match &social.cohesion {
        None => None,
        Some(ties) => {
            let reciprocity = share("reciprocity", ties.reciprocity)?;
            Some(0.5 * reciprocity + 0.5 * share("connected_share", ties.connected_share)?)
        }
    };
    let attendance = social.attendance.map(|count| model.attendance_prior.estimate(count)).transpose()?;
    Ok(combine(vec![
        part("uplift", weights.uplift, social.uplift_percentile)?,
        part("cohesion", weights.cohesion, cohesion)?,
        part("attendance", weights.attendance, attendance.map(|estimate| estimate.mean))?,
        part("leads", weights.leads, social.leads_percentile)?,
    ]))
}
