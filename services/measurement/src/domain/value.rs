//! What one output was worth.
//!
//! Three ledgers that never mix. *Cash value* is what can be defended in money: margin of attributed orders, cost
//! avoided by reuse, benefit of adopted suggestions, and what a brand says a follower, an active member or a lead is
//! worth to it. Only this enters a return. The *score* (0 to 100) ranks outputs of one type. *Media equivalence* prices
//! attention at advertising rates; there is no agreed rate and no link to sales (AMEC's Barcelona Principles reject it), so it is
//! shown, marked, and left out of cash.

pub mod evidence;
pub mod media;
pub mod model;
pub mod returns;
pub mod score;

use serde::{Deserialize, Serialize};

pub use evidence::{
    ActivityChange, AdoptedSuggestion, AttributedOrder, BeforeAfter, Cohesion, ContentEvidence, Engagement, Grade,
    InsightEvidence, OpinionDirection, OutputEvidence, Reuse, SocialEvidence, ValueType,
};
pub use media::{EmvRates, MediaEquivalent};
pub use model::ValueModel;
pub use returns::{CostBasis, Costs, Returns};
pub use score::{Score, ScorePart};

use super::error::{InputError, at_most, finite, in_range, non_negative_minor, share};
use super::money::{round_to_minor, sum_minor};

/// Orders, reuses or suggestions of one output that one valuation reads at most.
pub const MAX_EVIDENCE_ITEMS: usize = 1_000_000;

/// Where cash value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ComponentKind {
    /// Contribution margin of attributed orders.
    AttributedMargin,
    /// Cost of commissioning anew, avoided by using the output again.
    ReuseSaving,
    /// Realised benefit of adopted suggestions over twelve months.
    AdoptedBenefit,
    NewFollowers,
    /// Activity above what would have been.
    ActivityUplift,
    QualifiedLeads,
}

/// A part of the cash value. Evidence of different grades stands in different components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    pub kind: ComponentKind,
    pub grade: Grade,
    /// May be negative: returned orders, activity that fell.
    pub amount_minor: i64,
    /// Orders, reuses, suggestions behind it; 1 for a count.
    pub items: u64,
}

/// What one output was worth, under one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputValue {
    /// [`ValueModel::id`] of the model that was used.
    pub model_id: String,
    pub value_type: ValueType,
    /// The sum of the components.
    pub cash_minor: i64,
    /// In the order of [`ComponentKind`], then grade.
    pub components: Vec<Component>,
    /// `None` when nothing that makes up the score was measured.
    pub score: Option<Score>,
    /// Expected, not realised: what pending suggestions may still bring. Not part of cash.
    pub pending_minor: i64,
    /// Not part of cash.
    pub media_equivalent: Option<MediaEquivalent>,
}

/// Values an output. Sums are formed in floating point per component and rounded once, half to even.
///
/// Content: Σ margin · credit over distinct orders, plus Σ replacement cost · (1 − reuse discount), plus followers at the
/// brand's own rate. Insight: Σ benefit · share · confidence of adopted suggestions; pending ones are shown as P(adopt) · mean benefit, with P the
/// mean of a beta posterior. Social: followers, uplift and leads at the brand's own rates; a rate of zero leaves the part out
/// of cash. The uplift is a difference in differences (Ashenfelter & Card 1985) and grade D without a control group.
///
/// # Errors
/// `NegativeAmount`, `OutOfRange`, `NotFinite`, `Exceeds`, `TooMany`, `AmountOverflow`.
pub fn value_output(evidence: &OutputEvidence, model: &ValueModel) -> Result<OutputValue, InputError> {
    model.check()?;
    let mut ledger = Ledger::default();
    let (value_type, score, pending_minor, media_equivalent) = match evidence {
        OutputEvidence::Content(content) => {
            value_content(content, model, &mut ledger)?;
            let media = media::media_equivalent(&content.engagement, model)?;
            (ValueType::Content, score::score_content(content, model)?, 0, media)
        }
        OutputEvidence::Insight(insight) => {
            let pending_minor = value_insight(insight, model, &mut ledger)?;
            (ValueType::Insight, score::score_insight(insight, model)?, pending_minor, None)
        }
        OutputEvidence::Social(social) => {
            value_social(social, model, &mut ledger)?;
            (ValueType::Social, score::score_social(social, model)?, 0, None)
        }
    };
    let components = ledger.into_components()?;
    let cash_minor = sum_minor("cash", components.iter().map(|component| component.amount_minor))?;
    Ok(OutputValue { model_id: model.id(), value_type, cash_minor, components, score, pending_minor, media_equivalent })
}

