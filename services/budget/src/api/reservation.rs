//! ReservationService. Its mutations keep their answers with the operations of the ledger, for good, and not with the requests
//! of other methods.

use super::{Api, convert};
use crate::{
    domain::{
        books::{Command, Receipt},
        reservation::{Reservation, time_to_live},
        reserve_draw,
    },
    error::Error,
    ids::{EnvelopeId, MemberId, ReservationId},
    store::{self, operation::Operation},
};
use koc_chassis::{
    context,
    fault::{Violation, Violations},
    gate::{Call, Outcome, RequestKey},
    money::{Currency, Money},
    page,
};
use koc_proto::{google::r#type::Money as Wire, koc::budget::v1 as pb, rules::Rules};
use tonic::{Request, Response, Status};

const LIST: &str = "ListReservations";

#[tonic::async_trait]
impl pb::reservation_service_server::ReservationService for Api {
    async fn reserve(&self, request: Request<pb::ReserveRequest>) -> Result<Response<pb::ReserveResponse>, Status> {
        let work = async |call: &Call, request: &pb::ReserveRequest| {
            let envelope = EnvelopeId::parse("envelope_id", &request.envelope_id)?;
            let currency = self.currencies.known(call.programme).await?.ok_or(Error::EnvelopeNotFound(envelope))?;
            self.operate(call, request, reserve_command(request, envelope, currency)?, currency, None).await
        };
        self.money(request, work, |reservation, envelope_available| pb::ReserveResponse { reservation, envelope_available }).await
    }

    async fn commit(&self, request: Request<pb::CommitRequest>) -> Result<Response<pb::CommitResponse>, Status> {
        let work = async |call: &Call, request: &pb::CommitRequest| {
            let (reservation, currency) = self.reservation_currency(call, &request.reservation_id).await?;
            let amount = optional_amount(request.amount.as_ref(), currency)?;
            let command = Command::Commit { reservation, amount, release_rest: request.release_rest };
            self.operate(call, request, command, currency, None).await
        };
        self.money(request, work, |reservation, envelope_available| pb::CommitResponse { reservation, envelope_available }).await
    }

    async fn spend(&self, request: Request<pb::SpendRequest>) -> Result<Response<pb::SpendResponse>, Status> {
        let work = async |call: &Call, request: &pb::SpendRequest| {
            let (reservation, currency) = self.reservation_currency(call, &request.reservation_id).await?;
            let amount = optional_amount(request.amount.as_ref(), currency)?;
            let reference = Some(request.payment_reference.clone()).filter(|text| !text.is_empty());
            self.operate(call, request, Command::Spend { reservation, amount }, currency, reference).await
        };
        self.money(request, work, |reservation, _| pb::SpendResponse { reservation }).await
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        let work = async |call: &Call, request: &pb::ReleaseRequest| {
            let (reservation, currency) = self.reservation_currency(call, &request.reservation_id).await?;
            let amount = optional_amount(request.amount.as_ref(), currency)?;
            self.operate(call, request, Command::Release { reservation, amount }, currency, None).await
        };
        self.money(request, work, |reservation, envelope_available| pb::ReleaseResponse { reservation, envelope_available }).await
    }

    async fn get_reservation(
        &self,
        request: Request<pb::GetReservationRequest>,
    ) -> Result<Response<pb::GetReservationResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetReservationRequest| {
                let (id, currency) = self.reservation_currency(&call, &request.reservation_id).await?;
                let found = self.reads.ask(id).await??;
                let reservation = found.filter(|r| r.programme == call.programme).ok_or(Error::ReservationNotFound(id))?;
                Ok(pb::GetReservationResponse { reservation: Some(convert::reservation(&reservation, currency)) })
            })
            .await
    }

    async fn list_reservations(
        &self,
        request: Request<pb::ListReservationsRequest>,
    ) -> Result<Response<pb::ListReservationsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListReservationsRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.envelope_id.as_str(), request.member_id.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let envelope = EnvelopeId::parse_optional("envelope_id", &request.envelope_id)?;
                let member = MemberId::parse_optional("member_id", &request.member_id)?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let mut conn = self.gate.db().read().await?;
                let mut found = store::reservation::list(&mut conn, call.programme, envelope, member, after, size + 1).await?;
                let next_page_token = page::cut(&mut found, size, |r| page::token(LIST, &filters, &r.id.to_string()));
                let reservations = found.iter().map(|r| convert::reservation(r, currency)).collect();
                Ok(pb::ListReservationsResponse { reservations, next_page_token })
            })
            .await
    }
}

