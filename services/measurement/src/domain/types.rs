//! Which kinds of value a member is good at producing.
//!
//! Each piece of evidence is one output's quality, normalised in its cohort. Volume buys no label: it only makes the estimate
//! firmer. Follower counts are no evidence.

use serde::{Deserialize, Serialize};

use super::distribution::normal_cdf;
use super::error::{InputError, at_most, in_range, positive, share};
use super::value::{Grade, ValueType};

/// Pieces of evidence that one scoring reads at most.
pub const MAX_EVIDENCE: usize = 100_000;
/// Φ⁻¹(0.70): the cut stands at the 70th percentile of members' true levels, so that the prior alone gives 0.30.
const CUT_Z: f64 = 0.524_400_512_708_041;
/// Normalised qualities lie within this.
const MAX_ABS_Z: f64 = 10.0;

/// Parameters of the scoring. τ = 0.7 and σ = 1 serve until a programme's own spread has been estimated (Bühlmann-Straub,
/// 50 members or more).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypePolicy {
    pub version: u32,
    /// τ: standard deviation of members' true levels, on the z axis.
    pub between_sd: f64,
    /// σ: standard deviation of one piece of evidence of full weight.
    pub within_sd: f64,
    /// Age at which a piece of evidence weighs half, in days.
    pub half_life_days: f64,
    /// Confidence from which a label is given, and below which it is taken away.
    pub on_confidence: f64,
    pub off_confidence: f64,
    /// Least total weight of evidence for a new label.
    pub min_weight: f64,
    /// Weight of evidence graded A, B, C, D.
    pub grade_weights: [f64; 4],
}

impl Default for TypePolicy {
    fn default() -> Self {
        Self {
            version: 1,
            between_sd: 0.7,
            within_sd: 1.0,
            half_life_days: 180.0,
            on_confidence: 0.70,
            off_confidence: 0.50,
            min_weight: 3.0,
            grade_weights: [1.0, 0.8, 0.5, 0.3],
        }
    }
}

/// The quality of one output, as evidence for one type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeEvidence {
    /// Kept with the result, so that "why" is a list.
    pub evidence_id: String,
    pub value_type: ValueType,
    /// Robust z in the cohort, within ±10.
    pub z: f64,
    pub grade: Grade,
    /// Zero or more.
    pub age_days: f64,
}

/// How a member stands in one type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeScore {
    pub value_type: ValueType,
    /// Place among members' true levels, Φ(mean/τ), in [0, 1]; 0.5 without evidence.
    pub score: f64,
    /// P(true level above the 70th percentile), in [0, 1]; 0.30 without evidence.
    pub confidence: f64,
    /// Posterior of the true level, on the z axis.
    pub mean: f64,
    pub sd: f64,
    /// Total weight of the evidence.
    pub weight: f64,
    /// Whether the label holds.
    pub held: bool,
    /// Heaviest first, ties by id.
    pub evidence_ids: Vec<String>,
}

/// How a member stands in all types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeProfile {
    /// In the order of [`ValueType::ALL`].
    pub scores: Vec<TypeScore>,
    /// The held label of highest confidence; `None` is "undetermined".
    pub primary: Option<ValueType>,
    /// The type of highest confidence, held or not; `None` without any evidence.
    pub nearest: Option<ValueType>,
    pub policy_version: u32,
}

/// Scores a member in each type by the normal-normal model (Lindley & Smith 1972): prior N(0, τ²), evidence z with weight
/// w = 2^(−age/half-life) · grade and variance σ²/w; mean = τ²Σwz/(τ²Σw + σ²), variance = τ²σ²/(τ²Σw + σ²). `held` are
/// the labels the member has now: a label comes at one confidence and goes at a lower one.
///
/// # Errors
/// `OutOfRange`, `NotFinite`, `TooMany`.
pub fn score_types(evidence: &[TypeEvidence], held: &[ValueType], policy: &TypePolicy) -> Result<TypeProfile, InputError> {
    check(policy)?;
    at_most("evidence", evidence.len(), MAX_EVIDENCE)?;
    let mut scores = Vec::with_capacity(ValueType::ALL.len());
    for value_type in ValueType::ALL {
        let of_type = evidence.iter().filter(|item| item.value_type == value_type);
        scores.push(score_type(value_type, of_type, held.contains(&value_type), policy)?);
    }
    let best = |only_held: bool| {
        scores
            .iter()
            .filter(|score| if only_held { score.held } else { score.weight > 0.0 })
            .max_by(|a, b| a.confidence.total_cmp(&b.confidence).then(b.value_type.cmp(&a.value_type)))
            .map(|score| score.value_type)
    };
    let (primary, nearest) = (best(true), best(false));
    Ok(TypeProfile { scores, primary, nearest, policy_version: policy.version })
}

