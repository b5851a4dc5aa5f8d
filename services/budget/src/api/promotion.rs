//! PromotionService.

use super::{Api, resource::found};
use crate::{
    domain::promotion::{Gift, Promotion, State, can_be_gift},
    error::Error,
    ids::{MemberId, ResourceId},
    store,
};
use koc_chassis::{
    clock,
    gate::{Call, Work},
    page,
};
use koc_proto::koc::budget::v1 as pb;
use tonic::{Request, Response, Status};

const LIST: &str = "ListPromotions";

#[tonic::async_trait]
impl pb::promotion_service_server::PromotionService for Api {
    async fn set_promotion_gift(
        &self,
        request: Request<pb::SetPromotionGiftRequest>,
    ) -> Result<Response<pb::SetPromotionGiftResponse>, Status> {
        let prepare = async |call: &Call, _: &pb::SetPromotionGiftRequest| self.currencies.of(call.programme).await;
        self.gate
            .mutate_after(request, prepare, |work, request, _| {
                Box::pin(async move {
                    let gift = set(work, request).await?;
                    Ok(pb::SetPromotionGiftResponse { promotion_gift: gift.as_ref().map(gift_to_proto) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn list_promotion_gifts(
        &self,
        request: Request<pb::ListPromotionGiftsRequest>,
    ) -> Result<Response<pb::ListPromotionGiftsResponse>, Status> {
        self.gate
            .read(request, async |call, _: pb::ListPromotionGiftsRequest| {
                let mut conn = self.gate.db().read().await?;
                let gifts = store::promotion::gifts(&mut conn, call.programme).await?;
                Ok(pb::ListPromotionGiftsResponse { promotion_gifts: gifts.iter().map(gift_to_proto).collect() })
            })
            .await
    }

    async fn list_promotions(
        &self,
        request: Request<pb::ListPromotionsRequest>,
    ) -> Result<Response<pb::ListPromotionsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListPromotionsRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.member_id.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let member = MemberId::parse_optional("member_id", &request.member_id)?;
                let size = page::size(request.page_size);
                let mut conn = self.gate.db().read().await?;
                let mut found = store::promotion::list(&mut conn, call.programme, member, after, size + 1).await?;
                let next_page_token = page::cut(&mut found, size, |one| page::token(LIST, &filters, &one.id.to_string()));
                Ok(pb::ListPromotionsResponse { promotions: found.iter().map(to_proto).collect(), next_page_token })
            })
            .await
    }
}

async fn set(work: &mut Work, request: pb::SetPromotionGiftRequest) -> Result<Option<Gift>, Error> {
    let programme = work.programme();
    let resource = ResourceId::parse_optional("resource_id", &request.resource_id)?;
    work.audit(programme.0, Some(format!("{}: {}", request.tier_id, request.reason)));
    let Some(id) = resource else {
        store::promotion::clear_gift(work.conn(), programme, &request.tier_id).await?;
        return Ok(None);
    };
    store::resource::share(work.conn(), programme, id).await?;
    let resource = found(work.conn(), programme, id, 0).await?;
    if resource.retirement.is_some() {
        return Err(Error::ResourceRetired(id));
    }
    if !can_be_gift(resource.model.kind()) {
        return Err(Error::ResourceKind { resource: id, is: resource.model.kind() });
    }
    let gift = Gift {
        tier_id: request.tier_id,
        resource: id,
        set_by: work.actor().to_owned(),
        reason: request.reason,
        set_time: work.now().await?,
    };
    store::promotion::set_gift(work.conn(), programme, &gift).await?;
    Ok(Some(gift))
}

fn gift_to_proto(gift: &Gift) -> pb::PromotionGift {
    pb::PromotionGift {
        tier_id: gift.tier_id.clone(),
        resource_id: gift.resource.to_string(),
        set_by: gift.set_by.clone(),
        reason: gift.reason.clone(),
        set_time: Some(clock::to_proto(gift.set_time)),
    }
}

fn to_proto(promotion: &Promotion) -> pb::Promotion {
    let (state, grant_id, refusal) = match &promotion.state {
        State::Pending(refusal) => (pb::PromotionState::Pending, String::new(), refusal.clone().unwrap_or_default()),
        State::Granted(grant) => (pb::PromotionState::Granted, grant.to_string(), String::new()),
        State::Refused(refusal) => (pb::PromotionState::Refused, String::new(), refusal.clone()),
    };
    pb::Promotion {
        promotion_id: promotion.id.to_string(),
        member_id: promotion.member.to_string(),
        tier_id: promotion.tier_id.clone(),
        resource_id: promotion.resource.to_string(),
        state: state.into(),
        grant_id,
        refusal,
        move_time: Some(clock::to_proto(promotion.move_time)),
        update_time: Some(clock::to_proto(promotion.update_time)),
    }
}
