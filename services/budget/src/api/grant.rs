//! GrantService.

mod wire;

use super::{Api, cost_estimate, cost_model::Reader, resource::found};
use crate::{
    domain::{
        barred,
        cost::usage::{Incident, Usage},
        grant::{Grant, Sources, Stage, Standing, Step, check_sources, costs_nothing_to_issue, tax_is_open},
        plan::ResourceClass,
    },
    error::Error,
    flow::{
        estimate_cost::{estimated, restated},
        fact::grant_changed,
        move_grant::{commit, give_back, hold, keep_held, pay, settle, spend},
    },
    ids::{EstimateId, GrantId, MemberId, ProgrammeId, ResourceId},
    store::{self, estimate::Kept},
};
use chrono::{DateTime, NaiveDate, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Work},
    money::Currency,
    page,
};
use koc_proto::koc::budget::v1 as pb;
use rust_decimal::Decimal;
use tonic::{Request, Response, Status};

const LIST: &str = "ListGrants";

/// What is asked for.
#[derive(Debug, Clone)]
struct Asked {
    member: MemberId,
    resource: ResourceId,
    usage: Usage,
    sources: Sources,
    nda_reference: Option<String>,
    embargo_until_time: Option<DateTime<Utc>>,
}

/// How a car was used.
type Used = (NaiveDate, Decimal, Vec<Incident>);

/// A handler of one step: who asks the registry first, and what the step does before the grant is kept.
macro_rules! step {
    ($api:ident, $request:ident, $response:ident, $consent:literal, $step:expr, $body:expr) => {{
        let prepare =
            async |call: &Call, request: &_| $api.prepare_step(call.programme, &wire::grant_id(request), $consent).await;
        $api.gate
            .mutate_after($request, prepare, |work, request, (id, currency): (GrantId, Currency)| {
                Box::pin(async move {
                    let (mut grant, to) = movable(work, id, $step).await?;
                    let reason = $body(work, &mut grant, &request, currency).await?;
                    grant.stage = to;
                    let grant = Some(keep(work, grant, currency, reason).await?);
                    Ok(pb::$response { grant })
                })
            })
            .await
            .map(Into::into)
    }};
}

#[tonic::async_trait]
impl pb::grant_service_server::GrantService for Api {
    async fn issue_grant(&self, request: Request<pb::IssueGrantRequest>) -> Result<Response<pb::IssueGrantResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::IssueGrantRequest| {
            let (_, currency) = self.resource_currency(call.programme, &request.resource_id).await?;
            let asked = asked(request, currency)?;
            let standing = self.members.standing(call.programme, asked.member).await?;
            Ok((currency, asked, standing))
        };
        self.gate
            .mutate_after(request, prepare, |work, request, (currency, asked, standing): (Currency, Asked, Standing)| {
                Box::pin(async move {
                    let grant = Some(issue(work, request, asked, &standing, currency).await?);
                    Ok(pb::IssueGrantResponse { grant })
                })
            })
            .await
            .map(Into::into)
    }

    async fn approve_grant(
        &self,
        request: Request<pb::ApproveGrantRequest>,
    ) -> Result<Response<pb::ApproveGrantResponse>, Status> {
        step!(self, request, ApproveGrantResponse, true, Step::Approve, approve)
    }

    async fn reject_grant(&self, request: Request<pb::RejectGrantRequest>) -> Result<Response<pb::RejectGrantResponse>, Status> {
        step!(self, request, RejectGrantResponse, false, Step::Reject, reject)
    }

    async fn cancel_grant(&self, request: Request<pb::CancelGrantRequest>) -> Result<Response<pb::CancelGrantResponse>, Status> {
        step!(self, request, CancelGrantResponse, false, Step::Cancel, cancel)
    }

    async fn ship_grant(&self, request: Request<pb::ShipGrantRequest>) -> Result<Response<pb::ShipGrantResponse>, Status> {
        step!(self, request, ShipGrantResponse, true, Step::Ship, ship)
    }

    async fn confirm_grant_delivery(
        &self,
        request: Request<pb::ConfirmGrantDeliveryRequest>,
    ) -> Result<Response<pb::ConfirmGrantDeliveryResponse>, Status> {
        step!(self, request, ConfirmGrantDeliveryResponse, false, Step::ConfirmDelivery, confirm_delivery)
    }

    async fn hand_over_grant(
        &self,
        request: Request<pb::HandOverGrantRequest>,
    ) -> Result<Response<pb::HandOverGrantResponse>, Status> {
        step!(self, request, HandOverGrantResponse, true, Step::HandOver, hand_over)
    }

    async fn return_grant(&self, request: Request<pb::ReturnGrantRequest>) -> Result<Response<pb::ReturnGrantResponse>, Status> {
        step!(self, request, ReturnGrantResponse, false, Step::Return, take_back)
    }

    async fn settle_grant(&self, request: Request<pb::SettleGrantRequest>) -> Result<Response<pb::SettleGrantResponse>, Status> {
        step!(self, request, SettleGrantResponse, false, Step::Settle, settle_returned)
    }

    async fn fulfil_grant(&self, request: Request<pb::FulfilGrantRequest>) -> Result<Response<pb::FulfilGrantResponse>, Status> {
        step!(self, request, FulfilGrantResponse, true, Step::Fulfil, fulfil)
    }

    async fn get_grant(&self, request: Request<pb::GetGrantRequest>) -> Result<Response<pb::GetGrantResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetGrantRequest| {
                let (id, currency) = self.grant_currency(call.programme, &request.grant_id).await?;
                let mut tx = self.gate.db().snapshot().await?;
                let grant = store::grant::find(&mut tx, call.programme, id).await?.ok_or(Error::GrantNotFound(id))?;
                let kept = store::estimate::by_id(&mut tx, &wire::estimates(&grant)).await?;
                Ok(pb::GetGrantResponse { grant: Some(wire::grant(&grant, &kept, currency)) })
            })
            .await
    }

    async fn list_grants(&self, request: Request<pb::ListGrantsRequest>) -> Result<Response<pb::ListGrantsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListGrantsRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.member_id.as_str(), request.resource_id.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let member = MemberId::parse_optional("member_id", &request.member_id)?;
                let resource = ResourceId::parse_optional("resource_id", &request.resource_id)?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let mut tx = self.gate.db().snapshot().await?;
                let mut grants = store::grant::list(&mut tx, call.programme, member, resource, after, size + 1).await?;
                let next_page_token = page::cut(&mut grants, size, |g| page::token(LIST, &filters, &g.id.to_string()));
                let ids: Vec<EstimateId> = grants.iter().flat_map(wire::estimates).collect();
                let kept = store::estimate::by_id(&mut tx, &ids).await?;
                let grants = grants.iter().map(|grant| wire::grant(grant, &kept, currency)).collect();
                Ok(pb::ListGrantsResponse { grants, next_page_token })
            })
            .await
    }
}

