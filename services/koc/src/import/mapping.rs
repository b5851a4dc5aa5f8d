//! The mapping file: which column of an export is which field of a member. TOML; a key that is not known is refused.
//!
//! `sample/hubspot.toml` of this crate shows every table.

use std::collections::{BTreeMap, BTreeSet};

use chrono::format::{Item, StrftimeItems};
use chrono_tz::Tz;
use serde::Deserialize;

use super::country::{self, Country};

/// Why a mapping file is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error("the mapping file is not valid: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("the mapping file is not valid: {0}")]
    Rule(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapping {
    /// The CRM's name in (source_system, external_id).
    pub(super) source_system: String,
    #[serde(default)]
    pub(super) file: FileRule,
    pub(super) external_id: ColumnRule,
    pub(super) source_time: TimeRule,
    pub(super) display_name: Option<NameRule>,
    pub(super) email: Option<TextRule>,
    pub(super) phone: Option<PhoneRule>,
    pub(super) region: Option<TextRule>,
    pub(super) city: Option<TextRule>,
    #[serde(default, rename = "channel")]
    pub(super) channels: Vec<ChannelRule>,
    #[serde(default, rename = "vehicle")]
    pub(super) vehicles: Vec<VehicleRule>,
    #[serde(default, rename = "motivation")]
    pub(super) motivations: Vec<LabelRule>,
    #[serde(default, rename = "tag")]
    pub(super) tags: Vec<LabelRule>,
    #[serde(default, rename = "consent")]
    pub(super) consents: Vec<ConsentRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileRule {
    /// One ASCII character; a comma where absent.
    pub(super) delimiter: Option<char>,
    /// Cells that mean nothing, such as `N/A` or `无`, compared after trimming.
    pub(super) treat_as_empty: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ColumnRule {
    pub(super) column: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeRule {
    pub(super) column: String,
    /// IANA name; holds where a format has no offset.
    #[serde(deserialize_with = "time_zone")]
    pub(super) time_zone: Tz,
    /// Tried in this order.
    pub(super) formats: Vec<TimeFormat>,
}

/// A name from one or several columns. Where all parts are written in Chinese, Japanese or Korean letters the `cjk_` pair
/// holds, if given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameRule {
    pub(super) columns: Vec<String>,
    #[serde(default = "space")]
    pub(super) joiner: String,
    pub(super) cjk_columns: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cjk_joiner: String,
}

/// A text from a column or the same for every row; `values` replaces what it lists and leaves the rest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextRule {
    pub(super) column: Option<String>,
    pub(super) constant: Option<String>,
    #[serde(default)]
    pub(super) values: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PhoneRule {
    pub(super) column: String,
    /// Where a number without an international prefix belongs; ISO 3166-1 alpha-2.
    #[serde(deserialize_with = "country::deserialize")]
    pub(super) default_country: Country,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelRule {
    pub(super) platform: String,
    pub(super) handle: String,
    pub(super) followers: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VehicleRule {
    pub(super) model: Option<String>,
    pub(super) vin: Option<String>,
}

/// Labels (tags, motivations) from a column, or one for every row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelRule {
    pub(super) column: Option<String>,
    pub(super) constant: Option<String>,
    #[serde(default)]
    pub(super) values: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) otherwise: Otherwise,
}

/// What becomes of a value that `values` does not list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Otherwise {
    #[default]
    Reject,
    /// Taken as it stands.
    Keep,
    Ignore,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsentRule {
    pub(super) purpose: Purpose,
    pub(super) column: Option<String>,
    /// The same answer for every row.
    pub(super) constant: Option<bool>,
    #[serde(default)]
    pub(super) granted: BTreeSet<String>,
    #[serde(default)]
    pub(super) refused: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Purpose {
    Participation,
    Profiling,
    ContentUse,
    Contact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Motivation {
    Helping,
    Mastery,
    Gathering,
    Recognition,
    Reward,
}

/// A `strftime` format known to be well formed.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TimeFormat(String);

impl TimeFormat {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TimeFormat {
    type Error = String;

    fn try_from(format: String) -> Result<Self, String> {
        if format.is_empty() || StrftimeItems::new(&format).any(|item| matches!(item, Item::Error)) {
            return Err(format!("{format:?} is not a strftime format, such as %Y-%m-%d %H:%M:%S"));
        }
        Ok(Self(format))
    }
}

/// Reads an IANA name.
pub(crate) fn time_zone<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map_err(|_| serde::de::Error::custom(format!("{name:?} is not an IANA time zone")))
}

fn space() -> String {
    " ".to_owned()
}

impl Mapping {
    /// Parses and checks a mapping file.
    pub(crate) fn parse(text: &str) -> Result<Self, MappingError> {
        let mapping: Self = toml::from_str(text)?;
        mapping.check().map_err(MappingError::Rule)?;
        Ok(mapping)
    }

    pub(crate) fn source_system(&self) -> &str {
        &self.source_system
    }

    /// The column that a field of the registry's rows came from; None where several may be its source.
    pub(crate) fn column_of(&self, field: &str) -> Option<&str> {
        match field {
            "external_id" => Some(&self.external_id.column),
            "source_time" => Some(&self.source_time.column),
            "profile.email" => self.email.as_ref()?.column.as_deref(),
            "profile.phone" => Some(&self.phone.as_ref()?.column),
            "profile.region_code" => self.region.as_ref()?.column.as_deref(),
            "profile.city" => self.city.as_ref()?.column.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn delimiter(&self) -> u8 {
        self.file.delimiter.and_then(|c| u8::try_from(c).ok()).unwrap_or(b',')
    }

    /// Every column that the mapping reads, each once, in a stable order.
    pub(super) fn columns(&self) -> BTreeSet<&str> {
        let mut columns = vec![Some(&self.external_id.column), Some(&self.source_time.column)];
        if let Some(name) = &self.display_name {
            columns.extend(name.columns.iter().chain(name.cjk_columns.iter().flatten()).map(Some));
        }
        for text in [&self.email, &self.region, &self.city].into_iter().flatten() {
            columns.push(text.column.as_ref());
        }
        columns.push(self.phone.as_ref().map(|phone| &phone.column));
        for channel in &self.channels {
            columns.extend([Some(&channel.handle), channel.followers.as_ref()]);
        }
        for vehicle in &self.vehicles {
            columns.extend([vehicle.model.as_ref(), vehicle.vin.as_ref()]);
        }
        columns.extend(self.motivations.iter().chain(&self.tags).map(|label| label.column.as_ref()));
        columns.extend(self.consents.iter().map(|consent| consent.column.as_ref()));
        columns.into_iter().flatten().map(String::as_str).collect()
    }

    /// Checks what the types cannot say.
    fn check(&self) -> Result<(), String> {
        if self.source_system.trim().is_empty() {
            return Err("source_system is empty".into());
        }
        if self.file.delimiter.is_some_and(|c| !c.is_ascii() || matches!(c, '"' | '\r' | '\n')) {
            return Err("file.delimiter must be one ASCII character other than a quote or a line end".into());
        }
        if self.source_time.formats.is_empty() {
            return Err("source_time.formats is empty".into());
        }
        if self.display_name.as_ref().is_some_and(|name| name.columns.is_empty()) {
            return Err("display_name.columns is empty".into());
        }
        let texts = [("email", &self.email), ("region", &self.region), ("city", &self.city)];
        for (table, text) in texts.iter().filter_map(|(table, text)| Some((table, text.as_ref()?))) {
            one_source(table, text.column.is_some(), text.constant.is_some())?;
        }
        if self.vehicles.iter().any(|vehicle| vehicle.model.is_none() && vehicle.vin.is_none()) {
            return Err("a vehicle table names neither model nor vin".into());
        }
        for (table, labels) in [("tag", &self.tags), ("motivation", &self.motivations)] {
            for label in labels {
                one_source(table, label.column.is_some(), label.constant.is_some())?;
            }
        }
        for label in &self.motivations {
            for word in label.values.values().chain(&label.constant) {
                Motivation::from_word(word).ok_or_else(|| format!("{word:?} is not a motivation"))?;
            }
        }
        for consent in &self.consents {
            one_source("consent", consent.column.is_some(), consent.constant.is_some())?;
            if consent.column.is_some() && consent.granted.is_empty() && consent.refused.is_empty() {
                return Err("a consent table lists no value as granted or refused".into());
            }
            if !consent.granted.is_disjoint(&consent.refused) {
                return Err("a consent table lists one value as granted and as refused".into());
            }
        }
        Ok(())
    }
}

impl Motivation {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "HELPING" => Self::Helping,
            "MASTERY" => Self::Mastery,
            "GATHERING" => Self::Gathering,
            "RECOGNITION" => Self::Recognition,
            "REWARD" => Self::Reward,
            _ => return None,
        })
    }
}

fn one_source(table: &str, column: bool, constant: bool) -> Result<(), String> {
    if column == constant {
        return Err(format!("{table} needs either a column or a constant"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
