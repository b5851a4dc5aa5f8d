//! TierService.

pub mod wire;

use super::convert::Wire;
use crate::{
    domain::{
        consent::Purpose,
        text::storable,
        tier::{
            Outcome, Proposal, Reading, judge, neighbours,
            standing::Level,
            verdict::{conditions, risk},
        },
    },
    error::Error,
    flow::{
        assign_tier::{self, Assignment},
        erase_member::check_living,
        evaluate_tiers,
    },
    store::{self, tier::standing::Kept},
};
use chrono::{DateTime, TimeDelta};
use koc_chassis::{
    clock,
    fault::Violations,
    gate::{Call, Gate, Work},
    ids::{self, MemberId},
    page,
};
use koc_proto::koc::registry::v1 as pb;
use std::collections::{HashMap, hash_map::Entry};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Moves in one answer.
const MAX_MOVES: i64 = 1_000;

pub struct TierApi {
    gate: Gate<Error>,
}

impl TierApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn list(&self, call: Call) -> Result<pb::ListTiersResponse, Error> {
        let programme = call.programme;
        let mut tx = self.gate.db().snapshot().await?;
        let policy = store::tier::policy::active(&mut tx, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
        let tiers = store::tier::list(&mut tx, programme).await?;
        let counts: HashMap<String, i64> = store::tier::member_counts(&mut tx, programme).await?.into_iter().collect();
        let tiers = tiers
            .into_iter()
            .map(|tier| pb::Tier {
                member_count: counts.get(&tier.id).copied().unwrap_or(0),
                tier_id: tier.id,
                rank: tier.rank,
                resource_class: tier.resource_class.to_wire(),
            })
            .collect();
        Ok(pb::ListTiersResponse { tiers, policy: Some(wire::policy(policy)) })
    }

