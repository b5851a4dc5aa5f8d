//! MemberService.

mod create;
mod history;
mod merge;
mod search;
mod suspend;

use super::convert::{self, Wire};
use crate::{
    domain::{
        filter::{self, Filter},
        history::{Before, Change, ChangeKind, TRUST_LEVEL},
        member::TrustLevel,
        member_list::{Field as ListField, Order, Place, Test, Text},
        ownership::Owners,
        profile::{Field, Profile},
        search::names,
        suppression::Keys,
        sync::{API_SOURCE, Person},
        text::storable,
    },
    error::Error,
    flow::{erase_member::check_living, find_members::ById, tell_consents},
    store::{self, member::Locked},
};
use koc_chassis::{
    fault::{Violation, Violations},
    gate::{Call, Gate, Outcome, Work},
    ids::{MemberId, ProgrammeId},
    lane::{Lane, Reading},
    outbox, page,
};
use koc_proto::koc::registry::v1 as pb;
use std::{collections::BTreeSet, sync::Arc};
use tonic::{Request, Response, Status};
use uuid::Uuid;

pub struct MemberApi {
    gate: Gate<Error>,
    members: Lane<Reading<ById>>,
    keys: Arc<Keys>,
}

impl MemberApi {
    pub fn new(gate: Gate<Error>, members: Lane<Reading<ById>>, keys: Arc<Keys>) -> Self {
        Self { gate, members, keys }
    }

    async fn get(&self, programme: ProgrammeId, id: MemberId) -> Result<pb::Member, Error> {
        let member = self.members.ask((programme, id)).await??;
        member.map(convert::member).ok_or(Error::MemberNotFound { member: Some(id) })
    }

    async fn batch_get(&self, call: Call, request: pb::BatchGetMembersRequest) -> Result<pb::BatchGetMembersResponse, Error> {
        let mut ids = Vec::with_capacity(request.member_ids.len());
        for (i, id) in request.member_ids.iter().enumerate() {
            ids.push(MemberId::parse(&format!("member_ids[{i}]"), id)?);
        }
        let raw: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let mut conn = self.gate.db().read().await?;
        let found = store::member::get_all(&mut conn, call.programme, &raw).await?;
        let mut response = pb::BatchGetMembersResponse::default();
        for id in ids {
            match found.get(&id) {
                Some(member) => response.members.push(convert::member(member.clone())),
                None => response.missing_member_ids.push(id.to_string()),
            }
        }
        Ok(response)
    }

    async fn lookup(&self, call: Call, request: pb::LookupMemberRequest) -> Result<pb::LookupMemberResponse, Error> {
        let identity = convert::identity(request.external_identity.unwrap_or_default());
        storable("external_identity.external_id", &identity.external_id)?;
        let mut conn = self.gate.db().read().await?;
        let id = store::identity::find(&mut conn, call.programme, &identity).await?;
        let id = id.ok_or(Error::MemberNotFound { member: None })?;
        let member = store::member::get(&mut conn, call.programme, id).await?;
        let member = member.map(convert::member).ok_or(Error::MemberNotFound { member: Some(id) })?;
        Ok(pb::LookupMemberResponse { member: Some(member) })
    }

    async fn list(&self, call: Call, request: pb::ListMembersRequest) -> Result<pb::ListMembersResponse, Error> {
        let programme = call.programme.to_string();
        let bound = [programme.as_str(), &request.tier_id, &request.region_code, &request.filter, &request.order_by];
        let mut violations = Violations::default();
        violations.take(storable("tier_id", &request.tier_id));
        violations.take(storable("region_code", &request.region_code));
        let filter = violations.take(filter::parse::<ListField>(&request.filter)).flatten();
        let order = violations.take(Order::parse(&request.order_by)).unwrap_or_default();
        let after = violations.take(page::key("ListMembers", &bound, &request.page_token)).flatten();
        let after = after.map(|key| Place::of_key(&key, order).ok_or_else(page::invalid_token));
        let after = violations.take(after.transpose()).flatten();
        violations.finish()?;
        let is = |column, value: &str| Filter::Is(Test::Text { column, is: true, value: value.to_owned() });
        let mut filters: Vec<Filter<Test>> = filter.into_iter().collect();
        filters.extend(some(&request.tier_id).map(|tier| is(Text::TierId, tier)));
        filters.extend(some(&request.region_code).map(|region| is(Text::RegionCode, region)));
        let size = page::size(request.page_size);

        let mut tx = self.gate.db().snapshot().await?;
        let mut places = store::member::list(&mut tx, call.programme, &filters, order, after.as_ref(), size + 1).await?;
        let next_page_token = page::cut(&mut places, size, |place| page::token("ListMembers", &bound, &place.key()));
        let ids: Vec<Uuid> = places.into_iter().map(|place| place.member.0).collect();
        let mut found = store::member::get_all(&mut tx, call.programme, &ids).await?;
        let members = ids.into_iter().filter_map(|id| found.remove(&MemberId(id))).map(convert::member).collect();
        Ok(pb::ListMembersResponse { members, next_page_token })
    }

