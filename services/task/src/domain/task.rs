//! Tasks: a brief put to work for a target group.

use super::{BriefId, EnvelopeId, TaskId};
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    money::Money,
};

/// How far ahead a delivery deadline may lie.
pub const MAX_DELIVERY_DAYS: i64 = 365;
/// How long a review may take when the task does not say.
pub const DEFAULT_REVIEW_DAYS: i32 = 7;
/// How long a hold lasts beyond the last review, so that settling has time.
const HOLD_MARGIN_DAYS: i64 = 7;
/// The longest hold that the budget service gives.
const MAX_HOLD_DAYS: i64 = 400;

/// A brief put to work.
#[derive(Debug, Clone)]
pub struct Task {
    pub id: TaskId,
    pub programme: ProgrammeId,
    pub display_name: String,
    pub state: TaskState,
    pub brief: BriefId,
    pub brief_revision: i32,
    pub target: Target,
    /// How many assignments may be open or completed.
    pub capacity: i32,
    /// How many are.
    pub filled: i32,
    /// Of one assignment.
    pub reward: Money,
    pub envelope: EnvelopeId,
    pub deadlines: Deadlines,
    pub create_time: DateTime<Utc>,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Draft,
    Published,
    Paused,
    Closed,
    Cancelled,
}

impl TaskState {
    pub const ALL: [Self; 5] = [Self::Draft, Self::Published, Self::Paused, Self::Closed, Self::Cancelled];

    pub fn name(self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Published => "PUBLISHED",
            Self::Paused => "PAUSED",
            Self::Closed => "CLOSED",
            Self::Cancelled => "CANCELLED",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Why a task cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    #[error("the task is {}", .state.name())]
    State { state: TaskState },
    #[error("all {capacity} places of the task are filled")]
    Full { capacity: i32 },
    #[error("offers closed at {deadline}")]
    OfferClosed { deadline: DateTime<Utc> },
    #[error("the member is suspended")]
    Suspended,
    #[error("the member does not match the task: {}", .0.iter().map(|m| m.name()).collect::<Vec<_>>().join(", "))]
    NotEligible(Vec<Mismatch>),
}

impl Task {
    /// DRAFT to PUBLISHED.
    pub fn publish(self) -> Result<Self, TaskError> {
        match self.state {
            TaskState::Draft => Ok(Self { state: TaskState::Published, ..self }),
            state => Err(TaskError::State { state }),
        }
    }

    /// Takes a place for `candidate`, when there is one and the member is one the task is for.
    pub fn seat(self, candidate: &Candidate, now: DateTime<Utc>) -> Result<Self, TaskError> {
        if self.state != TaskState::Published {
            return Err(TaskError::State { state: self.state });
        }
        if now >= self.deadlines.offer {
            return Err(TaskError::OfferClosed { deadline: self.deadlines.offer });
        }
        if self.filled >= self.capacity {
            return Err(TaskError::Full { capacity: self.capacity });
        }
        if candidate.participation == Participation::Suspended {
            return Err(TaskError::Suspended);
        }
        let mismatches = self.target.mismatches(candidate);
        if !mismatches.is_empty() {
            return Err(TaskError::NotEligible(mismatches));
        }
        Ok(Self { filled: self.filled + 1, ..self })
    }
}

/// For whom a task is; an empty list means no restriction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    pub tier_ids: Vec<String>,
    /// ISO 3166-2.
    pub region_codes: Vec<String>,
}

/// What the registry says of a member, as far as it matters for an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Whom the id leads to, when it is that of a member that was merged.
    pub member: MemberId,
    /// The member's when it was asked for.
    pub version: i64,
    pub tier_id: String,
    /// ISO 3166-2; None when unknown.
    pub region_code: Option<String>,
    pub participation: Participation,
}

/// Whether a member may take what is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Participation {
    /// Consent was given by joining and stands.
    Given,
    /// The consent was withdrawn.
    Withdrawn,
    /// The member is suspended.
    Suspended,
}

/// What of a task's target a member does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    Tier,
    Region,
    Participation,
}

impl Mismatch {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tier => "TIER",
            Self::Region => "REGION",
            Self::Participation => "PARTICIPATION",
        }
    }
}

impl Target {
    /// All that does not match. An unknown region matches no restriction.
    pub fn mismatches(&self, candidate: &Candidate) -> Vec<Mismatch> {
        let among = |list: &[String], value: Option<&String>| list.is_empty() || value.is_some_and(|v| list.contains(v));
        let rules = [
            (Mismatch::Tier, among(&self.tier_ids, Some(&candidate.tier_id))),
            (Mismatch::Region, among(&self.region_codes, candidate.region_code.as_ref())),
            (Mismatch::Participation, candidate.participation == Participation::Given),
        ];
        rules.into_iter().filter(|(_, matches)| !matches).map(|(mismatch, _)| mismatch).collect()
    }
}

/// Until when what must have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until when an offer can be accepted.
    pub offer: DateTime<Utc>,
    /// Until when it must be delivered.
    pub delivery: DateTime<Utc>,
    /// How long a review may take.
    pub review_days: i32,
}

/// What is wrong with deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineFlaw {
    OfferPassed,
    DeliveryNotAfterOffer,
    DeliveryTooFar,
}

