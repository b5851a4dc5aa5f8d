//! Whole lives of assignments: what the feed tells of them, and that no order of commands leaves money behind.

use crate::world::{DAY, DELIVERY_DAYS, OFFER_DAYS, PATIENCE, Settlement, State, World, fact, fen, in_days, minor};
use futures::future::join_all;
use koc_chassis::fault::reason_of;
use koc_proto::koc::task::v1::{self as pb, ReviewVerdict as Verdict, SubmissionStage as Stage};
use koc_tests::wait;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use tonic::{Code, Status};

#[tokio::test]
async fn the_feed_tells_each_change_of_an_assignment_once_and_in_order() {
    let world = World::new().await;
    let task = world.task_with(|_| {}).await;
    let paid = world.in_progress_in(&task).await;
    let it = paid.assignment_id.as_str();
    let concept = world.submit(it, Stage::Concept, &["article"]).await.expect("handed in");
    world.review(it, &concept, Verdict::Approved, &[]).await.expect("approved");
    let draft = world.submit(it, Stage::Draft, &["article"]).await.expect("handed in");
    world.review(it, &draft, Verdict::ChangesRequested, &[]).await.expect("sent back");
    // Handed in twice and approved twice: no change of state, no fact.
    world.submit(it, Stage::Live, &["article"]).await.expect("handed in");
    let live = world.submit(it, Stage::Live, &["article"]).await.expect("handed in");
    world.review(it, &live, Verdict::Approved, &[]).await.expect("approved");
    world.complete(it).await.expect("completed");
    world.wait_for(it, State::Completed, Settlement::Settled).await;
    let rejected = world.in_progress_in(&task).await;
    let work = world.submit(&rejected.assignment_id, Stage::Draft, &["video"]).await.expect("handed in");
    world.review(&rejected.assignment_id, &work, Verdict::Rejected, &[]).await.expect("rejected");
    world.wait_for(&rejected.assignment_id, State::Rejected, Settlement::Settled).await;

    let states = |changes: &[koc_proto::koc::feed::v1::Change]| -> Vec<State> {
        changes.iter().filter_map(fact::<pb::AssignmentChanged>).map(|changed| changed.state()).collect()
    };
    let changes = world.wait_for_changes(it, 10).await;
    let expected = [
        State::Offered,
        State::Reserving,
        State::InProgress,
        State::Submitted,
        State::InProgress,
        State::Submitted,
        State::ChangesRequested,
        State::Submitted,
        State::Completed,
    ];
    assert_eq!(states(&changes), expected);
    assert!(fact::<pb::AssignmentSettled>(&changes[9]).is_some() && changes.len() == 10, "and last that it is settled");
    let first = fact::<pb::AssignmentChanged>(&changes[0]).expect("an offer");
    assert_eq!((&first.task_id, &first.member_id, first.assignment_id.as_str()), (&task, &paid.member_id, it));
    let changes = world.wait_for_changes(&rejected.assignment_id, 5).await;
    assert_eq!(states(&changes), [State::Offered, State::Reserving, State::InProgress, State::Submitted, State::Rejected]);
    assert_eq!(changes.len(), 5, "what came to nothing is not told to be measured");

    // Positions are dense over all subjects, each fact has an id of its own, and a stream tells the same.
    let mut feed = pb::feed_service_client::FeedServiceClient::new(world.task.channel());
    let request = pb::WatchChangesRequest { programme_id: world.programme.clone(), after_position: 0 };
    let mut stream = feed.watch_changes(request).await.expect("open").into_inner();
    let mut seen = Vec::new();
    while seen.len() < 18 {
        seen.extend(stream.message().await.expect("streams").expect("goes on").changes);
    }
    assert_eq!(seen.iter().map(|c| c.position).collect::<Vec<_>>(), (1..=18).collect::<Vec<i64>>());
    let ids: std::collections::HashSet<_> = seen.iter().map(|c| c.fact_id.as_str()).collect();
    assert_eq!(ids.len(), 18);
    let listed = world.changes(it).await;
    assert_eq!(seen.into_iter().filter(|c| c.subject_id == it).collect::<Vec<_>>(), listed);
}

/// What somebody does to an assignment.
#[derive(Debug, Clone, Copy)]
enum Command {
    Accept,
    /// Waits until the budget has answered.
    AwaitMoney,
    Decline,
    Submit(Stage, &'static [&'static str]),
    Review(Verdict, &'static [&'static str]),
    Complete,
}

fn member() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => Just(Command::Accept),
        2 => Just(Command::AwaitMoney),
        1 => Just(Command::Decline),
        2 => Just(Command::Submit(Stage::Draft, &["article"])),
        4 => Just(Command::Submit(Stage::Live, &["article", "video"])),
        1 => Just(Command::Submit(Stage::Live, &["video"])),
    ]
}

fn reviewer() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => Just(Command::AwaitMoney),
        4 => Just(Command::Review(Verdict::Approved, &[])),
        2 => Just(Command::Review(Verdict::Approved, &["video"])),
        1 => Just(Command::Review(Verdict::ChangesRequested, &[])),
        1 => Just(Command::Review(Verdict::Rejected, &[])),
        4 => Just(Command::Complete),
    ]
}

/// What happens to one assignment: the reward in fen, what is done by one hand after the other, and what two hands do then at the
/// same time.
type Script = (i64, Vec<Command>, Vec<Command>, Vec<Command>);

