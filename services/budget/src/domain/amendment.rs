//! Amendments (预算调整): proposals to change an active plan.

use super::{
    approval::{self, Approval, NotApproved, Policy},
    envelope::{Place, Tree},
    reserve_draw::Decided,
    reserve_policy::Terms,
};
use crate::ids::{AmendmentId, EnvelopeId, PlanId, ProgrammeId};
use chrono::{DateTime, Utc};

text_enum! {
    /// What an amendment is.
    AmendmentKind {
        Change = "CHANGE",
        Transfer = "TRANSFER",
        Close = "CLOSE",
        ReservePolicy = "RESERVE_POLICY",
    }
}

text_enum! {
    /// The name of a state.
    AmendmentStage {
        Proposed = "PROPOSED",
        Applied = "APPLIED",
        Rejected = "REJECTED",
        Withdrawn = "WITHDRAWN",
        /// Not decided in time.
        Lapsed = "LAPSED",
    }
}

text_enum! {
    /// What happens, when a plan is closed, to what is still reserved.
    OpenReservations {
        Refuse = "REFUSE",
        Release = "RELEASE",
    }
}

/// The most reservations that are released when a plan is closed: they are released in one transaction.
pub const MAX_RELEASED: usize = 5_000;

/// How a plan is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    pub open: OpenReservations,
    /// The plan that what is available is carried over into; None for back to funding.
    pub carry_over: Option<PlanId>,
}

/// What an amendment does to one envelope. Amounts in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub envelope: EnvelopeId,
    /// The amended plan, or the one that is carried over into.
    pub plan: PlanId,
    pub place: Place,
    pub display_name: String,
    /// What it holds with its children.
    pub before: i64,
    pub after: i64,
    /// What is put into it itself, or taken out of it when below zero.
    pub own_change: i64,
    /// How far available may fall below zero.
    pub overrun_before: i64,
    pub overrun_after: i64,
    pub is_new: bool,
}

/// What takes a plan's envelopes from one tree to another, which is the first with more at its end.
pub fn diff(plan: PlanId, before: &Tree, after: &Tree) -> Vec<Line> {
    let (own_before, own_after) = (before.own(), after.own());
    let mut lines = Vec::new();
    for (index, branch) in after.branches.iter().enumerate() {
        let was = before.branches.get(index);
        let own_change = own_after[index] - own_before.get(index).copied().unwrap_or(0);
        let line = Line {
            envelope: branch.id,
            plan,
            place: branch.place.clone(),
            display_name: branch.display_name.clone(),
            before: was.map_or(0, |was| was.total),
            after: branch.total,
            // Both trees were checked: neither amount is below zero.
            own_change: i64::try_from(own_change).unwrap_or(0),
            overrun_before: was.map_or(0, |was| was.overrun_limit),
            overrun_after: branch.overrun_limit,
            is_new: was.is_none(),
        };
        let moves = line.before != line.after || line.own_change != 0;
        if line.is_new || moves || line.overrun_before != line.overrun_after {
            lines.push(line);
        }
    }
    lines
}

/// Where an amendment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AmendmentState {
    /// With fewer approvals than the plan's policy asks for.
    Proposed,
    Applied {
        decided: Decided,
    },
    Rejected {
        decided: Decided,
    },
    Withdrawn {
        decided: Decided,
    },
    Lapsed {
        decided: Decided,
    },
}

impl AmendmentState {
    pub fn stage(&self) -> AmendmentStage {
        match self {
            Self::Proposed => AmendmentStage::Proposed,
            Self::Applied { .. } => AmendmentStage::Applied,
            Self::Rejected { .. } => AmendmentStage::Rejected,
            Self::Withdrawn { .. } => AmendmentStage::Withdrawn,
            Self::Lapsed { .. } => AmendmentStage::Lapsed,
        }
    }

    pub fn decided(&self) -> Option<&Decided> {
        match self {
            Self::Proposed => None,
            Self::Applied { decided } | Self::Rejected { decided } | Self::Withdrawn { decided } | Self::Lapsed { decided } => {
                Some(decided)
            }
        }
    }
}

/// A proposal to change an active plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    pub id: AmendmentId,
    pub programme: ProgrammeId,
    pub plan: PlanId,
    pub kind: AmendmentKind,
    pub state: AmendmentState,
    pub lines: Vec<Line>,
    pub total_before: i64,
    pub total_after: i64,
    /// Of a closing.
    pub closing: Option<Closing>,
    /// Of a reserve policy.
    pub terms: Option<Terms>,
    pub reason: String,
    /// The plan's version that it was made upon.
    pub base_version: i64,
    pub proposed_by: String,
    pub approvals: Vec<Approval>,
    pub decide_by_time: DateTime<Utc>,
    pub create_time: DateTime<Utc>,
}

/// Why an amendment does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AmendmentStandstill {
    /// It is decided.
    State { is: AmendmentStage },
    /// Who approves may not.
    NotApproved(NotApproved),
    /// Only who proposed it takes it back.
    NotTheRequester,
}

impl Amendment {
    /// Checks that it may still be decided at `now`.
    fn open(&self, now: DateTime<Utc>) -> Result<(), AmendmentStandstill> {
        match self.state.stage() {
            AmendmentStage::Proposed if now >= self.decide_by_time => {
                Err(AmendmentStandstill::State { is: AmendmentStage::Lapsed })
            }
            AmendmentStage::Proposed => Ok(()),
            is => Err(AmendmentStandstill::State { is }),
        }
    }

    /// Takes `actor`'s approval; whether it is to be applied now.
    pub fn approve(&mut self, actor: &str, policy: &Policy, now: DateTime<Utc>) -> Result<bool, AmendmentStandstill> {
        self.open(now)?;
        let approvals = approval::approve(&self.proposed_by, self.approvals.clone(), actor, now);
        self.approvals = approvals.map_err(AmendmentStandstill::NotApproved)?;
        Ok(policy.is_met(&self.approvals))
    }

    pub fn reject(&mut self, actor: &str, reason: String, now: DateTime<Utc>) -> Result<(), AmendmentStandstill> {
        self.open(now)?;
        if actor == self.proposed_by {
            return Err(AmendmentStandstill::NotApproved(NotApproved::ApproverIsRequester));
        }
        self.state = AmendmentState::Rejected { decided: Decided { by: Some(actor.to_owned()), reason } };
        Ok(())
    }

    pub fn withdraw(&mut self, actor: &str, reason: String, now: DateTime<Utc>) -> Result<(), AmendmentStandstill> {
        self.open(now)?;
        if actor != self.proposed_by {
            return Err(AmendmentStandstill::NotTheRequester);
        }
        self.state = AmendmentState::Withdrawn { decided: Decided { by: Some(actor.to_owned()), reason } };
        Ok(())
    }
}

/// Where what an envelope has left is carried over into: the envelope of the same class, region and kind in the other plan, else that of
/// the class alone; None when there is neither.
pub fn carry_over_target(from: &Place, into: &Tree) -> Option<usize> {
    let same = |place: &Place| place.class == from.class && place.region == from.region && place.kind == from.kind;
    let plain = |place: &Place| place.class == from.class && place.region.is_none() && place.kind.is_none();
    let find = |fits: &dyn Fn(&Place) -> bool| into.branches.iter().position(|branch| fits(&branch.place));
    find(&same).or_else(|| find(&plain))
}

#[cfg(test)]
mod tests;
