//! Usages and estimates between the contract and the domain.

use super::{convert::money, cost_model::Reader};
use crate::{
    domain::cost::{
        estimate::{Assumption, Behaviour, Estimate, Figure, Item, Payment, Source, TaxStatus},
        to_minor,
        usage::{Incident, Usage},
    },
    flow::fact::optional,
    ids::ResourceId,
    store::estimate::Kept,
};
use chrono::NaiveDate;
use koc_chassis::{fault::Violation, money::Currency};
use koc_proto::koc::budget::v1 as pb;
use rust_decimal::Decimal;

/// Reads a usage; all that is wrong with it at once. What its kind needs is judged with the estimate.
pub fn usage(wire: Option<&pb::ResourceUsage>, currency: Currency) -> Result<Usage, Vec<Violation>> {
    let Some(wire) = wire else { return Err(vec![Violation::new("usage", "required", "must be set")]) };
    let mut reader = Reader::new("usage", currency);
    let filled = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let date = reader.date("date", &wire.date);
    let start_date = optional_date(&mut reader, "start_date", &wire.start_date);
    let end_date = optional_date(&mut reader, "end_date", &wire.end_date);
    let kilometres = reader.optional_rate("kilometres", &wire.kilometres);
    let media_spend = reader.optional_sum("media_spend", &wire.media_spend);
    let incidents = incidents(&mut reader, &wire.incidents);
    reader.finish()?;
    let read = || {
        Some(Usage {
            date: date?,
            quantity: wire.quantity,
            region_code: filled(&wire.region_code),
            start_date: start_date?,
            end_date: end_date?,
            kilometres: kilometres?,
            incidents: incidents?,
            guests: wire.guests,
            active_users: wire.active_users,
            months: wire.months,
            media_spend: media_spend?,
            tax_category: filled(&wire.tax_category),
        })
    };
    read().ok_or_else(Vec::new)
}

/// Reads damages; None when something is wrong with one.
pub fn incidents(reader: &mut Reader, wire: &[pb::Incident]) -> Option<Vec<Incident>> {
    let mut read = Vec::with_capacity(wire.len());
    for (index, incident) in wire.iter().enumerate() {
        let cost = reader.sum(&format!("incidents[{index}].cost"), &incident.cost);
        let share = reader.share(&format!("incidents[{index}].fault_share"), &incident.fault_share);
        read.push(cost.zip(share).map(|(cost, fault_share)| Incident { cost, fault_share }));
    }
    read.into_iter().collect()
}

fn optional_date(reader: &mut Reader, name: &str, text: &str) -> Option<Option<NaiveDate>> {
    if text.is_empty() { Some(None) } else { reader.date(name, text).map(Some) }
}

pub fn usage_to_proto(usage: &Usage, currency: Currency) -> pb::ResourceUsage {
    let sum = |sum: Decimal| to_minor(sum, currency).and_then(|minor| money(minor, currency));
    let incident = |incident: &Incident| pb::Incident { cost: sum(incident.cost), fault_share: incident.fault_share.to_string() };
    pb::ResourceUsage {
        date: usage.date.to_string(),
        quantity: usage.quantity,
        region_code: usage.region_code.clone().unwrap_or_default(),
        start_date: optional(usage.start_date),
        end_date: optional(usage.end_date),
        kilometres: optional(usage.kilometres),
        incidents: usage.incidents.iter().map(incident).collect(),
        guests: usage.guests,
        active_users: usage.active_users,
        months: usage.months,
        media_spend: usage.media_spend.and_then(sum),
        tax_category: usage.tax_category.clone().unwrap_or_default(),
    }
}

/// An estimate that is kept.
pub fn kept(kept: &Kept, currency: Currency) -> pb::CostEstimate {
    let made = estimate((kept.resource, kept.version), &kept.usage, &kept.estimate, currency);
    pb::CostEstimate { estimate_id: kept.id.to_string(), ..made }
}

/// An estimate of a resource's version.
pub fn estimate(
    (resource, version): (ResourceId, i64),
    usage: &Usage,
    estimate: &Estimate,
    currency: Currency,
) -> pb::CostEstimate {
    let assumption =
        |a: &Assumption| pb::CostAssumption { name: a.name.clone(), value: a.value.clone(), is_default: a.is_default };
    let figure = |figure: &Figure| pb::CostFigure { name: figure.name.clone(), value: figure.value.to_string() };
    let tax = &estimate.tax;
    pb::CostEstimate {
        resource_id: resource.to_string(),
        resource_version: version,
        usage: Some(usage_to_proto(usage, currency)),
        items: estimate.items.iter().map(|i| item(i, currency)).collect(),
        marginal: money(estimate.marginal(), currency),
        cash: money(estimate.cash(), currency),
        non_cash: money(estimate.non_cash(), currency),
        amortised: money(estimate.amortised(), currency),
        full: money(estimate.full(), currency),
        assumptions: estimate.assumptions.iter().map(assumption).collect(),
        figures: estimate.figures.iter().map(figure).collect(),
        tax: Some(pb::TaxEstimate {
            status: match tax.status {
                TaxStatus::NotTaxed => pb::TaxStatus::NotTaxed.into(),
                TaxStatus::Determined => pb::TaxStatus::Determined.into(),
                TaxStatus::Undetermined => pb::TaxStatus::Undetermined.into(),
            },
            category: tax.category.clone(),
            withheld: tax.withheld.and_then(|minor| money(minor, currency)),
            net: tax.net.and_then(|minor| money(minor, currency)),
            source: tax.source.as_ref().map(source),
        }),
        estimate_id: String::new(),
    }
}

fn item(item: &Item, currency: Currency) -> pb::CostItem {
    pb::CostItem {
        name: item.name.clone(),
        quantity: item.quantity.to_string(),
        unit: item.unit.clone(),
        rate: item.rate.to_string(),
        amount: money(item.amount, currency),
        source: Some(source(&item.source)),
        behaviour: match item.behaviour {
            Behaviour::Marginal => pb::CostBehaviour::Marginal.into(),
            Behaviour::Fixed => pb::CostBehaviour::Fixed.into(),
        },
        payment: match item.payment {
            Payment::Cash => pb::CostPayment::Cash.into(),
            Payment::NonCash => pb::CostPayment::NonCash.into(),
        },
    }
}

fn source(source: &Source) -> pb::RateSource {
    let table = source.table.as_ref();
    pb::RateSource {
        rate_table_id: table.map(|(id, ..)| id.clone()).unwrap_or_default(),
        version: table.map_or(0, |(_, version, _)| *version),
        valid_from_date: optional(table.map(|(.., date)| *date)),
        source: source.text.clone(),
    }
}
