//! What the others are told: each movement once, in order, and no more than ids and figures.

use crate::world::*;
use futures::future::join_all;
use koc_proto::koc::{budget::v1 as pb, feed::v1::Change};
use koc_tests::wait;
use std::collections::{BTreeMap, HashMap};
use tonic::Code;

/// Waits until the feed tells of so many entries.
async fn posted(world: &World, count: usize) -> Vec<(Change, pb::LedgerPosted)> {
    wait::until("the entries to be published", PATIENCE, async || {
        let changes = world.changes().await.into_iter();
        let posted: Vec<_> = changes.filter_map(|change| fact(&change).map(|posted| (change, posted))).collect();
        (posted.len() >= count).then_some(posted)
    })
    .await
}

#[tokio::test]
async fn each_movement_is_told_with_its_figures_and_each_change_of_state_once() {
    let world = World::new().await;
    let member_id = id();
    let decision_id = id();
    let limit = pb::SetMemberLimitRequest { decision_id: decision_id.clone(), ..world.limit_request(&member_id, 5_000) };
    world.set_limit(limit.clone()).await.expect("a limit");
    world.set_limit(limit).await.expect("the first answer");
    let request = pb::ReserveRequest { member_id: member_id.clone(), ..world.reserve_request(301) };
    let held = world.reserve_with(request.clone()).await.expect("held").reservation_id;
    world.reserve_with(request).await.expect("the first answer");
    world.reserve(ENVELOPE).await.expect_err("refused");
    let commit = pb::CommitRequest { release_rest: false, ..world.commit_request(&held, Some(100)) };
    world.reservations().commit(commit).await.expect("owed");
    world.spend(&held, Some(50)).await.expect("paid");
    world.release(&held, Some(1)).await.expect("given back");
    world.pass(DAY).await;

    let facts = posted(&world, 7).await;
    let mut entries = world.entries(&world.envelope).await;
    entries.extend(world.entries(&world.reserve).await);
    assert_eq!((facts.len(), entries.len()), (7, 7));
    let facts_by_entry: HashMap<_, _> =
        facts.iter().map(|(change, posted)| (posted.entry_id.clone(), (change, posted))).collect();
    for entry in &entries {
        let (change, posted) = facts_by_entry[&entry.entry_id];
        assert_eq!((posted.kind(), posted.amount.as_ref()), (entry.kind(), entry.amount.as_ref()));
        assert_eq!(
            (posted.envelope_id.as_str(), posted.reservation_id.as_str()),
            (entry.envelope_id.as_str(), entry.reservation_id.as_str())
        );
        let of_reservation = !entry.reservation_id.is_empty();
        let expected = if of_reservation {
            [held.as_str(), member_id.as_str(), "assignment/1"]
        } else {
            [entry.envelope_id.as_str(), "", ""]
        };
        assert_eq!([change.subject_id.as_str(), posted.member_id.as_str(), posted.purpose.as_str()], expected);
    }
    let told: Vec<pb::LedgerPosted> = world.facts_of(&held).await;
    let kinds: Vec<_> = told.iter().map(pb::LedgerPosted::kind).collect();
    use pb::LedgerEntryKind as Kind;
    assert_eq!(kinds, [Kind::Reserve, Kind::Commit, Kind::Spend, Kind::Release, Kind::Expire]);

    let states: Vec<_> = world.facts_of::<pb::PlanChanged>(&world.plan).await.iter().map(pb::PlanChanged::state).collect();
    use pb::PlanState as State;
    assert_eq!(states, [State::Draft, State::Submitted, State::Approved, State::Active]);
    let limits: Vec<pb::MemberLimitSet> = world.facts_of(&member_id).await;
    assert_eq!(limits, [pb::MemberLimitSet { member_id, limit: Some(fen(5_000)), decision_id }]);
    // Neither who acted nor why: those are in the audit, for those who may read it.
    let changes = world.changes().await;
    let text = changes.iter().flat_map(|change| change.fact.iter().flat_map(|any| any.value.clone())).collect::<Vec<u8>>();
    for word in ["what the last period returned", "planner", "controller", "tester", "invoice-7"] {
        assert!(!text.windows(word.len()).any(|window| window == word.as_bytes()), "{word} is in the feed");
    }
    assert!(changes.iter().zip(1..).all(|(change, position)| change.position == position), "one programme: dense");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_keeps_the_order_of_each_reservation_under_load() {
    let world = World::new().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(world.reserve(100).await.expect("held").reservation_id);
    }
    let (world, held) = (&world, &held);
    let work = (0..96_usize).map(|nr| async move {
        let of = &held[nr % 4];
        match nr % 3 {
            0 => world.commit(of, Some(2)).await.map(drop),
            1 => world.release(of, Some(1)).await.map(drop),
            _ => world.spend(of, Some(1)).await.map(drop),
        }
    });
    let done = join_all(work).await.into_iter().filter(Result::is_ok).count();
    let facts = posted(world, 2 + 4 + done).await;
    assert_eq!(facts.len(), 2 + 4 + done);
    let places: HashMap<_, _> =
        world.entries(&world.envelope).await.into_iter().map(|e| (e.entry_id, e.envelope_sequence)).collect();
    let mut told: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (_, posted) in facts.iter().filter(|(_, posted)| !posted.reservation_id.is_empty()) {
        told.entry(posted.reservation_id.as_str()).or_default().push(places[&posted.entry_id]);
    }
    assert_eq!(told.len(), 4);
    assert!(told.values().all(|places| places.is_sorted()), "{told:?}");
    world.verified().await;
}

#[tokio::test]
async fn a_watcher_gets_what_was_and_what_comes_and_only_of_its_programme() {
    let world = World::new().await;
    world.verified().await;
    let head = world.changes().await.last().expect("changes").position;
    let other = world.create_programme("CNY").await;
    let request = pb::CreatePlanRequest { programme_id: other, ..world.plan_request() };
    world.create_plan(request).await.expect("a plan");
    let mut feed = pb::feed_service_client::FeedServiceClient::new(world.budget.channel());
    let request = pb::WatchChangesRequest { programme_id: world.programme.clone(), after_position: 2 };
    let mut stream = feed.watch_changes(request).await.expect("open").into_inner();
    let held = world.reserve(5).await.expect("held").reservation_id;
    let watched = async {
        let mut positions = Vec::new();
        loop {
            let message = stream.message().await.expect("goes on").expect("has no end");
            positions.extend(message.changes.iter().map(|change| change.position));
            if message.changes.iter().any(|change| change.subject_id == held) {
                return positions;
            }
        }
    };
    let positions = tokio::time::timeout(PATIENCE, watched).await.expect("in time");
    // All after the second, without the one of the other programme that lies between.
    assert_eq!(positions, (3..=head).chain([head + 2]).collect::<Vec<_>>());
    let beyond = pb::ListChangesRequest { programme_id: world.programme.clone(), after_position: head + 1_000, page_size: 0 };
    refused(feed.list_changes(beyond).await, Code::FailedPrecondition, "POSITION_AHEAD");
}
