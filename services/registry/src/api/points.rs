//! PointsService.

use super::convert::Wire;
use crate::{
    IDENTITY,
    domain::points::{Earning, Entry, EntryId, Source},
    error::Error,
    flow::move_points::{Moved, Movement, earn_batch, move_one},
    store,
};
use koc_chassis::{
    clock,
    fault::{self, ServiceError, Violation, Violations},
    gate::{Call, Gate, Work},
    ids::MemberId,
    page,
};
use koc_proto::{koc::registry::v1 as pb, rules::Rules};
use tonic::{Request, Response, Status};

pub struct PointsApi {
    gate: Gate<Error>,
}

impl PointsApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn list(&self, call: Call, request: pb::ListPointsEntriesRequest) -> Result<pb::ListPointsEntriesResponse, Error> {
        let programme = call.programme.to_string();
        let filters = [programme.as_str(), &request.member_id];
        let mut violations = Violations::default();
        let member = violations.take(MemberId::parse("member_id", &request.member_id));
        let before = violations.take(page::key("ListPointsEntries", &filters, &request.page_token).and_then(before));
        violations.finish()?;
        let (Some(member), Some(before)) = (member, before) else { return Err(Error::Invalid(Vec::new())) };
        let size = page::size(request.page_size);
        let mut conn = self.gate.db().read().await?;
        if !store::member::exists(&mut conn, call.programme, member).await? {
            return Err(Error::MemberNotFound { member: Some(member) });
        }
        let mut entries = store::points::list(&mut conn, call.programme, member, before, size + 1).await?;
        let token = |entry: &Entry| page::token("ListPointsEntries", &filters, &entry.sequence.to_string());
        let next_page_token = page::cut(&mut entries, size, token);
        Ok(pb::ListPointsEntriesResponse { entries: entries.into_iter().map(entry).collect(), next_page_token })
    }
}

/// The sequence before which a page begins.
fn before(key: Option<String>) -> Result<i64, Violation> {
    let Some(key) = key else { return Ok(i64::MAX) };
    key.parse().map_err(|_| Violation::new("page_token", "PAGE_TOKEN_INVALID", "must come from the page before"))
}

#[tonic::async_trait]
impl pb::points_service_server::PointsService for PointsApi {
    async fn earn_points(&self, request: Request<pb::EarnPointsRequest>) -> Result<Response<pb::EarnPointsResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(earn(work, request))).await.map(Into::into)
    }

    async fn batch_earn_points(
        &self,
        request: Request<pb::BatchEarnPointsRequest>,
    ) -> Result<Response<pb::BatchEarnPointsResponse>, Status> {
        let (call, request) = self.gate.admit(request)?;
        let asked: Vec<Result<(MemberId, Earning), Error>> =
            request.earnings.into_iter().map(|item| earning(item).map_err(Error::Invalid)).collect();
        let earnings: Vec<(MemberId, Earning)> = asked.iter().flatten().cloned().collect();
        let moved = earn_batch(self.gate.db(), &call, pb::BatchEarnPointsRequest::NAME, &earnings).await;
        let mut moved = moved.map_err(|error| self.gate.status(&error))?.into_iter();
        let results = asked.into_iter().zip(0..).map(|(asked, earning_index)| {
            // Each item that keeps the rules has an answer, in order.
            let answer = asked.and_then(|_| moved.next().unwrap_or_else(|| Err(sqlx::Error::RowNotFound.into())));
            result(earning_index, answer)
        });
        Ok(Response::new(pb::BatchEarnPointsResponse { results: results.collect() }))
    }

    async fn redeem_points(
        &self,
        request: Request<pb::RedeemPointsRequest>,
    ) -> Result<Response<pb::RedeemPointsResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(redeem(work, request))).await.map(Into::into)
    }

    async fn reverse_points(
        &self,
        request: Request<pb::ReversePointsRequest>,
    ) -> Result<Response<pb::ReversePointsResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(reverse(work, request))).await.map(Into::into)
    }

    async fn list_points_entries(
        &self,
        request: Request<pb::ListPointsEntriesRequest>,
    ) -> Result<Response<pb::ListPointsEntriesResponse>, Status> {
        self.gate.read(request, |call, request| self.list(call, request)).await
    }
}