    /// What a retry is answered with: the stored answer tells which member, and the member is read as it is now.
    async fn as_it_is_now(&self, answered: Option<pb::Member>) -> Result<Option<pb::Member>, Status> {
        let Some(answered) = answered else { return Ok(None) };
        let ids = ProgrammeId::parse("programme_id", &answered.programme_id)
            .and_then(|programme| Ok((programme, MemberId::parse("member_id", &answered.member_id)?)));
        let member = match ids {
            Ok((programme, id)) => self.get(programme, id).await,
            Err(violation) => Err(violation.into()),
        };
        member.map(Some).map_err(|error| self.gate.status(&error))
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[tonic::async_trait]
impl pb::member_service_server::MemberService for MemberApi {
    async fn create_member(
        &self,
        request: Request<pb::CreateMemberRequest>,
    ) -> Result<Response<pb::CreateMemberResponse>, Status> {
        let keys = &self.keys;
        let Outcome { mut message, replayed } = self
            .gate
            .mutate(request, |work, request| {
                let keys = keys.clone();
                Box::pin(async move { create::create(work, request, &keys).await })
            })
            .await?;
        if replayed {
            message.member = self.as_it_is_now(message.member).await?;
        }
        Ok(Outcome { message, replayed }.into())
    }

    async fn get_member(&self, request: Request<pb::GetMemberRequest>) -> Result<Response<pb::GetMemberResponse>, Status> {
        self.gate
            .read(request, async |call, request| {
                let member = self.get(call.programme, MemberId::parse("member_id", &request.member_id)?).await?;
                Ok(pb::GetMemberResponse { member: Some(member) })
            })
            .await
    }

    async fn batch_get_members(
        &self,
        request: Request<pb::BatchGetMembersRequest>,
    ) -> Result<Response<pb::BatchGetMembersResponse>, Status> {
        self.gate.read(request, |call, request| self.batch_get(call, request)).await
    }

    async fn lookup_member(
        &self,
        request: Request<pb::LookupMemberRequest>,
    ) -> Result<Response<pb::LookupMemberResponse>, Status> {
        self.gate.read(request, |call, request| self.lookup(call, request)).await
    }

    async fn list_members(&self, request: Request<pb::ListMembersRequest>) -> Result<Response<pb::ListMembersResponse>, Status> {
        self.gate.read(request, |call, request| self.list(call, request)).await
    }

    async fn search_members(
        &self,
        request: Request<pb::SearchMembersRequest>,
    ) -> Result<Response<pb::SearchMembersResponse>, Status> {
        self.gate.read(request, |call, request| self.search(call, request)).await
    }

    async fn suspend_member(
        &self,
        request: Request<pb::SuspendMemberRequest>,
    ) -> Result<Response<pb::SuspendMemberResponse>, Status> {
        let Outcome { mut message, replayed } =
            self.gate.mutate(request, |work, request| Box::pin(suspend::suspend(work, request))).await?;
        if replayed {
            message.member = self.as_it_is_now(message.member).await?;
        }
        Ok(Outcome { message, replayed }.into())
    }

    async fn reinstate_member(
        &self,
        request: Request<pb::ReinstateMemberRequest>,
    ) -> Result<Response<pb::ReinstateMemberResponse>, Status> {
        let Outcome { mut message, replayed } =
            self.gate.mutate(request, |work, request| Box::pin(suspend::reinstate(work, request))).await?;
        if replayed {
            message.member = self.as_it_is_now(message.member).await?;
        }
        Ok(Outcome { message, replayed }.into())
    }

    async fn merge_members(
        &self,
        request: Request<pb::MergeMembersRequest>,
    ) -> Result<Response<pb::MergeMembersResponse>, Status> {
        let Outcome { mut message, replayed } =
            self.gate.mutate(request, |work, request| Box::pin(merge::merge(work, request))).await?;
        if replayed {
            message.member = self.as_it_is_now(message.member).await?;
        }
        Ok(Outcome { message, replayed }.into())
    }

    async fn unmerge_members(
        &self,
        request: Request<pb::UnmergeMembersRequest>,
    ) -> Result<Response<pb::UnmergeMembersResponse>, Status> {
        let Outcome { mut message, replayed } =
            self.gate.mutate(request, |work, request| Box::pin(merge::unmerge(work, request))).await?;
        if replayed {
            message.winner = self.as_it_is_now(message.winner).await?;
            message.loser = self.as_it_is_now(message.loser).await?;
        }
        Ok(Outcome { message, replayed }.into())
    }

    async fn list_member_history(
        &self,
        request: Request<pb::ListMemberHistoryRequest>,
    ) -> Result<Response<pb::ListMemberHistoryResponse>, Status> {
        self.gate.read(request, |call, request| self.history(call, request)).await
    }

    async fn update_member(
        &self,
        request: Request<pb::UpdateMemberRequest>,
    ) -> Result<Response<pb::UpdateMemberResponse>, Status> {
        let Outcome { mut message, replayed } =
            self.gate.mutate(request, |work, request| Box::pin(update(work, request))).await?;
        if replayed {
            message.member = self.as_it_is_now(message.member).await?;
        }
        Ok(Outcome { message, replayed }.into())
    }
}

/// What an update mask names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mask {
    trust_level: bool,
    fields: BTreeSet<Field>,
}

impl Mask {
    /// What the paths name; the others become violations: FIELD_NOT_UPDATABLE, and a mask that names nothing.
    fn parse(paths: &[String], violations: &mut Violations) -> Self {
        if paths.is_empty() {
            violations.push(Violation::new("update_mask.paths", "repeated.min_items", "must name at least one field"));
        }
        let mut mask = Self::default();
        for (i, path) in paths.iter().enumerate() {
            let fields = path.strip_prefix("profile.").map(Field::named).unwrap_or_default();
            if !fields.is_empty() {
                mask.fields.extend(fields);
            } else if path == TRUST_LEVEL {
                mask.trust_level = true;
            } else {
                let rule = "must be trust_level or a field of the profile, e.g. profile.city";
                violations.push(Violation::new(format!("update_mask.paths[{i}]"), "FIELD_NOT_UPDATABLE", rule));
            }
        }
        mask
    }
}

/// The fields that a caller may write. One that belongs to a source system would be lost with that one's next row: to change it is a violation
/// (FIELD_OWNED), to repeat what it holds does nothing.
fn editable(fields: BTreeSet<Field>, values: &Profile, person: &Person, owners: &Owners) -> Result<Vec<Field>, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut editable = Vec::with_capacity(fields.len());
    for field in fields {
        match owners.of(field).filter(|owner| *owner != API_SOURCE) {
            None => editable.push(field),
            Some(_) if field.same(values, &person.record.profile) => {}
            Some(owner) => {
                let rule = format!("belongs to {owner}, whose next row would undo the change; change it there");
                violations.push(Violation::new(field.path(), "FIELD_OWNED", rule));
            }
        }
    }
    violations.finish()?;
    Ok(editable)
}

