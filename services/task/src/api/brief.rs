//! BriefService.

use super::convert;
use crate::{
    domain::{
        BriefId,
        brief::{Brief, Revision},
    },
    error::{BriefProblem, Error},
    peer::Registry,
    store,
};
use koc_chassis::{
    gate::{Call, Gate, Work},
    ids::ProgrammeId,
    page,
};
use koc_proto::koc::task::v1 as pb;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};

const LIST: &str = "ListBriefs";

pub struct BriefApi {
    pub gate: Gate<Error>,
    pub registry: Registry,
}

async fn found(conn: &mut PgConnection, programme: ProgrammeId, id: BriefId) -> Result<Brief, Error> {
    store::brief::find(conn, programme, id).await?.ok_or(Error::BriefNotFound(id))
}

/// A brief with its lock.
async fn locked(work: &mut Work, id: BriefId) -> Result<Brief, Error> {
    let programme = work.programme();
    if !store::brief::lock(work.conn(), programme, id).await? {
        return Err(Error::BriefNotFound(id));
    }
    found(work.conn(), programme, id).await
}

#[tonic::async_trait]
impl pb::brief_service_server::BriefService for BriefApi {
    async fn create_brief(&self, request: Request<pb::CreateBriefRequest>) -> Result<Response<pb::CreateBriefResponse>, Status> {
        let registry = self.registry.clone();
        let programme_exists = async move |call: &Call, _: &_| registry.currency(call.programme).await.map(|_| ());
        self.gate
            .mutate_after(request, programme_exists, |work, request, ()| {
                Box::pin(async move {
                    let content = convert::content_from_proto(request.content.unwrap_or_default())?;
                    let create_time = work.now().await?;
                    let revisions = vec![Revision { number: 1, content, publish_time: None }];
                    let brief = Brief { id: BriefId::new(), display_name: request.display_name, create_time, revisions };
                    let programme = work.programme();
                    store::brief::insert(work.conn(), programme, &brief).await?;
                    for revision in &brief.revisions {
                        store::brief::insert_draft(work.conn(), brief.id, revision.number, &revision.content).await?;
                    }
                    work.audit(brief.id.0, None);
                    Ok(pb::CreateBriefResponse { brief: Some(convert::brief_to_proto(programme, &brief)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn create_brief_revision(
        &self,
        request: Request<pb::CreateBriefRevisionRequest>,
    ) -> Result<Response<pb::CreateBriefRevisionResponse>, Status> {
        self.gate
            .mutate(request, |work, request| {
                Box::pin(async move {
                    let id = BriefId::parse("brief_id", &request.brief_id)?;
                    let content = convert::content_from_proto(request.content.unwrap_or_default())?;
                    let mut brief = locked(work, id).await?;
                    if brief.revisions.iter().any(|r| r.publish_time.is_none()) {
                        return Err(Error::BriefState { brief: id, problem: BriefProblem::DraftExists });
                    }
                    let number = brief.revisions.last().map_or(0, |r| r.number) + 1;
                    store::brief::insert_draft(work.conn(), id, number, &content).await?;
                    work.audit(id.0, None);
                    brief.revisions.push(Revision { number, content, publish_time: None });
                    Ok(pb::CreateBriefRevisionResponse { brief: Some(convert::brief_to_proto(work.programme(), &brief)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn publish_brief_revision(
        &self,
        request: Request<pb::PublishBriefRevisionRequest>,
    ) -> Result<Response<pb::PublishBriefRevisionResponse>, Status> {
        self.gate
            .mutate(request, |work, request| {
                Box::pin(async move {
                    let id = BriefId::parse("brief_id", &request.brief_id)?;
                    locked(work, id).await?;
                    let now = work.now().await?;
                    let published = store::brief::publish_draft(work.conn(), id, now).await?;
                    let revision = published.ok_or(Error::BriefState { brief: id, problem: BriefProblem::NoDraft })?;
                    work.emit(id.0, &pb::BriefRevisionPublished { brief_id: id.to_string(), revision }).await?;
                    work.audit(id.0, None);
                    let programme = work.programme();
                    let brief = found(work.conn(), programme, id).await?;
                    Ok(pb::PublishBriefRevisionResponse { brief: Some(convert::brief_to_proto(programme, &brief)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_brief(&self, request: Request<pb::GetBriefRequest>) -> Result<Response<pb::GetBriefResponse>, Status> {
        self.gate
            .read(request, async |call, request| {
                let id = BriefId::parse("brief_id", &request.brief_id)?;
                let mut tx = self.gate.db().begin().await?;
                let brief = found(&mut tx, call.programme, id).await?;
                Ok(pb::GetBriefResponse { brief: Some(convert::brief_to_proto(call.programme, &brief)) })
            })
            .await
    }

    async fn list_briefs(&self, request: Request<pb::ListBriefsRequest>) -> Result<Response<pb::ListBriefsResponse>, Status> {
        self.gate
            .read(request, async |call, request| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let size = page::size(request.page_size);
                let mut tx = self.gate.db().begin().await?;
                let mut briefs = store::brief::list(&mut tx, call.programme, after, size + 1).await?;
                let next_page_token = page::cut(&mut briefs, size, |b| page::token(LIST, &filters, &b.id.to_string()));
                let briefs = briefs.iter().map(|b| convert::brief_to_proto(call.programme, b)).collect();
                Ok(pb::ListBriefsResponse { briefs, next_page_token })
            })
            .await
    }
}
