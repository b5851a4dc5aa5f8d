//! What each request asks of the ledger, and how it is answered.

use super::convert;
use crate::{
    domain::{books::Command, grant, reservation::time_to_live, reserve_draw},
    error::Error,
    ids::{EntryId, EnvelopeId, MemberId, ProgrammeId, ReservationId},
};
use chrono::TimeDelta;
use koc_chassis::{
    fault::{Violation, Violations},
    money::{Currency, Money},
};
use koc_proto::{google::r#type::Money as Wire, koc::budget::v1 as pb, rules::Rules};

/// A request that moves money.
pub(super) trait Moves: Rules + prost::Message {
    type Response;
    /// Whether it makes a reservation, which a rehearsal does not keep.
    const MAKES: bool = false;

    /// What is not there when the programme has no plan.
    fn missing(&self) -> Result<Error, Violation>;
    fn command(&self, currency: Currency) -> Result<Command, Vec<Violation>>;
    /// Whether it is only to be decided.
    fn validate_only(&self) -> bool;
    /// Names the programme if the request does not.
    fn enter(&mut self, programme: ProgrammeId);
    fn payment_reference(&self) -> Option<String> {
        None
    }
    fn answer(reservation: Option<pb::Reservation>, available: Option<Wire>, warnings: Vec<pb::Warning>) -> Self::Response;
}

/// Fields that all requests have.
macro_rules! common_fields {
    () => {
        fn validate_only(&self) -> bool {
            self.validate_only
        }

        fn enter(&mut self, programme: ProgrammeId) {
            if self.programme_id.is_empty() {
                self.programme_id = programme.to_string();
            }
        }
    };
}

/// As [`common_fields`], of the requests about a reservation that is there.
macro_rules! fields_of_reservation {
    () => {
        common_fields!();

        fn missing(&self) -> Result<Error, Violation> {
            Ok(Error::ReservationNotFound(reservation(&self.reservation_id)?))
        }
    };
}

fn reservation(id: &str) -> Result<ReservationId, Violation> {
    ReservationId::parse("reservation_id", id)
}

/// An amount in minor units; None, which means all, when it is absent.
fn amount(amount: Option<&Wire>, currency: Currency) -> Result<Option<i64>, Violation> {
    amount.map(|amount| Money::parse_positive("amount", Some(amount), currency).map(|money| money.minor)).transpose()
}

fn lasting(wire: Option<&prost_types::Duration>) -> Result<TimeDelta, Violation> {
    time_to_live("time_to_live", wire.map(|ttl| (ttl.seconds, ttl.nanos)))
}

impl Moves for pb::ReserveRequest {
    type Response = pb::ReserveResponse;
    const MAKES: bool = true;
    common_fields!();

    fn missing(&self) -> Result<Error, Violation> {
        Ok(Error::EnvelopeNotFound(EnvelopeId::parse("envelope_id", &self.envelope_id)?))
    }

    fn command(&self, currency: Currency) -> Result<Command, Vec<Violation>> {
        let mut violations = Violations::default();
        let envelope = violations.take(EnvelopeId::parse("envelope_id", &self.envelope_id));
        let member = violations.take(MemberId::parse_optional("member_id", &self.member_id));
        let amount = violations.take(Money::parse_positive("amount", self.amount.as_ref(), currency));
        let ttl = violations.take(lasting(self.time_to_live.as_ref()));
        if let Some(reserved) =
            [reserve_draw::PURPOSE, grant::PURPOSE].iter().find(|reserved| self.purpose.starts_with(**reserved))
        {
            let rule = format!("must not begin with {reserved}, which the service gives itself");
            violations.push(Violation::new("purpose", "PURPOSE_RESERVED", rule));
        }
        violations.finish()?;
        match (envelope, member, amount, ttl) {
            (Some(envelope), Some(member), Some(amount), Some(time_to_live)) => Ok(Command::Reserve {
                reservation: ReservationId::new(),
                envelope,
                member,
                purpose: self.purpose.clone(),
                amount: amount.minor,
                time_to_live,
            }),
            _ => Err(Vec::new()),
        }
    }

    fn answer(reservation: Option<pb::Reservation>, available: Option<Wire>, warnings: Vec<pb::Warning>) -> Self::Response {
        pb::ReserveResponse { reservation, envelope_available: available, warnings }
    }
}

impl Moves for pb::CommitRequest {
    type Response = pb::CommitResponse;
    fields_of_reservation!();

    fn command(&self, currency: Currency) -> Result<Command, Vec<Violation>> {
        let (reservation, amount) = of(&self.reservation_id, self.amount.as_ref(), currency)?;
        Ok(Command::Commit { reservation, amount, release_rest: self.release_rest })
    }

    fn answer(reservation: Option<pb::Reservation>, available: Option<Wire>, warnings: Vec<pb::Warning>) -> Self::Response {
        pb::CommitResponse { reservation, envelope_available: available, warnings }
    }
}

impl Moves for pb::SpendRequest {
    type Response = pb::SpendResponse;
    fields_of_reservation!();

    fn command(&self, currency: Currency) -> Result<Command, Vec<Violation>> {
        let (reservation, amount) = of(&self.reservation_id, self.amount.as_ref(), currency)?;
        Ok(Command::Spend { reservation, amount })
    }

    fn payment_reference(&self) -> Option<String> {
        Some(self.payment_reference.clone()).filter(|text| !text.is_empty())
    }

    fn answer(reservation: Option<pb::Reservation>, _: Option<Wire>, _: Vec<pb::Warning>) -> Self::Response {
        pb::SpendResponse { reservation }
    }
}

impl Moves for pb::ReleaseRequest {
    type Response = pb::ReleaseResponse;
    fields_of_reservation!();

    fn command(&self, currency: Currency) -> Result<Command, Vec<Violation>> {
        let (reservation, amount) = of(&self.reservation_id, self.amount.as_ref(), currency)?;
        Ok(Command::Release { reservation, amount })
    }

    fn answer(reservation: Option<pb::Reservation>, available: Option<Wire>, _: Vec<pb::Warning>) -> Self::Response {
        pb::ReleaseResponse { reservation, envelope_available: available }
    }
}

impl Moves for pb::ExtendRequest {
    type Response = pb::ExtendResponse;
    fields_of_reservation!();

    fn command(&self, _: Currency) -> Result<Command, Vec<Violation>> {
        let reservation = reservation(&self.reservation_id).map_err(|violation| vec![violation])?;
        let time_to_live = lasting(self.time_to_live.as_ref()).map_err(|violation| vec![violation])?;
        Ok(Command::Extend { reservation, time_to_live })
    }

    fn answer(reservation: Option<pb::Reservation>, available: Option<Wire>, warnings: Vec<pb::Warning>) -> Self::Response {
        pb::ExtendResponse { reservation, envelope_available: available, warnings }
    }
}

impl Moves for pb::ReverseRequest {
    type Response = pb::ReverseResponse;
    fields_of_reservation!();

    fn command(&self, currency: Currency) -> Result<Command, Vec<Violation>> {
        let (reservation, amount) = of(&self.reservation_id, self.amount.as_ref(), currency)?;
        let entry = EntryId::parse("entry_id", &self.entry_id).map_err(|violation| vec![violation])?;
        let reason = convert::reversal_reason_from_proto(self.reason).map_err(|violation| vec![violation])?;
        Ok(Command::Reverse { reservation, entry, amount, release: self.release, reason })
    }

    fn answer(reservation: Option<pb::Reservation>, available: Option<Wire>, _: Vec<pb::Warning>) -> Self::Response {
        pb::ReverseResponse { reservation, envelope_available: available }
    }
}

/// Which reservation, and how much of it.
fn of(id: &str, wire: Option<&Wire>, currency: Currency) -> Result<(ReservationId, Option<i64>), Vec<Violation>> {
    let mut violations = Violations::default();
    let (id, amount) = (violations.take(reservation(id)), violations.take(amount(wire, currency)));
    violations.finish()?;
    id.zip(amount).ok_or_else(Vec::new)
}
