//! ReserveDrawService.

use super::{Api, convert};
use crate::{
    domain::{
        plan::{Plan, ResourceClass, Stage},
        reserve_draw::{COOL_DOWN, Decided, Draw, DrawKind, DrawState, Evidence, POLICY},
    },
    error::Error,
    flow::{fact, hold_reserve::hold, lapse_draw},
    ids::{EnvelopeId, MemberId, OutputId, PlanId, ProgrammeId, ReserveDrawId},
    store,
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Work},
    job,
    money::{Currency, Money},
    page,
};
use koc_proto::{koc::budget::v1 as pb, rules::Rules};
use tonic::{Request, Response, Status};

const LIST: &str = "ListReserveDraws";

/// What is asked of the reserve.
#[derive(Debug, Clone)]
struct Asked {
    plan: Option<PlanId>,
    as_of: DateTime<Utc>,
    kind: DrawKind,
    amount: i64,
    member: Option<MemberId>,
    output: Option<OutputId>,
    evidence: Vec<Evidence>,
    decide_by_time: DateTime<Utc>,
}

#[tonic::async_trait]
impl pb::reserve_draw_service_server::ReserveDrawService for Api {
    async fn request_reserve_draw(
        &self,
        request: Request<pb::RequestReserveDrawRequest>,
    ) -> Result<Response<pb::RequestReserveDrawResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::RequestReserveDrawRequest| {
            let currency = self.currencies.of(call.programme).await?;
            Ok((currency, asked(request, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, _, (currency, asked): (Currency, Asked)| {
                Box::pin(async move {
                    let draw = request_draw(work, asked, currency).await?;
                    Ok(pb::RequestReserveDrawResponse { reserve_draw: Some(convert::reserve_draw(&draw, currency)) })
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
                    let mut draw = decidable(work, id).await?;
                    let actor = work.actor().to_owned();
                    let method = pb::ApproveReserveDrawRequest::NAME;
                    let reservation = hold(work, &draw, currency, method, &actor).await?;
                    let decided = Decided { by: actor, reason: request.reason.clone() };
                    decide(work, &mut draw, DrawState::Approved { reservation, decided }, request.reason).await?;
                    Ok(pb::ApproveReserveDrawResponse { reserve_draw: Some(convert::reserve_draw(&draw, currency)) })
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
                    let mut draw = decidable(work, id).await?;
                    let decided = Decided { by: work.actor().to_owned(), reason: request.reason.clone() };
                    decide(work, &mut draw, DrawState::Rejected { decided }, request.reason).await?;
                    Ok(pb::RejectReserveDrawResponse { reserve_draw: Some(convert::reserve_draw(&draw, currency)) })
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
                Ok(pb::GetReserveDrawResponse { reserve_draw: Some(convert::reserve_draw(&draw, currency)) })
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
                let filters = [programme.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let mut conn = self.gate.db().read().await?;
                let mut draws = store::reserve_draw::list(&mut conn, call.programme, after, size + 1).await?;
                let next_page_token = page::cut(&mut draws, size, |d| page::token(LIST, &filters, &d.id.to_string()));
                let reserve_draws = draws.iter().map(|draw| convert::reserve_draw(draw, currency)).collect();
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

fn asked(request: &pb::RequestReserveDrawRequest, currency: Currency) -> Result<Asked, Vec<Violation>> {
    let mut violations = Violations::default();
    let plan = violations.take(PlanId::parse_optional("plan_id", &request.plan_id));
    let as_of = violations.take(clock::required("as_of", request.as_of.as_ref()));
    let kind = violations.take(convert::draw_kind(request.kind));
    let amount = violations.take(Money::parse_positive("amount", request.amount.as_ref(), currency));
    let member = violations.take(MemberId::parse_optional("member_id", &request.member_id));
    let output = violations.take(OutputId::parse_optional("output_id", &request.output_id));
    let decide_by_time = violations.take(clock::required("decide_by_time", request.decide_by_time.as_ref()));
    violations.finish()?;
    let evidence = |item: &pb::EvidenceItem| Evidence { name: item.name.clone(), value: item.value.clone() };
    let evidence = request.evidence.iter().map(evidence).collect();
    match (plan, as_of, kind, amount, member, output, decide_by_time) {
        (Some(plan), Some(as_of), Some(kind), Some(amount), Some(member), Some(output), Some(decide_by_time)) => {
            Ok(Asked { plan, as_of, kind, amount: amount.minor, member, output, evidence, decide_by_time })
        }
        _ => Err(Vec::new()),
    }
}

async fn request_draw(work: &mut Work, asked: Asked, currency: Currency) -> Result<Draw, Error> {
    let programme = work.programme();
    if let Some(output) = asked.output {
        store::reserve_draw::lock_output(work.conn(), output).await?;
    }
    let (plan, envelope) = reserve_of(work, asked.plan, asked.as_of).await?;
    let now = work.now().await?;
    if asked.decide_by_time <= now {
        return Err(Violation::new("decide_by_time", "DECIDE_BY_PAST", "must be in the future").into());
    }
    if let Some(output) = asked.output
        && let Some(since) = store::reserve_draw::cooling_since(work.conn(), programme, output, now).await?
    {
        return Err(Error::DrawCoolingDown { output, until: since + COOL_DOWN });
    }
    let mut draw = Draw {
        id: ReserveDrawId::new(),
        programme,
        plan: plan.id,
        envelope,
        kind: asked.kind,
        state: DrawState::Requested,
        amount: asked.amount,
        member: asked.member,
        output: asked.output,
        evidence: asked.evidence,
        decide_by_time: asked.decide_by_time,
        requested_by: work.actor().to_owned(),
        create_time: now,
        wholly_spent: false,
    };
    if let Ok(rule) = draw.by_policy(plan.automatic_draw_limit) {
        match hold(work, &draw, currency, pb::RequestReserveDrawRequest::NAME, POLICY).await {
            Ok(reservation) => {
                let decided = Decided { by: POLICY.to_owned(), reason: rule.to_owned() };
                draw.state = DrawState::Approved { reservation, decided };
            }
            // The money is not there now: a person may decide when it is.
            Err(Error::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    store::reserve_draw::insert(work.conn(), &draw).await?;
    if draw.state == DrawState::Requested {
        let lapse = job::NewJob {
            kind: lapse_draw::KIND,
            programme,
            subject: draw.id.0,
            step: lapse_draw::STEP,
            state: serde_json::json!({}),
            actor: POLICY,
            run_time: Some(draw.decide_by_time),
        };
        job::start(work.conn(), lapse).await?;
    }
    work.audit(draw.id.0, None);
    work.emit(draw.id.0, &fact::reserve_draw_changed(&draw)).await?;
    Ok(draw)
}

/// The plan that is named or active at `as_of`, and its reserve.
async fn reserve_of(work: &mut Work, named: Option<PlanId>, as_of: DateTime<Utc>) -> Result<(Plan, EnvelopeId), Error> {
    let programme = work.programme();
    let plan = match named {
        Some(id) => store::plan::find(work.conn(), programme, id).await?.ok_or(Error::PlanNotFound(id))?,
        None => store::plan::active_at(work.conn(), programme, as_of).await?.ok_or(Error::NoActivePlan(as_of))?,
    };
    if plan.state.stage() != Stage::Active {
        return Err(Error::PlanState { plan: plan.id, is: plan.state.stage(), must_be: Stage::Active });
    }
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    let reserve = envelopes.iter().find(|e| e.place.class == ResourceClass::StrategicReserve);
    let reserve = reserve.ok_or(Error::ReserveMissing(plan.id))?.id;
    Ok((plan, reserve))
}

/// A draw that the caller may decide now, locked.
async fn decidable(work: &mut Work, id: ReserveDrawId) -> Result<Draw, Error> {
    let programme = work.programme();
    store::reserve_draw::lock(work.conn(), programme, id).await?;
    let draw = store::reserve_draw::find(work.conn(), programme, id).await?.ok_or(Error::DrawNotFound(id))?;
    let now = work.now().await?;
    draw.decidable(work.actor(), now).map_err(|why| Error::of_draw(id, why))?;
    Ok(draw)
}

async fn decide(work: &mut Work, draw: &mut Draw, state: DrawState, reason: String) -> Result<(), Error> {
    store::reserve_draw::set_state(work.conn(), draw, state).await?;
    job::cancel(work.conn(), draw.id.0, lapse_draw::KIND).await?;
    work.audit(draw.id.0, Some(reason));
    work.emit(draw.id.0, &fact::reserve_draw_changed(draw)).await?;
    Ok(())
}