/// Estimates by kind and grade, before rounding.
#[derive(Default)]
struct Ledger(std::collections::BTreeMap<(ComponentKind, Grade), (f64, u64)>);

impl Ledger {
    fn add(&mut self, kind: ComponentKind, grade: Grade, estimate_minor: f64) -> Result<(), InputError> {
        finite("value", estimate_minor)?;
        let (sum, items) = self.0.entry((kind, grade)).or_default();
        *sum += estimate_minor;
        *items += 1;
        Ok(())
    }

    fn into_components(self) -> Result<Vec<Component>, InputError> {
        self.0
            .into_iter()
            .map(|((kind, grade), (estimate, items))| {
                Ok(Component { kind, grade, amount_minor: round_to_minor("value", estimate)?, items })
            })
            .collect()
    }
}

fn value_content(content: &ContentEvidence, model: &ValueModel, ledger: &mut Ledger) -> Result<(), InputError> {
    at_most("orders", content.orders.len(), MAX_EVIDENCE_ITEMS)?;
    at_most("reuses", content.reuses.len(), MAX_EVIDENCE_ITEMS)?;
    for order in evidence::strongest_per_order(&content.orders)? {
        ledger.add(ComponentKind::AttributedMargin, order.grade, order.margin_minor as f64 * order.credit)?;
    }
    for reuse in &content.reuses {
        let replacement = non_negative_minor("replacement_cost_minor", reuse.replacement_cost_minor)?;
        let saved = replacement as f64 * (1.0 - model.reuse_discount);
        ledger.add(ComponentKind::ReuseSaving, reuse.grade, saved)?;
    }
    if model.follower_value_minor > 0 && content.new_followers > 0 {
        // The count is the platform's, the worth of a follower is the brand's estimate: C.
        let value = content.new_followers as f64 * model.follower_value_minor as f64;
        ledger.add(ComponentKind::NewFollowers, Grade::C, value)?;
    }
    Ok(())
}

fn value_insight(insight: &InsightEvidence, model: &ValueModel, ledger: &mut Ledger) -> Result<i64, InputError> {
    at_most("adopted", insight.adopted.len(), MAX_EVIDENCE_ITEMS)?;
    for suggestion in &insight.adopted {
        let benefit = non_negative_minor("benefit_minor", suggestion.benefit_minor)? as f64;
        let confidence = if suggestion.confirmed { 1.0 } else { model.estimated_confidence };
        let realised = benefit * share("share", suggestion.share)? * confidence;
        ledger.add(ComponentKind::AdoptedBenefit, suggestion.grade, realised)?;
    }
    let Some(mean_benefit) = insight.mean_benefit_minor else { return Ok(0) };
    let mean_benefit = non_negative_minor("mean_benefit_minor", mean_benefit)? as f64;
    let adoption = model.adoption_prior.estimate(insight.decided)?.mean;
    round_to_minor("pending", f64::from(insight.pending) * adoption * mean_benefit)
}

fn value_social(social: &SocialEvidence, model: &ValueModel, ledger: &mut Ledger) -> Result<(), InputError> {
    in_range("new_followers", social.new_followers as f64, -1e15, 1e15)?;
    if model.follower_value_minor > 0 && social.new_followers != 0 {
        let value = social.new_followers as f64 * model.follower_value_minor as f64;
        ledger.add(ComponentKind::NewFollowers, social.followers_grade, value)?;
    }
    if let (Some(change), true) = (&social.activity, model.active_member_value_minor > 0) {
        let (uplift, grade) = change.uplift()?;
        ledger.add(ComponentKind::ActivityUplift, grade, uplift * model.active_member_value_minor as f64)?;
    }
    if model.lead_value_minor > 0 && social.qualified_leads > 0 {
        let value = f64::from(social.qualified_leads) * model.lead_value_minor as f64;
        ledger.add(ComponentKind::QualifiedLeads, social.leads_grade, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
