//! AmendmentService.

mod asked;

use super::{Api, convert, draft, reserve_policy};
use crate::{
    domain::{
        amendment::{Amendment, AmendmentKind, AmendmentState, Closing, Line, diff},
        envelope::{Envelope, MAX_ENVELOPES, Tree},
        plan::{Plan, ResourceClass, Stage},
        reserve_draw::Decided,
        reserve_policy::Terms,
    },
    error::Error,
    flow::{
        apply_amendment::{Plans, apply, check_available, check_parents, shut, survey},
        fact,
        lapse::{self, Waiting},
    },
    ids::{AmendmentId, PlanId, ProgrammeId},
    store,
};
use asked::{Change, Transfer, change, closing, transfer};
use koc_chassis::{
    fault::{Violation, Violations},
    gate::{Call, Work},
    job,
    money::Currency,
    page,
};
use koc_proto::koc::budget::v1 as pb;
use std::collections::HashMap;
use tonic::{Request, Response, Status};

const LIST: &str = "ListAmendments";

#[tonic::async_trait]
impl pb::amendment_service_server::AmendmentService for Api {
    async fn propose_amendment(
        &self,
        request: Request<pb::ProposeAmendmentRequest>,
    ) -> Result<Response<pb::ProposeAmendmentResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::ProposeAmendmentRequest| {
            let (id, currency) = self.plan_currency(call.programme, &request.plan_id).await?;
            Ok((id, currency, change(request, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, change): (PlanId, Currency, Change)| {
                Box::pin(async move {
                    let plans = locked(work, id, None, &request.etag).await?;
                    plans.must_take(AmendmentKind::Change)?;
                    let amendment = propose_change(work, &plans.plan, &change, request.reason, currency).await?;
                    Ok(pb::ProposeAmendmentResponse { amendment: Some(convert::amendment(&amendment, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn transfer_between_envelopes(
        &self,
        request: Request<pb::TransferBetweenEnvelopesRequest>,
    ) -> Result<Response<pb::TransferBetweenEnvelopesResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::TransferBetweenEnvelopesRequest| {
            let (id, currency) = self.plan_currency(call.programme, &request.plan_id).await?;
            Ok((id, currency, transfer(request, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, transfer): (PlanId, Currency, Transfer)| {
                Box::pin(async move {
                    let plans = locked(work, id, None, &request.etag).await?;
                    plans.must_take(AmendmentKind::Transfer)?;
                    let amendment = propose_transfer(work, &plans.plan, transfer, request.reason, currency).await?;
                    Ok(pb::TransferBetweenEnvelopesResponse { amendment: Some(convert::amendment(&amendment, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn propose_reserve_policy(
        &self,
        request: Request<pb::ProposeReservePolicyRequest>,
    ) -> Result<Response<pb::ProposeReservePolicyResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::ProposeReservePolicyRequest| {
            let (id, currency) = self.plan_currency(call.programme, &request.plan_id).await?;
            Ok((id, currency, reserve_policy::terms(request.terms.as_ref(), currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, terms): (PlanId, Currency, Terms)| {
                Box::pin(async move {
                    let plans = locked(work, id, None, "").await?;
                    plans.must_take(AmendmentKind::ReservePolicy)?;
                    reserve_policy::proposed(work, &plans.plan, &terms, &request.etag).await?;
                    let amendment = propose_policy(work, &plans.plan, terms, request.reason).await?;
                    Ok(pb::ProposeReservePolicyResponse { amendment: Some(convert::amendment(&amendment, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn close_plan(&self, request: Request<pb::ClosePlanRequest>) -> Result<Response<pb::ClosePlanResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::ClosePlanRequest| {
            let (id, currency) = self.plan_currency(call.programme, &request.plan_id).await?;
            Ok((id, currency, closing(request, id)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, closing): (PlanId, Currency, Closing)| {
                Box::pin(async move {
                    let mut plans = locked(work, id, closing.carry_over, &request.etag).await?;
                    let amendment = close(work, &mut plans, closing, request.reason).await?;
                    Ok(pb::ClosePlanResponse { amendment: Some(convert::amendment(&amendment, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn approve_amendment(
        &self,
        request: Request<pb::ApproveAmendmentRequest>,
    ) -> Result<Response<pb::ApproveAmendmentResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::ApproveAmendmentRequest| {
            self.amendment_currency(call.programme, &request.amendment_id).await
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let amendment = approve(work, id, request.reason, currency).await?;
                    Ok(pb::ApproveAmendmentResponse { amendment: Some(convert::amendment(&amendment, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn reject_amendment(
        &self,
        request: Request<pb::RejectAmendmentRequest>,
    ) -> Result<Response<pb::RejectAmendmentResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::RejectAmendmentRequest| {
            self.amendment_currency(call.programme, &request.amendment_id).await
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let mut amendment = found(work, id).await?;
                    let (actor, now) = (work.actor().to_owned(), work.now().await?);
                    let rejected = amendment.reject(&actor, request.reason.clone(), now);
                    rejected.map_err(|why| Error::of_amendment(id, why))?;
                    keep(work, &amendment, request.reason).await?;
                    Ok(pb::RejectAmendmentResponse { amendment: Some(convert::amendment(&amendment, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn withdraw_amendment(
        &self,
        request: Request<pb::WithdrawAmendmentRequest>,
    ) -> Result<Response<pb::WithdrawAmendmentResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::WithdrawAmendmentRequest| {
            self.amendment_currency(call.programme, &request.amendment_id).await
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency)| {
                Box::pin(async move {
                    let mut amendment = found(work, id).await?;
                    let (actor, now) = (work.actor().to_owned(), work.now().await?);
                    let withdrawn = amendment.withdraw(&actor, request.reason.clone(), now);
                    withdrawn.map_err(|why| Error::of_amendment(id, why))?;
                    keep(work, &amendment, request.reason).await?;
                    Ok(pb::WithdrawAmendmentResponse { amendment: Some(convert::amendment(&amendment, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_amendment(
        &self,
        request: Request<pb::GetAmendmentRequest>,
    ) -> Result<Response<pb::GetAmendmentResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetAmendmentRequest| {
                let (id, currency) = self.amendment_currency(call.programme, &request.amendment_id).await?;
                let mut tx = self.gate.db().snapshot().await?;
                let found = store::amendment::find(&mut tx, call.programme, id).await?;
                let amendment = found.ok_or(Error::AmendmentNotFound(id))?;
                Ok(pb::GetAmendmentResponse { amendment: Some(convert::amendment(&amendment, currency)) })
            })
            .await
    }

    async fn list_amendments(
        &self,
        request: Request<pb::ListAmendmentsRequest>,
    ) -> Result<Response<pb::ListAmendmentsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListAmendmentsRequest| {
                let plan = PlanId::parse_optional("plan_id", &request.plan_id)?;
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.plan_id.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let mut conn = self.gate.db().read().await?;
                let mut found = store::amendment::list(&mut conn, call.programme, plan, after, size + 1).await?;
                let next_page_token = page::cut(&mut found, size, |a| page::token(LIST, &filters, &a.id.to_string()));
                let amendments = found.iter().map(|amendment| convert::amendment(amendment, currency)).collect();
                Ok(pb::ListAmendmentsResponse { amendments, next_page_token })
            })
            .await
    }
}

impl Api {
    /// The amendment's id and its programme's currency; a programme without plans has no such amendment.
    async fn amendment_currency(&self, programme: ProgrammeId, id: &str) -> Result<(AmendmentId, Currency), Error> {
        let id = AmendmentId::parse("amendment_id", id)?;
        Ok((id, self.currencies.known(programme).await?.ok_or(Error::AmendmentNotFound(id))?))
    }
}

/// Plans, locked: one with the etag, and one that is carried over into.
async fn locked(work: &mut Work, id: PlanId, carry_over: Option<PlanId>, etag: &str) -> Result<Plans, Error> {
    let plans = lock(work, id, carry_over).await?;
    if page::etag_matches(etag, plans.plan.version) { Ok(plans) } else { Err(Error::EtagMismatch(id)) }
}

async fn lock(work: &mut Work, id: PlanId, carry_over: Option<PlanId>) -> Result<Plans, Error> {
    let programme = work.programme();
    let ids: Vec<PlanId> = std::iter::once(id).chain(carry_over).collect();
    let mut plans = store::plan::lock_all(work.conn(), programme, &ids).await?;
    let mut take = |id: PlanId| {
        let position = plans.iter().position(|plan| plan.id == id).ok_or(Error::PlanNotFound(id))?;
        Ok::<Plan, Error>(plans.swap_remove(position))
    };
    Ok(Plans { plan: take(id)?, carry_over: carry_over.map(take).transpose()? })
}

async fn propose_change(
    work: &mut Work,
    plan: &Plan,
    change: &Change,
    reason: String,
    currency: Currency,
) -> Result<Amendment, Error> {
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    let before = Tree::of(&envelopes, "changes", |envelope| envelope.balances);
    let mut after = before.clone();
    let mut violations = Violations::default();
    for (index, amounts) in change.amounts.iter().enumerate() {
        let position = after.position(amounts.envelope).ok_or(Error::EnvelopeNotFound(amounts.envelope))?;
        let branch = &mut after.branches[position];
        branch.total = amounts.total.unwrap_or(branch.total);
        branch.overrun_limit = amounts.overrun_limit.unwrap_or(branch.overrun_limit);
        branch.field = format!("changes[{index}].allocated");
        if branch.overrun_limit != 0 && branch.place.class == ResourceClass::StrategicReserve {
            let rule = "must be zero for the strategic reserve";
            violations.push(Violation::new(format!("changes[{index}].overrun_limit"), "RESERVE_OVERRUN", rule));
        }
    }
    violations.take_all(draft::plant(&mut after, "new_envelopes", &change.new, &HashMap::new()));
    if after.branches.len() > MAX_ENVELOPES {
        let rule = format!("a plan has at most {MAX_ENVELOPES} envelopes");
        violations.push(Violation::new("new_envelopes", "TOO_MANY_ENVELOPES", rule));
    }
    violations.take_all(after.check(&plan.policy));
    violations.finish()?;
    let lines = diff(plan.id, &before, &after);
    if lines.is_empty() {
        return Err(Violation::new("changes", "AMENDMENT_EMPTY", "must change something").into());
    }
    check_parents(work, &lines).await?;
    check_available(&envelopes, &lines, currency)?;
    let mut amendment = new(work, plan, AmendmentKind::Change, lines, reason).await?;
    (amendment.total_before, amendment.total_after) = (total(&before), total(&after));
    propose(work, &amendment).await?;
    Ok(amendment)
}

async fn propose_transfer(
    work: &mut Work,
    plan: &Plan,
    transfer: Transfer,
    reason: String,
    currency: Currency,
) -> Result<Amendment, Error> {
    let envelopes: Vec<Envelope> = store::envelope::list(work.conn(), plan.id).await?;
    let before = Tree::of(&envelopes, "amount", |envelope| envelope.balances);
    let mut after = before.clone();
    for (id, amount) in [(transfer.from, -transfer.amount), (transfer.to, transfer.amount)] {
        let position = after.position(id).ok_or(Error::EnvelopeNotFound(id))?;
        after.shift(position, amount);
    }
    let lines = diff(plan.id, &before, &after);
    check_available(&envelopes, &lines, currency)?;
    after.check(&plan.policy)?;
    let mut amendment = new(work, plan, AmendmentKind::Transfer, lines, reason).await?;
    (amendment.total_before, amendment.total_after) = (total(&before), total(&after));
    propose(work, &amendment).await?;
    Ok(amendment)
}

async fn propose_policy(work: &mut Work, plan: &Plan, terms: Terms, reason: String) -> Result<Amendment, Error> {
    let total = total(&Tree::of(&store::envelope::list(work.conn(), plan.id).await?, "", |envelope| envelope.balances));
    let mut amendment = new(work, plan, AmendmentKind::ReservePolicy, Vec::new(), reason).await?;
    (amendment.total_before, amendment.total_after, amendment.terms) = (total, total, Some(terms));
    propose(work, &amendment).await?;
    Ok(amendment)
}

/// Closes the plans' first, at once when no money is moved by it, or proposes to.
async fn close(work: &mut Work, plans: &mut Plans, closing: Closing, reason: String) -> Result<Amendment, Error> {
    plans.must_take(AmendmentKind::Close)?;
    let found = survey(work, plans, closing).await?;
    let moves_money = found.moves_money();
    if !moves_money {
        // There is nothing to close a closed plan for.
        plans.plan.state.must_be(Stage::Active).map_err(|why| Error::of_plan(plans.plan.id, why))?;
    }
    let mut amendment = new(work, &plans.plan, AmendmentKind::Close, found.lines, reason).await?;
    (amendment.total_before, amendment.total_after) = (found.total_before, found.total_after);
    amendment.closing = Some(closing);
    if moves_money {
        propose(work, &amendment).await?;
        return Ok(amendment);
    }
    // What the survey found is all that there is to do: nothing.
    shut(work, plans, &amendment.lines).await?;
    let decided = Decided { by: None, reason: "no money is moved by it".to_owned() };
    amendment.state = AmendmentState::Applied { decided };
    store::amendment::insert(work.conn(), &amendment).await?;
    tell(work, &amendment, amendment.reason.clone()).await?;
    tell_plans(work, plans).await?;
    Ok(amendment)
}

fn total(tree: &Tree) -> i64 {
    // Trees that were checked can be added up.
    i64::try_from(tree.total()).unwrap_or(i64::MAX)
}

/// A proposal by whoever calls, to be completed and kept.
async fn new(work: &mut Work, plan: &Plan, kind: AmendmentKind, lines: Vec<Line>, reason: String) -> Result<Amendment, Error> {
    let now = work.now().await?;
    Ok(Amendment {
        id: AmendmentId::new(),
        programme: plan.programme,
        plan: plan.id,
        kind,
        state: AmendmentState::Proposed,
        lines,
        total_before: 0,
        total_after: 0,
        closing: None,
        terms: None,
        reason,
        base_version: plan.version,
        proposed_by: work.actor().to_owned(),
        approvals: Vec::new(),
        decide_by_time: now + plan.policy.validity,
        create_time: now,
    })
}

/// Keeps a proposal, which lapses when nobody decides it.
async fn propose(work: &mut Work, amendment: &Amendment) -> Result<(), Error> {
    store::amendment::insert(work.conn(), amendment).await?;
    let lapse = job::NewJob {
        kind: Amendment::KIND,
        programme: amendment.programme,
        subject: amendment.id.0,
        step: lapse::STEP,
        state: serde_json::json!({}),
        actor: &amendment.proposed_by,
        run_time: Some(amendment.decide_by_time),
    };
    job::start(work.conn(), lapse).await?;
    tell(work, amendment, amendment.reason.clone()).await
}

async fn tell(work: &mut Work, amendment: &Amendment, reason: String) -> Result<(), Error> {
    work.audit(amendment.id.0, Some(reason));
    work.emit(amendment.id.0, &fact::amendment_changed(amendment)).await?;
    Ok(())
}

/// The plans whose rows an amendment changed.
async fn tell_plans(work: &mut Work, plans: &Plans) -> Result<(), Error> {
    for plan in std::iter::once(&plans.plan).chain(&plans.carry_over) {
        work.emit(plan.id.0, &fact::plan_changed(plan)).await?;
    }
    Ok(())
}

/// An amendment, locked.
async fn found(work: &mut Work, id: AmendmentId) -> Result<Amendment, Error> {
    let programme = work.programme();
    store::amendment::lock(work.conn(), programme, id).await?;
    store::amendment::find(work.conn(), programme, id).await?.ok_or(Error::AmendmentNotFound(id))
}

/// Takes the caller's approval and, when that is enough, does what the amendment says.
async fn approve(work: &mut Work, id: AmendmentId, reason: String, currency: Currency) -> Result<Amendment, Error> {
    let programme = work.programme();
    let (plan, carry_over) = store::amendment::plans(work.conn(), programme, id).await?.ok_or(Error::AmendmentNotFound(id))?;
    let mut plans = lock(work, plan, carry_over).await?;
    let mut amendment = found(work, id).await?;
    let (actor, now) = (work.actor().to_owned(), work.now().await?);
    let enough = amendment.approve(&actor, &plans.plan.policy, now).map_err(|why| Error::of_amendment(id, why))?;
    plans.must_take(amendment.kind)?;
    if plans.plan.version != amendment.base_version {
        return Err(Error::AmendmentConflict { amendment: id, base: amendment.base_version, is: plans.plan.version });
    }
    if enough {
        apply(work, &mut amendment, &mut plans, currency).await?;
        amendment.state = AmendmentState::Applied { decided: Decided { by: Some(actor), reason: reason.clone() } };
        if amendment.kind == AmendmentKind::Close {
            store::amendment::replace_lines(work.conn(), &amendment).await?;
        }
        tell_plans(work, &plans).await?;
    }
    keep(work, &amendment, reason).await?;
    Ok(amendment)
}

/// Keeps where an amendment stands; one that is decided lapses no more.
async fn keep(work: &mut Work, amendment: &Amendment, reason: String) -> Result<(), Error> {
    store::amendment::update(work.conn(), amendment).await?;
    if amendment.state != AmendmentState::Proposed {
        job::cancel(work.conn(), amendment.id.0, Amendment::KIND).await?;
    }
    tell(work, amendment, reason).await
}
