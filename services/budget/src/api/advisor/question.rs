//! From the contract's question to the domain's.

mod group;

use crate::{
    api::convert,
    domain::{
        advisor::{
            MAX_INDIVISIBLE, MAX_TOTAL_MINOR,
            advice::NoAdvice,
            curve::{Curve, Lot},
            question::{Bound, ChangeBounds, Infeasible, Item, Question, Range, ReserveShare},
        },
        envelope::Envelope,
        plan::{ResourceClass, Stage},
    },
    error::Error,
    ids::EnvelopeId,
};
use koc_chassis::{
    fault::{Violation, Violations},
    money::{Currency, Money},
};
use koc_proto::{google::r#type::Money as Wire, koc::budget::v1 as pb};
use std::collections::HashSet;

/// The key of the reserve that is added.
const RESERVE_KEY: &str = "strategic_reserve";
/// The exponent of a power without one.
const DEFAULT_EXPONENT: f64 = 0.45;
/// The most minima that a refusal lists.
const MAX_MINIMA: usize = 100;

/// A plan as advice starts from it.
pub struct PlanNow {
    pub stage: Stage,
    pub envelopes: Vec<Envelope>,
}

/// A question, with what its answer repeats of each item.
#[derive(Debug)]
pub struct Asked {
    pub question: Question,
    pub names: Vec<Name>,
    pub group_keys: Vec<String>,
    /// How many items were asked about: a reserve that was added comes after them.
    given: usize,
}

/// How an item is called.
#[derive(Debug)]
pub struct Name {
    pub key: String,
    pub envelope: Option<EnvelopeId>,
}

/// Reads a question; all that is wrong with it at once, after what does not exist.
pub fn read(request: &pb::AdviseAllocationRequest, plan: Option<&PlanNow>, currency: Currency) -> Result<Asked, Error> {
    let mut violations = Violations::default();
    if request.amend_plan && plan.is_none() {
        violations.push(Violation::new("plan_id", "PLAN_MISSING", "must name the plan to amend"));
    }
    let total = violations.take(total(request, plan, currency));
    let share = violations.take(share(request.reserve_share.as_ref()));
    let (mut items, mut names, mut keys) = (Vec::new(), Vec::new(), HashSet::new());
    for (i, asked) in request.items.iter().enumerate() {
        let field = |name: &str| format!("items[{i}].{name}");
        if !keys.insert(asked.key.as_str()) {
            violations.push(Violation::new(field("key"), "ITEM_DUPLICATE", "must be unique in the request"));
        }
        let envelope = match envelope(&field("envelope_id"), &asked.envelope_id, plan) {
            Ok(envelope) => envelope,
            Err(Error::Invalid(found)) => {
                found.into_iter().for_each(|violation| violations.push(violation));
                None
            }
            Err(error) => return Err(error),
        };
        let Some(item) = violations.take_all(item(asked, &field, envelope, plan, request.amend_plan, currency)) else { continue };
        items.push(item);
        names.push(Name { key: asked.key.clone(), envelope: envelope.map(|e| e.id) });
    }
    let of_reserve = |item: &Item| item.class == Some(ResourceClass::StrategicReserve);
    if items.iter().filter(|item| of_reserve(item)).count() > 1 {
        violations.push(Violation::new("items", "RESERVE_DUPLICATE", "must hold one item of the strategic reserve at most"));
    }
    let indivisible = |item: &&Item| item.ticket.is_some() || matches!(item.curve, Curve::Hill { .. } | Curve::Menu(_));
    let count = items.iter().filter(indivisible).count();
    if count > MAX_INDIVISIBLE {
        let rule = format!("must hold at most {MAX_INDIVISIBLE} items of an S-shaped curve, lots or a ticket; got {count}");
        violations.push(Violation::new("items", "TOO_MANY_INDIVISIBLE", rule));
    }
    if share.is_some_and(|share| share.max_bp > 0) && !items.iter().any(of_reserve) {
        if let Some(taken) = request.items.iter().position(|item| item.key == RESERVE_KEY) {
            let rule = "must be unique in the request, to which the reserve is added under this key";
            violations.push(Violation::new(format!("items[{taken}].key"), "ITEM_DUPLICATE", rule));
        }
        let envelope = plan.and_then(|p| p.envelopes.iter().find(|e| e.place.class == ResourceClass::StrategicReserve));
        let (item, name) = added_reserve(envelope, plan, request.amend_plan);
        items.push(item);
        names.push(name);
    }
    let groups = match group::read(request, plan, &names, &items, currency) {
        Ok(groups) => Some(groups),
        Err(Error::Invalid(found)) => {
            found.into_iter().for_each(|violation| violations.push(violation));
            None
        }
        Err(error) => return Err(error),
    };
    violations.finish()?;
    let (Some(total), Some(share), Some(groups)) = (total, share, groups) else { return Err(Error::Invalid(Vec::new())) };
    let change = change(request.change_bounds.as_ref());
    let question = Question { total, items, groups, share, change, hurdle: hurdle(request.hurdle.as_ref()) };
    let group_keys = request.groups.iter().map(|group| group.key.clone()).collect();
    Ok(Asked { question, names, group_keys, given: request.items.len() })
}

/// Why a question has no answer, as violations of its fields.
pub fn refusal(asked: &Asked, why: &NoAdvice) -> Error {
    match why {
        NoAdvice::Stopped => Error::AdviceStopped,
        NoAdvice::Infeasible(Infeasible::BoundsContradict { item }) => {
            let rule = "leaves the item no amount: its least, its ticket or the reserve's share exceeds its most";
            let field = if *item < asked.given { format!("items[{item}].upper_bound") } else { "reserve_share".to_owned() };
            Violation::new(field, "BOUNDS_CONTRADICT", rule).into()
        }
        NoAdvice::Infeasible(Infeasible::GroupContradicts { group }) => {
            let rule =
                "leaves the group no amount: its least exceeds its most, or what its items may or must get together lies beyond";
            Violation::new(format!("groups[{group}]"), "BOUNDS_CONTRADICT", rule).into()
        }
        NoAdvice::Infeasible(Infeasible::MinimaExceedBudget { minima, groups, sum }) => {
            let of_item = |(i, range): &(usize, Range)| match range.low_by {
                _ if *i >= asked.given => "reserve_share".to_owned(),
                Bound::ChangeDown => format!("items[{i}].current"),
                Bound::ReserveMin | Bound::ReserveDefault => "reserve_share".to_owned(),
                _ => format!("items[{i}].lower_bound"),
            };
            let of_group = |(nr, range): &(usize, Range)| match range.low_by {
                Bound::ShareMin => format!("groups[{nr}].min_bp"),
                _ => format!("groups[{nr}].lower_bound"),
            };
            let items = minima.iter().map(|minimum| (of_item(minimum), minimum.1));
            let mut minima: Vec<(String, Range)> =
                items.chain(groups.iter().map(|minimum| (of_group(minimum), minimum.1))).collect();
            minima.sort_by_key(|(_, range)| std::cmp::Reverse(range.low));
            let violation = |(field, range): (String, Range)| {
                let total = asked.question.total;
                let (low, by) = (range.low, range.low_by.as_str());
                let rule = format!("asks for at least {low} minor units by {by}; the minima sum to {sum} of {total}");
                Violation::new(field, "MINIMA_EXCEED_BUDGET", rule)
            };
            Error::Invalid(minima.into_iter().take(MAX_MINIMA).map(violation).collect())
        }
    }
}

fn total(request: &pb::AdviseAllocationRequest, plan: Option<&PlanNow>, currency: Currency) -> Result<i64, Violation> {
    let amount = match (&request.total_budget, plan) {
        (None, Some(plan)) => {
            let sum: i128 = plan.envelopes.iter().map(|e| i128::from(e.shown(plan.stage).allocated)).sum();
            i64::try_from(sum).unwrap_or(i64::MAX)
        }
        (None, None) => return Err(Violation::new("total_budget", "PLAN_MISSING", "must be set where no plan gives it")),
        (wire, _) => Money::parse_positive("total_budget", wire.as_ref(), currency)?.minor,
    };
    match amount {
        ..=0 => Err(Violation::new("total_budget", "AMOUNT_NOT_POSITIVE", "must be more than zero; the plan holds nothing")),
        _ => bounded("total_budget", amount),
    }
}

fn bounded(field: &str, amount: i64) -> Result<i64, Violation> {
    if amount > MAX_TOTAL_MINOR {
        return Err(Violation::new(field, "AMOUNT_TOO_LARGE", "must be at most 10^14 minor units"));
    }
    Ok(amount)
}

/// An amount of zero or more that may be absent.
fn amount(field: &str, wire: Option<&Wire>, currency: Currency) -> Result<Option<i64>, Violation> {
    let Some(wire) = wire else { return Ok(None) };
    bounded(field, Money::parse_not_negative(field, Some(wire), currency)?.minor).map(Some)
}

fn envelope<'p>(field: &str, id: &str, plan: Option<&'p PlanNow>) -> Result<Option<&'p Envelope>, Error> {
    let Some(id) = EnvelopeId::parse_optional(field, id)? else { return Ok(None) };
    let Some(plan) = plan else { return Err(Violation::new(field, "PLAN_MISSING", "needs the plan that it is of").into()) };
    plan.envelopes.iter().find(|e| e.id == id).map(Some).ok_or(Error::EnvelopeNotFound(id))
}

