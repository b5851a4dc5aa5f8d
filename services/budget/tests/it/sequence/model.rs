//! The books in memory.

use chrono::{DateTime, Utc};
use koc_budget::{
    domain::{
        books::{Books, Command, Outcome, Posting, Receipt},
        refusal::Refusal,
    },
    ids::{EnvelopeId, MemberId, PlanId, ProgrammeId, ReservationId},
    store::operation::Operation,
};
use koc_chassis::{gate::RequestKey, money::Currency};
use proptest::sample::Index;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many reservations are at work at a time.
const LATEST: usize = 4;

/// What came of an operation, without the times, which are the database's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Done { reservation: Option<ReservationId>, parts: [i64; 4], available: i64 },
    Refused(Refusal),
    Other(String),
}

impl Told {
    pub fn of(receipt: &Receipt) -> Self {
        let parts = receipt.reservation.as_ref().map(|r| r.parts).unwrap_or_default();
        Self::Done {
            reservation: receipt.reservation.as_ref().map(|r| r.id),
            parts: [parts.reserved, parts.committed, parts.spent, parts.released],
            available: receipt.available,
        }
    }
}

/// The books in memory, and what was told.
pub struct Model {
    pub programme: ProgrammeId,
    pub plan: PlanId,
    pub books: Books,
    pub postings: Vec<Posting>,
    pub answers: BTreeMap<Uuid, Told>,
    pub now: DateTime<Utc>,
    pub envelopes: [EnvelopeId; 2],
    pub member: MemberId,
    /// All that was ever sent.
    pub sent: Vec<Operation>,
    pub made: Vec<ReservationId>,
}

impl Model {
    /// What an operation must come to, once it is committed, and whether it was answered before.
    pub fn decide(&mut self, operation: &Operation) -> (Told, bool) {
        if let Some(told) = self.answers.get(&operation.key.request_id) {
            return (told.clone(), true);
        }
        // Of an entry that was undone meanwhile, in this transaction perhaps.
        if let Some(entry) = operation.command.original()
            && let Some(original) = self.books.originals.get_mut(&entry)
        {
            original.reversed = self.postings.iter().any(|p| p.reversal.is_some_and(|r| r.of == entry));
        }
        let decision = self.books.decide(self.programme, &operation.command, self.now).expect("the books add up");
        let nothing = matches!(operation.command, Command::Expire { .. }) && decision.postings.is_empty();
        self.postings.extend(decision.postings);
        let (told, kept) = match decision.outcome {
            Outcome::Done(receipt) => (Told::of(&receipt), !nothing),
            Outcome::Refused(refusal) => (Told::Refused(refusal), true),
            other => (Told::Other(format!("{other:?}")), false),
        };
        if kept {
            self.answers.insert(operation.key.request_id, told.clone());
        }
        if let (Command::Reserve { reservation, .. }, Told::Done { .. }) = (&operation.command, &told) {
            self.made.push(*reservation);
        }
        (told, false)
    }

    pub fn operation(&self, command: Command) -> Operation {
        let request_id = Uuid::now_v7();
        let key = RequestKey { programme: self.programme.0, method: "test", request_id, hash: request_id.as_bytes().to_vec() };
        Operation {
            key,
            command,
            currency: Currency::from_code("CNY").expect("a currency"),
            payment_reference: None,
            actor: "tester".into(),
            client: "tests".into(),
            trace_id: None,
            is_callers: true,
        }
    }

    /// One of the latest few, so that much happens to each.
    pub fn any(&self, of: &Index) -> Option<ReservationId> {
        let made = self.made.len();
        (made > 0).then(|| self.made[made - 1 - of.index(made.min(LATEST))])
    }
}
