use super::*;
use uuid::Uuid;

mod afterwards;
mod property;

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
        has_children: false,
        stage: Stage::Active,
        period,
        balances: Balances { allocated: *allocated, ..Balances::default() },
        overrun_limit: 0,
        sequence: 0,
    };
    let limit = |(n, limit): (usize, &i64)| LimitUse { programme: PROGRAMME, member: member(n), period, limit: *limit, used: 0 };
    Books {
        envelopes: allocated.iter().enumerate().map(|(n, a)| (envelope(n), book(a))).collect(),
        limits: limits.iter().enumerate().map(limit).collect(),
        ..Books::default()
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
    assert_eq!(refusal, Refusal::EnvelopeExhausted { envelope: envelope(0), asked: 400, available: 100, overrun_left: 0 });
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
fn members_that_are_one_person_have_their_limits_summed_and_their_own_again_when_they_are_parted() {
    let mut books = books(&[1_000], &[100, 50]);
    let of = |n: usize, by: usize, amount: i64| {
        let Command::Reserve { envelope, purpose, time_to_live, .. } = reserve(n, amount) else { unreachable!() };
        Command::Reserve { reservation: reservation(n), envelope, member: Some(member(by)), purpose, amount, time_to_live }
    };
    done(&mut books, &of(0, 0, 30), 0);
    done(&mut books, &of(1, 1, 40), 0);
    books.persons.leads.insert((PROGRAMME, member(1)), member(0));
    let short = Refusal::MemberLimitExhausted { member: member(0), period_start_time: at(0), asked: 81, available: 80 };
    assert_eq!(refused(&mut books, &of(2, 1, 81), 0), short);
    let held = done(&mut books, &of(2, 1, 80), 0).reservation.expect("held");
    assert_eq!(held.member, Some(member(0)), "for the one that goes on");
    // What was the loser's stays counted as its own.
    done(&mut books, &Command::Release { reservation: reservation(1), amount: Some(10) }, 1);
    assert_eq!(books.limits.iter().map(|limit| limit.used).collect::<Vec<_>>(), [110, 30]);
    books.persons.leads.clear();
    let over = Refusal::MemberLimitExhausted { member: member(0), period_start_time: at(0), asked: 1, available: 0 };
    assert_eq!(refused(&mut books, &of(3, 0, 1), 1), over, "what came since stays with the winner");
    done(&mut books, &of(3, 1, 20), 1);
}

#[test]
fn nothing_is_held_for_a_person_where_it_would_be_counted_nowhere() {
    let mut books = books(&[1_000], &[100]);
    let of = |n: usize, by: usize, amount: i64| {
        let Command::Reserve { envelope, purpose, time_to_live, .. } = reserve(n, amount) else { unreachable!() };
        Command::Reserve { reservation: reservation(n), envelope, member: Some(member(by)), purpose, amount, time_to_live }
    };
    // The first leads to the second, which has no limit whose period holds the plan's.
    books.persons.leads.insert((PROGRAMME, member(0)), member(1));
    let short = Refusal::MemberLimitExhausted { member: member(1), period_start_time: at(0), asked: 1, available: 0 };
    for by in [0, 1] {
        assert_eq!(refused(&mut books, &of(by, by, 1), 0), short);
    }
    done(&mut books, &of(2, 2, 1), 0);
}

#[test]
fn nothing_new_is_held_for_who_is_suspended_by_whichever_of_its_ids_and_what_is_held_goes_on() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 100), 0);
    assert_eq!(books.bars(PROGRAMME, &reserve(1, 1)), None);
    books.persons.leads.insert((PROGRAMME, member(0)), member(1));
    books.persons.suspended.insert((PROGRAMME, member(1)));
    assert_eq!(books.bars(PROGRAMME, &reserve(1, 1)), Some(Refusal::MemberSuspended { member: member(1) }));
    assert_eq!(books.bars(ProgrammeId(Uuid::from_u128(2)), &reserve(1, 1)), None, "another programme's");
    for command in [commit(None), Command::Extend { reservation: reservation(0), time_to_live: TimeDelta::seconds(5) }] {
        assert_eq!(books.bars(PROGRAMME, &command), None);
    }
    let Command::Reserve { reservation, envelope, purpose, amount, time_to_live, .. } = reserve(1, 1) else { unreachable!() };
    let nobodys = Command::Reserve { reservation, envelope, member: None, purpose, amount, time_to_live };
    assert_eq!(books.bars(PROGRAMME, &nobodys), None);
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
fn an_envelope_overruns_as_far_as_its_limit_and_says_what_is_left() {
    let mut books = books(&[1_000], &[]);
    books.envelopes.get_mut(&envelope(0)).expect("there").overrun_limit = 50;
    let exhausted =
        |asked, available, overrun_left| Refusal::EnvelopeExhausted { envelope: envelope(0), asked, available, overrun_left };
    assert_eq!(refused(&mut books, &reserve(0, 1_051), 0), exhausted(1_051, 1_000, 50));
    assert_eq!(done(&mut books, &reserve(0, 1_020), 0).available, -20);
    assert_eq!(refused(&mut books, &reserve(1, 31), 0), exhausted(31, -20, 30));
    assert_eq!(done(&mut books, &reserve(1, 30), 0).available, -50);
    assert_eq!(refused(&mut books, &reserve(2, 1), 0), exhausted(1, -50, 0));
    assert_eq!(done(&mut books, &Command::Release { reservation: reservation(1), amount: None }, 1).available, -20);
}

#[test]
fn an_expired_hold_is_not_reserved_again_once_the_plan_is_closed() {
    let mut books = books(&[1_000], &[]);
    done(&mut books, &reserve(0, 400), 0);
    done(&mut books, &Command::Commit { reservation: reservation(0), amount: Some(100), release_rest: false }, 1);
    books.envelopes.get_mut(&envelope(0)).expect("there").stage = Stage::Closed;
    for command in [commit(None), Command::Extend { reservation: reservation(0), time_to_live: TimeDelta::seconds(5) }] {
        assert!(
            matches!(refused(&mut books, &command, 11), Refusal::PlanState { state, .. } if state == "CLOSED"),
            "{command:?}"
        );
    }
    done(&mut books, &Command::Spend { reservation: reservation(0), amount: None }, 12);
}

#[test]
fn an_envelope_with_children_takes_no_reservations() {
    let mut books = books(&[1_000], &[]);
    books.envelopes.get_mut(&envelope(0)).expect("there").has_children = true;
    assert_eq!(refused(&mut books, &reserve(0, 1), 0), Refusal::EnvelopeHasChildren { envelope: envelope(0) });
}

#[test]
fn only_what_is_available_is_taken_out_of_an_envelope() {
    let mut books = books(&[1_000], &[]);
    books.envelopes.get_mut(&envelope(0)).expect("there").overrun_limit = 50;
    done(&mut books, &reserve(0, 400), 0);
    let take = |amount| Command::Deallocate { envelope: envelope(0), amount };
    // What may be overrun is not there to be taken.
    let short = Refusal::EnvelopeExhausted { envelope: envelope(0), asked: 601, available: 600, overrun_left: 0 };
    assert_eq!(refused(&mut books, &take(601), 1), short);
    assert_eq!(done(&mut books, &take(600), 1).available, 0);
    assert_eq!(books.envelopes[&envelope(0)].balances, Balances { allocated: 400, reserved: 400, ..Balances::default() });
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
