//! The reasons of a decision, and what would have changed it.

use serde::{Deserialize, Serialize};

use super::{Action, MemberOutput, Rule, Situation};
use crate::domain::distribution::normal_quantile;
use crate::domain::posterior::Posterior;
use crate::domain::value::{Grade, OpinionDirection};

/// Outputs named in a decision.
const TOP_OUTPUTS: usize = 3;
/// Beyond this "about so many more outputs" stops being advice.
const MAX_MORE_OUTPUTS: f64 = 1_000.0;

/// How a value is held against its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Comparison {
    AtLeast,
    AtMost,
    Above,
}

/// One thing a rule looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Factor {
    /// Stable, in snake case.
    pub name: String,
    /// Yes and no read 1 and 0. `None` if not known.
    pub value: Option<f64>,
    pub comparison: Comparison,
    pub threshold: f64,
    /// Whether `value comparison threshold` holds; false when the value is not known.
    pub met: bool,
}

/// What would have led to another outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counterfactual {
    pub outcome: Action,
    /// The condition in a sentence.
    pub text: String,
    /// How far the deciding probability is from its threshold; `None` if no probability decides.
    pub distance: Option<f64>,
    /// About how many more outputs with the same mean would do, if more outputs can.
    pub more_outputs: Option<u32>,
}

/// What one output added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    pub output_id: String,
    /// Value less cost.
    pub net_minor: i64,
    /// Its part in the sum of absolute net results, after decay, in [0, 1].
    pub share: f64,
    pub grade: Option<Grade>,
}

/// The outputs that moved the result most, up or down: by the absolute of value less cost, decayed by age, ties by id.
pub(super) fn top_contributions(outputs: &[MemberOutput], decay_per_period: f64) -> Vec<Contribution> {
    let mut weighted: Vec<(f64, Contribution)> = outputs
        .iter()
        .map(|output| {
            let net_minor = output.value_minor.saturating_sub(output.cost_minor);
            let decay = (0..output.periods_ago.min(1_000)).fold(1.0, |decay, _| decay * decay_per_period);
            let contribution = Contribution { output_id: output.output_id.clone(), net_minor, share: 0.0, grade: output.grade };
            ((net_minor as f64).abs() * decay, contribution)
        })
        .collect();
    weighted.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.output_id.cmp(&b.1.output_id)));
    let total: f64 = weighted.iter().map(|(weight, _)| weight).sum();
    let share = |weight: f64| if total > 0.0 { weight / total } else { 0.0 };
    weighted
        .into_iter()
        .take(TOP_OUTPUTS)
        .map(|(weight, contribution)| Contribution { share: share(weight), ..contribution })
        .collect()
}

/// About how many more outputs lift P(ROI > target) to `threshold` if their mean stays as it is. The normal score of the
/// probability grows with the square root of the number of observations, the cohort's share among them. `None` where the
/// odds are even or worse: more of the same does not help.
fn more_outputs(posterior: &Posterior, threshold: f64) -> Option<u32> {
    let (now, wanted) = (normal_quantile(posterior.p_target), normal_quantile(threshold));
    if !(now > 0.0 && wanted > now && wanted.is_finite()) {
        return None;
    }
    let n = f64::from(posterior.outputs);
    let observations = n / (1.0 - posterior.prior_share).max(1e-9);
    let more = (observations * ((wanted / now).powi(2) - 1.0)).ceil().max(1.0);
    (more <= MAX_MORE_OUTPUTS).then_some(more as u32)
}

