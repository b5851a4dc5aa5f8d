//! ErasureService.

use super::convert::{self, Wire};
use crate::{
    domain::{
        erasure::{Erased, Erasure, ErasureId, Ground, Terms},
        suppression::{Identifier, Keys},
    },
    error::Error,
    flow::{erase_member, suppress},
    store::{self, erasure::Place},
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Gate, Work},
    ids::MemberId,
    page,
};
use koc_proto::koc::registry::v1 as pb;
use std::{collections::BTreeSet, sync::Arc};
use tonic::{Request, Response, Status};
use uuid::Uuid;

pub struct ErasureApi {
    gate: Gate<Error>,
    keys: Arc<Keys>,
    terms: Arc<Terms>,
}

impl ErasureApi {
    pub fn new(gate: Gate<Error>, keys: Arc<Keys>, terms: Arc<Terms>) -> Self {
        Self { gate, keys, terms }
    }

    async fn get(&self, call: Call, request: pb::GetErasureRequest) -> Result<pb::GetErasureResponse, Error> {
        let id = ErasureId::parse("erasure_id", &request.erasure_id)?;
        let mut tx = self.gate.db().snapshot().await?;
        let erasure = store::erasure::get(&mut tx, call.programme, id).await?.ok_or(Error::ErasureNotFound { erasure: id })?;
        let now = clock::now(&mut tx).await?;
        Ok(pb::GetErasureResponse { erasure: Some(to_wire(erasure, now)) })
    }

    async fn list(&self, call: Call, request: pb::ListErasuresRequest) -> Result<pb::ListErasuresResponse, Error> {
        let programme = call.programme.to_string();
        let bound = [programme.as_str(), if request.open_only { "open" } else { "" }];
        let after = page::key("ListErasures", &bound, &request.page_token)?;
        let after = after.map(|key| place(&key).ok_or_else(page::invalid_token)).transpose()?;
        let size = page::size(request.page_size);
        let mut tx = self.gate.db().snapshot().await?;
        let mut places = store::erasure::list(&mut tx, call.programme, request.open_only, after, size + 1).await?;
        let next_page_token = page::cut(&mut places, size, |place| page::token("ListErasures", &bound, &key(place)));
        let ids: Vec<Uuid> = places.into_iter().map(|place| place.id.0).collect();
        let erasures = store::erasure::get_all(&mut tx, call.programme, &ids).await?;
        let now = clock::now(&mut tx).await?;
        Ok(pb::ListErasuresResponse {
            erasures: erasures.into_iter().map(|erasure| to_wire(erasure, now)).collect(),
            next_page_token,
        })
    }
}

fn key(place: &Place) -> String {
    format!("{}/{}/{}", u8::from(place.complete), place.deadline.timestamp_micros(), place.id)
}

fn place(key: &str) -> Option<Place> {
    let mut parts = key.split('/');
    let (complete, deadline, id) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Place {
        complete: complete == "1",
        deadline: DateTime::from_timestamp_micros(deadline.parse().ok()?)?,
        id: ErasureId(Uuid::try_parse(id).ok()?),
    })
}

fn counts(erased: Erased) -> Vec<pb::ErasedCount> {
    erased.into_iter().map(|(name, rows)| pb::ErasedCount { name, rows }).collect()
}

fn to_wire(erasure: Erasure, now: DateTime<Utc>) -> pb::Erasure {
    let overdue = erasure.is_overdue(now);
    let state = if erasure.complete_time.is_some() { pb::ErasureState::Erased } else { pb::ErasureState::Erasing };
    let acknowledgement = |duty: crate::domain::erasure::Duty| {
        let (time, erased) = duty.done.unzip();
        pb::ErasureAcknowledgement {
            consumer: duty.consumer,
            acknowledge_time: time.map(clock::to_proto),
            erased: counts(erased.unwrap_or_default()),
        }
    };
    pb::Erasure {
        erasure_id: erasure.id.to_string(),
        member_id: erasure.member.to_string(),
        member_ids: erasure.members.iter().map(MemberId::to_string).collect(),
        ground: erasure.ground.to_wire(),
        state: state.into(),
        actor: erasure.actor,
        erase_time: Some(clock::to_proto(erasure.erase_time)),
        deadline_time: Some(clock::to_proto(erasure.deadline)),
        complete_time: erasure.complete_time.map(clock::to_proto),
        overdue,
        erased: counts(erasure.erased),
        acknowledgements: erasure.duties.into_iter().map(acknowledgement).collect(),
    }
}

#[tonic::async_trait]
impl pb::erasure_service_server::ErasureService for ErasureApi {
    async fn erase_member(&self, request: Request<pb::EraseMemberRequest>) -> Result<Response<pb::EraseMemberResponse>, Status> {
        let (keys, terms) = (&self.keys, &self.terms);
        self.gate
            .mutate(request, |work, request| {
                let (keys, terms) = (keys.clone(), terms.clone());
                Box::pin(async move { erase(work, request, &keys, &terms).await })
            })
            .await
            .map(Into::into)
    }

