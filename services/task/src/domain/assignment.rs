//! Assignments: one member's part in a task, as a machine whose states carry what holds in them.
//!
//! Money is held exactly in IN_PROGRESS, SUBMITTED and CHANGES_REQUESTED. Whatever ends an assignment after money was asked for
//! leaves a [`Closing`], which ends when the budget has been told.

use super::{
    AssignmentId, BriefId, ReservationId, SubmissionId, TaskId,
    brief::Package,
    submission::{Stage, Verdict},
    task::{Deadlines, Participation, Task},
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    money::Money,
};
use serde::{Deserialize, Serialize};

/// One member's part in a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub id: AssignmentId,
    pub programme: ProgrammeId,
    pub task: TaskId,
    pub member: MemberId,
    /// The member's tier when it was offered.
    pub tier_id: String,
    pub brief: BriefId,
    pub brief_revision: i32,
    /// For everything accepted.
    pub reward: Money,
    pub deadlines: Deadlines,
    pub state: State,
    pub create_time: DateTime<Utc>,
    pub update_time: DateTime<Utc>,
}

/// Where an assignment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Offered,
    /// Accepted; the budget is being asked.
    Reserving,
    InProgress {
        hold: ReservationId,
    },
    /// The latest submission waits for its review, or is LIVE and approved.
    Submitted {
        hold: ReservationId,
        submission: SubmissionId,
        /// Keys accepted of a LIVE submission.
        approved: Option<Vec<String>>,
    },
    ChangesRequested {
        hold: ReservationId,
    },
    Completed {
        submission: SubmissionId,
        accepted: Vec<String>,
        earned: Money,
        /// SETTLING or SETTLED with this hold.
        settled: bool,
        hold: ReservationId,
    },
    Unfunded(Unfunded),
    Declined(Closing),
    Rejected(Closing),
    Expired(Closing),
}

/// How the money of an assignment that came to nothing goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// None was held.
    Unheld,
    /// The budget was asked to hold some and has not answered: what it holds goes back when it has.
    Awaiting,
    /// The budget is being told.
    Settling(ReservationId),
    /// Given back.
    Settled(ReservationId),
}

/// Why the budget refused, with its figures in minor units of the reward's currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfunded {
    /// E.g. ENVELOPE_EXHAUSTED.
    pub reason: String,
    /// ENVELOPE or MEMBER_LIMIT; None when no limit was the cause.
    pub limit_type: Option<String>,
    pub limit_id: Option<String>,
    pub asked_minor: Option<i64>,
    pub available_minor: Option<i64>,
}

/// How far the money of an assignment is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    None,
    Held,
    Settling,
    Settled,
}

/// What the budget is to be told of an ended assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dues {
    /// So much is owed, the rest goes back.
    Commit(Money),
    /// All goes back.
    Release,
}

/// Why an assignment cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    #[error("the assignment is {state}, so it cannot {command}")]
    State { state: &'static str, command: &'static str },
    #[error("offers closed at {deadline}")]
    OfferClosed { deadline: DateTime<Utc> },
    #[error("deliveries closed at {deadline}")]
    DeliveryClosed { deadline: DateTime<Utc> },
    #[error("the submission is not the latest, which is {latest}")]
    SubmissionNotLatest { latest: SubmissionId },
    #[error("the assignment has had all its {max} submissions")]
    SubmissionLimit { max: i64 },
    #[error("the member withdrew the consent to participate")]
    ConsentWithdrawn,
    #[error("the member is suspended")]
    Suspended,
    #[error("no LIVE submission is approved")]
    NothingAccepted,
}

