//! Holding the money of an approved draw, in the transaction that approves it.

use super::post_operations::{asked, post_all};
use crate::{
    domain::{
        books::Command,
        reserve_draw::{Draw, TIME_TO_LIVE},
    },
    error::Error,
    ids::ReservationId,
};
use koc_chassis::{gate::Work, money::Currency};

/// Holds the draw's amount on its plan's reserve, in the name of who calls; `method` is the request's that approves. Refused as any
/// reservation is.
pub async fn hold(work: &mut Work, draw: &Draw, currency: Currency, method: &'static str) -> Result<ReservationId, Error> {
    let reservation = ReservationId::new();
    let command = Command::Reserve {
        reservation,
        envelope: draw.envelope,
        // The reserve has a decision of its own for each draw; a member's limit is for the money planned by tier.
        member: None,
        purpose: draw.purpose(),
        amount: draw.amount,
        time_to_live: TIME_TO_LIVE,
    };
    // A draw is approved once by each of the ways.
    let operation = asked(work, method, draw.id.0, command, currency);
    post_all(work, &[operation]).await.map(|()| reservation)
}
