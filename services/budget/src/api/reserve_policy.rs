//! ReservePolicyService.

use super::{Api, convert};
use crate::{
    domain::{
        plan::{Plan, ResourceClass},
        reserve_policy::{ReservePolicy, Terms},
    },
    error::Error,
    flow::fact::optional,
    ids::PlanId,
    store,
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::Work,
    money::{Currency, Money},
    page,
};
use koc_proto::{google::r#type::Money as Wire, koc::budget::v1 as pb};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl pb::reserve_policy_service_server::ReservePolicyService for Api {
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

/// What is proposed for a plan, given its policy's etag; checked against what holds.
pub async fn proposed(work: &mut Work, plan: &Plan, terms: &Terms, etag: &str) -> Result<(), Error> {
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    if !envelopes.iter().any(|e| e.place.class == ResourceClass::StrategicReserve) {
        return Err(Error::ReserveMissing(plan.id));
    }
    let before = store::reserve_policy::current(work.conn(), plan).await?;
    if !page::etag_matches(etag, before.version) {
        return Err(Error::EtagMismatch(plan.id));
    }
    if before.terms == *terms {
        return Err(Violation::new("terms", "AMENDMENT_EMPTY", "must change something").into());
    }
    Ok(())
}

pub fn terms(asked: Option<&pb::ReserveTerms>, currency: Currency) -> Result<Terms, Vec<Violation>> {
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

pub fn terms_to_proto(terms: &Terms, currency: Currency) -> pb::ReserveTerms {
    let limit = |minor: Option<i64>| minor.and_then(|minor| convert::money(minor, currency));
    pb::ReserveTerms {
        automatic_limit: limit(terms.automatic_limit),
        required_evidence: terms.required_evidence.clone(),
        one_person_limit: limit(terms.one_person_limit),
        max_share_bp: Some(terms.max_share_bp),
        output_cool_down_hours: Some(terms.output_cool_down_hours),
        member_cool_down_hours: Some(terms.member_cool_down_hours),
        report_within_hours: Some(terms.report_within_hours),
    }
}

fn policy_to_proto(policy: &ReservePolicy, currency: Currency) -> pb::ReservePolicy {
    pb::ReservePolicy {
        plan_id: policy.plan.to_string(),
        version: policy.version,
        terms: Some(terms_to_proto(&policy.terms, currency)),
        reason: policy.reason.clone(),
        set_by: policy.set_by.clone(),
        create_time: Some(clock::to_proto(policy.create_time)),
        etag: page::etag(policy.version),
        amendment_id: optional(policy.amendment),
    }
}