impl State {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offered => "OFFERED",
            Self::Reserving => "RESERVING",
            Self::InProgress { .. } => "IN_PROGRESS",
            Self::Submitted { .. } => "SUBMITTED",
            Self::ChangesRequested { .. } => "CHANGES_REQUESTED",
            Self::Completed { .. } => "COMPLETED",
            Self::Unfunded(_) => "UNFUNDED",
            Self::Declined(_) => "DECLINED",
            Self::Rejected(_) => "REJECTED",
            Self::Expired(_) => "EXPIRED",
        }
    }

    /// Whether it takes one of the task's places: it is open or completed.
    pub fn takes_place(&self) -> bool {
        !matches!(self, Self::Unfunded(_) | Self::Declined(_) | Self::Rejected(_) | Self::Expired(_))
    }

    pub fn settlement(&self) -> Settlement {
        match self {
            Self::Offered | Self::Reserving | Self::Unfunded(_) => Settlement::None,
            Self::InProgress { .. } | Self::Submitted { .. } | Self::ChangesRequested { .. } => Settlement::Held,
            Self::Completed { settled: false, .. } => Settlement::Settling,
            Self::Completed { settled: true, .. } => Settlement::Settled,
            Self::Declined(closing) | Self::Rejected(closing) | Self::Expired(closing) => match closing {
                Closing::Unheld => Settlement::None,
                Closing::Awaiting | Closing::Settling(_) => Settlement::Settling,
                Closing::Settled(_) => Settlement::Settled,
            },
        }
    }

    /// The hold on the budget, present or past.
    pub fn hold(&self) -> Option<ReservationId> {
        match self {
            Self::InProgress { hold }
            | Self::Submitted { hold, .. }
            | Self::ChangesRequested { hold }
            | Self::Completed { hold, .. } => Some(*hold),
            Self::Declined(closing) | Self::Rejected(closing) | Self::Expired(closing) => match closing {
                Closing::Settling(hold) | Closing::Settled(hold) => Some(*hold),
                Closing::Unheld | Closing::Awaiting => None,
            },
            Self::Offered | Self::Reserving | Self::Unfunded(_) => None,
        }
    }

    /// What the budget is to be told, while it is.
    pub fn dues(&self) -> Option<(ReservationId, Dues)> {
        match self {
            // The budget commits more than zero only: a share below one minor unit owes nothing.
            Self::Completed { settled: false, hold, earned, .. } if earned.minor > 0 => Some((*hold, Dues::Commit(*earned))),
            Self::Completed { settled: false, hold, .. } => Some((*hold, Dues::Release)),
            Self::Declined(Closing::Settling(hold))
            | Self::Rejected(Closing::Settling(hold))
            | Self::Expired(Closing::Settling(hold)) => Some((*hold, Dues::Release)),
            _ => None,
        }
    }
}

impl Assignment {
    /// An offer of `task` to a member of a tier.
    pub fn offer(task: &Task, member: MemberId, tier_id: String, now: DateTime<Utc>) -> Self {
        Self {
            id: AssignmentId::new(),
            programme: task.programme,
            task: task.id,
            member,
            tier_id,
            brief: task.brief,
            brief_revision: task.brief_revision,
            reward: task.reward,
            deadlines: task.deadlines,
            state: State::Offered,
            create_time: now,
            update_time: now,
        }
    }

    fn to(self, state: State, now: DateTime<Utc>) -> Result<Self, AssignmentError> {
        Ok(Self { state, update_time: now, ..self })
    }

    fn cannot(&self, command: &'static str) -> Result<Self, AssignmentError> {
        Err(AssignmentError::State { state: self.state.name(), command })
    }

    /// The member takes the offer. Who may take none is told so, whatever became of this one.
    pub fn accept(self, participation: Participation, now: DateTime<Utc>) -> Result<Self, AssignmentError> {
        match participation {
            Participation::Given => {}
            Participation::Withdrawn => return Err(AssignmentError::ConsentWithdrawn),
            Participation::Suspended => return Err(AssignmentError::Suspended),
        }
        match self.state {
            State::Offered if now >= self.deadlines.offer => Err(AssignmentError::OfferClosed { deadline: self.deadlines.offer }),
            State::Offered => self.to(State::Reserving, now),
            _ => self.cannot("be accepted"),
        }
    }

    /// The budget holds the money. When the member gave up meanwhile, it goes back.
    pub fn fund(self, hold: ReservationId, now: DateTime<Utc>) -> Result<Self, AssignmentError> {
        match self.state {
            State::Reserving => self.to(State::InProgress { hold }, now),
            State::Declined(Closing::Awaiting) => self.to(State::Declined(Closing::Settling(hold)), now),
            _ => self.cannot("be funded"),
        }
    }

    /// The budget refuses the money.
    pub fn refuse_funds(self, unfunded: Unfunded, now: DateTime<Utc>) -> Result<Self, AssignmentError> {
        match self.state {
            State::Reserving => self.to(State::Unfunded(unfunded), now),
            State::Declined(Closing::Awaiting) => self.to(State::Declined(Closing::Unheld), now),
            _ => self.cannot("be refused funds"),
        }
    }

    /// The member turns the offer down, or gives up.
    pub fn decline(self, now: DateTime<Utc>) -> Result<Self, AssignmentError> {
        match self.state {
            State::Offered => self.to(State::Declined(Closing::Unheld), now),
            State::Reserving => self.to(State::Declined(Closing::Awaiting), now),
            State::InProgress { hold } | State::Submitted { hold, .. } | State::ChangesRequested { hold } => {
                self.to(State::Declined(Closing::Settling(hold)), now)
            }
            _ => self.cannot("be declined"),
        }
    }

