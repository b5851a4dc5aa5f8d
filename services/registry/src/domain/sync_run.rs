//! Runs of a sync: what a source sends from beginning to end, batch by batch, and what may come of it.

use super::{name::named, sync::Outcome};
use chrono::{DateTime, Utc};
use koc_chassis::{clock::MAX_AHEAD, fault::Violation, ids::ProgrammeId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

koc_chassis::typed_id! {
    /// One run.
    RunId,
}

/// The largest share that is deleted without a person's word, in percent, when the caller names none.
pub const DEFAULT_MAX_DELETE_PERCENT: i32 = 5;

named! {
    /// What the rows of a run are.
    Mode {
        /// What changed.
        Incremental = "INCREMENTAL",
        /// All that the source has.
        Full = "FULL",
    }
}

named! {
    /// How far a run is.
    RunState {
        Open = "OPEN",
        /// Whom it did not see is being counted.
        Checking = "CHECKING",
        /// It waits for a person's word.
        Held = "HELD",
        /// Whom it did not see is being deleted.
        Sweeping = "SWEEPING",
        Ended = "ENDED",
        /// Nobody went on with it.
        Lapsed = "LAPSED",
    }
}

/// How a run is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub source_system: String,
    /// The caller's name, unique within the source system.
    pub name: String,
    pub mode: Mode,
    pub validate_only: bool,
    /// When the export was made; always there for [`Mode::Full`].
    pub as_of: Option<DateTime<Utc>>,
    pub max_delete_percent: i32,
}

impl Settings {
    /// Errors: AS_OF_AHEAD. Deletions of a time far ahead would shut out all later rows.
    pub fn check_clock(&self, now: DateTime<Utc>) -> Result<(), Violation> {
        match self.as_of {
            Some(as_of) if as_of - now > MAX_AHEAD => {
                let limit = MAX_AHEAD.num_minutes();
                let rule = format!("must be at most {limit} minutes ahead of the server's clock");
                Err(Violation::new("as_of", "AS_OF_AHEAD", rule))
            }
            _ => Ok(()),
        }
    }
}

/// Rows by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<Outcome, i64>);

impl Counts {
    pub fn add(&mut self, outcome: Outcome) {
        *self.0.entry(outcome).or_default() += 1;
    }

    /// A rejected row went in after all.
    pub fn move_rejected(&mut self, to: Outcome) {
        if let Some(rejected) = self.0.get_mut(&Outcome::Rejected) {
            *rejected -= 1;
        }
        self.0.retain(|_, rows| *rows != 0);
        self.add(to);
    }

    pub fn iter(&self) -> impl Iterator<Item = (Outcome, i64)> {
        self.0.iter().map(|(outcome, rows)| (*outcome, *rows))
    }
}

/// What a FULL run knows of those that it did not see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Rows without an id that could be read.
    pub unidentified: i64,
    /// Identities of the source that are not deleted.
    pub source: i64,
    /// Those of them that may be deleted.
    pub unseen: i64,
    pub swept: i64,
}

/// A run as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub id: RunId,
    pub programme: ProgrammeId,
    pub settings: Settings,
    pub state: RunState,
    pub committed_through: i64,
    pub counts: Counts,
    pub unseen: Unseen,
    /// The external id up to which its check or sweep is; None before and after. Personal data.
    pub walked_to: Option<String>,
    pub actor: String,
    /// Who said that all was sent; None while it is open.
    pub closed_by: Option<String>,
    pub create_time: DateTime<Utc>,
    pub update_time: DateTime<Utc>,
    pub end_time: Option<DateTime<Utc>>,
}

/// Why a run does not go on as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such run")]
    NotFound { run: RunId },
    #[error("the run of this name was opened with another {setting}")]
    Differs { run: RunId, setting: &'static str },
    #[error("the run is {}; it takes no new batch", state.name())]
    Closed { run: RunId, state: RunState },
    #[error("batch {got} leaves a gap; go on with {next}")]
    Gap { run: RunId, got: i64, next: i64 },
    #[error("batch {batch} was committed with other rows")]
    BatchDiffers { run: RunId, batch: i64 },
    #[error("batch {batch} was committed, and its answer is no longer kept")]
    BatchForgotten { run: RunId, batch: i64 },
    #[error("the run is {}; only a run that is held can be confirmed", state.name())]
    NotHeld { run: RunId, state: RunState },
    #[error("who opened or closed the run may not confirm its deletions; another person must")]
    ApproverIsRequester,
    #[error("the import {import} feeds the run and closes it")]
    OfImport { run: RunId, import: Uuid },
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    Apply,
    /// It was committed before.
    Replay,
}

impl Run {
    /// Whether it may be gone on with under these settings.
    pub fn reopen(&self, asked: &Settings) -> Result<(), Refusal> {
        let is = &self.settings;
        let differs = [
            (is.mode != asked.mode, "mode"),
            (is.validate_only != asked.validate_only, "validate_only"),
            (is.as_of != asked.as_of, "as_of"),
            (is.max_delete_percent != asked.max_delete_percent, "max_delete_percent"),
        ];
        match differs.into_iter().find(|(differs, _)| *differs) {
            Some((_, setting)) => Err(Refusal::Differs { run: self.id, setting }),
            None => Ok(()),
        }
    }

    /// What is to be done with the batch of this number.
    pub fn course(&self, batch: i64) -> Result<Course, Refusal> {
        let next = self.committed_through + 1;
        match batch {
            _ if batch < next => Ok(Course::Replay),
            _ if self.state != RunState::Open => Err(Refusal::Closed { run: self.id, state: self.state }),
            _ if batch == next => Ok(Course::Apply),
            got => Err(Refusal::Gap { run: self.id, got, next }),
        }
    }

    /// The state that closing it leads to. One that is closed already stays as it is.
    pub fn closed(&self) -> RunState {
        match (self.state, self.settings.mode) {
            (RunState::Open, Mode::Incremental) => RunState::Ended,
            (RunState::Open, Mode::Full) => RunState::Checking,
            (state, _) => state,
        }
    }

    /// The state that the count of those it did not see leads to.
    pub fn checked(&self) -> RunState {
        let Unseen { unidentified, source, unseen, .. } = self.unseen;
        let within = i128::from(unseen) * 100 <= i128::from(source) * i128::from(self.settings.max_delete_percent);
        match (self.settings.validate_only, within && unidentified == 0) {
            (true, _) => RunState::Ended,
            (false, true) => RunState::Sweeping,
            (false, false) if unseen == 0 => RunState::Ended,
            (false, false) => RunState::Held,
        }
    }

    /// Whether `actor` may let it delete.
    pub fn confirm(&self, actor: &str) -> Result<(), Refusal> {
        if self.state != RunState::Held {
            return Err(Refusal::NotHeld { run: self.id, state: self.state });
        }
        if self.actor == actor || self.closed_by.as_deref() == Some(actor) {
            return Err(Refusal::ApproverIsRequester);
        }
        Ok(())
    }
}

/// How many batches a sender may have under way: half as many after a batch that took long, one more after one that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit(i32);

impl Credit {
    pub const MOST: Self = Self(8);
    const LONG: Duration = Duration::from_millis(1_000);
    const SHORT: Duration = Duration::from_millis(250);

    #[must_use]
    pub fn after(self, took: Duration) -> Self {
        match took {
            _ if took >= Self::LONG => Self((self.0 / 2).max(1)),
            _ if took <= Self::SHORT => Self((self.0 + 1).min(Self::MOST.0)),
            _ => self,
        }
    }

    pub fn batches(self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests;