impl Api {
    /// The grant's id and its programme's currency; a programme without either has no such grant.
    async fn grant_currency(&self, programme: ProgrammeId, id: &str) -> Result<(GrantId, Currency), Error> {
        let id = GrantId::parse("grant_id", id)?;
        Ok((id, self.currencies.known(programme).await?.ok_or(Error::GrantNotFound(id))?))
    }

    /// What a step needs to know before its transaction. What cannot be undone asks whether anything bars the member, and
    /// fails closed.
    async fn prepare_step(&self, programme: ProgrammeId, id: &str, consent: bool) -> Result<(GrantId, Currency), Error> {
        let (id, currency) = self.grant_currency(programme, id).await?;
        if consent {
            let mut conn = self.gate.db().read().await?;
            let grant = store::grant::find(&mut conn, programme, id).await?.ok_or(Error::GrantNotFound(id))?;
            drop(conn);
            self.members.check(programme, grant.member, grant.kind).await?;
        }
        Ok((id, currency))
    }
}

fn asked(request: &pb::IssueGrantRequest, currency: Currency) -> Result<Asked, Vec<Violation>> {
    use crate::ids::{EnvelopeId, UnitId};
    let mut violations = Violations::default();
    let member = violations.take(MemberId::parse("member_id", &request.member_id));
    let resource = violations.take(ResourceId::parse("resource_id", &request.resource_id));
    let usage = violations.take_all(cost_estimate::usage(request.usage.as_ref(), currency));
    let envelope = violations.take(EnvelopeId::parse_optional("envelope_id", &request.envelope_id));
    let unit = violations.take(UnitId::parse_optional("unit_id", &request.unit_id));
    let date = &request.session_date;
    let session_date = if date.is_empty() {
        Some(None)
    } else {
        violations.take(crate::domain::cost::parse_date("session_date", date)).map(Some)
    };
    let embargo = request.embargo_until_time.as_ref();
    let embargo = embargo.map(|time| violations.take(clock::from_proto("embargo_until_time", time)));
    violations.finish()?;
    let read = || {
        Some(Asked {
            member: member?,
            resource: resource?,
            usage: usage?,
            sources: Sources { envelope: envelope?, unit: unit?, session_date: session_date? },
            nda_reference: Some(request.nda_reference.clone()).filter(|reference| !reference.is_empty()),
            embargo_until_time: embargo.flatten(),
        })
    };
    read().ok_or_else(Vec::new)
}

