//! Between the contract's messages and the domain's values.

use crate::{
    domain::{
        amendment::{Amendment, Line, OpenReservations},
        approval::{Approval, Policy},
        balances::{Account, Balances},
        envelope::{Envelope, with_children},
        ledger::LedgerEntry,
        member_limit::MemberLimit,
        pace::Pace,
        period::Period,
        plan::{Plan, ResourceClass},
        reservation::Reservation,
        resource_kind::ResourceKind,
        reversal::ReversalReason,
    },
    flow::fact::{amendment_kind, amendment_state, entry_kind, optional, plan_state, resource_kind},
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    money::{Currency, Money},
    page,
};
use koc_proto::{google::r#type::Money as Wire, koc::budget::v1 as pb};

pub fn money(minor: i64, currency: Currency) -> Option<Wire> {
    Some(Money::new(minor, currency).to_proto())
}

pub fn balances(balances: &Balances, currency: Currency) -> pb::Balances {
    pb::Balances {
        allocated: money(balances.allocated, currency),
        reserved: money(balances.reserved, currency),
        committed: money(balances.committed, currency),
        spent: money(balances.spent, currency),
        available: money(balances.available(), currency),
    }
}

/// A plan with its envelopes, or without them where there are none.
pub fn plan(plan: &Plan, envelopes: &[Envelope], currency: Currency) -> pb::Plan {
    let stage = plan.state.stage();
    let sums = with_children(envelopes, |envelope| envelope.shown(stage));
    pb::Plan {
        plan_id: plan.id.to_string(),
        programme_id: plan.programme.to_string(),
        display_name: plan.display_name.clone(),
        period_start_time: Some(clock::to_proto(plan.period.start())),
        period_end_time: Some(clock::to_proto(plan.period.end())),
        state: plan_state(stage).into(),
        envelopes: envelopes.iter().zip(&sums).map(|(e, balances)| envelope(e, balances, None, currency)).collect(),
        automatic_draw_limit: plan.automatic_draw_limit.and_then(|minor| money(minor, currency)),
        submitted_by: plan.state.submitted_by().unwrap_or_default().to_owned(),
        approved_by: plan.state.approved_by().unwrap_or_default().to_owned(),
        etag: page::etag(plan.version),
        create_time: Some(clock::to_proto(plan.create_time)),
        policy: Some(policy(&plan.policy)),
        approvals: plan.state.approvals().iter().map(approval).collect(),
    }
}

fn policy(policy: &Policy) -> pb::PlanPolicy {
    pb::PlanPolicy {
        required_approvals: i32::try_from(policy.required_approvals).unwrap_or(i32::MAX),
        approval_validity: Some(prost_types::Duration {
            seconds: policy.validity.num_seconds(),
            nanos: policy.validity.subsec_nanos(),
        }),
        min_reserve_percent: Some(policy.min_reserve_percent),
        max_reserve_percent: Some(policy.max_reserve_percent),
    }
}

fn approval(approval: &Approval) -> pb::Approval {
    pb::Approval { approved_by: approval.by.clone(), approve_time: Some(clock::to_proto(approval.time)) }
}

/// An envelope with its balances and its children's.
pub fn envelope(envelope: &Envelope, balances: &Balances, pace: Option<Pace>, currency: Currency) -> pb::Envelope {
    let place = &envelope.place;
    pb::Envelope {
        envelope_id: envelope.id.to_string(),
        plan_id: envelope.plan.to_string(),
        resource_class: class_to_proto(place.class).into(),
        display_name: envelope.display_name.clone(),
        balances: Some(self::balances(balances, currency)),
        overrun_limit: money(envelope.overrun_limit, currency),
        parent_envelope_id: optional(place.parent),
        region: place.region.clone().unwrap_or_default(),
        resource_kind: place.kind.map_or(pb::ResourceKind::Unspecified, resource_kind).into(),
        pace: pace.map(|pace| self::pace(pace, currency)),
    }
}

pub fn pace(pace: Pace, currency: Currency) -> pb::Pace {
    pb::Pace {
        elapsed_basis_points: pace.elapsed,
        used_basis_points: pace.used,
        forecast: pace.forecast.and_then(|minor| money(minor, currency)),
    }
}

/// The time that something is asked as of: `now` when none is named, TIME_IN_FUTURE after it.
pub fn as_of(asked: Option<&prost_types::Timestamp>, now: DateTime<Utc>) -> Result<DateTime<Utc>, Violation> {
    let Some(asked) = asked else { return Ok(now) };
    match clock::from_proto("as_of_time", asked)? {
        time if time > now => Err(Violation::new("as_of_time", "TIME_IN_FUTURE", "must not be in the future")),
        time => Ok(time),
    }
}

pub fn amendment(amendment: &Amendment, currency: Currency) -> pb::Amendment {
    let decided = amendment.state.decided();
    let open = amendment.closing.map(|closing| match closing.open {
        OpenReservations::Refuse => pb::OpenReservations::Refuse,
        OpenReservations::Release => pb::OpenReservations::Release,
    });
    pb::Amendment {
        amendment_id: amendment.id.to_string(),
        programme_id: amendment.programme.to_string(),
        plan_id: amendment.plan.to_string(),
        kind: amendment_kind(amendment.kind).into(),
        state: amendment_state(amendment.state.stage()).into(),
        lines: amendment.lines.iter().map(|line| amendment_line(line, currency)).collect(),
        total_before: money(amendment.total_before, currency),
        total_after: money(amendment.total_after, currency),
        open_reservations: open.unwrap_or_default().into(),
        carry_over_plan_id: optional(amendment.closing.and_then(|closing| closing.carry_over)),
        reason: amendment.reason.clone(),
        base_etag: page::etag(amendment.base_version),
        proposed_by: amendment.proposed_by.clone(),
        approvals: amendment.approvals.iter().map(approval).collect(),
        decided_by: decided.and_then(|decided| decided.by.clone()).unwrap_or_default(),
        decision_reason: decided.map(|decided| decided.reason.clone()).unwrap_or_default(),
        decide_by_time: Some(clock::to_proto(amendment.decide_by_time)),
        create_time: Some(clock::to_proto(amendment.create_time)),
        reserve_terms: amendment.terms.as_ref().map(|terms| super::reserve_policy::terms_to_proto(terms, currency)),
    }
}

fn amendment_line(line: &Line, currency: Currency) -> pb::AmendmentLine {
    pb::AmendmentLine {
        envelope_id: line.envelope.to_string(),
        plan_id: line.plan.to_string(),
        display_name: line.display_name.clone(),
        resource_class: class_to_proto(line.place.class).into(),
        before: money(line.before, currency),
        after: money(line.after, currency),
        is_new: line.is_new,
        overrun_limit_before: money(line.overrun_before, currency),
        overrun_limit_after: money(line.overrun_after, currency),
    }
}

/// None for UNSPECIFIED; the contract lets only defined values through.
pub fn kind_from_proto(kind: i32) -> Option<ResourceKind> {
    ResourceKind::ALL.iter().copied().find(|known| i32::from(resource_kind(*known)) == kind)
}

pub fn class_to_proto(class: ResourceClass) -> pb::ResourceClass {
    match class {
        ResourceClass::Inclusive => pb::ResourceClass::Inclusive,
        ResourceClass::Incentive => pb::ResourceClass::Incentive,
        ResourceClass::Exclusive => pb::ResourceClass::Exclusive,
        ResourceClass::StrategicReserve => pb::ResourceClass::StrategicReserve,
    }
}

/// The contract lets only defined values but UNSPECIFIED through.
pub fn class_from_proto(field: &str, class: i32) -> Result<ResourceClass, Violation> {
    match pb::ResourceClass::try_from(class) {
        Ok(pb::ResourceClass::Inclusive) => Ok(ResourceClass::Inclusive),
        Ok(pb::ResourceClass::Incentive) => Ok(ResourceClass::Incentive),
        Ok(pb::ResourceClass::Exclusive) => Ok(ResourceClass::Exclusive),
        Ok(pb::ResourceClass::StrategicReserve) => Ok(ResourceClass::StrategicReserve),
        Ok(pb::ResourceClass::Unspecified) | Err(_) => Err(Violation::new(field, "enum.defined_only", "must be a known class")),
    }
}

/// Reads a period; all that is wrong with it at once.
pub fn period(start: Option<&prost_types::Timestamp>, end: Option<&prost_types::Timestamp>) -> Result<Period, Vec<Violation>> {
    let mut violations = Violations::default();
    let start = violations.take(clock::required("period_start_time", start));
    let end = violations.take(clock::required("period_end_time", end));
    violations.finish()?;
    match (start, end) {
        (Some(start), Some(end)) => Period::new(start, end).map_err(|violation| vec![violation]),
        _ => Err(Vec::new()),
    }
}

pub fn reservation(reservation: &Reservation, currency: Currency) -> pb::Reservation {
    let parts = &reservation.parts;
    pb::Reservation {
        reservation_id: reservation.id.to_string(),
        programme_id: reservation.programme.to_string(),
        envelope_id: reservation.envelope.to_string(),
        member_id: optional(reservation.member),
        purpose: reservation.purpose.clone(),
        amount: money(parts.amount(), currency),
        reserved: money(parts.reserved, currency),
        committed: money(parts.committed, currency),
        spent: money(parts.spent, currency),
        released: money(parts.released, currency),
        expire_time: Some(clock::to_proto(reservation.expire_time)),
        create_time: Some(clock::to_proto(reservation.create_time)),
    }
}

pub fn member_limit(limit: &MemberLimit, currency: Currency) -> pb::MemberLimit {
    let usage = &limit.usage;
    pb::MemberLimit {
        member_id: usage.member.to_string(),
        period_start_time: Some(clock::to_proto(usage.period.start())),
        period_end_time: Some(clock::to_proto(usage.period.end())),
        limit: money(usage.limit, currency),
        used: money(usage.used, currency),
        decision_id: optional(limit.decision),
        reason: limit.reason.clone(),
    }
}

pub fn ledger_entry(entry: &LedgerEntry, currency: Currency) -> pb::LedgerEntry {
    pb::LedgerEntry {
        entry_id: entry.id.to_string(),
        envelope_id: entry.envelope.to_string(),
        envelope_sequence: entry.envelope_sequence,
        kind: entry_kind(entry.kind).into(),
        credit_account: account(entry.credit).into(),
        debit_account: account(entry.debit).into(),
        amount: money(entry.amount, currency),
        reservation_id: optional(entry.reservation),
        available_after: money(entry.available_after, currency),
        actor: entry.actor.clone(),
        entry_time: Some(clock::to_proto(entry.entry_time)),
        reverses_entry_id: optional(entry.reversal.map(|reversal| reversal.of)),
        reversal_reason: entry.reversal.map(|reversal| reversal_reason(reversal.reason)).unwrap_or_default().into(),
    }
}

fn reversal_reason(reason: ReversalReason) -> pb::ReversalReason {
    match reason {
        ReversalReason::WrongAmount => pb::ReversalReason::WrongAmount,
        ReversalReason::WrongReservation => pb::ReversalReason::WrongReservation,
        ReversalReason::Duplicate => pb::ReversalReason::Duplicate,
        ReversalReason::PaymentReturned => pb::ReversalReason::PaymentReturned,
        ReversalReason::DeliveryWithdrawn => pb::ReversalReason::DeliveryWithdrawn,
    }
}

/// The contract lets only defined values but UNSPECIFIED through.
pub fn reversal_reason_from_proto(reason: i32) -> Result<ReversalReason, Violation> {
    match pb::ReversalReason::try_from(reason) {
        Ok(pb::ReversalReason::WrongAmount) => Ok(ReversalReason::WrongAmount),
        Ok(pb::ReversalReason::WrongReservation) => Ok(ReversalReason::WrongReservation),
        Ok(pb::ReversalReason::Duplicate) => Ok(ReversalReason::Duplicate),
        Ok(pb::ReversalReason::PaymentReturned) => Ok(ReversalReason::PaymentReturned),
        Ok(pb::ReversalReason::DeliveryWithdrawn) => Ok(ReversalReason::DeliveryWithdrawn),
        Ok(pb::ReversalReason::Unspecified) | Err(_) => {
            Err(Violation::new("reason", "enum.defined_only", "must be a known reason"))
        }
    }
}

fn account(account: Account) -> pb::LedgerAccount {
    match account {
        Account::Funding => pb::LedgerAccount::Funding,
        Account::Available => pb::LedgerAccount::Available,
        Account::Reserved => pb::LedgerAccount::Reserved,
        Account::Committed => pb::LedgerAccount::Committed,
        Account::Spent => pb::LedgerAccount::Spent,
    }
}
