//! Recomputing the ledger: entries come one by one, in order, and only the present envelope's, reservation's or link's state is kept.

pub mod course;

use super::{
    balances::{Balances, EntryKind, Parts},
    ledger::{GENESIS, Hash, LedgerEntry},
};
use crate::ids::{EntryId, EnvelopeId, ReservationId};
use serde::{Deserialize, Serialize};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In words, with ids and figures.
    pub text: String,
    /// The bad entry; None when an entry is missing and nothing says which.
    pub entry: Option<EntryId>,
}

impl Finding {
    /// At an entry: `text` goes on where the entry is named.
    pub fn at(id: EntryId, envelope: EnvelopeId, envelope_sequence: i64, text: &str) -> Self {
        Self { text: format!("entry {id} (number {envelope_sequence} of envelope {envelope}) {text}"), entry: Some(id) }
    }
}

fn finding(entry: &LedgerEntry, text: String) -> Finding {
    Finding::at(entry.id, entry.envelope, entry.envelope_sequence, &text)
}

/// Recomputes one envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeAudit {
    id: EnvelopeId,
    balances: Balances,
    sequence: i64,
    last: Option<EntryId>,
}

impl EnvelopeAudit {
    pub fn new(id: EnvelopeId) -> Self {
        Self { id, balances: Balances::default(), sequence: 0, last: None }
    }

    pub fn id(&self) -> EnvelopeId {
        self.id
    }

    /// How many entries were taken.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Takes the next entry in the envelope's order.
    pub fn take(&mut self, entry: &LedgerEntry) -> Result<(), Finding> {
        let expected = self.sequence + 1;
        if entry.envelope_sequence != expected {
            return Err(finding(entry, format!("comes where number {expected} should: entries are missing")));
        }
        if (entry.credit, entry.debit) != (entry.kind.credit(), entry.kind.debit()) {
            return Err(finding(entry, "moves money between accounts that its kind does not join".to_owned()));
        }
        // How far it may fall is judged at the envelope's row; the limit of that time is not known any more.
        if let Err(imbalance) = self.balances.post(entry.kind, entry.amount, i64::MAX) {
            return Err(finding(entry, format!("cannot be posted: {imbalance}")));
        }
        let available = self.balances.available();
        if entry.available_after != available {
            return Err(finding(
                entry,
                format!("says that {} was available after it; the entries give {available}", entry.available_after),
            ));
        }
        self.sequence = expected;
        self.last = Some(entry.id);
        Ok(())
    }

    /// Compares with what the envelope's row says.
    pub fn finish(self, stored: &Balances, sequence: i64) -> Result<(), Finding> {
        if *stored == self.balances && sequence == self.sequence {
            return Ok(());
        }
        let text = format!(
            "envelope {} stands at {stored:?} after {sequence} entries; its {} entries give {:?}",
            self.id, self.sequence, self.balances
        );
        Err(Finding { text, entry: self.last })
    }
}

/// What an entry says of its reservation.
#[derive(Debug, Clone, Copy)]
pub struct ReservationEntry {
    pub id: EntryId,
    pub envelope: EnvelopeId,
    pub envelope_sequence: i64,
    pub kind: EntryKind,
    pub amount: i64,
}

/// Recomputes one reservation.
#[derive(Debug)]
pub struct ReservationAudit {
    id: ReservationId,
    envelope: EnvelopeId,
    parts: Parts,
    last: Option<EntryId>,
}

impl ReservationAudit {
    pub fn new(id: ReservationId, envelope: EnvelopeId) -> Self {
        Self { id, envelope, parts: Parts::default(), last: None }
    }

    pub fn id(&self) -> ReservationId {
        self.id
    }

    /// Takes the next entry of the reservation.
    pub fn take(&mut self, entry: &ReservationEntry) -> Result<(), Finding> {
        let bad = |text: String| Err(Finding::at(entry.id, entry.envelope, entry.envelope_sequence, &text));
        if entry.envelope != self.envelope {
            return bad(format!("is of another envelope than its reservation {}", self.id));
        }
        if let Err(imbalance) = self.parts.post(entry.kind, entry.amount) {
            return bad(format!("cannot be posted to reservation {}: {imbalance}", self.id));
        }
        self.last = Some(entry.id);
        Ok(())
    }

