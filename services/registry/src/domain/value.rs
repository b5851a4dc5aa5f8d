//! Value profiles: what a member is good at producing, as measurement found it.

use super::{name::named, text::storable};
use chrono::{DateTime, Utc};
use koc_chassis::fault::{Violation, Violations};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

named! {
    /// A type of value (社交 / 内容 / 洞察价值); independent of tier.
    ValueType {
        Social = "SOCIAL",
        Content = "CONTENT",
        Insight = "INSIGHT",
    }
}

/// How good a member is at one type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub value_type: ValueType,
    /// 0 to 1.
    pub score: f64,
    /// Probability that the true level is high, 0 to 1.
    pub confidence: f64,
    pub labelled: bool,
    pub evidence_output_ids: Vec<String>,
}

/// The outcome of one measurement run for a member.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueProfile {
    /// One per type, in the order of types.
    pub scores: Vec<Score>,
    /// End of the period measured.
    pub as_of: DateTime<Utc>,
    /// Return on investment as a fraction, e.g. 0.35; None when nothing was spent.
    pub past_return: Option<f64>,
    pub value_model_version: String,
}

impl ValueProfile {
    /// Puts the scores in order. A type that is scored twice, or text that cannot be stored, is a violation.
    pub fn canonical(mut self) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        violations.take(storable("value_model_version", &self.value_model_version));
        let mut types = HashSet::new();
        for (i, score) in self.scores.iter().enumerate() {
            if !types.insert(score.value_type) {
                let rule = format!("must not score {} twice", score.value_type.name());
                violations.push(Violation::new(format!("scores[{i}]"), "SCORE_REPEATED", rule));
            }
            for (j, id) in score.evidence_output_ids.iter().enumerate() {
                violations.take(koc_chassis::ids::parse(&format!("scores[{i}].evidence_output_ids[{j}]"), id));
            }
        }
        violations.finish()?;
        self.scores.sort_unstable_by_key(|score| score.value_type);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(value_type: ValueType) -> Score {
        Score { value_type, score: 0.5, confidence: 0.9, labelled: true, evidence_output_ids: Vec::new() }
    }

    fn profile(scores: Vec<Score>) -> ValueProfile {
        ValueProfile { scores, as_of: DateTime::UNIX_EPOCH, past_return: None, value_model_version: "1".into() }
    }

    #[test]
    fn scores_are_kept_in_the_order_of_types() {
        let kept = profile(vec![score(ValueType::Insight), score(ValueType::Social)]).canonical().expect("each once");
        let order: Vec<_> = kept.scores.iter().map(|s| s.value_type).collect();
        assert_eq!(order, [ValueType::Social, ValueType::Insight]);
    }

    #[test]
    fn a_type_scored_twice_and_evidence_that_is_no_id_are_refused() {
        let odd = Score { evidence_output_ids: vec!["seven".into()], ..score(ValueType::Content) };
        let broken = profile(vec![score(ValueType::Content), odd]).canonical().expect_err("two rules");
        let fields: Vec<_> = broken.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["scores[1]", "scores[1].evidence_output_ids[0]"]);
    }
}
