//! What is asked of a plan, as the domain has it.

use crate::{
    api::draft,
    domain::{
        amendment::{Closing, OpenReservations},
        envelope::NewEnvelope,
    },
    ids::{EnvelopeId, PlanId},
};
use koc_chassis::{
    fault::{Violation, Violations},
    money::{Currency, Money},
};
use koc_proto::koc::budget::v1 as pb;
use std::collections::HashSet;

/// What an envelope is to hold and may overrun; None to leave it.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    pub envelope: EnvelopeId,
    pub total: Option<i64>,
    pub overrun_limit: Option<i64>,
}

/// What is to change in a plan.
#[derive(Debug, Clone)]
pub struct Change {
    pub amounts: Vec<Amounts>,
    pub new: Vec<NewEnvelope>,
}

/// What is to go from one envelope to another.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    pub from: EnvelopeId,
    pub to: EnvelopeId,
    pub amount: i64,
}

pub fn change(request: &pb::ProposeAmendmentRequest, currency: Currency) -> Result<Change, Vec<Violation>> {
    let mut violations = Violations::default();
    let (mut amounts, mut named) = (Vec::with_capacity(request.changes.len()), HashSet::new());
    for (index, change) in request.changes.iter().enumerate() {
        let field = |name: &str| format!("changes[{index}].{name}");
        let id = violations.take(EnvelopeId::parse(&field("envelope_id"), &change.envelope_id));
        let total = draft::optional(&field("allocated"), change.allocated.as_ref(), currency, &mut violations);
        let overrun = draft::optional(&field("overrun_limit"), change.overrun_limit.as_ref(), currency, &mut violations);
        let (Some(envelope), Some(total), Some(overrun_limit)) = (id, total, overrun) else { continue };
        if !named.insert(envelope) {
            violations.push(Violation::new(field("envelope_id"), "ENVELOPE_REPEATED", "must be named once"));
        }
        amounts.push(Amounts { envelope, total, overrun_limit });
    }
    let new = draft::envelopes("new_envelopes", &request.new_envelopes, currency, &mut violations);
    violations.finish()?;
    Ok(Change { amounts, new: new.unwrap_or_default() })
}

pub fn transfer(request: &pb::TransferBetweenEnvelopesRequest, currency: Currency) -> Result<Transfer, Vec<Violation>> {
    let mut violations = Violations::default();
    let from = violations.take(EnvelopeId::parse("from_envelope_id", &request.from_envelope_id));
    let to = violations.take(EnvelopeId::parse("to_envelope_id", &request.to_envelope_id));
    let amount = violations.take(Money::parse_positive("amount", request.amount.as_ref(), currency));
    if from.is_some() && from == to {
        let rule = "must be another than from_envelope_id";
        violations.push(Violation::new("to_envelope_id", "TRANSFER_TO_ITSELF", rule));
    }
    violations.finish()?;
    match (from, to, amount) {
        (Some(from), Some(to), Some(amount)) => Ok(Transfer { from, to, amount: amount.minor }),
        _ => Err(Vec::new()),
    }
}

pub fn closing(request: &pb::ClosePlanRequest, plan: PlanId) -> Result<Closing, Violation> {
    let carry_over = PlanId::parse_optional("carry_over_plan_id", &request.carry_over_plan_id)?;
    if carry_over == Some(plan) {
        return Err(Violation::new("carry_over_plan_id", "CARRY_OVER_TO_ITSELF", "must be another plan"));
    }
    let open = match request.open_reservations() {
        pb::OpenReservations::Release => OpenReservations::Release,
        pb::OpenReservations::Unspecified | pb::OpenReservations::Refuse => OpenReservations::Refuse,
    };
    Ok(Closing { open, carry_over })
}
