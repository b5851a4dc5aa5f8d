//! BadgeService.

use super::convert::Wire;
use crate::{
    domain::{
        badge::{Award, AwardId, AwardOrigin, Badge, Condition, ConditionKind, Evidence, Sent},
        value::ValueType,
    },
    error::Error,
    flow::{award_badges, redirect},
    store,
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Gate, Work},
    ids::MemberId,
    page,
};
use koc_proto::{koc::registry::v1 as pb, rules::Rules};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Badges of a programme: all are looked at when points rise.
const MAX_BADGES: usize = 500;
/// Members looked at in one evaluation.
const MAX_LOOKED_AT: usize = 1_000;

pub struct BadgeApi {
    gate: Gate<Error>,
}

impl BadgeApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn list(&self, call: Call, request: pb::ListBadgesRequest) -> Result<pb::ListBadgesResponse, Error> {
        let programme = call.programme.to_string();
        let filters = [programme.as_str()];
        let after = page::key("ListBadges", &filters, &request.page_token)?.unwrap_or_default();
        let size = page::size(request.page_size);
        let mut conn = self.gate.db().read().await?;
        let mut badges = store::badge::list(&mut conn, call.programme, &after, Some(size + 1)).await?;
        let next_page_token = page::cut(&mut badges, size, |badge| page::token("ListBadges", &filters, &badge.id));
        Ok(pb::ListBadgesResponse { badges: badges.into_iter().map(badge).collect(), next_page_token })
    }

    async fn list_awards(&self, call: Call, request: pb::ListMemberBadgesRequest) -> Result<pb::ListMemberBadgesResponse, Error> {
        let programme = call.programme.to_string();
        let filters = [programme.as_str(), &request.member_id];
        let mut violations = Violations::default();
        let member = violations.take(MemberId::parse("member_id", &request.member_id));
        let before = violations.take(page::after_id("ListMemberBadges", &filters, &request.page_token)).flatten();
        violations.finish()?;
        let member = member.ok_or_else(|| Error::Invalid(Vec::new()))?;
        let size = page::size(request.page_size);
        let mut conn = self.gate.db().read().await?;
        let not_found = Error::MemberNotFound { member: Some(member) };
        let member = store::merge::resolve(&mut conn, call.programme, member).await?.ok_or(not_found)?;
        let before = before.unwrap_or(Uuid::max());
        let mut awards = store::badge::list_awards(&mut conn, call.programme, member, before, size + 1).await?;
        let token = |award: &Award| page::token("ListMemberBadges", &filters, &award.id.to_string());
        let next_page_token = page::cut(&mut awards, size, token);
        Ok(pb::ListMemberBadgesResponse { awards: awards.into_iter().map(award).collect(), next_page_token })
    }
}

#[tonic::async_trait]
impl pb::badge_service_server::BadgeService for BadgeApi {
    async fn create_badge(&self, request: Request<pb::CreateBadgeRequest>) -> Result<Response<pb::CreateBadgeResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(create(work, request))).await.map(Into::into)
    }

    async fn update_badge(&self, request: Request<pb::UpdateBadgeRequest>) -> Result<Response<pb::UpdateBadgeResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(update(work, request))).await.map(Into::into)
    }

    async fn list_badges(&self, request: Request<pb::ListBadgesRequest>) -> Result<Response<pb::ListBadgesResponse>, Status> {
        self.gate.read(request, |call, request| self.list(call, request)).await
    }

    async fn award_badge(&self, request: Request<pb::AwardBadgeRequest>) -> Result<Response<pb::AwardBadgeResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(give(work, request))).await.map(Into::into)
    }

    async fn revoke_badge(&self, request: Request<pb::RevokeBadgeRequest>) -> Result<Response<pb::RevokeBadgeResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(revoke(work, request))).await.map(Into::into)
    }

    async fn evaluate_badges(
        &self,
        request: Request<pb::EvaluateBadgesRequest>,
    ) -> Result<Response<pb::EvaluateBadgesResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(evaluate(work, request))).await.map(Into::into)
    }

    async fn list_member_badges(
        &self,
        request: Request<pb::ListMemberBadgesRequest>,
    ) -> Result<Response<pb::ListMemberBadgesResponse>, Status> {
        self.gate.read(request, |call, request| self.list_awards(call, request)).await
    }
}

