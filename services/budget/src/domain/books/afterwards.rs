//! What changes a reservation's course: a hold lasts longer, an entry is undone; and who may not change it.

use super::{Books, Command, EntryKind, Imbalance, Original, Posted, Refusal, Reservation, Reversal};
use crate::ids::{ProgrammeId, ReservationId};
use chrono::{DateTime, Utc};

impl Posted<'_> {
    /// Has a hold last until `time` at least, and reserves again all that expired of it.
    pub(super) fn extend(&mut self, id: ReservationId, time: DateTime<Utc>) -> Result<Option<Refusal>, Imbalance> {
        let Reservation { parts, recoverable, .. } = self.books.reservations[&id];
        if parts.reserved + recoverable == 0 {
            return Ok(Some(Refusal::ReservationExhausted { reservation: id, asked: None, available: 0 }));
        }
        if recoverable > 0
            && let Some(refusal) = self.reserve_again(id, recoverable)?
        {
            return Ok(Some(refusal));
        }
        if let Some(reservation) = self.books.reservations.get_mut(&id) {
            reservation.expire_time = reservation.expire_time.max(time);
        }
        Ok(None)
    }

    /// Undoes an entry of the reservation: `amount` of it, or all.
    pub(super) fn reverse(
        &mut self,
        id: ReservationId,
        reversal: Reversal,
        amount: Option<i64>,
        release: bool,
    ) -> Result<Option<Refusal>, Imbalance> {
        let Reservation { envelope, parts, .. } = self.books.reservations[&id];
        let original = self.books.originals[&reversal.of];
        let (kind, held) = match (original.kind, release) {
            (EntryKind::Commit, _) => (EntryKind::ReverseCommit, parts.committed),
            (EntryKind::Spend, false) => (EntryKind::ReverseSpend, parts.spent),
            (EntryKind::Spend, true) => (EntryKind::Refund, parts.spent),
            (other, _) => {
                return Ok(Some(Refusal::EntryNotReversible { entry: reversal.of, kind: other.as_str().to_owned() }));
            }
        };
        if original.reversed {
            return Ok(Some(Refusal::EntryReversed { entry: reversal.of }));
        }
        let (asked, available) = (amount.unwrap_or(original.amount), original.amount.min(held));
        if asked > available {
            return Ok(Some(Refusal::ReservationExhausted { reservation: id, asked: Some(asked), available }));
        }
        self.note(kind, envelope, Some(id), asked, Some(reversal))?;
        if kind == EntryKind::ReverseCommit && release {
            self.post(EntryKind::Release, envelope, Some(id), asked)?;
        }
        self.books.originals.insert(reversal.of, Original { reversed: true, ..original });
        Ok(None)
    }
}

impl Books {
    /// Why a caller may not move a reservation by one of the methods for all reservations: it is a grant's. A payment that came back is the
    /// exception: a grant that was paid for is at its end, and nothing of it moves that money any more.
    pub fn trespass(&self, programme: ProgrammeId, command: &Command) -> Option<Refusal> {
        let by = match command {
            Command::Commit { .. } | Command::Spend { .. } => "ShipGrant, ConfirmGrantDelivery, SettleGrant or FulfilGrant",
            Command::Release { .. } => "RejectGrant or CancelGrant",
            Command::Extend { .. } => "HandOverGrant, ShipGrant or FulfilGrant",
            Command::Reverse { entry, release: true, .. }
                if self.originals.get(entry).is_some_and(|original| original.kind == EntryKind::Spend) =>
            {
                return None;
            }
            Command::Reverse { .. } => "Reverse of a payment alone, with release",
            Command::Allocate { .. } | Command::Deallocate { .. } | Command::Reserve { .. } | Command::Expire { .. } => {
                return None;
            }
        };
        let reservation = self.reservations.get(&command.reservation()?)?;
        (reservation.programme == programme && reservation.is_of_grant()).then(|| Refusal::GrantOwnsReservation {
            reservation: reservation.id,
            grant: reservation.purpose.clone(),
            by: by.to_owned(),
        })
    }
}
