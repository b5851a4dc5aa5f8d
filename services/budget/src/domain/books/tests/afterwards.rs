//! Holds that last longer, and entries that are undone.

use super::*;
use EntryKind::{Commit, Expire, Refund, Release, Reserve, ReverseCommit, Spend};

fn extend(seconds: i64) -> Command {
    Command::Extend { reservation: reservation(0), time_to_live: TimeDelta::seconds(seconds) }
}

/// The books with a ledger beside them, as the store keeps one: its entries have ids, and an asked one is read from it.
struct Ledger {
    books: Books,
    entries: Vec<Posting>,
}

fn entry(n: usize) -> EntryId {
    EntryId(Uuid::from_u128(5_000 + n as u128))
}

impl Ledger {
    /// With 400 held, 300 of it owed, 200 of that paid: entries 0 to 2.
    fn paid() -> Self {
        let mut ledger = Self { books: books(&[1_000], &[600]), entries: Vec::new() };
        ledger.done(&reserve(0, 400), 0);
        ledger.done(&commit(Some(300)), 1);
        ledger.done(&Command::Spend { reservation: reservation(0), amount: Some(200) }, 2);
        ledger
    }

    fn ask(&mut self, command: &Command, now: i64) -> Outcome {
        let decision = self.books.decide(PROGRAMME, command, at(now)).expect("balanced");
        self.entries.extend(decision.postings);
        decision.outcome
    }

    fn done(&mut self, command: &Command, now: i64) -> Receipt {
        match self.ask(command, now) {
            Outcome::Done(receipt) => receipt,
            other => panic!("{command:?} came to {other:?}"),
        }
    }

    fn reverse(&mut self, n: usize, amount: Option<i64>, release: bool, now: i64) -> Outcome {
        let Posting { kind, amount: moved, reservation: of, .. } = self.entries[n];
        let reversed = self.entries.iter().any(|e| e.reversal.is_some_and(|r| r.of == entry(n)));
        let original = Original { reservation: of.expect("of a reservation"), kind, amount: moved, reversed };
        self.books.originals = BTreeMap::from([(entry(n), original)]);
        let reason = ReversalReason::WrongAmount;
        self.ask(&Command::Reverse { reservation: reservation(0), entry: entry(n), amount, release, reason }, now)
    }

    fn kinds(&self) -> Vec<EntryKind> {
        self.entries.iter().map(|e| e.kind).collect()
    }
}

#[test]
fn a_hold_that_is_extended_expires_later_and_is_never_shortened() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    assert_eq!(done(&mut books, &extend(20), 5).reservation.expect("one").expire_time, at(25));
    assert_eq!(done(&mut books, &extend(2), 6).reservation.expect("one").expire_time, at(25));
    let expire = Command::Expire { reservation: reservation(0) };
    assert_eq!(books.decide(PROGRAMME, &expire, at(24)).expect("balanced").postings, []);
    assert_eq!(books.decide(PROGRAMME, &expire, at(25)).expect("balanced").postings[0].kind, Expire);
}

#[test]
fn an_expired_hold_is_reserved_again_by_an_extension_or_refused_for_money() {
    let mut books = books(&[1_000], &[500]);
    done(&mut books, &reserve(0, 400), 0);
    let decision = books.decide(PROGRAMME, &extend(20), at(10)).expect("balanced");
    assert_eq!(decision.postings.iter().map(|p| p.kind).collect::<Vec<_>>(), [Expire, Reserve]);
    assert_eq!((parts(&books, 0), books.reservations[&reservation(0)].recoverable), ((400, 0, 0, 400), 0));
    assert_eq!(books.reservations[&reservation(0)].expire_time, at(30));

    // Once more, when others have the envelope's money, and when the member's limit is taken.
    let of_nobody = |n, amount| match reserve(n, amount) {
        Command::Reserve { reservation, envelope, purpose, time_to_live, .. } => {
            Command::Reserve { reservation, envelope, member: None, purpose, amount, time_to_live }
        }
        other => other,
    };
    done(&mut books, &Command::Expire { reservation: reservation(0) }, 30);
    done(&mut books, &of_nobody(1, 700), 30);
    let short = Refusal::EnvelopeExhausted { envelope: envelope(0), asked: 400, available: 300, overrun_left: 0 };
    assert_eq!(refused(&mut books, &extend(20), 31), short);
    done(&mut books, &Command::Release { reservation: reservation(1), amount: None }, 32);
    done(&mut books, &reserve(2, 101), 33);
    let short = Refusal::MemberLimitExhausted { member: member(0), period_start_time: at(0), asked: 400, available: 399 };
    assert_eq!(refused(&mut books, &extend(20), 34), short);
    assert_eq!(books.reservations[&reservation(0)].expire_time, at(30));
}

