//! What happens to members, as systems outside of the suite follow it.

use crate::world::{MemberFeed, World, at, id, in_city, named, refused, row, serve, violations};
use koc_chassis::token::all_scopes;
use koc_proto::koc::registry::v1 as pb;
use koc_tests::token;
use pb::MemberEventKind as Kind;
use std::collections::BTreeMap;
use tonic::{Code, Status, Streaming};

fn ask(world: &World, position: &str) -> pb::ListMemberChangesRequest {
    pb::ListMemberChangesRequest { programme_id: world.programme.clone(), position: position.into(), ..Default::default() }
}

async fn list(world: &World, request: pb::ListMemberChangesRequest) -> Result<pb::ListMemberChangesResponse, Status> {
    Ok(world.follow().list_member_changes(request).await?.into_inner())
}

fn watching(world: &World, position: &str) -> pb::WatchMembersRequest {
    pb::WatchMembersRequest { programme_id: world.programme.clone(), position: position.into(), ..Default::default() }
}

async fn watch(world: &World, request: pb::WatchMembersRequest) -> Result<Streaming<pb::WatchMembersResponse>, Status> {
    Ok(world.follow().watch_members(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<pb::WatchMembersResponse>) -> pb::WatchMembersResponse {
    stream.message().await.expect("a message").expect("the stream goes on")
}

/// Reads until a place in the feed is reached; gives the events and the last position.
async fn read_through(stream: &mut Streaming<pb::WatchMembersResponse>, sequence: i64) -> (Vec<pb::MemberEvent>, String) {
    let mut events = Vec::new();
    loop {
        let message = next(stream).await;
        assert!(message.sequence <= message.head_sequence && message.send_time.is_some());
        events.extend(message.events);
        if message.sequence >= sequence && !message.in_snapshot {
            return (events, message.position);
        }
    }
}

/// The last place of the feed once all that is committed has one.
async fn head(world: &World) -> i64 {
    world.changes().await;
    world.count("SELECT position FROM feed_head").await
}

fn kinds(events: &[pb::MemberEvent]) -> Vec<Kind> {
    events.iter().map(pb::MemberEvent::kind).collect()
}

async fn merge(world: &World, winner: &str, loser: &str) {
    let request = pb::MergeMembersRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        winner_member_id: winner.into(),
        loser_member_id: loser.into(),
        reason: "one person".into(),
        etag: String::new(),
    };
    world.members().merge_members(request).await.expect("merged");
}

#[tokio::test]
async fn events_say_what_changed_and_show_the_member_as_it_is_by_now() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.update(world.update_request(&member, in_city("深圳"), &["profile.city"])).await.expect("updated");
    let suspend = pb::SuspendMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member.clone(),
        reason: "spam".into(),
        etag: String::new(),
    };
    let now = world.members().suspend_member(suspend).await.expect("suspended").into_inner().member;
    head(&world).await;

    let page = list(&world, ask(&world, "")).await.expect("a page");

    assert_eq!(kinds(&page.events), [Kind::Created, Kind::Updated, Kind::Suspended]);
    let fields: Vec<_> = page.events.iter().map(|event| event.changed_fields.join(",")).collect();
    assert_eq!(fields, ["profile.city", "profile.city", "state"]);
    assert!(page.events.iter().all(|event| event.member == now && event.member_id == member && !event.erased));
    // The programme's own fact concerns no member, and the position moves on over it.
    assert_eq!(page.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((page.sequence, page.head_sequence, page.more, page.in_snapshot), (4, 4, false, false));
    let raw = world.changes().await;
    let ids: Vec<_> = page.events.iter().map(|event| event.event_id.clone()).collect();
    assert_eq!(ids, raw[1..].iter().map(|change| change.fact_id.clone()).collect::<Vec<_>>());
    assert_eq!(page.events[2].event_time, raw[3].record_time);

    let end = list(&world, ask(&world, &page.position)).await.expect("a page");
    assert_eq!((end.events.len(), end.sequence, end.position.as_str()), (0, 4, page.position.as_str()));
}

