//! Return on what was spent, by cost basis.

use serde::{Deserialize, Serialize};

use super::OutputValue;
use crate::domain::error::{InputError, non_negative_minor};
use crate::domain::money::sum_minor;

/// Which costs an output is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CostBasis {
    /// What this output alone caused: the basis for "offer it to one more?".
    Marginal,
    /// With its share of what was made once for many.
    Amortised,
    /// With everything owned and forgone as well: the basis for "was it worth it?".
    FullTco,
}

/// The cost of one output on each basis; each contains the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    pub marginal_minor: i64,
    pub amortised_minor: i64,
    pub full_tco_minor: i64,
}

impl Costs {
    /// The cost on one basis.
    pub fn on(&self, basis: CostBasis) -> i64 {
        match basis {
            CostBasis::Marginal => self.marginal_minor,
            CostBasis::Amortised => self.amortised_minor,
            CostBasis::FullTco => self.full_tco_minor,
        }
    }
}

/// Returns of one output. `None` where the cost is zero: a return on nothing is undefined, the value stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Returns {
    pub marginal: Option<f64>,
    pub amortised: Option<f64>,
    pub full_tco: Option<f64>,
    /// On the full cost with the media equivalence counted as value; only if the model asks for it.
    pub full_tco_with_emv: Option<f64>,
}

/// ROI = (value − cost)/cost; −1 means all was lost, 0 break-even. `None` at a cost of zero.
///
/// # Errors
/// `NegativeAmount` for a negative cost. The value may be negative.
pub fn return_on(value_minor: i64, cost_minor: i64) -> Result<Option<f64>, InputError> {
    let cost = non_negative_minor("cost_minor", cost_minor)?;
    let gain = i128::from(value_minor) - i128::from(cost);
    Ok((cost > 0).then(|| gain as f64 / cost as f64))
}

/// The returns of a valued output on every basis.
///
/// # Errors
/// `NegativeAmount` for a negative cost; `AmountOverflow`.
pub fn returns(value: &OutputValue, costs: &Costs) -> Result<Returns, InputError> {
    let on = |basis| return_on(value.cash_minor, costs.on(basis));
    let with_emv = match value.media_equivalent.filter(|media| media.in_second_return) {
        None => None,
        Some(media) => return_on(sum_minor("value", [value.cash_minor, media.amount_minor])?, costs.full_tco_minor)?,
    };
    Ok(Returns {
        marginal: on(CostBasis::Marginal)?,
        amortised: on(CostBasis::Amortised)?,
        full_tco: on(CostBasis::FullTco)?,
        full_tco_with_emv: with_emv,
    })
}
