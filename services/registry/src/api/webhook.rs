//! WebhookService.

use super::{
    PERSONAL_SCOPE,
    convert::Wire,
    member_feed::{event, place},
};
use crate::{
    domain::{
        member_feed::{Event, EventKind},
        webhook::{Columns, Delivery, DeliveryState, Reason, Target, Webhook, WebhookId, WebhookState, event_type},
    },
    error::Error,
    flow::{follow_members::Follower, seal_secret::Seal},
    store,
};
use chrono::TimeDelta;
use koc_chassis::{
    auth::Caller,
    clock,
    fault::{Violation, Violations},
    feed::Feed,
    gate::{Call, Gate, Work},
    page, transcode,
};
use koc_proto::{koc::registry::v1 as pb, rules::Rules};
use serde_json::json;
use std::collections::BTreeSet;
use tonic::{Request, Response, Status};

/// Endpoints of a programme.
const MAX_WEBHOOKS: usize = 20;

pub struct WebhookApi {
    gate: Gate<Error>,
    feed: Feed,
    seal: Seal,
    /// Whether endpoints may be on private addresses.
    local: bool,
}

/// The body of a post.
pub fn payload(told: Event, columns: Columns) -> Vec<u8> {
    let kind = event_type(told.told.kind);
    let mut data = event(told);
    match columns {
        Columns::None => data.member = None,
        Columns::Masked => data.mask_personal(),
        Columns::Whole => {}
    }
    let data = transcode::canonical(&data).unwrap_or_default();
    json!({"type": kind, "timestamp": data["eventTime"], "data": data}).to_string().into_bytes()
}

impl WebhookApi {
    pub fn new(gate: Gate<Error>, feed: Feed, seal: Seal, local: bool) -> Self {
        Self { gate, feed, seal, local }
    }

    /// The position that a token stands for; None for an empty one. Errors: POSITION_INVALID, EPOCH_CHANGED, POSITION_DROPPED.
    async fn position(&self, call: &Call, token: &str) -> Result<Option<i64>, Error> {
        let Some(place) = place(call.programme, token)? else { return Ok(None) };
        let follower = Follower::new(self.gate.db().clone(), self.feed.clone(), call.programme, BTreeSet::new());
        follower.check(&place).await?;
        match self.feed.oldest().await? {
            oldest if place.position < oldest => Err(Error::PositionDropped),
            _ => Ok(Some(place.position)),
        }
    }

    async fn list_deliveries(
        &self,
        call: Call,
        request: pb::ListWebhookDeliveriesRequest,
    ) -> Result<pb::ListWebhookDeliveriesResponse, Error> {
        let (programme, state) = (call.programme.to_string(), request.state.to_string());
        let bound = [programme.as_str(), &request.webhook_id, &state];
        let mut violations = Violations::default();
        let id = violations.take(WebhookId::parse("webhook_id", &request.webhook_id));
        let before = page::key("ListWebhookDeliveries", &bound, &request.page_token);
        let before = before.and_then(|key| key.map_or(Ok(i64::MAX), |key| key.parse().map_err(|_| page::invalid_token())));
        let before = violations.take(before);
        let state = match request.state {
            0 => None,
            state => violations.take(DeliveryState::from_wire("state", state)),
        };
        violations.finish()?;
        let (Some(id), Some(before)) = (id, before) else { return Err(Error::Invalid(Vec::new())) };
        let size = page::size(request.page_size);
        let mut tx = self.gate.db().snapshot().await?;
        let not_found = Error::WebhookNotFound { webhook: id };
        store::webhook::get(&mut tx, call.programme, id).await?.ok_or(not_found)?;
        let mut found = store::webhook::list(&mut tx, id, state, before, size + 1).await?;
        let token = |delivery: &Delivery| page::token("ListWebhookDeliveries", &bound, &delivery.position.to_string());
        let next_page_token = page::cut(&mut found, size, token);
        Ok(pb::ListWebhookDeliveriesResponse { deliveries: found.into_iter().map(delivery).collect(), next_page_token })
    }

    async fn secrets(&self, call: Call, request: pb::GetWebhookSecretsRequest) -> Result<pb::GetWebhookSecretsResponse, Error> {
        let id = WebhookId::parse("webhook_id", &request.webhook_id)?;
        let mut conn = self.gate.db().read().await?;
        let sealed = store::webhook::secrets(&mut conn, call.programme, id).await?;
        let sealed = sealed.ok_or(Error::WebhookNotFound { webhook: id })?;
        let sealed = [Some(sealed.secret), sealed.old_secret];
        let open = |sealed: Vec<u8>| self.seal.open(id, &sealed).map(|secret| secret.text());
        let secrets = sealed.into_iter().flatten().map(open).collect::<Result<_, _>>()?;
        Ok(pb::GetWebhookSecretsResponse { secrets })
    }
}

