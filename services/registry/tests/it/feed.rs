//! The registry's feed, as others read it.

use crate::world::{World, fact, id, in_city, named, refused, row, serve};
use futures::future::join_all;
use koc_proto::koc::{feed::v1::Change, registry::v1 as pb};
use koc_tests::token;
use std::collections::{HashMap, HashSet};
use tonic::{Code, Status, Streaming};

async fn list(world: &World, programme_id: &str, after_position: i64, page_size: i32) -> Result<pb::ListChangesResponse, Status> {
    let request = pb::ListChangesRequest { programme_id: programme_id.into(), after_position, page_size };
    Ok(world.feed().list_changes(request).await?.into_inner())
}

async fn watch(world: &World, programme_id: &str, after_position: i64) -> Result<Streaming<pb::WatchChangesResponse>, Status> {
    let request = pb::WatchChangesRequest { programme_id: programme_id.into(), after_position };
    Ok(world.feed().watch_changes(request).await?.into_inner())
}

/// What a stream sends until it has reached a position.
async fn read_through(stream: &mut Streaming<pb::WatchChangesResponse>, position: i64) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        let page = stream.message().await.expect("a page").expect("the stream goes on");
        assert!(page.send_time.is_some() && page.through_position <= page.head_position);
        changes.extend(page.changes);
        if page.through_position >= position {
            return changes;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_dense_and_each_members_changes_are_in_order() {
    let world = World::new().await;
    let rows = |second| (0..20).map(|i| row(&i.to_string(), second, in_city(&format!("第{second}城")))).collect::<Vec<_>>();
    world.upsert(rows(1)).await;
    join_all((2..10).map(|second| world.upsert(rows(second)))).await;

    let changes = world.changes().await;

    let positions: Vec<_> = changes.iter().map(|change| change.position).collect();
    assert_eq!(positions, (1..=i64::try_from(changes.len()).expect("few")).collect::<Vec<_>>());
    assert_eq!(changes.iter().map(|change| &change.fact_id).collect::<HashSet<_>>().len(), changes.len());
    let first: pb::ProgrammeCreated = fact(&changes[0]).expect("the programme comes first");
    assert_eq!((&first.programme_id, &changes[0].subject_id), (&world.programme, &world.programme));
    let mut versions: HashMap<String, i64> = HashMap::new();
    for change in &changes[1..] {
        let told: pb::MemberChanged = fact(change).expect("a member's change");
        assert_eq!((&told.member_id, &change.programme_id), (&change.subject_id, &world.programme));
        assert_eq!((told.created, told.changed_fields.as_slice()), (told.version == 1, &["profile.city".to_owned()][..]));
        let last = versions.entry(told.member_id).or_default();
        assert_eq!(told.version, *last + 1, "at {}", change.position);
        *last += 1;
    }
    assert_eq!(versions.len(), 20);
}

#[tokio::test]
async fn pages_of_one_programme_pass_over_the_others() {
    let world = World::new().await;
    let other = world.another_programme().await;
    for programme_id in [&world.programme, &other, &other, &world.programme] {
        let request = pb::CreateMemberRequest { programme_id: programme_id.clone(), ..world.create_request(Default::default()) };
        world.create(request).await.expect("created");
    }
    // Facts: this programme, the other, a member here, two there, one here.
    let mine = world.changes().await;
    assert_eq!(mine.iter().map(|change| change.position).collect::<Vec<_>>(), [1, 3, 6]);

    let first = list(&world, &world.programme, 0, 2).await.expect("a page");
    assert_eq!((first.changes.as_slice(), first.through_position, first.head_position), (&mine[..2], 3, 6));
    let rest = list(&world, &world.programme, first.through_position, 2).await.expect("a page");
    assert_eq!((rest.changes.as_slice(), rest.through_position, rest.head_position), (&mine[2..], 6, 6));
    let end = list(&world, &world.programme, 6, 0).await.expect("a page");
    assert_eq!((end.changes.len(), end.through_position, end.head_position), (0, 6, 6));
    let theirs = list(&world, &other, 3, 0).await.expect("a page").changes;
    assert_eq!(theirs.iter().map(|change| change.position).collect::<Vec<_>>(), [4, 5]);
    let nobodys = list(&world, &id(), 0, 0).await.expect("a page");
    assert_eq!((nobodys.changes.len(), nobodys.through_position), (0, 6));
    assert_eq!(list(&world, "", 0, 0).await.expect("a page").changes.len(), 6);
}

#[tokio::test]
async fn a_stream_gives_what_was_then_what_comes_and_goes_on_from_any_position() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await;
    let before = world.changes().await;
    let mut stream = watch(&world, &world.programme, 0).await.expect("let in");
    assert_eq!(read_through(&mut stream, 2).await, before);

    world.update(world.update_request(&member.member_id, in_city("深圳"), &["profile.city"])).await.expect("updated");
    let live = read_through(&mut stream, 3).await;
    assert_eq!(fact::<pb::MemberChanged>(&live[0]).map(|told| told.version), Some(2));
    drop(stream);

    world.update(world.update_request(&member.member_id, named("来信"), &["profile.display_name"])).await.expect("updated");
    let all = world.changes().await;
    let mut resumed = watch(&world, &world.programme, 3).await.expect("let in");
    assert_eq!(read_through(&mut resumed, 4).await, all[3..]);
    // Where there is nothing to say, it says so at once.
    let mut idle = watch(&world, &world.programme, 4).await.expect("let in");
    let page = idle.message().await.expect("a page").expect("the stream goes on");
    assert_eq!((page.changes.len(), page.through_position, page.head_position), (0, 4, 4));
}

