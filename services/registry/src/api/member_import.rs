//! MemberImportService.

use super::{
    convert::{Wire, wire_enum},
    sync::{Opened, opened},
    sync_run,
};
use crate::{
    domain::{
        member_import::{Import, ImportId, ImportState, Refusal},
        sync_run::Settings,
    },
    error::Error,
    flow::import_members,
    store,
};
use koc_chassis::{
    clock,
    fault::Violation,
    gate::{Call, Gate, Work},
};
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};

wire_enum! {
    MemberImportState = ImportState { Receiving, Running, Ended, Cancelled, LineTooLong }
}

pub struct MemberImportApi {
    gate: Gate<Error>,
}

impl MemberImportApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn append(
        &self,
        call: Call,
        request: pb::AppendMemberImportChunkRequest,
    ) -> Result<pb::AppendMemberImportChunkResponse, Error> {
        let id = ImportId::parse("import_id", &request.import_id)?;
        let db = self.gate.db();
        let received_bytes = import_members::append(db, (&call).into(), id, request.offset, &request.content).await?;
        Ok(pb::AppendMemberImportChunkResponse { received_bytes })
    }

    async fn get(&self, call: Call, request: pb::GetMemberImportRequest) -> Result<pb::GetMemberImportResponse, Error> {
        let id = ImportId::parse("import_id", &request.import_id)?;
        let mut conn = self.gate.db().snapshot().await?;
        let import = store::member_import::get(&mut conn, call.programme, id).await?;
        let import = import.ok_or(Refusal::NotFound { import: id })?;
        Ok(pb::GetMemberImportResponse { member_import: Some(to_wire(&mut conn, import).await?) })
    }
}

#[tonic::async_trait]
impl pb::member_import_service_server::MemberImportService for MemberImportApi {
    async fn create_member_import(
        &self,
        request: Request<pb::CreateMemberImportRequest>,
    ) -> Result<Response<pb::CreateMemberImportResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(create(work, request))).await.map(Into::into)
    }

    async fn append_member_import_chunk(
        &self,
        request: Request<pb::AppendMemberImportChunkRequest>,
    ) -> Result<Response<pb::AppendMemberImportChunkResponse>, Status> {
        self.gate.read(request, |call, request| self.append(call, request)).await
    }

    async fn import_members(
        &self,
        request: Request<pb::ImportMembersRequest>,
    ) -> Result<Response<pb::ImportMembersResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(import(work, request))).await.map(Into::into)
    }

    async fn get_member_import(
        &self,
        request: Request<pb::GetMemberImportRequest>,
    ) -> Result<Response<pb::GetMemberImportResponse>, Status> {
        self.gate.read(request, |call, request| self.get(call, request)).await
    }

    async fn cancel_member_import(
        &self,
        request: Request<pb::CancelMemberImportRequest>,
    ) -> Result<Response<pb::CancelMemberImportResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(cancel(work, request))).await.map(Into::into)
    }
}

async fn create(work: &mut Work, request: pb::CreateMemberImportRequest) -> Result<pb::CreateMemberImportResponse, Error> {
    let import = import_members::create(work, &settings(request.run.unwrap_or_default())?).await?;
    work.audit(import.id.0, None);
    Ok(pb::CreateMemberImportResponse { member_import: Some(to_wire(work.conn(), import).await?) })
}

/// A new run's: one that exists is somebody's.
fn settings(opening: pb::SyncOpening) -> Result<Settings, Vec<Violation>> {
    match opened("run", opening)? {
        Opened::Named(settings) => Ok(settings),
        Opened::Known(_) => {
            let rule = "must be empty: a file needs a run of its own";
            Err(vec![Violation::new("run.sync_run_id", "RUN_NOT_NEW", rule)])
        }
    }
}

async fn import(work: &mut Work, request: pb::ImportMembersRequest) -> Result<pb::ImportMembersResponse, Error> {
    let id = ImportId::parse("import_id", &request.import_id)?;
    let call = work.call.clone();
    let import = import_members::start(work.conn(), (&call).into(), id, request.total_bytes).await?;
    work.audit(id.0, None);
    Ok(pb::ImportMembersResponse { member_import: Some(to_wire(work.conn(), import).await?) })
}

async fn cancel(work: &mut Work, request: pb::CancelMemberImportRequest) -> Result<pb::CancelMemberImportResponse, Error> {
    let id = ImportId::parse("import_id", &request.import_id)?;
    let call = work.call.clone();
    let import = import_members::cancel(work.conn(), (&call).into(), id).await?;
    work.audit(id.0, None);
    Ok(pb::CancelMemberImportResponse { member_import: Some(to_wire(work.conn(), import).await?) })
}

async fn to_wire(conn: &mut PgConnection, import: Import) -> Result<pb::MemberImport, Error> {
    let run = store::sync_run::get(conn, import.programme, import.run).await?;
    Ok(pb::MemberImport {
        import_id: import.id.to_string(),
        state: import.state.to_wire(),
        received_bytes: import.received_bytes,
        read_bytes: import.read_bytes,
        read_lines: import.read_lines,
        run: run.map(sync_run::to_wire),
        actor: import.actor,
        create_time: Some(clock::to_proto(import.create_time)),
        update_time: Some(clock::to_proto(import.update_time)),
        end_time: import.end_time.map(clock::to_proto),
    })
}
