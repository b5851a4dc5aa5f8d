//! TierPolicyService.

use super::{convert::Wire, tier::wire};
use crate::{
    domain::{
        text::storable,
        tier::{
            Policy,
            dry_run::{DryRun, DryRunId, Refusal as TrialRefusal},
            policy::{Draft, DraftId, DraftState, MAX_OPEN_DRAFTS, Refusal, Version},
        },
    },
    error::Error,
    flow::try_tier_policy,
    store,
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Gate, Work},
    page,
};
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};
use uuid::Uuid;

pub struct TierPolicyApi {
    gate: Gate<Error>,
}

impl TierPolicyApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn get_draft(
        &self,
        call: Call,
        request: pb::GetTierPolicyDraftRequest,
    ) -> Result<pb::GetTierPolicyDraftResponse, Error> {
        let id = DraftId::parse("draft_id", &request.draft_id)?;
        let mut conn = self.gate.db().read().await?;
        let found = store::tier::policy::draft(&mut conn, call.programme, id).await?.ok_or(Refusal::NotFound { draft: id })?;
        Ok(pb::GetTierPolicyDraftResponse { draft: Some(draft(found)) })
    }

    async fn list_drafts(
        &self,
        call: Call,
        request: pb::ListTierPolicyDraftsRequest,
    ) -> Result<pb::ListTierPolicyDraftsResponse, Error> {
        const LIST: &str = "ListTierPolicyDrafts";
        let programme = call.programme.to_string();
        let bound = [programme.as_str()];
        let before = page::after_id(LIST, &bound, &request.page_token)?;
        let size = page::size(request.page_size);
        let mut conn = self.gate.db().read().await?;
        let mut drafts = store::tier::policy::drafts(&mut conn, call.programme, before, size + 1).await?;
        let next_page_token = page::cut(&mut drafts, size, |last| page::token(LIST, &bound, &last.id.to_string()));
        Ok(pb::ListTierPolicyDraftsResponse { drafts: drafts.into_iter().map(draft).collect(), next_page_token })
    }

    async fn get(&self, call: Call, request: pb::GetTierPolicyRequest) -> Result<pb::GetTierPolicyResponse, Error> {
        let programme = call.programme;
        let time = request.as_of_time.as_ref().map(|time| clock::from_proto("as_of_time", time)).transpose()?;
        let mut tx = self.gate.db().snapshot().await?;
        store::programme::get(&mut tx, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
        let found = store::tier::policy::at(&mut tx, programme, time).await?.ok_or(Error::TierPolicyNotFound)?;
        Ok(pb::GetTierPolicyResponse { version: Some(version(found)) })
    }

    async fn list(&self, call: Call, request: pb::ListTierPoliciesRequest) -> Result<pb::ListTierPoliciesResponse, Error> {
        const LIST: &str = "ListTierPolicies";
        let programme = call.programme;
        let id = programme.to_string();
        let bound = [id.as_str()];
        let before = page::key(LIST, &bound, &request.page_token)?;
        let before = before.map(|key| key.parse::<i32>().map_err(|_| page::invalid_token())).transpose()?;
        let size = page::size(request.page_size);
        let mut tx = self.gate.db().snapshot().await?;
        store::programme::get(&mut tx, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
        let mut versions = store::tier::policy::list(&mut tx, programme, before, size + 1).await?;
        let next_page_token = page::cut(&mut versions, size, |last| page::token(LIST, &bound, &last.policy.version.to_string()));
        Ok(pb::ListTierPoliciesResponse { versions: versions.into_iter().map(version).collect(), next_page_token })
    }

    async fn get_run(&self, call: Call, request: pb::GetTierDryRunRequest) -> Result<pb::GetTierDryRunResponse, Error> {
        let mut conn = self.gate.db().read().await?;
        let run = find_run(&mut conn, &call, &request.dry_run_id).await?;
        Ok(pb::GetTierDryRunResponse { dry_run: Some(dry_run(run)) })
    }

    async fn list_run(
        &self,
        call: Call,
        request: pb::ListTierDryRunMembersRequest,
    ) -> Result<pb::ListTierDryRunMembersResponse, Error> {
        const LIST: &str = "ListTierDryRunMembers";
        let programme = call.programme.to_string();
        let bound = [programme.as_str(), request.dry_run_id.as_str()];
        let after = page::after_id(LIST, &bound, &request.page_token)?.unwrap_or(Uuid::nil());
        let size = page::size(request.page_size);
        let mut tx = self.gate.db().snapshot().await?;
        let run = find_run(&mut tx, &call, &request.dry_run_id).await?;
        let mut found = store::tier::dry_run::members(&mut tx, call.programme, &run, after, size + 1).await?;
        let next_page_token = page::cut(&mut found, size, |last| page::token(LIST, &bound, &last.member.to_string()));
        let moves = found.into_iter().map(|m| wire::tier_move(m, &run.rules, false)).collect();
        Ok(pb::ListTierDryRunMembersResponse { moves, next_page_token })
    }
}

async fn find_run(conn: &mut PgConnection, call: &Call, id: &str) -> Result<DryRun, Error> {
    let id = DryRunId::parse("dry_run_id", id)?;
    let found = store::tier::dry_run::get(conn, call.programme, id).await?;
    Ok(found.ok_or(TrialRefusal::NotFound { run: id })?.0)
}

#[tonic::async_trait]
impl pb::tier_policy_service_server::TierPolicyService for TierPolicyApi {
    async fn create_tier_policy_draft(
        &self,
        request: Request<pb::CreateTierPolicyDraftRequest>,
    ) -> Result<Response<pb::CreateTierPolicyDraftResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(create(work, request))).await.map(Into::into)
    }

    async fn update_tier_policy_draft(
        &self,
        request: Request<pb::UpdateTierPolicyDraftRequest>,
    ) -> Result<Response<pb::UpdateTierPolicyDraftResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(update(work, request))).await.map(Into::into)
    }

    async fn get_tier_policy_draft(
        &self,
        request: Request<pb::GetTierPolicyDraftRequest>,
    ) -> Result<Response<pb::GetTierPolicyDraftResponse>, Status> {
        self.gate.read(request, |call, request| self.get_draft(call, request)).await
    }

    async fn list_tier_policy_drafts(
        &self,
        request: Request<pb::ListTierPolicyDraftsRequest>,
    ) -> Result<Response<pb::ListTierPolicyDraftsResponse>, Status> {
        self.gate.read(request, |call, request| self.list_drafts(call, request)).await
    }

    async fn discard_tier_policy_draft(
        &self,
        request: Request<pb::DiscardTierPolicyDraftRequest>,
    ) -> Result<Response<pb::DiscardTierPolicyDraftResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(discard(work, request))).await.map(Into::into)
    }

    async fn activate_tier_policy_draft(
        &self,
        request: Request<pb::ActivateTierPolicyDraftRequest>,
    ) -> Result<Response<pb::ActivateTierPolicyDraftResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(activate(work, request))).await.map(Into::into)
    }

    async fn get_tier_policy(
        &self,
        request: Request<pb::GetTierPolicyRequest>,
    ) -> Result<Response<pb::GetTierPolicyResponse>, Status> {
        self.gate.read(request, |call, request| self.get(call, request)).await
    }

    async fn list_tier_policies(
        &self,
        request: Request<pb::ListTierPoliciesRequest>,
    ) -> Result<Response<pb::ListTierPoliciesResponse>, Status> {
        self.gate.read(request, |call, request| self.list(call, request)).await
    }

    async fn start_tier_dry_run(
        &self,
        request: Request<pb::StartTierDryRunRequest>,
    ) -> Result<Response<pb::StartTierDryRunResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(start(work, request))).await.map(Into::into)
    }

    async fn get_tier_dry_run(
        &self,
        request: Request<pb::GetTierDryRunRequest>,
    ) -> Result<Response<pb::GetTierDryRunResponse>, Status> {
        self.gate.read(request, |call, request| self.get_run(call, request)).await
    }

    async fn list_tier_dry_run_members(
        &self,
        request: Request<pb::ListTierDryRunMembersRequest>,
    ) -> Result<Response<pb::ListTierDryRunMembersResponse>, Status> {
        self.gate.read(request, |call, request| self.list_run(call, request)).await
    }
}

