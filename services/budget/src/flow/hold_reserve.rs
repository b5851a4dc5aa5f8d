//! Holding the money of an approved draw, in the transaction that approves it.

use super::post_operations::{done, post};
use crate::{
    domain::{
        books::Command,
        reserve_draw::{Draw, TIME_TO_LIVE},
    },
    error::Error,
    ids::ReservationId,
    store::operation::Operation,
};
use koc_chassis::{
    context,
    gate::{RequestKey, Work},
    money::Currency,
};
use sha2::{Digest, Sha256};

/// Holds the draw's amount on its plan's reserve, in the name of who calls; `method` is the request's that approves. Refused as any
/// reservation is.
pub async fn hold(work: &mut Work, draw: &Draw, currency: Currency, method: &'static str) -> Result<ReservationId, Error> {
    let reservation = ReservationId::new();
    let operation = Operation {
        // A draw is approved once by each of the ways.
        key: RequestKey {
            programme: draw.programme.0,
            method,
            request_id: draw.id.0,
            hash: Sha256::digest(draw.purpose()).to_vec(),
        },
        command: Command::Reserve {
            reservation,
            envelope: draw.envelope,
            // The reserve has a decision of its own for each draw; a member's limit is for the money planned by tier.
            member: None,
            purpose: draw.purpose(),
            amount: draw.amount,
            time_to_live: TIME_TO_LIVE,
        },
        currency,
        payment_reference: None,
        actor: work.actor().to_owned(),
        client: work.call.caller.client.clone(),
        trace_id: context::trace_id(),
    };
    let answer = post(work.conn(), std::slice::from_ref(&operation)).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
    done(answer, &operation).map(|_| reservation)
}
