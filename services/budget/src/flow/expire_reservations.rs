//! Holds whose time is over give their money back: an operation like any other, asked for by a sweeper.

use super::lane::Lane;
use crate::{
    domain::books::Command,
    error::Error,
    ids::{ProgrammeId, ReservationId},
    store::{self, operation::Operation, reservation::Due},
};
use koc_chassis::{
    context,
    fault::{ServiceError, chain, is_transient},
    gate::RequestKey,
    money::Currency,
    postgres::Db,
};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use uuid::Uuid;

/// Holds that are expired in one transaction.
const BATCH: i64 = 100;
/// What stands as the method and the actor of an expiry.
const EXPIRY: &str = "koc.budget.expiry";

/// Expires all holds that are due, some at a time. Failures are logged; the next sweep tries again.
pub async fn sweep(db: Db, lane: Lane) {
    let mut after = None;
    loop {
        match step(&db, &lane, after).await {
            Ok(Some(last)) => after = Some(last),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(error = chain(&error), "holds could not be expired; trying again");
                return;
            }
        }
    }
}

/// Expires at most [`BATCH`] holds that are due after one, in the lane of all operations; says which was the last, and None when there
/// were no more. One that cannot be expired keeps nobody's money but its own: it is logged, and shown by VerifyLedger. Of several
/// replicas one sweeps at a time.
pub async fn step(db: &Db, lane: &Lane, after: Option<Due>) -> Result<Option<Due>, Error> {
    // The common case: nothing is due, and one look at a partial index shows it.
    let mut conn = db.read().await?;
    if store::reservation::due(&mut conn, after, 1).await?.is_empty() {
        return Ok(None);
    }
    drop(conn);
    let mut tx = db.begin().await?;
    if !store::reservation::sweep_alone(&mut tx).await? {
        return Ok(None);
    }
    let due = store::reservation::due(&mut tx, after, BATCH).await?;
    let mut currencies = HashMap::new();
    let mut operations = Vec::with_capacity(due.len());
    for Due { programme, reservation, .. } in &due {
        let currency = match currencies.get(programme) {
            Some(currency) => *currency,
            None => {
                let code = store::programme::currency(&mut tx, *programme).await?.ok_or(Error::ProgrammeNotFound(*programme))?;
                let currency = Currency::from_code(&code).ok_or(Error::CurrencyUnknown(code))?;
                currencies.insert(*programme, currency);
                currency
            }
        };
        operations.push(expiry(*programme, *reservation, currency));
    }
    for (outcome, Due { reservation, .. }) in lane.run_all(operations).await?.into_iter().zip(&due) {
        match outcome {
            Ok(_) => {}
            Err(error) if error.database().is_some_and(is_transient) => return Err(error),
            Err(error) => tracing::error!(%reservation, error = chain(&error), "a hold cannot be expired"),
        }
    }
    Ok(due.last().copied())
}

fn expiry(programme: ProgrammeId, reservation: ReservationId, currency: Currency) -> Operation {
    // A hold may come to expire again, once it can be extended: each expiry is an intent of its own.
    let key = RequestKey {
        programme: programme.0,
        method: EXPIRY,
        request_id: Uuid::now_v7(),
        hash: Sha256::digest(reservation.0.as_bytes()).to_vec(),
    };
    Operation {
        key,
        command: Command::Expire { reservation },
        currency,
        payment_reference: None,
        actor: EXPIRY.to_owned(),
        client: EXPIRY.to_owned(),
        trace_id: context::trace_id(),
        is_callers: false,
    }
}