    async fn get_erasure(&self, request: Request<pb::GetErasureRequest>) -> Result<Response<pb::GetErasureResponse>, Status> {
        self.gate.read(request, |call, request| self.get(call, request)).await
    }

    async fn list_erasures(
        &self,
        request: Request<pb::ListErasuresRequest>,
    ) -> Result<Response<pb::ListErasuresResponse>, Status> {
        self.gate.read(request, |call, request| self.list(call, request)).await
    }

    async fn acknowledge_erasure(
        &self,
        request: Request<pb::AcknowledgeErasureRequest>,
    ) -> Result<Response<pb::AcknowledgeErasureResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(acknowledge(work, request))).await.map(Into::into)
    }

    async fn lift_suppression(
        &self,
        request: Request<pb::LiftSuppressionRequest>,
    ) -> Result<Response<pb::LiftSuppressionResponse>, Status> {
        let keys = &self.keys;
        self.gate
            .mutate(request, |work, request| {
                let keys = keys.clone();
                Box::pin(async move { lift(work, request, &keys).await })
            })
            .await
            .map(Into::into)
    }
}

async fn erase(
    work: &mut Work,
    request: pb::EraseMemberRequest,
    keys: &Keys,
    terms: &Terms,
) -> Result<pb::EraseMemberResponse, Error> {
    let mut violations = Violations::default();
    let member = violations.take(MemberId::parse("member_id", &request.member_id));
    let ground = violations.take(Ground::from_wire("ground", request.ground));
    violations.finish()?;
    let (Some(member), Some(ground)) = (member, ground) else { return Err(Error::Invalid(Vec::new())) };
    let erasure = erase_member::erase(work, member, ground, &request.etag, keys, terms).await?;
    let now = erasure.erase_time;
    Ok(pb::EraseMemberResponse { erasure: Some(to_wire(erasure, now)) })
}

async fn acknowledge(work: &mut Work, request: pb::AcknowledgeErasureRequest) -> Result<pb::AcknowledgeErasureResponse, Error> {
    let mut violations = Violations::default();
    let id = violations.take(ErasureId::parse("erasure_id", &request.erasure_id));
    let mut erased = Erased::new();
    for (i, count) in request.erased.into_iter().enumerate() {
        if erased.insert(count.name, count.rows).is_some() {
            let rule = "must not repeat a name that stands earlier";
            violations.push(Violation::new(format!("erased[{i}].name"), "ERASED_NAME_REPEATED", rule));
        }
    }
    violations.finish()?;
    let id = id.ok_or_else(|| Error::Invalid(Vec::new()))?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if !store::erasure::lock(work.conn(), programme, id).await? {
        return Err(Error::ErasureNotFound { erasure: id });
    }
    let now = work.now().await?;
    if !store::erasure::acknowledge(work.conn(), programme, id, &request.consumer, &erased, &actor, now).await? {
        return Err(Error::ConsumerUnknown { consumer: request.consumer });
    }
    work.audit(id.0, Some(request.consumer));
    let erasure = store::erasure::get(work.conn(), programme, id).await?;
    Ok(pb::AcknowledgeErasureResponse { erasure: erasure.map(|erasure| to_wire(erasure, now)) })
}

async fn lift(work: &mut Work, request: pb::LiftSuppressionRequest, keys: &Keys) -> Result<pb::LiftSuppressionResponse, Error> {
    let identities = request.external_identities.into_iter().map(|wire| Identifier::Identity(convert::identity(wire)));
    let identifiers: Vec<Identifier> = identities.chain(Identifier::of_contact(&request.email, &request.phone)).collect();
    if identifiers.is_empty() {
        let rule = "one of external_identities, email and phone is needed";
        return Err(Violation::new("external_identities", "IDENTIFIER_MISSING", rule).into());
    }
    if keys.ids().is_empty() {
        return Err(Error::SuppressionKeyMissing { key_id: None });
    }
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let found = suppress::find(work.conn(), programme, keys, &identifiers).await?;
    let erasures: BTreeSet<Uuid> = found.into_iter().flatten().map(|erasure| erasure.0).collect();
    let Some(first) = erasures.first().copied() else { return Err(Error::SuppressionNotFound) };
    let now = work.now().await?;
    let erasures: Vec<Uuid> = erasures.into_iter().collect();
    let reference = &request.consent_reference;
    let lifted = store::suppression::lift(work.conn(), programme, &erasures, reference, &actor, now).await?;
    work.audit(first, Some(request.consent_reference));
    Ok(pb::LiftSuppressionResponse { lifted_count: i32::try_from(lifted).unwrap_or(i32::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_key_and_another_text_is_none() {
        let deadline = DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time");
        for complete in [false, true] {
            let there = Place { complete, deadline, id: ErasureId::new() };
            assert_eq!(place(&key(&there)), Some(there));
        }
        for text in ["", "1", "1/x/y", "0/1700000000000000/none"] {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