#[tonic::async_trait]
impl pb::webhook_service_server::WebhookService for WebhookApi {
    async fn create_webhook(
        &self,
        request: Request<pb::CreateWebhookRequest>,
    ) -> Result<Response<pb::CreateWebhookResponse>, Status> {
        let begin = async |call: &Call, request: &pb::CreateWebhookRequest| match self.position(call, &request.position).await? {
            Some(position) => Ok(position),
            None => Ok(self.feed.head().await?.position),
        };
        self.gate
            .mutate_after(request, begin, |work, request, begin| {
                Box::pin(create(work, request, begin, self.seal.clone(), self.local))
            })
            .await
            .map(Into::into)
    }

    async fn get_webhook(&self, request: Request<pb::GetWebhookRequest>) -> Result<Response<pb::GetWebhookResponse>, Status> {
        self.gate
            .read(request, async |call, request| {
                let id = WebhookId::parse("webhook_id", &request.webhook_id)?;
                let mut conn = self.gate.db().read().await?;
                let found = store::webhook::get(&mut conn, call.programme, id).await?;
                let found = found.ok_or(Error::WebhookNotFound { webhook: id })?;
                Ok(pb::GetWebhookResponse { webhook: Some(webhook(found)) })
            })
            .await
    }

    async fn list_webhooks(
        &self,
        request: Request<pb::ListWebhooksRequest>,
    ) -> Result<Response<pb::ListWebhooksResponse>, Status> {
        self.gate
            .read(request, async |call, _| {
                let mut conn = self.gate.db().read().await?;
                let found = store::webhook::of_programme(&mut conn, call.programme).await?;
                Ok(pb::ListWebhooksResponse { webhooks: found.into_iter().map(webhook).collect() })
            })
            .await
    }

    async fn update_webhook(
        &self,
        request: Request<pb::UpdateWebhookRequest>,
    ) -> Result<Response<pb::UpdateWebhookResponse>, Status> {
        let local = self.local;
        self.gate.mutate(request, move |work, request| Box::pin(update(work, request, local))).await.map(Into::into)
    }

