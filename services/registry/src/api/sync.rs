//! SyncService.

use super::convert;
use crate::{
    IDENTITY,
    domain::{
        suppression::Keys,
        sync::{Outcome, Row},
    },
    error::Error,
    flow::apply_batch::{Applied, Batch, apply_batch},
};
use futures::{Stream, stream};
use koc_chassis::{
    auth::Caller,
    clock,
    context::{self, Current},
    fault::{self, Violation, Violations},
    gate::{Call, Gate},
    ids::ProgrammeId,
};
use koc_proto::{codec, google::rpc, koc::registry::v1 as pb, rules::Rules};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span, info_span};

/// Batches at work at once may hold one in so many of the database connections, so that other calls have some too. Those beyond wait,
/// in the order they came.
const CONNECTIONS_PER_BATCH: u32 = 4;
/// One batch of a stream may take so long.
const BATCH_DEADLINE: Duration = Duration::from_secs(30);

pub struct SyncApi {
    gate: Gate<Error>,
    drain: CancellationToken,
    slots: Arc<Semaphore>,
    keys: Arc<Keys>,
}

impl SyncApi {
    pub fn new(gate: Gate<Error>, keys: Arc<Keys>, drain: CancellationToken) -> Self {
        let slots = gate.db().pool().options().get_max_connections().div_ceil(CONNECTIONS_PER_BATCH);
        Self { gate, drain, slots: Arc::new(Semaphore::new(slots as usize)), keys }
    }
}

/// Applies a batch when it is its turn.
async fn apply(gate: &Gate<Error>, slots: &Semaphore, call: &Call, batch: &Batch) -> Result<Vec<Applied>, Status> {
    // Nobody closes the semaphore.
    let _slot = slots.acquire().await.map_err(|_| gate.status(&Error::Draining))?;
    apply_batch(gate.db(), call, batch).await.map_err(|error| gate.status(&error))
}