fn item(
    asked: &pb::AllocationItem,
    field: &dyn Fn(&str) -> String,
    envelope: Option<&Envelope>,
    plan: Option<&PlanNow>,
    amend: bool,
    currency: Currency,
) -> Result<Item, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut optional = |name: &str, wire: Option<&Wire>| violations.take(amount(&field(name), wire, currency)).flatten();
    let lower = optional("lower_bound", asked.lower_bound.as_ref());
    let upper = optional("upper_bound", asked.upper_bound.as_ref());
    let current = optional("current", asked.current.as_ref());
    let ticket = optional("minimum_ticket", asked.minimum_ticket.as_ref()).filter(|ticket| *ticket > 0);
    let class = match asked.resource_class {
        0 => envelope.map(|e| e.place.class),
        class => violations.take(convert::class_from_proto(&field("resource_class"), class)),
    };
    let shape = asked.curve.as_ref().and_then(|curve| curve.shape.as_ref());
    let curve = match shape {
        Some(shape) => violations.take_all(curve(shape, &field("curve"), currency)),
        None if class == Some(ResourceClass::StrategicReserve) => Some(Curve::Unknown),
        None => {
            violations.push(Violation::new(field("curve"), "CURVE_MISSING", "must be set for all but the strategic reserve"));
            None
        }
    };
    if matches!(curve, Some(Curve::Menu(_))) && (lower.is_some_and(|l| l > 0) || upper.is_some() || ticket.is_some()) {
        violations.push(Violation::new(field("curve.lots"), "LOTS_HAVE_NO_BOUNDS", "must stand without bounds and ticket"));
    }
    let shown = envelope.zip(plan).map(|(envelope, plan)| envelope.shown(plan.stage));
    let in_use = shown.filter(|_| amend).map_or(0, |b| b.allocated - b.available());
    let lower = lower.unwrap_or(0).max(in_use);
    if upper.is_some_and(|upper| lower > upper || (lower > 0 && ticket > Some(upper))) {
        let rule = "must be at least the lower bound, what is in use, and for an item that must get something its ticket";
        violations.push(Violation::new(field("upper_bound"), "BOUNDS_CONTRADICT", rule));
    }
    violations.finish()?;
    let Some(curve) = curve else { return Err(Vec::new()) };
    let current = current.or(shown.map(|b| b.allocated));
    Ok(Item { class, curve, lower, upper, current, ticket })
}

