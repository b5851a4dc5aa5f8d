//! Where money moves. The books are the part of the ledger's state that is locked for an operation; each command is decided over
//! them exactly, in order, and leaves postings or a refusal.

use super::{
    balances::{Balances, EntryKind, Imbalance, Parts},
    member_limit::LimitUse,
    period::Period,
    plan::Stage,
    refusal::Refusal,
    reservation::Reservation,
    reserve_draw,
    reversal::{Original, Reversal, ReversalReason},
};
use crate::ids::{EntryId, EnvelopeId, MemberId, PlanId, ProgrammeId, ReservationId};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;

/// What is asked of the ledger. Amounts in minor units, more than zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Puts a plan's money into an envelope.
    Allocate { envelope: EnvelopeId, amount: i64 },
    /// Takes available money out of an envelope again.
    Deallocate { envelope: EnvelopeId, amount: i64 },
    /// Holds money; the new reservation gets `reservation` as its id.
    Reserve {
        reservation: ReservationId,
        envelope: EnvelopeId,
        member: Option<MemberId>,
        purpose: String,
        amount: i64,
        time_to_live: TimeDelta,
    },
    /// Held money becomes owed: `amount`, or all.
    Commit { reservation: ReservationId, amount: Option<i64>, release_rest: bool },
    /// Owed money becomes paid: `amount`, or all.
    Spend { reservation: ReservationId, amount: Option<i64> },
    /// Held money goes back: `amount`, or all.
    Release { reservation: ReservationId, amount: Option<i64> },
    /// A hold lasts at least so long from now on; what expired of it is reserved again.
    Extend { reservation: ReservationId, time_to_live: TimeDelta },
    /// Undoes an entry, a commit or a spend of the reservation: `amount` of it, or all. With `release` the money goes back.
    Reverse { reservation: ReservationId, entry: EntryId, amount: Option<i64>, release: bool, reason: ReversalReason },
    /// Held money goes back if its time is over.
    Expire { reservation: ReservationId },
}

impl Command {
    /// The envelope that it names itself.
    pub fn envelope(&self) -> Option<EnvelopeId> {
        match self {
            Self::Allocate { envelope, .. } | Self::Deallocate { envelope, .. } | Self::Reserve { envelope, .. } => {
                Some(*envelope)
            }
            _ => None,
        }
    }

    /// The reservation that it changes or makes.
    pub fn reservation(&self) -> Option<ReservationId> {
        match self {
            Self::Allocate { .. } | Self::Deallocate { .. } => None,
            Self::Reserve { reservation, .. }
            | Self::Commit { reservation, .. }
            | Self::Spend { reservation, .. }
            | Self::Release { reservation, .. }
            | Self::Extend { reservation, .. }
            | Self::Reverse { reservation, .. }
            | Self::Expire { reservation } => Some(*reservation),
        }
    }

    /// The entry that it undoes.
    pub fn original(&self) -> Option<EntryId> {
        match self {
            Self::Reverse { entry, .. } => Some(*entry),
            _ => None,
        }
    }
}

/// One movement, to be written to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    pub envelope: EnvelopeId,
    pub envelope_sequence: i64,
    pub kind: EntryKind,
    pub reservation: Option<ReservationId>,
    pub amount: i64,
    pub available_after: i64,
    /// What it undoes, for a reversal.
    pub reversal: Option<Reversal>,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// In the order of the envelope. A refused command may have some too: the expiry of a hold that it found overdue.
    pub postings: Vec<Posting>,
    pub outcome: Outcome,
}

/// See [`Decision`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done(Receipt),
    Refused(Refusal),
    EnvelopeNotFound(EnvelopeId),
    ReservationNotFound(ReservationId),
    EntryNotFound(EntryId),
}

/// How things stood after a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The reservation; None for allocations.
    pub reservation: Option<Reservation>,
    /// What the envelope had available.
    pub available: i64,
}

/// An envelope as it is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeBook {
    pub programme: ProgrammeId,
    pub plan: PlanId,
    /// Whether it is its plan's strategic reserve.
    pub is_reserve: bool,
    /// Then it takes no reservations.
    pub has_children: bool,
    /// Of its plan.
    pub stage: Stage,
    /// Of its plan.
    pub period: Period,
    pub balances: Balances,
    /// How far available may fall below zero.
    pub overrun_limit: i64,
    /// That of its last entry.
    pub sequence: i64,
}

