//! What changed of a member.

use super::MemberApi;
use crate::{
    api::{PERSONAL_SCOPE, convert::Wire},
    domain::{
        history::{self, Kept, KeptField},
        member::Member,
    },
    error::Error,
    store,
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::Call,
    ids::MemberId,
    page,
};
use koc_proto::koc::registry::v1 as pb;
use serde_json::Value;

impl MemberApi {
    pub(super) async fn history(
        &self,
        call: Call,
        request: pb::ListMemberHistoryRequest,
    ) -> Result<pb::ListMemberHistoryResponse, Error> {
        let programme = call.programme.to_string();
        let bound = [programme.as_str(), &request.member_id];
        let mut violations = Violations::default();
        let id = violations.take(MemberId::parse("member_id", &request.member_id));
        let before = violations.take(page::key("ListMemberHistory", &bound, &request.page_token).and_then(before));
        violations.finish()?;
        let (Some(id), Some(before)) = (id, before) else { return Err(Error::Invalid(Vec::new())) };
        let size = page::size(request.page_size);
        let mut tx = self.gate.db().snapshot().await?;
        let member = store::member::get_own(&mut tx, call.programme, id).await?;
        let member = member.ok_or(Error::MemberNotFound { member: Some(id) })?;
        let mut kept = store::history::list(&mut tx, call.programme, id, before, size + 1).await?;
        let token = |kept: &Kept| page::token("ListMemberHistory", &bound, &kept.version.to_string());
        let next_page_token = page::cut(&mut kept, size, token);
        let personal = call.caller.has_scope(PERSONAL_SCOPE);
        Ok(pb::ListMemberHistoryResponse {
            changes: kept.into_iter().map(|kept| entry(kept, &member, personal)).collect(),
            next_page_token,
        })
    }
}

/// The version before which a page begins.
fn before(key: Option<String>) -> Result<i64, Violation> {
    let Some(key) = key else { return Ok(i64::MAX) };
    key.parse().map_err(|_| page::invalid_token())
}

/// A change as those see it who may read what is `personal`, or may not.
fn entry(kept: Kept, member: &Member, personal: bool) -> pb::MemberHistoryEntry {
    pb::MemberHistoryEntry {
        version: kept.version,
        kind: kept.kind.to_wire(),
        source_system: kept.source,
        actor: kept.actor,
        change_time: Some(clock::to_proto(kept.time)),
        fields: kept.fields.into_iter().map(|field| changed(field, member, personal)).collect(),
        other_member_id: kept.other.map(|other| other.to_string()).unwrap_or_default(),
        reason: kept.reason.filter(|_| personal).unwrap_or_default(),
    }
}

fn changed(field: KeptField, member: &Member, personal: bool) -> pb::FieldChange {
    let path = field.path.clone();
    if history::is_personal(&path) && !personal {
        return pb::FieldChange { path, masked: true, ..Default::default() };
    }
    let text = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
    let (before, after) = field.values(member);
    pb::FieldChange { path, before: text(before), after: text(after), masked: false }
}

#[cfg(test)]
mod tests {
    use crate::{
        api::convert,
        domain::profile::{Channel, Field, Profile, Vehicle},
    };
    use koc_proto::{koc::registry::v1 as pb, rules::Rules};

    /// What the contract marks as personal is what history hides.
    #[test]
    fn fields_are_personal_as_the_contract_marks_them() {
        let text = || "x".to_owned();
        let full = Profile {
            display_name: text(),
            email: text(),
            phone: text(),
            region_code: text(),
            city: text(),
            channels: vec![Channel { platform: text(), handle: text(), followers: None }],
            vehicles: vec![Vehicle { model: text(), vin: text() }],
            motivations: vec![crate::domain::profile::Motivation::Helping],
            tags: vec![text()],
            consents: Field::ALL
                .iter()
                .filter_map(|field| match field {
                    Field::Consent(purpose) => Some(crate::domain::consent::Consent { purpose: *purpose, granted: true }),
                    _ => None,
                })
                .collect(),
        };
        for field in Field::ALL {
            let mut one = Profile::default();
            field.copy(&full, &mut one);
            let wire: pb::MemberProfile = convert::profile_to_wire(one);
            let mut stripped = wire.clone();
            stripped.strip_personal();
            assert_eq!(field.is_personal(), stripped != wire, "{field:?}");
        }
    }
}
