//! Places in a task when everybody comes at once.

use crate::world::{Settlement, State, World, refused};
use futures::future::join_all;
use koc_chassis::fault::reason_of;
use tonic::Code;

const CALLERS: usize = 20;

async fn members(world: &World, count: usize) -> Vec<String> {
    join_all((0..count).map(|_| world.member())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_offers_at_once_fill_just_the_places_there_are() {
    let world = World::new().await;
    let task = world.task_with(|r| r.capacity = 7).await;
    let members = members(&world, CALLERS).await;
    let answers = join_all(members.iter().map(|member| world.offer(&task, member))).await;
    let (offered, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((offered.len(), refusals.len()), (7, 13));
    for refusal in refusals {
        refused(refusal, Code::FailedPrecondition, "TASK_FULL");
    }
    assert_eq!(world.places(&task).await, (7, 7));

    // One member, asked twenty times at once, gets one offer.
    let wide = world.task_with(|_| {}).await;
    let answers = join_all((0..CALLERS).map(|_| world.offer(&wide, &members[0]))).await;
    let offered: Vec<_> = answers.iter().filter_map(|a| a.as_ref().ok()).collect();
    assert_eq!(offered.len(), 1);
    for status in answers.iter().filter_map(|a| a.as_ref().err()) {
        assert_eq!((status.code(), reason_of(status).as_str()), (Code::AlreadyExists, "ASSIGNMENT_EXISTS"));
    }
    assert_eq!(world.places(&wide).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_accepts_at_once_hold_just_the_money_there_is_and_free_the_other_places() {
    let world = World::new().await;
    let task = world.task_with(|r| r.capacity = 20).await;
    let members = members(&world, CALLERS).await;
    let offers = join_all(members.iter().map(|member| world.offer(&task, member))).await;
    let ids: Vec<String> = offers.into_iter().map(|o| o.expect("offered").assignment_id).collect();
    assert_eq!(world.places(&task).await, (20, 20));
    let twice = ids.iter().chain(&ids).map(|id| world.accept(id));
    let accepted = join_all(twice).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(accepted, CALLERS, "each is accepted once");

    // The envelope holds nine rewards.
    let mut unfunded = 0;
    for id in &ids {
        let settled = koc_tests::wait::until("the budget's answer", crate::world::PATIENCE, async || {
            let found = world.get(id).await.expect("found");
            (found.state() != State::Reserving).then_some(found)
        });
        match settled.await.state() {
            State::InProgress => {}
            State::Unfunded => unfunded += 1,
            other => panic!("{}", other.as_str_name()),
        }
    }
    assert_eq!(unfunded, 11);
    assert_eq!(world.money().await, [900_000, 0, 0]);
    assert_eq!(world.places(&task).await, (9, 9));
    // Their places can be had again.
    world.offer(&task, &world.member().await).await.expect("a place is free");

    // Accept and decline at once: one of the two orders, and nothing is left held in either.
    let funded = join_all(ids.iter().map(|id| world.get(id))).await;
    let open: Vec<_> = funded.into_iter().filter_map(Result::ok).filter(|a| a.state() == State::InProgress).collect();
    let declines = join_all(open.iter().chain(&open).map(|a| world.decline(&a.assignment_id))).await;
    assert_eq!(declines.into_iter().filter(Result::is_ok).count(), 9, "each is declined once");
    for assignment in &open {
        world.wait_for(&assignment.assignment_id, State::Declined, Settlement::Settled).await;
    }
    assert_eq!(world.money().await, [0, 0, 900_000]);
    assert_eq!(world.places(&task).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_and_a_decline_at_once_leave_nothing_held() {
    let world = World::new().await;
    let task = world.task_with(|_| {}).await;
    let members = members(&world, 8).await;
    let offers = join_all(members.iter().map(|member| world.offer(&task, member))).await;
    let ids: Vec<String> = offers.into_iter().map(|o| o.expect("offered").assignment_id).collect();
    let pairs = ids.iter().map(|id| futures::future::join(world.accept(id), world.decline(id)));
    for (id, (accepted, declined)) in ids.iter().zip(join_all(pairs).await) {
        // Declining is always possible; accepting only before it.
        declined.expect("an offer and what was accepted can be declined");
        let settlement = match accepted {
            Ok(_) => Settlement::Settled,
            Err(status) => {
                assert_eq!(reason_of(&status), "ASSIGNMENT_STATE");
                Settlement::None
            }
        };
        world.wait_for(id, State::Declined, settlement).await;
    }
    assert_eq!(world.money().await, [0, 0, 900_000]);
    assert_eq!(world.places(&task).await, (0, 0));
}
