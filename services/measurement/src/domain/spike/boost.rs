//! From a spike to a proposal for the strategic reserve: the gates it has to pass, and how much to ask for.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::error::{InputError, finite, in_range, non_negative_minor, positive, share};
use crate::domain::money::round_to_minor;
use crate::domain::value::OpinionDirection;
use koc_chassis::money::{Currency, Money};

/// Comments with repeated text from which a burst is no longer taken for genuine.
pub const MAX_DUPLICATE_SHARE: f64 = 0.3;
/// One proposal asks for at most a quarter of what the reserve still has.
pub const RESERVE_DIVISOR: i64 = 4;
/// A proposal is worth deciding on for this many half-lives of the platform's attention.
pub const EXPIRY_HALF_LIVES: f64 = 2.0;
/// The longest a proposal stays open, in hours.
const MAX_EXPIRY_HOURS: f64 = 24.0 * 366.0;

/// A ratio and the band in which its cohort holds it (1st to 99th percentile).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatioInBand {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// What is known about the audience of a spike. `None` means not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AudienceEvidence {
    pub opinion: OpinionDirection,
    /// Share of comments whose text repeats another's, in [0, 1].
    pub duplicate_share: Option<f64>,
    pub likes_per_read: Option<RatioInBand>,
    pub comments_per_read: Option<RatioInBand>,
    pub brand_safety_flagged: Option<bool>,
    pub paid_boost_active: bool,
}

/// A condition that money waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Gate {
    OpinionNotUnfavourable,
    FewDuplicates,
    LikesPlausible,
    CommentsPlausible,
    BrandSafe,
    Organic,
}

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateResult {
    pub gate: Gate,
    pub met: bool,
    /// False when there was nothing to measure: the gate is then met, and an approver should know.
    pub measured: bool,
}

/// Checks every gate, so that a refusal can name all that is missing. Money may be proposed when all are met.
///
/// # Errors
/// `OutOfRange` for a share outside [0, 1]; `NotFinite`.
pub fn check_gates(evidence: &AudienceEvidence) -> Result<Vec<GateResult>, InputError> {
    let duplicates = evidence.duplicate_share.map(|value| share("duplicate_share", value)).transpose()?;
    let banded = |gate, ratio: Option<RatioInBand>| -> Result<GateResult, InputError> {
        let Some(RatioInBand { value, low, high }) = ratio else {
            return Ok(GateResult { gate, met: true, measured: false });
        };
        finite("ratio", value)?;
        finite("low", low)?;
        finite("high", high)?;
        Ok(GateResult { gate, met: (low..=high).contains(&value), measured: true })
    };
    Ok(vec![
        GateResult {
            gate: Gate::OpinionNotUnfavourable,
            met: evidence.opinion != OpinionDirection::Unfavourable,
            measured: evidence.opinion != OpinionDirection::Insufficient,
        },
        GateResult {
            gate: Gate::FewDuplicates,
            met: duplicates.is_none_or(|value| value < MAX_DUPLICATE_SHARE),
            measured: duplicates.is_some(),
        },
        banded(Gate::LikesPlausible, evidence.likes_per_read)?,
        banded(Gate::CommentsPlausible, evidence.comments_per_read)?,
        GateResult {
            gate: Gate::BrandSafe,
            met: evidence.brand_safety_flagged != Some(true),
            measured: evidence.brand_safety_flagged.is_some(),
        },
        GateResult { gate: Gate::Organic, met: !evidence.paid_boost_active, measured: true },
    ])
}

/// What the amount of a boost depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoostInputs {
    /// Of all amounts.
    pub currency: Currency,
    /// What the reserve still has available.
    pub reserve_left_minor: i64,
    /// What this output may still draw.
    pub output_cap_minor: i64,
    /// Reads still to come: the projected mature total less the reads so far. The audience that a boost can still find.
    pub remaining_reads: f64,
    /// Value of 1,000 organic reads of this output, by the value model.
    pub value_per_thousand_reads_minor: f64,
    /// Price of 1,000 paid impressions; greater than zero. `None` when the brand has named none: the return then sets no limit.
    pub cost_per_thousand_minor: Option<i64>,
    /// Worth of a paid read against an organic one, in [0, 1].
    pub relevance: f64,
    /// The return the last unit spent must still bring: 0.0 breaks even, 0.5 brings 1.5 back.
    pub target_marginal_roi: f64,
    /// Half-life of the platform's attention, in hours.
    pub half_life_hours: f64,
}

