//! What is told of members to those outside, and where a reader of it stands.

use super::{member::Member, name::named};
use chrono::{DateTime, Utc};
use koc_chassis::ids::MemberId;
use uuid::Uuid;

named! {
    /// What happened to a member.
    EventKind {
        /// Nothing: it is as it is.
        Snapshot = "SNAPSHOT",
        Created = "CREATED",
        Updated = "UPDATED",
        Suspended = "SUSPENDED",
        Reinstated = "REINSTATED",
        Merged = "MERGED",
        Unmerged = "UNMERGED",
        TierChanged = "TIER_CHANGED",
        PointsChanged = "POINTS_CHANGED",
        TitleChanged = "TITLE_CHANGED",
        BadgeAwarded = "BADGE_AWARDED",
        BadgeRevoked = "BADGE_REVOKED",
        Erased = "ERASED",
    }
}

/// What stands under a member's id when an event of it is read.
#[derive(Debug, Clone, PartialEq)]
pub enum Now {
    Member(Box<Member>),
    MergedInto(MemberId),
    /// Nothing is kept.
    Erased,
}

/// Something that happened to a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The fact; None in a snapshot.
    pub fact: Option<Uuid>,
    /// Its position, or that of the snapshot.
    pub position: i64,
    pub kind: EventKind,
    pub member: MemberId,
    pub changed_fields: Vec<String>,
    pub time: DateTime<Utc>,
}

/// What happened, and what is there by now.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub told: Told,
    pub now: Now,
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The history that the position is of.
    pub epoch: Uuid,
    /// Everything up to it was read, or is in the snapshot.
    pub position: i64,
    /// The fact there, by which it shows that history went on differently; None at the start, and where it is not kept any more.
    pub fact: Option<Uuid>,
    /// Of a snapshot that is not over: the last member that was read, or nil.
    pub snapshot: Option<Uuid>,
}

impl Place {
    /// As text for a token.
    pub fn key(&self) -> String {
        let id = |id: Option<Uuid>| id.map(|id| id.simple().to_string()).unwrap_or_default();
        format!("{}.{}.{}.{}", self.epoch.simple(), self.position, id(self.fact), id(self.snapshot))
    }

    /// The place of such a text; None for any other.
    pub fn of_key(key: &str) -> Option<Self> {
        let id = |text: &str| match text {
            "" => Some(None),
            text => Uuid::try_parse(text).ok().map(Some),
        };
        let mut parts = key.split('.');
        let mut next = || parts.next();
        let place = Self {
            epoch: id(next()?)??,
            position: next()?.parse().ok().filter(|position| *position >= 0)?,
            fact: id(next()?)?,
            snapshot: id(next()?)?,
        };
        next().is_none().then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_token_and_nothing_else_is_one() {
        let (epoch, fact) = (Uuid::now_v7(), Some(Uuid::now_v7()));
        for place in [
            Place { epoch, position: 0, fact: None, snapshot: None },
            Place { epoch, position: i64::MAX, fact, snapshot: Some(Uuid::nil()) },
            Place { epoch, position: 7, fact, snapshot: None },
        ] {
            assert_eq!(Place::of_key(&place.key()), Some(place));
        }
        let good = Place { epoch, position: 7, fact, snapshot: None }.key();
        for bad in ["", "7", "...", &format!("{good}."), &good[1..], &good.replace(".7.", ".-7."), &good.replace(".7.", ".x.")] {
            assert_eq!(Place::of_key(bad), None, "{bad}");
        }
    }
}
