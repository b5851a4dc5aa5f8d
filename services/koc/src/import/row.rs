//! Applies a mapping to the cells of one row and collects everything that is wrong with it.

use std::collections::HashMap;

use csv::StringRecord;

use super::mapping::{ConsentRule, LabelRule, Mapping, NameRule, Otherwise, TextRule};
use super::parse::{self, Flaw};
use super::{Channel, Consent, MappedRow, Motivation, Reject, Vehicle, Warning};

/// Maps the cells of the row that begins on `line`. `columns` holds the place of every column that the mapping names.
pub(super) fn map(
    mapping: &Mapping,
    columns: &HashMap<String, usize>,
    width: usize,
    line: u64,
    cells: &StringRecord,
) -> Result<MappedRow, Vec<Reject>> {
    if cells.len() != width {
        // Cells of such a row cannot be told apart, so none is looked at.
        return Err(vec![Reject {
            line,
            column: String::new(),
            reason: format!("the row has {} cells, the header {width}", cells.len()),
            value_shape: String::new(),
        }]);
    }
    let mut reader = Reader { mapping, columns, line, cells, rejects: Vec::new(), warnings: Vec::new() };
    let row = reader.row();
    match row {
        Some(row) if reader.rejects.is_empty() => Ok(MappedRow { warnings: reader.warnings, ..row }),
        _ => Err(reader.rejects),
    }
}

/// Whose row it is, whatever else is wrong with it.
pub(super) fn external_id(
    mapping: &Mapping,
    columns: &HashMap<String, usize>,
    width: usize,
    cells: &StringRecord,
) -> Option<String> {
    let cell = cells.get(*columns.get(&mapping.external_id.column)?).filter(|_| cells.len() == width)?;
    let id = parse::narrow(parse::trim(cell));
    (!id.is_empty()).then_some(id)
}

struct Reader<'a> {
    mapping: &'a Mapping,
    columns: &'a HashMap<String, usize>,
    line: u64,
    cells: &'a StringRecord,
    rejects: Vec<Reject>,
    warnings: Vec<Warning>,
}

impl<'a> Reader<'a> {
    /// Reads all fields before it gives up, so that a person sees every flaw of the row at once. `None` only after a reject.
    fn row(&mut self) -> Option<MappedRow> {
        let mapping = self.mapping;
        let time = &mapping.source_time;
        let external_id = self.required(&mapping.external_id.column, |text| Ok(parse::narrow(text)));
        let source_time = self.required(&time.column, |text| parse::instant(text, &time.formats, time.time_zone));
        let display_name = mapping.display_name.as_ref().and_then(|rule| self.name(rule));
        let email = mapping.email.as_ref().and_then(|rule| self.text(rule, parse::email));
        let phone =
            mapping.phone.as_ref().and_then(|rule| self.optional(&rule.column, |text| parse::phone(text, rule.default_country)));
        let region = mapping.region.as_ref().and_then(|rule| self.text(rule, parse::region));
        let city = mapping.city.as_ref().and_then(|rule| self.text(rule, |text| Ok(text.to_owned())));
        let channels = self.channels();
        let vehicles = self.vehicles();
        let motivations = self
            .labels(&mapping.motivations)
            .into_iter()
            .filter_map(|(column, word)| {
                let motivation = Motivation::from_word(&word);
                if motivation.is_none() {
                    self.reject(&column, Flaw::NotListed, &word);
                }
                motivation
            })
            .collect::<Vec<_>>();
        let tags = self.labels(&mapping.tags).into_iter().map(|(_, tag)| tag).collect::<Vec<_>>();
        let consents = mapping.consents.iter().filter_map(|rule| self.consent(rule)).collect();
        Some(MappedRow {
            line: self.line,
            source_system: mapping.source_system.clone(),
            external_id: external_id?,
            source_time: source_time?,
            display_name,
            email,
            phone,
            region,
            city,
            channels,
            vehicles,
            motivations: once(motivations),
            tags: once(tags),
            consents,
            warnings: Vec::new(),
        })
    }