fn score_type<'a>(
    value_type: ValueType,
    evidence: impl Iterator<Item = &'a TypeEvidence>,
    held: bool,
    policy: &TypePolicy,
) -> Result<TypeScore, InputError> {
    let (mut weight, mut weighted) = (0.0, 0.0);
    let mut ids: Vec<(f64, &str)> = Vec::new();
    for item in evidence {
        in_range("z", item.z, -MAX_ABS_Z, MAX_ABS_Z)?;
        in_range("age_days", item.age_days, 0.0, f64::MAX)?;
        let own = (-item.age_days / policy.half_life_days).exp2() * policy.grade_weights[item.grade as usize];
        weight += own;
        weighted += own * item.z;
        ids.push((own, &item.evidence_id));
    }
    ids.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let (between, within) = (policy.between_sd.powi(2), policy.within_sd.powi(2));
    let mean = between * weighted / (between * weight + within);
    let sd = (between * within / (between * weight + within)).sqrt();
    let confidence = normal_cdf((mean - CUT_Z * policy.between_sd) / sd);
    let holds = if held {
        confidence >= policy.off_confidence
    } else {
        confidence >= policy.on_confidence && weight >= policy.min_weight
    };
    Ok(TypeScore {
        value_type,
        score: normal_cdf(mean / policy.between_sd),
        confidence,
        mean,
        sd,
        weight,
        held: holds,
        evidence_ids: ids.into_iter().map(|(_, id)| id.to_owned()).collect(),
    })
}

fn check(policy: &TypePolicy) -> Result<(), InputError> {
    in_range("between_sd", policy.between_sd, 1e-3, 1e3)?;
    in_range("within_sd", policy.within_sd, 1e-3, 1e3)?;
    positive("half_life_days", policy.half_life_days)?;
    share("on_confidence", policy.on_confidence)?;
    in_range("off_confidence", policy.off_confidence, 0.0, policy.on_confidence)?;
    in_range("min_weight", policy.min_weight, 0.0, f64::MAX)?;
    for weight in policy.grade_weights {
        share("grade_weights", weight)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(evidence_id: &str, z: f64, grade: Grade, age_days: f64) -> TypeEvidence {
        TypeEvidence { evidence_id: evidence_id.to_owned(), value_type: ValueType::Content, z, grade, age_days }
    }

    fn content(evidence: &[TypeEvidence], held: &[ValueType]) -> TypeScore {
        let profile = score_types(evidence, held, &TypePolicy::default()).expect("valid evidence");
        profile.scores.into_iter().find(|score| score.value_type == ValueType::Content).expect("every type is scored")
    }

    #[test]
    fn without_evidence_the_prior_speaks() {
        let profile = score_types(&[], &[], &TypePolicy::default()).expect("no evidence is valid");
        assert!(profile.scores.iter().all(|score| (score.confidence - 0.30).abs() < 1e-9 && !score.held));
        assert_eq!((profile.primary, profile.nearest), (None, None));
    }

    #[test]
    fn good_and_sufficient_evidence_gives_a_label_with_its_reasons() {
        let good: Vec<TypeEvidence> = (0..4).map(|i| item(&format!("e{i}"), 1.5, Grade::A, 10.0 * f64::from(i))).collect();
        let profile = score_types(&good, &[], &TypePolicy::default()).expect("valid evidence");
        assert_eq!(profile.primary, Some(ValueType::Content));
        assert_eq!(content(&good, &[]).evidence_ids, ["e0", "e1", "e2", "e3"]);
        let thin = content(&good[..2], &[]);
        assert!(!thin.held && thin.weight < 3.0);
        let undetermined = score_types(&good[..1], &[], &TypePolicy::default()).expect("valid evidence");
        assert_eq!((undetermined.primary, undetermined.nearest), (None, Some(ValueType::Content)));
    }

    #[test]
    fn a_held_label_goes_only_below_the_lower_mark() {
        let middling: Vec<TypeEvidence> = (0..6).map(|i| item(&format!("e{i}"), 0.6, Grade::A, 0.0)).collect();
        let score = content(&middling, &[]);
        assert!(score.confidence > 0.5 && score.confidence < 0.7, "{}", score.confidence);
        assert!(!score.held && content(&middling, &[ValueType::Content]).held);
        let poor: Vec<TypeEvidence> = (0..6).map(|i| item(&format!("e{i}"), -0.5, Grade::A, 0.0)).collect();
        assert!(!content(&poor, &[ValueType::Content]).held);
    }

    #[test]
    fn volume_of_average_work_buys_no_label() {
        let many: Vec<TypeEvidence> = (0..500).map(|i| item(&i.to_string(), 0.0, Grade::A, 0.0)).collect();
        assert!(content(&many, &[]).confidence < 0.01);
    }

    #[test]
    fn bad_evidence_is_refused() {
        let policy = TypePolicy::default();
        let nan = score_types(&[item("e", f64::NAN, Grade::A, 0.0)], &[], &policy);
        assert_eq!(nan, Err(InputError::NotFinite { field: "z" }));
        let future = score_types(&[item("e", 0.0, Grade::A, -1.0)], &[], &policy);
        assert!(matches!(future, Err(InputError::OutOfRange { field: "age_days", .. })));
    }

    proptest! {
        #[test]
        fn confidence_is_a_probability_and_rises_with_quality(
            items in prop::collection::vec((-4.0_f64..4.0, 0.0_f64..1_000.0, 0_usize..4), 0..30), lift in 0.0_f64..2.0
        ) {
            let grades = [Grade::A, Grade::B, Grade::C, Grade::D];
            let evidence = |lift: f64| -> Vec<TypeEvidence> {
                items.iter().map(|&(z, age, grade)| item("e", z + lift, grades[grade], age)).collect()
            };
            let (low, high) = (content(&evidence(0.0), &[]), content(&evidence(lift), &[]));
            prop_assert!((0.0..=1.0).contains(&low.confidence) && (0.0..=1.0).contains(&low.score));
            prop_assert!(low.confidence <= high.confidence + 1e-12);
        }
    }
}
