use super::*;
use proptest::prelude::*;
use uuid::Uuid;

const PROGRAMME: ProgrammeId = ProgrammeId(Uuid::from_u128(1));

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600 + second, 0).expect("in range")
}

fn envelope(n: usize) -> EnvelopeId {
    EnvelopeId(Uuid::from_u128(100 + n as u128))
}

fn member(n: usize) -> MemberId {
    MemberId(Uuid::from_u128(200 + n as u128))
}

fn reservation(n: usize) -> ReservationId {
    ReservationId(Uuid::from_u128(1_000 + n as u128))
}

fn books(allocated: &[i64], limits: &[i64]) -> Books {
    let period = Period::new(at(0), at(1_000)).expect("not empty");
    let book = |allocated: &i64| EnvelopeBook {
        programme: PROGRAMME,
        plan: PlanId(Uuid::from_u128(50)),
        is_reserve: false,
        stage: Stage::Active,
        period,
        balances: Balances { allocated: *allocated, ..Balances::default() },
        sequence: 0,
    };
    let limit = |(n, limit): (usize, &i64)| LimitUse { programme: PROGRAMME, member: member(n), period, limit: *limit, used: 0 };
    Books {
        envelopes: allocated.iter().enumerate().map(|(n, a)| (envelope(n), book(a))).collect(),
        limits: limits.iter().enumerate().map(limit).collect(),
        reservations: BTreeMap::new(),
    }
}

fn reserve(n: usize, amount: i64) -> Command {
    Command::Reserve {
        reservation: reservation(n),
        envelope: envelope(0),
        member: Some(member(0)),
        purpose: "assignment/1".into(),
        amount,
        time_to_live: TimeDelta::seconds(10),
    }
}

fn done(books: &mut Books, command: &Command, now: i64) -> Receipt {
    match books.decide(PROGRAMME, command, at(now)).expect("balanced").outcome {
        Outcome::Done(receipt) => receipt,
        other => panic!("{command:?} came to {other:?}"),
    }
}

fn refused(books: &mut Books, command: &Command, now: i64) -> Refusal {
    match books.decide(PROGRAMME, command, at(now)).expect("balanced").outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{command:?} came to {other:?}"),
    }
}

fn parts(books: &Books, n: usize) -> (i64, i64, i64, i64) {
    let Parts { reserved, committed, spent, released } = books.reservations[&reservation(n)].parts;
    (reserved, committed, spent, released)
}

fn commit(amount: Option<i64>) -> Command {
    Command::Commit { reservation: reservation(0), amount, release_rest: false }
}

#[test]
fn the_strategic_reserve_gives_money_to_draws_alone() {
    let mut books = books(&[100], &[]);
    books.envelopes.get_mut(&envelope(0)).expect("there").is_reserve = true;
    assert_eq!(refused(&mut books, &reserve(0, 1), 0), Refusal::ReserveNeedsDraw { envelope: envelope(0) });
    let Command::Reserve { reservation, envelope, amount, time_to_live, .. } = reserve(0, 100) else { unreachable!() };
    let purpose = format!("{}1", reserve_draw::PURPOSE);
    let draw = Command::Reserve { reservation, envelope, member: None, purpose, amount, time_to_live };
    assert_eq!(done(&mut books, &draw, 0).available, 0);
}

#[test]
fn money_goes_from_held_to_owed_to_paid_and_the_rest_back() {
    let mut books = books(&[1_000], &[]);
    assert_eq!(done(&mut books, &reserve(0, 400), 0).available, 600);
    done(&mut books, &commit(Some(250)), 1);
    done(&mut books, &Command::Spend { reservation: reservation(0), amount: Some(100) }, 2);
    assert_eq!(parts(&books, 0), (150, 150, 100, 0));
    let receipt = done(&mut books, &Command::Release { reservation: reservation(0), amount: None }, 3);
    assert_eq!((parts(&books, 0), receipt.available), ((0, 150, 100, 150), 750));
}

#[test]
fn a_commit_may_give_the_rest_back_in_the_same_step() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    let command = Command::Commit { reservation: reservation(0), amount: Some(300), release_rest: true };
    let decision = books.decide(PROGRAMME, &command, at(1)).expect("balanced");
    assert_eq!(decision.postings.iter().map(|p| p.kind).collect::<Vec<_>>(), [EntryKind::Commit, EntryKind::Release]);
    assert_eq!(parts(&books, 0), (0, 300, 0, 100));
}

