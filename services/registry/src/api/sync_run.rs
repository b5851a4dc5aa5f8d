//! SyncRunService.

use super::{
    convert::{Wire, wire_enum},
    sync::row,
};
use crate::{
    domain::{
        suppression::Keys,
        sync_run::{Mode, Refusal, Run, RunId, RunState},
        text::storable,
    },
    error::Error,
    flow::{
        retry_rejected::{Again, retry},
        sweep_unseen,
        sync_run::{outcome_to_wire, result, status},
    },
    store::{
        self,
        rejected_row::{Place, RejectedRow},
    },
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Gate, Work},
    page,
};
use koc_proto::koc::registry::v1 as pb;
use prost::Message;
use sqlx::PgConnection;
use std::sync::Arc;
use tonic::{Request, Response, Status};

wire_enum! {
    SyncMode = Mode { Incremental, Full }
    SyncRunState = RunState { Open, Checking, Held, Sweeping, Ended, Lapsed }
}

pub struct SyncRunApi {
    gate: Gate<Error>,
    keys: Arc<Keys>,
}

impl SyncRunApi {
    pub fn new(gate: Gate<Error>, keys: Arc<Keys>) -> Self {
        Self { gate, keys }
    }

    async fn get(&self, call: Call, request: pb::GetSyncRunRequest) -> Result<pb::GetSyncRunResponse, Error> {
        let mut conn = self.gate.db().read().await?;
        let run = find(&mut conn, &call, &request.sync_run_id).await?;
        Ok(pb::GetSyncRunResponse { run: Some(to_wire(run)) })
    }

    async fn list(&self, call: Call, request: pb::ListSyncRunsRequest) -> Result<pb::ListSyncRunsResponse, Error> {
        let programme = call.programme.to_string();
        let bound = [programme.as_str(), &request.source_system];
        let mut violations = Violations::default();
        violations.take(storable("source_system", &request.source_system));
        let before = violations.take(page::after_id("ListSyncRuns", &bound, &request.page_token)).flatten();
        violations.finish()?;
        let size = page::size(request.page_size);
        let mut conn = self.gate.db().read().await?;
        let mut runs = store::sync_run::list(&mut conn, call.programme, &request.source_system, before, size + 1).await?;
        let next_page_token = page::cut(&mut runs, size, |run| page::token("ListSyncRuns", &bound, &run.id.to_string()));
        Ok(pb::ListSyncRunsResponse { runs: runs.into_iter().map(to_wire).collect(), next_page_token })
    }

    async fn rejected(&self, call: Call, request: pb::ListRejectedRowsRequest) -> Result<pb::ListRejectedRowsResponse, Error> {
        const LIST: &str = "ListRejectedRows";
        let programme = call.programme.to_string();
        let bound = [programme.as_str(), &request.sync_run_id];
        let after = place(LIST, &bound, &request.page_token)?;
        let size = page::size(request.page_size);
        let mut conn = self.gate.db().read().await?;
        let run = find(&mut conn, &call, &request.sync_run_id).await?;
        let (rows, more) = store::rejected_row::list(&mut conn, &run, after, size).await?;
        let last = rows.last().filter(|_| more);
        let next_page_token = last.map(|row| page::token(LIST, &bound, &key(row.place))).unwrap_or_default();
        let rows = rows.into_iter().map(rejected_row).collect::<Result<_, Error>>()?;
        Ok(pb::ListRejectedRowsResponse { rows, next_page_token })
    }

    async fn retry(&self, call: Call, request: pb::RetryRejectedRowsRequest) -> Result<pb::RetryRejectedRowsResponse, Error> {
        const LIST: &str = "RetryRejectedRows";
        let programme = call.programme.to_string();
        let bound = [programme.as_str(), &request.sync_run_id];
        let mut violations = Violations::default();
        let id = violations.take(RunId::parse("sync_run_id", &request.sync_run_id));
        let after = violations.take(place(LIST, &bound, &request.page_token)).flatten();
        violations.finish()?;
        let id = id.ok_or_else(|| Error::Invalid(Vec::new()))?;
        let corrected = |c: pb::RejectedRowCorrection| {
            (Place { batch_number: c.batch_number, row_index: c.row_index }, c.row.unwrap_or_default())
        };
        let again = match request.corrections.is_empty() {
            true => Again::After(after),
            false => Again::Corrected(request.corrections.into_iter().map(corrected).collect()),
        };
        let retried = retry(self.gate.db(), (&call).into(), id, &again, row, &self.keys).await?;
        let rows = retried
            .rows
            .into_iter()
            .map(|(Place { batch_number, row_index }, applied)| pb::RetriedRow {
                batch_number,
                result: Some(result(applied, row_index)),
                not_rejected: false,
            })
            .chain(retried.none.into_iter().map(|Place { batch_number, row_index }| pb::RetriedRow {
                batch_number,
                result: Some(pb::MemberRowResult { row_index, ..Default::default() }),
                not_rejected: true,
            }))
            .collect();
        let next_page_token = retried.next.map(|place| page::token(LIST, &bound, &key(place))).unwrap_or_default();
        Ok(pb::RetryRejectedRowsResponse { rows, next_page_token })
    }
}

