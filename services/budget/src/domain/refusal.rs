//! Refusals by the rules of money. They are stored with their figures and given again to a retry.

use crate::ids::{EntryId, EnvelopeId, MemberId, PlanId, ReservationId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Why money did not move. Amounts in minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Refusal {
    /// The envelope has less available than is asked, what is left of its overrun included. `available` is below zero when some of the
    /// overrun is used.
    EnvelopeExhausted { envelope: EnvelopeId, asked: i64, available: i64, overrun_left: i64 },
    /// The member's limit leaves less than is asked; zero when more than the limit is in use already.
    MemberLimitExhausted { member: MemberId, period_start_time: DateTime<Utc>, asked: i64, available: i64 },
    /// The reservation holds or owes less than is asked; `asked` is absent when all was asked and there is nothing.
    ReservationExhausted { reservation: ReservationId, asked: Option<i64>, available: i64 },
    /// Only what was committed or spent can be reversed.
    EntryNotReversible { entry: EntryId, kind: String },
    /// The entry was reversed before.
    EntryReversed { entry: EntryId },
    /// The strategic reserve gives money to approved draws alone.
    ReserveNeedsDraw { envelope: EnvelopeId },
    /// Only envelopes without children hold reservations.
    EnvelopeHasChildren { envelope: EnvelopeId },
    /// The reservation is a grant's: its money moves with the grant. `by` are the methods that do so.
    GrantOwnsReservation { reservation: ReservationId, grant: String, by: String },
    /// The member is suspended: nothing new is held for it.
    MemberSuspended { member: MemberId },
    /// The envelope's plan does not take reservations.
    PlanState { plan: PlanId, state: String },
}
