//! DecisionService.

use crate::{
    api::{convert, ensure_programme, judged},
    domain::{
        decision::Action,
        ids::DecisionId,
        judgement::judge,
        period::Period,
        policy::{NamedThresholds, ProgrammePolicy},
        progress::{ApprovalRefused, Progress},
    },
    error::Error,
    flow::{apply_decision, run_decisions},
    peer::Peers,
    store::{
        self,
        decision::{DecisionFilter, StoredDecision},
        programme::Record,
    },
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Gate},
    ids::MemberId,
    money::{Currency, Money},
    outbox, page,
};
use koc_proto::koc::measurement::v1 as pb;
use tonic::{Request, Response, Status};

/// Serves decisions and their policy.
pub struct DecisionApi {
    pub gate: Gate<Error>,
    pub peers: Peers,
}

fn parse_policy(message: &pb::DecisionPolicy, version: i32, currency: Currency) -> Result<ProgrammePolicy, Error> {
    let mut violations = Violations::default();
    let mut amount = |field: &str, wire: Option<&koc_proto::google::r#type::Money>| {
        let parsed = wire.map(|wire| Money::parse_not_negative(field, Some(wire), currency)).transpose();
        violations.take(parsed).flatten().map(|money| money.minor)
    };
    let min_spend_minor = amount("policy.min_spend", message.min_spend.as_ref());
    let max_draw_per_output_minor = amount("policy.max_draw_per_output", message.max_draw_per_output.as_ref());
    if message.floor_roi > message.target_roi {
        let rule = "must not be above target_roi";
        violations.push(Violation::new("policy.floor_roi", "POLICY_INCONSISTENT", rule));
    }
    let named = NamedThresholds {
        target_roi: message.target_roi,
        floor_roi: message.floor_roi,
        min_outputs: u32::try_from(message.min_outputs).unwrap_or(1),
        min_spend_minor,
        increase_probability: message.increase_probability,
        reduce_probability: message.reduce_probability,
    };
    let thresholds = named.into_thresholds(u32::try_from(version).unwrap_or(u32::MAX));
    if violations.is_empty()
        && let Err(error) = thresholds.check()
    {
        violations.push(Violation::new("policy", "POLICY_INCONSISTENT", error.to_string()));
    }
    violations.finish()?;
    let automatic = message.automatic_actions().filter_map(action).collect();
    Ok(ProgrammePolicy { thresholds, automatic, max_draw_per_output_minor })
}

fn action(wire: pb::DecisionAction) -> Option<Action> {
    match wire {
        pb::DecisionAction::Increase => Some(Action::Increase),
        pb::DecisionAction::Maintain => Some(Action::Maintain),
        pb::DecisionAction::Review => Some(Action::Review),
        pb::DecisionAction::Reduce => Some(Action::Reduce),
        pb::DecisionAction::Unspecified => None,
    }
}

fn policy_message(policy: &ProgrammePolicy, currency: Currency) -> pb::DecisionPolicy {
    let thresholds = &policy.thresholds;
    pb::DecisionPolicy {
        version: convert::version(thresholds.version),
        target_roi: thresholds.target_roi,
        floor_roi: thresholds.floor_roi,
        min_outputs: convert::version(thresholds.min_outputs),
        min_spend: (thresholds.min_spend_minor > 0).then(|| Money::new(thresholds.min_spend_minor, currency).to_proto()),
        increase_probability: thresholds.increase_probability,
        reduce_probability: thresholds.floor_probability,
        automatic_actions: policy.automatic.iter().map(|one| run_decisions::action(*one).into()).collect(),
        max_draw_per_output: policy.max_draw_per_output_minor.and_then(|minor| convert::money(minor, currency)),
    }
}

/// The longest period that is decided on, and planned for: a year and some days of grace.
const MAX_PERIOD_DAYS: i64 = 400;

