//! The ledger's entries, and the hash chain beside them.

use super::{
    balances::{Account, EntryKind},
    reversal::Reversal,
};
use crate::ids::{EntryId, EnvelopeId, OperationId, ProgrammeId, ReservationId};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// A link's hash: SHA-256.
pub type Hash = [u8; 32];
/// What the first entry of a programme is chained to.
pub const GENESIS: Hash = [0; 32];
/// Forms differ in their first byte, so that two never give the same bytes.
const FORM: u8 = 1;
const REVERSAL_FORM: u8 = 2;

/// One movement, as it stands for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    pub id: EntryId,
    pub programme: ProgrammeId,
    pub envelope: EnvelopeId,
    /// Dense in the envelope, from 1.
    pub envelope_sequence: i64,
    pub kind: EntryKind,
    pub credit: Account,
    pub debit: Account,
    /// Minor units, more than zero.
    pub amount: i64,
    pub reservation: Option<ReservationId>,
    /// What the envelope had available after it.
    pub available_after: i64,
    pub operation: OperationId,
    pub actor: String,
    pub entry_time: DateTime<Utc>,
    /// What it undoes; None unless it is a reversal.
    pub reversal: Option<Reversal>,
}

impl LedgerEntry {
    /// The bytes that stand for the entry: every field in order, whole numbers as 8 bytes big-endian, ids as their 16 bytes (zero
    /// for none), texts with their length before them, the time in microseconds since 1970. A reversal's go on with the id of what it
    /// undoes and the reason.
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(192);
        bytes.push(if self.reversal.is_some() { REVERSAL_FORM } else { FORM });
        for id in [self.id.0, self.programme.0, self.envelope.0] {
            bytes.extend_from_slice(id.as_bytes());
        }
        bytes.extend_from_slice(&self.envelope_sequence.to_be_bytes());
        for text in [self.kind.as_str(), self.credit.as_str(), self.debit.as_str()] {
            push_text(&mut bytes, text);
        }
        bytes.extend_from_slice(&self.amount.to_be_bytes());
        bytes.extend_from_slice(self.reservation.map(|id| id.0).unwrap_or_default().as_bytes());
        bytes.extend_from_slice(&self.available_after.to_be_bytes());
        bytes.extend_from_slice(self.operation.0.as_bytes());
        push_text(&mut bytes, &self.actor);
        bytes.extend_from_slice(&self.entry_time.timestamp_micros().to_be_bytes());
        if let Some(reversal) = &self.reversal {
            bytes.extend_from_slice(reversal.of.0.as_bytes());
            push_text(&mut bytes, reversal.reason.as_str());
        }
        bytes
    }

    /// The hash of this entry's link, `previous` being that of the one before.
    pub fn link(&self, previous: &Hash) -> Hash {
        Sha256::new().chain_update(previous).chain_update(self.canonical()).finalize().into()
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::reversal::ReversalReason, *};
    use std::collections::HashSet;
    use uuid::Uuid;

    pub fn entry(kind: EntryKind, sequence: i64, amount: i64, available_after: i64) -> LedgerEntry {
        LedgerEntry {
            id: EntryId(Uuid::from_u128(sequence.unsigned_abs().into())),
            programme: ProgrammeId(Uuid::from_u128(1)),
            envelope: EnvelopeId(Uuid::from_u128(2)),
            envelope_sequence: sequence,
            kind,
            credit: kind.credit(),
            debit: kind.debit(),
            amount,
            reservation: (![EntryKind::Allocate, EntryKind::Deallocate].contains(&kind))
                .then_some(ReservationId(Uuid::from_u128(3))),
            available_after,
            operation: OperationId(Uuid::from_u128(4)),
            actor: "lin".into(),
            entry_time: DateTime::from_timestamp(1_767_225_600, 0).expect("in range"),
            reversal: None,
        }
    }

    #[test]
    fn the_hash_depends_on_every_field() {
        let plain = entry(EntryKind::Reserve, 7, 100, 900);
        let hash = plain.link(&GENESIS);
        let of = |n: u128, reason| Some(Reversal { of: EntryId(Uuid::from_u128(n)), reason });
        let reversals = [of(5, ReversalReason::Duplicate), of(6, ReversalReason::Duplicate), of(5, ReversalReason::WrongAmount)];
        let hashes: HashSet<Hash> = reversals
            .map(|reversal| LedgerEntry { reversal, ..plain.clone() }.link(&GENESIS))
            .into_iter()
            .chain([hash])
            .collect();
        assert_eq!(hashes.len(), 4);
        let changes: [fn(&mut LedgerEntry); 13] = [
            |e| e.id = EntryId(Uuid::from_u128(99)),
            |e| e.programme = ProgrammeId(Uuid::from_u128(99)),
            |e| e.envelope = EnvelopeId(Uuid::from_u128(99)),
            |e| e.envelope_sequence += 1,
            |e| e.kind = EntryKind::Commit,
            |e| e.credit = Account::Funding,
            |e| e.debit = Account::Spent,
            |e| e.amount += 1,
            |e| e.reservation = None,
            |e| e.available_after -= 1,
            |e| e.operation = OperationId(Uuid::from_u128(99)),
            |e| e.actor.push('x'),
            |e| e.entry_time += chrono::TimeDelta::microseconds(1),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = plain.clone();
            change(&mut changed);
            assert_ne!(changed.link(&GENESIS), hash, "field {index}");
        }
        assert_ne!(plain.link(&hash), hash);
    }

    #[test]
    fn the_canonical_form_stays_as_it_is() {
        // Chains that exist were made with it. Computed apart with Python's hashlib from the documented layout.
        let hash = hex::encode(entry(EntryKind::Reserve, 7, 100, 900).link(&GENESIS));
        assert_eq!(hash, "10ebdba65cfc8973a70694402e977b59b87cd482da2c69cb3331b664695d72f2");
        let reversal = Some(Reversal { of: EntryId(Uuid::from_u128(5)), reason: ReversalReason::PaymentReturned });
        let refund = LedgerEntry { reversal, ..entry(EntryKind::Refund, 7, 100, 900) };
        assert_eq!(hex::encode(refund.link(&GENESIS)), "a8f685ee6b25a5706459fe75f95b1e6cd98658dea19fa72172ab587756486a8a");
    }
}
