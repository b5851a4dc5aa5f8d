//! ReservationService. Its mutations keep their answers with the operations of the ledger, for good, and not with the requests
//! of other methods.

mod moves;

use super::{Api, convert};
use crate::{
    domain::books::Receipt,
    error::Error,
    flow::post_operations::rehearse_all,
    ids::{EnvelopeId, MemberId, ReservationId},
    store::{self, operation::Operation},
};
use koc_chassis::{
    context,
    fault::{self, Violation},
    gate::{Call, Outcome, RequestKey},
    lane::Unserved,
    money::Currency,
    page,
};
use koc_proto::{google::rpc, koc::budget::v1 as pb};
use moves::Moves;
use tonic::{Request, Response, Status};
use uuid::Uuid;

const LIST: &str = "ListReservations";

/// The handler of a batch form: each request's result, in order.
macro_rules! batch {
    ($api:ident, $request:ident, $response:ident, $result:ident) => {{
        let (call, request) = $api.gate.admit($request)?;
        let done = $api.batch(&call, request.requests, request.validate_only).await.map_err(|error| $api.gate.status(&error))?;
        let results = done.into_iter().zip(0..).map(|(end, index)| {
            let Ended { response, status, replayed } = end;
            pb::$result { index, response, status, replayed }
        });
        Ok(Response::new(pb::$response { results: results.collect() }))
    }};
}

#[tonic::async_trait]
impl pb::reservation_service_server::ReservationService for Api {
    async fn reserve(&self, request: Request<pb::ReserveRequest>) -> Result<Response<pb::ReserveResponse>, Status> {
        self.single(request).await
    }

    async fn commit(&self, request: Request<pb::CommitRequest>) -> Result<Response<pb::CommitResponse>, Status> {
        self.single(request).await
    }

    async fn spend(&self, request: Request<pb::SpendRequest>) -> Result<Response<pb::SpendResponse>, Status> {
        self.single(request).await
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        self.single(request).await
    }

    async fn extend(&self, request: Request<pb::ExtendRequest>) -> Result<Response<pb::ExtendResponse>, Status> {
        self.single(request).await
    }

    async fn reverse(&self, request: Request<pb::ReverseRequest>) -> Result<Response<pb::ReverseResponse>, Status> {
        self.single(request).await
    }

    async fn batch_reserve(
        &self,
        request: Request<pb::BatchReserveRequest>,
    ) -> Result<Response<pb::BatchReserveResponse>, Status> {
        batch!(self, request, BatchReserveResponse, ReserveResult)
    }

    async fn batch_commit(&self, request: Request<pb::BatchCommitRequest>) -> Result<Response<pb::BatchCommitResponse>, Status> {
        batch!(self, request, BatchCommitResponse, CommitResult)
    }

    async fn batch_spend(&self, request: Request<pb::BatchSpendRequest>) -> Result<Response<pb::BatchSpendResponse>, Status> {
        batch!(self, request, BatchSpendResponse, SpendResult)
    }

    async fn batch_release(
        &self,
        request: Request<pb::BatchReleaseRequest>,
    ) -> Result<Response<pb::BatchReleaseResponse>, Status> {
        batch!(self, request, BatchReleaseResponse, ReleaseResult)
    }

    async fn batch_extend(&self, request: Request<pb::BatchExtendRequest>) -> Result<Response<pb::BatchExtendResponse>, Status> {
        batch!(self, request, BatchExtendResponse, ExtendResult)
    }

    async fn batch_reverse(
        &self,
        request: Request<pb::BatchReverseRequest>,
    ) -> Result<Response<pb::BatchReverseResponse>, Status> {
        batch!(self, request, BatchReverseResponse, ReverseResult)
    }

    async fn batch_get_reservations(
        &self,
        request: Request<pb::BatchGetReservationsRequest>,
    ) -> Result<Response<pb::BatchGetReservationsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::BatchGetReservationsRequest| {
                let of = |(index, id): (usize, &String)| ReservationId::parse(&format!("reservation_ids[{index}]"), id);
                let ids = request.reservation_ids.iter().enumerate().map(of).collect::<Result<Vec<_>, Violation>>()?;
                let mut answer = pb::BatchGetReservationsResponse::default();
                let Some(currency) = self.currencies.known(call.programme).await? else {
                    return Ok(pb::BatchGetReservationsResponse { missing_reservation_ids: request.reservation_ids, ..answer });
                };
                let mut conn = self.gate.db().read().await?;
                let found = store::reservation::by_ids(&mut conn, &ids).await?;
                for (id, asked) in ids.iter().zip(request.reservation_ids) {
                    match found.get(id).filter(|r| r.programme == call.programme) {
                        Some(reservation) => answer.reservations.push(convert::reservation(reservation, currency)),
                        None => answer.missing_reservation_ids.push(asked),
                    }
                }
                Ok(answer)
            })
            .await
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

/// What became of one request of a batch.
struct Ended<T> {
    response: Option<T>,
    status: Option<rpc::Status>,
    replayed: bool,
}

impl Api {
    /// Admits a call that moves money, does its work and answers.
    async fn single<R: Moves>(&self, request: Request<R>) -> Result<Response<R::Response>, Status> {
        let (call, message) = self.gate.admit(request)?;
        self.operate(&call, &message).await.map(Response::from).map_err(|error| self.gate.status(&error))
    }