    /// The trimmed cell, or `None` where it says nothing.
    fn cell(&self, column: &str) -> Option<&'a str> {
        let text = parse::trim(self.cells.get(*self.columns.get(column)?)?);
        (!text.is_empty() && !self.mapping.file.treat_as_empty.contains(text)).then_some(text)
    }

    fn reject(&mut self, column: &str, flaw: Flaw, value: &str) {
        let value_shape = if value.is_empty() { String::new() } else { parse::shape(value, flaw) };
        self.rejects.push(Reject { line: self.line, column: column.to_owned(), reason: flaw.to_string(), value_shape });
    }

    fn optional<T>(&mut self, column: &str, parse: impl FnOnce(&str) -> Result<T, Flaw>) -> Option<T> {
        let text = self.cell(column)?;
        parse(text).map_err(|flaw| self.reject(column, flaw, text)).ok()
    }

    fn required<T>(&mut self, column: &str, parse: impl FnOnce(&str) -> Result<T, Flaw>) -> Option<T> {
        if self.cell(column).is_none() {
            self.reject(column, Flaw::Missing, "");
        }
        self.optional(column, parse)
    }

    fn text(&mut self, rule: &TextRule, parse: impl FnOnce(&str) -> Result<String, Flaw>) -> Option<String> {
        let column = rule.column.as_deref().unwrap_or_default();
        let text = rule.constant.as_deref().or_else(|| self.cell(column))?;
        let text = rule.values.get(text).map_or(text, String::as_str);
        parse(text).map_err(|flaw| self.reject(column, flaw, text)).ok()
    }

    fn name(&self, rule: &NameRule) -> Option<String> {
        let parts = |columns: &[String]| columns.iter().filter_map(|column| self.cell(column)).collect::<Vec<_>>();
        let plain = parts(&rule.columns);
        let joined = match &rule.cjk_columns {
            Some(columns) if plain.iter().all(|part| part.chars().all(parse::is_cjk)) => parts(columns).join(&rule.cjk_joiner),
            _ => plain.join(&rule.joiner),
        };
        (!joined.is_empty()).then_some(joined)
    }

    fn channels(&mut self) -> Vec<Channel> {
        let mut channels = Vec::new();
        for rule in &self.mapping.channels {
            let followers = rule.followers.as_ref().and_then(|column| Some((column, self.optional(column, parse::count)?)));
            match (self.cell(&rule.handle), followers) {
                (Some(handle), followers) => channels.push(Channel {
                    platform: rule.platform.clone(),
                    handle: parse::narrow(handle),
                    followers: followers.map(|(_, count)| count),
                }),
                (None, Some((column, _))) => self.warnings.push(Warning {
                    line: self.line,
                    column: column.clone(),
                    reason: "a number of followers without a handle",
                }),
                (None, None) => {}
            }
        }
        channels
    }

    fn vehicles(&mut self) -> Vec<Vehicle> {
        let mut vehicles = Vec::new();
        for rule in &self.mapping.vehicles {
            let model = rule.model.as_ref().and_then(|column| self.cell(column)).map(str::to_owned);
            let vin = rule.vin.as_ref().and_then(|column| self.optional(column, parse::vin));
            if model.is_some() || vin.is_some() {
                vehicles.push(Vehicle { model, vin });
            }
        }
        vehicles
    }

    /// Each label with the column that it came from.
    fn labels(&mut self, rules: &[LabelRule]) -> Vec<(String, String)> {
        let mut labels = Vec::new();
        for rule in rules {
            let column = rule.column.as_deref().unwrap_or_default();
            let Some(text) = rule.constant.as_deref().or_else(|| self.cell(column)) else {
                continue;
            };
            match (rule.values.get(text), rule.otherwise) {
                (Some(label), _) => labels.push((column.to_owned(), label.clone())),
                (None, _) if rule.constant.is_some() => labels.push((column.to_owned(), text.to_owned())),
                (None, Otherwise::Keep) => labels.push((column.to_owned(), text.to_owned())),
                (None, Otherwise::Ignore) => {}
                (None, Otherwise::Reject) => self.reject(column, Flaw::NotListed, text),
            }
        }
        labels
    }

    fn consent(&mut self, rule: &ConsentRule) -> Option<Consent> {
        if let Some(granted) = rule.constant {
            return Some(Consent { purpose: rule.purpose, granted });
        }
        let column = rule.column.as_deref()?;
        let text = self.cell(column)?;
        let granted = rule.granted.contains(text);
        if !granted && !rule.refused.contains(text) {
            self.reject(column, Flaw::NotListed, text);
            return None;
        }
        Some(Consent { purpose: rule.purpose, granted })
    }
}

/// Keeps the first of equal items; the lists are a handful long.
fn once<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}