async fn find(conn: &mut PgConnection, call: &Call, id: &str) -> Result<Run, Error> {
    let run = RunId::parse("sync_run_id", id)?;
    Ok(store::sync_run::get(conn, call.programme, run).await?.ok_or(Refusal::NotFound { run })?)
}

/// A place as it stands in a page token.
fn key(place: Place) -> String {
    format!("{}.{}", place.batch_number, place.row_index)
}

fn place(list: &str, bound: &[&str], token: &str) -> Result<Option<Place>, Violation> {
    let Some(key) = page::key(list, bound, token)? else { return Ok(None) };
    let place = key
        .split_once('.')
        .and_then(|(batch, row)| Some(Place { batch_number: batch.parse().ok()?, row_index: row.parse().ok()? }));
    place.map(Some).ok_or_else(page::invalid_token)
}

fn rejected_row(row: RejectedRow) -> Result<pb::RejectedRow, Error> {
    let wire = pb::MemberRow::decode(row.content.as_slice()).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(pb::RejectedRow {
        batch_number: row.place.batch_number,
        row_index: row.place.row_index,
        row: Some(wire),
        status: Some(status(row.violations)),
        create_time: Some(clock::to_proto(row.create_time)),
    })
}

pub(super) fn to_wire(run: Run) -> pb::SyncRun {
    let count = |(outcome, rows)| pb::SyncOutcomeCount { outcome: outcome_to_wire(outcome).into(), rows };
    let mut counts: Vec<_> = run.counts.iter().map(count).collect();
    counts.sort_unstable_by_key(|count| count.outcome);
    pb::SyncRun {
        sync_run_id: run.id.to_string(),
        source_system: run.settings.source_system,
        run_name: run.settings.name,
        mode: run.settings.mode.to_wire(),
        validate_only: run.settings.validate_only,
        as_of: run.settings.as_of.map(clock::to_proto),
        max_delete_percent: run.settings.max_delete_percent,
        state: run.state.to_wire(),
        committed_through: run.committed_through,
        counts,
        unidentified_rows: run.unseen.unidentified,
        source_identities: run.unseen.source,
        unseen_identities: run.unseen.unseen,
        swept_identities: run.unseen.swept,
        actor: run.actor,
        closed_by: run.closed_by.unwrap_or_default(),
        create_time: Some(clock::to_proto(run.create_time)),
        update_time: Some(clock::to_proto(run.update_time)),
        end_time: run.end_time.map(clock::to_proto),
    }
}

#[tonic::async_trait]
impl pb::sync_run_service_server::SyncRunService for SyncRunApi {
    async fn get_sync_run(&self, request: Request<pb::GetSyncRunRequest>) -> Result<Response<pb::GetSyncRunResponse>, Status> {
        self.gate.read(request, |call, request| self.get(call, request)).await
    }

    async fn list_sync_runs(
        &self,
        request: Request<pb::ListSyncRunsRequest>,
    ) -> Result<Response<pb::ListSyncRunsResponse>, Status> {
        self.gate.read(request, |call, request| self.list(call, request)).await
    }

    async fn confirm_sweep(
        &self,
        request: Request<pb::ConfirmSweepRequest>,
    ) -> Result<Response<pb::ConfirmSweepResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(confirm(work, request))).await.map(Into::into)
    }

    async fn list_rejected_rows(
        &self,
        request: Request<pb::ListRejectedRowsRequest>,
    ) -> Result<Response<pb::ListRejectedRowsResponse>, Status> {
        self.gate.read(request, |call, request| self.rejected(call, request)).await
    }

    async fn retry_rejected_rows(
        &self,
        request: Request<pb::RetryRejectedRowsRequest>,
    ) -> Result<Response<pb::RetryRejectedRowsResponse>, Status> {
        self.gate.read(request, |call, request| self.retry(call, request)).await
    }
}

async fn confirm(work: &mut Work, request: pb::ConfirmSweepRequest) -> Result<pb::ConfirmSweepResponse, Error> {
    let mut violations = Violations::default();
    let run = violations.take(RunId::parse("sync_run_id", &request.sync_run_id));
    violations.take(storable("reason", &request.reason));
    violations.finish()?;
    let run = run.ok_or_else(|| Error::Invalid(Vec::new()))?;
    let call = work.call.clone();
    let run = sweep_unseen::confirm(work.conn(), (&call).into(), run).await?;
    work.audit(run.id.0, Some(request.reason));
    Ok(pb::ConfirmSweepResponse { run: Some(to_wire(run)) })
}
