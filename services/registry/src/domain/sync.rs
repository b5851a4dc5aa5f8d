//! Members from several sources: for each field the write with the latest source time wins; of two writes of the same time the
//! one with the larger content hash; of two with the same content the source with the larger name is remembered. Where a field belongs to
//! a source, that one's writes come before all others', and rows of others are not taken. That is a total order on writes, and a field
//! keeps the largest it has seen, so rows may come in any order and any number of times.

use super::{
    consent::{self, Purpose},
    history::Before,
    member::ExternalIdentity,
    merge::{Taken, TakenField},
    name::named,
    ownership::Owners,
    presence::Presence,
    profile::{Field, Profile},
    suppression::Identifier,
    text::storable,
};
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::{
    clock::MAX_AHEAD,
    fault::{Violation, Violations},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The source of what callers write by CreateMember and UpdateMember.
pub const API_SOURCE: &str = "api";

/// When, and by whom, a field was last written. The content hash is that of the value, so it is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub time: DateTime<Utc>,
    pub source: String,
}

/// The stamps of the fields that were ever written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Provenance(BTreeMap<Field, Stamp>);

impl Provenance {
    /// Of a member that a caller creates.
    pub fn of_new(profile: &Profile, now: DateTime<Utc>) -> Self {
        let stamp = Stamp { time: now, source: API_SOURCE.to_owned() };
        Self(profile.known().into_iter().map(|field| (field, stamp.clone())).collect())
    }
}

/// A profile with the provenance of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub profile: Profile,
    pub provenance: Provenance,
}

/// One person as a source system knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub external_id: String,
    pub source_time: DateTime<Utc>,
    /// What is written: the known fields, and those to empty.
    fields: Vec<Field>,
    values: Profile,
    pub deleted: bool,
}

impl Row {
    /// `clear_fields` are emptied; naming an unknown one (FIELD_UNKNOWN) or one that also has a value (FIELD_CLEARED_AND_SET) is a
    /// violation, and so is a value or a cleared field of a deleted person (DELETED_WITH_VALUES).
    pub fn new(
        external_id: String,
        source_time: DateTime<Utc>,
        values: Profile,
        clear_fields: &[String],
        deleted: bool,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        violations.take(storable("external_id", &external_id));
        let mut fields = values.known();
        for (i, name) in clear_fields.iter().enumerate() {
            let broken = |rule, text| Violation::new(format!("clear_fields[{i}]"), rule, text);
            let named = Field::named(name);
            if named.is_empty() {
                violations.push(broken("FIELD_UNKNOWN", "must name a field of the profile, e.g. email"));
            } else if named.iter().any(|field| !field.is_empty(&values)) {
                violations.push(broken("FIELD_CLEARED_AND_SET", "must not name a field that has a value in the row"));
            } else {
                fields.extend(named);
            }
        }
        if deleted && !(fields.is_empty() && clear_fields.is_empty()) {
            let rule = "must not come with a profile or with fields to clear";
            violations.push(Violation::new("deleted", "DELETED_WITH_VALUES", rule));
        }
        violations.finish()?;
        Ok(Self { external_id, source_time, fields, values, deleted })
    }

    /// That the source no longer has a person.
    pub fn deletion(external_id: String, source_time: DateTime<Utc>) -> Self {
        Self { external_id, source_time, fields: Vec::new(), values: Profile::default(), deleted: true }
    }

    /// What it says of the identity.
    pub fn presence(&self) -> Presence {
        Presence { time: self.source_time, deleted: self.deleted }
    }

    /// By what the person of a source system is known.
    pub fn identifiers(&self, source_system: &str) -> impl Iterator<Item = Identifier> {
        let (source_system, external_id) = (source_system.to_owned(), self.external_id.clone());
        let identity = Identifier::Identity(ExternalIdentity { source_system, external_id });
        std::iter::once(identity).chain(Identifier::of_contact(&self.values.email, &self.values.phone))
    }

    /// Errors: SOURCE_TIME_AHEAD. A clock far ahead would shut out all later writes.
    pub fn check_clock(&self, now: DateTime<Utc>) -> Result<(), Violation> {
        let ahead = self.source_time - now;
        if ahead <= MAX_AHEAD {
            return Ok(());
        }
        let limit = MAX_AHEAD.num_minutes();
        let shape = format!("must be at most {limit} minutes ahead of the server's clock; it is {} ahead", ahead.num_minutes());
        Err(Violation::new("source_time", "SOURCE_TIME_AHEAD", shape))
    }
}

named! {
    /// What became of a row.
    Outcome {
        Created = "CREATED",
        /// A field changed, or the identity is back.
        Updated = "UPDATED",
        /// Every field that the row may write already had its value.
        Unchanged = "UNCHANGED",
        /// Nothing changed, and at least one field holds another, newer value; or of whom it deletes the source spoke later.
        Stale = "STALE",
        /// It broke a rule.
        Rejected = "REJECTED",
        /// Folded into the member that the row's own was merged into.
        Merged = "MERGED",
        /// The source no longer has the person.
        Deleted = "DELETED",
        /// The person was erased: nothing was kept.
        Suppressed = "SUPPRESSED",
    }
}