async fn issue(
    work: &mut Work,
    request: pb::IssueGrantRequest,
    asked: Asked,
    standing: &Standing,
    currency: Currency,
) -> Result<pb::Grant, Error> {
    use crate::domain::resource_kind::ResourceKind;
    // Who was merged gets it as the one that goes on.
    let member = standing.member;
    let Asked { usage, sources, nda_reference, embargo_until_time, .. } = asked;
    let programme = work.programme();
    // Not retired before the grant is there to be counted.
    store::resource::share(work.conn(), programme, asked.resource).await?;
    let resource = found(work.conn(), programme, asked.resource, 0).await?;
    let (kind, class): (ResourceKind, ResourceClass) = (resource.model.kind(), resource.class);
    if resource.retirement.is_some() {
        return Err(Error::ResourceRetired(resource.id));
    }
    if let Some(why) = barred::from_kind(kind, &standing.standing) {
        return Err(Error::of_barred(standing.member, why));
    }
    let mismatches = standing.mismatches(kind, class);
    if !mismatches.is_empty() && request.eligibility_reason.is_empty() {
        return Err(Error::EligibilityReasonRequired(mismatches));
    }
    let estimate = if costs_nothing_to_issue(kind) {
        wire::only_quantity(&usage)?;
        None
    } else {
        Some(estimated(work.conn(), &resource, &usage, currency).await?)
    };
    check_sources(kind, estimate.as_ref().map_or(0, |estimate| estimate.cash()), &sources)?;
    if let Some(open) = estimate.as_ref().filter(|estimate| tax_is_open(estimate)) {
        return Err(Error::TaxUndetermined(open.tax.category.clone()));
    }
    if kind == ResourceKind::InformationPrivilege && nda_reference.is_none() {
        return Err(Error::AgreementRequired);
    }
    if let Some(id) = sources.unit {
        let unit = store::booking::find_unit(work.conn(), programme, id).await?;
        unit.filter(|unit| unit.resource == resource.id).ok_or(Error::UnitNotFound(id))?;
    }
    let kept = estimate.map(|estimate| Kept {
        id: EstimateId::new(),
        programme,
        resource: resource.id,
        version: resource.version,
        usage: usage.clone(),
        estimate,
    });
    let now = work.now().await?;
    let mut grant = Grant {
        id: GrantId::new(),
        programme,
        member,
        resource: resource.id,
        kind,
        stage: if standing.trusted { Grant::first_stage(kind) } else { Stage::PendingApproval },
        usage,
        session_date: sources.session_date,
        estimate: kept.as_ref().map(|kept| kept.id),
        restated: None,
        envelope: sources.envelope,
        reservation: None,
        extra_reservation: None,
        unit: sources.unit,
        mismatches,
        reason: request.reason,
        eligibility_reason: request.eligibility_reason,
        shipping_reference: None,
        nda_reference,
        embargo_until_time,
        requested_by: work.actor().to_owned(),
        decided_by: None,
        create_time: now,
        update_time: now,
    };
    if let Some(kept) = &kept {
        store::estimate::insert(work.conn(), kept).await?;
    }
    store::grant::insert(work.conn(), &grant).await?;
    if grant.stage != Stage::PendingApproval {
        hold(work, &mut grant, kept.as_ref().map(|kept| &kept.estimate), currency).await?;
    }
    let reason = grant.reason.clone();
    keep(work, grant, currency, Some(reason)).await
}

/// A grant that a step by the caller may move, locked and where it was, and where the step leads.
async fn movable(work: &mut Work, id: GrantId, step: Step) -> Result<(Grant, Stage), Error> {
    let programme = work.programme();
    store::grant::lock(work.conn(), programme, id).await?;
    let mut grant = store::grant::find(work.conn(), programme, id).await?.ok_or(Error::GrantNotFound(id))?;
    let to = grant.after(step, work.actor()).map_err(|why| Error::of_grant(&grant, why))?;
    grant.update_time = work.now().await?;
    Ok((grant, to))
}

/// Keeps a grant that was moved, tells of it, and shows it.
async fn keep(work: &mut Work, grant: Grant, currency: Currency, reason: Option<String>) -> Result<pb::Grant, Error> {
    store::grant::update(work.conn(), &grant).await?;
    let kept = store::estimate::by_id(work.conn(), &wire::estimates(&grant)).await?;
    let last = grant.restated.or(grant.estimate).and_then(|id| kept.get(&id));
    let ended = matches!(grant.stage, Stage::Delivered | Stage::Settled | Stage::Fulfilled);
    let cost = last.filter(|_| ended).map(|kept| &kept.estimate);
    work.audit(grant.id.0, reason);
    work.emit(grant.id.0, &grant_changed(&grant, cost, currency)).await?;
    Ok(wire::grant(&grant, &kept, currency))
}

