//! ReserveDrawService.

mod decide;
mod message;
mod request;

use super::Api;
use crate::{
    error::Error,
    ids::{MemberId, OutputId, PlanId, ProgrammeId, ReserveDrawId},
    store::{self, reserve_draw::Wanted},
};
use koc_chassis::{
    fault::Violations,
    gate::Call,
    money::{Currency, Money},
    page,
};
use koc_proto::koc::budget::v1 as pb;
use request::{Asked, MoreAsked};
use tonic::{Request, Response, Status};

const LIST: &str = "ListReserveDraws";

#[tonic::async_trait]
impl pb::reserve_draw_service_server::ReserveDrawService for Api {
    async fn request_reserve_draw(
        &self,
        request: Request<pb::RequestReserveDrawRequest>,
    ) -> Result<Response<pb::RequestReserveDrawResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::RequestReserveDrawRequest| {
            let currency = self.currencies.of(call.programme).await?;
            Ok((currency, message::asked(request, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, _, (currency, asked): (Currency, Asked)| {
                Box::pin(async move {
                    let draw = request::request(work, asked, currency).await?;
                    Ok(pb::RequestReserveDrawResponse { reserve_draw: Some(message::draw(&draw, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn top_up_reserve_draw(
        &self,
        request: Request<pb::TopUpReserveDrawRequest>,
    ) -> Result<Response<pb::TopUpReserveDrawResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::TopUpReserveDrawRequest| {
            let (first, currency) = self.draw_currency(call.programme, &request.reserve_draw_id).await?;
            Ok((currency, message::more_asked(request, first, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (currency, asked): (Currency, MoreAsked)| {
                Box::pin(async move {
                    let draw = request::top_up(work, asked, request.reason, currency).await?;
                    Ok(pb::TopUpReserveDrawResponse { reserve_draw: Some(message::draw(&draw, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn approve_reserve_draw(
        &self,
        request: Request<pb::ApproveReserveDrawRequest>,
    ) -> Result<Response<pb::ApproveReserveDrawResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::ApproveReserveDrawRequest| {
            self.draw_currency(call.programme, &request.reserve_draw_id).await
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let draw = decide::approve(work, id, request.reason, currency).await?;
                    Ok(pb::ApproveReserveDrawResponse { reserve_draw: Some(message::draw(&draw, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn reject_reserve_draw(
        &self,
        request: Request<pb::RejectReserveDrawRequest>,
    ) -> Result<Response<pb::RejectReserveDrawResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::RejectReserveDrawRequest| {
            self.draw_currency(call.programme, &request.reserve_draw_id).await
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let draw = decide::reject(work, id, request.reason).await?;
                    Ok(pb::RejectReserveDrawResponse { reserve_draw: Some(message::draw(&draw, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn report_draw_outcome(
        &self,
        request: Request<pb::ReportDrawOutcomeRequest>,
    ) -> Result<Response<pb::ReportDrawOutcomeResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::ReportDrawOutcomeRequest| {
            let (id, currency) = self.draw_currency(call.programme, &request.reserve_draw_id).await?;
            let value = Money::parse_not_negative("value", request.value.as_ref(), currency)?.minor;
            Ok((id, currency, value))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, value)| {
                Box::pin(async move {
                    let figures = message::evidence(&request.figures);
                    let draw = decide::report(work, id, value, figures, request.note).await?;
                    Ok(pb::ReportDrawOutcomeResponse { reserve_draw: Some(message::draw(&draw, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_reserve_draw(
        &self,
        request: Request<pb::GetReserveDrawRequest>,
    ) -> Result<Response<pb::GetReserveDrawResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetReserveDrawRequest| {
                let (id, currency) = self.draw_currency(call.programme, &request.reserve_draw_id).await?;
                let mut conn = self.gate.db().read().await?;
                let draw = store::reserve_draw::find(&mut conn, call.programme, id).await?.ok_or(Error::DrawNotFound(id))?;
                Ok(pb::GetReserveDrawResponse { reserve_draw: Some(message::draw(&draw, currency)) })
            })
            .await
    }

    async fn list_reserve_draws(
        &self,
        request: Request<pb::ListReserveDrawsRequest>,
    ) -> Result<Response<pb::ListReserveDrawsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListReserveDrawsRequest| {
                let programme = call.programme.to_string();
                let (state, overdue) = (request.state().as_str_name(), request.report_overdue.to_string());
                let pb::ListReserveDrawsRequest { plan_id, member_id, output_id, .. } = &request;
                let filters = [programme.as_str(), state, plan_id, member_id, output_id, &overdue];
                let mut violations = Violations::default();
                let wanted = Wanted {
                    stage: message::stage(request.state()),
                    plan: violations.take(PlanId::parse_optional("plan_id", plan_id)).flatten(),
                    member: violations.take(MemberId::parse_optional("member_id", member_id)).flatten(),
                    output: violations.take(OutputId::parse_optional("output_id", output_id)).flatten(),
                    overdue: request.report_overdue,
                    after: violations.take(page::after_id(LIST, &filters, &request.page_token)).flatten(),
                    ..Wanted::default()
                };
                violations.finish()?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let mut conn = self.gate.db().read().await?;
                let mut draws = store::reserve_draw::list(&mut conn, call.programme, &wanted, size + 1).await?;
                let next_page_token = page::cut(&mut draws, size, |d| page::token(LIST, &filters, &d.id.to_string()));
                let reserve_draws = draws.iter().map(|draw| message::draw(draw, currency)).collect();
                Ok(pb::ListReserveDrawsResponse { reserve_draws, next_page_token })
            })
            .await
    }
}

impl Api {
    /// The draw's id and its programme's currency; a programme without plans has no such draw.
    async fn draw_currency(&self, programme: ProgrammeId, id: &str) -> Result<(ReserveDrawId, Currency), Error> {
        let id = ReserveDrawId::parse("reserve_draw_id", id)?;
        Ok((id, self.currencies.known(programme).await?.ok_or(Error::DrawNotFound(id))?))
    }
}