async fn create(work: &mut Work, request: pb::CreateBadgeRequest) -> Result<pb::CreateBadgeResponse, Error> {
    let wire = request.badge.unwrap_or_default();
    let programme = work.programme();
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::ProgrammeNotFound { programme });
    }
    if store::badge::get(work.conn(), programme, &wire.badge_id).await?.is_some() {
        return Err(Error::BadgeExists { badge_id: wire.badge_id });
    }
    if store::badge::list(work.conn(), programme, "", None).await?.len() >= MAX_BADGES {
        return Err(Error::BadgeLimit { limit: MAX_BADGES });
    }
    let badge = keep(work, wire, 1, request.reason).await?;
    Ok(pb::CreateBadgeResponse { badge: Some(badge) })
}

async fn update(work: &mut Work, request: pb::UpdateBadgeRequest) -> Result<pb::UpdateBadgeResponse, Error> {
    let paths = request.update_mask.unwrap_or_default().paths;
    let (badge_id, sent) = (request.badge_id, request.badge.unwrap_or_default());
    let programme = work.programme();
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::BadgeNotFound { badge_id });
    }
    let stored = store::badge::get(work.conn(), programme, &badge_id).await?;
    let stored = stored.ok_or(Error::BadgeNotFound { badge_id })?;
    if !page::etag_matches(&request.etag, i64::from(stored.version)) {
        return Err(Error::BadgeEtagMismatch { badge_id: stored.id, version: stored.version });
    }
    let version = stored.version + 1;
    let merged = merge(badge(stored), sent, &paths)?;
    let badge = keep(work, merged, version, request.reason).await?;
    Ok(pb::UpdateBadgeResponse { badge: Some(badge) })
}

/// The badge with what the mask names taken from what was sent, held to the rules of a badge.
fn merge(mut badge: pb::Badge, sent: pb::Badge, paths: &[String]) -> Result<pb::Badge, Vec<Violation>> {
    let mut violations = Violations::default();
    if paths.is_empty() {
        violations.push(Violation::new("update_mask", "required", "must name a field"));
    }
    for path in paths {
        match path.as_str() {
            "display_name" => badge.display_name.clone_from(&sent.display_name),
            "description" => badge.description.clone_from(&sent.description),
            "conditions" => badge.conditions.clone_from(&sent.conditions),
            "repeatable" => badge.repeatable = sent.repeatable,
            "retired" => badge.retired = sent.retired,
            _ => violations.push(Violation::new("update_mask", "FIELD_NOT_UPDATABLE", "names a field that cannot be updated")),
        }
    }
    for broken in badge.violations() {
        violations.push(Violation { field: format!("badge.{}", broken.field), ..broken });
    }
    violations.finish()?;
    Ok(badge)
}

/// Writes a version of a badge, with its fact and audit entry. The programme is locked.
async fn keep(work: &mut Work, wire: pb::Badge, version: i32, reason: String) -> Result<pb::Badge, Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let conditions = conditions(&wire.conditions)?;
    let kept = Badge {
        id: wire.badge_id,
        version,
        display_name: wire.display_name,
        description: wire.description,
        conditions,
        repeatable: wire.repeatable,
        retired: wire.retired,
        version_time: work.now().await?,
    };
    let tiers = store::tier::list(work.conn(), programme).await?.into_iter().map(|tier| tier.id).collect();
    let badges = store::badge::list(work.conn(), programme, "", None).await?.into_iter().map(|badge| badge.id).collect();
    kept.check(&tiers, &badges)?;
    store::badge::insert(work.conn(), programme, &kept, &reason, &actor).await?;
    work.emit(programme.0, &pb::BadgeChanged { badge_id: kept.id.clone(), version }).await?;
    work.audit(programme.0, Some(reason));
    Ok(badge(kept))
}

