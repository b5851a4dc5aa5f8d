//! The facts that this service publishes.

use crate::{
    domain::{
        amendment::{Amendment, AmendmentKind, AmendmentStage},
        balances::EntryKind,
        cost::estimate::Estimate,
        grant::{Grant, Stage as GrantStage},
        member_limit::MemberLimit,
        plan::{Plan, Stage},
        reserve_draw::{Draw, DrawStage},
        reserve_policy::ReservePolicy,
        resource_kind::ResourceKind,
        verification::course::VerificationStage,
    },
    ids::VerificationId,
    store::operation::Posted,
};
use koc_chassis::money::{Currency, Money};
use koc_proto::koc::budget::v1 as pb;

pub fn plan_changed(plan: &Plan) -> pb::PlanChanged {
    pb::PlanChanged { plan_id: plan.id.to_string(), state: plan_state(plan.state.stage()).into() }
}

pub fn amendment_changed(amendment: &Amendment) -> pb::AmendmentChanged {
    pb::AmendmentChanged {
        amendment_id: amendment.id.to_string(),
        plan_id: amendment.plan.to_string(),
        kind: amendment_kind(amendment.kind).into(),
        state: amendment_state(amendment.state.stage()).into(),
    }
}

pub fn reserve_policy_changed(policy: &ReservePolicy) -> pb::ReservePolicyChanged {
    pb::ReservePolicyChanged {
        plan_id: policy.plan.to_string(),
        version: policy.version,
        amendment_id: optional(policy.amendment),
    }
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
        reverses_entry_id: optional(posted.entry.reversal.map(|reversal| reversal.of)),
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

pub fn ledger_verification_ended(id: VerificationId, stage: VerificationStage) -> pb::LedgerVerificationEnded {
    pb::LedgerVerificationEnded { verification_id: id.to_string(), state: verification_state(stage).into() }
}

pub fn verification_state(stage: VerificationStage) -> pb::LedgerVerificationState {
    match stage {
        VerificationStage::Running => pb::LedgerVerificationState::Running,
        VerificationStage::Passed => pb::LedgerVerificationState::Passed,
        VerificationStage::Failed => pb::LedgerVerificationState::Failed,
        VerificationStage::Cancelled => pb::LedgerVerificationState::Cancelled,
    }
}

pub fn member_limit_set(limit: &MemberLimit, currency: Currency) -> pb::MemberLimitSet {
    pb::MemberLimitSet {
        member_id: limit.usage.member.to_string(),
        limit: Some(Money::new(limit.usage.limit, currency).to_proto()),
        decision_id: optional(limit.decision),
    }
}

/// `cost` is what it cost in the end.
pub fn grant_changed(grant: &Grant, cost: Option<&Estimate>, currency: Currency) -> pb::GrantChanged {
    let money = |minor| Some(Money::new(minor, currency).to_proto());
    pb::GrantChanged {
        grant_id: grant.id.to_string(),
        member_id: grant.member.to_string(),
        resource_id: grant.resource.to_string(),
        kind: resource_kind(grant.kind).into(),
        state: grant_state(grant.stage).into(),
        reservation_id: optional(grant.reservation),
        cost: cost.map(|cost| pb::GrantCost {
            marginal: money(cost.marginal()),
            amortised: money(cost.amortised()),
            full: money(cost.full()),
        }),
    }
}

pub fn grant_state(stage: GrantStage) -> pb::GrantState {
    match stage {
        GrantStage::PendingApproval => pb::GrantState::PendingApproval,
        GrantStage::Rejected => pb::GrantState::Rejected,
        GrantStage::Cancelled => pb::GrantState::Cancelled,
        GrantStage::Issued => pb::GrantState::Issued,
        GrantStage::Shipped => pb::GrantState::Shipped,
        GrantStage::Delivered => pb::GrantState::Delivered,
        GrantStage::Booked => pb::GrantState::Booked,
        GrantStage::HandedOver => pb::GrantState::HandedOver,
        GrantStage::Returned => pb::GrantState::Returned,
        GrantStage::Settled => pb::GrantState::Settled,
        GrantStage::Fulfilled => pb::GrantState::Fulfilled,
    }
}

pub fn resource_kind(kind: ResourceKind) -> pb::ResourceKind {
    match kind {
        ResourceKind::DigitalAsset => pb::ResourceKind::DigitalAsset,
        ResourceKind::HonourSystem => pb::ResourceKind::HonourSystem,
        ResourceKind::GiftKit => pb::ResourceKind::GiftKit,
        ResourceKind::RegionalEvent => pb::ResourceKind::RegionalEvent,
        ResourceKind::Stipend => pb::ResourceKind::Stipend,
        ResourceKind::GiftCard => pb::ResourceKind::GiftCard,
        ResourceKind::LoanVehicle => pb::ResourceKind::LoanVehicle,
        ResourceKind::Travel => pb::ResourceKind::Travel,
        ResourceKind::ProductionCrew => pb::ResourceKind::ProductionCrew,
        ResourceKind::EarlyAccess => pb::ResourceKind::EarlyAccess,
        ResourceKind::InformationPrivilege => pb::ResourceKind::InformationPrivilege,
        ResourceKind::PaidBoost => pb::ResourceKind::PaidBoost,
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

pub fn amendment_kind(kind: AmendmentKind) -> pb::AmendmentKind {
    match kind {
        AmendmentKind::Change => pb::AmendmentKind::Change,
        AmendmentKind::Transfer => pb::AmendmentKind::Transfer,
        AmendmentKind::Close => pb::AmendmentKind::Close,
        AmendmentKind::ReservePolicy => pb::AmendmentKind::ReservePolicy,
    }
}

pub fn amendment_state(stage: AmendmentStage) -> pb::AmendmentState {
    match stage {
        AmendmentStage::Proposed => pb::AmendmentState::Proposed,
        AmendmentStage::Applied => pb::AmendmentState::Applied,
        AmendmentStage::Rejected => pb::AmendmentState::Rejected,
        AmendmentStage::Withdrawn => pb::AmendmentState::Withdrawn,
        AmendmentStage::Lapsed => pb::AmendmentState::Lapsed,
    }
}

pub fn entry_kind(kind: EntryKind) -> pb::LedgerEntryKind {
    match kind {
        EntryKind::Allocate => pb::LedgerEntryKind::Allocate,
        EntryKind::Deallocate => pb::LedgerEntryKind::Deallocate,
        EntryKind::Reserve => pb::LedgerEntryKind::Reserve,
        EntryKind::Commit => pb::LedgerEntryKind::Commit,
        EntryKind::Spend => pb::LedgerEntryKind::Spend,
        EntryKind::Release => pb::LedgerEntryKind::Release,
        EntryKind::Expire => pb::LedgerEntryKind::Expire,
        EntryKind::ReverseCommit => pb::LedgerEntryKind::ReverseCommit,
        EntryKind::ReverseSpend => pb::LedgerEntryKind::ReverseSpend,
        EntryKind::Refund => pb::LedgerEntryKind::Refund,
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
