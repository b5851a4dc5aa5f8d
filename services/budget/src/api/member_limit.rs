//! MemberLimitService.

use super::{Api, convert};
use crate::{
    domain::member_limit::{LimitUse, MemberLimit},
    error::Error,
    flow::fact,
    ids::{DecisionId, MemberId, ProgrammeId},
    store,
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    fault::{Violation, Violations},
    gate::Call,
    members,
    money::{Currency, Money},
    page,
};
use koc_proto::koc::budget::v1 as pb;
use tonic::{Request, Response, Status};
use uuid::Uuid;

const LIST: &str = "ListMemberLimits";
/// Limits of one member that are looked through for one: some centuries of months.
const MAX_LIMITS: i64 = 10_000;

#[tonic::async_trait]
impl pb::member_limit_service_server::MemberLimitService for Api {
    async fn set_member_limit(
        &self,
        request: Request<pb::SetMemberLimitRequest>,
    ) -> Result<Response<pb::SetMemberLimitResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::SetMemberLimitRequest| {
            let currency = self.currencies.of(call.programme).await?;
            Ok((currency, new_limit(call.programme, request, currency)?))
        };
        self.gate
            .mutate_after(request, prepare, |work, _, (currency, mut new): (Currency, MemberLimit)| {
                Box::pin(async move {
                    let (programme, period) = (new.usage.programme, new.usage.period);
                    let persons = store::member::lock_persons(work.conn(), programme, &[new.usage.member]).await?;
                    let member = members::group(work.conn(), programme, new.usage.member).await?[0];
                    new.usage.member = member;
                    store::member_limit::take_borrowed(work.conn(), programme, &persons).await?;
                    if let Some(other) = store::member_limit::overlapping(work.conn(), programme, member, &period).await? {
                        return Err(Error::PeriodOverlaps(other));
                    }
                    let actor = work.actor().to_owned();
                    let mut limit = store::member_limit::set(work.conn(), &new, &actor).await?;
                    if persons.len() > 1 {
                        store::member_limit::set_aside(work.conn(), programme, &persons, member, &period).await?;
                        store::member_limit::lend(work.conn(), programme, &persons).await?;
                        // What all of them have in use counts.
                        let all = store::member_limit::list(work.conn(), programme, Some(member), None, MAX_LIMITS).await?;
                        limit = all.into_iter().find(|one| one.usage.period == period).unwrap_or(limit);
                    }
                    work.audit(member.0, Some(new.reason.clone()));
                    work.emit(member.0, &fact::member_limit_set(&limit, currency)).await?;
                    Ok(pb::SetMemberLimitResponse { member_limit: Some(convert::member_limit(&limit, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn list_member_limits(
        &self,
        request: Request<pb::ListMemberLimitsRequest>,
    ) -> Result<Response<pb::ListMemberLimitsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListMemberLimitsRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.member_id.as_str()];
                let after = page::key(LIST, &filters, &request.page_token)?.as_deref().map(parse_key).transpose()?;
                let member = MemberId::parse_optional("member_id", &request.member_id)?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let mut conn = self.gate.db().read().await?;
                let member = match member {
                    Some(member) => members::group(&mut conn, call.programme, member).await?.first().copied(),
                    None => None,
                };
                let mut limits = store::member_limit::list(&mut conn, call.programme, member, after, size + 1).await?;
                let next_page_token = page::cut(&mut limits, size, |limit| page::token(LIST, &filters, &key(limit)));
                let member_limits = limits.iter().map(|limit| convert::member_limit(limit, currency)).collect();
                Ok(pb::ListMemberLimitsResponse { member_limits, next_page_token })
            })
            .await
    }
}

fn new_limit(
    programme: ProgrammeId,
    request: &pb::SetMemberLimitRequest,
    currency: Currency,
) -> Result<MemberLimit, Vec<Violation>> {
    let mut violations = Violations::default();
    let member = violations.take(MemberId::parse("member_id", &request.member_id));
    let decision = violations.take(DecisionId::parse_optional("decision_id", &request.decision_id));
    let period = violations.take_all(convert::period(request.period_start_time.as_ref(), request.period_end_time.as_ref()));
    let limit = violations.take(Money::parse_not_negative("limit", request.limit.as_ref(), currency));
    violations.finish()?;
    match (member, period, limit, decision) {
        (Some(member), Some(period), Some(limit), Some(decision)) => Ok(MemberLimit {
            usage: LimitUse { programme, member, period, limit: limit.minor, used: 0 },
            decision,
            reason: request.reason.clone(),
        }),
        _ => Err(Vec::new()),
    }
}

/// Where a page ends: the member, and the period's start in microseconds since 1970.
fn key(limit: &MemberLimit) -> String {
    format!("{}/{}", limit.usage.member, limit.usage.period.start().timestamp_micros())
}

fn parse_key(key: &str) -> Result<(Uuid, DateTime<Utc>), Violation> {
    let parsed = key.split_once('/').and_then(|(member, start)| Some((Uuid::try_parse(member).ok()?, page::time(start)?)));
    parsed.ok_or_else(page::invalid_token)
}