async fn give(work: &mut Work, request: pb::AwardBadgeRequest) -> Result<pb::AwardBadgeResponse, Error> {
    let member = MemberId::parse("member_id", &request.member_id)?;
    let (programme, actor, badge_id) = (work.programme(), work.actor().to_owned(), request.badge_id);
    let locked = redirect::lock_accounts(work.conn(), programme, &[member.0]).await?;
    let member = locked.led(member);
    if !locked.accounts.contains_key(&member) {
        return Err(Error::MemberNotFound { member: Some(member) });
    }
    work.audit(member.0, Some(request.reason));
    let before = store::badge::award_of_source(work.conn(), programme, member, &badge_id, &request.source).await?;
    if let Some(before) = before {
        return Ok(pb::AwardBadgeResponse { award: Some(award(before)) });
    }
    let badge = store::badge::get(work.conn(), programme, &badge_id).await?;
    let badge = badge.ok_or_else(|| Error::BadgeNotFound { badge_id: badge_id.clone() })?;
    if badge.retired {
        return Err(Error::BadgeRetired { badge_id });
    }
    let holders = store::badge::holders(work.conn(), programme, &[member.0]).await?;
    let held = holders.iter().any(|holder| holder.held.get(&badge_id).is_some_and(|held| *held > 0));
    if held && !badge.repeatable {
        return Err(Error::BadgeHeld { member, badge_id });
    }
    let now = work.now().await?;
    let given = Award {
        id: AwardId::new(),
        member,
        badge_id,
        badge_version: badge.version,
        origin: AwardOrigin::Hand(request.source),
        actor: actor.clone(),
        award_time: now,
        revoke_time: None,
    };
    award_badges::keep(work.conn(), programme, std::slice::from_ref(&given)).await?;
    let badges = award_badges::by_rule(work.conn(), programme).await?;
    award_badges::award(work.conn(), programme, &[member.0], &badges, &actor, now).await?;
    Ok(pb::AwardBadgeResponse { award: Some(award(given)) })
}

async fn revoke(work: &mut Work, request: pb::RevokeBadgeRequest) -> Result<pb::RevokeBadgeResponse, Error> {
    let id = AwardId::parse("award_id", &request.award_id)?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let not_found = || Error::AwardNotFound { award: id };
    let member = store::badge::award(work.conn(), programme, id).await?.ok_or_else(not_found)?.member;
    redirect::lock_accounts(work.conn(), programme, &[member.0]).await?.check_own(member)?;
    let found = store::badge::award(work.conn(), programme, id).await?.ok_or_else(not_found)?;
    if found.revoke_time.is_some() {
        return Err(Error::AwardRevoked { award: id });
    }
    let now = work.now().await?;
    store::badge::revoke(work.conn(), programme, id, &request.reason, &actor, now).await?;
    let fact = pb::BadgeRevoked { member_id: member.to_string(), award_id: id.to_string(), badge_id: found.badge_id.clone() };
    work.emit(member.0, &fact).await?;
    work.audit(member.0, Some(request.reason));
    Ok(pb::RevokeBadgeResponse { award: Some(award(Award { revoke_time: Some(now), ..found })) })
}

