//! Draws on the strategic reserve (储备动用申请).

use crate::ids::{EnvelopeId, MemberId, OutputId, PlanId, ProgrammeId, ReservationId, ReserveDrawId};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// How long the money of an approved draw is held.
pub const TIME_TO_LIVE: TimeDelta = TimeDelta::days(90);
/// How the purposes of draws' reservations begin.
pub const PURPOSE: &str = "reserve_draw/";

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
        /// Spent, and what it brought is known.
        Reported = "REPORTED",
    }
}

/// Where a draw stands. SPENT and REPORTED are no states of their own: see [`Draw::stage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrawState {
    Requested,
    Approved { reservation: ReservationId, decided: Decided, report_due_time: DateTime<Utc> },
    Rejected { decided: Decided },
    Lapsed { reason: String },
}

/// Who decided, and why. No person decides what policy approves: that is no name but nobody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub by: Option<String>,
    pub reason: String,
}

/// One person's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub by: String,
    pub reason: String,
    pub time: DateTime<Utc>,
}

/// A named figure that speaks for a draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub name: String,
    pub value: String,
}

/// What a draw brought, with its top-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Minor units, zero or more.
    pub value: i64,
    pub figures: Vec<Evidence>,
    pub note: String,
    pub reported_by: String,
    pub report_time: DateTime<Utc>,
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
    /// Of the policy that it is decided by.
    pub policy_version: i64,
    /// How many people must approve; zero when none had to.
    pub approvals_needed: u8,
    /// In order.
    pub approvals: Vec<Approval>,
    /// What it adds to, if it is a top-up.
    pub first_draw: Option<ReserveDrawId>,
    /// Whether its reservation holds and owes nothing any more, and cannot again.
    pub settled: bool,
    /// Whether it is settled and something was paid.
    pub wholly_spent: bool,
    pub outcome: Option<Outcome>,
}

/// Why a draw does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrawStandstill {
    /// It stands elsewhere than where this begins.
    State { is: DrawStage },
    /// Who asked may not decide.
    ApproverIsRequester,
    /// Who approved does not count twice.
    ApproverRepeated,
    /// It adds to another draw, which is the one to be named.
    IsTopUp { first: ReserveDrawId },
}

/// What an approval comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approving {
    /// Others must follow.
    Partly,
    /// Nobody else need.
    Wholly,
}

impl Draw {
    /// Where it stands, as it is shown.
    pub fn stage(&self) -> DrawStage {
        match &self.state {
            DrawState::Requested => DrawStage::Requested,
            DrawState::Approved { .. } if self.outcome.is_some() => DrawStage::Reported,
            DrawState::Approved { .. } if self.wholly_spent => DrawStage::Spent,
            DrawState::Approved { .. } => DrawStage::Approved,
            DrawState::Rejected { .. } => DrawStage::Rejected,
            DrawState::Lapsed { .. } => DrawStage::Lapsed,
        }
    }

    /// Whether it was approved without a person.
    pub fn automatic(&self) -> bool {
        self.approvals_needed == 0
    }

    /// The person who decided.
    pub fn decided_by(&self) -> Option<&str> {
        match &self.state {
            DrawState::Approved { decided, .. } | DrawState::Rejected { decided } => decided.by.as_deref(),
            DrawState::Requested | DrawState::Lapsed { .. } => None,
        }
    }

    /// Why it was decided as it was.
    pub fn decision_reason(&self) -> Option<&str> {
        match &self.state {
            DrawState::Requested => None,
            DrawState::Approved { decided, .. } | DrawState::Rejected { decided } => Some(&decided.reason),
            DrawState::Lapsed { reason } => Some(reason),
        }
    }

    pub fn reservation(&self) -> Option<ReservationId> {
        match &self.state {
            DrawState::Approved { reservation, .. } => Some(*reservation),
            _ => None,
        }
    }

    pub fn report_due_time(&self) -> Option<DateTime<Utc>> {
        match &self.state {
            DrawState::Approved { report_due_time, .. } => Some(*report_due_time),
            _ => None,
        }
    }

    /// What its reservation is for.
    pub fn purpose(&self) -> String {
        format!("{PURPOSE}{}", self.id)
    }

