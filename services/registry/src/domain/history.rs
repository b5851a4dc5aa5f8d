//! What changed of a member, version by version.

use super::{
    member::Member,
    name::named,
    profile::{Field, Profile},
    sync::API_SOURCE,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::MemberId;
use serde_json::Value;

/// Paths of what is no part of the profile.
pub const TRUST_LEVEL: &str = "trust_level";
pub const TIER_ID: &str = "tier_id";
pub const STATE: &str = "state";
pub const VALUE_SCORES: &str = "value_scores";

named! {
    /// What was done.
    ChangeKind {
        Created = "CREATED",
        Updated = "UPDATED",
        Suspended = "SUSPENDED",
        Reinstated = "REINSTATED",
        /// It was merged into the other.
        MergedInto = "MERGED_INTO",
        /// The other was merged into it.
        TookIn = "TOOK_IN",
        /// Its own merge was undone.
        Unmerged = "UNMERGED",
        /// That of the other was.
        GaveBack = "GAVE_BACK",
        /// Its data was destroyed, with what earlier changes held.
        Erased = "ERASED",
    }
}

/// A field, and what it held before. Nothing is kept of what was empty before all changes, nor of scores, which have a record of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    pub path: String,
    pub content: Option<Value>,
}

impl Before {
    pub fn of(field: Field, profile: &Profile) -> Self {
        Self { path: field.own_path(), content: Some(field.content(profile)) }
    }

    pub fn named(path: &str, name: &str) -> Self {
        Self { path: path.to_owned(), content: Some(Value::from(name)) }
    }

    pub fn unkept(path: impl Into<String>) -> Self {
        Self { path: path.into(), content: None }
    }
}

/// A change that is to be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub member: MemberId,
    /// The member's, after the change.
    pub version: i64,
    pub kind: ChangeKind,
    /// Where the values came from.
    pub source: String,
    pub fields: Vec<Before>,
    /// Of a merge.
    pub other: Option<MemberId>,
    pub reason: Option<String>,
}

impl Change {
    /// By a caller.
    pub fn by_api(member: MemberId, version: i64, kind: ChangeKind, fields: Vec<Before>) -> Self {
        Self { member, version, kind, source: API_SOURCE.to_owned(), fields, other: None, reason: None }
    }
}

/// A change as it was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub version: i64,
    pub kind: ChangeKind,
    pub source: String,
    pub fields: Vec<KeptField>,
    pub other: Option<MemberId>,
    pub reason: Option<String>,
    pub actor: String,
    pub time: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct KeptField {
    pub path: String,
    pub before: Option<Value>,
    /// What stood before the next change of the field; None when it has not changed since.
    pub next: Option<Value>,
}

impl KeptField {
    /// Before and after the change, for the member as it is now; None where nothing was, or nothing is kept.
    pub fn values(self, member: &Member) -> (Option<Value>, Option<Value>) {
        let after = self.next.or_else(|| present(member, &self.path));
        (self.before.filter(|value| !is_empty(value)), after.filter(|value| !is_empty(value)))
    }
}

fn present(member: &Member, path: &str) -> Option<Value> {
    match path {
        TRUST_LEVEL => Some(Value::from(member.trust_level.name())),
        TIER_ID => Some(Value::from(member.tier_id.as_str())),
        STATE => Some(Value::from(member.state.name())),
        _ => Field::of_own_path(path).map(|field| field.content(&member.profile)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Whether a field tells something of the person: what it held is shown to those only who may see that.
pub fn is_personal(path: &str) -> bool {
    match Field::of_own_path(path) {
        Some(field) => field.is_personal(),
        None => false,
    }
}
