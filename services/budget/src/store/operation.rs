//! The one function through which money moves: it locks, reads, has the books decide, and writes. It takes any number of
//! operations and decides them exactly, in order, in the transaction of its caller.
//!
//! Locks are taken in one order (envelopes by id, members by hash, limits by key), each by a statement of its own. What is decided
//! upon is read by statements after them, whose snapshots are newer than the locks. The time is later than the envelopes' locks; what is
//! decided on members' limits does not depend on it.

mod read;
mod write;

use crate::{
    domain::{
        books::{Books, Command, Decision, EnvelopeBook, Outcome, Receipt},
        ledger::LedgerEntry,
        refusal::Refusal,
        reservation::Reservation,
    },
    error::Error,
    ids::{EntryId, EnvelopeId, MemberId, OperationId, ProgrammeId, ReservationId},
};
use chrono::{DateTime, Utc};
use koc_chassis::{gate::RequestKey, money::Currency};
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Class of the advisory locks on members. Operations share a member's lock; whoever gives the member a limit holds it alone, so that
/// no use is missed while the limit has no row yet. The database is shared with other services, so their classes differ.
pub(super) const MEMBER_LOCK: i32 = 0x6b62_6d62;

/// What is asked, by whom, and what makes a retry of it known.
#[derive(Debug, Clone)]
pub struct Operation {
    pub key: RequestKey,
    pub command: Command,
    /// The programme's.
    pub currency: Currency,
    /// Of a Spend.
    pub payment_reference: Option<String>,
    /// The person or system that acts.
    pub actor: String,
    /// The platform that calls.
    pub client: String,
    pub trace_id: Option<String>,
    /// Whether a caller asks for it by a method for all reservations, and not the service on its way.
    pub is_callers: bool,
}

impl Operation {
    fn programme(&self) -> ProgrammeId {
        ProgrammeId(self.key.programme)
    }

    fn unique(&self) -> UniqueKey {
        (self.key.programme, self.key.method.to_owned(), self.key.request_id)
    }
}

type UniqueKey = (Uuid, String, Uuid);

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done {
        receipt: Receipt,
        replayed: bool,
    },
    Refused {
        refusal: Refusal,
        replayed: bool,
    },
    /// The request id was used with another request.
    Reused,
    EnvelopeNotFound(EnvelopeId),
    ReservationNotFound(ReservationId),
    EntryNotFound(EntryId),
}

/// An entry as it was written, with what its reservation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    pub entry: LedgerEntry,
    pub currency: Currency,
    pub member: Option<MemberId>,
    pub purpose: Option<String>,
}

/// What was done: an answer for each operation, the entries of all, in order, and the reservations that have become wholly spent by
/// it, with the last payment or when what was left was given back, or are so no more, by a reversal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    pub answers: Vec<Answer>,
    pub posted: Vec<Posted>,
    pub spent_changed: Vec<Reservation>,
}

/// An operation to be kept, with what came of it.
struct Kept<'a> {
    id: OperationId,
    operation: &'a Operation,
    outcome: Result<Receipt, Refusal>,
}

impl Kept<'_> {
    /// The reservation as it stood afterwards; None for allocations and refusals.
    fn held(&self) -> Option<&Reservation> {
        self.outcome.as_ref().ok()?.reservation.as_ref()
    }
}

/// What was kept of an earlier operation.
struct Known {
    hash: Vec<u8>,
    outcome: Result<Receipt, Refusal>,
}

impl Known {
    fn answer(&self, hash: &[u8]) -> Answer {
        match &self.outcome {
            _ if self.hash != hash => Answer::Reused,
            Ok(receipt) => Answer::Done { receipt: receipt.clone(), replayed: true },
            Err(refusal) => Answer::Refused { refusal: refusal.clone(), replayed: true },
        }
    }
}

/// What is taken of the operations' request ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Any of them may have been used before.
    Any,
    /// None was, most likely: they are not looked up, and `operation_pkey` breaks when one was.
    New,
}