/// What an operation came to, with the currency it is told in.
type Moved = (Outcome<Receipt>, Currency);

impl Api {
    /// Admits a call that moves money, does its work and answers.
    async fn money<R: Rules, T>(
        &self,
        request: Request<R>,
        work: impl AsyncFnOnce(&Call, &R) -> Result<Moved, Error>,
        answer: impl FnOnce(Option<pb::Reservation>, Option<Wire>) -> T,
    ) -> Result<Response<T>, Status> {
        let (call, message) = self.gate.admit(request)?;
        let (outcome, currency) = work(&call, &message).await.map_err(|error| self.gate.status(&error))?;
        let Outcome { message: receipt, replayed } = outcome;
        let reservation = receipt.reservation.as_ref().map(|r: &Reservation| convert::reservation(r, currency));
        let message = answer(reservation, convert::money(receipt.available, currency));
        Ok(Outcome { message, replayed }.into())
    }

    /// Runs the operation of a call.
    async fn operate<R: Rules + prost::Message>(
        &self,
        call: &Call,
        request: &R,
        command: Command,
        currency: Currency,
        payment_reference: Option<String>,
    ) -> Result<Moved, Error> {
        let operation = Operation {
            key: RequestKey::of(call, request).map_err(|fault| Error::Invalid(fault.violations))?,
            command,
            currency,
            payment_reference,
            actor: call.caller.actor.clone(),
            client: call.caller.client.clone(),
            trace_id: context::trace_id(),
        };
        Ok((self.operations.run(operation).await?, currency))
    }

    /// The reservation's id and its programme's currency; a programme without plans has no such reservation.
    async fn reservation_currency(&self, call: &Call, reservation_id: &str) -> Result<(ReservationId, Currency), Error> {
        let id = ReservationId::parse("reservation_id", reservation_id)?;
        Ok((id, self.currencies.known(call.programme).await?.ok_or(Error::ReservationNotFound(id))?))
    }
}

fn reserve_command(request: &pb::ReserveRequest, envelope: EnvelopeId, currency: Currency) -> Result<Command, Vec<Violation>> {
    let mut violations = Violations::default();
    let member = violations.take(MemberId::parse_optional("member_id", &request.member_id));
    let amount = violations.take(Money::parse_positive("amount", request.amount.as_ref(), currency));
    let ttl = request.time_to_live.as_ref().map(|ttl| (ttl.seconds, ttl.nanos));
    let ttl = violations.take(time_to_live("time_to_live", ttl));
    if request.purpose.starts_with(reserve_draw::PURPOSE) {
        let rule = format!("must not begin with {}, which is for draws on the reserve", reserve_draw::PURPOSE);
        violations.push(Violation::new("purpose", "PURPOSE_RESERVED", rule));
    }
    violations.finish()?;
    match (member, amount, ttl) {
        (Some(member), Some(amount), Some(time_to_live)) => Ok(Command::Reserve {
            reservation: ReservationId::new(),
            envelope,
            member,
            purpose: request.purpose.clone(),
            amount: amount.minor,
            time_to_live,
        }),
        _ => Err(Vec::new()),
    }
}

/// An amount in minor units; None, which means all, when it is absent.
fn optional_amount(amount: Option<&Wire>, currency: Currency) -> Result<Option<i64>, Violation> {
    amount.map(|amount| Money::parse_positive("amount", Some(amount), currency).map(|money| money.minor)).transpose()
}
