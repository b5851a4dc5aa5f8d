//! Reversals: new entries that undo older ones.

use super::balances::EntryKind;
use crate::ids::{EntryId, ReservationId};

text_enum! {
    /// Why an entry was reversed.
    ReversalReason {
        /// More or less was meant.
        WrongAmount = "WRONG_AMOUNT",
        /// Another reservation was meant.
        WrongReservation = "WRONG_RESERVATION",
        /// It was entered twice.
        Duplicate = "DUPLICATE",
        /// The payment came back.
        PaymentReturned = "PAYMENT_RETURNED",
        /// What was owed for was withdrawn or found wanting after it was accepted.
        DeliveryWithdrawn = "DELIVERY_WITHDRAWN",
    }
}

/// What an entry undoes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reversal {
    pub of: EntryId,
    pub reason: ReversalReason,
}

/// An entry that is asked to be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    pub reservation: ReservationId,
    pub kind: EntryKind,
    /// Minor units: at most so much of it is undone.
    pub amount: i64,
    /// Whether it was undone already, in whole or in part: it is not undone twice.
    pub reversed: bool,
}
