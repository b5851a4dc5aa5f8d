//! Between the contract's draws and the domain's.

use super::request::{Asked, MoreAsked};
use crate::{
    api::convert::money,
    domain::reserve_draw::{Approval, Draw, DrawKind, DrawStage, Evidence, Outcome},
    flow::fact::{draw_state, optional},
    ids::{MemberId, OutputId, PlanId, ReserveDrawId},
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    money::{Currency, Money},
};
use koc_proto::koc::budget::v1 as pb;

pub fn draw(draw: &Draw, currency: Currency) -> pb::ReserveDraw {
    let kind = match draw.kind {
        DrawKind::ViralBoost => pb::ReserveDrawKind::ViralBoost,
        DrawKind::PopUpEvent => pb::ReserveDrawKind::PopUpEvent,
        DrawKind::Other => pb::ReserveDrawKind::Other,
    };
    let approval = |approval: &Approval| pb::DrawApproval {
        approved_by: approval.by.clone(),
        reason: approval.reason.clone(),
        approve_time: Some(clock::to_proto(approval.time)),
    };
    let outcome = |outcome: &Outcome| pb::DrawOutcome {
        value: money(outcome.value, currency),
        figures: outcome.figures.iter().map(item).collect(),
        note: outcome.note.clone(),
        reported_by: outcome.reported_by.clone(),
        report_time: Some(clock::to_proto(outcome.report_time)),
    };
    pb::ReserveDraw {
        reserve_draw_id: draw.id.to_string(),
        programme_id: draw.programme.to_string(),
        plan_id: draw.plan.to_string(),
        kind: kind.into(),
        state: draw_state(draw.stage()).into(),
        amount: money(draw.amount, currency),
        member_id: optional(draw.member),
        output_id: optional(draw.output),
        evidence: draw.evidence.iter().map(item).collect(),
        decide_by_time: Some(clock::to_proto(draw.decide_by_time)),
        decision_reason: draw.decision_reason().unwrap_or_default().to_owned(),
        reservation_id: optional(draw.reservation()),
        requested_by: draw.requested_by.clone(),
        decided_by: draw.decided_by().unwrap_or_default().to_owned(),
        create_time: Some(clock::to_proto(draw.create_time)),
        automatic: draw.automatic(),
        policy_version: draw.policy_version,
        approvals_needed: draw.approvals_needed.into(),
        approvals: draw.approvals.iter().map(approval).collect(),
        first_draw_id: optional(draw.first_draw),
        report_due_time: draw.report_due_time().map(clock::to_proto),
        outcome: draw.outcome.as_ref().map(outcome),
    }
}

fn item(item: &Evidence) -> pb::EvidenceItem {
    pb::EvidenceItem { name: item.name.clone(), value: item.value.clone() }
}

pub fn evidence(items: &[pb::EvidenceItem]) -> Vec<Evidence> {
    items.iter().map(|item| Evidence { name: item.name.clone(), value: item.value.clone() }).collect()
}

/// None for all.
pub fn stage(state: pb::ReserveDrawState) -> Option<DrawStage> {
    DrawStage::ALL.iter().copied().find(|stage| draw_state(*stage) == state)
}

pub fn asked(request: &pb::RequestReserveDrawRequest, currency: Currency) -> Result<Asked, Vec<Violation>> {
    let mut violations = Violations::default();
    let plan = violations.take(PlanId::parse_optional("plan_id", &request.plan_id));
    let as_of = violations.take(clock::required("as_of", request.as_of.as_ref()));
    let kind = violations.take(draw_kind(request.kind));
    let amount = violations.take(Money::parse_positive("amount", request.amount.as_ref(), currency));
    let member = violations.take(MemberId::parse_optional("member_id", &request.member_id));
    let output = violations.take(OutputId::parse_optional("output_id", &request.output_id));
    let decide_by_time = violations.take(clock::required("decide_by_time", request.decide_by_time.as_ref()));
    violations.finish()?;
    match (plan, as_of, kind, amount, member, output, decide_by_time) {
        (Some(plan), Some(as_of), Some(kind), Some(amount), Some(member), Some(output), Some(decide_by_time)) => {
            let (amount, evidence) = (amount.minor, evidence(&request.evidence));
            Ok(Asked { plan, as_of, kind, amount, member, output, evidence, decide_by_time })
        }
        _ => Err(Vec::new()),
    }
}

pub fn more_asked(
    request: &pb::TopUpReserveDrawRequest,
    first: ReserveDrawId,
    currency: Currency,
) -> Result<MoreAsked, Vec<Violation>> {
    let mut violations = Violations::default();
    let amount = violations.take(Money::parse_positive("amount", request.amount.as_ref(), currency));
    let decide_by_time = violations.take(clock::required("decide_by_time", request.decide_by_time.as_ref()));
    violations.finish()?;
    match (amount, decide_by_time) {
        (Some(amount), Some(decide_by_time)) => {
            Ok(MoreAsked { first, amount: amount.minor, evidence: evidence(&request.evidence), decide_by_time })
        }
        _ => Err(Vec::new()),
    }
}

/// The contract lets only defined values but UNSPECIFIED through.
fn draw_kind(kind: i32) -> Result<DrawKind, Violation> {
    match pb::ReserveDrawKind::try_from(kind) {
        Ok(pb::ReserveDrawKind::ViralBoost) => Ok(DrawKind::ViralBoost),
        Ok(pb::ReserveDrawKind::PopUpEvent) => Ok(DrawKind::PopUpEvent),
        Ok(pb::ReserveDrawKind::Other) => Ok(DrawKind::Other),
        Ok(pb::ReserveDrawKind::Unspecified) | Err(_) => Err(Violation::new("kind", "enum.defined_only", "must be a known kind")),
    }
}