async fn update(work: &mut Work, request: pb::UpdateMemberRequest) -> Result<pb::UpdateMemberResponse, Error> {
    let mut violations = Violations::default();
    let id = violations.take(MemberId::parse("member_id", &request.member_id));
    let mask = Mask::parse(&request.update_mask.unwrap_or_default().paths, &mut violations);
    // What is not to be changed may come as it was read.
    if let Some(profile) = &request.profile {
        violations.take_all(convert::unmasked(profile, |field| mask.fields.contains(&field)));
    }
    let values = violations.take_all(convert::profile(request.profile.unwrap_or_default()));
    // A member always has a trust level: naming it without a value clears nothing.
    let trust_level = match mask.trust_level {
        true => violations.take(TrustLevel::from_wire(TRUST_LEVEL, request.trust_level)),
        false => None,
    };
    violations.finish()?;
    let (Some(id), Some(values)) = (id, values) else { return Err(Error::Invalid(Vec::new())) };

    let programme = work.programme();
    let locked = store::member::lock(work.conn(), programme, id).await?;
    let locked = locked.ok_or(Error::MemberNotFound { member: Some(id) })?;
    check_living(&locked)?;
    let id = locked.id;
    if !page::etag_matches(&request.etag, locked.version) {
        return Err(Error::EtagMismatch { member: id, version: locked.version });
    }
    let now = work.now().await?;
    let mut person = Person::new(locked.record);
    let owners = store::field_owner::owners(work.conn(), programme).await?;
    person.overwrite(editable(mask.fields, &values, &person, &owners)?, &values, now);
    let trust_level = trust_level.unwrap_or(locked.trust_level);
    let (mut fields, renamed, consents) = (person.befores(), person.is_renamed(), person.consent_changes());
    let mut changed_fields = Field::paths(person.changed);
    if trust_level != locked.trust_level {
        changed_fields.push(TRUST_LEVEL.to_owned());
        fields.push(Before::named(TRUST_LEVEL, locked.trust_level.name()));
    }
    let version = locked.version + i64::from(!changed_fields.is_empty());
    let (state, suspension_cause) = (locked.state, locked.suspension_cause);
    let found_by = names(&person.record.profile);
    let member = Locked { id, record: person.record, state, suspension_cause, trust_level, version, merged_into: None };
    store::member::update_all(work.conn(), programme, &[member], now).await?;
    if renamed {
        store::search::put(work.conn(), programme, &[(id.0, found_by)]).await?;
    }
    if !changed_fields.is_empty() {
        let (actor, change) = (work.actor().to_owned(), Change::by_api(id, version, ChangeKind::Updated, fields));
        store::history::insert_all(work.conn(), programme, &[change], &actor, now).await?;
        work.emit(id.0, &pb::MemberChanged { member_id: id.to_string(), created: false, changed_fields, version }).await?;
        outbox::append(work.conn(), &tell_consents::facts(programme, id, version, &consents)).await?;
    }
    work.audit(id.0, None);
    let member = store::member::get(work.conn(), programme, id).await?.map(convert::member);
    Ok(pb::UpdateMemberResponse { member })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    fn parse(named: &[&str]) -> (Mask, Vec<Violation>) {
        let mut violations = Violations::default();
        let mask = Mask::parse(&paths(named), &mut violations);
        (mask, violations.finish().err().unwrap_or_default())
    }

    #[test]
    fn a_mask_names_fields_once_and_the_trust_level() {
        let (mask, broken) = parse(&["profile.city", "trust_level", "profile.city"]);
        assert_eq!((mask, broken), (Mask { trust_level: true, fields: BTreeSet::from([Field::City]) }, Vec::new()));
    }

    #[test]
    fn every_path_that_cannot_be_changed_is_reported_and_the_others_are_understood() {
        let (mask, broken) = parse(&["tier_id", "profile.city", "profile", "city", "profile.shoe_size", "trust_level"]);
        let fields: Vec<_> = broken.iter().map(|v| (v.field.as_str(), v.rule.as_str())).collect();
        let expected = ["update_mask.paths[0]", "update_mask.paths[2]", "update_mask.paths[3]", "update_mask.paths[4]"];
        assert_eq!(fields, expected.map(|field| (field, "FIELD_NOT_UPDATABLE")));
        assert_eq!(mask, Mask { trust_level: true, fields: BTreeSet::from([Field::City]) });
        assert_eq!(parse(&[]).1[0].rule, "repeated.min_items");
    }
}
