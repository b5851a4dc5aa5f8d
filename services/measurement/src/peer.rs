//! Calls to registry and budget. Each command carries a request id of the job that sends it: sent twice, it acts once.

use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::reason_of,
    ids::{MemberId, ProgrammeId},
    money::{Currency, Money},
    peer::{PeerChannel, is_transient},
};
use koc_proto::koc::{
    budget::v1::{
        self as budget, member_limit_service_client::MemberLimitServiceClient, plan_service_client::PlanServiceClient,
        reserve_draw_service_client::ReserveDrawServiceClient,
    },
    registry::v1::{
        self as registry, programme_service_client::ProgrammeServiceClient, tier_service_client::TierServiceClient,
        value_profile_service_client::ValueProfileServiceClient,
    },
};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::domain::{
    ids::{DecisionId, OutputId},
    judgement::Judgement,
    period::Period,
    types::TypeScore,
    value::ValueType,
};

/// Plans of a programme that are looked through for the active one.
const PLAN_PAGE: i32 = 1_000;
/// Outputs named as evidence of one score.
const MAX_EVIDENCE_IDS: usize = 200;
/// Characters of a tier proposal's reason, and of a limit's.
const MAX_PROPOSAL_REASON: usize = 2_000;
const MAX_LIMIT_REASON: usize = 500;

/// Why a peer did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It says no, and will say so again.
    #[error("{reason}: {message}")]
    Refused { reason: String, message: String },
    /// It may do it later: it was not reached, or this service may not ask yet.
    #[error(transparent)]
    Failed(#[from] Status),
}

fn refused_or_failed(status: Status) -> PeerError {
    // A scope that is missing or a method that is not there yet are put right by those who run the services.
    if is_transient(&status) || matches!(status.code(), Code::PermissionDenied | Code::Unimplemented) {
        return PeerError::Failed(status);
    }
    PeerError::Refused { reason: reason_of(&status), message: status.message().to_owned() }
}

/// The services to the left.
#[derive(Clone)]
pub struct Peers {
    registry: PeerChannel,
    budget: PeerChannel,
}

/// A draw on the reserve to ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawRequest {
    pub request_id: String,
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub output: OutputId,
    pub as_of: DateTime<Utc>,
    pub amount: Money,
    /// Names and figures.
    pub evidence: Vec<(String, String)>,
    pub decide_by: DateTime<Utc>,
}

/// From which decision something follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub decision: DecisionId,
    pub period: Period,
}

impl Peers {
    pub fn new(registry: PeerChannel, budget: PeerChannel) -> Self {
        Self { registry, budget }
    }

