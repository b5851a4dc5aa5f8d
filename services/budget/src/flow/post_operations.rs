//! Moving money, with the facts that tell of it: the one way into the ledger. Callers' operations come through [`super::lane`].

use super::fact;
use crate::{
    domain::{
        books::{Command, Receipt},
        reserve_draw::PURPOSE,
    },
    error::Error,
    ids::{ProgrammeId, ReservationId},
    store::{
        self,
        operation::{Answer, Keys, Operation, Posted},
    },
};
use koc_chassis::{
    context,
    fault::{constraint, is_race},
    gate::{Outcome, RequestKey, Work},
    lane::Shared,
    money::Currency,
    outbox::{self, NewFact},
    postgres::Db,
};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Decides operations in the caller's transaction, exactly and in order, and publishes their entries. All that comes of it is to be
/// committed, refusals too. With [`Keys::New`] it is to be run again, with [`Keys::Any`], when it lost a race.
pub async fn post(conn: &mut PgConnection, operations: &[Operation], keys: Keys) -> Result<Vec<Answer>, Error> {
    let executed = store::operation::execute(conn, operations, keys).await?;
    let mut facts: Vec<NewFact> = executed.posted.iter().map(ledger_posted).collect();
    let mut of_draws: HashMap<ProgrammeId, Vec<ReservationId>> = HashMap::new();
    for spent in executed.spent_changed.iter().filter(|r| r.purpose.starts_with(PURPOSE)) {
        of_draws.entry(spent.programme).or_default().push(spent.id);
    }
    for (programme, reservations) in of_draws {
        for draw in store::reserve_draw::of_reservations(conn, programme, reservations).await? {
            facts.push(NewFact::new(programme, draw.id.0, &fact::reserve_draw_changed(&draw)));
        }
    }
    outbox::append(conn, &facts).await?;
    Ok(executed.answers)
}

/// What the work of a call asks of the ledger on its way. `method` and `request_id` say what for: it is done once for both, whichever call
/// does it,
pub fn asked(work: &Work, method: &'static str, request_id: Uuid, command: Command, currency: Currency) -> Operation {
    let hash = Sha256::digest(request_id.as_bytes()).to_vec();
    Operation {
        key: RequestKey { programme: work.programme().0, method, request_id, hash },
        command,
        currency,
        payment_reference: None,
        actor: work.actor().to_owned(),
        client: work.call.caller.client.clone(),
        trace_id: context::trace_id(),
        is_callers: false,
    }
}

/// Decides operations in the transaction of a call's work, in order. The first refusal ends it: the work is to be rolled back.
pub async fn post_all(work: &mut Work, operations: &[Operation]) -> Result<(), Error> {
    if operations.is_empty() {
        return Ok(());
    }
    for (answer, operation) in post(work.conn(), operations, Keys::Any).await?.into_iter().zip(operations) {
        // The work's own state says that it was not done yet.
        if done(answer, operation)?.replayed {
            return Err(Error::DoneBefore);
        }
    }
    Ok(())
}

fn ledger_posted(posted: &Posted) -> NewFact {
    let entry = &posted.entry;
    let subject = entry.reservation.map_or(entry.envelope.0, |id| id.0);
    NewFact::new(entry.programme, subject, &fact::ledger_posted(posted))
}

/// Decides operations in order as they would be decided now, by one snapshot. Nothing of it is kept, neither money nor answers, and nobody
/// waits for it.
pub async fn rehearse_all(db: &Db, operations: &[Operation]) -> Vec<Result<Outcome<Receipt>, Error>> {
    match rehearse(db, operations).await {
        Ok(answers) => answers.into_iter().zip(operations).map(|(answer, operation)| done(answer, operation)).collect(),
        Err(error) => Shared::among(error, operations.len()).map(|error| Err(error.into())).collect(),
    }
}

async fn rehearse(db: &Db, operations: &[Operation]) -> Result<Vec<Answer>, Error> {
    let mut snapshot = db.snapshot().await?;
    let answers = store::operation::rehearse(&mut snapshot, operations).await?;
    snapshot.rollback().await?;
    Ok(answers)
}

/// Whether to run again may bring another end: a deadlock, or another operation with the same request id came first, or with the same
/// reservation, which is of the same request.
pub(super) fn lost_race(error: &sqlx::Error) -> bool {
    is_race(error) || matches!(constraint(error), Some("operation_pkey" | "reservation_pkey"))
}

/// What an answer is to whoever asked.
pub(super) fn done(answer: Answer, operation: &Operation) -> Result<Outcome<Receipt>, Error> {
    match answer {
        Answer::Done { receipt, replayed } => Ok(Outcome { message: receipt, replayed }),
        Answer::Refused { refusal, .. } => Err(Error::Refused { refusal, currency: operation.currency }),
        Answer::Reused => Err(Error::RequestIdReused),
        Answer::EnvelopeNotFound(id) => Err(Error::EnvelopeNotFound(id)),
        Answer::ReservationNotFound(id) => Err(Error::ReservationNotFound(id)),
        Answer::EntryNotFound(id) => Err(Error::EntryNotFound(id)),
    }
}