async fn evaluate(work: &mut Work, request: pb::EvaluateBadgesRequest) -> Result<pb::EvaluateBadgesResponse, Error> {
    let after = MemberId::parse_optional("after_member_id", &request.after_member_id)?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if request.validate_only {
        work.dry_run();
    }
    store::programme::get(work.conn(), programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let after = after.map_or(Uuid::nil(), |member| member.0);
    let members = store::member::list_ids(work.conn(), programme, after, MAX_LOOKED_AT as i64).await?;
    let next_after_member_id = members.get(MAX_LOOKED_AT - 1).map(Uuid::to_string).unwrap_or_default();
    let awards = if request.validate_only {
        let badges = award_badges::by_rule(work.conn(), programme).await?;
        let found = award_badges::find(work.conn(), programme, &members, &badges).await?;
        let foreseen = found.into_iter().map(|(member, badge, evidence)| pb::BadgeAward {
            member_id: member.to_string(),
            badge_id: badge.id.clone(),
            badge_version: badge.version,
            by_rule: true,
            evidence: Some(evidence_to_wire(evidence)),
            ..Default::default()
        });
        foreseen.collect()
    } else {
        let given = award_badges::look_and_award(work.conn(), programme, &members, &actor).await?;
        given.into_iter().map(award).collect::<Vec<_>>()
    };
    work.audit(programme.0, Some(format!("{} members looked at, {} badges given", members.len(), awards.len())));
    Ok(pb::EvaluateBadgesResponse { awards, next_after_member_id })
}

fn conditions(wire: &[pb::BadgeCondition]) -> Result<Vec<Condition>, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut conditions = Vec::with_capacity(wire.len());
    for (i, wire) in wire.iter().enumerate() {
        let field = format!("badge.conditions[{i}]");
        let value_type = match wire.value_type {
            0 => None,
            number => violations.take(ValueType::from_wire(&format!("{field}.value_type"), number)),
        };
        let sent = Sent {
            min_points: wire.min_points,
            tier_id: wire.tier_id.clone(),
            value_type,
            badge_id: wire.badge_id.clone(),
            min_count: wire.min_count,
        };
        let kind = ConditionKind::from_wire(&format!("{field}.kind"), wire.kind);
        conditions.extend(violations.take(kind.and_then(|kind| Condition::new(&field, kind, sent))));
    }
    violations.finish().map(|()| conditions)
}

fn condition_to_wire(condition: Condition) -> pb::BadgeCondition {
    let of = |kind: ConditionKind| pb::BadgeCondition { kind: kind.to_wire(), ..Default::default() };
    match condition {
        Condition::LifetimePoints { min_points } => pb::BadgeCondition { min_points, ..of(ConditionKind::LifetimePoints) },
        Condition::Tier { tier_id } => pb::BadgeCondition { tier_id, ..of(ConditionKind::Tier) },
        Condition::ValueType { value_type } => {
            pb::BadgeCondition { value_type: value_type.to_wire(), ..of(ConditionKind::ValueType) }
        }
        Condition::BadgeCount { badge_id, min_count } => {
            pb::BadgeCondition { badge_id, min_count, ..of(ConditionKind::BadgeCount) }
        }
    }
}

fn badge(badge: Badge) -> pb::Badge {
    pb::Badge {
        badge_id: badge.id,
        version: badge.version,
        display_name: badge.display_name,
        description: badge.description,
        conditions: badge.conditions.into_iter().map(condition_to_wire).collect(),
        repeatable: badge.repeatable,
        retired: badge.retired,
        etag: page::etag(i64::from(badge.version)),
        version_time: Some(clock::to_proto(badge.version_time)),
    }
}

fn award(award: Award) -> pb::BadgeAward {
    let (evidence, source) = match award.origin {
        AwardOrigin::Rule(evidence) => (Some(evidence_to_wire(evidence)), String::new()),
        AwardOrigin::Hand(source) => (None, source),
    };
    pb::BadgeAward {
        award_id: award.id.to_string(),
        member_id: award.member.to_string(),
        badge_id: award.badge_id,
        badge_version: award.badge_version,
        by_rule: evidence.is_some(),
        evidence,
        source,
        actor: award.actor,
        award_time: Some(clock::to_proto(award.award_time)),
        revoke_time: award.revoke_time.map(clock::to_proto),
    }
}

fn evidence_to_wire(evidence: Evidence) -> pb::BadgeEvidence {
    let count = |(badge_id, count): (String, i32)| pb::BadgeCount { badge_id, count };
    pb::BadgeEvidence {
        lifetime_points: evidence.lifetime_points,
        tier_id: evidence.tier_id.unwrap_or_default(),
        value_types: evidence.value_types.into_iter().map(Wire::to_wire).collect(),
        badge_counts: evidence.badge_counts.into_iter().map(count).collect(),
    }
}