    async fn delete_webhook(
        &self,
        request: Request<pb::DeleteWebhookRequest>,
    ) -> Result<Response<pb::DeleteWebhookResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(delete(work, request))).await.map(Into::into)
    }

    async fn pause_webhook(
        &self,
        request: Request<pb::PauseWebhookRequest>,
    ) -> Result<Response<pb::PauseWebhookResponse>, Status> {
        self.gate
            .mutate(request, |work, request: pb::PauseWebhookRequest| {
                Box::pin(async move {
                    let change = |webhook: &mut Webhook| webhook.state = WebhookState::Paused;
                    Ok(pb::PauseWebhookResponse { webhook: Some(put(work, &request.webhook_id, change).await?) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn resume_webhook(
        &self,
        request: Request<pb::ResumeWebhookRequest>,
    ) -> Result<Response<pb::ResumeWebhookResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(resume(work, request))).await.map(Into::into)
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<pb::RotateWebhookSecretRequest>,
    ) -> Result<Response<pb::RotateWebhookSecretResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(rotate(work, request, self.seal.clone()))).await.map(Into::into)
    }

    async fn get_webhook_secrets(
        &self,
        request: Request<pb::GetWebhookSecretsRequest>,
    ) -> Result<Response<pb::GetWebhookSecretsResponse>, Status> {
        self.gate.read(request, |call, request| self.secrets(call, request)).await
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<pb::ListWebhookDeliveriesRequest>,
    ) -> Result<Response<pb::ListWebhookDeliveriesResponse>, Status> {
        self.gate.read(request, |call, request| self.list_deliveries(call, request)).await
    }

    async fn replay_webhook(
        &self,
        request: Request<pb::ReplayWebhookRequest>,
    ) -> Result<Response<pb::ReplayWebhookResponse>, Status> {
        let begin = async |call: &Call, request: &pb::ReplayWebhookRequest| match self.position(call, &request.position).await? {
            Some(position) => Ok(position),
            None => Ok(self.feed.oldest().await?),
        };
        self.gate
            .mutate_after(request, begin, |work, request: pb::ReplayWebhookRequest, begin: i64| {
                Box::pin(async move {
                    let replayed = put(work, &request.webhook_id, |webhook| webhook.replay(begin)).await?;
                    Ok(pb::ReplayWebhookResponse { webhook: Some(replayed) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn redeliver_webhook_event(
        &self,
        request: Request<pb::RedeliverWebhookEventRequest>,
    ) -> Result<Response<pb::RedeliverWebhookEventResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(redeliver(work, request))).await.map(Into::into)
    }
}

fn kinds(wire: &[i32], violations: &mut Violations) -> Vec<EventKind> {
    let kind = |(i, number): (usize, &i32)| violations.take(EventKind::from_wire(&format!("kinds[{i}]"), *number));
    wire.iter().enumerate().filter_map(kind).collect()
}

/// Whole columns are sent in the name of who asked for them.
fn check_columns(columns: Columns, caller: &Caller) -> Result<(), Error> {
    if columns == Columns::Whole && !caller.has_scope(PERSONAL_SCOPE) { Err(Error::WebhookPersonal) } else { Ok(()) }
}

async fn create(
    work: &mut Work,
    request: pb::CreateWebhookRequest,
    position: i64,
    seal: Seal,
    local: bool,
) -> Result<pb::CreateWebhookResponse, Error> {
    let mut violations = Violations::default();
    violations.take(Target::parse("url", &request.url, local));
    let kinds = kinds(&request.kinds, &mut violations);
    let columns = violations.take(Columns::from_wire("columns", request.columns));
    violations.finish()?;
    let columns = columns.ok_or_else(|| Error::Invalid(Vec::new()))?;
    check_columns(columns, &work.call.caller)?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::ProgrammeNotFound { programme });
    }
    if store::webhook::of_programme(work.conn(), programme).await?.len() >= MAX_WEBHOOKS {
        return Err(Error::WebhookLimit { limit: MAX_WEBHOOKS });
    }
    let (id, create_time) = (WebhookId::new(), work.now().await?);
    let created = Webhook {
        id,
        programme,
        url: request.url,
        kinds,
        columns,
        state: WebhookState::Active,
        reason: None,
        position,
        failing_since: None,
        version: 1,
        create_time,
    };
    let secret = seal.make(id)?;
    store::webhook::insert(work.conn(), &created, &secret, &actor).await?;
    work.audit(id.0, None);
    Ok(pb::CreateWebhookResponse { webhook: Some(webhook(created)) })
}

/// Changes an endpoint under its lock.
async fn put(work: &mut Work, id: &str, change: impl FnOnce(&mut Webhook) + Send) -> Result<pb::Webhook, Error> {
    let id = WebhookId::parse("webhook_id", id)?;
    let programme = work.programme();
    let locked = store::webhook::lock(work.conn(), programme, id).await?;
    let mut locked = locked.ok_or(Error::WebhookNotFound { webhook: id })?;
    change(&mut locked);
    locked.version += 1;
    store::webhook::update(work.conn(), &locked).await?;
    work.audit(id.0, None);
    Ok(webhook(locked))
}

async fn update(work: &mut Work, request: pb::UpdateWebhookRequest, local: bool) -> Result<pb::UpdateWebhookResponse, Error> {
    let paths = request.update_mask.unwrap_or_default().paths;
    let mut violations = Violations::default();
    if paths.is_empty() {
        violations.push(Violation::new("update_mask.paths", "repeated.min_items", "must name at least one field"));
    }
    let (mut url, mut to_kinds, mut columns) = (None, None, None);
    for (i, path) in paths.iter().enumerate() {
        match path.as_str() {
            "url" => {
                violations.take(Target::parse("url", &request.url, local));
                url = Some(request.url.clone());
            }
            "kinds" => to_kinds = Some(kinds(&request.kinds, &mut violations)),
            "columns" => columns = violations.take(Columns::from_wire("columns", request.columns)),
            _ => {
                let rule = "must be url, kinds or columns";
                violations.push(Violation::new(format!("update_mask.paths[{i}]"), "FIELD_NOT_UPDATABLE", rule));
            }
        }
    }
    let id = violations.take(WebhookId::parse("webhook_id", &request.webhook_id));
    violations.finish()?;
    let id = id.ok_or_else(|| Error::Invalid(Vec::new()))?;
    let programme = work.programme();
    let locked = store::webhook::lock(work.conn(), programme, id).await?;
    let locked = locked.ok_or(Error::WebhookNotFound { webhook: id })?;
    if !page::etag_matches(&request.etag, locked.version) {
        return Err(Error::WebhookEtagMismatch { webhook: id, version: locked.version });
    }
    // Whoever sends whole columns elsewhere must be one who may see them.
    if columns.is_some() || url.is_some() {
        check_columns(columns.unwrap_or(locked.columns), &work.call.caller)?;
    }
    let change = |webhook: &mut Webhook| {
        webhook.url = url.unwrap_or_else(|| std::mem::take(&mut webhook.url));
        webhook.kinds = to_kinds.unwrap_or_else(|| std::mem::take(&mut webhook.kinds));
        webhook.columns = columns.unwrap_or(webhook.columns);
    };
    Ok(pb::UpdateWebhookResponse { webhook: Some(put(work, &request.webhook_id, change).await?) })
}

async fn delete(work: &mut Work, request: pb::DeleteWebhookRequest) -> Result<pb::DeleteWebhookResponse, Error> {
    let id = WebhookId::parse("webhook_id", &request.webhook_id)?;
    let programme = work.programme();
    if !store::webhook::delete(work.conn(), programme, id).await? {
        return Err(Error::WebhookNotFound { webhook: id });
    }
    work.audit(id.0, None);
    Ok(pb::DeleteWebhookResponse {})
}

async fn resume(work: &mut Work, request: pb::ResumeWebhookRequest) -> Result<pb::ResumeWebhookResponse, Error> {
    let (id, programme) = (WebhookId::parse("webhook_id", &request.webhook_id)?, work.programme());
    let locked = store::webhook::lock(work.conn(), programme, id).await?;
    if locked.is_some_and(|webhook| webhook.reason == Some(Reason::PositionDropped)) {
        return Err(Error::WebhookPositionDropped { webhook: id });
    }
    let change = |webhook: &mut Webhook| {
        (webhook.state, webhook.reason, webhook.failing_since) = (WebhookState::Active, None, None);
    };
    let resumed = put(work, &request.webhook_id, change).await?;
    store::webhook::revive(work.conn(), id).await?;
    Ok(pb::ResumeWebhookResponse { webhook: Some(resumed) })
}

async fn rotate(
    work: &mut Work,
    request: pb::RotateWebhookSecretRequest,
    seal: Seal,
) -> Result<pb::RotateWebhookSecretResponse, Error> {
    let id = WebhookId::parse("webhook_id", &request.webhook_id)?;
    let rotated = put(work, &request.webhook_id, |_| {}).await?;
    let until = work.now().await? + TimeDelta::hours(request.overlap_hours.into());
    let secret = seal.make(id)?;
    store::webhook::rotate(work.conn(), id, &secret, until).await?;
    Ok(pb::RotateWebhookSecretResponse { webhook: Some(rotated) })
}

async fn redeliver(
    work: &mut Work,
    request: pb::RedeliverWebhookEventRequest,
) -> Result<pb::RedeliverWebhookEventResponse, Error> {
    let id = WebhookId::parse("webhook_id", &request.webhook_id)?;
    let programme = work.programme();
    let locked = store::webhook::lock(work.conn(), programme, id).await?;
    locked.ok_or(Error::WebhookNotFound { webhook: id })?;
    let position = request.sequence;
    let found = store::webhook::redeliver(work.conn(), id, position).await?;
    let found = found.ok_or(Error::DeliveryNotFound { webhook: id, position })?;
    work.audit(id.0, None);
    Ok(pb::RedeliverWebhookEventResponse { delivery: Some(delivery(found)) })
}

fn webhook(webhook: Webhook) -> pb::Webhook {
    pb::Webhook {
        webhook_id: webhook.id.to_string(),
        url: webhook.url,
        kinds: webhook.kinds.into_iter().map(Wire::to_wire).collect(),
        columns: webhook.columns.to_wire(),
        state: webhook.state.to_wire(),
        state_reason: webhook.reason.map(|reason| reason.name().to_owned()).unwrap_or_default(),
        sequence: webhook.position,
        failing_since: webhook.failing_since.map(clock::to_proto),
        etag: page::etag(webhook.version),
        create_time: Some(clock::to_proto(webhook.create_time)),
    }
}

fn delivery(delivery: Delivery) -> pb::WebhookDelivery {
    let pending = delivery.state == DeliveryState::Pending;
    let attempt = |attempt: crate::domain::webhook::Attempt| pb::WebhookAttempt {
        attempt_time: Some(clock::to_proto(attempt.time)),
        status_code: attempt.status.into(),
        latency_ms: attempt.latency_ms.into(),
        error: attempt.error,
    };
    pb::WebhookDelivery {
        event_id: delivery.fact.to_string(),
        sequence: delivery.position,
        kind: delivery.kind.to_wire(),
        member_id: delivery.member.to_string(),
        state: delivery.state.to_wire(),
        next_attempt_time: pending.then(|| clock::to_proto(delivery.next_attempt_time)),
        attempts: delivery.attempts.into_iter().map(attempt).collect(),
    }
}