#[test]
fn nothing_is_extended_where_nothing_is_held() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    done(&mut books, &Command::Release { reservation: reservation(0), amount: None }, 1);
    let nothing = Refusal::ReservationExhausted { reservation: reservation(0), asked: None, available: 0 };
    assert_eq!(refused(&mut books, &extend(20), 2), nothing);
}

#[test]
fn a_payment_that_was_a_mistake_is_owed_again() {
    let mut ledger = Ledger::paid();
    assert!(matches!(ledger.reverse(2, Some(150), false, 3), Outcome::Done(receipt) if receipt.available == 600));
    assert_eq!(parts(&ledger.books, 0), (100, 250, 50, 0));
    assert_eq!(ledger.entries[3].reversal, Some(Reversal { of: entry(2), reason: ReversalReason::WrongAmount }));
    assert_eq!(ledger.books.limits[0].used, 400);
}

#[test]
fn a_refund_is_back_with_the_envelope_and_the_members_limit() {
    let mut ledger = Ledger::paid();
    assert!(matches!(ledger.reverse(2, None, true, 3), Outcome::Done(receipt) if receipt.available == 800));
    assert_eq!((parts(&ledger.books, 0), ledger.books.limits[0].used), ((100, 100, 0, 200), 200));
    assert_eq!(ledger.kinds(), [Reserve, Commit, Spend, Refund]);
}

#[test]
fn a_commit_that_was_a_mistake_is_held_again_until_its_hold_is_over() {
    let mut ledger = Ledger::paid();
    ledger.reverse(1, Some(60), false, 3);
    assert_eq!(parts(&ledger.books, 0), (160, 40, 200, 0));
    // Its hold being over, it goes back in the same step, and can be committed again.
    let mut ledger = Ledger::paid();
    ledger.reverse(1, Some(60), false, 10);
    assert_eq!(ledger.kinds()[3..], [Expire, ReverseCommit, Expire]);
    assert_eq!((parts(&ledger.books, 0), ledger.books.reservations[&reservation(0)].recoverable), ((0, 40, 200, 160), 160));
    // With release it goes back for good.
    let mut ledger = Ledger::paid();
    ledger.reverse(1, Some(60), true, 3);
    assert_eq!(ledger.kinds()[3..], [ReverseCommit, Release]);
    assert_eq!(parts(&ledger.books, 0), (100, 40, 200, 60));
}

#[test]
fn an_entry_is_undone_once_and_for_no_more_than_it_moved_or_is_there() {
    let exhausted = |asked, available| {
        Outcome::Refused(Refusal::ReservationExhausted { reservation: reservation(0), asked: Some(asked), available })
    };
    let mut ledger = Ledger::paid();
    assert_eq!(ledger.reverse(2, Some(201), false, 3), exhausted(201, 200));
    // 200 of the 300 that were committed are paid: they are reversed at their payment first.
    assert_eq!(ledger.reverse(1, None, false, 3), exhausted(300, 100));
    ledger.done(&Command::Spend { reservation: reservation(0), amount: Some(50) }, 3);
    assert!(matches!(ledger.reverse(2, Some(1), false, 4), Outcome::Done(_)));
    assert_eq!(ledger.reverse(2, Some(1), false, 4), Outcome::Refused(Refusal::EntryReversed { entry: entry(2) }));
    assert_eq!(ledger.reverse(2, Some(1), true, 4), Outcome::Refused(Refusal::EntryReversed { entry: entry(2) }));
    // Asked for twice in the same books, as in a batch.
    let again = Command::Reverse {
        reservation: reservation(0),
        entry: entry(3),
        amount: None,
        release: true,
        reason: ReversalReason::Duplicate,
    };
    assert!(matches!(ledger.reverse(3, None, true, 5), Outcome::Done(_)));
    assert_eq!(ledger.ask(&again, 5), Outcome::Refused(Refusal::EntryReversed { entry: entry(3) }));
}

#[test]
fn only_commits_and_spends_of_the_reservation_are_undone() {
    let mut ledger = Ledger::paid();
    ledger.reverse(2, None, false, 3);
    for (n, kind) in [(0, "RESERVE"), (3, "REVERSE_SPEND")] {
        let refusal = Refusal::EntryNotReversible { entry: entry(n), kind: kind.into() };
        assert_eq!(ledger.reverse(n, None, true, 4), Outcome::Refused(refusal));
    }
    ledger.done(&reserve(1, 10), 4);
    assert_eq!(ledger.reverse(4, None, false, 4), Outcome::EntryNotFound(entry(4)));
    ledger.books.originals.clear();
    let command = Command::Reverse {
        reservation: reservation(0),
        entry: entry(2),
        amount: None,
        release: false,
        reason: ReversalReason::Duplicate,
    };
    let before = ledger.books.clone();
    assert_eq!((ledger.ask(&command, 20), ledger.books), (Outcome::EntryNotFound(entry(2)), before));
}