impl Deadlines {
    pub fn parse(
        offer: DateTime<Utc>,
        delivery: DateTime<Utc>,
        review_days: i32,
        now: DateTime<Utc>,
    ) -> Result<Self, Vec<DeadlineFlaw>> {
        let rules = [
            (DeadlineFlaw::OfferPassed, offer > now),
            (DeadlineFlaw::DeliveryNotAfterOffer, delivery > offer),
            (DeadlineFlaw::DeliveryTooFar, delivery - now <= TimeDelta::days(MAX_DELIVERY_DAYS)),
        ];
        let flaws: Vec<_> = rules.into_iter().filter(|(_, holds)| !holds).map(|(flaw, _)| flaw).collect();
        let review_days = if review_days == 0 { DEFAULT_REVIEW_DAYS } else { review_days };
        if flaws.is_empty() { Ok(Self { offer, delivery, review_days }) } else { Err(flaws) }
    }

    /// How long money must be held from `now`: beyond the delivery, its review and a week; 1 second to 400 days.
    pub fn hold_seconds(&self, now: DateTime<Utc>) -> i64 {
        let until = self.delivery + TimeDelta::days(i64::from(self.review_days) + HOLD_MARGIN_DAYS);
        (until - now).num_seconds().clamp(1, TimeDelta::days(MAX_HOLD_DAYS).num_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koc_chassis::money::Currency;
    use uuid::Uuid;

    const NOW: DateTime<Utc> = DateTime::from_timestamp(1_767_225_600, 0).expect("in range");

    fn deadlines() -> Deadlines {
        Deadlines::parse(NOW + TimeDelta::days(7), NOW + TimeDelta::days(30), 0, NOW).expect("sound")
    }

    fn task() -> Task {
        Task {
            id: Uuid::nil().into(),
            programme: Uuid::nil().into(),
            display_name: "launch".into(),
            state: TaskState::Published,
            brief: Uuid::nil().into(),
            brief_revision: 1,
            target: Target { tier_ids: vec!["CORE".into()], region_codes: vec!["CN-GD".into()] },
            capacity: 1,
            filled: 0,
            reward: Money::new(100, Currency::from_code("CNY").expect("CNY is a currency")),
            envelope: Uuid::nil().into(),
            deadlines: deadlines(),
            create_time: NOW,
        }
    }

    fn candidate() -> Candidate {
        let (tier_id, region_code) = ("CORE".into(), Some("CN-GD".into()));
        Candidate { member: Uuid::nil().into(), version: 1, tier_id, region_code, participation: Participation::Given }
    }

    #[test]
    fn a_place_is_taken_once_per_seat() {
        let full = task().seat(&candidate(), NOW).expect("a place is free");
        assert_eq!(full.filled, 1);
        assert_eq!(full.seat(&candidate(), NOW).expect_err("full"), TaskError::Full { capacity: 1 });
    }

    #[test]
    fn everything_that_does_not_match_is_named() {
        let (tier_id, participation) = ("BASE".into(), Participation::Withdrawn);
        let other = Candidate { tier_id, region_code: None, participation, ..candidate() };
        let refused = task().seat(&other, NOW).expect_err("not eligible");
        assert_eq!(refused, TaskError::NotEligible(vec![Mismatch::Tier, Mismatch::Region, Mismatch::Participation]));
        assert_eq!(Target::default().mismatches(&Candidate { participation: Participation::Given, ..other }), []);
    }

    #[test]
    fn who_is_suspended_gets_no_place() {
        let suspended = Candidate { participation: Participation::Suspended, ..candidate() };
        assert_eq!(task().seat(&suspended, NOW).expect_err("suspended"), TaskError::Suspended);
    }

    #[test]
    fn only_a_published_task_whose_offers_are_open_takes_members() {
        for state in TaskState::ALL.into_iter().filter(|s| *s != TaskState::Published) {
            let closed = Task { state, ..task() };
            assert_eq!(closed.seat(&candidate(), NOW).expect_err("not published"), TaskError::State { state });
        }
        let deadline = deadlines().offer;
        assert_eq!(task().seat(&candidate(), deadline).expect_err("late"), TaskError::OfferClosed { deadline });
    }

    #[test]
    fn a_task_is_published_once() {
        let published = Task { state: TaskState::Draft, ..task() }.publish().expect("a draft");
        assert_eq!(published.state, TaskState::Published);
        assert_eq!(published.publish().expect_err("twice"), TaskError::State { state: TaskState::Published });
    }

    #[test]
    fn deadlines_out_of_order_are_all_named() {
        let flaws = Deadlines::parse(NOW, NOW - TimeDelta::days(1), 5, NOW).expect_err("both wrong");
        assert_eq!(flaws, [DeadlineFlaw::OfferPassed, DeadlineFlaw::DeliveryNotAfterOffer]);
        let far = Deadlines::parse(NOW + TimeDelta::days(1), NOW + TimeDelta::days(366), 5, NOW).expect_err("far");
        assert_eq!(far, [DeadlineFlaw::DeliveryTooFar]);
    }

    #[test]
    fn a_hold_outlives_the_delivery_by_the_review_and_a_week_within_what_the_budget_gives() {
        let day = 24 * 60 * 60;
        assert_eq!(deadlines().hold_seconds(NOW), (30 + 7 + 7) * day);
        assert_eq!(deadlines().hold_seconds(NOW + TimeDelta::days(100)), 1);
        let longest = Deadlines::parse(NOW + TimeDelta::days(1), NOW + TimeDelta::days(365), 20, NOW).expect("sound");
        assert_eq!(longest.hold_seconds(NOW), (365 + 20 + 7) * day);
        assert_eq!(longest.hold_seconds(NOW - TimeDelta::days(60)), 400 * day);
    }

    #[test]
    fn each_state_is_found_by_its_name() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::from_name(state.name()), Some(state));
        }
        assert_eq!(TaskState::from_name("OPEN"), None);
    }
}