    /// Checks that `actor` may decide it at `now`; `first` is the draw that a top-up adds to.
    pub fn decidable(&self, first: Option<&Draw>, actor: &str, now: DateTime<Utc>) -> Result<(), DrawStandstill> {
        let asked = actor == self.requested_by || first.is_some_and(|first| actor == first.requested_by);
        match &self.state {
            DrawState::Requested if now >= self.decide_by_time => Err(DrawStandstill::State { is: DrawStage::Lapsed }),
            DrawState::Requested if asked => Err(DrawStandstill::ApproverIsRequester),
            DrawState::Requested => Ok(()),
            _ => Err(DrawStandstill::State { is: self.stage() }),
        }
    }

    /// As [`Self::decidable`], and tells what the approval of `actor` comes to.
    pub fn approvable(&self, first: Option<&Draw>, actor: &str, now: DateTime<Utc>) -> Result<Approving, DrawStandstill> {
        self.decidable(first, actor, now)?;
        if self.approvals.iter().any(|approval| approval.by == actor) {
            return Err(DrawStandstill::ApproverRepeated);
        }
        let whole = self.approvals.len() + 1 >= usize::from(self.approvals_needed);
        Ok(if whole { Approving::Wholly } else { Approving::Partly })
    }

    /// Checks that more money may be asked for it.
    pub fn can_be_topped_up(&self) -> Result<(), DrawStandstill> {
        match (self.first_draw, self.stage()) {
            (Some(first), _) => Err(DrawStandstill::IsTopUp { first }),
            (None, DrawStage::Approved) => Ok(()),
            (None, is) => Err(DrawStandstill::State { is }),
        }
    }

    /// Checks that its outcome may be reported; `top_ups` are all that add to it.
    pub fn reportable(&self, top_ups: &[Draw]) -> Result<(), DrawStandstill> {
        if let Some(first) = self.first_draw {
            return Err(DrawStandstill::IsTopUp { first });
        }
        let open = |draw: &Draw| match draw.stage() {
            // Until it has lapsed it may be approved.
            DrawStage::Requested => true,
            // What was given back in whole brought nothing and stands in nobody's way.
            DrawStage::Approved => !draw.settled,
            _ => false,
        };
        match self.stage() {
            DrawStage::Spent => {
                top_ups.iter().find(|draw| open(draw)).map_or(Ok(()), |draw| Err(DrawStandstill::State { is: draw.stage() }))
            }
            is => Err(DrawStandstill::State { is }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn draw(amount: i64, evidence: usize) -> Draw {
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
            policy_version: 1,
            approvals_needed: 1,
            approvals: Vec::new(),
            first_draw: None,
            settled: false,
            wholly_spent: false,
            outcome: None,
        }
    }

    #[test]
    fn a_draw_is_decided_by_another_person_and_in_time() {
        let draw = draw(1, 1);
        assert_eq!(draw.approvable(None, "wei", draw.create_time), Ok(Approving::Wholly));
        assert_eq!(draw.decidable(None, "spike-detector", draw.create_time), Err(DrawStandstill::ApproverIsRequester));
        let late = draw.decidable(None, "wei", draw.decide_by_time);
        assert_eq!(late, Err(DrawStandstill::State { is: DrawStage::Lapsed }));
        // Of a top-up neither who asked for it nor who asked for the first.
        let first = Draw { requested_by: "lin".into(), ..draw.clone() };
        assert_eq!(draw.decidable(Some(&first), "lin", draw.create_time), Err(DrawStandstill::ApproverIsRequester));
    }

    #[test]
    fn an_outcome_waits_for_all_top_ups() {
        let decided = Decided { by: None, reason: "automatic".into() };
        let state = DrawState::Approved { reservation: ReservationId::new(), decided, report_due_time: DateTime::UNIX_EPOCH };
        let spent = Draw { state: state.clone(), wholly_spent: true, ..draw(1, 1) };
        let top_up = Draw { first_draw: Some(spent.id), ..draw(1, 1) };
        assert_eq!(spent.reportable(&[]), Ok(()));
        assert_eq!(spent.reportable(std::slice::from_ref(&top_up)), Err(DrawStandstill::State { is: DrawStage::Requested }));
        let lapsed = Draw { state: DrawState::Lapsed { reason: String::new() }, ..top_up.clone() };
        assert_eq!(spent.reportable(&[lapsed]), Ok(()));
        let held = Draw { state, ..top_up.clone() };
        assert_eq!(spent.reportable(std::slice::from_ref(&held)), Err(DrawStandstill::State { is: DrawStage::Approved }));
        assert_eq!(spent.reportable(&[Draw { settled: true, ..held }]), Ok(()));
        assert_eq!(top_up.reportable(&[]), Err(DrawStandstill::IsTopUp { first: spent.id }));
        assert_eq!(top_up.can_be_topped_up(), Err(DrawStandstill::IsTopUp { first: spent.id }));
        assert_eq!(spent.can_be_topped_up(), Err(DrawStandstill::State { is: DrawStage::Spent }));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Approve(u8),
        Reject(u8),
        Lapse,
        Spend,
        Report,
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_u8).prop_map(Step::Approve),
            1 => (0..4_u8).prop_map(Step::Reject),
            1 => Just(Step::Lapse),
            2 => Just(Step::Spend),
            2 => Just(Step::Report),
            1 => Just(Step::Wait),
        ]
    }