    async fn list_moves(&self, call: Call, request: pb::ListTierMovesRequest) -> Result<pb::ListTierMovesResponse, Error> {
        let member = MemberId::parse("member_id", &request.member_id)?;
        let mut tx = self.gate.db().snapshot().await?;
        if !store::member::exists(&mut tx, call.programme, member).await? {
            return Err(Error::MemberNotFound { member: Some(member) });
        }
        let moves = store::tier::list_moves(&mut tx, call.programme, member, MAX_MOVES).await?;
        // Each by the rules of its own version.
        let mut policies = HashMap::new();
        let mut told = Vec::with_capacity(moves.len());
        for m in moves {
            let rules = match policies.entry(m.policy_version) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let above = m.policy_version.checked_add(1);
                    let found = store::tier::policy::list(&mut tx, call.programme, above, 1).await?.pop();
                    place.insert(found.map(|version| version.policy.rules).unwrap_or_default())
                }
            };
            told.push(wire::tier_move(m, rules, true));
        }
        Ok(pb::ListTierMovesResponse { moves: told })
    }

    async fn progress(&self, call: Call, request: pb::GetTierProgressRequest) -> Result<pb::GetTierProgressResponse, Error> {
        let (programme, member) = (call.programme, MemberId::parse("member_id", &request.member_id)?);
        let not_found = || Error::MemberNotFound { member: Some(member) };
        let mut tx = self.gate.db().snapshot().await?;
        let member = store::merge::resolve(&mut tx, programme, member).await?.ok_or_else(not_found)?;
        let candidate = store::tier::standing::candidate(&mut tx, programme, member).await?.ok_or_else(not_found)?;
        let policy = store::tier::policy::active(&mut tx, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
        let tiers = store::tier::list(&mut tx, programme).await?;
        let rooms = evaluate_tiers::rooms(&mut tx, programme, &policy).await?;
        let now = clock::now(&mut tx).await?;
        let periods = candidate.periods(&policy.rules);
        let next = neighbours(&tiers, &candidate.tier_id).0;
        let conditions = next.map(|next| conditions(&candidate, &periods, next, &policy.rules, &rooms, now)).unwrap_or_default();
        let verdict = judge(&candidate, &tiers, &policy.rules, &rooms, now);
        let readings: Vec<_> = periods.iter().map(|reading| wire::reading(reading, &policy.rules)).collect();
        let hold = candidate.standing.hold.filter(|hold| hold.stands(now));
        Ok(pb::GetTierProgressResponse {
            next_tier_id: next.map(|next| next.id.clone()).unwrap_or_default(),
            conditions: conditions.into_iter().map(wire::condition).collect(),
            review: candidate.standing.review.map(wire::review),
            held: hold.is_some(),
            hold_end_time: hold.and_then(|hold| hold.end).map(clock::to_proto),
            outlook: Some(pb::TierMove {
                member_id: member.to_string(),
                from_tier_id: candidate.tier_id.clone(),
                to_tier_id: verdict.to_tier_id,
                reason: verdict.reason,
                policy_version: policy.version,
                outcome: verdict.outcome.to_wire(),
                readings: readings.clone(),
                ..Default::default()
            }),
            readings,
            tier_id: candidate.tier_id,
            policy_version: policy.version,
        })
    }

    async fn forecast(&self, call: Call, request: pb::ListTierForecastRequest) -> Result<pb::ListTierForecastResponse, Error> {
        const LIST: &str = "ListTierForecast";
        let programme = call.programme;
        let id = programme.to_string();
        let mut violations = Violations::default();
        let until = request.until_time.as_ref().map(|time| clock::from_proto("until_time", time)).transpose();
        let until = violations.take(until).flatten();
        // The page token is bound to the time that was asked for.
        let asked = until.map(|until| until.timestamp_micros().to_string()).unwrap_or_default();
        let bound = [id.as_str(), asked.as_str()];
        let after = violations.take(wire::place(LIST, &bound, &request.page_token));
        violations.finish()?;
        let after = after.flatten().unwrap_or((DateTime::UNIX_EPOCH, Uuid::nil()));
        let mut tx = self.gate.db().snapshot().await?;
        let policy = store::tier::policy::active(&mut tx, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
        let tiers = store::tier::list(&mut tx, programme).await?;
        let until = match until {
            Some(until) => until,
            None => clock::now(&mut tx).await? + TimeDelta::days(i64::from(policy.rules.period_days)),
        };
        let size = page::size(request.page_size);
        let mut found = store::tier::standing::at_risk(&mut tx, programme, until, after, size + 1).await?;
        let next_page_token = page::cut(&mut found, size, |at| page::token(LIST, &bound, &wire::key((at.time, at.member.0))));
        let members: Vec<Uuid> = found.iter().map(|at| at.member.0).collect();
        let candidates = store::tier::standing::candidates(&mut tx, programme, &members).await?;
        let candidates: HashMap<MemberId, _> = candidates.into_iter().map(|c| (c.member, c)).collect();
        // Who is suspended or merged is not judged, and so not at risk.
        let forecasts = found.iter().filter_map(|at| Some(wire::forecast(at, candidates.get(&at.member)?, &tiers, &policy)));
        Ok(pb::ListTierForecastResponse { forecasts: forecasts.collect(), next_page_token })
    }
}

#[tonic::async_trait]
impl pb::tier_service_server::TierService for TierApi {
    async fn list_tiers(&self, request: Request<pb::ListTiersRequest>) -> Result<Response<pb::ListTiersResponse>, Status> {
        self.gate.read(request, |call, _| self.list(call)).await
    }

    async fn propose_tier(&self, request: Request<pb::ProposeTierRequest>) -> Result<Response<pb::ProposeTierResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(propose(work, request))).await.map(Into::into)
    }

    async fn evaluate_tiers(
        &self,
        request: Request<pb::EvaluateTiersRequest>,
    ) -> Result<Response<pb::EvaluateTiersResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(evaluate(work, request))).await.map(Into::into)
    }

    async fn get_tier_progress(
        &self,
        request: Request<pb::GetTierProgressRequest>,
    ) -> Result<Response<pb::GetTierProgressResponse>, Status> {
        self.gate.read(request, |call, request| self.progress(call, request)).await
    }

    async fn list_tier_forecast(
        &self,
        request: Request<pb::ListTierForecastRequest>,
    ) -> Result<Response<pb::ListTierForecastResponse>, Status> {
        self.gate.read(request, |call, request| self.forecast(call, request)).await
    }

    async fn assign_tier(&self, request: Request<pb::AssignTierRequest>) -> Result<Response<pb::AssignTierResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(assign(work, request))).await.map(Into::into)
    }

    async fn end_tier_hold(&self, request: Request<pb::EndTierHoldRequest>) -> Result<Response<pb::EndTierHoldResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(end_hold(work, request))).await.map(Into::into)
    }

    async fn list_tier_moves(
        &self,
        request: Request<pb::ListTierMovesRequest>,
    ) -> Result<Response<pb::ListTierMovesResponse>, Status> {
        self.gate.read(request, |call, request| self.list_moves(call, request)).await
    }
}

