//! TierService.

use super::convert::{self, Wire};
use crate::{
    domain::{
        consent::Purpose,
        history::{Before, Change, ChangeKind, TIER_ID},
        text::storable,
        tier::{Policy, Proposal, Verdict, judge},
    },
    error::Error,
    flow::{award_badges, erase_member::check_living},
    store::{self, tier::Move},
};
use koc_chassis::{
    clock,
    fault::Violations,
    gate::{Call, Gate, Work},
    ids::{self, MemberId},
    outbox::{self, NewFact},
};
use koc_proto::koc::registry::v1 as pb;
use std::collections::HashMap;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Moves in one answer.
const MAX_MOVES: i64 = 1_000;
/// Members judged in one evaluation: it is one transaction that holds them all, and one answer that names them all.
const MAX_JUDGED: usize = 1_000;

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
        let policy = store::tier::active_policy(&mut tx, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
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
        Ok(pb::ListTiersResponse { tiers, policy: Some(convert::policy(policy)) })
    }

    async fn list_moves(&self, call: Call, request: pb::ListTierMovesRequest) -> Result<pb::ListTierMovesResponse, Error> {
        let member = MemberId::parse("member_id", &request.member_id)?;
        let mut conn = self.gate.db().read().await?;
        if !store::member::exists(&mut conn, call.programme, member).await? {
            return Err(Error::MemberNotFound { member: Some(member) });
        }
        let moves = store::tier::list_moves(&mut conn, call.programme, member, MAX_MOVES).await?;
        let moves = moves
            .into_iter()
            .map(|m| pb::TierMove {
                member_id: m.member.to_string(),
                from_tier_id: m.from_tier_id,
                to_tier_id: m.to_tier_id,
                reason: m.reason,
                policy_version: m.policy_version,
                move_time: Some(clock::to_proto(m.time)),
            })
            .collect();
        Ok(pb::ListTierMovesResponse { moves })
    }
}

#[tonic::async_trait]
impl pb::tier_service_server::TierService for TierApi {
    async fn list_tiers(&self, request: Request<pb::ListTiersRequest>) -> Result<Response<pb::ListTiersResponse>, Status> {
        self.gate.read(request, |call, _| self.list(call)).await
    }

    async fn create_tier_policy(
        &self,
        request: Request<pb::CreateTierPolicyRequest>,
    ) -> Result<Response<pb::CreateTierPolicyResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(create_policy(work, request))).await.map(Into::into)
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

    async fn list_tier_moves(
        &self,
        request: Request<pb::ListTierMovesRequest>,
    ) -> Result<Response<pb::ListTierMovesResponse>, Status> {
        self.gate.read(request, |call, request| self.list_moves(call, request)).await
    }
}

async fn create_policy(work: &mut Work, request: pb::CreateTierPolicyRequest) -> Result<pb::CreateTierPolicyResponse, Error> {
    storable("reason", &request.reason)?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::ProgrammeNotFound { programme });
    }
    let now = work.now().await?;
    let version = store::tier::next_policy_version(work.conn(), programme).await?;
    let policy = Policy { version, rules: convert::rules(&request.policy.unwrap_or_default()) };
    store::tier::insert_policy(work.conn(), programme, &policy, &request.reason, &actor, now).await?;
    work.audit(programme.0, Some(request.reason));
    Ok(pb::CreateTierPolicyResponse { policy: Some(convert::policy(policy)) })
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
    let proposal = Proposal {
        promote_probability: wire.promote_probability,
        output_count: wire.output_count,
        as_of,
        decision,
        reason: wire.reason,
    };

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
    }
    work.audit(member.0, Some(proposal.reason));
    Ok(pb::ProposeTierResponse { recorded })
}

async fn evaluate(work: &mut Work, request: pb::EvaluateTiersRequest) -> Result<pb::EvaluateTiersResponse, Error> {
    let after = MemberId::parse_optional("after_member_id", &request.after_member_id)?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::ProgrammeNotFound { programme });
    }
    let policy = store::tier::active_policy(work.conn(), programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let tiers = store::tier::list(work.conn(), programme).await?;
    let after = after.map_or(Uuid::nil(), |member| member.0);
    let candidates = store::tier::lock_candidates(work.conn(), programme, after, MAX_JUDGED as i64).await?;
    let now = work.now().await?;

    let mut response = pb::EvaluateTiersResponse::default();
    if let Some(last) = candidates.get(MAX_JUDGED - 1) {
        response.next_after_member_id = last.member.to_string();
    }
    let (mut moves, mut facts) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let verdict = judge(&candidate, &tiers, &policy.rules, now);
        let mut told = pb::TierMove {
            member_id: candidate.member.to_string(),
            from_tier_id: candidate.tier_id.clone(),
            policy_version: policy.version,
            move_time: (!request.validate_only).then(|| clock::to_proto(now)),
            ..Default::default()
        };
        match verdict {
            Verdict::Stays { reason } => {
                (told.to_tier_id, told.reason) = (candidate.tier_id, reason);
                response.stayed.push(told);
            }
            Verdict::Rises { to_tier_id, reason } => {
                (told.to_tier_id, told.reason) = (to_tier_id.clone(), reason.clone());
                let fact = pb::MemberTierChanged {
                    member_id: told.member_id.clone(),
                    from_tier_id: told.from_tier_id.clone(),
                    to_tier_id: to_tier_id.clone(),
                    policy_version: policy.version,
                    move_time: Some(clock::to_proto(now)),
                };
                facts.push(NewFact::new(programme, candidate.member.0, &fact));
                moves.push(Move {
                    member: candidate.member,
                    from_tier_id: candidate.tier_id,
                    to_tier_id,
                    reason,
                    policy_version: policy.version,
                    decision: candidate.proposal.decision,
                    time: now,
                });
                response.promoted.push(told);
            }
        }
    }
    if request.validate_only {
        work.dry_run();
        return Ok(response);
    }
    let versions = store::tier::apply_moves(work.conn(), programme, &moves, &actor, now).await?;
    let change = |m: &Move| {
        let fields = vec![Before::named(TIER_ID, &m.from_tier_id)];
        versions.get(&m.member).map(|version| Change::by_api(m.member, *version, ChangeKind::Updated, fields))
    };
    let changes: Vec<Change> = moves.iter().filter_map(change).collect();
    store::history::insert_all(work.conn(), programme, &changes, &actor, now).await?;
    outbox::append(work.conn(), &facts).await?;
    let moved: Vec<Uuid> = moves.iter().map(|m| m.member.0).collect();
    award_badges::award_changed(work.conn(), programme, &moved, &actor, now).await?;
    work.audit(programme.0, Some(format!("{} members rose, {} stayed", moves.len(), response.stayed.len())));
    Ok(response)
}
