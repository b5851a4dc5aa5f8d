//! Draws on the strategic reserve (储备动用申请).

use crate::ids::{EnvelopeId, MemberId, OutputId, PlanId, ProgrammeId, ReservationId, ReserveDrawId};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// After a draw for an output, none for the same output is taken for so long, unless that one was rejected or lapsed.
pub const COOL_DOWN: TimeDelta = TimeDelta::hours(24);
/// How long the money of an approved draw is held.
pub const TIME_TO_LIVE: TimeDelta = TimeDelta::days(90);
/// How the purposes of draws' reservations begin.
pub const PURPOSE: &str = "reserve_draw/";
/// Who decides without a person.
pub const POLICY: &str = "policy";

text_enum! {
    /// What a draw is for.
    DrawKind {
        /// A second push for an output that spreads by itself (二次助推).
        ViralBoost = "VIRAL_BOOST",
        /// An event of several members of one city (快闪).
        PopUpEvent = "POP_UP_EVENT",
        Other = "OTHER",
    }
}

text_enum! {
    /// The name of a state.
    DrawStage {
        Requested = "REQUESTED",
        Approved = "APPROVED",
        Rejected = "REJECTED",
        /// Not decided in time.
        Lapsed = "LAPSED",
        /// Approved, and all of its money is paid.
        Spent = "SPENT",
    }
}

/// Where a draw stands. SPENT is no state of its own: see [`Draw::stage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrawState {
    Requested,
    Approved { reservation: ReservationId, decided: Decided },
    Rejected { decided: Decided },
    Lapsed { decided: Decided },
}

/// Who decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub by: String,
    pub reason: String,
}

/// A named figure that speaks for a draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub name: String,
    pub value: String,
}

/// A request on the reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    pub id: ReserveDrawId,
    pub programme: ProgrammeId,
    pub plan: PlanId,
    /// The plan's reserve.
    pub envelope: EnvelopeId,
    pub kind: DrawKind,
    pub state: DrawState,
    /// Minor units, more than zero.
    pub amount: i64,
    pub member: Option<MemberId>,
    pub output: Option<OutputId>,
    pub evidence: Vec<Evidence>,
    pub decide_by_time: DateTime<Utc>,
    pub requested_by: String,
    pub create_time: DateTime<Utc>,
    /// Whether all money of its reservation is paid.
    pub wholly_spent: bool,
}

/// Why a draw does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrawStandstill {
    /// It is decided.
    State { is: DrawStage },
    /// Who asked may not decide.
    ApproverIsRequester,
}

impl Draw {
    /// Where it stands, as it is shown.
    pub fn stage(&self) -> DrawStage {
        match &self.state {
            DrawState::Requested => DrawStage::Requested,
            DrawState::Approved { .. } if self.wholly_spent => DrawStage::Spent,
            DrawState::Approved { .. } => DrawStage::Approved,
            DrawState::Rejected { .. } => DrawStage::Rejected,
            DrawState::Lapsed { .. } => DrawStage::Lapsed,
        }
    }

    pub fn decided(&self) -> Option<&Decided> {
        match &self.state {
            DrawState::Requested => None,
            DrawState::Approved { decided, .. } | DrawState::Rejected { decided } | DrawState::Lapsed { decided } => {
                Some(decided)
            }
        }
    }

    pub fn reservation(&self) -> Option<ReservationId> {
        match &self.state {
            DrawState::Approved { reservation, .. } => Some(*reservation),
            _ => None,
        }
    }

    /// What its reservation is for.
    pub fn purpose(&self) -> String {
        format!("{PURPOSE}{}", self.id)
    }

    /// Checks that `actor` may decide it at `now`.
    pub fn decidable(&self, actor: &str, now: DateTime<Utc>) -> Result<(), DrawStandstill> {
        match &self.state {
            DrawState::Requested if now >= self.decide_by_time => Err(DrawStandstill::State { is: DrawStage::Lapsed }),
            DrawState::Requested if actor == self.requested_by => Err(DrawStandstill::ApproverIsRequester),
            DrawState::Requested => Ok(()),
            _ => Err(DrawStandstill::State { is: self.stage() }),
        }
    }

    /// Whether it may be approved without a person, and by which rule or why not.
    pub fn by_policy(&self, automatic_limit: Option<i64>) -> Result<&'static str, &'static str> {
        match automatic_limit {
            None => Err("the plan approves no draw without a person"),
            Some(_) if self.output.is_none() => Err("it names no output, so nothing bounds how often it is asked for"),
            Some(limit) if self.amount > limit => Err("the amount exceeds the plan's automatic draw limit"),
            Some(_) if self.evidence.is_empty() => Err("there is no evidence"),
            Some(_) => Ok("automatic: the amount does not exceed the plan's automatic draw limit and there is evidence"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(amount: i64, evidence: usize) -> Draw {
        let now = DateTime::from_timestamp(1_767_225_600, 0).expect("in range");
        Draw {
            id: ReserveDrawId::new(),
            programme: ProgrammeId::new(),
            plan: PlanId::new(),
            envelope: EnvelopeId::new(),
            kind: DrawKind::ViralBoost,
            state: DrawState::Requested,
            amount,
            member: None,
            output: Some(OutputId::new()),
            evidence: vec![Evidence { name: "ratio".into(), value: "7.4".into() }; evidence],
            decide_by_time: now + TimeDelta::hours(1),
            requested_by: "spike-detector".into(),
            create_time: now,
            wholly_spent: false,
        }
    }

    #[test]
    fn policy_approves_up_to_its_limit_and_only_with_evidence() {
        assert!(draw(100, 1).by_policy(Some(100)).is_ok());
        assert!(draw(101, 1).by_policy(Some(100)).is_err());
        assert!(draw(1, 0).by_policy(Some(100)).is_err());
        assert!(draw(1, 1).by_policy(None).is_err());
        assert!(Draw { output: None, ..draw(1, 1) }.by_policy(Some(100)).is_err());
    }

    #[test]
    fn a_draw_is_decided_by_another_person_and_in_time() {
        let draw = draw(1, 1);
        assert_eq!(draw.decidable("wei", draw.create_time), Ok(()));
        assert_eq!(draw.decidable("spike-detector", draw.create_time), Err(DrawStandstill::ApproverIsRequester));
        let late = draw.decidable("wei", draw.decide_by_time);
        assert_eq!(late, Err(DrawStandstill::State { is: DrawStage::Lapsed }));
    }
}