#[test]
fn an_overdue_hold_expires_before_it_is_committed_and_is_reserved_again() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    let decision = books.decide(PROGRAMME, &commit(Some(150)), at(10)).expect("balanced");
    let kinds: Vec<_> = decision.postings.iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [EntryKind::Expire, EntryKind::Reserve, EntryKind::Commit]);
    assert_eq!(parts(&books, 0), (0, 150, 0, 400));
    assert_eq!(books.reservations[&reservation(0)].recoverable, 250);
    // What is left of it can be committed too, and no more.
    assert_eq!(refused(&mut books, &commit(Some(251)), 11), exhausted(Some(251), 250));
    done(&mut books, &commit(None), 11);
    assert_eq!(parts(&books, 0), (0, 400, 0, 400));
}

fn exhausted(asked: Option<i64>, available: i64) -> Refusal {
    Refusal::ReservationExhausted { reservation: reservation(0), asked, available }
}

#[test]
fn an_expired_hold_is_refused_for_money_that_went_to_others() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    done(&mut books, &Command::Expire { reservation: reservation(0) }, 10);
    done(&mut books, &reserve(1, 900), 11);
    let refusal = refused(&mut books, &commit(None), 12);
    assert_eq!(refusal, Refusal::EnvelopeExhausted { envelope: envelope(0), asked: 400, available: 100 });
    done(&mut books, &commit(Some(100)), 12);
}

#[test]
fn a_hold_does_not_expire_before_its_time() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    let decision = books.decide(PROGRAMME, &Command::Expire { reservation: reservation(0) }, at(9)).expect("balanced");
    assert_eq!(decision.postings, []);
    assert_eq!(parts(&books, 0), (400, 0, 0, 0));
}

#[test]
fn to_release_what_expired_moves_nothing_and_is_final() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    let some = Command::Release { reservation: reservation(0), amount: Some(1) };
    assert_eq!(refused(&mut books, &some, 10), exhausted(Some(1), 0));
    let all = Command::Release { reservation: reservation(0), amount: None };
    done(&mut books, &all, 11);
    assert_eq!(refused(&mut books, &commit(None), 12), exhausted(None, 0));
    assert_eq!(parts(&books, 0), (0, 0, 0, 400));
}

#[test]
fn a_members_limit_counts_what_is_held_owed_and_paid() {
    let mut books = books(&[1_000], &[500]);
    done(&mut books, &reserve(0, 400), 0);
    done(&mut books, &commit(Some(300)), 1);
    let short = Refusal::MemberLimitExhausted { member: member(0), period_start_time: at(0), asked: 101, available: 100 };
    assert_eq!(refused(&mut books, &reserve(1, 101), 2), short);
    done(&mut books, &Command::Release { reservation: reservation(0), amount: None }, 3);
    done(&mut books, &reserve(1, 200), 4);
    // A limit that was lowered below its use leaves nothing.
    books.limits[0].limit = 10;
    let short = Refusal::MemberLimitExhausted { member: member(0), period_start_time: at(0), asked: 1, available: 0 };
    assert_eq!(refused(&mut books, &reserve(2, 1), 5), short);
}

#[test]
fn a_limit_counts_only_plans_whose_period_lies_in_its_own() {
    let mut books = books(&[1_000], &[10]);
    books.limits[0].period = Period::new(at(0), at(999)).expect("not empty");
    done(&mut books, &reserve(0, 400), 0);
    assert_eq!(books.limits[0].used, 0);
}

#[test]
fn only_an_active_plan_takes_reservations() {
    let mut books = books(&[1_000], &[]);
    books.envelopes.get_mut(&envelope(0)).expect("there").stage = Stage::Approved;
    assert!(matches!(refused(&mut books, &reserve(0, 1), 0), Refusal::PlanState { state, .. } if state == "APPROVED"));
}

#[test]
fn another_programmes_envelope_and_reservation_are_not_found() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    let other = ProgrammeId(Uuid::from_u128(9));
    let outcome = |books: &mut Books, command: &Command| books.decide(other, command, at(1)).expect("balanced").outcome;
    assert_eq!(outcome(&mut books, &reserve(1, 1)), Outcome::EnvelopeNotFound(envelope(0)));
    assert_eq!(outcome(&mut books, &commit(None)), Outcome::ReservationNotFound(reservation(0)));
}