async fn propose(work: &mut Work, request: pb::ProposeTierRequest) -> Result<pb::ProposeTierResponse, Error> {
    let wire = request.proposal.unwrap_or_default();
    let mut violations = Violations::default();
    let member = violations.take(MemberId::parse("member_id", &request.member_id));
    let decision = violations.take(ids::parse("proposal.decision_id", &wire.decision_id));
    let as_of = violations.take(clock::required("proposal.as_of", wire.as_of.as_ref()));
    violations.take(storable("proposal.reason", &wire.reason));
    violations.finish()?;
    let (Some(member), Some(decision), Some(as_of)) = (member, decision, as_of) else {
        return Err(Error::Invalid(Vec::new()));
    };
    let reading = Reading {
        as_of,
        level: wire.level.map(|level| Level { mean: level.mean, sd: level.sd }),
        told_probability: wire.promote_probability,
        weight: wire.evidence_weight.unwrap_or_else(|| f64::from(wire.output_count)),
        output_count: wire.output_count,
        decision,
    };
    let proposal = Proposal { reading, reason: wire.reason };

    let programme = work.programme();
    let locked = store::member::lock(work.conn(), programme, member).await?;
    let locked = locked.ok_or(Error::MemberNotFound { member: Some(member) })?;
    check_living(&locked)?;
    let member = locked.id;
    if locked.record.profile.withdraws(Purpose::Profiling) {
        return Err(Error::ConsentWithdrawn { member, purpose: Purpose::Profiling });
    }
    let standing = store::tier::standing_proposal(work.conn(), programme, member).await?;
    let recorded = proposal.replaces(standing);
    if recorded {
        let now = work.now().await?;
        store::tier::put_proposal(work.conn(), programme, member, &proposal, now).await?;
        store::tier::standing::put_reading(work.conn(), programme, member, &proposal.reading).await?;
        // What threatens the member's tier may be another thing now.
        if let Some(candidate) = store::tier::standing::candidate(work.conn(), programme, member).await? {
            let policy = store::tier::policy::active(work.conn(), programme).await?;
            let policy = policy.ok_or(Error::ProgrammeNotFound { programme })?;
            let tiers = store::tier::list(work.conn(), programme).await?;
            let risk = risk(&candidate, &tiers, &policy.rules);
            let kept = Kept { member, standing: candidate.standing, risk };
            store::tier::standing::put(work.conn(), programme, &[kept]).await?;
        }
    }
    work.audit(member.0, Some(proposal.reason));
    Ok(pb::ProposeTierResponse { recorded })
}

async fn evaluate(work: &mut Work, request: pb::EvaluateTiersRequest) -> Result<pb::EvaluateTiersResponse, Error> {
    let after = MemberId::parse_optional("after_member_id", &request.after_member_id)?;
    if request.validate_only {
        work.dry_run();
    }
    let programme = work.programme();
    let evaluated = evaluate_tiers::evaluate(work, after.map_or(Uuid::nil(), |member| member.0)).await?;
    let mut response = pb::EvaluateTiersResponse {
        next_after_member_id: evaluated.last.map(|last| last.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    for m in evaluated.moves {
        let group = match m.outcome {
            Outcome::Rose => &mut response.promoted,
            Outcome::Fell => &mut response.demoted,
            Outcome::Reviewed | Outcome::Dormant => &mut response.reviewed,
            Outcome::Cleared => &mut response.cleared,
            Outcome::Stayed | Outcome::Assigned | Outcome::HoldEnded => &mut response.stayed,
        };
        group.push(wire::tier_move(m, &evaluated.policy.rules, !request.validate_only));
    }
    let [rose, fell, reviewed, cleared, stayed] =
        [&response.promoted, &response.demoted, &response.reviewed, &response.cleared, &response.stayed].map(Vec::len);
    let told = format!("{rose} members rose, {fell} fell, {reviewed} came under review, {cleared} were cleared, {stayed} stayed");
    work.audit(programme.0, Some(told));
    Ok(response)
}

async fn assign(work: &mut Work, request: pb::AssignTierRequest) -> Result<pb::AssignTierResponse, Error> {
    let mut violations = Violations::default();
    let member = violations.take(MemberId::parse("member_id", &request.member_id));
    let hold_end = request.hold_end_time.as_ref().map(|time| clock::from_proto("hold_end_time", time)).transpose();
    let hold_end = violations.take(hold_end).flatten();
    violations.take(storable("reason", &request.reason));
    violations.finish()?;
    let member = member.ok_or_else(|| Error::Invalid(Vec::new()))?;
    let asked = Assignment { member, tier_id: request.tier_id, hold_end, reason: request.reason };
    let made = assign_tier::assign(work, asked).await?;
    Ok(pb::AssignTierResponse { tier_move: Some(wire::by_hand(made)) })
}

async fn end_hold(work: &mut Work, request: pb::EndTierHoldRequest) -> Result<pb::EndTierHoldResponse, Error> {
    let mut violations = Violations::default();
    let member = violations.take(MemberId::parse("member_id", &request.member_id));
    violations.take(storable("reason", &request.reason));
    violations.finish()?;
    let member = member.ok_or_else(|| Error::Invalid(Vec::new()))?;
    let made = assign_tier::end(work, member, request.reason).await?;
    Ok(pb::EndTierHoldResponse { tier_move: Some(wire::by_hand(made)) })
}