impl EnvelopeBook {
    /// What may still be reserved: what is available, and what is left of the overrun.
    pub fn room(&self) -> i64 {
        self.balances.available().saturating_add(self.overrun_limit)
    }

    /// The part of the overrun that is not used.
    pub fn overrun_left(&self) -> i64 {
        self.overrun_limit.min(self.room())
    }
}

/// What is locked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    pub envelopes: BTreeMap<EnvelopeId, EnvelopeBook>,
    pub limits: Vec<LimitUse>,
    pub persons: Persons,
    pub reservations: BTreeMap<ReservationId, Reservation>,
    /// Entries that are asked to be undone.
    pub originals: BTreeMap<EntryId, Original>,
}

impl Books {
    /// Decides one command of `programme` at `now`, a time after the locks, and posts what it moves. Fails only when the books do
    /// not add up, which nothing may be built upon: they are to be thrown away then.
    pub fn decide(&mut self, programme: ProgrammeId, command: &Command, now: DateTime<Utc>) -> Result<Decision, Imbalance> {
        let mut posted = Posted { books: self, postings: Vec::new() };
        let outcome = posted.decide(programme, command, now)?;
        Ok(Decision { postings: posted.postings, outcome })
    }

    /// The limit that a reservation of `member` in `envelope` is counted in: its own, whose period holds the plan's.
    fn limit_mut(&mut self, envelope: EnvelopeId, member: Option<MemberId>) -> Option<&mut LimitUse> {
        let (book, member) = (self.envelopes.get(&envelope)?, member?);
        let (programme, period) = (book.programme, book.period);
        self.limits.iter_mut().find(|limit| limit.counts(programme, member, &period))
    }
}

struct Posted<'a> {
    books: &'a mut Books,
    postings: Vec<Posting>,
}