/// Decides `operations` in order and writes what comes of them. Everything is to be committed, refusals too: they are the
/// answer to a retry. On an error the transaction is to be rolled back; after `operation_pkey` broke, a request id was used
/// before, or first by another one that ran at the same time: to run again, with [`Keys::Any`], gives its answer.
pub async fn execute(conn: &mut PgConnection, operations: &[Operation], keys: Keys) -> Result<Executed, Error> {
    let (books, now) = read(conn, operations, Locks::Taken).await?;
    let known = match keys {
        Keys::Any => read::known(conn, operations.iter()).await?,
        Keys::New => KnownOperations::new(),
    };
    let mut decided = Decided::new(books.clone());
    decided.all(operations, known, now)?;
    if keys == Keys::New && !decided.unkept.is_empty() {
        let known = read::known(conn, decided.unkept.iter().map(|place| &operations[*place])).await?;
        for place in std::mem::take(&mut decided.unkept) {
            if let Some(known) = known.get(&operations[place].unique()) {
                decided.answers[place] = known.answer(&operations[place].key.hash);
            }
        }
    }

    let Decided { books: after, answers, posted, mut kept, .. } = decided;
    let was = |id: &ReservationId| books.reservations.get(id).is_some_and(Reservation::is_wholly_spent);
    let changed = after.reservations.values().filter(|r| r.is_wholly_spent() != was(&r.id));
    let spent_changed = changed.cloned().collect();
    write::all(conn, &mut kept, &posted, (&books, &after), now).await?;
    Ok(Executed { answers, posted, spent_changed })
}

/// How `operations` would be decided, in order, by what `conn` sees in its snapshot. Nothing is locked and nothing written.
pub async fn rehearse(conn: &mut PgConnection, operations: &[Operation]) -> Result<Vec<Answer>, Error> {
    let (books, now) = read(conn, operations, Locks::None).await?;
    let known = read::known(conn, operations.iter()).await?;
    let mut decided = Decided::new(books);
    decided.all(operations, known, now)?;
    Ok(decided.answers)
}

/// Whether what is read stays as it is until the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locks {
    Taken,
    None,
}

/// Reads what the operations are decided upon, and the time.
async fn read(conn: &mut PgConnection, operations: &[Operation], locks: Locks) -> Result<(Books, DateTime<Utc>), sqlx::Error> {
    let commands = || operations.iter().map(|o| &o.command);
    let envelopes: HashSet<EnvelopeId> = commands().filter_map(Command::envelope).collect();
    // A command that names its envelope makes its reservation; the others change one that is there.
    let reservations: HashSet<ReservationId> =
        commands().filter(|command| command.envelope().is_none()).filter_map(Command::reservation).collect();

    let (envelopes, now) = read::envelopes(conn, &envelopes, &reservations, locks).await?;
    let mut books = Books {
        envelopes,
        originals: read::originals(conn, commands().filter_map(Command::original)).await?,
        ..Books::default()
    };
    if !reservations.is_empty() {
        let ids: Vec<ReservationId> = reservations.into_iter().collect();
        books.reservations = super::reservation::by_ids(conn, &ids).await?.into_iter().collect();
    }
    let mut members: HashSet<MemberId> = books.reservations.values().filter_map(|r| r.member).collect();
    members.extend(commands().filter_map(|command| match command {
        Command::Reserve { member, .. } => *member,
        _ => None,
    }));
    if !members.is_empty() {
        (books.limits, books.persons) = read::limits(conn, &books.envelopes, &members, locks).await?;
    }
    Ok((books, now))
}

/// Operations decided one after the other, and what is to be kept of them.
struct Decided<'a> {
    books: Books,
    answers: Vec<Answer>,
    posted: Vec<Posted>,
    kept: Vec<Kept<'a>>,
    /// Places of those of which nothing is kept, so that no key breaks.
    unkept: Vec<usize>,
}

