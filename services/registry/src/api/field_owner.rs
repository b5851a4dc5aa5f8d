//! FieldOwnerService.

use crate::{
    domain::{
        ownership::{all_ownable, ownable},
        profile::Field,
        text::storable,
    },
    error::Error,
    store::{self, field_owner::Set},
};
use koc_chassis::{
    clock,
    fault::Violations,
    gate::{Call, Gate, Work},
    page,
};
use koc_proto::koc::registry::v1 as pb;
use tonic::{Request, Response, Status};

pub struct FieldOwnerApi {
    gate: Gate<Error>,
}

impl FieldOwnerApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn list(&self, call: Call) -> Result<pb::ListFieldOwnersResponse, Error> {
        let programme = call.programme;
        let mut conn = self.gate.db().read().await?;
        store::programme::get(&mut conn, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
        let mut set = store::field_owner::list(&mut conn, programme).await?;
        let field_owners = all_ownable().map(|field| to_wire(field, set.remove(&field))).collect();
        Ok(pb::ListFieldOwnersResponse { field_owners })
    }
}

#[tonic::async_trait]
impl pb::field_owner_service_server::FieldOwnerService for FieldOwnerApi {
    async fn set_field_owner(
        &self,
        request: Request<pb::SetFieldOwnerRequest>,
    ) -> Result<Response<pb::SetFieldOwnerResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(set(work, request))).await.map(Into::into)
    }

    async fn list_field_owners(
        &self,
        request: Request<pb::ListFieldOwnersRequest>,
    ) -> Result<Response<pb::ListFieldOwnersResponse>, Status> {
        self.gate.read(request, |call, _| self.list(call)).await
    }
}

async fn set(work: &mut Work, request: pb::SetFieldOwnerRequest) -> Result<pb::SetFieldOwnerResponse, Error> {
    let mut violations = Violations::default();
    let field = violations.take(ownable(&request.field));
    violations.take(storable("reason", &request.reason));
    violations.finish()?;
    let field = field.ok_or_else(|| Error::Invalid(Vec::new()))?;

    let programme = work.programme();
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::ProgrammeNotFound { programme });
    }
    let version = store::field_owner::list(work.conn(), programme).await?.get(&field).map_or(0, |set| set.version);
    if !page::etag_matches(&request.etag, version) {
        return Err(Error::FieldOwnerEtagMismatch { field: field.name(), version });
    }
    let (actor, update_time) = (work.actor().to_owned(), work.now().await?);
    let set = Set { source_system: request.source_system, version: version + 1, actor, update_time };
    store::field_owner::put(work.conn(), programme, field, &set).await?;
    work.audit(programme.0, Some(request.reason));
    Ok(pb::SetFieldOwnerResponse { field_owner: Some(to_wire(field, Some(set))) })
}

fn to_wire(field: Field, set: Option<Set>) -> pb::FieldOwner {
    let field = field.name().to_owned();
    match set {
        None => pb::FieldOwner { field, etag: page::etag(0), ..Default::default() },
        Some(set) => pb::FieldOwner {
            field,
            source_system: set.source_system,
            etag: page::etag(set.version),
            actor: set.actor,
            update_time: Some(clock::to_proto(set.update_time)),
        },
    }
}
