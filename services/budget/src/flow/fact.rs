//! The facts that this service publishes.

use crate::{
    domain::{
        balances::EntryKind,
        member_limit::MemberLimit,
        plan::{Plan, Stage},
        reserve_draw::{Draw, DrawStage},
    },
    store::operation::Posted,
};
use koc_chassis::money::{Currency, Money};
use koc_proto::koc::budget::v1 as pb;

pub fn plan_changed(plan: &Plan) -> pb::PlanChanged {
    pb::PlanChanged { plan_id: plan.id.to_string(), state: plan_state(plan.state.stage()).into() }
}

pub fn ledger_posted(posted: &Posted) -> pb::LedgerPosted {
    pb::LedgerPosted {
        entry_id: posted.entry.id.to_string(),
        envelope_id: posted.entry.envelope.to_string(),
        reservation_id: optional(posted.entry.reservation),
        member_id: optional(posted.member),
        purpose: posted.purpose.clone().unwrap_or_default(),
        kind: entry_kind(posted.entry.kind).into(),
        amount: Some(Money::new(posted.entry.amount, posted.currency).to_proto()),
    }
}

pub fn reserve_draw_changed(draw: &Draw) -> pb::ReserveDrawChanged {
    pb::ReserveDrawChanged {
        reserve_draw_id: draw.id.to_string(),
        state: draw_state(draw.stage()).into(),
        output_id: optional(draw.output),
        reservation_id: optional(draw.reservation()),
    }
}

pub fn member_limit_set(limit: &MemberLimit, currency: Currency) -> pb::MemberLimitSet {
    pb::MemberLimitSet {
        member_id: limit.usage.member.to_string(),
        limit: Some(Money::new(limit.usage.limit, currency).to_proto()),
        decision_id: optional(limit.decision),
    }
}

pub fn plan_state(stage: Stage) -> pb::PlanState {
    match stage {
        Stage::Draft => pb::PlanState::Draft,
        Stage::Submitted => pb::PlanState::Submitted,
        Stage::Approved => pb::PlanState::Approved,
        Stage::Active => pb::PlanState::Active,
        Stage::Closed => pb::PlanState::Closed,
    }
}

pub fn entry_kind(kind: EntryKind) -> pb::LedgerEntryKind {
    match kind {
        EntryKind::Allocate => pb::LedgerEntryKind::Allocate,
        EntryKind::Reserve => pb::LedgerEntryKind::Reserve,
        EntryKind::Commit => pb::LedgerEntryKind::Commit,
        EntryKind::Spend => pb::LedgerEntryKind::Spend,
        EntryKind::Release => pb::LedgerEntryKind::Release,
        EntryKind::Expire => pb::LedgerEntryKind::Expire,
    }
}

pub fn draw_state(stage: DrawStage) -> pb::ReserveDrawState {
    match stage {
        DrawStage::Requested => pb::ReserveDrawState::Requested,
        DrawStage::Approved => pb::ReserveDrawState::Approved,
        DrawStage::Rejected => pb::ReserveDrawState::Rejected,
        DrawStage::Lapsed => pb::ReserveDrawState::Lapsed,
        DrawStage::Spent => pb::ReserveDrawState::Spent,
        DrawStage::Reported => pb::ReserveDrawState::Reported,
    }
}

/// An id as the contract writes it: empty for none.
pub fn optional<T: std::fmt::Display>(id: Option<T>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}