    async fn operate<R: Moves>(&self, call: &Call, request: &R) -> Result<Outcome<R::Response>, Error> {
        let missing = request.missing()?;
        let currency = self.currencies.known(call.programme).await?.ok_or(missing)?;
        let operation = operation(call, request, currency)?;
        let outcome = if request.validate_only() {
            rehearse_all(self.gate.db(), &[operation]).await.pop().ok_or(sqlx::Error::RowNotFound)??
        } else {
            self.operations.run(operation).await?
        };
        Ok(answer(request, outcome, currency))
    }

    /// Runs the requests of a batch in order. What is wrong with one keeps it out and lets the others pass.
    async fn batch<R: Moves>(
        &self,
        call: &Call,
        requests: Vec<R>,
        validate_only: bool,
    ) -> Result<Vec<Ended<R::Response>>, Error> {
        let currency = self.currencies.known(call.programme).await?;
        let mut requests = requests;
        let mut refused: Vec<Option<Error>> = Vec::with_capacity(requests.len());
        let mut operations = Vec::with_capacity(requests.len());
        for request in &mut requests {
            match prepared(call, request, validate_only, currency) {
                Ok(operation) => {
                    operations.push(operation);
                    refused.push(None);
                }
                Err(error) => refused.push(Some(error)),
            }
        }
        let outcomes = match validate_only {
            _ if operations.is_empty() => Vec::new(),
            true => rehearse_all(self.gate.db(), &operations).await,
            false => self.operations.run_all(operations).await?,
        };
        let mut outcomes = outcomes.into_iter();
        let ended = requests.iter().zip(refused).map(|(request, refused)| {
            let outcome = match refused {
                Some(error) => Err(error),
                None => outcomes.next().unwrap_or(Err(Unserved::Ended.into())),
            };
            match (outcome, currency) {
                (Ok(outcome), Some(currency)) => {
                    let Outcome { message, replayed } = answer(request, outcome, currency);
                    Ended { response: Some(message), status: None, replayed }
                }
                (Ok(_), None) => Ended { response: None, status: None, replayed: false },
                (Err(error), _) => {
                    let status = Some(fault::to_rpc(&self.gate.status(&error)));
                    Ended { response: None, status, replayed: false }
                }
            }
        });
        Ok(ended.collect())
    }

    /// The reservation's id and its programme's currency; a programme without plans has no such reservation.
    async fn reservation_currency(&self, call: &Call, reservation_id: &str) -> Result<(ReservationId, Currency), Error> {
        let id = ReservationId::parse("reservation_id", reservation_id)?;
        Ok((id, self.currencies.known(call.programme).await?.ok_or(Error::ReservationNotFound(id))?))
    }
}

/// The operation that a request asks for.
fn operation<R: Moves>(call: &Call, request: &R, currency: Currency) -> Result<Operation, Error> {
    Ok(Operation {
        command: request.command(currency)?,
        key: RequestKey::of(call, request).map_err(|fault| Error::Invalid(fault.violations))?,
        currency,
        payment_reference: request.payment_reference(),
        actor: call.caller.actor.clone(),
        client: call.caller.client.clone(),
        trace_id: context::trace_id(),
        is_callers: true,
    })
}

/// As [`operation`], of a request in a batch: its programme is the batch's, and so is whether it is only to be decided. Its rules are
/// checked here, since they were not when the batch was read.
fn prepared<R: Moves>(call: &Call, request: &mut R, validate_only: bool, currency: Option<Currency>) -> Result<Operation, Error> {
    if request.validate_only() && !validate_only {
        let rule = "must be set on the batch, for all of it";
        return Err(Violation::new("validate_only", "VALIDATE_ONLY_MISMATCH", rule).into());
    }
    request.enter(call.programme);
    let mut violations = request.violations();
    if violations.is_empty() && request.programme_id().and_then(|id| Uuid::try_parse(id).ok()) != Some(call.programme.0) {
        violations.push(Violation::new("programme_id", "PROGRAMME_MISMATCH", "must be empty or the batch's"));
    }
    if !violations.is_empty() {
        return Err(violations.into());
    }
    operation(call, request, currency.ok_or(request.missing()?)?)
}

fn answer<R: Moves>(request: &R, outcome: Outcome<Receipt>, currency: Currency) -> Outcome<R::Response> {
    let Outcome { message: receipt, replayed } = outcome;
    let mut reservation = receipt.reservation.as_ref().map(|r| convert::reservation(r, currency));
    if let Some(reservation) = reservation.as_mut().filter(|_| request.validate_only() && R::MAKES) {
        // It is not there to be asked for.
        reservation.reservation_id.clear();
    }
    let warnings = receipt.reservation.iter().filter(|_| receipt.available < 0).map(|r| pb::Warning {
        reason: "OVERRUN_USED".to_owned(),
        subject_id: r.envelope.to_string(),
        amount: convert::money(-receipt.available, currency),
    });
    let message = R::answer(reservation, convert::money(receipt.available, currency), warnings.collect());
    Outcome { message, replayed }
}