/// A row that was folded in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    pub outcome: Outcome,
    /// Fields of the row that belong to another source.
    pub ignored: Vec<Field>,
}

/// A member while the rows of a batch are folded into it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    pub record: Record,
    /// The profile that it began with.
    before: Profile,
    /// Fields that hold something else than in the beginning: one that was written twice and ends as it was is not among them.
    pub changed: BTreeSet<Field>,
    /// Whether any stamp moved; with [`Self::changed`] empty the values stand as they were.
    pub stamped: bool,
}

impl Person {
    pub fn new(record: Record) -> Self {
        Self { before: record.profile.clone(), record, ..Self::default() }
    }

    /// Folds a row of `source` in.
    pub fn fold(&mut self, row: &Row, source: &str, owners: &Owners) -> Fold {
        let (mut updated, mut stale, mut ignored) = (false, false, Vec::new());
        for &field in &row.fields {
            if owners.excludes(field, source) {
                ignored.push(field);
                continue;
            }
            let same = field.same(&row.values, &self.record.profile);
            if self.yields(field, &row.values, (row.source_time, source), owners) {
                self.write(field, &row.values, Stamp { time: row.source_time, source: source.to_owned() });
                updated |= !same;
            } else if !same {
                stale = true;
            }
        }
        let outcome = match (updated, stale) {
            (true, _) => Outcome::Updated,
            (false, true) => Outcome::Stale,
            (false, false) => Outcome::Unchanged,
        };
        Fold { outcome, ignored }
    }

    /// Whether a write is larger than the one that the field has.
    fn yields(&self, field: Field, values: &Profile, (time, source): (DateTime<Utc>, &str), owners: &Owners) -> bool {
        let Record { profile, provenance } = &self.record;
        provenance.0.get(&field).is_none_or(|stamp| {
            let owned = owners.owns(field, source).cmp(&owners.owns(field, &stamp.source));
            let order = owned.then(time.cmp(&stamp.time)).then_with(|| match field.same(values, profile) {
                true => source.cmp(&stamp.source),
                false => field.content_hash(values).cmp(&field.content_hash(profile)),
            });
            order.is_gt()
        })
    }

    /// Takes from another what was written there later, as if its writes had come here: what was taken, so that it can be given back.
    pub fn absorb(&mut self, other: &Record, owners: &Owners) -> Taken {
        let mut taken = Taken::new();
        for (&field, stamp) in &other.provenance.0 {
            if self.yields(field, &other.profile, (stamp.time, &stamp.source), owners) {
                let before = self.record.provenance.0.get(&field).cloned();
                self.write(field, &other.profile, stamp.clone());
                taken.insert(field, TakenField { before, taken: stamp.clone() });
            }
        }
        taken
    }

    /// Gives back what was taken and not written since; `befores` are the values that other ones took the place of.
    pub fn give_back(&mut self, taken: &Taken, befores: &HashMap<Field, Value>) -> Result<(), serde_json::Error> {
        for (&field, TakenField { before, taken }) in taken {
            if self.record.provenance.0.get(&field) != Some(taken) {
                continue;
            }
            let mut values = self.record.profile.clone();
            if let Some(content) = befores.get(&field) {
                field.put_content(content.clone(), &mut values)?;
            }
            self.write(field, &values, taken.clone());
            match before {
                Some(stamp) => self.record.provenance.0.insert(field, stamp.clone()),
                None => self.record.provenance.0.remove(&field),
            };
        }
        Ok(())
    }

    /// Writes `fields` in the name of a caller, who has the last word: the stamp is later than what it replaces even where that
    /// came from a clock ahead of ours.
    pub fn overwrite(&mut self, fields: impl IntoIterator<Item = Field>, values: &Profile, now: DateTime<Utc>) {
        for field in fields {
            let stamp = self.record.provenance.0.get(&field);
            let time = stamp.map_or(now, |stamp| now.max(stamp.time + TimeDelta::microseconds(1)));
            self.write(field, values, Stamp { time, source: API_SOURCE.to_owned() });
        }
    }

    /// Whether the names by which it is found changed.
    pub fn is_renamed(&self) -> bool {
        [Field::DisplayName, Field::Channels].iter().any(|field| self.changed.contains(field))
    }

    /// What was withdrawn or given since the beginning: true for given.
    pub fn consent_changes(&self) -> Vec<(Purpose, bool)> {
        consent::changes(&self.before.consents, &self.record.profile.consents)
    }

    /// The changed fields with what they held.
    pub fn befores(&self) -> Vec<Before> {
        self.changed.iter().map(|field| Before::of(*field, &self.before)).collect()
    }

    fn write(&mut self, field: Field, values: &Profile, stamp: Stamp) {
        self.record.provenance.0.insert(field, stamp);
        self.stamped = true;
        field.copy(values, &mut self.record.profile);
        match field.same(&self.before, &self.record.profile) {
            true => self.changed.remove(&field),
            false => self.changed.insert(field),
        };
    }
}

#[cfg(test)]
mod tests;
