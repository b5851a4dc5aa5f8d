//! ExportService.

use crate::{
    domain::{
        erasure::Terms,
        export::{Export, ExportId, REGISTRY},
        text::storable,
    },
    error::Error,
    flow::{
        erase_member::{check_living, lock_person},
        of_person,
    },
    store,
};
use koc_chassis::{
    clock,
    fault::Violations,
    gate::{Call, Gate, Work},
    ids::MemberId,
    privacy,
};
use koc_proto::koc::registry::v1 as pb;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use uuid::Uuid;

pub struct ExportApi {
    gate: Gate<Error>,
    terms: Arc<Terms>,
}

impl ExportApi {
    pub fn new(gate: Gate<Error>, terms: Arc<Terms>) -> Self {
        Self { gate, terms }
    }

    async fn get(&self, call: Call, request: pb::GetMemberExportRequest) -> Result<pb::GetMemberExportResponse, Error> {
        let id = ExportId::parse("export_id", &request.export_id)?;
        let mut conn = self.gate.db().read().await?;
        let export = store::export::get(&mut conn, call.programme, id).await?.ok_or(Error::ExportNotFound { export: id })?;
        Ok(pb::GetMemberExportResponse { export: Some(to_wire(export)) })
    }

    async fn part(&self, call: Call, request: pb::GetMemberExportPartRequest) -> Result<pb::GetMemberExportPartResponse, Error> {
        let id = ExportId::parse("export_id", &request.export_id)?;
        let mut tx = self.gate.db().snapshot().await?;
        store::export::get(&mut tx, call.programme, id).await?.ok_or(Error::ExportNotFound { export: id })?;
        let content = store::export::part(&mut tx, call.programme, id, &request.holder, request.part).await?;
        let content = content.ok_or(Error::ExportPartNotFound { holder: request.holder, part: request.part })?;
        Ok(pb::GetMemberExportPartResponse { content })
    }
}

fn to_wire(export: Export) -> pb::MemberExport {
    let complete = export.is_complete();
    let holder = |holder: crate::domain::export::Holder| pb::MemberExportHolder { holder: holder.name, part_count: holder.parts };
    pb::MemberExport {
        export_id: export.id.to_string(),
        member_id: export.member.to_string(),
        member_ids: export.members.iter().map(MemberId::to_string).collect(),
        actor: export.actor,
        request_time: Some(clock::to_proto(export.request_time)),
        deadline_time: Some(clock::to_proto(export.deadline)),
        expire_time: Some(clock::to_proto(export.expire_time)),
        complete,
        holders: export.holders.into_iter().map(holder).collect(),
    }
}

#[tonic::async_trait]
impl pb::export_service_server::ExportService for ExportApi {
    async fn request_member_export(
        &self,
        request: Request<pb::RequestMemberExportRequest>,
    ) -> Result<Response<pb::RequestMemberExportResponse>, Status> {
        let terms = &self.terms;
        self.gate
            .mutate(request, |work, request| {
                let terms = terms.clone();
                Box::pin(async move { begin(work, request, &terms).await })
            })
            .await
            .map(Into::into)
    }

    async fn get_member_export(
        &self,
        request: Request<pb::GetMemberExportRequest>,
    ) -> Result<Response<pb::GetMemberExportResponse>, Status> {
        self.gate.read(request, |call, request| self.get(call, request)).await
    }

    async fn get_member_export_part(
        &self,
        request: Request<pb::GetMemberExportPartRequest>,
    ) -> Result<Response<pb::GetMemberExportPartResponse>, Status> {
        self.gate.read(request, |call, request| self.part(call, request)).await
    }

    async fn provide_member_export(
        &self,
        request: Request<pb::ProvideMemberExportRequest>,
    ) -> Result<Response<pb::ProvideMemberExportResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(provide(work, request))).await.map(Into::into)
    }
}

async fn begin(
    work: &mut Work,
    request: pb::RequestMemberExportRequest,
    terms: &Terms,
) -> Result<pb::RequestMemberExportResponse, Error> {
    let member = MemberId::parse("member_id", &request.member_id)?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    // Locked, so that it comes before an erasure, which deletes it, or after one.
    let person = lock_person(work.conn(), programme, member).await?;
    person.iter().try_for_each(check_living)?;
    let Some(end) = person.iter().find(|one| one.merged_into.is_none()) else { return Err(sqlx::Error::RowNotFound.into()) };
    let ids: Vec<Uuid> = person.iter().map(|one| one.id.0).collect();
    let now = work.now().await?;
    let members = ids.iter().copied().map(MemberId).collect();
    let mut export = Export::begin(end.id, members, actor, now, &terms.consumers);
    store::export::insert(work.conn(), programme, &export).await?;
    let held = of_person::collect(work.conn(), programme, &person).await?;
    let parts = privacy::parts(&held);
    for (part, content) in (1..).zip(&parts) {
        store::export::put_part(work.conn(), programme, export.id, REGISTRY, part, content).await?;
    }
    let last = i32::try_from(parts.len()).unwrap_or(i32::MAX);
    store::export::complete(work.conn(), programme, export.id, REGISTRY, last).await?;
    for holder in export.holders.iter_mut().filter(|holder| holder.name == REGISTRY) {
        holder.parts = last;
    }
    let fact = pb::MemberExportRequested {
        export_id: export.id.to_string(),
        member_id: end.id.to_string(),
        member_ids: export.members.iter().map(MemberId::to_string).collect(),
    };
    work.emit(end.id.0, &fact).await?;
    work.audit(end.id.0, None);
    Ok(pb::RequestMemberExportResponse { export: Some(to_wire(export)) })
}

async fn provide(work: &mut Work, request: pb::ProvideMemberExportRequest) -> Result<pb::ProvideMemberExportResponse, Error> {
    let pb::ProvideMemberExportRequest { holder, part, last, content, .. } = request;
    let mut violations = Violations::default();
    let id = violations.take(ExportId::parse("export_id", &request.export_id));
    violations.take(storable("content", &content));
    violations.finish()?;
    let id = id.ok_or_else(|| Error::Invalid(Vec::new()))?;
    let programme = work.programme();
    if store::export::get(work.conn(), programme, id).await?.is_none() {
        return Err(Error::ExportNotFound { export: id });
    }
    if !store::export::lock_holder(work.conn(), programme, id, &holder).await? {
        return Err(Error::HolderUnknown { holder });
    }
    store::export::put_part(work.conn(), programme, id, &holder, part, &content).await?;
    if last && !store::export::complete(work.conn(), programme, id, &holder, part).await? {
        return Err(Error::ExportPartMissing { holder, last: part });
    }
    work.audit(id.0, Some(holder));
    Ok(pb::ProvideMemberExportResponse { complete: last })
}
