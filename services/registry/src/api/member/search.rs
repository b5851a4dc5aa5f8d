//! Finding members by name and handle.

use super::MemberApi;
use crate::{
    api::convert,
    domain::search::{Place, check_query},
    error::Error,
    store,
};
use koc_chassis::{fault::Violations, gate::Call, ids::MemberId, page};
use koc_proto::koc::registry::v1 as pb;
use uuid::Uuid;

impl MemberApi {
    pub(super) async fn search(&self, call: Call, request: pb::SearchMembersRequest) -> Result<pb::SearchMembersResponse, Error> {
        let programme = call.programme.to_string();
        let bound = [programme.as_str(), &request.query];
        let mut violations = Violations::default();
        violations.take(check_query(&request.query));
        let after = violations.take(page::key("SearchMembers", &bound, &request.page_token)).flatten();
        let after = after.map(|key| Place::of_key(&key).ok_or_else(page::invalid_token));
        let after = violations.take(after.transpose()).flatten();
        violations.finish()?;
        let size = page::size(request.page_size);
        let mut tx = self.gate.db().snapshot().await?;
        let mut places = store::search::find(&mut tx, call.programme, &request.query, after, size + 1).await?;
        let next_page_token = page::cut(&mut places, size, |place| page::token("SearchMembers", &bound, &place.key()));
        let ids: Vec<Uuid> = places.into_iter().map(|place| place.member.0).collect();
        let mut found = store::member::get_all(&mut tx, call.programme, &ids).await?;
        let members = ids.into_iter().filter_map(|id| found.remove(&MemberId(id))).map(convert::member).collect();
        Ok(pb::SearchMembersResponse { members, next_page_token })
    }
}