impl Situation<'_> {
    pub(super) fn text(&self, rule: Rule, action: Action) -> String {
        let policy = self.policy;
        let (p_target, p_floor) = self.posterior.map_or((f64::NAN, f64::NAN), |p| (p.p_target, p.p_floor));
        match (rule, action) {
            (Rule::R0, _) => "A breach of integrity or brand safety is confirmed: reduce, once a person approves.".to_owned(),
            (Rule::R1, _) => {
                format!("Too little evidence to decide, so nothing changes. Missing: {}.", self.missing().join("; "))
            }
            (Rule::R2, _) => format!(
                "After the last {} the return is still below the floor: P(ROI > {:.2}) is {p_floor:.2}, at most {:.2}.",
                if self.was(Action::Review) { "review" } else { "reduction" },
                policy.floor_roi,
                policy.floor_probability,
            ),
            (Rule::R3, _) => format!("Look into it before anything changes: {}.", self.weaknesses().join("; ")),
            (Rule::R4, _) => format!(
                "The return is very likely above target: P(ROI > {:.2}) is {p_target:.2}, at least {:.2}{}.",
                policy.target_roi,
                self.increase_threshold(),
                if self.was(Action::Increase) { " to hold an increase" } else { "" },
            ),
            (Rule::R5, _) => format!(
                "Neither strong nor weak enough to change: P(ROI > {:.2}) is {p_target:.2}, between {:.2} and {:.2}{}.",
                policy.target_roi,
                policy.review_probability,
                self.increase_threshold(),
                if self.inputs.authenticity_ok { "" } else { ", and doubts about the audience bar an increase" },
            ),
        }
    }

    /// Every reason R3 has, in words.
    fn weaknesses(&self) -> Vec<String> {
        let Some(posterior) = self.posterior else { return Vec::new() };
        let policy = self.policy;
        let mut reasons = Vec::new();
        if posterior.p_floor <= policy.floor_probability {
            let waits = self.was(Action::Review) && !self.reduction_open();
            let waits = if waits { ", and the review is not recorded yet" } else { "" };
            reasons.push(format!(
                "P(ROI > {:.2}) is {:.2}, at most {:.2}{waits}",
                policy.floor_roi, posterior.p_floor, policy.floor_probability
            ));
        }
        if posterior.p_target <= policy.review_probability {
            reasons.push(format!(
                "P(ROI > {:.2}) is {:.2}, at most {:.2}",
                policy.target_roi, posterior.p_target, policy.review_probability
            ));
        } else if self.under_review() && posterior.p_target < policy.review_clear_probability {
            reasons.push(format!(
                "P(ROI > {:.2}) is {:.2}, a review clears at {:.2}",
                policy.target_roi, posterior.p_target, policy.review_clear_probability
            ));
        }
        if self.inputs.opinion == OpinionDirection::Unfavourable {
            reasons.push("opinion is unfavourable".to_owned());
        }
        if let Some(change) = self.inputs.score_change_sigma.filter(|_| self.score_fell()) {
            reasons
                .push(format!("the score fell by {:.1} standard deviations, more than {:.1}", -change, policy.score_drop_sigma));
        }
        reasons
    }

    pub(super) fn factors(&self) -> Vec<Factor> {
        let (inputs, policy) = (self.inputs, self.policy);
        let flag = |yes: bool| Some(f64::from(u8::from(yes)));
        let p_target = self.posterior.map(|posterior| posterior.p_target);
        let p_floor = self.posterior.map(|posterior| posterior.p_floor);
        let review_threshold = if self.under_review() { policy.review_clear_probability } else { policy.review_probability };
        use Comparison::{Above, AtLeast, AtMost};
        vec![
            factor("breach_confirmed", flag(inputs.breach_confirmed), AtMost, 0.0),
            factor("outputs", Some(inputs.outputs.len() as f64), AtLeast, f64::from(policy.min_outputs)),
            factor("spend_minor", Some(self.spend_minor() as f64), AtLeast, policy.min_spend_minor as f64),
            factor("window_half_lives", Some(inputs.window_half_lives), AtLeast, policy.min_half_lives),
            factor("p_above_floor", p_floor, Above, policy.floor_probability),
            factor(
                "p_above_target_to_avoid_review",
                p_target,
                if self.under_review() { AtLeast } else { Above },
                review_threshold,
            ),
            factor("p_above_target_to_increase", p_target, AtLeast, self.increase_threshold()),
            factor(
                "p_above_stretch_target",
                self.posterior.map(|posterior| posterior.p_stretch),
                AtLeast,
                policy.increase_probability,
            ),
            factor("opinion_unfavourable", flag(inputs.opinion == OpinionDirection::Unfavourable), AtMost, 0.0),
            factor("score_drop_sigma", inputs.score_change_sigma.map(|change| -change), AtMost, policy.score_drop_sigma),
            factor("authenticity_ok", flag(inputs.authenticity_ok), AtLeast, 1.0),
        ]
    }

    pub(super) fn counterfactuals(&self, rule: Rule, action: Action) -> Vec<Counterfactual> {
        let policy = self.policy;
        let Some(posterior) = self.posterior.filter(|_| rule != Rule::R0 && rule != Rule::R1) else {
            let text = if rule == Rule::R0 {
                "Without the confirmed breach the return would have decided.".to_owned()
            } else {
                format!("With {} the return would have decided.", self.missing().join("; "))
            };
            let short = u64::from(policy.min_outputs).saturating_sub(self.inputs.outputs.len() as u64);
            let more_outputs = u32::try_from(short).ok().filter(|&short| rule == Rule::R1 && short > 0);
            return vec![Counterfactual { outcome: Action::Maintain, text, distance: None, more_outputs }];
        };
        let (p_target, p_floor) = (posterior.p_target, posterior.p_floor);
        let to_increase = || {
            let threshold = self.increase_threshold();
            let gap = threshold - p_target;
            let more_outputs = more_outputs(posterior, threshold);
            let text = if gap > 0.0 {
                let more = more_outputs.map_or_else(
                    || "more outputs with the same mean would not be enough".to_owned(),
                    |more| format!("with the same mean about {} needed", more_outputs_text(more.into())),
                );
                format!("P(ROI > target) {p_target:.2}; increase at {threshold:.2}; {more}.")
            } else {
                "The return is enough for an increase; doubts about the audience or its opinion bar it.".to_owned()
            };
            Counterfactual { outcome: Action::Increase, text, distance: Some(gap), more_outputs }
        };
        let below = |outcome, threshold: f64| Counterfactual {
            outcome,
            text: format!("P(ROI > target) {p_target:.2}; {} below {threshold:.2}.", verb(outcome)),
            distance: Some(p_target - threshold),
            more_outputs: None,
        };
        let reduce_next = || Counterfactual {
            outcome: Action::Reduce,
            text: format!("P(ROI > floor) {p_floor:.2}; after a review, reduced at {:.2} or less.", policy.floor_probability),
            distance: Some(p_floor - policy.floor_probability),
            more_outputs: None,
        };
        match action {
            Action::Increase => vec![below(Action::Maintain, policy.increase_hold_probability)],
            Action::Maintain => vec![to_increase(), below(Action::Review, policy.review_probability)],
            Action::Review => {
                let clear = policy.review_clear_probability;
                let text = format!(
                    "P(ROI > target) {p_target:.2}; a review clears at {clear:.2}, if P(ROI > floor) {p_floor:.2} is above \
                     {:.2}, the score holds and opinion is not unfavourable.",
                    policy.floor_probability
                );
                let distance = Some((clear - p_target).max(0.0));
                let more_outputs = more_outputs(posterior, clear);
                vec![Counterfactual { outcome: Action::Maintain, text, distance, more_outputs }, reduce_next()]
            }
            Action::Reduce => {
                let threshold = policy.floor_probability;
                let text = format!("P(ROI > floor) {p_floor:.2}; above {threshold:.2} the review would have gone on.");
                let distance = Some(threshold - p_floor);
                vec![Counterfactual { outcome: Action::Review, text, distance, more_outputs: None }]
            }
        }
    }
}

/// `1 more output`, `2 more outputs`.
pub(super) fn more_outputs_text(more: u64) -> String {
    format!("{more} more output{}", if more == 1 { "" } else { "s" })
}

fn verb(outcome: Action) -> &'static str {
    match outcome {
        Action::Increase => "increased",
        Action::Maintain => "kept",
        Action::Review => "reviewed",
        Action::Reduce => "reduced",
    }
}

fn factor(name: &str, value: Option<f64>, comparison: Comparison, threshold: f64) -> Factor {
    let met = value.is_some_and(|value| match comparison {
        Comparison::AtLeast => value >= threshold,
        Comparison::AtMost => value <= threshold,
        Comparison::Above => value > threshold,
    });
    Factor { name: name.to_owned(), value, comparison, threshold, met }
}
