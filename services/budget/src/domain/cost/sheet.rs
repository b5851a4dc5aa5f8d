//! An estimate in the making: what the usage says is taken from here, so that what is missing or not taken is told, all at once.

use super::{
    CostError, computed_rate,
    estimate::{Assumption, Behaviour, Estimate, Figure, Item, Payment, Source, Tax},
    rate_table::{InForce, RateTable, TableKind},
    to_minor,
    usage::Usage,
};
use chrono::NaiveDate;
use koc_chassis::{
    fault::{Violation, Violations},
    money::Currency,
};
use rust_decimal::Decimal;

/// The longest use in days.
const MAX_DAYS: i64 = 3_660;

/// What an item is of.
#[derive(Debug, Clone, Copy)]
pub enum Nature {
    /// One more adds it, in money.
    Marginal,
    /// A share of what is there in any case and must be paid.
    Fixed,
    /// A share of what was paid long ago.
    Spread,
    /// What the money in it would else have brought.
    Forgone,
}

/// See the module.
pub struct Sheet<'a> {
    version: i64,
    pub usage: &'a Usage,
    rates: InForce<'a>,
    pub currency: Currency,
    estimate: Estimate,
    violations: Violations,
    taken: Vec<&'static str>,
}

impl<'a> Sheet<'a> {
    pub fn new(version: i64, usage: &'a Usage, tables: &'a [RateTable], currency: Currency) -> Self {
        let estimate = Estimate { items: Vec::new(), assumptions: Vec::new(), figures: Vec::new(), tax: Tax::none() };
        let rates = InForce { date: usage.date, tables };
        Self { version, usage, rates, currency, estimate, violations: Violations::default(), taken: Vec::new() }
    }

    /// What the usage says of `field`; when it says nothing a violation is kept.
    pub fn required<T: Clone>(&mut self, field: &'static str, value: &Option<T>) -> Option<T> {
        self.taken.push(field);
        if value.is_none() {
            self.broken(field, "USAGE_REQUIRED", "must be set for this kind");
        }
        value.clone()
    }

    /// What the usage or the model says, or the default; which, is noted as an assumption.
    pub fn assumed<T: Clone + ToString>(&mut self, name: &'static str, value: &Option<T>, default: T) -> T {
        self.taken.push(name);
        let (is_default, value) = (value.is_none(), value.clone().unwrap_or(default));
        self.estimate.assumptions.push(Assumption { name: name.to_owned(), value: value.to_string(), is_default });
        value
    }

    /// How many; one by default.
    pub fn quantity(&mut self) -> Decimal {
        let given = self.usage.quantity;
        Decimal::from(self.assumed("quantity", &given, 1))
    }

    /// Says that the kind takes `field`, which may be absent.
    pub fn takes(&mut self, field: &'static str) {
        self.taken.push(field);
    }

    /// First day and days of the use, from start up to and without its end.
    pub fn period(&mut self) -> Option<(NaiveDate, i64)> {
        let (start, end) = (self.usage.start_date, self.usage.end_date);
        let start = self.required("start_date", &start);
        let end = self.required("end_date", &end);
        let (start, end) = start.zip(end)?;
        let days = (end - start).num_days();
        if days < 1 {
            self.broken("end_date", "PERIOD_EMPTY", "must be after start_date");
            return None;
        }
        if days > MAX_DAYS {
            self.broken("end_date", "PERIOD_TOO_LONG", &format!("must be at most {MAX_DAYS} days after start_date"));
            return None;
        }
        Some((start, days))
    }

    pub fn broken(&mut self, field: &str, rule: &str, shape: &str) {
        self.violations.push(Violation::new(format!("usage.{field}"), rule, shape));
    }

    /// The rate of a table for a key and a size, with where it comes from.
    pub fn rate(&self, table: &str, kind: TableKind, key: &str, size: Decimal) -> Result<(Decimal, Source), CostError> {
        self.rates.row(table, kind, key, size).map(|(table, row)| (row.rate, Source::of_table(table)))
    }

    /// A table; None when no version counts on the day.
    pub fn table(&self, id: &str, kind: TableKind) -> Result<Option<&'a RateTable>, CostError> {
        self.rates.table(id, kind)
    }

    /// That a rate stands in the cost model.
    pub fn of_model(&self) -> Source {
        Source { table: None, text: format!("cost model, version {}", self.version) }
    }

    /// That a rate stands in the usage.
    pub fn of_usage(&self) -> Source {
        Source { table: None, text: "usage".to_owned() }
    }

    /// A part of a sum as the rate of one, rounded as computed rates are.
    pub fn part(&self, sum: Decimal, of: u32) -> Decimal {
        computed_rate(sum / Decimal::from(of))
    }

    /// Adds an item whose rate stands in the model.
    pub fn add(&mut self, name: &str, nature: Nature, quantity: Decimal, unit: &str, rate: Decimal) {
        let source = self.of_model();
        self.add_from(source, name, nature, quantity, unit, rate);
    }

    /// Adds an item.
    pub fn add_from(&mut self, source: Source, name: &str, nature: Nature, quantity: Decimal, unit: &str, rate: Decimal) {
        let Some(amount) = quantity.checked_mul(rate).and_then(|amount| to_minor(amount, self.currency)) else {
            self.too_large();
            return;
        };
        let (behaviour, payment) = match nature {
            Nature::Marginal => (Behaviour::Marginal, Payment::Cash),
            Nature::Fixed => (Behaviour::Fixed, Payment::Cash),
            Nature::Spread | Nature::Forgone => (Behaviour::Fixed, Payment::NonCash),
        };
        self.estimate.items.push(Item {
            name: name.to_owned(),
            quantity: quantity.normalize(),
            unit: unit.to_owned(),
            rate: rate.normalize(),
            amount,
            source,
            behaviour,
            payment,
            opportunity: matches!(nature, Nature::Forgone),
        });
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: Decimal) {
        self.estimate.figures.push(Figure { name: name.to_owned(), value: computed_rate(value) });
    }

    /// Adds all items divided by `units` as the unit cost; nothing for no units.
    pub fn unit_cost(&mut self, units: Decimal) {
        let exact: Decimal = self.estimate.items.iter().map(|item| Decimal::from(item.amount)).sum();
        if let Some(cost) = exact.checked_div(units * Decimal::from(self.currency.minor_per_unit())) {
            self.figure("unit_cost", cost);
        }
    }

    pub fn tax(&mut self, tax: Tax) {
        self.estimate.tax = tax;
    }

    pub fn too_large(&mut self) {
        self.violations.push(Violation::new("usage", "AMOUNT_TOO_LARGE", "costs 2^63 minor units or more"));
    }

    /// The estimate, unless something is wrong with the usage.
    pub fn finish(mut self) -> Result<Estimate, CostError> {
        for field in self.usage.given() {
            if !self.taken.contains(&field) {
                self.broken(field, "USAGE_NOT_TAKEN", "must be absent for this kind");
            }
        }
        let total = self.estimate.items.iter().try_fold(0_i64, |sum, item| sum.checked_add(item.amount));
        if total.is_none() {
            self.too_large();
        }
        self.violations.finish().map_err(CostError::Invalid)?;
        Ok(self.estimate)
    }
}
