//! PlanService.

use super::{
    Api, convert,
    draft::{self, Edit},
    plan_summary,
};
use crate::{
    domain::{
        balances::Balances,
        books::Command,
        envelope::{Envelope, Tree},
        plan::{Draft, Plan, PlanState, Stage, Standstill},
    },
    error::Error,
    flow::{
        fact,
        post_operations::{asked, post_all},
    },
    ids::{PlanId, ProgrammeId},
    store::{self, envelope::Added, operation::Operation},
};
use koc_chassis::{
    gate::{Call, Work},
    money::Currency,
    page,
};
use koc_proto::{koc::budget::v1 as pb, rules::Rules};
use tonic::{Request, Response, Status};

const LIST: &str = "ListPlans";

#[tonic::async_trait]
impl pb::plan_service_server::PlanService for Api {
    async fn create_plan(&self, request: Request<pb::CreatePlanRequest>) -> Result<Response<pb::CreatePlanResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::CreatePlanRequest| {
            let currency = self.currencies.of(call.programme).await?;
            Ok((currency, draft::draft(request, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, _, (currency, draft): (Currency, Draft)| {
                Box::pin(async move {
                    let (id, programme) = (PlanId::new(), work.programme());
                    let plan = store::plan::insert(work.conn(), id, programme, &draft).await?;
                    insert_envelopes(work, &plan, &draft.tree).await?;
                    let envelopes = store::envelope::list(work.conn(), id).await?;
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
                let envelopes = store::envelope::list(&mut tx, id).await?;
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
                let mut conn = self.gate.db().read().await?;
                let mut plans = store::plan::list(&mut conn, call.programme, after, size + 1).await?;
                let next_page_token = page::cut(&mut plans, size, |p| page::token(LIST, &filters, &p.id.to_string()));
                // Without their envelopes: a page of 1,000 plans could have a million.
                let plans = plans.iter().map(|plan| convert::plan(plan, &[], currency)).collect();
                Ok(pb::ListPlansResponse { plans, next_page_token })
            })
            .await
    }

    async fn update_plan(&self, request: Request<pb::UpdatePlanRequest>) -> Result<Response<pb::UpdatePlanResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::UpdatePlanRequest| {
            let (id, currency) = self.plan_currency(call.programme, &request.plan_id).await?;
            Ok((id, currency, draft::edit(request, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, edit): (PlanId, Currency, Edit)| {
                Box::pin(async move {
                    let mut plan = locked(work, id, &request.etag).await?;
                    plan.state.must_be(Stage::Draft).map_err(|why| Error::of_plan(id, why))?;
                    update(work, &mut plan, &edit).await?;
                    work.audit(id.0, None);
                    work.emit(id.0, &fact::plan_changed(&plan)).await?;
                    let envelopes = store::envelope::list(work.conn(), id).await?;
                    Ok(pb::UpdatePlanResponse { plan: Some(convert::plan(&plan, &envelopes, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn submit_plan(&self, request: Request<pb::SubmitPlanRequest>) -> Result<Response<pb::SubmitPlanResponse>, Status> {
        let prepare =
            async |call: &Call, request: &pb::SubmitPlanRequest| self.plan_currency(call.programme, &request.plan_id).await;
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let mut plan = locked(work, id, &request.etag).await?;
                    let state = plan.state.clone().submit(work.actor());
                    let plan = Some(step(work, &mut plan, state, None, currency).await?);
                    Ok(pb::SubmitPlanResponse { plan })
                })
            })
            .await
            .map(Into::into)
    }

    async fn approve_plan(&self, request: Request<pb::ApprovePlanRequest>) -> Result<Response<pb::ApprovePlanResponse>, Status> {
        let prepare =
            async |call: &Call, request: &pb::ApprovePlanRequest| self.plan_currency(call.programme, &request.plan_id).await;
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let mut plan = locked(work, id, &request.etag).await?;
                    let now = work.now().await?;
                    let state = plan.state.clone().approve(work.actor(), &plan.policy, now);
                    let plan = Some(step(work, &mut plan, state, None, currency).await?);
                    Ok(pb::ApprovePlanResponse { plan })
                })
            })
            .await
            .map(Into::into)
    }

    async fn reject_plan(&self, request: Request<pb::RejectPlanRequest>) -> Result<Response<pb::RejectPlanResponse>, Status> {
        let prepare =
            async |call: &Call, request: &pb::RejectPlanRequest| self.plan_currency(call.programme, &request.plan_id).await;
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let mut plan = locked(work, id, &request.etag).await?;
                    let state = plan.state.clone().reopen();
                    let plan = Some(step(work, &mut plan, state, Some(request.reason), currency).await?);
                    Ok(pb::RejectPlanResponse { plan })
                })
            })
            .await
            .map(Into::into)
    }

    async fn reopen_plan(&self, request: Request<pb::ReopenPlanRequest>) -> Result<Response<pb::ReopenPlanResponse>, Status> {
        let prepare =
            async |call: &Call, request: &pb::ReopenPlanRequest| self.plan_currency(call.programme, &request.plan_id).await;
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let mut plan = locked(work, id, &request.etag).await?;
                    let state = plan.state.clone().reopen();
                    let plan = Some(step(work, &mut plan, state, Some(request.reason), currency).await?);
                    Ok(pb::ReopenPlanResponse { plan })
                })
            })
            .await
            .map(Into::into)
    }

    async fn activate_plan(
        &self,
        request: Request<pb::ActivatePlanRequest>,
    ) -> Result<Response<pb::ActivatePlanResponse>, Status> {
        let prepare =
            async |call: &Call, request: &pb::ActivatePlanRequest| self.plan_currency(call.programme, &request.plan_id).await;
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let mut plan = locked(work, id, &request.etag).await?;
                    let now = work.now().await?;
                    let state = plan.state.clone().activate(&plan.policy, now).map_err(|why| Error::of_plan(id, why))?;
                    allocate(work, &plan, currency).await?;
                    let plan = Some(step(work, &mut plan, Ok(state), None, currency).await?);
                    Ok(pb::ActivatePlanResponse { plan })
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
            .read(request, async |call, request: pb::GetPlanSummaryRequest| plan_summary::summary(self, &call, &request).await)
            .await
    }
}

