//! How far a verification is: kept beside it, so that it goes on there after any interruption.
//!
//! Each part of it sees the database as of one instant of its own. That is enough while the ledger grows, because entries and links never
//! change: what was walked stays walked, and what a row says is compared with its entries as of the instant at which the last of them is
//! read. So no entry that came meanwhile is an alarm, and none that was there at the start is missed.

use super::{ChainAudit, EnvelopeAudit, Finding};
use crate::{
    domain::ledger::Hash,
    ids::{EnvelopeId, MemberId, ProgrammeId, ReservationId, VerificationId},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub links: i64,
    pub entries: i64,
    pub reservations: i64,
    pub limits: i64,
}

/// What comes next. The chain is first: it names a changed entry most closely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Place {
    /// The chain up to its length at the start. Later links are left to the next verification.
    Chain {
        until: i64,
    },
    /// The envelopes by id, and the entries of each in its order.
    Envelopes {
        after: Option<EnvelopeId>,
        open: Option<EnvelopeAudit>,
    },
    /// The reservations by id.
    Reservations {
        after: Option<ReservationId>,
    },
    /// The members' limits by member and start.
    Limits {
        after: Option<(MemberId, DateTime<Utc>)>,
    },
    End,
}

/// A verification's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    pub place: Place,
    pub chain: ChainAudit,
    pub counts: Counts,
}

impl Course {
    /// Of a ledger whose chain has `links` links now.
    pub fn new(links: i64) -> Self {
        Self { place: Place::Chain { until: links }, chain: ChainAudit::default(), counts: Counts::default() }
    }

    /// The hash of the last link that was verified.
    pub fn head(&self) -> &Hash {
        self.chain.head()
    }

    pub fn is_at_end(&self) -> bool {
        self.place == Place::End
    }

    /// What is being verified, in a word.
    pub fn step(&self) -> &'static str {
        match self.place {
            Place::Chain { .. } => "chain",
            Place::Envelopes { .. } => "envelopes",
            Place::Reservations { .. } => "reservations",
            Place::Limits { .. } => "limits",
            Place::End => "end",
        }
    }
}

text_enum! {
    /// The name of a verification's state.
    VerificationStage {
        Running = "RUNNING",
        Passed = "PASSED",
        Failed = "FAILED",
        /// A person ended it.
        Cancelled = "CANCELLED",
    }
}

/// Where a verification stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerificationState {
    Running,
    Passed { end_time: DateTime<Utc> },
    Failed { end_time: DateTime<Utc>, finding: Finding },
    Cancelled { end_time: DateTime<Utc> },
}

impl VerificationState {
    pub fn stage(&self) -> VerificationStage {
        match self {
            Self::Running => VerificationStage::Running,
            Self::Passed { .. } => VerificationStage::Passed,
            Self::Failed { .. } => VerificationStage::Failed,
            Self::Cancelled { .. } => VerificationStage::Cancelled,
        }
    }

    pub fn end_time(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Running => None,
            Self::Passed { end_time } | Self::Failed { end_time, .. } | Self::Cancelled { end_time } => Some(*end_time),
        }
    }

    pub fn finding(&self) -> Option<&Finding> {
        match self {
            Self::Failed { finding, .. } => Some(finding),
            _ => None,
        }
    }
}

/// How large a ledger is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub entries: i64,
    /// Of the chain.
    pub links: i64,
}

/// A verification that goes on in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub id: VerificationId,
    pub programme: ProgrammeId,
    pub state: VerificationState,
    /// Of the ledger when it began.
    pub extent: Extent,
    pub counts: Counts,
    /// The hash of the last link that was verified.
    pub head: Hash,
    pub requested_by: String,
    /// What was in the ledger then is covered.
    pub start_time: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_is_read_back_as_it_was_kept() {
        let mut course = Course::new(7);
        assert_eq!((course.step(), course.is_at_end(), *course.head()), ("chain", false, [0; 32]));
        course.counts = Counts { links: 7, entries: 3, reservations: 0, limits: 0 };
        let id = EnvelopeId::new();
        for place in [
            Place::Chain { until: 7 },
            Place::Envelopes { after: None, open: Some(EnvelopeAudit::new(id)) },
            Place::Envelopes { after: Some(id), open: None },
            Place::Reservations { after: Some(ReservationId::new()) },
            Place::Limits { after: Some((MemberId::new(), DateTime::UNIX_EPOCH)) },
            Place::End,
        ] {
            course.place = place;
            let kept = serde_json::to_value(&course).expect("json");
            assert_eq!(serde_json::from_value::<Course>(kept).expect("a course"), course);
        }
        assert!(course.is_at_end());
    }
}
