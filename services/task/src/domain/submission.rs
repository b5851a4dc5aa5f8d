//! Submissions (提交): work handed in, and what was said of it. No `Debug` where free text is held: it is personal.

use super::{SubmissionId, brief::Package};
use chrono::{DateTime, Utc};
use koc_chassis::clock::MAX_AHEAD;
use std::collections::HashSet;

/// How many submissions one assignment may have: each answer shows them all.
pub const MAX_SUBMISSIONS: i64 = 50;

/// Work handed in.
#[derive(Clone)]
pub struct Submission {
    pub id: SubmissionId,
    pub stage: Stage,
    pub deliverables: Vec<Submitted>,
    pub submit_time: DateTime<Utc>,
    pub review: Option<Review>,
}

/// One deliverable as handed in.
#[derive(Clone)]
pub struct Submitted {
    pub key: String,
    pub platform: Option<String>,
    /// Personal.
    pub url: Option<String>,
    pub publish_time: Option<DateTime<Utc>>,
    /// Personal.
    pub text: Option<String>,
}

/// What a reviewer said.
#[derive(Clone)]
pub struct Review {
    pub verdict: Verdict,
    /// Of an approved one.
    pub accepted_keys: Vec<String>,
    /// Personal.
    pub comment: Option<String>,
    pub reviewer: String,
    pub review_time: DateTime<Utc>,
}

/// How far work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Concept,
    Draft,
    Live,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Concept => "CONCEPT",
            Self::Draft => "DRAFT",
            Self::Live => "LIVE",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Concept, Self::Draft, Self::Live].into_iter().find(|stage| stage.name() == name)
    }
}

/// Verdicts of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Approved,
    ChangesRequested,
    Rejected,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Approved => "APPROVED",
            Self::ChangesRequested => "CHANGES_REQUESTED",
            Self::Rejected => "REJECTED",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Approved, Self::ChangesRequested, Self::Rejected].into_iter().find(|verdict| verdict.name() == name)
    }
}

/// What is wrong with a deliverable that is handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmittedFlaw {
    /// The brief knows no such key.
    Unknown,
    /// Its key stands earlier in the same submission.
    Duplicate,
    /// What is live can be seen somewhere since some time.
    LiveNeedsUrl,
    /// What is published was published before now.
    PublishedAhead,
}

/// All flaws of what is handed in at `stage`, each with the place of its deliverable.
pub fn flaws(stage: Stage, deliverables: &[Submitted], package: &Package, now: DateTime<Utc>) -> Vec<(usize, SubmittedFlaw)> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for (place, deliverable) in deliverables.iter().enumerate() {
        if !package.contains(&deliverable.key) {
            found.push((place, SubmittedFlaw::Unknown));
        }
        if !seen.insert(deliverable.key.as_str()) {
            found.push((place, SubmittedFlaw::Duplicate));
        }
        if stage == Stage::Live && (deliverable.url.is_none() || deliverable.publish_time.is_none()) {
            found.push((place, SubmittedFlaw::LiveNeedsUrl));
        }
        if deliverable.publish_time.is_some_and(|time| time > now + MAX_AHEAD) {
            found.push((place, SubmittedFlaw::PublishedAhead));
        }
    }
    found
}

impl Submission {
    /// The keys that an approval accepts: those `named`, or all that were handed in when none is. Places of named keys that
    /// were not handed in are an error.
    pub fn accepted(&self, named: Vec<String>) -> Result<Vec<String>, Vec<usize>> {
        if named.is_empty() {
            return Ok(self.deliverables.iter().map(|d| d.key.clone()).collect());
        }
        let unknown = |key: &String| !self.deliverables.iter().any(|d| d.key == *key);
        let places: Vec<usize> = named.iter().enumerate().filter(|(_, key)| unknown(key)).map(|(place, _)| place).collect();
        if places.is_empty() { Ok(named) } else { Err(places) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::brief::{DeliverableKind, DeliverableSpec};
    use chrono::TimeDelta;
    use uuid::Uuid;

    fn package() -> Package {
        let spec = |key: &str| DeliverableSpec {
            key: key.to_owned(),
            kind: DeliverableKind::Video,
            weight_percent: 50,
            acceptance_criteria: "shows the car".to_owned(),
        };
        Package::parse(vec![spec("article"), spec("video")]).expect("sound")
    }

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn handed_in(key: &str) -> Submitted {
        Submitted { key: key.to_owned(), platform: None, url: None, publish_time: None, text: None }
    }

    #[test]
    fn each_flawed_deliverable_is_found_at_its_place() {
        let found = flaws(Stage::Draft, &[handed_in("article"), handed_in("song"), handed_in("article")], &package(), now());
        assert_eq!(found, [(1, SubmittedFlaw::Unknown), (2, SubmittedFlaw::Duplicate)]);
    }

    #[test]
    fn what_is_live_has_an_address_and_a_time() {
        let no_time = Submitted { url: Some("https://example.com/1".into()), ..handed_in("article") };
        let sound = Submitted { publish_time: Some(DateTime::UNIX_EPOCH), ..no_time.clone() };
        assert_eq!(flaws(Stage::Live, std::slice::from_ref(&sound), &package(), now()), []);
        assert_eq!(flaws(Stage::Live, &[no_time], &package(), now()), [(0, SubmittedFlaw::LiveNeedsUrl)]);
        let no_url = Submitted { url: None, ..sound };
        assert_eq!(flaws(Stage::Live, &[no_url], &package(), now()), [(0, SubmittedFlaw::LiveNeedsUrl)]);
    }

    #[test]
    fn nothing_is_published_in_the_future() {
        let at = |time| Submitted { publish_time: Some(time), ..handed_in("article") };
        let (near, ahead) = (now() + MAX_AHEAD, now() + MAX_AHEAD + TimeDelta::microseconds(1));
        assert_eq!(flaws(Stage::Draft, &[at(near)], &package(), now()), []);
        assert_eq!(flaws(Stage::Draft, &[at(ahead)], &package(), now()), [(0, SubmittedFlaw::PublishedAhead)]);
    }

    #[test]
    fn an_approval_without_keys_accepts_all_and_unknown_keys_are_named_by_place() {
        let submission = Submission {
            id: Uuid::nil().into(),
            stage: Stage::Live,
            deliverables: vec![handed_in("article"), handed_in("video")],
            submit_time: DateTime::UNIX_EPOCH,
            review: None,
        };
        assert_eq!(submission.accepted(Vec::new()), Ok(vec!["article".into(), "video".into()]));
        assert_eq!(submission.accepted(vec!["video".into()]), Ok(vec!["video".into()]));
        assert_eq!(submission.accepted(vec!["video".into(), "song".into()]), Err(vec![1]));
    }
}