/// An estimate of a grant.
async fn kept(work: &mut Work, id: Option<EstimateId>) -> Result<Option<Kept>, Error> {
    match id {
        None => Ok(None),
        Some(id) => Ok(store::estimate::by_id(work.conn(), &[id]).await?.remove(&id)),
    }
}

/// What a step gives for the audit.
type Reason = Result<Option<String>, Error>;

async fn approve(work: &mut Work, grant: &mut Grant, request: &pb::ApproveGrantRequest, currency: Currency) -> Reason {
    if found(work.conn(), grant.programme, grant.resource, 0).await?.retirement.is_some() {
        return Err(Error::ResourceRetired(grant.resource));
    }
    grant.decided_by = Some(work.actor().to_owned());
    let kept = kept(work, grant.estimate).await?;
    hold(work, grant, kept.as_ref().map(|kept| &kept.estimate), currency).await?;
    Ok(Some(request.reason.clone()))
}

async fn reject(work: &mut Work, grant: &mut Grant, request: &pb::RejectGrantRequest, _: Currency) -> Reason {
    grant.decided_by = Some(work.actor().to_owned());
    Ok(Some(request.reason.clone()))
}

async fn cancel(work: &mut Work, grant: &mut Grant, request: &pb::CancelGrantRequest, currency: Currency) -> Reason {
    // One that waits for approval has taken nothing.
    if grant.stage != Stage::PendingApproval {
        give_back(work, grant, currency).await?;
    }
    Ok(Some(request.reason.clone()))
}

async fn ship(work: &mut Work, grant: &mut Grant, request: &pb::ShipGrantRequest, currency: Currency) -> Reason {
    grant.shipping_reference = Some(request.shipping_reference.clone());
    commit(work, grant, currency).await?;
    Ok(None)
}

async fn confirm_delivery(
    work: &mut Work,
    grant: &mut Grant,
    request: &pb::ConfirmGrantDeliveryRequest,
    currency: Currency,
) -> Reason {
    let kept = kept(work, grant.estimate).await?;
    spend(work, grant, kept.as_ref(), currency, Some(request.payment_reference.clone())).await?;
    Ok(None)
}

async fn hand_over(work: &mut Work, grant: &mut Grant, _: &pb::HandOverGrantRequest, currency: Currency) -> Reason {
    keep_held(work, grant, currency).await?;
    Ok(None)
}

async fn take_back(work: &mut Work, grant: &mut Grant, request: &pb::ReturnGrantRequest, currency: Currency) -> Reason {
    let (end, kilometres, incidents) = used(request, currency)?;
    let Some(first) = kept(work, grant.estimate).await? else { return Ok(None) };
    let usage = grant.used(end, kilometres, incidents);
    let estimate = restated(work.conn(), &first, &usage, currency).await.map_err(wire::without_usage)?;
    let last = Kept { id: EstimateId::new(), usage, estimate, ..first };
    store::estimate::insert(work.conn(), &last).await?;
    store::booking::end(work.conn(), grant.id, end).await?;
    grant.restated = Some(last.id);
    Ok(None)
}

fn used(request: &pb::ReturnGrantRequest, currency: Currency) -> Result<Used, Vec<Violation>> {
    let mut reader = Reader::new("", currency);
    let end = reader.date("end_date", &request.end_date);
    let kilometres = reader.rate("kilometres", &request.kilometres);
    let incidents = cost_estimate::incidents(&mut reader, &request.incidents);
    reader.finish()?;
    let read = || Some((end?, kilometres?, incidents?));
    read().ok_or_else(Vec::new)
}

async fn settle_returned(work: &mut Work, grant: &mut Grant, request: &pb::SettleGrantRequest, currency: Currency) -> Reason {
    let held = kept(work, grant.estimate).await?.map_or(0, |kept| kept.estimate.cash());
    if let Some(last) = kept(work, grant.restated).await? {
        settle(work, grant, &last, held, currency, Some(request.payment_reference.clone())).await?;
    }
    Ok(None)
}

async fn fulfil(work: &mut Work, grant: &mut Grant, request: &pb::FulfilGrantRequest, currency: Currency) -> Reason {
    let kept = kept(work, grant.estimate).await?;
    pay(work, grant, kept.as_ref(), currency, Some(request.payment_reference.clone())).await?;
    Ok(None)
}
