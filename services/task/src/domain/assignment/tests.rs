//! The machine by its rules, and under any sequence of commands.

use super::*;
use crate::domain::brief::{DeliverableKind, DeliverableSpec};
use chrono::TimeDelta;
use koc_chassis::money::Currency;
use proptest::prelude::*;
use uuid::Uuid;

const NOW: DateTime<Utc> = DateTime::from_timestamp(1_767_225_600, 0).expect("in range");

fn hold() -> ReservationId {
    Uuid::from_u128(7).into()
}

fn first() -> SubmissionId {
    Uuid::from_u128(11).into()
}

fn second() -> SubmissionId {
    Uuid::from_u128(12).into()
}

fn package() -> Package {
    let spec = |key: &str, weight_percent| DeliverableSpec {
        key: key.to_owned(),
        kind: DeliverableKind::Article,
        weight_percent,
        acceptance_criteria: "tells what was asked".to_owned(),
    };
    Package::parse(vec![spec("article", 60), spec("video", 40)]).expect("sound")
}

fn offered() -> Assignment {
    Assignment {
        id: Uuid::nil().into(),
        programme: Uuid::nil().into(),
        task: Uuid::nil().into(),
        member: Uuid::nil().into(),
        tier_id: "CORE".into(),
        brief: Uuid::nil().into(),
        brief_revision: 1,
        reward: Money::new(10_001, Currency::from_code("CNY").expect("CNY is a currency")),
        deadlines: Deadlines { offer: NOW + TimeDelta::days(7), delivery: NOW + TimeDelta::days(30), review_days: 7 },
        state: State::Offered,
        create_time: NOW,
        update_time: NOW,
    }
}

fn reserving() -> Assignment {
    offered().accept(Participation::Given, NOW).expect("offered")
}

fn in_progress() -> Assignment {
    reserving().fund(hold(), NOW).expect("reserving")
}

fn submitted() -> Assignment {
    in_progress().submit(first(), NOW).expect("in progress")
}

fn refusal() -> Unfunded {
    Unfunded {
        reason: "ENVELOPE_EXHAUSTED".into(),
        limit_type: Some("ENVELOPE".into()),
        limit_id: Some("e".into()),
        asked_minor: Some(10_001),
        available_minor: Some(5),
    }
}

#[test]
fn a_part_of_the_package_earns_its_part_of_the_reward() {
    let approved = submitted().review(Stage::Live, Verdict::Approved, vec!["video".into()], NOW).expect("submitted");
    let completed = approved.complete(&package(), NOW).expect("approved");
    let due = Money::new(4_000, completed.reward.currency);
    assert_eq!(completed.state.dues(), Some((hold(), Dues::Commit(due))));
    assert_eq!(completed.state.settlement(), Settlement::Settling);
    let settled = completed.settle(NOW).expect("settling");
    assert_eq!((settled.state.settlement(), settled.state.dues()), (Settlement::Settled, None));
}

#[test]
fn what_earns_less_than_a_minor_unit_is_given_back() {
    let tiny = Assignment { reward: Money::new(1, offered().reward.currency), ..submitted() };
    let approved = tiny.review(Stage::Live, Verdict::Approved, vec!["video".into()], NOW).expect("submitted");
    assert_eq!(approved.complete(&package(), NOW).expect("approved").state.dues(), Some((hold(), Dues::Release)));
}

#[test]
fn an_approved_draft_sends_the_member_back_to_work() {
    for stage in [Stage::Concept, Stage::Draft] {
        let next = submitted().review(stage, Verdict::Approved, vec!["article".into()], NOW).expect("submitted");
        assert_eq!(next.state, State::InProgress { hold: hold() });
        assert_eq!(
            next.complete(&package(), NOW).expect_err("no LIVE").to_string(),
            "the assignment is IN_PROGRESS, so it cannot be completed"
        );
    }
}