fn parse_period(req: &pb::RunDecisionsRequest) -> Result<Period, Error> {
    let mut violations = Violations::default();
    let start = violations.take(clock::required("period_start_time", req.period_start_time.as_ref()));
    let end = violations.take(clock::required("period_end_time", req.period_end_time.as_ref()));
    let next_end = violations.take(clock::required("next_period_end_time", req.next_period_end_time.as_ref()));
    let (Some(start), Some(end), Some(next_end)) = (start, end, next_end) else {
        violations.finish()?;
        return Err(Error::Invalid(Vec::new()));
    };
    if start >= end {
        violations.push(Violation::new("period_end_time", "PERIOD_EMPTY", "must be after the period's start"));
    }
    if end >= next_end {
        violations.push(Violation::new("next_period_end_time", "PERIOD_EMPTY", "must be after the period's end"));
    }
    for (field, begin, end) in [("period_end_time", start, end), ("next_period_end_time", end, next_end)] {
        let days = (end - begin).num_days();
        if days > MAX_PERIOD_DAYS {
            let rule = format!("must be at most {MAX_PERIOD_DAYS} days after the period's start; it is {days} days after");
            violations.push(Violation::new(field, "PERIOD_TOO_LONG", rule));
        }
    }
    violations.finish()?;
    Ok(Period { start, end, next_end })
}

impl DecisionApi {
    async fn find(&self, call: &Call, id: &str) -> Result<StoredDecision, Error> {
        let id = DecisionId::parse("decision_id", id)?;
        let mut conn = self.gate.db().read().await?;
        store::decision::find(&mut conn, call.programme, id).await?.ok_or(Error::DecisionNotFound(id))
    }
}

