use super::*;
use uuid::Uuid;

fn run(mode: Mode, state: RunState) -> Run {
    let settings = Settings {
        source_system: "crm".into(),
        name: "nightly".into(),
        mode,
        validate_only: false,
        as_of: None,
        max_delete_percent: 5,
    };
    let now = DateTime::UNIX_EPOCH;
    Run {
        id: RunId(Uuid::nil()),
        programme: ProgrammeId(Uuid::nil()),
        settings,
        state,
        committed_through: 3,
        counts: Counts::default(),
        unseen: Unseen::default(),
        walked_to: None,
        actor: "importer".into(),
        closed_by: None,
        create_time: now,
        update_time: now,
        end_time: None,
    }
}

#[test]
fn the_next_batch_is_applied_those_before_are_answered_again_and_a_gap_is_refused() {
    let open = run(Mode::Incremental, RunState::Open);
    assert_eq!(open.course(4), Ok(Course::Apply));
    assert_eq!(open.course(3), Ok(Course::Replay));
    assert_eq!(open.course(1), Ok(Course::Replay));
    assert_eq!(open.course(6), Err(Refusal::Gap { run: open.id, got: 6, next: 4 }));
}

#[test]
fn a_closed_run_answers_again_what_it_committed_and_takes_nothing_new() {
    for state in [RunState::Checking, RunState::Held, RunState::Sweeping, RunState::Ended, RunState::Lapsed] {
        let closed = run(Mode::Full, state);
        assert_eq!(closed.course(3), Ok(Course::Replay));
        assert_eq!(closed.course(4), Err(Refusal::Closed { run: closed.id, state }));
        assert_eq!(closed.closed(), state);
    }
}

#[test]
fn a_run_is_gone_on_with_under_the_settings_it_was_opened_with() {
    let open = run(Mode::Full, RunState::Open);
    assert_eq!(open.reopen(&open.settings), Ok(()));
    let trial = Settings { validate_only: true, ..open.settings.clone() };
    assert_eq!(open.reopen(&trial), Err(Refusal::Differs { run: open.id, setting: "validate_only" }));
    let other = Settings { max_delete_percent: 6, ..open.settings.clone() };
    assert_eq!(open.reopen(&other), Err(Refusal::Differs { run: open.id, setting: "max_delete_percent" }));
}

#[test]
fn a_full_run_sweeps_within_its_share_and_waits_beyond_it() {
    let checked = |unseen: Unseen| Run { unseen, ..run(Mode::Full, RunState::Checking) }.checked();
    let of_200 = |unseen| Unseen { source: 200, unseen, ..Unseen::default() };
    assert_eq!(checked(of_200(0)), RunState::Sweeping);
    assert_eq!(checked(of_200(10)), RunState::Sweeping);
    assert_eq!(checked(of_200(11)), RunState::Held);
    // Somebody may be there whose row could not be read.
    assert_eq!(checked(Unseen { unidentified: 1, ..of_200(1) }), RunState::Held);
    assert_eq!(checked(Unseen { unidentified: 1, ..of_200(0) }), RunState::Ended);
    assert_eq!(run(Mode::Full, RunState::Open).closed(), RunState::Checking);
    assert_eq!(run(Mode::Incremental, RunState::Open).closed(), RunState::Ended);
}

#[test]
fn another_person_confirms_a_held_run() {
    let held = run(Mode::Full, RunState::Held);
    assert_eq!(held.confirm("importer"), Err(Refusal::ApproverIsRequester));
    let closed = Run { closed_by: Some("closer".into()), ..held.clone() };
    assert_eq!(closed.confirm("closer"), Err(Refusal::ApproverIsRequester));
    assert_eq!(closed.confirm("operator"), Ok(()));
    let ended = run(Mode::Full, RunState::Ended);
    assert_eq!(ended.confirm("operator"), Err(Refusal::NotHeld { run: ended.id, state: RunState::Ended }));
}

#[test]
fn a_row_that_goes_in_later_is_no_longer_counted_as_rejected() {
    let mut counts = Counts::default();
    counts.add(Outcome::Rejected);
    counts.add(Outcome::Created);
    counts.move_rejected(Outcome::Created);
    assert_eq!(counts.iter().collect::<Vec<_>>(), [(Outcome::Created, 2)]);
}

#[test]
fn credit_halves_while_the_database_is_slow_and_comes_back_step_by_step() {
    let (slow, quick) = (Duration::from_secs(2), Duration::from_millis(20));
    let mut credit = Credit::MOST;
    for left in [4, 2, 1, 1] {
        credit = credit.after(slow);
        assert_eq!(credit.batches(), left);
    }
    assert_eq!(credit.after(Duration::from_millis(600)), credit);
    for left in [2, 3, 4, 5, 6, 7, 8, 8] {
        credit = credit.after(quick);
        assert_eq!(credit.batches(), left);
    }
}