#[test]
fn a_new_submission_undoes_the_approval_of_the_one_before() {
    let approved = submitted().review(Stage::Live, Verdict::Approved, vec!["video".into()], NOW).expect("submitted");
    let again = approved.submit(second(), NOW).expect("submitted");
    assert_eq!(again.reviewable(first()), Err(AssignmentError::SubmissionNotLatest { latest: second() }));
    assert_eq!(again.complete(&package(), NOW), Err(AssignmentError::NothingAccepted));
}

#[test]
fn a_member_who_gives_up_while_money_is_asked_for_gets_none_held() {
    let gone = reserving().decline(NOW).expect("reserving");
    assert_eq!((gone.state.settlement(), gone.state.hold()), (Settlement::Settling, None));
    let funded = gone.clone().fund(hold(), NOW).expect("awaiting");
    assert_eq!(funded.state.dues(), Some((hold(), Dues::Release)));
    let refused = gone.refuse_funds(refusal(), NOW).expect("awaiting");
    assert_eq!(refused.state, State::Declined(Closing::Unheld));
}

#[test]
fn the_clock_refuses_what_is_late() {
    let deadlines = offered().deadlines;
    assert_eq!(
        offered().accept(Participation::Given, deadlines.offer),
        Err(AssignmentError::OfferClosed { deadline: deadlines.offer })
    );
    let late = in_progress().submit(first(), deadlines.delivery);
    assert_eq!(late, Err(AssignmentError::DeliveryClosed { deadline: deadlines.delivery }));
}

#[test]
fn a_deadline_expires_what_it_is_for_and_nothing_else() {
    let deadlines = offered().deadlines;
    let expired = |assignment: Option<Assignment>| assignment.map(|a| a.state);
    assert_eq!(expired(offered().expire_offer(deadlines.offer)), Some(State::Expired(Closing::Unheld)));
    assert_eq!(expired(offered().expire_offer(NOW)), None);
    assert_eq!(expired(reserving().expire_offer(deadlines.offer)), None);
    assert_eq!(expired(in_progress().expire_delivery(deadlines.delivery)), Some(State::Expired(Closing::Settling(hold()))));
    assert_eq!(expired(in_progress().expire_delivery(NOW)), None);
    assert_eq!(expired(submitted().expire_delivery(deadlines.delivery)), None);
    let sent_back = submitted().review(Stage::Live, Verdict::ChangesRequested, Vec::new(), NOW).expect("submitted");
    assert_eq!(expired(sent_back.expire_delivery(deadlines.delivery)), Some(State::Expired(Closing::Settling(hold()))));
}

/// Everything that can be asked of an assignment.
#[derive(Debug, Clone)]
enum Command {
    Accept,
    Fund,
    RefuseFunds,
    Decline,
    Submit,
    Review(Stage, Verdict),
    Complete,
    ExpireOffer,
    ExpireDelivery,
    Settle,
    Wait(i64),
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let stage = prop_oneof![Just(Stage::Concept), Just(Stage::Draft), Just(Stage::Live)];
    let verdict = prop_oneof![Just(Verdict::Approved), Just(Verdict::ChangesRequested), Just(Verdict::Rejected)];
    let command = prop_oneof![
        4 => Just(Command::Accept),
        4 => Just(Command::Fund),
        1 => Just(Command::RefuseFunds),
        1 => Just(Command::Decline),
        4 => Just(Command::Submit),
        4 => (stage, verdict).prop_map(|(s, v)| Command::Review(s, v)),
        3 => Just(Command::Complete),
        1 => Just(Command::ExpireOffer),
        1 => Just(Command::ExpireDelivery),
        2 => Just(Command::Settle),
        1 => (0i64..20).prop_map(Command::Wait),
    ];
    prop::collection::vec(command, 0..40)
}

