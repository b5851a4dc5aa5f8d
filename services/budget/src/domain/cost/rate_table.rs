//! Rate tables: dated, versioned, never edited.

use super::{CostError, parse_decimal, parse_share};
use crate::ids::ProgrammeId;
use chrono::{DateTime, NaiveDate, Utc};
use koc_chassis::fault::{Violation, Violations};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

text_enum! {
    /// How a table is read.
    TableKind {
        /// One rate for each key.
        Keyed = "KEYED",
        /// The rate of the whole by its size.
        Steps = "STEPS",
        /// The tax by category and size.
        Withholding = "WITHHOLDING",
    }
}

/// A row. What its kind does not have is zero, or one for the taxable share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub key: String,
    pub from: Decimal,
    pub rate: Decimal,
    pub allowance: Decimal,
    pub taxable_share: Decimal,
    pub deduction: Decimal,
}

/// One version of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateTable {
    pub id: String,
    pub programme: ProgrammeId,
    pub version: i64,
    pub kind: TableKind,
    pub valid_from: NaiveDate,
    pub source: String,
    pub rows: Vec<Row>,
    pub set_by: String,
    pub create_time: DateTime<Utc>,
}

/// A version to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRateTable {
    pub id: String,
    pub kind: TableKind,
    pub valid_from: NaiveDate,
    pub source: String,
    pub rows: Vec<Row>,
}

/// A row as it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct RowText<'a> {
    pub key: &'a str,
    pub from: &'a str,
    pub rate: &'a str,
    pub allowance: &'a str,
    pub taxable_share: &'a str,
    pub deduction: &'a str,
}

/// Reads the rows of a table; all that is wrong with them at once.
pub fn parse_rows(kind: TableKind, texts: &[RowText<'_>]) -> Result<Vec<Row>, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut rows = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        if let Some(row) = violations.take_all(parse_row(kind, &format!("rows[{index}]"), text)) {
            rows.push(row);
        }
    }
    // What concerns them together is judged when each is whole.
    if rows.len() == texts.len() {
        violations.take_all(check_rows(kind, &rows));
    }
    violations.finish()?;
    Ok(rows)
}

fn parse_row(kind: TableKind, at: &str, text: &RowText<'_>) -> Result<Row, Vec<Violation>> {
    let mut violations = Violations::default();
    let field = |name: &str| format!("{at}.{name}");
    let sized = kind != TableKind::Keyed;
    let taxed = kind == TableKind::Withholding;
    if text.key.is_empty() == (kind != TableKind::Steps) {
        let shape = if kind == TableKind::Steps { "must be empty in a table of steps" } else { "must name what the row is for" };
        violations.push(Violation::new(field("key"), "ROW_KEY", shape));
    }
    for (name, value, taken) in [
        ("from", text.from, sized),
        ("allowance", text.allowance, taxed),
        ("taxable_share", text.taxable_share, taxed),
        ("deduction", text.deduction, taxed),
    ] {
        if !taken && !value.is_empty() {
            violations.push(Violation::new(field(name), "ROW_NOT_OF_KIND", "must be empty in a table of this kind"));
        }
    }
    let mut optional = |name: &str, value: &str, taken: bool, default: Decimal| match value {
        "" => Some(default),
        _ if !taken => Some(default),
        text if name == "taxable_share" => violations.take(parse_share(&field(name), text)),
        text => violations.take(parse_decimal(&field(name), text)),
    };
    let allowance = optional("allowance", text.allowance, taxed, Decimal::ZERO);
    let taxable_share = optional("taxable_share", text.taxable_share, taxed, Decimal::ONE);
    let deduction = optional("deduction", text.deduction, taxed, Decimal::ZERO);
    let from = if sized { violations.take(parse_decimal(&field("from"), text.from)) } else { Some(Decimal::ZERO) };
    let rate = violations.take(match taxed {
        true => parse_share(&field("rate"), text.rate),
        false => parse_decimal(&field("rate"), text.rate),
    });
    violations.finish()?;
    match (from, rate, allowance, taxable_share, deduction) {
        (Some(from), Some(rate), Some(allowance), Some(taxable_share), Some(deduction)) => {
            Ok(Row { key: text.key.to_owned(), from, rate, allowance, taxable_share, deduction })
        }
        _ => Err(Vec::new()),
    }
}

fn check_rows(kind: TableKind, rows: &[Row]) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    let mut seen = HashSet::with_capacity(rows.len());
    let mut lowest: BTreeMap<&str, Decimal> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        if !seen.insert((row.key.as_str(), row.from)) {
            let shape = "must differ from the rows before in its key or its size";
            violations.push(Violation::new(format!("rows[{index}]"), "ROW_DUPLICATE", shape));
        }
        let from = lowest.entry(&row.key).or_insert(row.from);
        *from = row.from.min(*from);
    }
    let highest_first = if kind == TableKind::Steps { Decimal::ONE } else { Decimal::ZERO };
    if lowest.values().any(|from| *from > highest_first) {
        let shape = format!("the first size of each key must be at most {highest_first}, so that no size is left out");
        violations.push(Violation::new("rows", "FIRST_STEP_MISSING", shape));
    }
    violations.finish()
}

