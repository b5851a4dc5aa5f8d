//! ReservePolicyService.

use super::{Api, convert};
use crate::{
    domain::{
        plan::{ResourceClass, Stage},
        reserve_policy::{ReservePolicy, Terms},
    },
    error::Error,
    ids::PlanId,
    store,
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Work},
    money::{Currency, Money},
    page,
};
use koc_proto::{google::r#type::Money as Wire, koc::budget::v1 as pb};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl pb::reserve_policy_service_server::ReservePolicyService for Api {
    async fn set_reserve_policy(
        &self,
        request: Request<pb::SetReservePolicyRequest>,
    ) -> Result<Response<pb::SetReservePolicyResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::SetReservePolicyRequest| {
            let id = PlanId::parse("plan_id", &request.plan_id)?;
            let currency = self.currencies.known(call.programme).await?.ok_or(Error::PlanNotFound(id))?;
            let terms = terms(request.terms.as_ref(), currency)?;
            Ok((id, currency, terms))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, terms)| {
                Box::pin(async move {
                    let policy = set(work, id, terms, &request).await?;
                    Ok(pb::SetReservePolicyResponse { policy: Some(policy_to_proto(&policy, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_reserve_policy(
        &self,
        request: Request<pb::GetReservePolicyRequest>,
    ) -> Result<Response<pb::GetReservePolicyResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetReservePolicyRequest| {
                let id = PlanId::parse("plan_id", &request.plan_id)?;
                let currency = self.currencies.known(call.programme).await?.ok_or(Error::PlanNotFound(id))?;
                let mut tx = self.gate.db().snapshot().await?;
                let plan = store::plan::find(&mut tx, call.programme, id).await?.ok_or(Error::PlanNotFound(id))?;
                let policy = match request.version {
                    0 => store::reserve_policy::current(&mut tx, &plan).await?,
                    version => store::reserve_policy::version(&mut tx, &plan, version)
                        .await?
                        .ok_or(Error::PolicyVersionNotFound { plan: id, version })?,
                };
                Ok(pb::GetReservePolicyResponse { policy: Some(policy_to_proto(&policy, currency)) })
            })
            .await
    }
}

async fn set(work: &mut Work, id: PlanId, terms: Terms, request: &pb::SetReservePolicyRequest) -> Result<ReservePolicy, Error> {
    let programme = work.programme();
    let plan = store::plan::lock(work.conn(), programme, id).await?.ok_or(Error::PlanNotFound(id))?;
    let stage = plan.state.stage();
    if stage == Stage::Closed {
        return Err(Error::PlanState { plan: id, is: stage, must_be: Stage::Active });
    }
    let envelopes = store::envelope::list(work.conn(), id).await?;
    if !envelopes.iter().any(|e| e.place.class == ResourceClass::StrategicReserve) {
        return Err(Error::ReserveMissing(id));
    }
    let before = store::reserve_policy::current(work.conn(), &plan).await?;
    if !page::etag_matches(&request.etag, before.version) {
        return Err(Error::EtagMismatch(id));
    }
    let policy = ReservePolicy {
        plan: id,
        version: before.version + 1,
        terms,
        reason: request.reason.clone(),
        set_by: work.actor().to_owned(),
        create_time: work.now().await?,
    };
    store::reserve_policy::insert(work.conn(), &plan, &policy).await?;
    work.audit(id.0, Some(policy.reason.clone()));
    Ok(policy)
}

fn terms(asked: Option<&pb::ReserveTerms>, currency: Currency) -> Result<Terms, Vec<Violation>> {
    let asked = asked.cloned().unwrap_or_default(); // the contract asks for it
    let usual = Terms::default();
    let mut violations = Violations::default();
    let mut limit = |field: &str, wire: Option<&Wire>| {
        let wire = wire?;
        violations.take(Money::parse_not_negative(field, Some(wire), currency)).map(|money| money.minor)
    };
    let terms = Terms {
        automatic_limit: limit("terms.automatic_limit", asked.automatic_limit.as_ref()),
        one_person_limit: limit("terms.one_person_limit", asked.one_person_limit.as_ref()),
        required_evidence: asked.required_evidence,
        max_share_bp: asked.max_share_bp.unwrap_or(usual.max_share_bp),
        output_cool_down_hours: asked.output_cool_down_hours.unwrap_or(usual.output_cool_down_hours),
        member_cool_down_hours: asked.member_cool_down_hours.unwrap_or(usual.member_cool_down_hours),
        report_within_hours: asked.report_within_hours.unwrap_or(usual.report_within_hours),
    };
    violations.take(terms.check());
    violations.finish().map(|()| terms)
}

fn policy_to_proto(policy: &ReservePolicy, currency: Currency) -> pb::ReservePolicy {
    let terms = &policy.terms;
    let limit = |minor: Option<i64>| minor.and_then(|minor| convert::money(minor, currency));
    pb::ReservePolicy {
        plan_id: policy.plan.to_string(),
        version: policy.version,
        terms: Some(pb::ReserveTerms {
            automatic_limit: limit(terms.automatic_limit),
            required_evidence: terms.required_evidence.clone(),
            one_person_limit: limit(terms.one_person_limit),
            max_share_bp: Some(terms.max_share_bp),
            output_cool_down_hours: Some(terms.output_cool_down_hours),
            member_cool_down_hours: Some(terms.member_cool_down_hours),
            report_within_hours: Some(terms.report_within_hours),
        }),
        reason: policy.reason.clone(),
        set_by: policy.set_by.clone(),
        create_time: Some(clock::to_proto(policy.create_time)),
        etag: page::etag(policy.version),
    }
}