fn apply(assignment: Assignment, command: &Command, now: DateTime<Utc>) -> Result<Assignment, AssignmentError> {
    let unchanged = assignment.clone();
    match command {
        Command::Accept => assignment.accept(Participation::Given, now),
        Command::Fund => assignment.fund(hold(), now),
        Command::RefuseFunds => assignment.refuse_funds(refusal(), now),
        Command::Decline => assignment.decline(now),
        Command::Submit => assignment.submit(first(), now),
        Command::Review(stage, verdict) => assignment.review(*stage, *verdict, vec!["article".into()], now),
        Command::Complete => assignment.complete(&package(), now),
        Command::ExpireOffer => Ok(assignment.expire_offer(now).unwrap_or(unchanged)),
        Command::ExpireDelivery => Ok(assignment.expire_delivery(now).unwrap_or(unchanged)),
        Command::Settle => assignment.settle(now),
        Command::Wait(_) => Ok(assignment),
    }
}

fn is_terminal(state: &State) -> bool {
    matches!(state, State::Completed { .. } | State::Unfunded(_) | State::Declined(_) | State::Rejected(_) | State::Expired(_))
}

proptest! {
    #[test]
    fn no_sequence_of_commands_ends_an_assignment_twice_or_loses_its_money(commands in commands()) {
        let (mut assignment, mut now) = (offered(), NOW);
        let mut ended: Option<&'static str> = None;
        let (mut funded, mut closed) = (false, false);
        for command in &commands {
            if let Command::Wait(days) = command {
                now += TimeDelta::days(*days);
            }
            let before = assignment.state.clone();
            match apply(assignment.clone(), command, now) {
                Ok(after) => assignment = after,
                Err(AssignmentError::State { state, .. }) => prop_assert_eq!(state, before.name()),
                Err(_) => {}
            }
            let state = &assignment.state;
            funded |= matches!(command, Command::Fund) && before != *state;
            closed |= is_terminal(state);

            // Once ended, it stays what it ended as.
            if let Some(name) = ended {
                prop_assert_eq!(state.name(), name);
            }
            if is_terminal(state) {
                ended = Some(state.name());
            }
            // Money is held between the answer to Reserve and the end, and only then.
            prop_assert_eq!(state.settlement() == Settlement::Held, funded && !closed);
            // A hold is known from the answer on for good.
            prop_assert_eq!(state.hold().is_some(), funded);
            // Whatever ended with money has something to tell the budget until it is settled, and nothing after.
            prop_assert_eq!(state.dues().is_some(), funded && state.settlement() == Settlement::Settling);
            if let State::Completed { earned, .. } = state {
                prop_assert!((1..=assignment.reward.minor).contains(&earned.minor));
            }
        }
        // Every end leads to NONE or SETTLED: the answer that is awaited comes, then the budget is told.
        if closed {
            if assignment.state == State::Declined(Closing::Awaiting) {
                assignment = assignment.fund(hold(), now).expect("awaited");
            }
            if assignment.state.settlement() == Settlement::Settling {
                assignment = assignment.settle(now).expect("settling");
            }
            prop_assert!(matches!(assignment.state.settlement(), Settlement::None | Settlement::Settled));
            prop_assert_eq!(assignment.state.settlement() == Settlement::Settled, assignment.state.hold().is_some());
        }
    }
}

#[test]
fn who_may_take_nothing_accepts_nothing_and_an_offer_can_be_withdrawn_before_it_is_taken() {
    assert_eq!(offered().accept(Participation::Withdrawn, NOW), Err(AssignmentError::ConsentWithdrawn));
    assert_eq!(offered().accept(Participation::Suspended, NOW), Err(AssignmentError::Suspended));
    let withdrawn = offered().withdraw_offer(NOW).expect("an offer");
    assert_eq!(withdrawn.state, State::Expired(Closing::Unheld));
    assert_eq!(withdrawn.clone().accept(Participation::Suspended, NOW), Err(AssignmentError::Suspended));
    assert_eq!(withdrawn.withdraw_offer(NOW), None);
    assert_eq!(offered().accept(Participation::Given, NOW).expect("taken").withdraw_offer(NOW), None);
}