#[tokio::test]
async fn a_merged_member_tells_where_it_leads_and_an_erased_one_that_nothing_is_left() {
    let world = World::new().await;
    let [winner, loser, gone] = ["赢", "输", "去"].map(named);
    let (winner, loser) = (world.member(winner).await.member_id, world.member(loser).await.member_id);
    let gone = world.member(gone).await.member_id;
    merge(&world, &winner, &loser).await;
    // Without its history, which refers to it.
    let mut tx = world.registry.database.admin.begin().await.expect("begun");
    sqlx::query("SET LOCAL session_replication_role = replica").execute(&mut *tx).await.expect("set");
    sqlx::query("DELETE FROM member WHERE member_id = $1::uuid").bind(&gone).execute(&mut *tx).await.expect("removed");
    tx.commit().await.expect("committed");
    let head = head(&world).await;

    let mut stream = watch(&world, watching(&world, "")).await.expect("let in");
    let (events, _) = read_through(&mut stream, head).await;

    for event in &events {
        let (merged, erased) = (event.member_id == loser, event.member_id == gone);
        assert_eq!(event.merged_into_member_id, if merged { winner.as_str() } else { "" }, "{event:?}");
        assert_eq!((event.member.is_some(), event.erased), (!merged && !erased, erased), "{event:?}");
    }
    let of_loser: Vec<_> = events.iter().filter(|event| event.member_id == loser).cloned().collect();
    assert_eq!(kinds(&of_loser), [Kind::Created, Kind::Merged]);
}

#[tokio::test]
async fn only_the_kinds_and_the_programme_that_were_asked_for_come_and_the_position_moves_on_over_the_rest() {
    let world = World::new().await;
    let other = world.another_programme().await;
    let member = world.member(in_city("广州")).await.member_id;
    for city in ["深圳", "佛山"] {
        world.update(world.update_request(&member, in_city(city), &["profile.city"])).await.expect("updated");
    }
    let theirs = pb::CreateMemberRequest { programme_id: other, ..world.create_request(named("别处")) };
    world.create(theirs).await.expect("created");
    let head = head(&world).await;

    let request = pb::ListMemberChangesRequest { kinds: vec![Kind::Created as i32], page_size: 1, ..ask(&world, "") };
    let mut request = request;
    let mut found = Vec::new();
    let mut pages = 0;
    loop {
        let page = list(&world, request.clone()).await.expect("a page");
        found.extend(page.events);
        request.position = page.position;
        pages += 1;
        if !page.more {
            assert_eq!((page.sequence, page.head_sequence), (head, head));
            break;
        }
    }
    assert_eq!((found.len(), found[0].kind(), found[0].member_id.as_str()), (1, Kind::Created, member.as_str()));
    assert!(pages >= 4, "a page looks at one change: {pages}");
    let streamed = pb::WatchMembersRequest { kinds: vec![Kind::Updated as i32], ..watching(&world, "") };
    let (events, _) = read_through(&mut watch(&world, streamed).await.expect("let in"), head).await;
    assert_eq!(kinds(&events), [Kind::Updated, Kind::Updated]);
}

#[tokio::test]
async fn a_snapshot_and_what_comes_after_it_end_at_what_is_there_whatever_happens_meanwhile() {
    let world = World::new().await;
    let rows =
        |second: i64, n: std::ops::Range<u32>| n.map(|i| row(&i.to_string(), second, in_city(&second.to_string()))).collect();
    let first: Vec<pb::MemberRow> = rows(1, 0..12);
    let ids: Vec<String> = world.upsert(first).await.into_iter().map(|result| result.member_id).collect();

    // What a reader keeps: each member that it was given, by id.
    let mut kept: BTreeMap<String, pb::Member> = BTreeMap::new();
    let keep = |kept: &mut BTreeMap<String, pb::Member>, events: Vec<pb::MemberEvent>| {
        for event in events {
            match event.member {
                Some(member) => _ = kept.insert(event.member_id, member),
                None => _ = kept.remove(&event.member_id),
            }
        }
    };
    let mut page =
        list(&world, pb::ListMemberChangesRequest { snapshot: true, page_size: 3, ..ask(&world, "") }).await.expect("a page");
    let mut snapshot_pages = 0;
    for step in 0i64.. {
        keep(&mut kept, std::mem::take(&mut page.events));
        snapshot_pages += i64::from(page.in_snapshot);
        match step {
            // Read already, not read yet, and new ones; then a merge of one that was read with one that was not.
            0 => _ = world.upsert(rows(10, 0..20)).await,
            1 => merge(&world, &ids[11], &ids[0]).await,
            2 => merge(&world, &ids[1], &ids[10]).await,
            3 => _ = world.upsert(rows(20, 0..4)).await,
            _ if !page.more => break,
            _ => {}
        }
        if step == 3 {
            head(&world).await;
        }
        page = list(&world, pb::ListMemberChangesRequest { page_size: 3, ..ask(&world, &page.position) }).await.expect("a page");
    }

    assert!(snapshot_pages >= 4, "{snapshot_pages}");
    let request = pb::ListMembersRequest { programme_id: world.programme.clone(), page_size: 1_000, ..Default::default() };
    let there = world.members().list_members(request).await.expect("a page").into_inner().members;
    assert_eq!(there.len(), 18);
    assert_eq!(kept.into_values().collect::<Vec<_>>(), there);
}

