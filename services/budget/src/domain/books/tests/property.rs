//! Any sequence of commands.

use super::*;
use proptest::{prelude::*, sample::Index};

#[derive(Debug, Clone)]
enum Step {
    Reserve {
        envelope: usize,
        member: Option<usize>,
        amount: i64,
        seconds: i64,
    },
    Commit {
        of: usize,
        amount: Option<i64>,
        release_rest: bool,
    },
    Spend {
        of: usize,
        amount: Option<i64>,
    },
    Release {
        of: usize,
        amount: Option<i64>,
    },
    Extend {
        of: usize,
        seconds: i64,
    },
    Reverse {
        entry: Index,
        amount: Option<i64>,
        release: bool,
    },
    Expire {
        of: usize,
    },
    SetLimit {
        member: usize,
        limit: i64,
    },
    /// The two members are one from then on.
    Merge {
        loser: usize,
    },
    Part,
    Wait {
        seconds: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let amount = || prop::option::of(1..120i64);
    prop_oneof![
        5 => (0..3usize, prop::option::of(0..2usize), 1..200i64, 1..60i64)
            .prop_map(|(envelope, member, amount, seconds)| Step::Reserve { envelope, member, amount, seconds }),
        4 => (any::<Index>(), amount(), any::<bool>())
            .prop_map(|(of, amount, release_rest)| Step::Commit { of: of.index(1_000), amount, release_rest }),
        3 => (any::<Index>(), amount()).prop_map(|(of, amount)| Step::Spend { of: of.index(1_000), amount }),
        3 => (any::<Index>(), amount()).prop_map(|(of, amount)| Step::Release { of: of.index(1_000), amount }),
        2 => (any::<Index>(), 1..60i64).prop_map(|(of, seconds)| Step::Extend { of: of.index(1_000), seconds }),
        4 => (any::<Index>(), amount(), any::<bool>())
            .prop_map(|(entry, amount, release)| Step::Reverse { entry, amount, release }),
        2 => any::<Index>().prop_map(|of| Step::Expire { of: of.index(1_000) }),
        1 => (0..2usize, 0..400i64).prop_map(|(member, limit)| Step::SetLimit { member, limit }),
        1 => (0..2usize).prop_map(|loser| Step::Merge { loser }),
        1 => Just(Step::Part),
        2 => (1..40i64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// As the store does when two members are merged or parted: one without a limit of its own stands beside the other's with nothing.
fn lend(books: &mut Books, own: usize) {
    books.limits.truncate(own);
    if own == 1 && !books.persons.leads.is_empty() {
        let in_use = books.reservations.values().filter(|r| r.member == Some(member(1))).map(|r| r.parts.in_use()).sum();
        books.limits.push(LimitUse { member: member(1), limit: 0, used: in_use, ..books.limits[0].clone() });
    }
}

/// What each person may use, and uses: of one, when the two are merged.
fn persons(books: &Books) -> BTreeMap<MemberId, (i64, i64)> {
    let mut persons = BTreeMap::new();
    for limit in &books.limits {
        let sums: &mut (i64, i64) = persons.entry(books.persons.led(PROGRAMME, limit.member)).or_default();
        *sums = (sums.0 + limit.limit, sums.1 + limit.used);
    }
    persons
}

/// The id under which the ledger knows its entries.
fn entry(n: usize) -> EntryId {
    EntryId(Uuid::from_u128(5_000 + n as u128))
}

/// A reversal undoes an earlier entry of its reservation, of the kind that it undoes, once and for no more than was moved.
fn hold_reversals(postings: &[Posting]) {
    let mut undone = Vec::new();
    for (n, reversal) in postings.iter().enumerate().filter_map(|(n, p)| Some((n, p.reversal?))) {
        let (by, of) = (&postings[n], (0..n).find(|m| entry(*m) == reversal.of).expect("an earlier one"));
        let original = &postings[of];
        assert!(by.reservation == original.reservation && by.amount <= original.amount, "{by:?} undoes {original:?}");
        let kinds = (by.kind, original.kind);
        let undoes = [
            (EntryKind::ReverseCommit, EntryKind::Commit),
            (EntryKind::ReverseSpend, EntryKind::Spend),
            (EntryKind::Refund, EntryKind::Spend),
        ];
        assert!(undoes.contains(&kinds), "{kinds:?}");
        undone.push(of);
    }
    let count = undone.len();
    undone.sort_unstable();
    undone.dedup();
    assert_eq!(undone.len(), count, "once");
}

fn hold_invariants(books: &Books, postings: &[Posting]) {
    hold_reversals(postings);
    for (id, book) in &books.envelopes {
        let (mut parts, own) = (Parts::default(), books.reservations.values().filter(|r| r.envelope == *id));
        for reservation in own {
            parts.reserved += reservation.parts.reserved;
            parts.committed += reservation.parts.committed;
            parts.spent += reservation.parts.spent;
        }
        let Balances { reserved, committed, spent, allocated } = book.balances;
        assert_eq!((parts.reserved, parts.committed, parts.spent), (reserved, committed, spent), "reservations sum");
        assert!(reserved >= 0 && committed >= 0 && spent >= 0 && book.room() >= 0, "{:?}", book.balances);
        let entries: Vec<_> = postings.iter().filter(|p| p.envelope == *id).collect();
        assert!(entries.iter().zip(1..).all(|(p, n)| p.envelope_sequence == n), "dense");
        let mut recomputed = Balances { allocated, ..Balances::default() };
        for entry in entries {
            recomputed.post(entry.kind, entry.amount, book.overrun_limit).expect("entries never overdraw");
            assert_eq!(recomputed.available(), entry.available_after);
        }
        assert_eq!(recomputed, book.balances, "entries sum");
    }
    for limit in &books.limits {
        let own = books.reservations.values().filter(|r| r.member == Some(limit.member));
        assert_eq!(own.map(|r| r.parts.in_use()).sum::<i64>(), limit.used, "limit use");
    }
    for reservation in books.reservations.values() {
        let own = |kinds: &[EntryKind]| -> i64 {
            let of_kind = postings.iter().filter(|p| p.reservation == Some(reservation.id) && kinds.contains(&p.kind));
            of_kind.map(|p| p.amount).sum()
        };
        let Parts { committed, spent, released, .. } = reservation.parts;
        assert_eq!(own(&[EntryKind::Reserve]), reservation.parts.amount(), "what was reserved");
        assert_eq!(own(&[EntryKind::Release, EntryKind::Expire, EntryKind::Refund]), released, "what went back");
        let paid = own(&[EntryKind::Spend]) - own(&[EntryKind::ReverseSpend, EntryKind::Refund]);
        assert_eq!(paid, spent, "what was paid");
        let owed = own(&[EntryKind::Commit, EntryKind::ReverseSpend]) - own(&[EntryKind::ReverseCommit, EntryKind::Spend]);
        assert_eq!(owed, committed, "what is owed");
        assert!((0..=reservation.parts.released).contains(&reservation.recoverable));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn money_is_conserved_whatever_is_asked(
        allocated in prop::collection::vec(0..1_000i64, 3),
        overruns in prop::collection::vec(prop_oneof![2 => Just(0), 1 => 1..300i64], 3),
        limits in prop::collection::vec(0..600i64, 0..3),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut books = books(&allocated, &limits);
        for (book, overrun_limit) in books.envelopes.values_mut().zip(overruns) {
            book.overrun_limit = overrun_limit;
        }
        let mut postings: Vec<Posting> = Vec::new();
        let (mut now, mut made) = (0, 0);
        for step in steps {
            let of = |n: usize| reservation(n % made.max(1));
            let command = match step {
                Step::Reserve { envelope: n, member: m, amount, seconds } => Command::Reserve {
                    reservation: reservation(made),
                    envelope: envelope(n),
                    member: m.map(member),
                    purpose: "assignment/1".into(),
                    amount,
                    time_to_live: TimeDelta::seconds(seconds),
                },
                Step::Commit { of: n, amount, release_rest } => Command::Commit { reservation: of(n), amount, release_rest },
                Step::Spend { of: n, amount } => Command::Spend { reservation: of(n), amount },
                Step::Release { of: n, amount } => Command::Release { reservation: of(n), amount },
                Step::Extend { of: n, seconds } => {
                    Command::Extend { reservation: of(n), time_to_live: TimeDelta::seconds(seconds) }
                }
                Step::Reverse { entry: n, amount, release } => {
                    if postings.is_empty() {
                        continue;
                    }
                    let n = n.index(postings.len());
                    let Posting { kind, amount: moved, reservation, .. } = postings[n];
                    let Some(reservation) = reservation else { continue };
                    // As the store reads it from the ledger.
                    let reversed = postings.iter().any(|p| p.reversal.is_some_and(|r| r.of == entry(n)));
                    books.originals = BTreeMap::from([(entry(n), Original { reservation, kind, amount: moved, reversed })]);
                    Command::Reverse { reservation, entry: entry(n), amount, release, reason: ReversalReason::Duplicate }
                }
                Step::Expire { of: n } => Command::Expire { reservation: of(n) },
                Step::SetLimit { member, limit } => {
                    if let Some(known) = books.limits.get_mut(member) {
                        known.limit = limit;
                    }
                    continue;
                }
                Step::Merge { loser } => {
                    books.persons.leads = BTreeMap::from([((PROGRAMME, member(loser)), member(1 - loser))]);
                    lend(&mut books, limits.len());
                    continue;
                }
                Step::Part => {
                    books.persons.leads.clear();
                    lend(&mut books, limits.len());
                    continue;
                }
                Step::Wait { seconds } => {
                    now += seconds;
                    continue;
                }
            };
            let before = books.clone();
            let decision = books.decide(PROGRAMME, &command, at(now)).expect("the books always add up");
            match &decision.outcome {
                Outcome::Done(_) if matches!(command, Command::Reserve { .. }) => made += 1,
                Outcome::Done(_) => {}
                Outcome::Refused(refusal) => {
                    match refusal {
                        Refusal::EnvelopeExhausted { envelope, asked, available, overrun_left } => {
                            let limit = books.envelopes[envelope].overrun_limit;
                            prop_assert!(*asked > (*available).max(0) + overrun_left);
                            prop_assert!(*overrun_left == limit + (*available).min(0) && *overrun_left >= 0);
                        }
                        Refusal::MemberLimitExhausted { asked, available, .. } => prop_assert!(asked > available && *available >= 0),
                        Refusal::ReservationExhausted { asked: Some(asked), available, .. } => prop_assert!(asked > available),
                        Refusal::ReservationExhausted { asked: None, available, .. } => prop_assert_eq!(*available, 0),
                        Refusal::EntryNotReversible { .. } | Refusal::EntryReversed { .. } => {
                            prop_assert!(command.original().is_some());
                        }
                        Refusal::MemberSuspended { .. } => prop_assert!(false, "books do not ask who asks"),
                        Refusal::PlanState { .. } => prop_assert!(false, "the plan is active"),
                        Refusal::GrantOwnsReservation { .. } => prop_assert!(false, "books do not ask who asks"),
                        Refusal::EnvelopeHasChildren { .. } => prop_assert!(false, "no envelope has children"),
                        Refusal::ReserveNeedsDraw { .. } => prop_assert!(false, "no envelope is the reserve"),
                    }
                    prop_assert!(decision.postings.iter().all(|p| p.kind == EntryKind::Expire), "a refusal moves no money");
                }
                Outcome::ReservationNotFound(_) => prop_assert_eq!(&before, &books),
                Outcome::EntryNotFound(_) => prop_assert!(false, "the entry is there"),
                Outcome::EnvelopeNotFound(_) => prop_assert!(false, "the envelope is there"),
            }
            for (id, was) in &before.reservations {
                let is = &books.reservations[id].parts;
                let reversed = command.original().is_some();
                let grew = is.amount() >= was.parts.amount() && is.released >= was.parts.released;
                prop_assert!(grew && (is.spent >= was.parts.spent || reversed), "what left `reserved` came back");
            }
            let was = persons(&before);
            for (person, (limit, used)) in persons(&books) {
                prop_assert!(used <= limit.max(was[&person].1), "a reservation took a limit past its end");
            }
            postings.extend(decision.postings);
        }
        // Every beginning of a sequence is a sequence too, so the end is where to look.
        hold_invariants(&books, &postings);
    }
}
