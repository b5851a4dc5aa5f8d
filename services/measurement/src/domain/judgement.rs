//! A decision from end to end: everything that goes in, as it is stored, and everything that comes out. Judging stored inputs
//! again gives the same result, byte for byte.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::appraisal::PoolLevel;
use super::cohort::rate::RateCount;
use super::decision::{Action, Decision, DecisionInputs, DecisionPolicy, MemberOutput, PreviousDecision, decide};
use super::digest::content_id;
use super::error::InputError;
use super::money::{round_to_minor, sum_minor};
use super::period::Period;
use super::posterior::{OutputResult, Posterior, PosteriorError, PosteriorInputs, posterior};
use super::tier_proposal::{TierInputs, TierPolicy, TierProposal, propose_tier};
use super::types::{TypeEvidence, TypePolicy, TypeProfile, TypeScore, score_types};
use super::value::returns::return_on;
use super::value::{OpinionDirection, ValueType};

/// Everything one decision is made from; with the pool that [`Self::pool_id`] names, nothing else is needed to judge again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    pub member_id: Uuid,
    pub period: Period,
    pub policy: DecisionPolicy,
    pub type_policy: TypePolicy,
    pub tier_policy: TierPolicy,
    pub value_model_version: i32,
    pub value_model_id: String,
    /// Of the trailing window.
    pub outputs: Vec<MemberOutput>,
    /// What the work of this period earned, boosts apart: the base of the next limit.
    pub reward_minor: i64,
    pub pool_level: PoolLevel,
    /// [`pool_id`] of the results that were compared with.
    pub pool_id: String,
    /// Age of the youngest output, in half-lives of its platform; 0 without outputs.
    pub window_half_lives: f64,
    pub previous: Option<PreviousDecision>,
    pub previous_tier_streak: u32,
    /// Labels held by the decision before.
    pub held_types: Vec<ValueType>,
    pub type_evidence: Vec<TypeEvidence>,
    /// Periods with an output among those since the first.
    pub active_periods: RateCount,
}

impl Inputs {
    /// SHA-256 of the inputs, in hexadecimal.
    pub fn id(&self) -> String {
        content_id("koc.judgement_inputs.v1", self)
    }
}

/// SHA-256 of a pool, in hexadecimal.
pub fn pool_id(results: &[OutputResult]) -> String {
    content_id("koc.cohort_sample.v1", &results)
}

/// What was decided, and what follows for registry and budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    pub decision: Decision,
    pub explanation: String,
    /// `None` when nothing was spent, or there was nobody to compare with.
    pub posterior: Option<Posterior>,
    /// Of the period's own outputs.
    pub value_minor: i64,
    pub cost_minor: i64,
    pub output_count: u32,
    pub top_outputs: Vec<TopOutput>,
    /// `None` when the period's work earned nothing.
    pub next_limit_minor: Option<i64>,
    /// Return of the period's own outputs; `None` when they cost nothing.
    pub past_return: Option<f64>,
    pub profile: TypeProfile,
    pub tier: TierProposal,
    /// Outputs of the trailing window.
    pub window_outputs: u32,
}

/// An output that contributed much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopOutput {
    pub output_id: String,
    pub value_minor: i64,
    pub cost_minor: i64,
}

