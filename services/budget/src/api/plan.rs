//! PlanService.

use super::{Api, convert};
use crate::{
    domain::{
        balances::Balances,
        books::Command,
        plan::{NewEnvelope, NewPlan, Plan, PlanState, ResourceClass, Standstill, amount_per_member, check_envelopes},
    },
    error::Error,
    flow::{
        fact,
        post_operations::{done, post},
    },
    ids::{PlanId, ProgrammeId},
    store::{self, operation::Operation},
};
use koc_chassis::{
    context,
    fault::{Violation, Violations},
    gate::{RequestKey, Work},
    money::{Currency, Money},
    page,
};
use koc_proto::{koc::budget::v1 as pb, rules::Rules};
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

const LIST: &str = "ListPlans";

#[tonic::async_trait]
impl pb::plan_service_server::PlanService for Api {
    async fn create_plan(&self, request: Request<pb::CreatePlanRequest>) -> Result<Response<pb::CreatePlanResponse>, Status> {
        let prepare = async |call: &koc_chassis::gate::Call, request: &pb::CreatePlanRequest| {
            let currency = self.currencies.of(call.programme).await?;
            Ok((currency, new_plan(request, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, _, (currency, new): (Currency, NewPlan)| {
                Box::pin(async move {
                    let (id, programme) = (PlanId::new(), work.programme());
                    let (plan, envelopes) = store::plan::insert(work.conn(), id, programme, &new).await?;
                    work.audit(id.0, None);
                    work.emit(id.0, &fact::plan_changed(&plan)).await?;
                    Ok(pb::CreatePlanResponse { plan: Some(convert::plan(&plan, &envelopes, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_plan(&self, request: Request<pb::GetPlanRequest>) -> Result<Response<pb::GetPlanResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetPlanRequest| {
                let id = PlanId::parse("plan_id", &request.plan_id)?;
                let currency = self.currencies.known(call.programme).await?.ok_or(Error::PlanNotFound(id))?;
                let mut tx = self.gate.db().snapshot().await?;
                let plan = store::plan::find(&mut tx, call.programme, id).await?.ok_or(Error::PlanNotFound(id))?;
                let envelopes = store::plan::envelopes(&mut tx, &[id]).await?;
                Ok(pb::GetPlanResponse { plan: Some(convert::plan(&plan, &envelopes, currency)) })
            })
            .await
    }

    async fn list_plans(&self, request: Request<pb::ListPlansRequest>) -> Result<Response<pb::ListPlansResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListPlansRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let mut tx = self.gate.db().snapshot().await?;
                let mut plans = store::plan::list(&mut tx, call.programme, after, size + 1).await?;
                let next_page_token = page::cut(&mut plans, size, |p| page::token(LIST, &filters, &p.id.to_string()));
                let ids: Vec<PlanId> = plans.iter().map(|p| p.id).collect();
                let envelopes = store::plan::envelopes(&mut tx, &ids).await?;
                let plans = plans.iter().map(|p| convert::plan(p, &envelopes, currency)).collect();
                Ok(pb::ListPlansResponse { plans, next_page_token })
            })
            .await
    }

    async fn submit_plan(&self, request: Request<pb::SubmitPlanRequest>) -> Result<Response<pb::SubmitPlanResponse>, Status> {
        let prepare = async |call: &koc_chassis::gate::Call, request: &pb::SubmitPlanRequest| {
            self.plan_currency(call.programme, &request.plan_id).await
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let submit = |state: PlanState, actor: &str| state.submit(actor);
                    let plan = Some(step(work, id, &request.etag, currency, submit).await?);
                    Ok(pb::SubmitPlanResponse { plan })
                })
            })
            .await
            .map(Into::into)
    }

    async fn approve_plan(&self, request: Request<pb::ApprovePlanRequest>) -> Result<Response<pb::ApprovePlanResponse>, Status> {
        let prepare = async |call: &koc_chassis::gate::Call, request: &pb::ApprovePlanRequest| {
            self.plan_currency(call.programme, &request.plan_id).await
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let approve = |state: PlanState, actor: &str| state.approve(actor);
                    let plan = Some(step(work, id, &request.etag, currency, approve).await?);
                    Ok(pb::ApprovePlanResponse { plan })
                })
            })
            .await
            .map(Into::into)
    }

    async fn activate_plan(
        &self,
        request: Request<pb::ActivatePlanRequest>,
    ) -> Result<Response<pb::ActivatePlanResponse>, Status> {
        let prepare = async |call: &koc_chassis::gate::Call, request: &pb::ActivatePlanRequest| {
            self.plan_currency(call.programme, &request.plan_id).await
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let mut plan = locked(work, id, &request.etag).await?;
                    let state = plan.state.clone().activate().map_err(|why| Error::of_plan(id, why))?;
                    store::plan::set_state(work.conn(), &mut plan, state).await?;
                    allocate(work, &plan, currency).await?;
                    work.audit(id.0, None);
                    work.emit(id.0, &fact::plan_changed(&plan)).await?;
                    let envelopes = store::plan::envelopes(work.conn(), &[id]).await?;
                    Ok(pb::ActivatePlanResponse { plan: Some(convert::plan(&plan, &envelopes, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_plan_summary(
        &self,
        request: Request<pb::GetPlanSummaryRequest>,
    ) -> Result<Response<pb::GetPlanSummaryResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetPlanSummaryRequest| {
                let (id, currency) = self.plan_currency(call.programme, &request.plan_id).await?;
                let mut tx = self.gate.db().snapshot().await?;
                let plan = store::plan::find(&mut tx, call.programme, id).await?.ok_or(Error::PlanNotFound(id))?;
                let envelopes = store::plan::envelopes(&mut tx, &[id]).await?;
                let members = store::plan::member_counts(&mut tx, id).await?;
                let stage = plan.state.stage();
                // A plan's amounts can be added up: it was checked when the plan was created.
                let sum = |class: Option<ResourceClass>| {
                    let shown: Vec<Balances> =
                        envelopes.iter().filter(|e| class.is_none_or(|c| e.class == c)).map(|e| e.shown(stage)).collect();
                    Balances::sum(&shown).unwrap_or_default()
                };
                let summary = |class: ResourceClass| {
                    let balances = sum(Some(class));
                    let member_count = members.iter().find(|(c, _)| *c == class).map_or(0, |(_, n)| *n);
                    pb::ClassSummary {
                        resource_class: convert::class_to_proto(class).into(),
                        balances: Some(convert::balances(&balances, currency)),
                        member_count,
                        amount_per_member: amount_per_member(balances.in_use(), member_count)
                            .and_then(|minor| convert::money(minor, currency)),
                    }
                };
                let held = |class: &&ResourceClass| envelopes.iter().any(|e| e.class == **class);
                Ok(pb::GetPlanSummaryResponse {
                    envelopes: envelopes.iter().map(|e| convert::envelope(e, stage, currency)).collect(),
                    classes: ResourceClass::ALL.iter().filter(held).map(|class| summary(*class)).collect(),
                    total: Some(convert::balances(&sum(None), currency)),
                })
            })
            .await
    }
}

impl Api {
    /// The plan's id and its programme's currency; a programme without plans has no such plan.
    async fn plan_currency(&self, programme: ProgrammeId, plan_id: &str) -> Result<(PlanId, Currency), Error> {
        let id = PlanId::parse("plan_id", plan_id)?;
        Ok((id, self.currencies.known(programme).await?.ok_or(Error::PlanNotFound(id))?))
    }
}

fn new_plan(request: &pb::CreatePlanRequest, currency: Currency) -> Result<NewPlan, Vec<Violation>> {
    let mut violations = Violations::default();
    let period = violations.take_all(convert::period(request.period_start_time.as_ref(), request.period_end_time.as_ref()));
    let mut envelopes = Vec::with_capacity(request.envelopes.len());
    for (index, envelope) in request.envelopes.iter().enumerate() {
        let class =
            violations.take(convert::class_from_proto(&format!("envelopes[{index}].resource_class"), envelope.resource_class));
        let field = format!("envelopes[{index}].allocated");
        let planned = violations.take(Money::parse_not_negative(&field, envelope.allocated.as_ref(), currency));
        let field = format!("envelopes[{index}].overrun_limit");
        let limit = envelope.overrun_limit.as_ref();
        let limit =
            limit.map(|limit| Money::parse_not_negative(&field, Some(limit), currency).map(|limit| limit.minor)).transpose();
        if let (Some(class), Some(planned), Some(limit)) = (class, planned, violations.take(limit)) {
            let (display_name, overrun_limit) = (envelope.display_name.clone(), limit.unwrap_or(0));
            envelopes.push(NewEnvelope { class, display_name, planned: planned.minor, overrun_limit });
        }
    }
    // What concerns them together is judged when each is whole.
    if envelopes.len() == request.envelopes.len() {
        violations.take_all(check_envelopes(&envelopes));
    }
    let limit = request.automatic_draw_limit.as_ref();
    let limit = limit.and_then(|limit| violations.take(Money::parse_not_negative("automatic_draw_limit", Some(limit), currency)));
    violations.finish()?;
    let Some(period) = period else { return Err(Vec::new()) };
    Ok(NewPlan {
        display_name: request.display_name.clone(),
        period,
        envelopes,
        automatic_draw_limit: limit.map(|limit| limit.minor),
    })
}

async fn locked(work: &mut Work, id: PlanId, etag: &str) -> Result<Plan, Error> {
    let programme = work.programme();
    let plan = store::plan::lock(work.conn(), programme, id).await?.ok_or(Error::PlanNotFound(id))?;
    if page::etag_matches(etag, plan.version) { Ok(plan) } else { Err(Error::EtagMismatch(id)) }
}

/// Moves a plan one state on.
async fn step(
    work: &mut Work,
    id: PlanId,
    etag: &str,
    currency: Currency,
    transition: impl FnOnce(PlanState, &str) -> Result<PlanState, Standstill>,
) -> Result<pb::Plan, Error> {
    let mut plan = locked(work, id, etag).await?;
    let state = transition(plan.state.clone(), work.actor()).map_err(|why| Error::of_plan(id, why))?;
    store::plan::set_state(work.conn(), &mut plan, state).await?;
    work.audit(id.0, None);
    work.emit(id.0, &fact::plan_changed(&plan)).await?;
    let envelopes = store::plan::envelopes(work.conn(), &[id]).await?;
    Ok(convert::plan(&plan, &envelopes, currency))
}

/// Posts what a plan allocates to its envelopes; an envelope without money gets no entry.
async fn allocate(work: &mut Work, plan: &Plan, currency: Currency) -> Result<(), Error> {
    let envelopes = store::plan::envelopes(work.conn(), &[plan.id]).await?;
    let operation = |envelope: &crate::domain::plan::Envelope| Operation {
        // An envelope is allocated once, whatever activates it: the database would refuse a second one.
        key: RequestKey {
            programme: plan.programme.0,
            method: pb::ActivatePlanRequest::NAME,
            request_id: envelope.id.0,
            hash: Sha256::digest(envelope.id.0.as_bytes()).to_vec(),
        },
        command: Command::Allocate { envelope: envelope.id, amount: envelope.planned },
        currency,
        payment_reference: None,
        actor: work.actor().to_owned(),
        client: work.call.caller.client.clone(),
        trace_id: context::trace_id(),
    };
    let operations: Vec<Operation> = envelopes.iter().filter(|e| e.planned > 0).map(operation).collect();
    if operations.is_empty() {
        return Ok(());
    }
    let answers = post(work.conn(), &operations).await?;
    for (answer, operation) in answers.into_iter().zip(&operations) {
        done(answer, operation)?;
    }
    Ok(())
}