/// What set the amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BoostBound {
    /// A quarter of the reserve.
    Reserve,
    /// The output's own cap.
    OutputCap,
    /// Spending more would bring less than the target on the last unit.
    MarginalReturn,
    /// The first unit already brings less than the target.
    NotWorthIt,
}

/// What money would bring.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BoostResponse {
    /// The spend at which the last unit meets the target.
    pub limit_minor: i64,
    /// Value per unit of money of the first and of the last unit of the amount.
    pub first_marginal_value: f64,
    pub last_marginal_value: f64,
    /// Value expected from the whole amount.
    pub expected_value_minor: i64,
}

/// How much to ask for, and why that much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoostProposal {
    /// Zero when it is not worth it.
    pub amount_minor: i64,
    pub bound: BoostBound,
    /// The limits, of which the amount is the least.
    pub reserve_limit_minor: i64,
    pub output_limit_minor: i64,
    /// `None` when there is no price to compute it from.
    pub response: Option<BoostResponse>,
    /// After this the moment has passed.
    pub expires_at: DateTime<Utc>,
    /// The same in a sentence.
    pub explanation: String,
}

/// Proposes the amount of a boost at `now`: the least of a quarter of the reserve, the output's cap, and the spend at
/// which the marginal return falls to the target.
///
/// The response is concave, V(s) = A·(1 − e^(−s·v₀/A)) (the modified exponential; Lilien, Kotler & Moorthy 1992,
/// *Marketing Models*), where v₀ = relevance · value of 1,000 reads / cost of 1,000 is what the first unit brings, and A the
/// worth of all reads still to be had. V′(s) = v₀·e^(−s·v₀/A) meets 1 + target at s = (A/v₀)·ln(v₀/(1 + target)). That spend is
/// rounded half to even, the quarter of the reserve down.
///
/// # Errors
/// `NegativeAmount`, `OutOfRange`, `NotFinite`, `AmountOverflow`.
pub fn propose_boost(inputs: &BoostInputs, now: DateTime<Utc>) -> Result<BoostProposal, InputError> {
    let reserve_limit_minor = non_negative_minor("reserve_left_minor", inputs.reserve_left_minor)? / RESERVE_DIVISOR;
    let output_limit_minor = non_negative_minor("output_cap_minor", inputs.output_cap_minor)?;
    let half_life = positive("half_life_hours", inputs.half_life_hours)?;
    let curve = inputs.cost_per_thousand_minor.map(|price| Curve::new(inputs, price)).transpose()?;

    let unpriced_minor = reserve_limit_minor.min(output_limit_minor);
    let amount_minor = curve.as_ref().map_or(unpriced_minor, |curve| unpriced_minor.min(curve.limit_minor));
    let bound = match &curve {
        Some(curve) if curve.limit_minor == 0 => BoostBound::NotWorthIt,
        Some(curve) if amount_minor == curve.limit_minor => BoostBound::MarginalReturn,
        _ if amount_minor == output_limit_minor => BoostBound::OutputCap,
        _ => BoostBound::Reserve,
    };
    let response = curve.map(|curve| curve.response(amount_minor)).transpose()?;
    let open_hours = (EXPIRY_HALF_LIVES * half_life).min(MAX_EXPIRY_HOURS);
    let expires_at = now + TimeDelta::seconds((open_hours * 3_600.0) as i64);
    let reason = match bound {
        BoostBound::Reserve => "a quarter of what the reserve has left",
        BoostBound::OutputCap => "what this output may still draw",
        BoostBound::MarginalReturn => "the spend at which the last unit still meets the target return",
        BoostBound::NotWorthIt => "nothing, since even the first unit would miss the target return",
    };
    let money = |minor| Money::new(minor, inputs.currency);
    let returns = match &response {
        Some(r) => format!(
            "return {}. The first unit brings {:.2}, the last {:.2}, the target is {:.2}. Expected value {}",
            money(r.limit_minor),
            r.first_marginal_value,
            r.last_marginal_value,
            1.0 + inputs.target_marginal_roi,
            money(r.expected_value_minor)
        ),
        None => "return not computed, since the value model has no media price".to_owned(),
    };
    let explanation = format!(
        "Proposes {}: {reason}. Limits: reserve {}, output {}, {returns}.",
        money(amount_minor),
        money(reserve_limit_minor),
        money(output_limit_minor)
    );
    Ok(BoostProposal { amount_minor, bound, reserve_limit_minor, output_limit_minor, response, expires_at, explanation })
}

