//! Reading what a plan says: its envelopes, its policy, the whole.

use super::convert;
use crate::{
    domain::{
        approval::Policy,
        envelope::{NewEnvelope, Tree},
        period::Period,
        plan::Draft,
    },
    ids::EnvelopeId,
};
use chrono::TimeDelta;
use koc_chassis::{
    fault::{Violation, Violations},
    money::{Currency, Money},
};
use koc_proto::koc::budget::v1 as pb;
use std::collections::{BTreeSet, HashMap};

/// The field of the automatic draw limit.
pub const LIMIT: &str = "automatic_draw_limit";

/// Envelopes as they are asked for in the list `field`. None when one of them cannot be read: what concerns them together is judged when
/// each is whole.
pub fn envelopes(
    field: &str,
    asked: &[pb::NewEnvelope],
    currency: Currency,
    violations: &mut Violations,
) -> Option<Vec<NewEnvelope>> {
    let mut envelopes = Vec::with_capacity(asked.len());
    for (index, envelope) in asked.iter().enumerate() {
        let field = |name: &str| format!("{field}[{index}].{name}");
        let total = violations.take(Money::parse_not_negative(&field("allocated"), envelope.allocated.as_ref(), currency));
        let overrun = optional(&field("overrun_limit"), envelope.overrun_limit.as_ref(), currency, violations);
        let (Some(total), Some(overrun)) = (total, overrun) else { continue };
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        envelopes.push(NewEnvelope {
            class: convert::class_from_proto("resource_class", envelope.resource_class).ok(),
            display_name: envelope.display_name.clone(),
            parent: given(&envelope.parent_display_name),
            region: given(&envelope.region),
            kind: convert::kind_from_proto(envelope.resource_kind),
            total: total.minor,
            overrun_limit: overrun.unwrap_or(0),
        });
    }
    (envelopes.len() == asked.len()).then_some(envelopes)
}

/// An amount of zero or more that may be absent; None when it breaks a rule.
pub fn optional(
    field: &str,
    asked: Option<&koc_proto::google::r#type::Money>,
    currency: Currency,
    violations: &mut Violations,
) -> Option<Option<i64>> {
    let parse = |asked| Money::parse_not_negative(field, Some(asked), currency).map(|money| money.minor);
    violations.take(asked.map(parse).transpose())
}

/// Plants envelopes in a tree; those of a name that is known keep their id.
pub fn plant(
    tree: &mut Tree,
    field: &str,
    envelopes: &[NewEnvelope],
    known: &HashMap<String, EnvelopeId>,
) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    for (index, new) in envelopes.iter().enumerate() {
        let id = known.get(&new.display_name).copied().unwrap_or_else(EnvelopeId::new);
        violations.take_all(tree.add(&format!("{field}[{index}]"), id, new));
    }
    violations.finish()
}

/// A plan to be created.
pub fn draft(request: &pb::CreatePlanRequest, currency: Currency) -> Result<Draft, Vec<Violation>> {
    let mut violations = Violations::default();
    let period = violations.take_all(convert::period(request.period_start_time.as_ref(), request.period_end_time.as_ref()));
    let envelopes = envelopes("envelopes", &request.envelopes, currency, &mut violations);
    let policy = violations.take_all(policy(request.policy.as_ref()));
    let mut tree = Tree::default();
    if let Some(envelopes) = envelopes {
        violations.take_all(plant(&mut tree, "envelopes", &envelopes, &HashMap::new()));
        violations.take_all(tree.check(&policy.unwrap_or_default()));
    }
    let limit = optional(LIMIT, request.automatic_draw_limit.as_ref(), currency, &mut violations);
    violations.finish()?;
    match (period, policy) {
        (Some(period), Some(policy)) => {
            Ok(Draft { display_name: request.display_name.clone(), period, tree, automatic_draw_limit: limit.flatten(), policy })
        }
        _ => Err(Vec::new()),
    }
}

