//! Between the contract's messages and the domain's values.

use crate::{
    domain::{
        balances::{Account, Balances},
        ledger::LedgerEntry,
        member_limit::MemberLimit,
        period::Period,
        plan::{Envelope, Plan, ResourceClass, Stage},
        reservation::Reservation,
    },
    flow::fact::{entry_kind, optional, plan_state},
};
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

pub fn plan(plan: &Plan, envelopes: &[Envelope], currency: Currency) -> pb::Plan {
    let stage = plan.state.stage();
    pb::Plan {
        plan_id: plan.id.to_string(),
        programme_id: plan.programme.to_string(),
        display_name: plan.display_name.clone(),
        period_start_time: Some(clock::to_proto(plan.period.start())),
        period_end_time: Some(clock::to_proto(plan.period.end())),
        state: plan_state(stage).into(),
        envelopes: envelopes.iter().filter(|e| e.plan == plan.id).map(|e| envelope(e, stage, currency)).collect(),
        automatic_draw_limit: plan.automatic_draw_limit.and_then(|minor| money(minor, currency)),
        submitted_by: plan.state.submitted_by().unwrap_or_default().to_owned(),
        approved_by: plan.state.approved_by().unwrap_or_default().to_owned(),
        etag: page::etag(plan.version),
        create_time: Some(clock::to_proto(plan.create_time)),
    }
}

pub fn envelope(envelope: &Envelope, stage: Stage, currency: Currency) -> pb::Envelope {
    pb::Envelope {
        envelope_id: envelope.id.to_string(),
        plan_id: envelope.plan.to_string(),
        resource_class: class_to_proto(envelope.class).into(),
        display_name: envelope.display_name.clone(),
        balances: Some(balances(&envelope.shown(stage), currency)),
    }
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