fn added_reserve(envelope: Option<&Envelope>, plan: Option<&PlanNow>, amend: bool) -> (Item, Name) {
    let shown = envelope.zip(plan).map(|(envelope, plan)| envelope.shown(plan.stage));
    let item = Item {
        class: Some(ResourceClass::StrategicReserve),
        curve: Curve::Unknown,
        lower: shown.filter(|_| amend).map_or(0, |b| b.allocated - b.available()),
        upper: None,
        current: shown.map(|b| b.allocated),
        ticket: None,
    };
    (item, Name { key: RESERVE_KEY.to_owned(), envelope: envelope.map(|e| e.id) })
}

/// The curve in minor units. Its numbers were checked when the request was decoded.
fn curve(shape: &pb::response_curve::Shape, field: &str, currency: Currency) -> Result<Curve, Vec<Violation>> {
    use pb::response_curve::Shape;
    let curve = match shape {
        Shape::Logarithmic(c) => Curve::Logarithmic { a: c.a, b: c.b },
        Shape::Exponential(c) => Curve::Exponential { a: c.a, b: c.b },
        Shape::MichaelisMenten(c) => Curve::MichaelisMenten { a: c.a, b: c.b },
        Shape::SquareRoot(c) => Curve::SquareRoot { a: c.a, b: c.b },
        Shape::Power(c) => Curve::Power { theta: c.theta, g: c.exponent.unwrap_or(DEFAULT_EXPONENT) },
        Shape::Hill(c) => Curve::Hill { a: c.a, b: c.b, s: c.slope },
        Shape::Lots(menu) => return lots(menu, field, currency).map(Curve::Menu),
    };
    Ok(curve.rescaled(currency.minor_per_unit() as f64))
}

