//! Envelopes (预算额度): the tree that a plan's money stands in. An envelope holds what its children do not, so that what it holds with them
//! is a sum and cannot fall below theirs.

use super::{
    approval::Policy,
    balances::Balances,
    plan::{ResourceClass, Stage},
    resource_kind::ResourceKind,
};
use crate::ids::{EnvelopeId, PlanId};
use koc_chassis::fault::{Violation, Violations};

/// The most envelopes of one plan.
pub const MAX_ENVELOPES: usize = 1_000;

/// Where in its plan an envelope stands, and what it pays for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub class: ResourceClass,
    /// The envelope that it is a part of; None for a part of the plan itself.
    pub parent: Option<EnvelopeId>,
    /// ISO 3166-2; None for everywhere.
    pub region: Option<String>,
    /// None for all kinds.
    pub kind: Option<ResourceKind>,
}

/// A part of a plan's money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub id: EnvelopeId,
    pub plan: PlanId,
    pub place: Place,
    pub display_name: String,
    /// What activation allocates to it, without its children, in minor units.
    pub planned: i64,
    /// Its own, as the ledger has them: all zero before activation.
    pub balances: Balances,
    /// How far available may fall below zero, in minor units.
    pub overrun_limit: i64,
}

impl Envelope {
    /// Its own balances as they are shown: those of a plan that was not activated are what is planned.
    pub fn shown(&self, stage: Stage) -> Balances {
        if stage.is_funded() { self.balances } else { Balances { allocated: self.planned, ..Balances::default() } }
    }
}

/// What each holds with its children, in the same order, given what each holds itself. Parents stand before their children.
pub fn with_children(envelopes: &[Envelope], own: impl Fn(&Envelope) -> Balances) -> Vec<Balances> {
    let mut sums: Vec<Balances> = envelopes.iter().map(own).collect();
    for index in (0..envelopes.len()).rev() {
        let parent = envelopes[index].place.parent.and_then(|id| envelopes.iter().position(|e| e.id == id));
        if let Some(parent) = parent {
            // A plan's amounts can be added up: that is checked whenever they change.
            sums[parent] = Balances::sum(&[sums[parent], sums[index]]).unwrap_or_default();
        }
    }
    sums
}

/// An envelope to be created. Amounts in minor units, zero or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnvelope {
    /// None for the parent's.
    pub class: Option<ResourceClass>,
    pub display_name: String,
    /// The display name of the envelope that it is a part of.
    pub parent: Option<String>,
    pub region: Option<String>,
    pub kind: Option<ResourceKind>,
    /// What it holds with its children.
    pub total: i64,
    /// How far available may fall below zero.
    pub overrun_limit: i64,
}

/// An envelope of a tree that is being made or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    pub id: EnvelopeId,
    pub place: Place,
    pub display_name: String,
    /// What it holds with its children.
    pub total: i64,
    pub overrun_limit: i64,
    /// Where in the request its amount stands, for violations.
    pub field: String,
}

/// A plan's envelopes, parents before their children.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    pub branches: Vec<Branch>,
}

impl Tree {
    /// Of envelopes as they are; `field` is what a change of them is asked for with.
    pub fn of(envelopes: &[Envelope], field: &str, own: impl Fn(&Envelope) -> Balances) -> Self {
        let branch = |(envelope, sum): (&Envelope, Balances)| Branch {
            id: envelope.id,
            place: envelope.place.clone(),
            display_name: envelope.display_name.clone(),
            total: sum.allocated,
            overrun_limit: envelope.overrun_limit,
            field: field.to_owned(),
        };
        Self { branches: envelopes.iter().zip(with_children(envelopes, own)).map(branch).collect() }
    }

    pub fn position(&self, id: EnvelopeId) -> Option<usize> {
        self.branches.iter().position(|branch| branch.id == id)
    }

