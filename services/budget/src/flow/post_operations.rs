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
    fault::{ServiceError, constraint, is_race, is_transient},
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
    for spent in executed.spent_changed.iter().filter(|r| r.purpose.starts_with(PURPOSE)) {
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
    let answer = together(db, std::slice::from_ref(operation), Keep::All).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
    db.wake();
    done(answer, operation)
}

/// Runs operations in order, each with an end of its own. They share a transaction; when it fails by one of them, each gets one of its
/// own.
pub async fn run_all(db: &Db, operations: &[Operation]) -> Vec<Result<Outcome<Receipt>, Error>> {
    match together(db, operations, Keep::All).await {
        Ok(answers) => {
            db.wake();
            answers.into_iter().zip(operations).map(|(answer, operation)| done(answer, operation)).collect()
        }
        Err(error) if error.database().is_some_and(is_transient) => for_all(error, operations.len()),
        Err(_) => one_by_one(db, operations).await,
    }
}

async fn one_by_one(db: &Db, operations: &[Operation]) -> Vec<Result<Outcome<Receipt>, Error>> {
    let mut outcomes = Vec::with_capacity(operations.len());
    for operation in operations {
        match run(db, operation).await {
            Err(error) if error.database().is_some_and(is_transient) => {
                outcomes.extend(for_all(error, operations.len() - outcomes.len()));
                break;
            }
            outcome => outcomes.push(outcome),
        }
    }
    outcomes
}

/// As [`run_all`], and nothing of it is kept: neither money nor answers.
pub async fn rehearse_all(db: &Db, operations: &[Operation]) -> Vec<Result<Outcome<Receipt>, Error>> {
    match together(db, operations, Keep::Nothing).await {
        Ok(answers) => answers.into_iter().zip(operations).map(|(answer, operation)| done(answer, operation)).collect(),
        Err(error) => for_all(error, operations.len()),
    }
}

/// The error for the first, and for the others that they were not tried.
fn for_all(error: Error, count: usize) -> Vec<Result<Outcome<Receipt>, Error>> {
    std::iter::once(error).chain(std::iter::repeat_with(|| Error::DatabaseUnavailable)).take(count).map(Err).collect()
}

/// What is kept of a transaction.
#[derive(Debug, Clone, Copy)]
enum Keep {
    All,
    Nothing,
}

/// Runs operations in one transaction, again when it lost a race.
async fn together(db: &Db, operations: &[Operation], keep: Keep) -> Result<Vec<Answer>, Error> {
    let mut attempt = 1;
    loop {
        match once(db, operations, keep).await {
            Err(Error::Database(error)) if attempt < MAX_ATTEMPTS && lost_race(&error) => attempt += 1,
            end => return end,
        }
    }
}

/// Whether to run again may bring another end: a deadlock, or another operation with the same request id came first.
fn lost_race(error: &sqlx::Error) -> bool {
    is_race(error) || constraint(error) == Some("operation_pkey")
}

async fn once(db: &Db, operations: &[Operation], keep: Keep) -> Result<Vec<Answer>, Error> {
    let mut tx = db.begin().await?;
    let answers = post(&mut tx, operations).await?;
    match keep {
        Keep::All => tx.commit().await?,
        Keep::Nothing => tx.rollback().await?,
    }
    Ok(answers)
}

/// What an answer is to whoever asked.
pub fn done(answer: Answer, operation: &Operation) -> Result<Outcome<Receipt>, Error> {
    match answer {
        Answer::Done { receipt, replayed } => Ok(Outcome { message: receipt, replayed }),
        Answer::Refused { refusal, .. } => Err(Error::Refused { refusal, currency: operation.currency }),
        Answer::Reused => Err(Error::RequestIdReused),
        Answer::EnvelopeNotFound(id) => Err(Error::EnvelopeNotFound(id)),
        Answer::ReservationNotFound(id) => Err(Error::ReservationNotFound(id)),
        Answer::EntryNotFound(id) => Err(Error::EntryNotFound(id)),
    }
}
