//! Invest more, keep, look closer, or reduce: the decision about one member for the next period.
//!
//! Rules are tried in a fixed order and the first that holds decides. A reduction is only reached through a review, or
//! through a confirmed breach. Two pairs of thresholds differ on the way in and out, so that a member at a border does not
//! change sides every period. A decision carries all it was made from: replaying it gives the same bytes.

pub mod explain;
pub mod policy;

use serde::{Deserialize, Serialize};

pub use explain::{Comparison, Contribution, Counterfactual, Factor};
pub use policy::{Bounds, DecisionPolicy};

use super::digest::content_id;
use super::error::{InputError, at_most, finite, in_range, non_negative_minor, share};
use super::posterior::{MAX_MEMBER_OUTPUTS, OutputResult, Posterior};
use super::value::{Grade, OpinionDirection};

/// The four outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// 追加
    Increase,
    /// 维持
    Maintain,
    /// 复盘
    Review,
    /// 下调
    Reduce,
}

impl Action {
    pub const ALL: [Self; 4] = [Self::Increase, Self::Maintain, Self::Review, Self::Reduce];

    /// As it is spelt where it is kept and told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Increase => "INCREASE",
            Self::Maintain => "MAINTAIN",
            Self::Review => "REVIEW",
            Self::Reduce => "REDUCE",
        }
    }
}

/// Which rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// A confirmed breach of integrity or brand safety.
    R0,
    /// Too little to go on.
    R1,
    /// Still below the floor after a review.
    R2,
    /// A result weak enough to look into.
    R3,
    /// A return that is very likely above target.
    R4,
    /// None of these.
    R5,
}

/// One output of the member in the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberOutput {
    pub output_id: String,
    pub value_minor: i64,
    pub cost_minor: i64,
    pub periods_ago: u32,
    /// The weakest grade of evidence in its value; `None` if it had no cash value.
    pub grade: Option<Grade>,
}

impl From<&MemberOutput> for OutputResult {
    fn from(output: &MemberOutput) -> Self {
        let MemberOutput { value_minor, cost_minor, periods_ago, .. } = *output;
        Self { value_minor, cost_minor, periods_ago }
    }
}

/// What was decided last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousDecision {
    pub action: Action,
    /// Whether the review that it called for has been held and recorded.
    pub review_recorded: bool,
    /// Whether its posterior met the stretch target ([`Decision::stretch_met`]).
    pub stretch_met: bool,
}

/// What a decision is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionInputs {
    /// Those of the policy's window; an older one is refused.
    pub outputs: Vec<MemberOutput>,
    /// Computed with the policy's [`DecisionPolicy::posterior`], target and floor; `None` when nothing was spent or there is
    /// nobody to compare with.
    pub posterior: Option<Posterior>,
    /// Age of the youngest output that counts, in half-lives of its platform.
    pub window_half_lives: f64,
    pub opinion: OpinionDirection,
    /// No unresolved doubt about the audience being genuine.
    pub authenticity_ok: bool,
    /// A confirmed breach of integrity or brand safety.
    pub breach_confirmed: bool,
    /// Change of the mean score against the window before, in its standard deviations; negative is a drop.
    pub score_change_sigma: Option<f64>,
    pub previous: Option<PreviousDecision>,
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub action: Action,
    pub rule: Rule,
    /// The rule in a sentence with its figures.
    pub text: String,
    /// Everything the rules looked at.
    pub factors: Vec<Factor>,
    /// What would have changed the outcome.
    pub counterfactuals: Vec<Counterfactual>,
    /// Up to three outputs that moved the result most.
    pub top_outputs: Vec<Contribution>,
    /// Factor on the member's current limit.
    pub limit_multiplier: f64,
    /// What the allocator may choose from in the next period, as factors on current spend.
    pub bounds: Bounds,
    /// A person has to agree, whatever the policy says about applying at once.
    pub needs_approval: bool,
    /// The member's tier should be looked at.
    pub tier_review: bool,
    /// To be handed to the next decision.
    pub stretch_met: bool,
    /// Share of the posterior that comes from the cohort; 1 without a posterior.
    pub prior_share: f64,
    pub policy_version: u32,
    /// SHA-256 of the policy and of the inputs, in hexadecimal.
    pub policy_id: String,
    pub inputs_id: String,
}