/// A policy; what is absent in it is as by default.
fn policy(asked: Option<&pb::PlanPolicy>) -> Result<Policy, Vec<Violation>> {
    let (asked, default) = (asked.cloned().unwrap_or_default(), Policy::default());
    let validity = match asked.approval_validity {
        None => default.validity,
        // Whole microseconds, as the database keeps time; what no duration can say is out of range too.
        Some(given) => u32::try_from(given.nanos)
            .ok()
            .and_then(|nanos| TimeDelta::new(given.seconds, nanos / 1_000 * 1_000))
            .unwrap_or(TimeDelta::zero()),
    };
    let policy = Policy {
        required_approvals: usize::try_from(asked.required_approvals.max(1)).unwrap_or(default.required_approvals),
        validity,
        min_reserve_percent: asked.min_reserve_percent.unwrap_or(default.min_reserve_percent),
        max_reserve_percent: asked.max_reserve_percent.unwrap_or(default.max_reserve_percent),
    };
    policy.check().map(|()| policy)
}

/// What is to change in a draft; None for what stays.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    display_name: Option<String>,
    period: Option<Period>,
    pub envelopes: Option<Vec<NewEnvelope>>,
    automatic_draw_limit: Option<Option<i64>>,
    policy: Option<Policy>,
}

const FIELDS: [&str; 5] = ["display_name", "period", "envelopes", "automatic_draw_limit", "policy"];

/// A change of a draft. FIELD_NOT_UPDATABLE for what the mask may not name.
pub fn edit(request: &pb::UpdatePlanRequest, currency: Currency) -> Result<Edit, Vec<Violation>> {
    let mut violations = Violations::default();
    let paths = request.update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        violations.push(Violation::new("update_mask.paths", "repeated.min_items", "must name at least one field"));
    }
    for (index, _) in paths.iter().enumerate().filter(|(_, path)| !FIELDS.contains(&path.as_str())) {
        let rule = format!("must be one of {}", FIELDS.join(", "));
        violations.push(Violation::new(format!("update_mask.paths[{index}]"), "FIELD_NOT_UPDATABLE", rule));
    }
    let mask: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    let mut edit = Edit::default();
    if mask.contains("display_name") {
        if request.display_name.is_empty() {
            violations.push(Violation::new("display_name", "string.min_len", "must not be empty"));
        }
        edit.display_name = Some(request.display_name.clone());
    }
    if mask.contains("period") {
        let (start, end) = (request.period_start_time.as_ref(), request.period_end_time.as_ref());
        edit.period = violations.take_all(convert::period(start, end));
    }
    if mask.contains("envelopes") {
        if request.envelopes.is_empty() {
            violations.push(Violation::new("envelopes", "repeated.min_items", "must have at least one"));
        }
        edit.envelopes = envelopes("envelopes", &request.envelopes, currency, &mut violations);
    }
    if mask.contains("automatic_draw_limit") {
        edit.automatic_draw_limit = optional(LIMIT, request.automatic_draw_limit.as_ref(), currency, &mut violations);
    }
    if mask.contains("policy") {
        edit.policy = violations.take_all(policy(request.policy.as_ref()));
    }
    violations.finish().map(|()| edit)
}

impl Edit {
    /// What the draft says with it.
    pub fn apply(&self, mut draft: Draft) -> Result<Draft, Vec<Violation>> {
        let mut violations = Violations::default();
        if let Some(envelopes) = &self.envelopes {
            let known = draft.tree.branches.iter().map(|branch| (branch.display_name.clone(), branch.id)).collect();
            draft.tree = Tree::default();
            violations.take_all(plant(&mut draft.tree, "envelopes", envelopes, &known));
        }
        draft.display_name = self.display_name.clone().unwrap_or(draft.display_name);
        draft.period = self.period.unwrap_or(draft.period);
        draft.automatic_draw_limit = self.automatic_draw_limit.unwrap_or(draft.automatic_draw_limit);
        draft.policy = self.policy.unwrap_or(draft.policy);
        violations.take_all(draft.tree.check(&draft.policy));
        violations.finish().map(|()| draft)
    }
}