    /// Compares with what the reservation's row says.
    pub fn finish(self, stored: &Parts) -> Result<(), Finding> {
        if *stored == self.parts {
            return Ok(());
        }
        let text = format!("reservation {} stands at {stored:?}; its entries give {:?}", self.id, self.parts);
        Err(Finding { text, entry: self.last })
    }
}

/// Recomputes the chain of one programme.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainAudit {
    head: Hash,
    length: i64,
}

impl Default for ChainAudit {
    fn default() -> Self {
        Self { head: GENESIS, length: 0 }
    }
}

impl ChainAudit {
    /// Takes the next link; `entry` is None when the ledger has none of that id.
    pub fn take(&mut self, position: i64, id: EntryId, entry: Option<&LedgerEntry>, hash: &[u8]) -> Result<(), Finding> {
        let expected = self.length + 1;
        let bad = |text: String| Err(Finding { text, entry: Some(id) });
        if position != expected {
            return bad(format!("link {position} of the chain comes where link {expected} should: links are missing"));
        }
        let Some(entry) = entry else { return bad(format!("entry {id} stands in the chain and not in the ledger")) };
        let computed = entry.link(&self.head);
        if hash != computed {
            return Err(finding(
                entry,
                format!("does not give the hash of link {position} of the chain: it or the link was changed"),
            ));
        }
        self.head = computed;
        self.length = expected;
        Ok(())
    }

    /// How many links there are.
    pub fn length(&self) -> i64 {
        self.length
    }

    /// The hash of the last one.
    pub fn head(&self) -> &Hash {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{balances::EntryKind, ledger::tests::entry},
        *,
    };

    fn ledger() -> Vec<LedgerEntry> {
        vec![
            entry(EntryKind::Allocate, 1, 1_000, 1_000),
            entry(EntryKind::Reserve, 2, 300, 700),
            entry(EntryKind::Commit, 3, 200, 700),
            entry(EntryKind::Release, 4, 100, 800),
        ]
    }

    fn walk(entries: &[LedgerEntry]) -> Result<EnvelopeAudit, Finding> {
        let mut audit = EnvelopeAudit::new(entries[0].envelope);
        entries.iter().try_for_each(|e| audit.take(e))?;
        Ok(audit)
    }

    #[test]
    fn a_whole_ledger_adds_up_to_its_balances() {
        let audit = walk(&ledger()).expect("whole");
        let stored = Balances { allocated: 1_000, reserved: 0, committed: 200, spent: 0 };
        assert_eq!(audit.finish(&stored, 4), Ok(()));
    }

    #[test]
    fn a_changed_amount_is_named() {
        let mut entries = ledger();
        entries[1].amount = 299;
        assert_eq!(walk(&entries).expect_err("changed").entry, Some(entries[1].id));
    }

    #[test]
    fn a_missing_entry_is_noticed_at_the_next() {
        let mut entries = ledger();
        entries.remove(2);
        let found = walk(&entries).expect_err("gap");
        assert_eq!(found.entry, Some(entries[2].id));
        assert!(found.text.contains("missing"), "{}", found.text);
    }

    #[test]
    fn a_balance_that_is_not_the_sum_is_noticed() {
        let audit = walk(&ledger()).expect("whole");
        assert!(audit.finish(&Balances { allocated: 1_001, committed: 200, ..Balances::default() }, 4).is_err());
    }

    #[test]
    fn a_broken_link_names_its_entry() {
        let entries = ledger();
        let mut audit = ChainAudit::default();
        let first = entries[0].link(&GENESIS);
        audit.take(1, entries[0].id, Some(&entries[0]), &first).expect("whole");
        let mut changed = entries[1].clone();
        changed.actor = "somebody else".into();
        let hash = entries[1].link(&first);
        assert_eq!(audit.take(2, changed.id, Some(&changed), &hash).expect_err("changed").entry, Some(changed.id));
        assert!(audit.take(2, changed.id, None, &hash).is_err());
        assert!(audit.take(3, entries[1].id, Some(&entries[1]), &hash).is_err());
        assert_eq!(audit.take(2, entries[1].id, Some(&entries[1]), &hash), Ok(()));
    }
}