async fn create(work: &mut Work, request: pb::CreateTierPolicyDraftRequest) -> Result<pb::CreateTierPolicyDraftResponse, Error> {
    storable("reason", &request.reason)?;
    let rules = wire::rules(request.policy.unwrap_or_default());
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::ProgrammeNotFound { programme });
    }
    rules.check(&store::tier::list(work.conn(), programme).await?)?;
    if store::tier::policy::open_drafts(work.conn(), programme).await? >= MAX_OPEN_DRAFTS {
        return Err(Refusal::TooMany.into());
    }
    let now = work.now().await?;
    let made = Draft::new(rules, request.reason.clone(), &actor, now);
    store::tier::policy::insert_draft(work.conn(), programme, &made).await?;
    work.audit(made.id.0, Some(request.reason));
    Ok(pb::CreateTierPolicyDraftResponse { draft: Some(draft(made)) })
}

/// A draft as it was read. The programme is locked by it.
async fn lock(work: &mut Work, id: &str, etag: &str) -> Result<Draft, Error> {
    let (programme, id) = (work.programme(), DraftId::parse("draft_id", id)?);
    store::programme::lock(work.conn(), programme).await?;
    let found = store::tier::policy::draft(work.conn(), programme, id).await?.ok_or(Refusal::NotFound { draft: id })?;
    if !page::etag_matches(etag, found.revision) {
        return Err(Refusal::Changed { draft: id, revision: found.revision }.into());
    }
    Ok(found)
}

