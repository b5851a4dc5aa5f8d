//! ValueProfileService.

use super::convert;
use crate::{
    domain::{
        consent::Purpose,
        history::{Before, Change, ChangeKind, VALUE_SCORES},
        value::ValueProfile,
    },
    error::Error,
    flow::{award_badges, erase_member::check_living},
    store::{self, member::Locked},
};
use koc_chassis::{
    clock,
    fault::Violations,
    gate::{Call, Gate, Work},
    ids::MemberId,
};
use koc_proto::koc::registry::v1 as pb;
use tonic::{Request, Response, Status};

pub struct ValueProfileApi {
    gate: Gate<Error>,
}

impl ValueProfileApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn get(&self, call: Call, request: pb::GetValueProfileRequest) -> Result<pb::GetValueProfileResponse, Error> {
        let member = MemberId::parse("member_id", &request.member_id)?;
        let mut conn = self.gate.db().read().await?;
        let not_found = Error::MemberNotFound { member: Some(member) };
        let member = store::merge::resolve(&mut conn, call.programme, member).await?.ok_or(not_found)?;
        match store::value::get(&mut conn, call.programme, member).await? {
            Some(profile) => Ok(pb::GetValueProfileResponse {
                scores: profile.scores.into_iter().map(convert::score_to_wire).collect(),
                as_of: Some(clock::to_proto(profile.as_of)),
                past_return: profile.past_return,
                value_model_version: profile.value_model_version,
            }),
            None => Ok(Default::default()),
        }
    }
}

#[tonic::async_trait]
impl pb::value_profile_service_server::ValueProfileService for ValueProfileApi {
    async fn update_value_profile(
        &self,
        request: Request<pb::UpdateValueProfileRequest>,
    ) -> Result<Response<pb::UpdateValueProfileResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(update(work, request))).await.map(Into::into)
    }

    async fn get_value_profile(
        &self,
        request: Request<pb::GetValueProfileRequest>,
    ) -> Result<Response<pb::GetValueProfileResponse>, Status> {
        self.gate.read(request, |call, request| self.get(call, request)).await
    }
}

async fn update(work: &mut Work, request: pb::UpdateValueProfileRequest) -> Result<pb::UpdateValueProfileResponse, Error> {
    let mut violations = Violations::default();
    let id = violations.take(MemberId::parse("member_id", &request.member_id));
    let as_of = violations.take(clock::required("as_of", request.as_of.as_ref()));
    let profile = violations.take_all(convert::scores(request.scores)).map(|scores| ValueProfile {
        scores,
        as_of: as_of.unwrap_or_default(),
        past_return: request.past_return,
        value_model_version: request.value_model_version,
    });
    let profile = profile.and_then(|profile| violations.take_all(profile.canonical()));
    violations.finish()?;
    let (Some(id), Some(profile)) = (id, profile) else { return Err(Error::Invalid(Vec::new())) };

    let programme = work.programme();
    let member = store::member::lock(work.conn(), programme, id).await?;
    let member = member.ok_or(Error::MemberNotFound { member: Some(id) })?;
    check_living(&member)?;
    let id = member.id;
    if member.record.profile.withdraws(Purpose::Profiling) {
        return Err(Error::ConsentWithdrawn { member: id, purpose: Purpose::Profiling });
    }
    work.audit(id.0, None);
    let standing = store::value::get(work.conn(), programme, id).await?;
    if standing.as_ref().is_some_and(|standing| standing.as_of > profile.as_of) {
        return Ok(pb::UpdateValueProfileResponse { updated: false });
    }
    let now = work.now().await?;
    store::value::put(work.conn(), programme, id, &profile, now).await?;
    // The scores are part of the member; when, by what model and with what return they came is not.
    if standing.is_none_or(|standing| standing.scores != profile.scores) {
        let version = member.version + 1;
        store::member::update_all(work.conn(), programme, &[Locked { version, ..member }], now).await?;
        let actor = work.actor().to_owned();
        let change = Change::by_api(id, version, ChangeKind::Updated, vec![Before::unkept(VALUE_SCORES)]);
        store::history::insert_all(work.conn(), programme, &[change], &actor, now).await?;
        let changed_fields = vec![VALUE_SCORES.to_owned()];
        work.emit(id.0, &pb::MemberChanged { member_id: id.to_string(), created: false, changed_fields, version }).await?;
        award_badges::award_changed(work.conn(), programme, &[id.0], &actor, now).await?;
    }
    Ok(pb::UpdateValueProfileResponse { updated: true })
}