impl<'a> Decided<'a> {
    fn new(books: Books) -> Self {
        Self { books, answers: Vec::new(), posted: Vec::new(), kept: Vec::new(), unkept: Vec::new() }
    }

    /// Decides all, those that are known by the answer that they had.
    fn all(&mut self, operations: &'a [Operation], mut known: KnownOperations, now: DateTime<Utc>) -> Result<(), Error> {
        self.answers.reserve(operations.len());
        for operation in operations {
            if let Some(known) = known.get(&operation.unique()) {
                self.answers.push(known.answer(&operation.key.hash));
                continue;
            }
            let (id, decision) = self.one(operation, now)?;
            let expired_nothing = matches!(operation.command, Command::Expire { .. }) && decision.postings.is_empty();
            let (answer, outcome) = match decision.outcome {
                Outcome::Done(receipt) => (Answer::Done { receipt: receipt.clone(), replayed: false }, Ok(receipt)),
                Outcome::Refused(refusal) => (Answer::Refused { refusal: refusal.clone(), replayed: false }, Err(refusal)),
                Outcome::EnvelopeNotFound(id) => {
                    self.not_found(Answer::EnvelopeNotFound(id));
                    continue;
                }
                Outcome::ReservationNotFound(id) => {
                    self.not_found(Answer::ReservationNotFound(id));
                    continue;
                }
                Outcome::EntryNotFound(id) => {
                    self.not_found(Answer::EntryNotFound(id));
                    continue;
                }
            };
            self.answers.push(answer);
            if !expired_nothing {
                known.insert(operation.unique(), Known { hash: operation.key.hash.clone(), outcome: outcome.clone() });
                self.kept.push(Kept { id, operation, outcome });
            }
        }
        Ok(())
    }

    fn not_found(&mut self, answer: Answer) {
        self.unkept.push(self.answers.len());
        self.answers.push(answer);
    }

    /// Decides one and notes its entries.
    fn one(&mut self, operation: &Operation, now: DateTime<Utc>) -> Result<(OperationId, Decision), Error> {
        let programme = operation.programme();
        let barred =
            || self.books.trespass(programme, &operation.command).or_else(|| self.books.bars(programme, &operation.command));
        let decision = match operation.is_callers.then(barred).flatten() {
            Some(refusal) => Decision { postings: Vec::new(), outcome: Outcome::Refused(refusal) },
            None => self.books.decide(programme, &operation.command, now)?,
        };
        let id = OperationId::new();
        self.posted.extend(entries(&self.books, &decision, operation, id, now));
        Ok((id, decision))
    }
}

/// Locks one envelope, as operations do.
pub async fn lock_envelope(conn: &mut PgConnection, id: EnvelopeId) -> Result<Option<EnvelopeBook>, sqlx::Error> {
    let (mut found, _) = read::envelopes(conn, &HashSet::from([id]), &HashSet::new(), Locks::Taken).await?;
    Ok(found.remove(&id))
}

fn entries(books: &Books, decision: &Decision, operation: &Operation, id: OperationId, now: DateTime<Utc>) -> Vec<Posted> {
    let posted = decision.postings.iter().map(|posting| {
        let reservation = posting.reservation.and_then(|id| books.reservations.get(&id));
        let entry = LedgerEntry {
            id: EntryId::new(),
            programme: operation.programme(),
            envelope: posting.envelope,
            envelope_sequence: posting.envelope_sequence,
            kind: posting.kind,
            credit: posting.kind.credit(),
            debit: posting.kind.debit(),
            amount: posting.amount,
            reservation: posting.reservation,
            available_after: posting.available_after,
            operation: id,
            actor: operation.actor.clone(),
            entry_time: now,
            reversal: posting.reversal,
        };
        Posted {
            entry,
            currency: operation.currency,
            member: reservation.and_then(|r| r.member),
            purpose: reservation.map(|r| r.purpose.clone()),
        }
    });
    posted.collect()
}

type KnownOperations = HashMap<UniqueKey, Known>;
