//! Media equivalence: what the same attention would cost as advertising. Shown, marked, never cash.

use serde::{Deserialize, Serialize};

use super::evidence::Engagement;
use super::model::ValueModel;
use crate::domain::error::{InputError, non_negative_minor};

/// Price per action, in minor units, in the manner of the vendors' indices (Ayzenberg's is the best known). Vendors agree on
/// no rate, which is why none is built in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EmvRates {
    pub thousand_reads_minor: i64,
    pub like_minor: i64,
    pub save_minor: i64,
    pub comment_minor: i64,
    pub share_minor: i64,
    pub follow_minor: i64,
}

impl EmvRates {
    pub(super) fn check(&self) -> Result<(), InputError> {
        non_negative_minor("thousand_reads_minor", self.thousand_reads_minor)?;
        non_negative_minor("like_minor", self.like_minor)?;
        non_negative_minor("save_minor", self.save_minor)?;
        non_negative_minor("comment_minor", self.comment_minor)?;
        non_negative_minor("share_minor", self.share_minor)?;
        non_negative_minor("follow_minor", self.follow_minor)?;
        Ok(())
    }
}

/// An amount that is not cash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaEquivalent {
    pub amount_minor: i64,
    /// Whether the model asks for a return that includes it, reported beside the one that does not.
    pub in_second_return: bool,
}

/// Σ count · rate, exact in integers; thousands of reads are rounded half to even. `None` when the model has no rates.
///
/// # Errors
/// `AmountOverflow`.
pub(super) fn media_equivalent(engagement: &Engagement, model: &ValueModel) -> Result<Option<MediaEquivalent>, InputError> {
    let Some(rates) = &model.emv_rates else { return Ok(None) };
    let actions = [
        (engagement.likes, rates.like_minor),
        (engagement.saves, rates.save_minor),
        (engagement.comments, rates.comment_minor),
        (engagement.shares, rates.share_minor),
        (engagement.follows, rates.follow_minor),
    ];
    // Saturation only guards absurd counts: whatever saturates is refused below as too large.
    let thousandths: i128 = actions
        .iter()
        .map(|&(count, rate)| i128::from(count).saturating_mul(i128::from(rate)).saturating_mul(1_000))
        .chain([i128::from(engagement.reads).saturating_mul(i128::from(rates.thousand_reads_minor))])
        .fold(0_i128, i128::saturating_add);
    let (whole, rest) = (thousandths / 1_000, thousandths % 1_000);
    let up = rest > 500 || rest == 500 && whole % 2 != 0;
    let amount = i64::try_from(whole + i128::from(up)).map_err(|_| InputError::AmountOverflow { field: "emv" })?;
    Ok(Some(MediaEquivalent { amount_minor: amount, in_second_return: model.report_return_with_emv }))
}
