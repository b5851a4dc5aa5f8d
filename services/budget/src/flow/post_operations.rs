//! Moving money, with the facts that tell of it: the one way into the ledger.

use super::fact;
use crate::{
    domain::{books::Receipt, reserve_draw::PURPOSE},
    error::Error,
    store::{
        self,
        operation::{Answer, Operation, Posted},
    },
};
use koc_chassis::{
    fault::{constraint, is_race},
    gate::Outcome,
    outbox::{self, NewFact},
    postgres::Db,
};
use sqlx::PgConnection;

/// How often operations that lost a race are run.
const MAX_ATTEMPTS: u32 = 5;

/// Decides operations in the caller's transaction, exactly and in order, and publishes their entries. All that comes of it is to be
/// committed, refusals too.
pub async fn post(conn: &mut PgConnection, operations: &[Operation]) -> Result<Vec<Answer>, Error> {
    let executed = store::operation::execute(conn, operations).await?;
    let mut facts: Vec<NewFact> = executed.posted.iter().map(ledger_posted).collect();
    for spent in executed.wholly_spent.iter().filter(|r| r.purpose.starts_with(PURPOSE)) {
        if let Some(draw) = store::reserve_draw::of_reservation(conn, spent.programme, spent.id).await? {
            facts.push(NewFact::new(draw.programme, draw.id.0, &fact::reserve_draw_changed(&draw)));
        }
    }
    outbox::append(conn, &facts).await?;
    Ok(executed.answers)
}

fn ledger_posted(posted: &Posted) -> NewFact {
    let entry = &posted.entry;
    let subject = entry.reservation.map_or(entry.envelope.0, |id| id.0);
    NewFact::new(entry.programme, subject, &fact::ledger_posted(posted))
}

/// Runs one operation in a transaction of its own, again when it lost a race.
pub async fn run(db: &Db, operation: &Operation) -> Result<Outcome<Receipt>, Error> {
    let mut attempt = 1;
    loop {
        match once(db, operation).await {
            Err(Error::Database(error)) if attempt < MAX_ATTEMPTS && lost_race(&error) => attempt += 1,
            Err(error) => return Err(error),
            Ok(answer) => {
                db.wake();
                return done(answer, operation);
            }
        }
    }
}

/// Whether to run again may bring another end: a deadlock, or another operation with the same request id came first.
fn lost_race(error: &sqlx::Error) -> bool {
    is_race(error) || constraint(error) == Some("operation_pkey")
}

async fn once(db: &Db, operation: &Operation) -> Result<Answer, Error> {
    let mut tx = db.begin().await?;
    let mut answers = post(&mut tx, std::slice::from_ref(operation)).await?;
    tx.commit().await?;
    Ok(answers.pop().ok_or(sqlx::Error::RowNotFound)?)
}

/// What an answer is to whoever asked.
pub fn done(answer: Answer, operation: &Operation) -> Result<Outcome<Receipt>, Error> {
    match answer {
        Answer::Done { receipt, replayed } => Ok(Outcome { message: receipt, replayed }),
        Answer::Refused { refusal, .. } => Err(Error::Refused { refusal, currency: operation.currency }),
        Answer::Reused => Err(Error::RequestIdReused),
        Answer::EnvelopeNotFound(id) => Err(Error::EnvelopeNotFound(id)),
        Answer::ReservationNotFound(id) => Err(Error::ReservationNotFound(id)),
    }
}