    /// Work is handed in; a later submission replaces an earlier one and what was said of it.
    pub fn submit(self, submission: SubmissionId, now: DateTime<Utc>) -> Result<Self, AssignmentError> {
        match self.state {
            State::InProgress { .. } | State::Submitted { .. } | State::ChangesRequested { .. }
                if now >= self.deadlines.delivery =>
            {
                Err(AssignmentError::DeliveryClosed { deadline: self.deadlines.delivery })
            }
            State::InProgress { hold } | State::Submitted { hold, .. } | State::ChangesRequested { hold } => {
                self.to(State::Submitted { hold, submission, approved: None }, now)
            }
            _ => self.cannot("take work"),
        }
    }

    /// The id of the submission that a review may judge; `asked` must be it.
    pub fn reviewable(&self, asked: SubmissionId) -> Result<SubmissionId, AssignmentError> {
        match self.state {
            State::Submitted { submission, .. } if submission == asked => Ok(submission),
            State::Submitted { submission, .. } => Err(AssignmentError::SubmissionNotLatest { latest: submission }),
            _ => Err(AssignmentError::State { state: self.state.name(), command: "be reviewed" }),
        }
    }

    /// The latest submission is judged. An approved concept or draft sends the member back to work on the next stage; an
    /// approved LIVE one waits for completion with the keys that were `accepted`.
    pub fn review(
        self,
        stage: Stage,
        verdict: Verdict,
        accepted: Vec<String>,
        now: DateTime<Utc>,
    ) -> Result<Self, AssignmentError> {
        let State::Submitted { hold, submission, .. } = self.state else {
            return self.cannot("be reviewed");
        };
        let state = match (verdict, stage) {
            (Verdict::Approved, Stage::Live) => State::Submitted { hold, submission, approved: Some(accepted) },
            (Verdict::Approved, Stage::Concept | Stage::Draft) => State::InProgress { hold },
            (Verdict::ChangesRequested, _) => State::ChangesRequested { hold },
            (Verdict::Rejected, _) => State::Rejected(Closing::Settling(hold)),
        };
        self.to(state, now)
    }

    /// Everything to be accepted is: the accepted deliverables earn their parts of the reward.
    pub fn complete(self, package: &Package, now: DateTime<Utc>) -> Result<Self, AssignmentError> {
        match &self.state {
            State::Submitted { approved: None, .. } => Err(AssignmentError::NothingAccepted),
            State::Submitted { hold, submission, approved: Some(accepted) } => {
                let earned = package.shares(self.reward, accepted).iter().map(|share| share.worth.minor).sum();
                let state = State::Completed {
                    submission: *submission,
                    accepted: accepted.clone(),
                    earned: Money::new(earned, self.reward.currency),
                    settled: false,
                    hold: *hold,
                };
                self.to(state, now)
            }
            _ => self.cannot("be completed"),
        }
    }

    /// Nobody took the offer in time. None when there is nothing to expire.
    pub fn expire_offer(self, now: DateTime<Utc>) -> Option<Self> {
        match self.state {
            State::Offered if now >= self.deadlines.offer => self.to(State::Expired(Closing::Unheld), now).ok(),
            _ => None,
        }
    }

    /// Nobody can take the offer any more, whatever its deadline. None when it is no offer any more.
    pub fn withdraw_offer(self, now: DateTime<Utc>) -> Option<Self> {
        match self.state {
            State::Offered => self.to(State::Expired(Closing::Unheld), now).ok(),
            _ => None,
        }
    }

    /// Nothing was delivered in time. What was handed in in time is not expired while it waits for its review. None when there is
    /// nothing to expire.
    pub fn expire_delivery(self, now: DateTime<Utc>) -> Option<Self> {
        match self.state {
            State::InProgress { hold } | State::ChangesRequested { hold } if now >= self.deadlines.delivery => {
                self.to(State::Expired(Closing::Settling(hold)), now).ok()
            }
            _ => None,
        }
    }

    /// The budget has been told.
    pub fn settle(self, now: DateTime<Utc>) -> Result<Self, AssignmentError> {
        let state = match &self.state {
            State::Completed { submission, accepted, earned, settled: false, hold } => State::Completed {
                submission: *submission,
                accepted: accepted.clone(),
                earned: *earned,
                settled: true,
                hold: *hold,
            },
            State::Declined(Closing::Settling(hold)) => State::Declined(Closing::Settled(*hold)),
            State::Rejected(Closing::Settling(hold)) => State::Rejected(Closing::Settled(*hold)),
            State::Expired(Closing::Settling(hold)) => State::Expired(Closing::Settled(*hold)),
            _ => return self.cannot("be settled"),
        };
        self.to(state, now)
    }
}

#[cfg(test)]
mod tests;