    /// A programme's currency; None when the registry has no such programme.
    pub async fn currency(&self, programme: ProgrammeId) -> Result<Option<String>, Status> {
        let mut client = ProgrammeServiceClient::new(self.registry.clone());
        let asked = client.get_programme(registry::GetProgrammeRequest { programme_id: programme.to_string() }).await;
        match asked {
            Ok(answer) => Ok(answer.into_inner().programme.map(|p| p.currency_code)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// What the reserve of the active plan that holds `as_of` has left; None without such a plan or without a reserve in it.
    pub async fn reserve_left(
        &self,
        programme: ProgrammeId,
        as_of: DateTime<Utc>,
        currency: Currency,
    ) -> Result<Option<Money>, Status> {
        let mut client = PlanServiceClient::new(self.budget.clone());
        let programme_id = programme.to_string();
        let mut page_token = String::new();
        let active = loop {
            let request = budget::ListPlansRequest { programme_id: programme_id.clone(), page_size: PLAN_PAGE, page_token };
            let page = client.list_plans(request).await?.into_inner();
            if let Some(plan) = page.plans.into_iter().find(|plan| is_active_at(plan, as_of)) {
                break plan;
            }
            if page.next_page_token.is_empty() {
                return Ok(None);
            }
            page_token = page.next_page_token;
        };
        let request = budget::GetPlanSummaryRequest { programme_id, plan_id: active.plan_id, as_of_time: None };
        let summary = client.get_plan_summary(request).await?.into_inner();
        let reserve = summary.classes.into_iter().find(|c| c.resource_class() == budget::ResourceClass::StrategicReserve);
        let available = reserve.and_then(|class| class.balances).and_then(|balances| balances.available);
        let parsed = available.map(|wire| Money::parse("available", &wire, currency)).transpose();
        parsed.map_err(|violation| Status::internal(format!("the budget answered an amount that {}", violation.description)))
    }

    /// Asks for a draw on the reserve; gives its id.
    pub async fn request_draw(&self, draw: &DrawRequest) -> Result<Uuid, PeerError> {
        let evidence =
            draw.evidence.iter().map(|(name, value)| budget::EvidenceItem { name: name.clone(), value: value.clone() });
        let request = budget::RequestReserveDrawRequest {
            programme_id: draw.programme.to_string(),
            request_id: draw.request_id.clone(),
            plan_id: String::new(),
            as_of: Some(clock::to_proto(draw.as_of)),
            kind: budget::ReserveDrawKind::ViralBoost.into(),
            amount: Some(draw.amount.to_proto()),
            member_id: draw.member.to_string(),
            output_id: draw.output.to_string(),
            evidence: evidence.collect(),
            decide_by_time: Some(clock::to_proto(draw.decide_by)),
        };
        let answer = ReserveDrawServiceClient::new(self.budget.clone()).request_reserve_draw(request).await;
        let opened = answer.map_err(refused_or_failed)?.into_inner().reserve_draw.unwrap_or_default();
        Uuid::try_parse(&opened.reserve_draw_id)
            .map_err(|_| PeerError::Failed(Status::internal("the budget answered a draw without an id")))
    }

    /// Brings a member's scores to the registry; says what it did. Types without evidence are left out: of them nothing is known.
    pub async fn update_value_profile(
        &self,
        request_id: String,
        origin: Origin,
        judgement: &Judgement,
        model_version: i32,
    ) -> Result<String, PeerError> {
        let scores: Vec<_> = judgement.profile.scores.iter().filter(|score| score.weight > 0.0).map(value_score).collect();
        if scores.is_empty() {
            return Ok("not sent: no output of the window could be scored".to_owned());
        }
        let request = registry::UpdateValueProfileRequest {
            programme_id: origin.programme.to_string(),
            request_id,
            member_id: origin.member.to_string(),
            scores,
            as_of: Some(clock::to_proto(origin.period.end)),
            past_return: judgement.past_return,
            value_model_version: model_version.to_string(),
        };
        let answer = ValueProfileServiceClient::new(self.registry.clone()).update_value_profile(request).await;
        let updated = answer.map_err(refused_or_failed)?.into_inner().updated;
        Ok(if updated { "updated" } else { "a later profile stands" }.to_owned())
    }

    /// Brings what was found about a member's level to the registry; says what it did.
    /// The level goes in standard deviations of the members' levels, `between_sd`, so that the registry can hold it against its own cuts.
    pub async fn propose_tier(
        &self,
        request_id: String,
        origin: Origin,
        judgement: &Judgement,
        between_sd: f64,
    ) -> Result<String, PeerError> {
        let reasons: Vec<&str> = judgement.tier.reasons.iter().map(|reason| reason.text.as_str()).collect();
        let request = registry::ProposeTierRequest {
            programme_id: origin.programme.to_string(),
            request_id,
            member_id: origin.member.to_string(),
            proposal: Some(registry::TierProposal {
                promote_probability: judgement.tier.probability,
                output_count: i32::try_from(judgement.window_outputs).unwrap_or(i32::MAX),
                as_of: Some(clock::to_proto(origin.period.end)),
                decision_id: origin.decision.to_string(),
                reason: reasons.join(" ").chars().take(MAX_PROPOSAL_REASON).collect(),
                level: Some(registry::TierLevel {
                    mean: judgement.tier.level_mean / between_sd,
                    sd: judgement.tier.level_sd / between_sd,
                }),
                evidence_weight: Some(judgement.evidence_weight()),
            }),
        };
        let answer = TierServiceClient::new(self.registry.clone()).propose_tier(request).await;
        let recorded = answer.map_err(refused_or_failed)?.into_inner().recorded;
        Ok(if recorded { "recorded" } else { "a later proposal stands" }.to_owned())
    }

    /// Sets a member's limit for the next period; says what it did.
    pub async fn set_member_limit(
        &self,
        request_id: String,
        origin: Origin,
        limit: Money,
        reason: &str,
    ) -> Result<String, PeerError> {
        let request = budget::SetMemberLimitRequest {
            programme_id: origin.programme.to_string(),
            request_id,
            member_id: origin.member.to_string(),
            period_start_time: Some(clock::to_proto(origin.period.end)),
            period_end_time: Some(clock::to_proto(origin.period.next_end)),
            limit: Some(limit.to_proto()),
            decision_id: origin.decision.to_string(),
            reason: reason.chars().take(MAX_LIMIT_REASON).collect(),
        };
        let answer = MemberLimitServiceClient::new(self.budget.clone()).set_member_limit(request).await;
        answer.map_err(refused_or_failed)?;
        Ok(format!("set to {limit}"))
    }
}

fn is_active_at(plan: &budget::Plan, time: DateTime<Utc>) -> bool {
    let read = |at: &Option<prost_types::Timestamp>| at.as_ref().and_then(|at| clock::from_proto("period", at).ok());
    let holds = |start: DateTime<Utc>, end: DateTime<Utc>| start <= time && time < end;
    plan.state() == budget::PlanState::Active
        && read(&plan.period_start_time).zip(read(&plan.period_end_time)).is_some_and(|(start, end)| holds(start, end))
}

fn value_score(score: &TypeScore) -> registry::ValueScore {
    let value_type = match score.value_type {
        ValueType::Social => registry::ValueType::Social,
        ValueType::Content => registry::ValueType::Content,
        ValueType::Insight => registry::ValueType::Insight,
    };
    registry::ValueScore {
        value_type: value_type.into(),
        score: score.score,
        confidence: score.confidence,
        labelled: score.held,
        evidence_output_ids: score.evidence_ids.iter().take(MAX_EVIDENCE_IDS).cloned().collect(),
    }
}