    proptest! {
        /// People 0 to 3 in any order, person 0 being who asked: whatever they try, a draw never steps back, and money is held only after
        /// as many different people as the policy asks for.
        #[test]
        fn no_order_of_steps_approves_without_the_people_it_needs(needed in 1..=2_u8, steps in prop::collection::vec(step(), 0..24)) {
            let mut draw = Draw { requested_by: "0".into(), approvals_needed: needed, ..draw(1, 1) };
            let mut now = draw.create_time;
            for step in steps {
                let before = draw.clone();
                match step {
                    Step::Approve(who) => {
                        let by = who.to_string();
                        let Ok(approving) = draw.approvable(None, &by, now) else { continue };
                        draw.approvals.push(Approval { by: by.clone(), reason: String::new(), time: now });
                        if approving == Approving::Wholly {
                            let decided = Decided { by: Some(by), reason: String::new() };
                            draw.state = DrawState::Approved { reservation: ReservationId::new(), decided, report_due_time: now };
                        }
                    }
                    Step::Reject(who) => {
                        let by = who.to_string();
                        if draw.decidable(None, &by, now).is_err() {
                            continue;
                        }
                        draw.state = DrawState::Rejected { decided: Decided { by: Some(by), reason: String::new() } };
                    }
                    Step::Lapse if draw.state == DrawState::Requested && now >= draw.decide_by_time => {
                        draw.state = DrawState::Lapsed { reason: String::new() };
                    }
                    Step::Spend if draw.stage() == DrawStage::Approved => draw.wholly_spent = true,
                    Step::Report if draw.reportable(&[]).is_ok() => {
                        let (note, reported_by) = (String::new(), String::new());
                        draw.outcome = Some(Outcome { value: 0, figures: Vec::new(), note, reported_by, report_time: now });
                    }
                    Step::Wait => now += TimeDelta::minutes(20),
                    Step::Lapse | Step::Spend | Step::Report => {}
                }
                let people: std::collections::BTreeSet<&str> = draw.approvals.iter().map(|a| a.by.as_str()).collect();
                prop_assert_eq!(people.len(), draw.approvals.len(), "a person counts once");
                prop_assert!(!people.contains("0"), "who asked approved");
                let money = draw.reservation().is_some();
                prop_assert_eq!(money, people.len() == usize::from(needed) && draw.decided_by().is_some() && !matches!(draw.state, DrawState::Rejected { .. }));
                let order = |stage: DrawStage| match stage {
                    DrawStage::Requested => 0,
                    DrawStage::Approved => 1,
                    DrawStage::Spent => 2,
                    DrawStage::Reported => 3,
                    DrawStage::Rejected | DrawStage::Lapsed => 4,
                };
                let (from, to) = (order(before.stage()), order(draw.stage()));
                prop_assert!(to == from || to == from + 1 || (from == 0 && to == 4), "{:?} to {:?}", before.stage(), draw.stage());
            }
        }
    }
}