impl Decision {
    /// The factor on what was spent that gives the member's next limit: the multiplier of the outcome, and for MAINTAIN the
    /// upper bound of what the allocator may choose, since a limit at the very spend of one period would refuse the ordinary
    /// ups and downs of the next.
    pub fn limit_factor(&self) -> f64 {
        if self.action == Action::Maintain { self.bounds.high } else { self.limit_multiplier }
    }
}

/// Decides. Same inputs and policy, same bytes.
///
/// R0 breach → REDUCE, by hand. R1 too few outputs, too little spend, an immature window or no posterior → MAINTAIN.
/// R2 P(ROI > floor) low again after REVIEW or REDUCE → REDUCE. R3 P(ROI > floor) low, P(ROI > target) low, unfavourable
/// opinion or a falling score → REVIEW; a member under review stays there until P(ROI > target) clears a higher mark.
/// R4 P(ROI > target) high, opinion and authenticity in order → INCREASE; once increased, a lower mark holds it. R5 MAINTAIN.
///
/// # Errors
/// `OutOfRange`, `NotFinite`, `NegativeAmount`, `TooMany`, for inputs or for a policy that makes no sense.
pub fn decide(inputs: &DecisionInputs, policy: &DecisionPolicy) -> Result<Decision, InputError> {
    policy.check()?;
    check(inputs, policy)?;
    let situation = Situation { inputs, policy, posterior: inputs.posterior.as_ref() };
    let (rule, action) = situation.first_rule();
    let stretch_met = situation.stretch_met();
    let strong = stretch_met && inputs.previous.is_some_and(|previous| previous.stretch_met);
    let limit_multiplier = match action {
        Action::Increase if strong => policy.strong_increase_multiplier,
        Action::Increase => policy.increase_multiplier,
        Action::Maintain | Action::Review => 1.0,
        Action::Reduce => policy.reduce_multiplier,
    };
    Ok(Decision {
        action,
        rule,
        text: situation.text(rule, action),
        factors: situation.factors(),
        counterfactuals: situation.counterfactuals(rule, action),
        top_outputs: explain::top_contributions(&inputs.outputs, policy.posterior.decay_per_period),
        limit_multiplier,
        bounds: policy.bounds_of(action),
        needs_approval: rule == Rule::R0 || action == Action::Reduce && policy.reduce_needs_approval,
        tier_review: action == Action::Reduce,
        stretch_met,
        prior_share: situation.posterior.map_or(1.0, |posterior| posterior.prior_share),
        policy_version: policy.version,
        policy_id: policy.id(),
        inputs_id: content_id("koc.decision_inputs.v1", inputs),
    })
}

fn check(inputs: &DecisionInputs, policy: &DecisionPolicy) -> Result<(), InputError> {
    let oldest = f64::from(policy.window_periods - 1);
    at_most("outputs", inputs.outputs.len(), MAX_MEMBER_OUTPUTS)?;
    for output in &inputs.outputs {
        non_negative_minor("cost_minor", output.cost_minor)?;
        in_range("periods_ago", f64::from(output.periods_ago), 0.0, oldest)?;
    }
    in_range("window_half_lives", inputs.window_half_lives, 0.0, f64::MAX)?;
    if let Some(change) = inputs.score_change_sigma {
        finite("score_change_sigma", change)?;
    }
    if let Some(posterior) = &inputs.posterior {
        share("p_target", posterior.p_target)?;
        share("p_floor", posterior.p_floor)?;
        share("p_stretch", posterior.p_stretch)?;
        share("prior_share", posterior.prior_share)?;
        finite("mean", posterior.mean)?;
        // A posterior against other thresholds would be read as an answer to a question that was not asked.
        in_range("posterior.target_roi", posterior.target_roi, policy.target_roi, policy.target_roi)?;
        in_range("posterior.floor_roi", posterior.floor_roi, policy.floor_roi, policy.floor_roi)?;
    }
    Ok(())
}

