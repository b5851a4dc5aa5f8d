//! The parameters of a valuation.

use serde::{Deserialize, Serialize};

use super::evidence::Engagement;
use super::media::EmvRates;
use crate::domain::cohort::rate::BetaPrior;
use crate::domain::digest::content_id;
use crate::domain::error::{InputError, in_range, non_negative_minor, share};

/// Days after publication in which readings count when a model does not say.
pub const DEFAULT_ATTRIBUTION_DAYS: u32 = 90;

/// Weights of the actions in the engagement of a piece of content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngagementWeights {
    pub like: f64,
    pub save: f64,
    pub comment: f64,
    pub share: f64,
    pub follow: f64,
}

/// Weights of the parts of a content score. Weights need not sum to 1: the score is a weighted mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContentWeights {
    pub reach: f64,
    pub engagement: f64,
    pub opinion: f64,
    pub depth: f64,
    pub purchase_influence: f64,
}

/// Weights of the parts of an insight score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InsightWeights {
    pub adoption: f64,
    pub novelty: f64,
    pub benefit: f64,
}

/// Weights of the parts of a social score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SocialWeights {
    pub uplift: f64,
    pub cohesion: f64,
    pub attendance: f64,
    pub leads: f64,
}

/// Everything a valuation depends on besides its evidence. A model is never edited: a change is a new version, and its
/// content is its identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueModel {
    pub version: u32,
    /// ISO 4217.
    pub currency: String,
    /// Readings count until so many days after publication.
    pub attribution_days: u32,
    /// How much less a reused output is worth than a new one would cost, in [0, 1].
    pub reuse_discount: f64,
    /// Weight of a benefit that is estimated, not confirmed, in [0, 1].
    pub estimated_confidence: f64,
    /// Belief about adoption before any suggestion of the report was decided on.
    pub adoption_prior: BetaPrior,
    /// Adoption at which the adoption part of an insight score is full, in (0, 1].
    pub full_adoption: f64,
    /// Belief about attendance among those who said they would come.
    pub attendance_prior: BetaPrior,
    /// What the brand says these are worth to it; zero leaves them out of cash.
    pub follower_value_minor: i64,
    pub active_member_value_minor: i64,
    pub lead_value_minor: i64,
    pub engagement_weights: EngagementWeights,
    pub content_weights: ContentWeights,
    pub insight_weights: InsightWeights,
    pub social_weights: SocialWeights,
    /// Advertising rates for the media equivalence; `None` shows none.
    pub emv_rates: Option<EmvRates>,
    /// Also report a return that includes the media equivalence, beside the one that does not.
    pub report_return_with_emv: bool,
}

impl ValueModel {
    /// The default model: no worth for followers, active members and leads until the brand sets one, and no media
    /// equivalence. Engagement weights 1, 1, 4, 4, 8 are practitioners' lore about Xiaohongshu's ranking, not an official
    /// figure; the other weights are assumptions.
    pub fn standard(currency: &str) -> Self {
        Self {
            version: 1,
            currency: currency.to_owned(),
            attribution_days: DEFAULT_ATTRIBUTION_DAYS,
            reuse_discount: 0.5,
            estimated_confidence: 0.5,
            adoption_prior: BetaPrior::ADOPTION,
            full_adoption: 0.5,
            attendance_prior: BetaPrior { alpha: 7.0, beta: 3.0 },
            follower_value_minor: 0,
            active_member_value_minor: 0,
            lead_value_minor: 0,
            engagement_weights: EngagementWeights { like: 1.0, save: 1.0, comment: 4.0, share: 4.0, follow: 8.0 },
            content_weights: ContentWeights {
                reach: 0.25,
                engagement: 0.25,
                opinion: 0.20,
                depth: 0.15,
                purchase_influence: 0.15,
            },
            insight_weights: InsightWeights { adoption: 0.5, novelty: 0.3, benefit: 0.2 },
            social_weights: SocialWeights { uplift: 0.35, cohesion: 0.25, attendance: 0.20, leads: 0.20 },
            emv_rates: None,
            report_return_with_emv: false,
        }
    }

    /// SHA-256 of the model's content, in hexadecimal: equal for equal parameters, whoever wrote them.
    pub fn id(&self) -> String {
        content_id("koc.value_model.v1", self)
    }

    /// Weighted actions per read; `None` without reads. Normalise it against the cohort before scoring.
    pub fn engagement_per_read(&self, engagement: &Engagement) -> Option<f64> {
        let weights = &self.engagement_weights;
        let actions = weights.like * engagement.likes as f64
            + weights.save * engagement.saves as f64
            + weights.comment * engagement.comments as f64
            + weights.share * engagement.shares as f64
            + weights.follow * engagement.follows as f64;
        (engagement.reads > 0).then(|| actions / engagement.reads as f64)
    }

    /// Whether the parameters make sense.
    ///
    /// # Errors
    /// `OutOfRange`, `NotFinite`, `NegativeAmount`, naming the parameter.
    pub fn check(&self) -> Result<(), InputError> {
        in_range("attribution_days", f64::from(self.attribution_days), 1.0, 365.0)?;
        share("reuse_discount", self.reuse_discount)?;
        share("estimated_confidence", self.estimated_confidence)?;
        in_range("full_adoption", self.full_adoption, f64::EPSILON, 1.0)?;
        self.adoption_prior.check()?;
        self.attendance_prior.check()?;
        non_negative_minor("follower_value_minor", self.follower_value_minor)?;
        non_negative_minor("active_member_value_minor", self.active_member_value_minor)?;
        non_negative_minor("lead_value_minor", self.lead_value_minor)?;
        let EngagementWeights { like, save, comment, share, follow } = self.engagement_weights;
        let ContentWeights { reach, engagement, opinion, depth, purchase_influence } = self.content_weights;
        let InsightWeights { adoption, novelty, benefit } = self.insight_weights;
        let SocialWeights { uplift, cohesion, attendance, leads } = self.social_weights;
        check_weights("engagement_weights", &[like, save, comment, share, follow])?;
        check_weights("content_weights", &[reach, engagement, opinion, depth, purchase_influence])?;
        check_weights("insight_weights", &[adoption, novelty, benefit])?;
        check_weights("social_weights", &[uplift, cohesion, attendance, leads])?;
        if let Some(rates) = &self.emv_rates {
            rates.check()?;
        }
        Ok(())
    }
}

/// Weights are at least zero, at most 1,000, and not all zero.
fn check_weights(field: &'static str, weights: &[f64]) -> Result<(), InputError> {
    for &weight in weights {
        in_range(field, weight, 0.0, 1_000.0)?;
    }
    if weights.iter().sum::<f64>() > 0.0 { Ok(()) } else { Err(InputError::Empty { field }) }
}