fn lots(menu: &pb::LotMenu, field: &str, currency: Currency) -> Result<Vec<Lot>, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut lots = Vec::with_capacity(menu.lots.len());
    for (i, lot) in menu.lots.iter().enumerate() {
        let field = |name: &str| format!("{field}.lots.lots[{i}].{name}");
        let cost = Money::parse_positive(&field("cost"), lot.cost.as_ref(), currency);
        let cost = violations.take(cost.and_then(|cost| bounded(&field("cost"), cost.minor)));
        let value = violations.take(amount(&field("value"), lot.value.as_ref(), currency)).flatten();
        lots.extend(cost.zip(value).map(|(cost, value)| Lot { cost: cost as f64, value: value as f64 }));
    }
    violations.finish().map(|()| lots)
}

fn share(asked: Option<&pb::ReserveShare>) -> Result<ReserveShare, Violation> {
    let usual = ReserveShare::default();
    let Some(asked) = asked else { return Ok(usual) };
    let min_bp = asked.min_bp.unwrap_or(usual.min_bp.min(asked.max_bp.unwrap_or(usual.max_bp)));
    let max_bp = asked.max_bp.unwrap_or(usual.max_bp.max(min_bp));
    let default_bp = asked.default_bp.unwrap_or(usual.default_bp.max(min_bp).min(max_bp));
    if min_bp <= default_bp && default_bp <= max_bp {
        Ok(ReserveShare { min_bp, max_bp, default_bp })
    } else {
        Err(Violation::new("reserve_share", "SHARES_CONTRADICT", "must have min_bp ≤ default_bp ≤ max_bp"))
    }
}

fn change(asked: Option<&pb::ChangeBounds>) -> Option<ChangeBounds> {
    let usual = ChangeBounds::default();
    match asked {
        None => Some(usual),
        Some(asked) if asked.off => None,
        Some(asked) => {
            Some(ChangeBounds { down_bp: asked.down_bp.unwrap_or(usual.down_bp), up_bp: asked.up_bp.unwrap_or(usual.up_bp) })
        }
    }
}

fn hurdle(asked: Option<&pb::Hurdle>) -> f64 {
    match asked {
        None => 1.0,
        Some(asked) if asked.off => 0.0,
        Some(asked) => 1.0 + asked.target_roi.unwrap_or(0.0),
    }
}