#[tokio::test]
async fn a_position_beyond_the_head_is_refused() {
    let world = World::new().await;
    world.changes().await;
    let figures = refused(list(&world, &world.programme, 2, 0).await, Code::FailedPrecondition, "POSITION_AHEAD");
    assert_eq!(figures["head_position"], "1");
    let mut stream = watch(&world, &world.programme, 2).await.expect("let in");
    refused(stream.message().await, Code::FailedPrecondition, "POSITION_AHEAD");
}

#[tokio::test]
async fn a_token_for_one_programme_reads_that_one_alone() {
    let world = World::new().await;
    let other = world.another_programme().await;
    let token = token::token("reader", &["registry.feed.read"], std::slice::from_ref(&world.programme));
    let mut client = crate::world::Feed::new(world.registry.channel_with(Some(token), None));
    world.changes().await;
    let mut ask = async |programme_id: &str| {
        let list = pb::ListChangesRequest { programme_id: programme_id.into(), after_position: 0, page_size: 0 };
        let watch = pb::WatchChangesRequest { programme_id: programme_id.into(), after_position: 0 };
        (
            client.list_changes(list).await.map(|page| page.into_inner().changes.len()),
            client.watch_changes(watch).await.map(|_| ()),
        )
    };
    let (listed, watched) = ask(&world.programme).await;
    assert_eq!((listed.expect("its own"), watched.is_ok()), (1, true));
    for programme in [other.as_str(), ""] {
        let (listed, watched) = ask(programme).await;
        refused(listed, Code::PermissionDenied, "PROGRAMME_DENIED");
        refused(watched, Code::PermissionDenied, "PROGRAMME_DENIED");
    }
}

#[tokio::test]
async fn a_stream_of_changes_ends_with_the_service_and_goes_on_with_the_next() {
    let world = World::new().await;
    let mut stream = watch(&world, &world.programme, 0).await.expect("let in");
    read_through(&mut stream, 1).await;
    let World { registry, programme, .. } = world;
    let stopping = tokio::spawn(registry.stop());
    refused(stream.message().await, Code::Unavailable, "DRAINING");
    let world = World::of(serve(stopping.await.expect("it stops")).await, programme);

    let member = world.member(in_city("广州")).await;
    let mut stream = watch(&world, &world.programme, 1).await.expect("let in");
    let came = read_through(&mut stream, 2).await;
    assert_eq!(came.iter().map(|change| &change.subject_id).collect::<Vec<_>>(), [&member.member_id]);
}
