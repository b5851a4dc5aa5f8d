//! The groups of a question, and which items are in them.

use super::{Name, PlanNow, amount, envelope};
use crate::{
    api::convert,
    domain::{
        advisor::question::{Group, Item},
        plan::ResourceClass,
    },
    error::Error,
    ids::EnvelopeId,
};
use koc_chassis::{
    fault::{Violation, Violations},
    money::Currency,
};
use koc_proto::koc::budget::v1 as pb;
use std::collections::HashSet;

/// Which items that name no group are in one.
enum Fits {
    None,
    Class(ResourceClass),
    Below(EnvelopeId),
}

/// Reads the groups; all that is wrong with them at once. `items` and `names` are of the items that could be read, the reserve that was
/// added last.
pub fn read(
    request: &pb::AdviseAllocationRequest,
    plan: Option<&PlanNow>,
    names: &[Name],
    items: &[Item],
    currency: Currency,
) -> Result<Vec<Group>, Error> {
    let mut violations = Violations::default();
    let (mut groups, mut fits, mut keys) = (Vec::new(), Vec::new(), HashSet::new());
    for (nr, asked) in request.groups.iter().enumerate() {
        let field = |name: &str| format!("groups[{nr}].{name}");
        if !keys.insert(asked.key.as_str()) {
            violations.push(Violation::new(field("key"), "GROUP_DUPLICATE", "must be unique in the request"));
        }
        fits.push(match what_fits(asked, &field, plan) {
            Ok(fits) => fits,
            Err(Error::Invalid(found)) => {
                found.into_iter().for_each(|violation| violations.push(violation));
                Fits::None
            }
            Err(error) => return Err(error),
        });
        let mut bound = |name: &str, wire| violations.take(amount(&field(name), wire, currency)).flatten();
        let lower = bound("lower_bound", asked.lower_bound.as_ref()).unwrap_or(0);
        let upper = bound("upper_bound", asked.upper_bound.as_ref());
        groups.push(Group { members: Vec::new(), lower, upper, min_bp: asked.min_bp, max_bp: asked.max_bp });
    }
    for (i, (item, name)) in items.iter().zip(names).enumerate() {
        match group_of(request, item, name, &fits, plan) {
            Ok(Some(nr)) => groups[nr].members.push(i),
            Ok(None) => {}
            Err(violation) => violations.push(violation),
        }
    }
    violations.finish()?;
    Ok(groups)
}

fn what_fits(asked: &pb::AllocationGroup, field: &dyn Fn(&str) -> String, plan: Option<&PlanNow>) -> Result<Fits, Error> {
    let below = envelope(&field("envelope_id"), &asked.envelope_id, plan)?;
    let class = match asked.resource_class {
        0 => None,
        class => Some(convert::class_from_proto(&field("resource_class"), class)?),
    };
    match (class, below) {
        (Some(ResourceClass::StrategicReserve), _) => {
            let rule = "must be another class: the reserve's share bounds it";
            Err(Violation::new(field("resource_class"), "RESERVE_IN_GROUP", rule).into())
        }
        (Some(_), Some(_)) => {
            let rule = "must stand without a class";
            Err(Violation::new(field("envelope_id"), "GROUP_AMBIGUOUS", rule).into())
        }
        (Some(class), None) => Ok(Fits::Class(class)),
        (None, Some(envelope)) => Ok(Fits::Below(envelope.id)),
        (None, None) => Ok(Fits::None),
    }
}

/// Which group an item is in: the one that it names, else the only one that it fits.
fn group_of(
    request: &pb::AdviseAllocationRequest,
    item: &Item,
    name: &Name,
    fits: &[Fits],
    plan: Option<&PlanNow>,
) -> Result<Option<usize>, Violation> {
    let of_reserve = item.class == Some(ResourceClass::StrategicReserve);
    // None for the reserve that was added.
    let asked = request.items.iter().position(|asked| asked.key == name.key);
    let field = || asked.map_or_else(|| "items".to_owned(), |i| format!("items[{i}].group_key"));
    let named = asked.map_or("", |i| request.items[i].group_key.as_str());
    if !named.is_empty() {
        if of_reserve {
            let rule = "must be empty for the strategic reserve: its share bounds it";
            return Err(Violation::new(field(), "RESERVE_IN_GROUP", rule));
        }
        let found = request.groups.iter().position(|group| group.key == named);
        return match found {
            Some(nr) => Ok(Some(nr)),
            None => Err(Violation::new(field(), "GROUP_UNKNOWN", "must be the key of a group of the request")),
        };
    }
    if of_reserve {
        return Ok(None);
    }
    let fit = |fits: &Fits| match fits {
        Fits::None => false,
        Fits::Class(class) => item.class == Some(*class),
        Fits::Below(top) => stands_below(name.envelope, *top, plan),
    };
    let mut found = fits.iter().enumerate().filter(|(_, fits)| fit(fits)).map(|(nr, _)| nr);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => {
            let rule = "must name its group: it fits more than one";
            Err(Violation::new(field(), "GROUP_AMBIGUOUS", rule))
        }
        (only, _) => Ok(only),
    }
}

/// Whether an envelope is another or stands below it.
fn stands_below(envelope: Option<EnvelopeId>, top: EnvelopeId, plan: Option<&PlanNow>) -> bool {
    let parent = |id: EnvelopeId| plan?.envelopes.iter().find(|e| e.id == id)?.place.parent;
    std::iter::successors(envelope, |id| parent(*id)).any(|id| id == top)
}
