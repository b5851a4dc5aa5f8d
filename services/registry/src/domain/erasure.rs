//! Erasures: persons whose data was destroyed, and who has to follow.

use super::name::named;
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::ids::MemberId;
use std::collections::BTreeMap;

koc_chassis::typed_id! {
    /// One erasure.
    ErasureId,
}

named! {
    /// Why a person is erased.
    Ground {
        Requested = "REQUESTED",
        ConsentWithdrawn = "CONSENT_WITHDRAWN",
        NotNeeded = "NOT_NEEDED",
        Unlawful = "UNLAWFUL",
        LegalDuty = "LEGAL_DUTY",
    }
}

/// How many rows of each kind were destroyed.
pub type Erased = BTreeMap<String, i64>;

/// What every erasure is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who has to follow.
    pub consumers: Vec<String>,
    /// How long they have.
    pub within: TimeDelta,
}

/// A consumer that has to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duty {
    pub consumer: String,
    /// When it said that it has, and what it destroyed.
    pub done: Option<(DateTime<Utc>, Erased)>,
}

/// A person whose data was destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    pub id: ErasureId,
    /// Of merged members the one that the others led to.
    pub member: MemberId,
    pub members: Vec<MemberId>,
    pub ground: Ground,
    /// In the registry.
    pub erased: Erased,
    pub actor: String,
    pub erase_time: DateTime<Utc>,
    pub deadline: DateTime<Utc>,
    /// When the last one had followed.
    pub complete_time: Option<DateTime<Utc>>,
    /// Those that have not followed come first.
    pub duties: Vec<Duty>,
}

impl Erasure {
    /// One that begins now. Where nobody has to follow it is complete.
    pub fn begin(
        member: MemberId,
        members: Vec<MemberId>,
        ground: Ground,
        erased: Erased,
        actor: String,
        now: DateTime<Utc>,
        terms: &Terms,
    ) -> Self {
        let mut consumers = terms.consumers.clone();
        consumers.sort_unstable();
        consumers.dedup();
        Self {
            id: ErasureId::new(),
            member,
            members,
            ground,
            erased,
            actor,
            erase_time: now,
            deadline: now + terms.within,
            complete_time: consumers.is_empty().then_some(now),
            duties: consumers.into_iter().map(|consumer| Duty { consumer, done: None }).collect(),
        }
    }

    pub fn is_overdue(&self, now: DateTime<Utc>) -> bool {
        self.complete_time.is_none() && self.deadline < now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(consumers: &[&str], now: DateTime<Utc>) -> Erasure {
        let terms = Terms { consumers: consumers.iter().map(|c| (*c).to_owned()).collect(), within: TimeDelta::hours(72) };
        let member = MemberId::new();
        Erasure::begin(member, vec![member], Ground::Requested, Erased::new(), "dpo".into(), now, &terms)
    }

    #[test]
    fn it_is_overdue_after_the_deadline_and_not_at_it() {
        let now = DateTime::UNIX_EPOCH;
        let open = begin(&["task", "budget", "task"], now);
        let names: Vec<_> = open.duties.iter().map(|duty| duty.consumer.as_str()).collect();
        assert_eq!((names, open.complete_time), (vec!["budget", "task"], None));
        assert!(!open.is_overdue(now + TimeDelta::hours(72)));
        assert!(open.is_overdue(now + TimeDelta::hours(72) + TimeDelta::microseconds(1)));
    }

    #[test]
    fn where_nobody_follows_it_is_done_at_once() {
        let now = DateTime::UNIX_EPOCH;
        let done = begin(&[], now);
        assert_eq!(done.complete_time, Some(now));
        assert!(!done.is_overdue(now + TimeDelta::days(1_000)));
    }
}