#[derive(Debug, Clone)]
enum Step {
    Reserve { envelope: usize, member: Option<usize>, amount: i64, seconds: i64 },
    Commit { of: usize, amount: Option<i64>, release_rest: bool },
    Spend { of: usize, amount: Option<i64> },
    Release { of: usize, amount: Option<i64> },
    Expire { of: usize },
    SetLimit { member: usize, limit: i64 },
    Wait { seconds: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let amount = || prop::option::of(1..120i64);
    prop_oneof![
        5 => (0..3usize, prop::option::of(0..2usize), 1..200i64, 1..60i64)
            .prop_map(|(envelope, member, amount, seconds)| Step::Reserve { envelope, member, amount, seconds }),
        4 => (any::<prop::sample::Index>(), amount(), any::<bool>())
            .prop_map(|(of, amount, release_rest)| Step::Commit { of: of.index(1_000), amount, release_rest }),
        3 => (any::<prop::sample::Index>(), amount()).prop_map(|(of, amount)| Step::Spend { of: of.index(1_000), amount }),
        3 => (any::<prop::sample::Index>(), amount()).prop_map(|(of, amount)| Step::Release { of: of.index(1_000), amount }),
        2 => any::<prop::sample::Index>().prop_map(|of| Step::Expire { of: of.index(1_000) }),
        1 => (0..2usize, 0..400i64).prop_map(|(member, limit)| Step::SetLimit { member, limit }),
        2 => (1..40i64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

fn hold_invariants(books: &Books, postings: &[Posting]) {
    for (id, book) in &books.envelopes {
        let (mut parts, own) = (Parts::default(), books.reservations.values().filter(|r| r.envelope == *id));
        for reservation in own {
            parts.reserved += reservation.parts.reserved;
            parts.committed += reservation.parts.committed;
            parts.spent += reservation.parts.spent;
        }
        let Balances { reserved, committed, spent, allocated } = book.balances;
        assert_eq!((parts.reserved, parts.committed, parts.spent), (reserved, committed, spent), "reservations sum");
        assert!(reserved >= 0 && committed >= 0 && spent >= 0 && book.balances.available() >= 0, "{:?}", book.balances);
        let entries: Vec<_> = postings.iter().filter(|p| p.envelope == *id).collect();
        assert!(entries.iter().zip(1..).all(|(p, n)| p.envelope_sequence == n), "dense");
        let mut recomputed = Balances { allocated, ..Balances::default() };
        for entry in entries {
            recomputed.post(entry.kind, entry.amount).expect("entries never overdraw");
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
        assert_eq!(own(&[EntryKind::Reserve]), reservation.parts.amount(), "what was reserved");
        assert_eq!(own(&[EntryKind::Release, EntryKind::Expire]), reservation.parts.released, "what went back");
        assert_eq!(own(&[EntryKind::Spend]), reservation.parts.spent, "what was paid");
        assert!((0..=reservation.parts.released).contains(&reservation.recoverable));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn money_is_conserved_whatever_is_asked(
        allocated in prop::collection::vec(0..1_000i64, 3),
        limits in prop::collection::vec(0..600i64, 0..3),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut books = books(&allocated, &limits);
        let mut postings = Vec::new();
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
                Step::Expire { of: n } => Command::Expire { reservation: of(n) },
                Step::SetLimit { member, limit } => {
                    if let Some(known) = books.limits.get_mut(member) {
                        known.limit = limit;
                    }
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
                        Refusal::EnvelopeExhausted { asked, available, .. }
                        | Refusal::MemberLimitExhausted { asked, available, .. } => prop_assert!(asked > available && *available >= 0),
                        Refusal::ReservationExhausted { asked: Some(asked), available, .. } => prop_assert!(asked > available),
                        Refusal::ReservationExhausted { asked: None, available, .. } => prop_assert_eq!(*available, 0),
                        Refusal::PlanState { .. } => prop_assert!(false, "the plan is active"),
                        Refusal::ReserveNeedsDraw { .. } => prop_assert!(false, "no envelope is the reserve"),
                    }
                    prop_assert!(decision.postings.iter().all(|p| p.kind == EntryKind::Expire), "a refusal moves no money");
                }
                Outcome::ReservationNotFound(_) => prop_assert_eq!(&before, &books),
                Outcome::EnvelopeNotFound(_) => prop_assert!(false, "the envelope is there"),
            }
            for (id, was) in &before.reservations {
                let is = &books.reservations[id].parts;
                let grew = is.amount() >= was.parts.amount() && is.spent >= was.parts.spent && is.released >= was.parts.released;
                prop_assert!(grew, "what left `reserved` came back");
            }
            for (was, is) in before.limits.iter().zip(&books.limits) {
                prop_assert!(is.used <= is.limit.max(was.used), "a reservation took a limit past its end");
            }
            postings.extend(decision.postings);
        }
        // Every beginning of a sequence is a sequence too, so the end is where to look.
        hold_invariants(&books, &postings);
    }
}