async fn update(work: &mut Work, request: pb::UpdateTierPolicyDraftRequest) -> Result<pb::UpdateTierPolicyDraftResponse, Error> {
    storable("reason", &request.reason)?;
    let rules = wire::rules(request.policy.unwrap_or_default());
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let found = lock(work, &request.draft_id, &request.etag).await?;
    rules.check(&store::tier::list(work.conn(), programme).await?)?;
    let now = work.now().await?;
    let changed = found.change(rules, request.reason.clone(), &actor, now)?;
    store::tier::policy::update_draft(work.conn(), programme, &changed).await?;
    work.audit(changed.id.0, Some(request.reason));
    Ok(pb::UpdateTierPolicyDraftResponse { draft: Some(draft(changed)) })
}

async fn discard(
    work: &mut Work,
    request: pb::DiscardTierPolicyDraftRequest,
) -> Result<pb::DiscardTierPolicyDraftResponse, Error> {
    storable("reason", &request.reason)?;
    let programme = work.programme();
    let found = lock(work, &request.draft_id, &request.etag).await?;
    let now = work.now().await?;
    let closed = found.discard(now)?;
    store::tier::policy::update_draft(work.conn(), programme, &closed).await?;
    work.audit(closed.id.0, Some(request.reason));
    Ok(pb::DiscardTierPolicyDraftResponse { draft: Some(draft(closed)) })
}

async fn activate(
    work: &mut Work,
    request: pb::ActivateTierPolicyDraftRequest,
) -> Result<pb::ActivateTierPolicyDraftResponse, Error> {
    let mut violations = Violations::default();
    let from = request.effective_time.as_ref().map(|time| clock::from_proto("effective_time", time)).transpose();
    let from: Option<DateTime<Utc>> = violations.take(from).flatten();
    violations.take(storable("reason", &request.reason));
    violations.finish()?;
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let found = lock(work, &request.draft_id, &request.etag).await?;
    let now = work.now().await?;
    if from.is_some_and(|from| from < now) {
        return Err(Violation::new("effective_time", "EFFECTIVE_TIME_PAST", "must not be in the past").into());
    }
    // A tier may have gone since the draft was written.
    found.rules.check(&store::tier::list(work.conn(), programme).await?)?;
    // A refused draft takes no number: the transaction ends with the refusal.
    let number = store::tier::policy::next_version(work.conn(), programme).await?;
    let closed = found.activate(number, &actor, now)?;
    let made = Version {
        policy: Policy { version: number, rules: closed.rules.clone() },
        effective_time: from.unwrap_or(now),
        reason: request.reason.clone(),
        actor,
        authors: closed.authors.clone(),
        create_time: now,
    };
    store::tier::policy::insert(work.conn(), programme, &made).await?;
    store::tier::policy::update_draft(work.conn(), programme, &closed).await?;
    let effective_time = Some(clock::to_proto(made.effective_time));
    work.emit(programme.0, &pb::TierPolicyActivated { version: number, effective_time }).await?;
    work.audit(closed.id.0, Some(request.reason));
    Ok(pb::ActivateTierPolicyDraftResponse { version: Some(version(made)) })
}

async fn start(work: &mut Work, request: pb::StartTierDryRunRequest) -> Result<pb::StartTierDryRunResponse, Error> {
    let found = lock(work, &request.draft_id, "").await?;
    let run = try_tier_policy::start(work, found).await?;
    work.audit(run.id.0, None);
    Ok(pb::StartTierDryRunResponse { dry_run: Some(dry_run(run)) })
}

fn draft(draft: Draft) -> pb::TierPolicyDraft {
    let (state, number) = match draft.state {
        DraftState::Open => (pb::TierPolicyDraftState::Open, 0),
        DraftState::Activated(version) => (pb::TierPolicyDraftState::Activated, version),
        DraftState::Discarded => (pb::TierPolicyDraftState::Discarded, 0),
    };
    pb::TierPolicyDraft {
        draft_id: draft.id.to_string(),
        policy: Some(wire::policy(Policy { version: number, rules: draft.rules })),
        reason: draft.reason,
        state: state.into(),
        authors: draft.authors,
        etag: page::etag(draft.revision),
        create_time: Some(clock::to_proto(draft.create_time)),
        update_time: Some(clock::to_proto(draft.update_time)),
    }
}

fn version(version: Version) -> pb::TierPolicyVersion {
    pb::TierPolicyVersion {
        policy: Some(wire::policy(version.policy)),
        effective_time: Some(clock::to_proto(version.effective_time)),
        reason: version.reason,
        actor: version.actor,
        authors: version.authors,
        create_time: Some(clock::to_proto(version.create_time)),
    }
}

fn dry_run(run: DryRun) -> pb::TierDryRun {
    let count = |c: crate::domain::tier::dry_run::Count| pb::TierOutcomeCount {
        outcome: c.outcome.to_wire(),
        from_tier_id: c.from,
        to_tier_id: c.to,
        member_count: c.members,
    };
    pb::TierDryRun {
        dry_run_id: run.id.to_string(),
        draft_id: run.draft.to_string(),
        policy: Some(wire::policy(Policy { version: 0, rules: run.rules })),
        running: run.end_time.is_none(),
        judged_count: run.judged,
        outcomes: run.counts.into_iter().map(count).collect(),
        actor: run.actor,
        create_time: Some(clock::to_proto(run.as_of)),
        end_time: run.end_time.map(clock::to_proto),
    }
}
