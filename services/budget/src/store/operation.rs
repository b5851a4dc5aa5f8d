//! The one function through which money moves: it locks, reads, has the books decide, and writes. It takes any number of
//! operations and decides them exactly, in order, in the transaction of its caller.
//!
//! Locks are taken in one order (envelopes by id, members by hash, limits by key), each by a statement of its own. What is decided
//! upon is read by statements after them, whose snapshots are newer than the locks, and so is the time.

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

/// How the names of the contract's requests begin; what the service asks itself is called otherwise.
const CALLERS_METHODS: &str = "koc.budget.v1.";

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
}

impl Operation {
    fn programme(&self) -> ProgrammeId {
        ProgrammeId(self.key.programme)
    }

    /// Whether a caller asks for it by a method of the contract, and not the service on its way.
    fn is_callers(&self) -> bool {
        self.key.method.starts_with(CALLERS_METHODS)
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
    let commands = || operations.iter().map(|o| &o.command);
    let envelopes: HashSet<EnvelopeId> = commands().filter_map(Command::envelope).collect();
    // A command that names its envelope makes its reservation; the others change one that is there.
    let reservations: HashSet<ReservationId> =
        commands().filter(|command| command.envelope().is_none()).filter_map(Command::reservation).collect();

    let (envelopes, now) = read::lock_envelopes(conn, &envelopes, &reservations).await?;
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
        read::share_members(conn, &members).await?;
        (books.limits, books.persons) = read::lock_limits(conn, &books.envelopes, &members).await?;
    }
    let mut known = match keys {
        Keys::Any => read::known(conn, operations.iter()).await?,
        Keys::New => KnownOperations::new(),
    };

    let before = books.clone();
    let mut executed = Executed { answers: Vec::with_capacity(operations.len()), posted: Vec::new(), spent_changed: Vec::new() };
    let mut kept = Vec::with_capacity(operations.len());
    // Those of which nothing is kept, so that no key breaks: their places.
    let mut unkept = Vec::new();
    for operation in operations {
        if let Some(known) = known.get(&operation.unique()) {
            executed.answers.push(known.answer(&operation.key.hash));
            continue;
        }
        let barred =
            |programme| books.trespass(programme, &operation.command).or_else(|| books.bars(programme, &operation.command));
        let decision = match operation.is_callers().then(|| barred(operation.programme())).flatten() {
            Some(refusal) => Decision { postings: Vec::new(), outcome: Outcome::Refused(refusal) },
            None => books.decide(operation.programme(), &operation.command, now)?,
        };
        let id = OperationId::new();
        executed.posted.extend(entries(&books, &decision, operation, id, now));
        let expired_nothing = matches!(operation.command, Command::Expire { .. }) && decision.postings.is_empty();
        let (answer, outcome) = match decision.outcome {
            Outcome::Done(receipt) => (Answer::Done { receipt: receipt.clone(), replayed: false }, Ok(receipt)),
            Outcome::Refused(refusal) => (Answer::Refused { refusal: refusal.clone(), replayed: false }, Err(refusal)),
            Outcome::EnvelopeNotFound(id) => {
                unkept.push(executed.answers.len());
                executed.answers.push(Answer::EnvelopeNotFound(id));
                continue;
            }
            Outcome::ReservationNotFound(id) => {
                unkept.push(executed.answers.len());
                executed.answers.push(Answer::ReservationNotFound(id));
                continue;
            }
            Outcome::EntryNotFound(id) => {
                unkept.push(executed.answers.len());
                executed.answers.push(Answer::EntryNotFound(id));
                continue;
            }
        };
        executed.answers.push(answer);
        if !expired_nothing {
            known.insert(operation.unique(), Known { hash: operation.key.hash.clone(), outcome: outcome.clone() });
            kept.push(Kept { id, operation, outcome });
        }
    }

    if keys == Keys::New && !unkept.is_empty() {
        let known = read::known(conn, unkept.iter().map(|place| &operations[*place])).await?;
        for place in unkept {
            if let Some(known) = known.get(&operations[place].unique()) {
                executed.answers[place] = known.answer(&operations[place].key.hash);
            }
        }
    }

    let was = |id: &ReservationId| before.reservations.get(id).is_some_and(Reservation::is_wholly_spent);
    let changed = books.reservations.values().filter(|r| r.is_wholly_spent() != was(&r.id));
    executed.spent_changed = changed.cloned().collect();

    write::all(conn, &mut kept, &executed.posted, (&before, &books), now).await?;
    Ok(executed)
}

/// Locks one envelope, as operations do.
pub async fn lock_envelope(conn: &mut PgConnection, id: EnvelopeId) -> Result<Option<EnvelopeBook>, sqlx::Error> {
    let (mut found, _) = read::lock_envelopes(conn, &HashSet::from([id]), &HashSet::new()).await?;
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
