//! ProgrammeService.

use super::convert;
use crate::{
    domain::{
        programme::{NewProgramme, Programme},
        tier::{Policy, Rules, default_tiers, policy::Version},
    },
    error::Error,
    store,
};
use koc_chassis::gate::{Call, Gate, Work};
use koc_proto::koc::registry::v1 as pb;
use tonic::{Request, Response, Status};

pub struct ProgrammeApi {
    gate: Gate<Error>,
}

impl ProgrammeApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn get(&self, call: Call) -> Result<pb::GetProgrammeResponse, Error> {
        let mut conn = self.gate.db().read().await?;
        let programme = store::programme::get(&mut conn, call.programme).await?;
        let programme = programme.ok_or(Error::ProgrammeNotFound { programme: call.programme })?;
        Ok(pb::GetProgrammeResponse { programme: Some(convert::programme(programme)) })
    }
}

#[tonic::async_trait]
impl pb::programme_service_server::ProgrammeService for ProgrammeApi {
    async fn create_programme(
        &self,
        request: Request<pb::CreateProgrammeRequest>,
    ) -> Result<Response<pb::CreateProgrammeResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(create(work, request))).await.map(Into::into)
    }

    async fn get_programme(
        &self,
        request: Request<pb::GetProgrammeRequest>,
    ) -> Result<Response<pb::GetProgrammeResponse>, Status> {
        self.gate.read(request, |call, _| self.get(call)).await
    }
}

async fn create(work: &mut Work, request: pb::CreateProgrammeRequest) -> Result<pb::CreateProgrammeResponse, Error> {
    let new = NewProgramme::parse(request.display_name, &request.currency_code, &request.time_zone)?;
    let (id, actor) = (work.programme(), work.actor().to_owned());
    let create_time = work.now().await?;
    if !store::programme::insert(work.conn(), id, &new, create_time).await? {
        return Err(Error::ProgrammeExists { programme: id });
    }
    store::tier::insert_all(work.conn(), id, &default_tiers()).await?;
    let version = Version {
        policy: Policy { version: 1, rules: Rules::default() },
        effective_time: create_time,
        reason: "the rules a programme begins with".to_owned(),
        actor,
        authors: Vec::new(),
        create_time,
    };
    store::tier::policy::insert(work.conn(), id, &version).await?;
    work.emit(id.0, &pb::ProgrammeCreated { programme_id: id.to_string() }).await?;
    work.audit(id.0, None);
    let NewProgramme { display_name, currency, time_zone } = new;
    let programme = Programme { id, display_name, currency, time_zone, create_time };
    Ok(pb::CreateProgrammeResponse { programme: Some(convert::programme(programme)) })
}