#[tonic::async_trait]
impl pb::decision_service_server::DecisionService for DecisionApi {
    async fn create_decision_policy(
        &self,
        request: Request<pb::CreateDecisionPolicyRequest>,
    ) -> Result<Response<pb::CreateDecisionPolicyResponse>, Status> {
        let opened = async |call: &Call, _: &pb::CreateDecisionPolicyRequest| {
            ensure_programme(&self.gate, &self.peers, call.programme).await
        };
        self.gate
            .mutate_after(request, opened, |work, req: pb::CreateDecisionPolicyRequest, ()| {
                Box::pin(async move {
                    let (programme, actor) = (work.programme(), work.actor().to_owned());
                    let known = store::programme::lock(work.conn(), programme).await?;
                    let known = known.ok_or(Error::ProgrammeNotFound(programme))?;
                    let currency = convert::currency(&known.currency)?;
                    let version = known.decision_policy_version + 1;
                    let policy = parse_policy(&req.policy.unwrap_or_default(), version, currency)?;
                    let time = work.now().await?;
                    let record = Record { actor: &actor, reason: &req.reason, time };
                    store::programme::add_policy(work.conn(), programme, version, &policy, record).await?;
                    work.audit(programme.0, Some(req.reason.clone()));
                    Ok(pb::CreateDecisionPolicyResponse { policy: Some(policy_message(&policy, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn run_decisions(
        &self,
        request: Request<pb::RunDecisionsRequest>,
    ) -> Result<Response<pb::RunDecisionsResponse>, Status> {
        let opened = async |call: &Call, req: &pb::RunDecisionsRequest| {
            parse_period(req)?;
            ensure_programme(&self.gate, &self.peers, call.programme).await
        };
        self.gate
            .mutate_after(request, opened, |work, req: pb::RunDecisionsRequest, ()| {
                Box::pin(async move {
                    let decided = run_decisions::run(work, parse_period(&req)?).await?;
                    work.audit(work.programme().0, None);
                    let decisions = decided.iter().map(convert::decision).collect::<Result<_, _>>()?;
                    Ok(pb::RunDecisionsResponse { decisions })
                })
            })
            .await
            .map(Into::into)
    }

    async fn approve_decision(
        &self,
        request: Request<pb::ApproveDecisionRequest>,
    ) -> Result<Response<pb::ApproveDecisionResponse>, Status> {
        self.gate
            .mutate(request, |work, req: pb::ApproveDecisionRequest| {
                Box::pin(async move {
                    let id = DecisionId::parse("decision_id", &req.decision_id)?;
                    let (programme, actor) = (work.programme(), work.actor().to_owned());
                    let found = store::decision::lock(work.conn(), programme, id).await?.ok_or(Error::DecisionNotFound(id))?;
                    let state = found.progress.name();
                    let progress: Progress =
                        found.progress.clone().approve(&actor, &found.decided_by).map_err(|refused| match refused {
                            ApprovalRefused::NotProposed => Error::DecisionState { decision: id, state },
                            ApprovalRefused::ApproverIsRequester => Error::ApproverIsRequester(id),
                        })?;
                    let standing = judged(work.conn(), programme, found.member).await?;
                    if standing.suspended && found.outcome.decision.action == Action::Increase {
                        return Err(Error::MemberSuspended(found.member));
                    }
                    store::decision::put_progress(work.conn(), id, &progress, Some(&req.reason)).await?;
                    let approved = StoredDecision { progress, ..found };
                    outbox::append(work.conn(), &[run_decisions::changed(&approved)]).await?;
                    apply_decision::start(work.conn(), &approved, &actor).await?;
                    work.audit(id.0, Some(req.reason.clone()));
                    Ok(pb::ApproveDecisionResponse { decision: Some(convert::decision(&approved)?) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_decision(&self, request: Request<pb::GetDecisionRequest>) -> Result<Response<pb::GetDecisionResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::GetDecisionRequest| async move {
                let found = self.find(&call, &req.decision_id).await?;
                Ok(pb::GetDecisionResponse { decision: Some(convert::decision(&found)?) })
            })
            .await
    }

    async fn list_decisions(
        &self,
        request: Request<pb::ListDecisionsRequest>,
    ) -> Result<Response<pb::ListDecisionsResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::ListDecisionsRequest| async move {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), &req.member_id];
                let mut violations = Violations::default();
                let member = violations.take(MemberId::parse_optional("member_id", &req.member_id)).flatten();
                let after = violations.take(page::after_id("ListDecisions", &filters, &req.page_token)).flatten();
                violations.finish()?;
                let size = page::size(req.page_size);
                let filter = DecisionFilter { member, period_start: None };
                let mut conn = self.gate.db().read().await?;
                let mut found = store::decision::list(&mut conn, call.programme, filter, after, size + 1).await?;
                let next_page_token =
                    page::cut(&mut found, size, |last| page::token("ListDecisions", &filters, &last.id.to_string()));
                let decisions = found.iter().map(convert::decision).collect::<Result<_, _>>()?;
                Ok(pb::ListDecisionsResponse { decisions, next_page_token })
            })
            .await
    }

    async fn replay_decision(
        &self,
        request: Request<pb::ReplayDecisionRequest>,
    ) -> Result<Response<pb::ReplayDecisionResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::ReplayDecisionRequest| async move {
                let stored = self.find(&call, &req.decision_id).await?;
                let mut conn = self.gate.db().read().await?;
                let pool = store::decision::pool(&mut conn, call.programme, &stored.inputs.pool_id).await?;
                drop(conn);
                let inputs = stored.inputs.clone();
                let again = tokio::task::spawn_blocking(move || judge(&inputs, &pool).map(|outcome| (inputs.id(), outcome)));
                let (hash, outcome) = again.await.map_err(|_| Error::Interrupted)??;
                let text = serde_json::to_string(&outcome).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
                let identical = hash == stored.input_hash && text == stored.outcome_text;
                let decision = Some(convert::decision_with(&stored, &outcome, &hash)?);
                Ok(pb::ReplayDecisionResponse { identical, decision })
            })
            .await
    }
}