    /// Adds an envelope; all that is wrong with it: ENVELOPE_DUPLICATE, PARENT_UNKNOWN, CLASS_MISSING, CLASS_DIFFERS, SPLIT_INVALID, RESERVE_OVERRUN.
    pub fn add(&mut self, field: &str, id: EnvelopeId, new: &NewEnvelope) -> Result<(), Vec<Violation>> {
        let mut violations = Violations::default();
        let mut wrong = |name: &str, rule: &str, text: &str| {
            let field = if name.is_empty() { field.to_owned() } else { format!("{field}.{name}") };
            violations.push(Violation::new(field, rule, text));
        };
        if self.branches.iter().any(|branch| branch.display_name == new.display_name) {
            wrong("display_name", "ENVELOPE_DUPLICATE", "must be unique in the plan");
        }
        let named = |name: &String| self.branches.iter().find(|branch| branch.display_name == *name);
        let parent = new.parent.as_ref().and_then(named).cloned();
        if new.parent.is_some() && parent.is_none() {
            wrong("parent_display_name", "PARENT_UNKNOWN", "must be the name of an envelope that stands before it");
        }
        let class = match (new.class, &parent) {
            (None, None) if new.parent.is_none() => {
                wrong("resource_class", "CLASS_MISSING", "must be set unless it has a parent");
                None
            }
            (Some(class), Some(parent)) if class != parent.place.class => {
                wrong("resource_class", "CLASS_DIFFERS", "must be that of its parent");
                None
            }
            (class, parent) => class.or(parent.as_ref().map(|parent| parent.place.class)),
        };
        if class == Some(ResourceClass::StrategicReserve) {
            if parent.is_some() {
                wrong("", "SPLIT_INVALID", "the strategic reserve is not split");
            } else if self.branches.iter().any(|branch| branch.place.class == ResourceClass::StrategicReserve) {
                wrong("resource_class", "ENVELOPE_DUPLICATE", "a plan has one strategic reserve at most");
            }
            if new.overrun_limit != 0 {
                wrong("overrun_limit", "RESERVE_OVERRUN", "must be zero for the strategic reserve");
            }
        }
        let (mut region, mut kind) = (new.region.clone(), new.kind);
        if let Some(parent) = &parent {
            let above = &parent.place;
            region = region.or(above.region.clone());
            kind = kind.or(above.kind);
            let differs = |was: bool, same: bool| was && !same;
            if differs(above.region.is_some(), region == above.region) || differs(above.kind.is_some(), kind == above.kind) {
                wrong("", "SPLIT_INVALID", "must lie within its parent's region and kind");
            } else if region == above.region && kind == above.kind {
                wrong("", "SPLIT_INVALID", "must have a region or a kind that its parent has not");
            } else if self.siblings(parent.id).any(|other| other.place.region == region && other.place.kind == kind) {
                wrong("", "SPLIT_INVALID", "must have another region or kind than its siblings");
            }
        }
        // One that cannot be placed still stands for its name and amount, so that all else that is wrong is said too.
        let place =
            Place { class: class.unwrap_or(ResourceClass::Inclusive), parent: parent.map(|parent| parent.id), region, kind };
        self.branches.push(Branch {
            id,
            place,
            display_name: new.display_name.clone(),
            total: new.total,
            overrun_limit: new.overrun_limit,
            field: format!("{field}.allocated"),
        });
        violations.finish()
    }

    fn siblings(&self, parent: EnvelopeId) -> impl Iterator<Item = &Branch> {
        self.branches.iter().filter(move |branch| branch.place.parent == Some(parent))
    }

    /// Puts `amount` into an envelope, or takes it out when below zero: whatever stands above it holds as much more or less.
    pub fn shift(&mut self, index: usize, amount: i64) {
        let mut next = Some(index);
        while let Some(index) = next {
            self.branches[index].total = self.branches[index].total.saturating_add(amount);
            next = self.branches[index].place.parent.and_then(|id| self.position(id));
        }
    }

    /// What each holds itself, without its children. Below zero where they hold more than it does with them.
    pub fn own(&self) -> Vec<i128> {
        let mut own: Vec<i128> = self.branches.iter().map(|branch| branch.total.into()).collect();
        for branch in &self.branches {
            if let Some(parent) = branch.place.parent.and_then(|id| self.position(id)) {
                own[parent] -= i128::from(branch.total);
            }
        }
        own
    }

    /// What all hold together.
    pub fn total(&self) -> i128 {
        self.branches.iter().filter(|branch| branch.place.parent.is_none()).map(|branch| i128::from(branch.total)).sum()
    }

    /// Holds the rules that concern all together: none holds less than its children (ENVELOPE_BELOW_CHILDREN), amounts can be added up
    /// (AMOUNT_TOO_LARGE), and the reserve's share lies within the policy's bounds (RESERVE_SHARE_OUT_OF_BOUNDS).
    pub fn check(&self, policy: &Policy) -> Result<(), Vec<Violation>> {
        let mut violations = Violations::default();
        for (branch, own) in self.branches.iter().zip(self.own()) {
            if own < 0 {
                let rule = format!("{} must not hold less than its children", branch.display_name);
                violations.push(Violation::new(branch.field.clone(), "ENVELOPE_BELOW_CHILDREN", rule));
            }
        }
        let total = self.total();
        let overrun: i128 = self.branches.iter().map(|branch| i128::from(branch.overrun_limit)).sum();
        if i64::try_from(total + overrun).is_err() {
            violations.push(Violation::new("envelopes", "AMOUNT_TOO_LARGE", "must sum to less than 2^63 minor units"));
        }
        let is_reserve =
            |branch: &&Branch| branch.place.class == ResourceClass::StrategicReserve && branch.place.parent.is_none();
        if let Some(reserve) = self.branches.iter().rfind(is_reserve) {
            let hundredfold = i128::from(reserve.total) * 100;
            let (least, most) = (policy.min_reserve_percent, policy.max_reserve_percent);
            if hundredfold < total * i128::from(least) || hundredfold > total * i128::from(most) {
                let rule = format!("the reserve must be {least} % to {most} % of the plan");
                violations.push(Violation::new(reserve.field.clone(), "RESERVE_SHARE_OUT_OF_BOUNDS", rule));
            }
        }
        violations.finish()
    }
}

#[cfg(test)]
mod tests;
