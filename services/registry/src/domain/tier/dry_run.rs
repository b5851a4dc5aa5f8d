//! Trials of a draft: what its next evaluation would do.

use super::{Candidate, Outcome, Rooms, Rules, Tier, Verdict, judge, policy::DraftId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

koc_chassis::typed_id! {
    /// One trial.
    DryRunId,
}

/// Trials of one programme that are at work at once.
pub const MAX_RUNNING: i64 = 5;
/// Members of one outcome that are kept with their reasons.
pub const MAX_KEPT: i64 = 1_000;

/// A trial as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    pub id: DryRunId,
    pub draft: DraftId,
    pub rules: Rules,
    /// Members are judged as of then.
    pub as_of: DateTime<Utc>,
    pub judged: i64,
    pub counts: Vec<Count>,
    pub rooms: Rooms,
    pub actor: String,
    pub end_time: Option<DateTime<Utc>>,
}

/// How many members had one outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub outcome: Outcome,
    pub from: String,
    pub to: String,
    pub members: i64,
}

/// Why there is no trial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such trial")]
    NotFound { run: DryRunId },
    #[error("the programme has {MAX_RUNNING} trials at work")]
    TooMany,
}

impl DryRun {
    /// Judges the next part of the members; gives those that are to be kept with their reasons.
    pub fn judge<'c>(&mut self, part: &'c [Candidate], tiers: &[Tier]) -> Vec<(&'c Candidate, Verdict)> {
        let mut kept = Vec::new();
        for candidate in part {
            let verdict = judge(candidate, tiers, &self.rules, &self.rooms, self.as_of);
            self.rooms.moved(&candidate.tier_id, &verdict.to_tier_id);
            self.judged += 1;
            if self.add(&candidate.tier_id, &verdict) <= MAX_KEPT && verdict.outcome != Outcome::Stayed {
                kept.push((candidate, verdict));
            }
        }
        kept
    }

    /// Counts a verdict; gives how many there are of its outcome.
    fn add(&mut self, from: &str, verdict: &Verdict) -> i64 {
        let same = |c: &&mut Count| c.outcome == verdict.outcome && c.from == from && c.to == verdict.to_tier_id;
        match self.counts.iter_mut().find(same) {
            Some(count) => count.members += 1,
            None => {
                let (outcome, from, to) = (verdict.outcome, from.to_owned(), verdict.to_tier_id.clone());
                self.counts.push(Count { outcome, from, to, members: 1 });
            }
        }
        self.counts.iter().filter(|c| c.outcome == verdict.outcome).map(|c| c.members).sum()
    }
}