fn script() -> impl Strategy<Value = Script> {
    let begin = prop::collection::vec(prop_oneof![3 => member(), 2 => reviewer()], 0..6);
    let (left, right) = (prop::collection::vec(member(), 0..5), prop::collection::vec(reviewer(), 0..5));
    (1..150_000_i64, begin, left, right).prop_map(|(reward, mut begin, left, right)| {
        begin.splice(0..0, [Command::Accept, Command::AwaitMoney].into_iter().take((reward % 3) as usize));
        (reward, begin, left, right)
    })
}

/// A business refusal is an answer; anything else is a failure.
fn tolerate<T>(answer: Result<T, Status>) {
    if let Err(status) = answer {
        let reason = reason_of(&status);
        let known = ["ASSIGNMENT_STATE", "SUBMISSION_NOT_LATEST", "NOTHING_ACCEPTED", "FIELD_VIOLATIONS"];
        assert!(known.contains(&reason.as_str()), "{reason}: {status:?}");
    }
}

async fn play(world: &World, it: &str, commands: &[Command]) {
    for command in commands {
        match *command {
            Command::Accept => tolerate(world.accept(it).await),
            Command::AwaitMoney => {
                wait::until("the budget's answer", PATIENCE, async || {
                    (world.get(it).await.expect("found").state() != State::Reserving).then_some(())
                })
                .await;
            }
            Command::Decline => tolerate(world.decline(it).await),
            Command::Submit(stage, keys) => tolerate(world.submit(it, stage, keys).await),
            Command::Review(verdict, keys) => {
                let latest = world.get(it).await.expect("found").submissions.pop().map(|s| s.submission_id);
                let latest = latest.unwrap_or_else(crate::world::id);
                tolerate(world.review(it, &latest, verdict, keys).await);
            }
            Command::Complete => tolerate(world.complete(it).await),
        }
    }
}

/// Plays one script in a task of its own whose deadlines begin at a day; gives the task and the assignment.
async fn live(world: &World, brief: &str, begin: u32, (reward, begins, left, right): &Script) -> (String, String) {
    let task = world.task_with(|r| {
        (r.brief_id, r.reward, r.capacity) = (brief.to_owned(), Some(fen(*reward)), 1);
        (r.offer_deadline, r.delivery_deadline) = (Some(in_days(begin + OFFER_DAYS)), Some(in_days(begin + DELIVERY_DAYS)));
    });
    let task = task.await;
    let it = world.offer(&task, &world.member().await).await.expect("offered").assignment_id;
    play(world, &it, begins).await;
    tokio::join!(play(world, &it, left), play(world, &it, right));
    (task, it)
}

/// Once the deadlines have passed: the reviewer decides on what is left, and all is settled. Gives what is owed.
async fn end(world: &World, (task, it): &(String, String), script: &Script) -> i64 {
    let end = wait::until("an end, or something to decide", PATIENCE, async || {
        let found = world.get(it).await.expect("found");
        if found.state() == State::Submitted {
            // What is approved is completed; of the rest the videos that are LIVE are approved, so that they can be.
            if let Err(status) = world.complete(it).await {
                assert_eq!((status.code(), reason_of(&status).as_str()), (Code::FailedPrecondition, "NOTHING_ACCEPTED"));
                let latest = found.submissions.last().expect("a submission");
                let verdict = if latest.stage() == Stage::Live { Verdict::Approved } else { Verdict::Rejected };
                let accepted: &[&str] = if verdict == Verdict::Approved { &["video"] } else { &[] };
                world.review(it, &latest.submission_id, verdict, accepted).await.expect("judged");
            }
        }
        let settled = matches!(found.settlement_state(), Settlement::None | Settlement::Settled);
        (settled && !matches!(found.state(), State::Offered | State::Reserving)).then_some(found)
    })
    .await;
    let completed = end.state() == State::Completed;
    let earned = if completed { minor(end.earned.as_ref()) } else { 0 };
    if !end.reservation_id.is_empty() {
        let hold = world.reservation(&end.reservation_id).await;
        let parts = [&hold.reserved, &hold.committed, &hold.released].map(|m| minor(m.as_ref()));
        assert_eq!(parts, [0, earned, script.0 - earned], "{script:?}");
    }
    assert_eq!(world.places(task).await, (i32::from(completed), i64::from(completed)), "{script:?}");
    let told = world.wait_for_changes(it, 2 + 4 * usize::from(completed)).await;
    assert_eq!(told.iter().filter_map(fact::<pb::AssignmentSettled>).count(), usize::from(completed), "{script:?}");
    earned
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_of_commands_leaves_money_held_or_a_place_taken() {
    let world = World::new().await;
    let brief = world.brief().await;
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mut owed = 0;
    for round in 0..2 {
        // Not shrunk on failure: a script's fate hangs on the others' money, and the assertion shows the script.
        let drawn = prop::collection::vec(script(), 12).new_tree(&mut runner).expect("scripts").current();
        let begin = round * 2 * DELIVERY_DAYS;
        let lives = join_all(drawn.iter().map(|script| live(&world, &brief, begin, script))).await;
        world.task.advance(DAY * 2 * DELIVERY_DAYS).await;
        let ends = lives.iter().zip(&drawn).map(|(life, script)| end(&world, life, script));
        owed += join_all(ends).await.iter().sum::<i64>();
        assert_eq!(world.money().await, [0, owed, 900_000 - owed]);
    }
}
