//! Members that were merged are one person: their limits add up, and what is held by one's id is held for the one that goes on.

use super::{Books, Command, EnvelopeId, LimitUse, MemberId, ProgrammeId, Refusal};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};

/// What is told of the members that the commands are about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Persons {
    /// Where the ids of merged members lead.
    pub leads: BTreeMap<(ProgrammeId, MemberId), MemberId>,
    /// Those that are suspended; none that leads elsewhere.
    pub suspended: BTreeSet<(ProgrammeId, MemberId)>,
}

impl Persons {
    /// The member that an id leads to.
    pub fn led(&self, programme: ProgrammeId, member: MemberId) -> MemberId {
        self.leads.get(&(programme, member)).copied().unwrap_or(member)
    }
}

/// What the limits of a person leave.
pub(super) struct Left {
    pub member: MemberId,
    pub period_start_time: DateTime<Utc>,
    pub amount: i64,
}

impl Books {
    /// What the limits leave that a reservation of `member` in `envelope` counts towards: those of all its ids, whose periods hold the
    /// plan's. Nothing when more than they allow is in use, or when the member has none in which it would be counted while another of the
    /// ids has one, as periods that overlap only in part can have it; None without a limit.
    pub(super) fn left_of_limits(&self, envelope: EnvelopeId, member: MemberId) -> Option<Left> {
        let book = self.envelopes.get(&envelope)?;
        let (programme, period) = (book.programme, book.period);
        let person = self.persons.led(programme, member);
        let ones = |limit: &&LimitUse| {
            self.persons.led(programme, limit.member) == person && limit.counts(programme, limit.member, &period)
        };
        let limits = || self.limits.iter().filter(ones);
        let first = limits().find(|limit| limit.member == person).or_else(|| limits().next())?;
        let counted = self.limits.iter().any(|limit| limit.counts(programme, member, &period));
        let left = limits().fold(0_i64, |sum, limit| sum.saturating_add(limit.limit).saturating_sub(limit.used));
        let left = if counted { left } else { 0 };
        Some(Left { member: person, period_start_time: first.period.start(), amount: left.max(0) })
    }

    /// Why a caller's command may not begin: it would hold something new for a member that is suspended. What is held already goes on, and
    /// is held again where it expired: debts are paid.
    pub fn bars(&self, programme: ProgrammeId, command: &Command) -> Option<Refusal> {
        let Command::Reserve { member: Some(member), .. } = command else { return None };
        let member = self.persons.led(programme, *member);
        self.persons.suspended.contains(&(programme, member)).then_some(Refusal::MemberSuspended { member })
    }
}