#[tokio::test]
async fn a_stream_gives_the_snapshot_then_what_comes_and_goes_on_from_any_of_its_positions() {
    let world = World::new().await;
    let rows: Vec<_> = (0..501).map(|i| row(&i.to_string(), 1, named(&format!("第{i}")))).collect();
    world.upsert(rows[..500].to_vec()).await;
    world.upsert(rows[500..].to_vec()).await;
    let head = head(&world).await;
    let mut stream = watch(&world, pb::WatchMembersRequest { snapshot: true, ..watching(&world, "") }).await.expect("let in");
    let first = next(&mut stream).await;
    assert_eq!((first.events.len(), first.in_snapshot, first.sequence), (500, true, head));
    drop(stream);

    // In the middle of the snapshot it goes on there.
    let mut stream = watch(&world, watching(&world, &first.position)).await.expect("let in");
    let rest = next(&mut stream).await;
    assert_eq!((rest.events.len(), rest.in_snapshot, rest.events[0].kind()), (1, false, Kind::Snapshot));
    assert!(first.events.iter().all(|event| event.member_id < rest.events[0].member_id && event.event_id.is_empty()));
    let member = world.member(in_city("广州")).await.member_id;
    let (live, position) = read_through(&mut stream, head + 1).await;
    assert_eq!((live.len(), live[0].kind(), live[0].member_id.as_str()), (1, Kind::Created, member.as_str()));
    drop(stream);

    world.update(world.update_request(&member, in_city("深圳"), &["profile.city"])).await.expect("updated");
    let mut stream = watch(&world, watching(&world, &position)).await.expect("let in");
    let (live, _) = read_through(&mut stream, head + 2).await;
    assert_eq!(kinds(&live), [Kind::Updated]);
}

#[tokio::test]
async fn a_large_page_comes_in_messages_of_which_each_can_be_gone_on_from() {
    let world = World::new().await;
    let tags = |second: i64| (0..50).map(|i| format!("{second}-{i:0>60}")).collect();
    let wide =
        |i: i64| row(&i.to_string(), i, pb::MemberProfile { tags: tags(i), display_name: format!("{i}"), ..Default::default() });
    world.upsert((0..450).map(wide).collect()).await;
    let head = head(&world).await;
    let mut stream = watch(&world, watching(&world, "")).await.expect("let in");
    let first = next(&mut stream).await;
    assert!(first.sequence < head && !first.events.is_empty(), "one megabyte is full before 450 members: {}", first.events.len());
    assert_eq!(first.events.last().map(|event| event.sequence), Some(first.sequence));
    let (rest, _) = read_through(&mut stream, head).await;

    let (again, _) = read_through(&mut watch(&world, watching(&world, &first.position)).await.expect("let in"), head).await;

    assert_eq!(again, rest);
    assert_eq!(first.events.len() + rest.len(), 450);
}

#[tokio::test]
async fn an_idle_stream_says_how_far_the_feed_is() {
    let world = World::new().await;
    let head = head(&world).await;
    let request = pb::WatchMembersRequest { heartbeat_seconds: 1, ..watching(&world, "") };
    let mut stream = watch(&world, request).await.expect("let in");
    let messages = [next(&mut stream).await, next(&mut stream).await, next(&mut stream).await];
    for message in &messages {
        assert_eq!((message.events.len(), message.sequence, message.head_sequence), (0, head, head));
    }
    let nanos = |message: &pb::WatchMembersResponse| message.send_time.map(|time| (time.seconds, time.nanos));
    assert!(nanos(&messages[0]) < nanos(&messages[1]) && nanos(&messages[1]) < nanos(&messages[2]));
}

#[tokio::test]
async fn without_the_scope_for_it_events_come_masked() {
    let world = World::new().await;
    world.member(pb::MemberProfile { display_name: "张小龙".into(), ..in_city("广州") }).await;
    let head = head(&world).await;
    let scopes: Vec<&str> = all_scopes().into_iter().filter(|scope| *scope != "registry.pii").collect();
    let token = token::token("crm", &scopes, std::slice::from_ref(&world.programme));
    let mut client = MemberFeed::new(world.registry.channel_with(Some(token), None));
    let mut stream = client.watch_members(watching(&world, "")).await.expect("let in").into_inner();
    let (streamed, _) = read_through(&mut stream, head).await;
    let listed = client.list_member_changes(ask(&world, "")).await.expect("a page").into_inner().events;
    for event in streamed.into_iter().chain(listed) {
        let profile = event.member.and_then(|member| member.profile).unwrap_or_default();
        assert_eq!((profile.display_name.as_str(), profile.city.as_str()), ("张*", "广*"));
    }
    let whole = list(&world, ask(&world, "")).await.expect("a page").events;
    assert_eq!(whole[0].member.as_ref().and_then(|member| member.profile.as_ref()).map(|p| p.city.as_str()), Some("广州"));
}