/// The concave response of one output.
struct Curve {
    first: f64,
    /// A/v₀: what buying every remaining read would cost.
    scale_minor: f64,
    limit_minor: i64,
}

impl Curve {
    fn new(inputs: &BoostInputs, price_minor: i64) -> Result<Self, InputError> {
        let reads = in_range("remaining_reads", inputs.remaining_reads, 0.0, f64::MAX)?;
        let value = in_range("value_per_thousand_reads_minor", inputs.value_per_thousand_reads_minor, 0.0, f64::MAX)?;
        let price = positive("cost_per_thousand_minor", price_minor as f64)?;
        let relevance = share("relevance", inputs.relevance)?;
        let hurdle = 1.0 + in_range("target_marginal_roi", inputs.target_marginal_roi, -0.99, f64::MAX)?;
        let first = finite("first_marginal_value", relevance * value / price)?;
        let scale_minor = finite("remaining_reads", reads * price / 1_000.0)?;
        let limit_minor =
            if first > hurdle { round_to_minor("return_limit_minor", scale_minor * (first / hurdle).ln())? } else { 0 };
        Ok(Self { first, scale_minor, limit_minor })
    }

    fn response(&self, amount_minor: i64) -> Result<BoostResponse, InputError> {
        let Self { first, scale_minor, limit_minor } = *self;
        let spent = if scale_minor > 0.0 { amount_minor as f64 / scale_minor } else { 0.0 };
        let expected_value_minor = round_to_minor("expected_value_minor", -first * scale_minor * (-spent).exp_m1())?;
        let last_marginal_value = first * (-spent).exp();
        Ok(BoostResponse { limit_minor, first_marginal_value: first, last_marginal_value, expected_value_minor })
    }
}