type Batches = Pin<Box<dyn Stream<Item = Result<pb::SyncMembersResponse, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl pb::sync_service_server::SyncService for SyncApi {
    async fn batch_upsert_members(
        &self,
        request: Request<pb::BatchUpsertMembersRequest>,
    ) -> Result<Response<pb::BatchUpsertMembersResponse>, Status> {
        let (call, request) = self.gate.admit(request)?;
        let batch = Batch {
            source_system: request.source_system,
            rows: request.rows.into_iter().map(row).collect(),
            validate_only: request.validate_only,
            method: pb::BatchUpsertMembersRequest::NAME,
            keys: self.keys.clone(),
        };
        let applied = apply(&self.gate, &self.slots, &call, &batch).await?;
        Ok(Response::new(pb::BatchUpsertMembersResponse { results: results(applied) }))
    }

    type SyncMembersStream = Batches;

    async fn sync_members(
        &self,
        request: Request<Streaming<pb::SyncMembersRequest>>,
    ) -> Result<Response<Self::SyncMembersStream>, Status> {
        let sync = Sync {
            gate: self.gate.clone(),
            drain: self.drain.clone(),
            slots: self.slots.clone(),
            keys: self.keys.clone(),
            caller: self.gate.caller(&request)?,
            batches: request.into_inner(),
            programme: None,
            next_batch: 1,
            span: Span::current(),
        };
        // A batch is read only when the answer before is taken, and a caller that goes away drops the batch at work.
        let answers = stream::unfold(Some(sync), |sync| async move {
            let mut sync = sync?;
            match sync.next().await {
                Ok(Some(answer)) => Some((Ok(answer), Some(sync))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// A stream of batches at work.
struct Sync {
    gate: Gate<Error>,
    drain: CancellationToken,
    slots: Arc<Semaphore>,
    keys: Arc<Keys>,
    caller: Arc<Caller>,
    batches: Streaming<pb::SyncMembersRequest>,
    /// That of the first batch.
    programme: Option<ProgrammeId>,
    next_batch: i64,
    span: Span,
}

impl Sync {
    /// Takes the next batch and answers it once it is committed; None when the caller has sent the last.
    async fn next(&mut self) -> Result<Option<pb::SyncMembersResponse>, Status> {
        let message = tokio::select! {
            biased;
            () = self.drain.cancelled() => return Err(self.gate.status(&Error::Draining)),
            message = self.batches.message() => message?,
        };
        let Some(request) = message else { return Ok(None) };
        let span = info_span!(parent: &self.span, "sync_batch", batch_number = request.batch_number, rows = request.rows.len());
        let current = Current { deadline: Instant::now() + BATCH_DEADLINE, actor: self.caller.actor.clone() };
        context::scope(current, self.answer(request)).instrument(span).await.map(Some)
    }

    async fn answer(&mut self, request: pb::SyncMembersRequest) -> Result<pb::SyncMembersResponse, Status> {
        let call = self.gate.enter(self.caller.clone(), &request)?;
        let programme = *self.programme.get_or_insert(call.programme);
        let mut violations = Violations::default();
        if programme != call.programme {
            let rule = "must be the same in all batches of a stream";
            violations.push(Violation::new("programme_id", "PROGRAMME_CHANGED", rule));
        }
        if request.batch_number != self.next_batch {
            let rule = format!("must be {} now; got {}", self.next_batch, request.batch_number);
            violations.push(Violation::new("batch_number", "BATCH_OUT_OF_ORDER", rule));
        }
        violations.finish().map_err(|violations| self.gate.status(&Error::Invalid(violations)))?;
        let batch = Batch {
            source_system: request.source_system,
            rows: request.rows.into_iter().map(row).collect(),
            validate_only: request.validate_only,
            method: pb::SyncMembersRequest::NAME,
            keys: self.keys.clone(),
        };
        let applied = apply(&self.gate, &self.slots, &call, &batch).await?;
        self.next_batch += 1;
        Ok(pb::SyncMembersResponse { committed_through: request.batch_number, results: results(applied) })
    }
}

/// A row, or all that it breaks.
fn row(wire: pb::MemberRow) -> Result<Row, Vec<Violation>> {
    let broken = wire.violations();
    if !broken.is_empty() {
        return Err(broken);
    }
    let mut violations = Violations::default();
    let source_time = violations.take(clock::required("source_time", wire.source_time.as_ref()));
    let values = violations.take_all(convert::profile(wire.profile.unwrap_or_default())).unwrap_or_default();
    let row = violations.take_all(Row::new(wire.external_id, source_time.unwrap_or_default(), values, &wire.clear_fields));
    violations.finish()?;
    row.ok_or_else(Vec::new)
}

fn results(applied: Vec<Applied>) -> Vec<pb::MemberRowResult> {
    applied
        .into_iter()
        .zip(0..)
        .map(|(applied, row_index)| match applied {
            Applied::Done { outcome, member } => pb::MemberRowResult {
                row_index,
                outcome: outcome_to_wire(outcome) as i32,
                member_id: member.map(|id| id.to_string()).unwrap_or_default(),
                status: None,
            },
            Applied::Rejected(violations) => pb::MemberRowResult {
                row_index,
                outcome: pb::SyncOutcome::Rejected as i32,
                member_id: String::new(),
                status: Some(status(violations)),
            },
        })
        .collect()
}

fn outcome_to_wire(outcome: Outcome) -> pb::SyncOutcome {
    match outcome {
        Outcome::Created => pb::SyncOutcome::Created,
        Outcome::Updated => pb::SyncOutcome::Updated,
        Outcome::Unchanged => pb::SyncOutcome::Unchanged,
        Outcome::Stale => pb::SyncOutcome::Stale,
        Outcome::Merged => pb::SyncOutcome::Merged,
        Outcome::Suppressed => pb::SyncOutcome::Suppressed,
    }
}

/// The status of a rejected row.
fn status(violations: Vec<Violation>) -> rpc::Status {
    fault::to_rpc(&codec::invalid(IDENTITY.domain, violations))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_row_reports_all_it_breaks_with_the_paths_of_its_fields() {
        let profile = pb::MemberProfile { email: "nobody".into(), phone: "12".into(), ..Default::default() };
        let wire = pb::MemberRow { profile: Some(profile), ..Default::default() };
        let fields: Vec<_> = row(wire).expect_err("four rules").into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["external_id", "source_time", "profile.email", "profile.phone"]);
    }

    #[test]
    fn the_status_of_a_rejected_row_carries_its_field_violations() {
        use tonic_types::pb::BadRequest;
        let status = status(vec![Violation::new("profile.email", "string.pattern", "must match")]);
        assert_eq!(status.code, tonic::Code::InvalidArgument as i32);
        let detail = status.details.iter().find(|any| any.type_url.ends_with("google.rpc.BadRequest")).expect("field violations");
        let broken = BadRequest::decode(detail.value.as_slice()).expect("a BadRequest");
        assert_eq!(broken.field_violations[0].field, "profile.email");
    }
}