/// Inputs and policy side by side, so that rules and explanations read the same figures.
struct Situation<'a> {
    inputs: &'a DecisionInputs,
    policy: &'a DecisionPolicy,
    posterior: Option<&'a Posterior>,
}

impl Situation<'_> {
    fn first_rule(&self) -> (Rule, Action) {
        if self.inputs.breach_confirmed {
            return (Rule::R0, Action::Reduce);
        }
        let Some(posterior) = self.posterior.filter(|_| self.missing().is_empty()) else {
            return (Rule::R1, Action::Maintain);
        };
        if posterior.p_floor <= self.policy.floor_probability && self.reduction_open() {
            (Rule::R2, Action::Reduce)
        } else if self.is_weak(posterior) {
            (Rule::R3, Action::Review)
        } else if self.is_strong(posterior) {
            (Rule::R4, Action::Increase)
        } else {
            (Rule::R5, Action::Maintain)
        }
    }

    /// What R1 still waits for, in words.
    fn missing(&self) -> Vec<String> {
        let (inputs, policy) = (self.inputs, self.policy);
        let mut missing = Vec::new();
        let outputs = inputs.outputs.len() as u64;
        if outputs < u64::from(policy.min_outputs) {
            missing.push(explain::more_outputs_text(u64::from(policy.min_outputs) - outputs));
        }
        let spend = self.spend_minor();
        if spend < i128::from(policy.min_spend_minor) {
            let share = spend as f64 / policy.min_spend_minor as f64;
            missing.push(format!("more spend (it is {:.0} % of the least)", 100.0 * share));
        }
        if inputs.window_half_lives < policy.min_half_lives {
            let wait = policy.min_half_lives - inputs.window_half_lives;
            missing.push(format!("{wait:.1} more half-lives of observation"));
        }
        if self.posterior.is_none() {
            missing.push("a posterior of the return (some spend, and a cohort with costs)".to_owned());
        }
        missing
    }

    fn spend_minor(&self) -> i128 {
        self.inputs.outputs.iter().map(|output| i128::from(output.cost_minor)).sum()
    }

    /// Whether a reduction may follow: after a review (a recorded one, if the policy asks for that) or a reduction.
    fn reduction_open(&self) -> bool {
        self.inputs.previous.is_some_and(|previous| match previous.action {
            Action::Reduce => true,
            Action::Review => previous.review_recorded || !self.policy.reduce_needs_review_record,
            Action::Increase | Action::Maintain => false,
        })
    }

    fn was(&self, action: Action) -> bool {
        self.inputs.previous.is_some_and(|previous| previous.action == action)
    }

    /// P(ROI > target) at or below which a review starts, or below which one goes on.
    fn under_review(&self) -> bool {
        self.was(Action::Review) || self.was(Action::Reduce)
    }

    fn is_weak(&self, posterior: &Posterior) -> bool {
        posterior.p_floor <= self.policy.floor_probability
            || posterior.p_target <= self.policy.review_probability
            || self.under_review() && posterior.p_target < self.policy.review_clear_probability
            || self.inputs.opinion == OpinionDirection::Unfavourable
            || self.score_fell()
    }

    fn score_fell(&self) -> bool {
        self.inputs.score_change_sigma.is_some_and(|change| -change > self.policy.score_drop_sigma)
    }

    fn increase_threshold(&self) -> f64 {
        if self.was(Action::Increase) { self.policy.increase_hold_probability } else { self.policy.increase_probability }
    }

    fn is_strong(&self, posterior: &Posterior) -> bool {
        posterior.p_target >= self.increase_threshold()
            && self.inputs.opinion != OpinionDirection::Unfavourable
            && self.inputs.authenticity_ok
    }

    fn stretch_met(&self) -> bool {
        self.posterior.is_some_and(|posterior| posterior.p_stretch >= self.policy.increase_probability)
    }
}

#[cfg(test)]
mod tests;