/// Judges. Opinion, doubts about the audience, breaches and the course of the score are not measured yet: they enter as unknown,
/// which bars nothing.
///
/// The next limit is the factor of [`Decision::limit_factor`] on what the period's work earned, rounded half to even.
///
/// # Errors
/// Those of [`posterior`], [`decide`], [`score_types`] and [`propose_tier`] for inputs that make no sense.
pub fn judge(inputs: &Inputs, pool: &[OutputResult]) -> Result<Judgement, InputError> {
    let policy = &inputs.policy;
    let posterior_inputs = PosteriorInputs {
        outputs: inputs.outputs.iter().map(OutputResult::from).collect(),
        cohort: pool.to_vec(),
        target_roi: policy.target_roi,
        floor_roi: policy.floor_roi,
    };
    let posterior = match posterior(&posterior_inputs, &policy.posterior) {
        Ok(posterior) => Some(posterior),
        Err(PosteriorError::NoSpend | PosteriorError::EmptyCohort) => None,
        Err(PosteriorError::Input(error)) => return Err(error),
    };
    let decision_inputs = DecisionInputs {
        outputs: inputs.outputs.clone(),
        posterior: posterior.clone(),
        window_half_lives: inputs.window_half_lives,
        opinion: OpinionDirection::Insufficient,
        authenticity_ok: true,
        breach_confirmed: false,
        score_change_sigma: None,
        previous: inputs.previous,
    };
    let decision = decide(&decision_inputs, policy)?;

    let present: Vec<&MemberOutput> = inputs.outputs.iter().filter(|output| output.periods_ago == 0).collect();
    let value_minor = sum_minor("value", present.iter().map(|output| output.value_minor))?;
    let cost_minor = sum_minor("cost", present.iter().map(|output| output.cost_minor))?;
    let factor = decision.limit_factor();
    let next_limit_minor =
        if inputs.reward_minor > 0 { Some(round_to_minor("next_limit", inputs.reward_minor as f64 * factor)?) } else { None };
    let profile = score_types(&inputs.type_evidence, &inputs.held_types, &inputs.type_policy)?;
    let tier = propose_tier(&tier_inputs(inputs, &profile), &inputs.tier_policy)?;
    Ok(Judgement {
        explanation: format!("{} {}", decision.text, limit_text(&decision, factor, next_limit_minor)),
        top_outputs: decision
            .top_outputs
            .iter()
            .filter_map(|top| inputs.outputs.iter().find(|output| output.output_id == top.output_id))
            .map(|output| TopOutput {
                output_id: output.output_id.clone(),
                value_minor: output.value_minor,
                cost_minor: output.cost_minor,
            })
            .collect(),
        decision,
        posterior,
        value_minor,
        cost_minor,
        output_count: u32::try_from(present.len()).unwrap_or(u32::MAX),
        next_limit_minor,
        past_return: return_on(value_minor, cost_minor)?,
        profile,
        tier,
        window_outputs: u32::try_from(inputs.outputs.len()).unwrap_or(u32::MAX),
    })
}

/// Level and weight of the type the member is best at. Conduct is not told to this service: without trials its share is the prior's
/// middle. Eligibility and room are the registry's to judge.
impl Judgement {
    /// The weight of the evidence behind the level.
    pub fn evidence_weight(&self) -> f64 {
        best(&self.profile).map_or(0.0, |score| score.weight)
    }
}

/// The type that a member's level is taken from.
fn best(profile: &TypeProfile) -> Option<&TypeScore> {
    let best = profile.primary.or(profile.nearest)?;
    profile.scores.iter().find(|score| score.value_type == best)
}

fn tier_inputs(inputs: &Inputs, profile: &TypeProfile) -> TierInputs {
    let best = best(profile);
    TierInputs {
        value_mean: best.map_or(0.0, |score| score.mean),
        value_sd: best.map_or(inputs.type_policy.between_sd, |score| score.sd),
        value_weight: best.map_or(0.0, |score| score.weight),
        active_periods: inputs.active_periods,
        good_conduct: RateCount { successes: 0, trials: 0 },
        previous_streak: inputs.previous_tier_streak,
        capacity_available: true,
        eligible: true,
    }
}

fn limit_text(decision: &Decision, factor: f64, limit_minor: Option<i64>) -> String {
    if limit_minor.is_none() {
        return "No limit follows: the period's work earned nothing to base one on.".to_owned();
    }
    let why = match decision.action {
        Action::Maintain => " (the upper bound, so that ordinary work is not cut off)",
        _ => "",
    };
    format!("Next period's limit is {factor:.2} times what this period's work earned{why}.")
}
