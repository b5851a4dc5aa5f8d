//! StockService.

use super::{Api, resource::found};
use crate::{
    domain::{resource::Resource, resource_kind::ResourceKind, stock::Movement},
    error::Error,
    flow::fact::optional,
    ids::{ProgrammeId, ResourceId},
    store::{self, stock::Cause},
};
use koc_chassis::{clock, page};
use koc_proto::koc::budget::v1 as pb;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};

const LIST: &str = "ListStockMovements";

#[tonic::async_trait]
impl pb::stock_service_server::StockService for Api {
    async fn receive_stock(
        &self,
        request: Request<pb::ReceiveStockRequest>,
    ) -> Result<Response<pb::ReceiveStockResponse>, Status> {
        self.gate
            .mutate(request, |work, request: pb::ReceiveStockRequest| {
                Box::pin(async move {
                    let id = ResourceId::parse("resource_id", &request.resource_id)?;
                    let programme = work.programme();
                    usable(work.conn(), programme, id, &[ResourceKind::GiftKit]).await?;
                    let actor = work.actor().to_owned();
                    let cause = Cause { grant: None, reference: &request.reference, actor: &actor };
                    let movement = store::stock::put(work.conn(), id, request.quantity, cause).await?;
                    let movement = movement.ok_or(Error::StockTooLarge(id))?;
                    work.audit(id.0, Some(request.reference.clone()));
                    Ok(pb::ReceiveStockResponse { movement: Some(to_proto(&movement)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn list_stock_movements(
        &self,
        request: Request<pb::ListStockMovementsRequest>,
    ) -> Result<Response<pb::ListStockMovementsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListStockMovementsRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.resource_id.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let id = ResourceId::parse("resource_id", &request.resource_id)?;
                let size = page::size(request.page_size);
                let mut tx = self.gate.db().snapshot().await?;
                found(&mut tx, call.programme, id, 0).await?;
                let mut movements = store::stock::list(&mut tx, id, after, size + 1).await?;
                let next_page_token = page::cut(&mut movements, size, |m| page::token(LIST, &filters, &m.id.to_string()));
                let on_hand = store::stock::on_hand(&mut tx, id).await?;
                let movements = movements.iter().map(to_proto).collect();
                Ok(pb::ListStockMovementsResponse { movements, next_page_token, on_hand })
            })
            .await
    }
}

/// A resource in use of one of these kinds.
pub async fn usable(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: ResourceId,
    kinds: &[ResourceKind],
) -> Result<Resource, Error> {
    let resource = found(conn, programme, id, 0).await?;
    if resource.retirement.is_some() {
        return Err(Error::ResourceRetired(id));
    }
    let is = resource.model.kind();
    if kinds.contains(&is) { Ok(resource) } else { Err(Error::ResourceKind { resource: id, is }) }
}

fn to_proto(movement: &Movement) -> pb::StockMovement {
    pb::StockMovement {
        stock_movement_id: movement.id.to_string(),
        resource_id: movement.resource.to_string(),
        quantity: movement.quantity,
        on_hand_after: movement.on_hand_after,
        grant_id: optional(movement.grant),
        reference: movement.reference.clone(),
        actor: movement.actor.clone(),
        create_time: Some(clock::to_proto(movement.create_time)),
    }
}