async fn earn(work: &mut Work, request: pb::EarnPointsRequest) -> Result<pb::EarnPointsResponse, Error> {
    let pb::EarnPointsRequest { member_id, source, reason_code, amount, expire_time, .. } = request;
    let (member, earning) = earning(pb::PointsEarning { member_id, source, reason_code, amount, expire_time })?;
    let reason = why(&earning.source);
    let entry = moved(work, member, Movement::Earn(earning), reason).await?;
    Ok(pb::EarnPointsResponse { entry: Some(entry) })
}

async fn redeem(work: &mut Work, request: pb::RedeemPointsRequest) -> Result<pb::RedeemPointsResponse, Error> {
    let member = MemberId::parse("member_id", &request.member_id)?;
    let source = Source { reference: request.source, reason_code: request.reason_code };
    let reason = why(&source);
    let entry = moved(work, member, Movement::Redeem { source, amount: request.amount }, reason).await?;
    Ok(pb::RedeemPointsResponse { entry: Some(entry) })
}

async fn reverse(work: &mut Work, request: pb::ReversePointsRequest) -> Result<pb::ReversePointsResponse, Error> {
    let id = EntryId::parse("entry_id", &request.entry_id)?;
    let programme = work.programme();
    // An entry never changes, so it may be read before its member is locked.
    let origin = store::points::get(work.conn(), programme, id).await?.ok_or(Error::EntryNotFound { entry: id })?;
    let movement = Movement::Reverse { amount: request.amount, origin: origin.clone() };
    let entry = moved(work, origin.member, movement, request.reason).await?;
    Ok(pb::ReversePointsResponse { entry: Some(entry) })
}

async fn moved(work: &mut Work, member: MemberId, movement: Movement, reason: String) -> Result<pb::PointsEntry, Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    work.audit(member.0, Some(reason));
    move_one(work.conn(), programme, member, movement, &actor).await.map(entry)
}

fn why(source: &Source) -> String {
    format!("{} from {}", source.reason_code, source.reference)
}

/// An earning, or all that it breaks.
fn earning(wire: pb::PointsEarning) -> Result<(MemberId, Earning), Vec<Violation>> {
    let broken = wire.violations();
    if !broken.is_empty() {
        return Err(broken);
    }
    let mut violations = Violations::default();
    let member = violations.take(MemberId::parse("member_id", &wire.member_id));
    let time = wire.expire_time.as_ref().map(|time| clock::from_proto("expire_time", time)).transpose();
    let expire_time = violations.take(time).flatten();
    violations.finish()?;
    let source = Source { reference: wire.source, reason_code: wire.reason_code };
    Ok((member.ok_or_else(Vec::new)?, Earning { source, amount: wire.amount, expire_time }))
}

fn result(earning_index: i32, answer: Result<Moved, Error>) -> pb::PointsEarningResult {
    let outcome = match &answer {
        Ok(Moved::Now(_)) => pb::EarningOutcome::Earned,
        Ok(Moved::Before(_)) => pb::EarningOutcome::Repeated,
        Err(_) => pb::EarningOutcome::Rejected,
    };
    let (entry_id, balance_after, status) = match answer.map(Moved::entry) {
        Ok(entry) => (entry.id.to_string(), entry.balance_after, None),
        Err(error) => (String::new(), 0, Some(fault::to_rpc(&error.fault().into_status(IDENTITY.domain)))),
    };
    pb::PointsEarningResult { earning_index, outcome: outcome.into(), entry_id, balance_after, status }
}

fn entry(entry: Entry) -> pb::PointsEntry {
    pb::PointsEntry {
        entry_id: entry.id.to_string(),
        member_id: entry.member.to_string(),
        sequence: entry.sequence,
        kind: entry.kind.to_wire(),
        change: entry.change,
        balance_after: entry.balance_after,
        lifetime_after: entry.lifetime_after,
        shortfall: entry.shortfall(),
        source: entry.source.reference,
        reason_code: entry.source.reason_code,
        origin_entry_id: entry.origin.map(|origin| origin.id.to_string()).unwrap_or_default(),
        expire_time: entry.expire_time.map(clock::to_proto),
        actor: entry.actor,
        entry_time: Some(clock::to_proto(entry.entry_time)),
    }
}
