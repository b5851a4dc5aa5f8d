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
};
use crate::ids::{EnvelopeId, MemberId, PlanId, ProgrammeId, ReservationId};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;

/// What is asked of the ledger. Amounts in minor units, more than zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Puts a plan's money into an envelope.
    Allocate { envelope: EnvelopeId, amount: i64 },
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
    /// Held money goes back if its time is over.
    Expire { reservation: ReservationId },
}

impl Command {
    /// The envelope that it names itself.
    pub fn envelope(&self) -> Option<EnvelopeId> {
        match self {
            Self::Allocate { envelope, .. } | Self::Reserve { envelope, .. } => Some(*envelope),
            _ => None,
        }
    }

    /// The reservation that it changes or makes.
    pub fn reservation(&self) -> Option<ReservationId> {
        match self {
            Self::Allocate { .. } => None,
            Self::Reserve { reservation, .. }
            | Self::Commit { reservation, .. }
            | Self::Spend { reservation, .. }
            | Self::Release { reservation, .. }
            | Self::Expire { reservation } => Some(*reservation),
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
    /// Of its plan.
    pub stage: Stage,
    /// Of its plan.
    pub period: Period,
    pub balances: Balances,
    /// That of its last entry.
    pub sequence: i64,
}

/// What is locked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    pub envelopes: BTreeMap<EnvelopeId, EnvelopeBook>,
    pub limits: Vec<LimitUse>,
    pub reservations: BTreeMap<ReservationId, Reservation>,
}

impl Books {
    /// Decides one command of `programme` at `now`, a time after the locks, and posts what it moves. Fails only when the books do
    /// not add up, which nothing may be built upon: they are to be thrown away then.
    pub fn decide(&mut self, programme: ProgrammeId, command: &Command, now: DateTime<Utc>) -> Result<Decision, Imbalance> {
        let mut posted = Posted { books: self, postings: Vec::new() };
        let outcome = posted.decide(programme, command, now)?;
        Ok(Decision { postings: posted.postings, outcome })
    }

    /// The limit that a reservation of `member` in `envelope` counts towards: that whose period holds the plan's.
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
        let refused = match command {
            Command::Allocate { amount, .. } => self.post(EntryKind::Allocate, envelope, None, *amount).map(|()| None)?,
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

    fn reserve(
        &mut self,
        programme: ProgrammeId,
        envelope: EnvelopeId,
        command: &Command,
        now: DateTime<Utc>,
    ) -> Result<Option<Refusal>, Imbalance> {
        let Command::Reserve { reservation, member, purpose, amount, time_to_live, .. } = command else { return Ok(None) };
        let book = &self.books.envelopes[&envelope];
        if book.stage != Stage::Active {
            return Ok(Some(Refusal::PlanState { plan: book.plan, state: book.stage.as_str().to_owned() }));
        }
        if book.is_reserve && !purpose.starts_with(reserve_draw::PURPOSE) {
            return Ok(Some(Refusal::ReserveNeedsDraw { envelope }));
        }
        if let Some(refusal) = self.short_of(envelope, *member, *amount) {
            return Ok(Some(refusal));
        }
        let held = Reservation {
            id: *reservation,
            programme,
            envelope,
            member: *member,
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
        let Reservation { envelope, member, parts, recoverable, .. } = self.books.reservations[&id].clone();
        let available = parts.reserved + recoverable;
        let asked = amount.unwrap_or(available);
        if asked == 0 || asked > available {
            return Ok(Some(Refusal::ReservationExhausted { reservation: id, asked: amount, available }));
        }
        let missing = asked - parts.reserved;
        if missing > 0 {
            if let Some(refusal) = self.short_of(envelope, member, missing) {
                return Ok(Some(refusal));
            }
            self.post(EntryKind::Reserve, envelope, Some(id), missing)?;
            self.recover(id, |recoverable| recoverable - missing);
        }
        self.post(EntryKind::Commit, envelope, Some(id), asked)?;
        if release_rest {
            self.release_all(id)?;
        }
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

    /// What keeps `amount` from being reserved: the envelope first, then the member's limit.
    fn short_of(&mut self, envelope: EnvelopeId, member: Option<MemberId>, asked: i64) -> Option<Refusal> {
        let available = self.available(envelope);
        if asked > available {
            return Some(Refusal::EnvelopeExhausted { envelope, asked, available });
        }
        let limit = self.books.limit_mut(envelope, member)?;
        let available = limit.available();
        (asked > available).then(|| Refusal::MemberLimitExhausted {
            member: limit.member,
            period_start_time: limit.period.start(),
            asked,
            available,
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

    /// Moves money in the envelope, the reservation and the member's limit, and notes the entry.
    fn post(&mut self, kind: EntryKind, envelope: EnvelopeId, id: Option<ReservationId>, amount: i64) -> Result<(), Imbalance> {
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
        book.balances.post(kind, amount)?;
        book.sequence += 1;
        self.postings.push(Posting {
            envelope,
            envelope_sequence: book.sequence,
            kind,
            reservation: id,
            amount,
            available_after: book.balances.available(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
