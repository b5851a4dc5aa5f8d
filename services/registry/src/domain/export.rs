//! Exports of all that is held of a person.

use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::ids::MemberId;

koc_chassis::typed_id! {
    /// One export.
    ExportId,
}

/// The registry's own name among those who hold something.
pub const REGISTRY: &str = "registry";
/// How long the others have.
const ANSWER_WITHIN: TimeDelta = TimeDelta::hours(1);
/// How long an export is kept.
const KEPT_FOR: TimeDelta = TimeDelta::days(7);

/// Who holds something of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    /// Of its document; 0 before it is whole.
    pub parts: i32,
}

/// An export of all that is held of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    pub id: ExportId,
    /// Of merged members the one that the others lead to.
    pub member: MemberId,
    pub members: Vec<MemberId>,
    pub actor: String,
    pub request_time: DateTime<Utc>,
    pub deadline: DateTime<Utc>,
    pub expire_time: DateTime<Utc>,
    pub holders: Vec<Holder>,
}

impl Export {
    /// One that begins now, of what the registry and these hold.
    pub fn begin(member: MemberId, members: Vec<MemberId>, actor: String, now: DateTime<Utc>, others: &[String]) -> Self {
        let mut names: Vec<String> = others.iter().cloned().chain([REGISTRY.to_owned()]).collect();
        names.sort_unstable();
        names.dedup();
        Self {
            id: ExportId::new(),
            member,
            members,
            actor,
            request_time: now,
            deadline: now + ANSWER_WITHIN,
            expire_time: now + KEPT_FOR,
            holders: names.into_iter().map(|name| Holder { name, parts: 0 }).collect(),
        }
    }

    pub fn is_complete(&self) -> bool {
        self.holders.iter().all(|holder| holder.parts > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_complete_when_every_holder_has_given_its_document() {
        let member = MemberId::new();
        let others = ["task", "budget", "task"].map(str::to_owned);
        let mut export = Export::begin(member, vec![member], "clerk".into(), DateTime::UNIX_EPOCH, &others);
        let names: Vec<_> = export.holders.iter().map(|holder| holder.name.as_str()).collect();
        assert_eq!(names, ["budget", "registry", "task"]);
        for place in 0..3 {
            assert!(!export.is_complete());
            export.holders[place].parts = 1;
        }
        assert!(export.is_complete());
        assert_eq!((export.expire_time - export.request_time).num_days(), 7);
    }
}