impl RateTable {
    /// The row of a key that holds a size; of several the one with the highest `from`.
    pub fn row(&self, key: &str, size: Decimal) -> Option<&Row> {
        self.rows.iter().filter(|row| row.key == key && row.from <= size).max_by_key(|row| row.from)
    }

    /// The rows of a category, by size.
    pub fn rows_of(&self, key: &str) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.key == key).collect();
        rows.sort_by_key(|row| row.from);
        rows
    }
}

/// The tables that count on a day, for one estimate.
#[derive(Debug, Clone, Copy)]
pub struct InForce<'a> {
    pub date: NaiveDate,
    pub tables: &'a [RateTable],
}

impl<'a> InForce<'a> {
    /// A table by its name, which must be of `kind`; None when no version counts on the day.
    pub fn table(&self, id: &str, kind: TableKind) -> Result<Option<&'a RateTable>, CostError> {
        match self.tables.iter().find(|table| table.id == id) {
            Some(table) if table.kind != kind => {
                Err(CostError::TableKind { table: id.to_owned(), is: table.kind, must_be: kind })
            }
            found => Ok(found),
        }
    }

    /// The row for a key and a size.
    pub fn row(&self, id: &str, kind: TableKind, key: &str, size: Decimal) -> Result<(&'a RateTable, &'a Row), CostError> {
        let found = self.table(id, kind)?.and_then(|table| Some((table, table.row(key, size)?)));
        found.ok_or_else(|| CostError::RateMissing { table: id.to_owned(), key: key.to_owned(), date: self.date })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rust_decimal::dec;

    pub fn text<'a>(key: &'a str, from: &'a str, rate: &'a str) -> RowText<'a> {
        RowText { key, from, rate, allowance: "", taxable_share: "", deduction: "" }
    }

    /// A version 1 that counts from 2026 on.
    pub fn table(id: &str, kind: TableKind, rows: &[RowText<'_>]) -> RateTable {
        RateTable {
            id: id.to_owned(),
            programme: ProgrammeId::new(),
            version: 1,
            kind,
            valid_from: NaiveDate::from_ymd_opt(2026, 1, 1).expect("a day"),
            source: "price list".into(),
            rows: parse_rows(kind, rows).expect("rows"),
            set_by: "planner".into(),
            create_time: DateTime::from_timestamp(1_767_225_600, 0).expect("in range"),
        }
    }

    fn broken(kind: TableKind, rows: &[RowText<'_>]) -> Vec<(String, String)> {
        let violations = parse_rows(kind, rows).expect_err("broken");
        violations.into_iter().map(|v| (v.field, v.rule)).collect()
    }

    #[test]
    fn the_step_with_the_highest_size_that_is_reached_counts() {
        let steps = [text("", "1", "80"), text("", "500", "60"), text("", "2000", "52.5")];
        let steps = table("production", TableKind::Steps, &steps);
        let rate = |size| steps.row("", Decimal::from(size)).map(|row| row.rate);
        assert_eq!(
            (rate(1), rate(499), rate(500), rate(99_999)),
            (Some(dec!(80)), Some(dec!(80)), Some(dec!(60)), Some(dec!(52.5)))
        );
    }

    #[test]
    fn all_that_is_wrong_with_rows_is_told_at_once() {
        let rows = [text("CN-GD", "1", "x"), text("", "", "12")];
        let expected = [("rows[0].from", "ROW_NOT_OF_KIND"), ("rows[0].rate", "RATE_MALFORMED"), ("rows[1].key", "ROW_KEY")];
        assert_eq!(broken(TableKind::Keyed, &rows), expected.map(|(f, r)| (f.to_owned(), r.to_owned())));
        let twice = [text("", "1", "1"), text("", "1.0", "2")];
        assert_eq!(broken(TableKind::Steps, &twice), [("rows[1]".to_owned(), "ROW_DUPLICATE".to_owned())]);
        let late = [text("", "2", "1")];
        assert_eq!(broken(TableKind::Steps, &late), [("rows".to_owned(), "FIRST_STEP_MISSING".to_owned())]);
        let above = [text("PAY", "0", "1.2")];
        assert_eq!(broken(TableKind::Withholding, &above), [("rows[0].rate".to_owned(), "SHARE_OUT_OF_RANGE".to_owned())]);
    }

    #[test]
    fn a_table_of_another_kind_or_without_the_key_is_told() {
        let tables = [table("shipping", TableKind::Keyed, &[text("CN-GD", "", "12")])];
        let date = tables[0].valid_from;
        let rates = InForce { date, tables: &tables };
        let row = |key, kind| rates.row("shipping", kind, key, Decimal::ONE).map(|(_, row)| row.rate);
        assert_eq!(row("CN-GD", TableKind::Keyed), Ok(dec!(12)));
        let missing = CostError::RateMissing { table: "shipping".into(), key: "CN-XZ".into(), date };
        assert_eq!(row("CN-XZ", TableKind::Keyed), Err(missing));
        assert!(matches!(row("CN-GD", TableKind::Steps), Err(CostError::TableKind { .. })));
    }
}