/// Reads still to come of an output in a burst: the larger of what its age leaves, and of what the present rate leaves when it
/// halves with the platform's half-life, rate · half-life/ln 2. The first alone would call a week-old output done, whatever
/// happens to it now.
pub fn remaining_reads(projected_total: f64, total: f64, reads_per_hour: f64, half_life_hours: f64) -> f64 {
    let by_age = projected_total - total;
    let by_rate = reads_per_hour * half_life_hours / std::f64::consts::LN_2;
    by_age.max(by_rate).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inputs() -> BoostInputs {
        BoostInputs {
            currency: Currency::from_code("CNY").expect("known"),
            reserve_left_minor: 10_000_000,
            output_cap_minor: 5_000_000,
            remaining_reads: 200_000.0,
            value_per_thousand_reads_minor: 9_000.0,
            cost_per_thousand_minor: Some(3_000),
            relevance: 0.5,
            target_marginal_roi: 0.0,
            half_life_hours: 48.0,
        }
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).expect("a valid time")
    }

    #[test]
    fn the_spend_stops_where_the_last_unit_meets_the_target() {
        let proposal = propose_boost(&inputs(), now()).expect("valid inputs");
        // A/v₀ = 200 · 3,000 = 600,000; v₀ = 1.5; 600,000 · ln 1.5 = 243,279.06.
        assert_eq!((proposal.amount_minor, proposal.bound), (243_279, BoostBound::MarginalReturn));
        let response = proposal.response.expect("there is a price");
        assert!((response.last_marginal_value - 1.0).abs() < 1e-5);
        assert_eq!(response.expected_value_minor, 300_000);
        assert_eq!(proposal.expires_at, now() + TimeDelta::hours(96));
    }

    #[test]
    fn the_reserve_and_the_cap_bind_before_that() {
        let little = BoostInputs { reserve_left_minor: 400_003, ..inputs() };
        let proposal = propose_boost(&little, now()).expect("valid inputs");
        assert_eq!((proposal.amount_minor, proposal.bound), (100_000, BoostBound::Reserve));
        let capped = BoostInputs { output_cap_minor: 50_000, ..inputs() };
        let proposal = propose_boost(&capped, now()).expect("valid inputs");
        assert_eq!((proposal.amount_minor, proposal.bound), (50_000, BoostBound::OutputCap));
    }

    #[test]
    fn without_a_price_the_reserve_and_the_cap_alone_bind() {
        let unpriced = BoostInputs { cost_per_thousand_minor: None, output_cap_minor: 150_000, ..inputs() };
        let proposal = propose_boost(&unpriced, now()).expect("valid inputs");
        assert_eq!((proposal.amount_minor, proposal.bound, proposal.response), (150_000, BoostBound::OutputCap, None));
        assert!(proposal.explanation.contains("no media price"), "{}", proposal.explanation);
    }

    #[test]
    fn a_burst_leaves_what_its_rate_leaves_when_that_is_more() {
        // 100 an hour, halving every 48 h: 100 · 48/ln 2.
        assert!((remaining_reads(10_500.0, 10_000.0, 100.0, 48.0) - 6_924.936).abs() < 1e-3);
        assert!((remaining_reads(20_000.0, 10_000.0, 100.0, 48.0) - 10_000.0).abs() < 1e-9);
        assert!(remaining_reads(1.0, 2.0, 0.0, 48.0).abs() < 1e-12);
    }

    #[test]
    fn a_boost_that_loses_on_its_first_unit_asks_for_nothing() {
        let dear = BoostInputs { cost_per_thousand_minor: Some(9_000), ..inputs() };
        let proposal = propose_boost(&dear, now()).expect("valid inputs");
        assert_eq!((proposal.amount_minor, proposal.bound), (0, BoostBound::NotWorthIt));
    }

    #[test]
    fn every_gate_is_reported_and_what_was_not_measured_says_so() {
        let evidence = AudienceEvidence {
            opinion: OpinionDirection::Unfavourable,
            duplicate_share: Some(0.3),
            likes_per_read: Some(RatioInBand { value: 0.9, low: 0.01, high: 0.2 }),
            comments_per_read: None,
            brand_safety_flagged: Some(false),
            paid_boost_active: true,
        };
        let results = check_gates(&evidence).expect("valid shares");
        let unmet: Vec<Gate> = results.iter().filter(|result| !result.met).map(|result| result.gate).collect();
        assert_eq!(unmet, [Gate::OpinionNotUnfavourable, Gate::FewDuplicates, Gate::LikesPlausible, Gate::Organic]);
        assert!(results.iter().any(|result| result.gate == Gate::CommentsPlausible && !result.measured));
    }

    proptest! {
        #[test]
        fn a_proposal_never_passes_any_of_its_limits(
            reserve in 0_i64..1_000_000_000, cap in 0_i64..1_000_000_000, reads in 0.0_f64..1e9,
            value in 0.0_f64..1e6, price in 1_i64..1_000_000, relevance in 0.0_f64..=1.0, target in -0.9_f64..5.0
        ) {
            let proposal = propose_boost(&BoostInputs {
                currency: inputs().currency,
                reserve_left_minor: reserve,
                output_cap_minor: cap,
                remaining_reads: reads,
                value_per_thousand_reads_minor: value,
                cost_per_thousand_minor: Some(price),
                relevance,
                target_marginal_roi: target,
                half_life_hours: 6.0,
            }, now()).expect("valid inputs");
            prop_assert!(proposal.amount_minor >= 0);
            prop_assert!(proposal.amount_minor <= reserve / 4 && proposal.amount_minor <= cap);
            if proposal.amount_minor > 1_000 {
                let response = proposal.response.expect("there is a price");
                prop_assert!(response.last_marginal_value >= (1.0 + target) * 0.99);
            }
        }
    }
}