impl Api {
    /// The plan's id and its programme's currency; a programme without plans has no such plan.
    pub(super) async fn plan_currency(&self, programme: ProgrammeId, plan_id: &str) -> Result<(PlanId, Currency), Error> {
        let id = PlanId::parse("plan_id", plan_id)?;
        Ok((id, self.currencies.known(programme).await?.ok_or(Error::PlanNotFound(id))?))
    }
}

async fn locked(work: &mut Work, id: PlanId, etag: &str) -> Result<Plan, Error> {
    let programme = work.programme();
    let plan = store::plan::lock(work.conn(), programme, id).await?.ok_or(Error::PlanNotFound(id))?;
    if page::etag_matches(etag, plan.version) { Ok(plan) } else { Err(Error::EtagMismatch(id)) }
}

/// Moves a locked plan to a state, unless it stands still.
async fn step(
    work: &mut Work,
    plan: &mut Plan,
    state: Result<PlanState, Standstill>,
    reason: Option<String>,
    currency: Currency,
) -> Result<pb::Plan, Error> {
    let state = state.map_err(|why| Error::of_plan(plan.id, why))?;
    store::plan::set_state(work.conn(), plan, state).await?;
    work.audit(plan.id.0, reason);
    work.emit(plan.id.0, &fact::plan_changed(plan)).await?;
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    Ok(convert::plan(plan, &envelopes, currency))
}

/// Changes what a locked draft says.
async fn update(work: &mut Work, plan: &mut Plan, edit: &Edit) -> Result<(), Error> {
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    let planned = |envelope: &Envelope| Balances { allocated: envelope.planned, ..Balances::default() };
    let draft = edit.apply(Draft {
        display_name: plan.display_name.clone(),
        period: plan.period,
        tree: Tree::of(&envelopes, "envelopes", planned),
        automatic_draw_limit: plan.automatic_draw_limit,
        policy: plan.policy,
    })?;
    store::plan::update(work.conn(), plan, &draft).await?;
    if edit.envelopes.is_some() {
        store::envelope::clear(work.conn(), plan.id).await?;
        insert_envelopes(work, plan, &draft.tree).await?;
    }
    Ok(())
}

async fn insert_envelopes(work: &mut Work, plan: &Plan, tree: &Tree) -> Result<(), Error> {
    // A tree that was checked: none holds less than its children.
    let own = tree.own().into_iter().map(|own| i64::try_from(own).unwrap_or(0));
    let added = tree.branches.iter().zip(own).map(|(branch, planned)| Added {
        id: branch.id,
        place: &branch.place,
        display_name: &branch.display_name,
        planned,
        overrun_limit: branch.overrun_limit,
    });
    Ok(store::envelope::insert(work.conn(), plan.id, plan.programme, &added.collect::<Vec<_>>()).await?)
}

/// Posts what a plan allocates to its envelopes; an envelope without money gets no entry.
async fn allocate(work: &mut Work, plan: &Plan, currency: Currency) -> Result<(), Error> {
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    // An envelope is allocated once, whatever activates it.
    let operation = |envelope: &Envelope| {
        let command = Command::Allocate { envelope: envelope.id, amount: envelope.planned };
        asked(work, pb::ActivatePlanRequest::NAME, envelope.id.0, command, currency)
    };
    let operations: Vec<Operation> = envelopes.iter().filter(|e| e.planned > 0).map(operation).collect();
    post_all(work, &operations).await
}