/// Databases of tests are copies of one, so two of them are one history that went on in two ways: as after a backup was restored.
#[tokio::test]
async fn a_position_of_another_history_is_refused_with_the_way_back() {
    let world = World::new().await;
    world.member(named("先")).await;
    head(&world).await;
    let page = list(&world, ask(&world, "")).await.expect("a page");
    let restored = World::of(serve(koc_tests::service::database(&koc_registry::SCHEMA).await).await, world.programme.clone());

    // While it is behind, and when it has gone past the position.
    for city in ["", "广州", "深圳"] {
        match city {
            "" => {
                _ = restored.programmes().create_programme(crate::world::programme_request(&world.programme)).await.expect("made")
            }
            city => _ = restored.member(in_city(city)).await,
        }
        head(&restored).await;
        let text = refused(list(&restored, ask(&restored, &page.position)).await, Code::FailedPrecondition, "EPOCH_CHANGED");
        assert!(text.is_empty());
        let told = watch(&restored, watching(&restored, &page.position)).await.expect_err("refused");
        assert!(told.message().contains("snapshot"), "{told:?}");
    }
    list(&world, ask(&world, &page.position)).await.expect("its own history knows it");

    // A database that was made anew.
    let fresh = list(&restored, ask(&restored, "")).await.expect("a page");
    sqlx::query("UPDATE feed_head SET epoch = gen_random_uuid()")
        .execute(&restored.registry.database.admin)
        .await
        .expect("another");
    refused(list(&restored, ask(&restored, &fresh.position)).await, Code::FailedPrecondition, "EPOCH_CHANGED");
}

#[tokio::test]
async fn a_position_whose_changes_are_not_kept_is_refused_with_the_way_back() {
    let world = World::new().await;
    head(&world).await;
    let page = list(&world, ask(&world, "")).await.expect("a page");
    // As if a hundred changes had come and the older half of them were dropped.
    sqlx::query("UPDATE feed_head SET position = position + 100, dropped_position = position + 50")
        .execute(&world.registry.database.admin)
        .await
        .expect("moved");

    let status = list(&world, ask(&world, &page.position)).await.expect_err("refused");
    assert!(status.message().contains("snapshot"), "{status:?}");
    refused::<()>(Err(status), Code::FailedPrecondition, "POSITION_DROPPED");
    let mut stream = watch(&world, watching(&world, &page.position)).await.expect("let in");
    refused(stream.message().await, Code::FailedPrecondition, "POSITION_DROPPED");
    let snapshot = list(&world, pb::ListMemberChangesRequest { snapshot: true, ..ask(&world, "") }).await.expect("a page");
    list(&world, ask(&world, &snapshot.position)).await.expect("from there it goes on");
}

#[tokio::test]
async fn positions_that_nobody_gave_are_refused() {
    let world = World::new().await;
    let other = world.another_programme().await;
    head(&world).await;
    let page = list(&world, ask(&world, "")).await.expect("a page");
    for (programme_id, position, snapshot, rule) in [
        (&world.programme, "no position", false, "POSITION_INVALID"),
        (&other, page.position.as_str(), false, "POSITION_INVALID"),
        (&world.programme, page.position.as_str(), true, "POSITION_WITH_SNAPSHOT"),
    ] {
        let request = pb::ListMemberChangesRequest { programme_id: programme_id.clone(), snapshot, ..ask(&world, position) };
        assert_eq!(violations(list(&world, request).await), [("position".to_owned(), rule.to_owned())]);
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_service_and_goes_on_with_the_next() {
    let world = World::new().await;
    let mut stream = watch(&world, watching(&world, "")).await.expect("let in");
    let (_, position) = read_through(&mut stream, 1).await;
    let World { registry, programme, .. } = world;
    let stopping = tokio::spawn(registry.stop());
    refused(stream.message().await, Code::Unavailable, "DRAINING");
    let world = World::of(serve(stopping.await.expect("it stops")).await, programme);
    world.upsert(vec![pb::MemberRow { source_time: Some(at(1)), ..row("1", 1, in_city("广州")) }]).await;
    let head = head(&world).await;
    let (events, _) = read_through(&mut watch(&world, watching(&world, &position)).await.expect("let in"), head).await;
    assert_eq!(kinds(&events), [Kind::Created]);
}