impl Posted<'_> {
    fn decide(&mut self, programme: ProgrammeId, command: &Command, now: DateTime<Utc>) -> Result<Outcome, Imbalance> {
        let envelope = match (command.envelope(), command.reservation()) {
            (Some(envelope), _) => envelope,
            (None, Some(id)) => match self.books.reservations.get(&id).filter(|r| r.programme == programme) {
                Some(reservation) => reservation.envelope,
                None => return Ok(Outcome::ReservationNotFound(id)),
            },
            (None, None) => unreachable!("a command names an envelope or a reservation"),
        };
        if self.books.envelopes.get(&envelope).is_none_or(|book| book.programme != programme) {
            return Ok(Outcome::EnvelopeNotFound(envelope));
        }
        if let (Some(entry), Some(id)) = (command.original(), command.reservation())
            && self.books.originals.get(&entry).is_none_or(|original| original.reservation != id)
        {
            return Ok(Outcome::EntryNotFound(entry));
        }
        let refused = match command {
            Command::Allocate { amount, .. } => self.post(EntryKind::Allocate, envelope, None, *amount).map(|()| None)?,
            Command::Deallocate { amount, .. } => self.deallocate(envelope, *amount)?,
            Command::Reserve { .. } => self.reserve(programme, envelope, command, now)?,
            Command::Commit { reservation, amount, release_rest } => {
                self.expire(*reservation, now)?;
                self.commit(*reservation, *amount, *release_rest)?
            }
            Command::Spend { reservation, amount } => {
                self.expire(*reservation, now)?;
                self.spend(*reservation, *amount)?
            }
            Command::Release { reservation, amount } => {
                self.expire(*reservation, now)?;
                self.release(*reservation, *amount)?
            }
            Command::Extend { reservation, time_to_live } => {
                self.expire(*reservation, now)?;
                self.extend(*reservation, now + *time_to_live)?
            }
            Command::Reverse { reservation, entry, amount, release, reason } => {
                self.expire(*reservation, now)?;
                let refused = self.reverse(*reservation, Reversal { of: *entry, reason: *reason }, *amount, *release)?;
                // What is held again may be overdue.
                self.expire(*reservation, now)?;
                refused
            }
            Command::Expire { reservation } => self.expire(*reservation, now).map(|()| None)?,
        };
        Ok(match refused {
            Some(refusal) => Outcome::Refused(refusal),
            None => Outcome::Done(Receipt {
                reservation: command.reservation().and_then(|id| self.books.reservations.get(&id).cloned()),
                available: self.available(envelope),
            }),
        })
    }

    fn deallocate(&mut self, envelope: EnvelopeId, asked: i64) -> Result<Option<Refusal>, Imbalance> {
        let available = self.available(envelope);
        if asked > available {
            return Ok(Some(Refusal::EnvelopeExhausted { envelope, asked, available, overrun_left: 0 }));
        }
        self.post(EntryKind::Deallocate, envelope, None, asked)?;
        Ok(None)
    }

    fn reserve(
        &mut self,
        programme: ProgrammeId,
        envelope: EnvelopeId,
        command: &Command,
        now: DateTime<Utc>,
    ) -> Result<Option<Refusal>, Imbalance> {
        let Command::Reserve { reservation, member, purpose, amount, time_to_live, .. } = command else { return Ok(None) };
        if let Some(refusal) = self.closed(envelope) {
            return Ok(Some(refusal));
        }
        let book = &self.books.envelopes[&envelope];
        if book.has_children {
            return Ok(Some(Refusal::EnvelopeHasChildren { envelope }));
        }
        if book.is_reserve && !purpose.starts_with(reserve_draw::PURPOSE) {
            return Ok(Some(Refusal::ReserveNeedsDraw { envelope }));
        }
        let member = member.map(|member| self.books.persons.led(programme, member));
        if let Some(refusal) = self.short_of(envelope, member, *amount) {
            return Ok(Some(refusal));
        }
        let held = Reservation {
            id: *reservation,
            programme,
            envelope,
            member,
            purpose: purpose.clone(),
            parts: Parts::default(),
            recoverable: 0,
            expire_time: now + *time_to_live,
            create_time: now,
        };
        self.books.reservations.insert(held.id, held);
        self.post(EntryKind::Reserve, envelope, Some(*reservation), *amount)?;
        Ok(None)
    }

    /// Commits what is held and, where that does not do, reserves again what expiry gave back.
    fn commit(&mut self, id: ReservationId, amount: Option<i64>, release_rest: bool) -> Result<Option<Refusal>, Imbalance> {
        let Reservation { envelope, parts, recoverable, .. } = self.books.reservations[&id];
        let available = parts.reserved + recoverable;
        let asked = amount.unwrap_or(available);
        if asked == 0 || asked > available {
            return Ok(Some(Refusal::ReservationExhausted { reservation: id, asked: amount, available }));
        }
        let missing = asked - parts.reserved;
        if missing > 0
            && let Some(refusal) = self.reserve_again(id, missing)?
        {
            return Ok(Some(refusal));
        }
        self.post(EntryKind::Commit, envelope, Some(id), asked)?;
        if release_rest {
            self.release_all(id)?;
        }
        Ok(None)
    }

    /// Reserves again a part of what expiry gave back.
    fn reserve_again(&mut self, id: ReservationId, amount: i64) -> Result<Option<Refusal>, Imbalance> {
        let Reservation { envelope, member, .. } = self.books.reservations[&id];
        if let Some(refusal) = self.closed(envelope).or_else(|| self.short_of(envelope, member, amount)) {
            return Ok(Some(refusal));
        }
        self.post(EntryKind::Reserve, envelope, Some(id), amount)?;
        self.recover(id, |recoverable| recoverable - amount);
        Ok(None)
    }

    fn spend(&mut self, id: ReservationId, amount: Option<i64>) -> Result<Option<Refusal>, Imbalance> {
        let Reservation { envelope, parts, .. } = self.books.reservations[&id];
        let asked = amount.unwrap_or(parts.committed);
        if asked == 0 || asked > parts.committed {
            return Ok(Some(Refusal::ReservationExhausted { reservation: id, asked: amount, available: parts.committed }));
        }
        self.post(EntryKind::Spend, envelope, Some(id), asked)?;
        Ok(None)
    }

    /// Gives back. To give back all of nothing is no error: whoever settles a reservation need not know that it expired.
    fn release(&mut self, id: ReservationId, amount: Option<i64>) -> Result<Option<Refusal>, Imbalance> {
        let Reservation { envelope, parts, .. } = self.books.reservations[&id];
        match amount {
            None => self.release_all(id)?,
            Some(asked) if asked > parts.reserved => {
                let available = parts.reserved;
                return Ok(Some(Refusal::ReservationExhausted { reservation: id, asked: amount, available }));
            }
            Some(asked) => self.post(EntryKind::Release, envelope, Some(id), asked)?,
        }
        Ok(None)
    }

    /// Gives all back for good: what expired cannot be reserved again either.
    fn release_all(&mut self, id: ReservationId) -> Result<(), Imbalance> {
        let Reservation { envelope, parts, .. } = self.books.reservations[&id];
        if parts.reserved > 0 {
            self.post(EntryKind::Release, envelope, Some(id), parts.reserved)?;
        }
        self.recover(id, |_| 0);
        Ok(())
    }

    fn expire(&mut self, id: ReservationId, now: DateTime<Utc>) -> Result<(), Imbalance> {
        let reservation = &self.books.reservations[&id];
        if reservation.is_due(now) {
            let (envelope, amount) = (reservation.envelope, reservation.parts.reserved);
            self.post(EntryKind::Expire, envelope, Some(id), amount)?;
            self.recover(id, |recoverable| recoverable + amount);
        }
        Ok(())
    }

    /// What keeps anything from being reserved: a plan that is not active.
    fn closed(&self, envelope: EnvelopeId) -> Option<Refusal> {
        let book = &self.books.envelopes[&envelope];
        (book.stage != Stage::Active).then(|| Refusal::PlanState { plan: book.plan, state: book.stage.as_str().to_owned() })
    }

    /// What keeps `asked` from being reserved: the envelope first, then the member's limit.
    fn short_of(&self, envelope: EnvelopeId, member: Option<MemberId>, asked: i64) -> Option<Refusal> {
        let book = &self.books.envelopes[&envelope];
        if asked > book.room() {
            let (available, overrun_left) = (book.balances.available(), book.overrun_left());
            return Some(Refusal::EnvelopeExhausted { envelope, asked, available, overrun_left });
        }
        let left = self.books.left_of_limits(envelope, member?)?;
        (asked > left.amount).then_some(Refusal::MemberLimitExhausted {
            member: left.member,
            period_start_time: left.period_start_time,
            asked,
            available: left.amount,
        })
    }

    fn available(&self, envelope: EnvelopeId) -> i64 {
        self.books.envelopes[&envelope].balances.available()
    }

    fn recover(&mut self, id: ReservationId, change: impl FnOnce(i64) -> i64) {
        if let Some(reservation) = self.books.reservations.get_mut(&id) {
            reservation.recoverable = change(reservation.recoverable);
        }
    }

    /// As [`Self::note`], for entries that undo nothing.
    fn post(&mut self, kind: EntryKind, envelope: EnvelopeId, id: Option<ReservationId>, amount: i64) -> Result<(), Imbalance> {
        self.note(kind, envelope, id, amount, None)
    }

    /// Moves money in the envelope, the reservation and the member's limit, and notes the entry.
    fn note(
        &mut self,
        kind: EntryKind,
        envelope: EnvelopeId,
        id: Option<ReservationId>,
        amount: i64,
        reversal: Option<Reversal>,
    ) -> Result<(), Imbalance> {
        let unknown = |account| Imbalance { kind, amount, account };
        let mut member = None;
        if let Some(id) = id {
            let reservation = self.books.reservations.get_mut(&id).ok_or(unknown("unknown reservation"))?;
            reservation.parts.post(kind, amount)?;
            member = reservation.member;
        }
        if let Some(limit) = self.books.limit_mut(envelope, member) {
            limit.post(kind, amount)?;
        }
        let book = self.books.envelopes.get_mut(&envelope).ok_or(unknown("unknown envelope"))?;
        book.balances.post(kind, amount, book.overrun_limit)?;
        book.sequence += 1;
        self.postings.push(Posting {
            envelope,
            envelope_sequence: book.sequence,
            kind,
            reservation: id,
            amount,
            available_after: book.balances.available(),
            reversal,
        });
        Ok(())
    }
}

mod afterwards;
mod persons;

pub use persons::Persons;

#[cfg(test)]
mod tests;
