//! ResourceService.

use super::{Api, convert, cost_estimate, cost_model};
use crate::{
    domain::{
        cost::{model::CostModel, parse_date},
        plan::ResourceClass,
        resource::{Resource, Retirement},
        resource_kind::ResourceKind,
    },
    error::Error,
    flow::{estimate_cost::estimated, fact::resource_kind},
    ids::{EstimateId, ProgrammeId, ResourceId},
    store,
};
use chrono::NaiveDate;
use koc_chassis::{
    clock,
    fault::{Violation, Violations, constraint},
    gate::{Call, Work},
    money::{Currency, Money},
    page,
};
use koc_proto::koc::budget::v1 as pb;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};

const LIST: &str = "ListResources";

#[tonic::async_trait]
impl pb::resource_service_server::ResourceService for Api {
    async fn create_resource(
        &self,
        request: Request<pb::CreateResourceRequest>,
    ) -> Result<Response<pb::CreateResourceResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::CreateResourceRequest| {
            let currency = self.currencies.of(call.programme).await?;
            let mut violations = Violations::default();
            let class = violations.take(convert::class_from_proto("resource_class", request.resource_class));
            let model = violations.take_all(cost_model::from_proto(request.cost_model.as_ref(), currency));
            violations.finish()?;
            Ok((currency, class.zip(model).ok_or_else(Vec::new)?))
        };
        self.gate
            .mutate_after(
                request,
                prepare,
                |work, request, (currency, (class, model)): (Currency, (ResourceClass, CostModel))| {
                    Box::pin(async move {
                        let now = work.now().await?;
                        let resource = Resource {
                            id: ResourceId::new(),
                            programme: work.programme(),
                            class,
                            display_name: request.display_name,
                            model,
                            version: 1,
                            retirement: None,
                            revision: 1,
                            set_by: work.actor().to_owned(),
                            reason: String::new(),
                            create_time: now,
                            version_time: now,
                        };
                        store::resource::insert(work.conn(), &resource).await.map_err(name_taken)?;
                        work.audit(resource.id.0, None);
                        Ok(pb::CreateResourceResponse { resource: Some(to_proto(&resource, currency)) })
                    })
                },
            )
            .await
            .map(Into::into)
    }

    async fn get_resource(&self, request: Request<pb::GetResourceRequest>) -> Result<Response<pb::GetResourceResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetResourceRequest| {
                let (id, currency) = self.resource_currency(call.programme, &request.resource_id).await?;
                let mut conn = self.gate.db().read().await?;
                let resource = found(&mut conn, call.programme, id, request.version).await?;
                Ok(pb::GetResourceResponse { resource: Some(to_proto(&resource, currency)) })
            })
            .await
    }

    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Result<Response<pb::ListResourcesResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListResourcesRequest| {
                let (programme, kind, state) = (call.programme.to_string(), request.kind.to_string(), request.state.to_string());
                let filters = [programme.as_str(), kind.as_str(), state.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let retired = match request.state() {
                    pb::ResourceState::Unspecified => None,
                    pb::ResourceState::Active => Some(false),
                    pb::ResourceState::Retired => Some(true),
                };
                let mut conn = self.gate.db().read().await?;
                let kind = kind_from_proto(request.kind());
                let mut resources = store::resource::list(&mut conn, call.programme, kind, retired, after, size + 1).await?;
                let next_page_token = page::cut(&mut resources, size, |r| page::token(LIST, &filters, &r.id.to_string()));
                let resources = resources.iter().map(|resource| to_proto(resource, currency)).collect();
                Ok(pb::ListResourcesResponse { resources, next_page_token })
            })
            .await
    }

    async fn update_resource(
        &self,
        request: Request<pb::UpdateResourceRequest>,
    ) -> Result<Response<pb::UpdateResourceResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::UpdateResourceRequest| {
            let (id, currency) = self.resource_currency(call.programme, &request.resource_id).await?;
            let model = request.cost_model.as_ref().map(|model| cost_model::from_proto(Some(model), currency)).transpose()?;
            let class = match request.resource_class() {
                pb::ResourceClass::Unspecified => None,
                class => Some(convert::class_from_proto("resource_class", class.into())?),
            };
            Ok((id, currency, class, model))
        };
        type Change = (ResourceId, Currency, Option<ResourceClass>, Option<CostModel>);
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, class, model): Change| {
                Box::pin(async move {
                    let mut resource = locked(work, id, &request.etag).await?;
                    if model.as_ref().is_some_and(|model| model.kind() != resource.model.kind()) {
                        return Err(Error::ResourceKind { resource: id, is: resource.model.kind() });
                    }
                    resource.class = class.unwrap_or(resource.class);
                    resource.model = model.unwrap_or(resource.model);
                    if !request.display_name.is_empty() {
                        resource.display_name = request.display_name;
                    }
                    resource.version += 1;
                    resource.revision += 1;
                    resource.set_by = work.actor().to_owned();
                    resource.reason = request.reason;
                    resource.version_time = work.now().await?;
                    store::resource::update(work.conn(), &resource).await.map_err(name_taken)?;
                    work.audit(id.0, Some(resource.reason.clone()));
                    Ok(pb::UpdateResourceResponse { resource: Some(to_proto(&resource, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn retire_resource(
        &self,
        request: Request<pb::RetireResourceRequest>,
    ) -> Result<Response<pb::RetireResourceResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::RetireResourceRequest| {
            let (id, currency) = self.resource_currency(call.programme, &request.resource_id).await?;
            let mut violations = Violations::default();
            let date = violations.take(parse_date("date", &request.date));
            let proceeds = request.proceeds.as_ref();
            let proceeds = proceeds.and_then(|wire| violations.take(Money::parse_not_negative("proceeds", Some(wire), currency)));
            violations.finish()?;
            Ok((id, currency, date.ok_or_else(Vec::new)?, proceeds.map(|money| money.minor)))
        };
        type End = (ResourceId, Currency, NaiveDate, Option<i64>);
        self.gate
            .mutate_after(request, prepare, |work, request, (id, currency, date, proceeds): End| {
                Box::pin(async move {
                    let mut resource = locked(work, id, &request.etag).await?;
                    let open = store::grant::open_of(work.conn(), id).await?;
                    if open > 0 {
                        return Err(Error::GrantsOpen { resource: id, count: open });
                    }
                    let book_value = resource.model.book(currency).map(|book| book.value_on(date));
                    if book_value.is_none() && proceeds.is_some() {
                        let shape = "must be absent: a resource of this kind has nothing in the books";
                        return Err(Violation::new("proceeds", "PROCEEDS_NOT_TAKEN", shape).into());
                    }
                    let proceeds = book_value.and(Some(proceeds.unwrap_or(0)));
                    resource.retirement = Some(Retirement { date, book_value, proceeds });
                    resource.revision += 1;
                    store::resource::retire(work.conn(), &resource).await?;
                    work.audit(id.0, Some(request.reason));
                    Ok(pb::RetireResourceResponse { resource: Some(to_proto(&resource, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn estimate_cost(
        &self,
        request: Request<pb::EstimateCostRequest>,
    ) -> Result<Response<pb::EstimateCostResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::EstimateCostRequest| {
                let (id, currency) = self.resource_currency(call.programme, &request.resource_id).await?;
                let usage = cost_estimate::usage(request.usage.as_ref(), currency)?;
                let mut tx = self.gate.db().snapshot().await?;
                let resource = found(&mut tx, call.programme, id, request.resource_version).await?;
                let made = estimated(&mut tx, &resource, &usage, currency).await?;
                Ok(pb::EstimateCostResponse {
                    estimate: Some(cost_estimate::estimate((id, resource.version), &usage, &made, currency)),
                })
            })
            .await
    }

    async fn get_estimate(&self, request: Request<pb::GetEstimateRequest>) -> Result<Response<pb::GetEstimateResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetEstimateRequest| {
                let id = EstimateId::parse("estimate_id", &request.estimate_id)?;
                let currency = self.currencies.known(call.programme).await?.ok_or(Error::EstimateNotFound(id))?;
                let mut conn = self.gate.db().read().await?;
                let found = store::estimate::by_id(&mut conn, &[id]).await?.remove(&id);
                let kept = found.filter(|kept| kept.programme == call.programme).ok_or(Error::EstimateNotFound(id))?;
                Ok(pb::GetEstimateResponse { estimate: Some(cost_estimate::kept(&kept, currency)) })
            })
            .await
    }
}

impl Api {
    /// The resource's id and its programme's currency; a programme without either has no such resource.
    pub(super) async fn resource_currency(&self, programme: ProgrammeId, id: &str) -> Result<(ResourceId, Currency), Error> {
        let id = ResourceId::parse("resource_id", id)?;
        Ok((id, self.currencies.known(programme).await?.ok_or(Error::ResourceNotFound(id))?))
    }
}

/// A resource in a version; 0 for the newest.
pub async fn found(conn: &mut PgConnection, programme: ProgrammeId, id: ResourceId, version: i64) -> Result<Resource, Error> {
    let version = Some(version).filter(|version| *version > 0);
    store::resource::find(conn, programme, id, version).await?.ok_or(Error::ResourceNotFound(id))
}

/// A resource in use, locked.
async fn locked(work: &mut Work, id: ResourceId, etag: &str) -> Result<Resource, Error> {
    let programme = work.programme();
    store::resource::lock(work.conn(), programme, id).await?;
    let resource = found(work.conn(), programme, id, 0).await?;
    if resource.retirement.is_some() {
        return Err(Error::ResourceRetired(id));
    }
    if page::etag_matches(etag, resource.revision) { Ok(resource) } else { Err(Error::ResourceChanged(id)) }
}

fn name_taken(error: sqlx::Error) -> Error {
    match constraint(&error) {
        Some("resource_name") => Error::ResourceNameTaken,
        _ => Error::Database(error),
    }
}

fn to_proto(resource: &Resource, currency: Currency) -> pb::Resource {
    let money = |minor: Option<i64>| minor.and_then(|minor| convert::money(minor, currency));
    let state = match resource.retirement {
        None => pb::ResourceState::Active,
        Some(_) => pb::ResourceState::Retired,
    };
    let retirement = resource.retirement.map(|end| pb::Retirement {
        date: end.date.to_string(),
        book_value: money(end.book_value),
        proceeds: money(end.proceeds),
        gain: money(end.gain()),
    });
    pb::Resource {
        resource_id: resource.id.to_string(),
        programme_id: resource.programme.to_string(),
        kind: resource_kind(resource.model.kind()).into(),
        resource_class: convert::class_to_proto(resource.class).into(),
        display_name: resource.display_name.clone(),
        cost_model: Some(cost_model::to_proto(&resource.model, currency)),
        version: resource.version,
        state: state.into(),
        retirement,
        etag: page::etag(resource.revision),
        set_by: resource.set_by.clone(),
        reason: resource.reason.clone(),
        create_time: Some(clock::to_proto(resource.create_time)),
        version_time: Some(clock::to_proto(resource.version_time)),
    }
}

/// None for UNSPECIFIED.
fn kind_from_proto(kind: pb::ResourceKind) -> Option<ResourceKind> {
    ResourceKind::ALL.iter().copied().find(|known| resource_kind(*known) == kind)
}
