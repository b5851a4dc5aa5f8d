//! Files of members.

use crate::{
    stream::{Stream, counts, opening},
    world::{DAY, PATIENCE, World, at, id, in_city, pairs, refused, serve, violations},
};
use koc_proto::koc::registry::v1 as pb;
use koc_registry::flow::purge_syncs;
use koc_tests::wait;
use pb::{
    MemberImportState::{Cancelled, Ended, LineTooLong, Receiving, Running},
    SyncOutcome::{Created, Rejected, Unchanged},
};
use serde_json::json;
use tonic::{Code, Status};

async fn create(world: &World, run: pb::SyncOpening) -> Result<pb::MemberImport, Status> {
    let request = pb::CreateMemberImportRequest { programme_id: world.programme.clone(), request_id: id(), run: Some(run) };
    Ok(world.imports().create_member_import(request).await?.into_inner().member_import.expect("an import"))
}

async fn append(world: &World, import: &pb::MemberImport, offset: i64, content: &[u8]) -> Result<i64, Status> {
    let request = pb::AppendMemberImportChunkRequest {
        programme_id: world.programme.clone(),
        import_id: import.import_id.clone(),
        offset,
        content: content.to_vec(),
    };
    Ok(world.imports().append_member_import_chunk(request).await?.into_inner().received_bytes)
}

async fn start(world: &World, import: &pb::MemberImport, total_bytes: i64) -> Result<pb::MemberImport, Status> {
    let request = pb::ImportMembersRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        import_id: import.import_id.clone(),
        total_bytes,
    };
    Ok(world.imports().import_members(request).await?.into_inner().member_import.expect("an import"))
}

async fn cancel(world: &World, import: &pb::MemberImport) -> Result<pb::MemberImport, Status> {
    let (programme_id, import_id) = (world.programme.clone(), import.import_id.clone());
    let request = pb::CancelMemberImportRequest { programme_id, request_id: id(), import_id };
    Ok(world.imports().cancel_member_import(request).await?.into_inner().member_import.expect("an import"))
}

async fn get(world: &World, import: &pb::MemberImport) -> Result<pb::MemberImport, Status> {
    let request = pb::GetMemberImportRequest { programme_id: world.programme.clone(), import_id: import.import_id.clone() };
    Ok(world.imports().get_member_import(request).await?.into_inner().member_import.expect("an import"))
}

/// The import once it is over, in this state.
async fn over(world: &World, import: &pb::MemberImport, state: pb::MemberImportState) -> pb::MemberImport {
    let import = wait::until("the import to be over", PATIENCE, async || {
        let import = get(world, import).await.expect("there");
        import.end_time.is_some().then_some(import)
    })
    .await;
    assert_eq!(import.state(), state);
    wait::until("the file to be removed", PATIENCE, async || {
        (world.count("SELECT count(*) FROM member_import_chunk").await == 0).then_some(())
    })
    .await;
    import
}

/// People as lines of a file.
fn lines(people: std::ops::Range<usize>) -> String {
    let line = |i: usize| json!({"externalId": i.to_string(), "sourceTime": "2025-03-29T06:16:05Z", "profile": {"city": "广州"}});
    people.map(|i| format!("{}\n", line(i))).collect()
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).expect("short")
}

#[tokio::test]
async fn a_file_is_appended_chunk_by_chunk_and_its_rows_go_in() {
    let world = World::new().await;
    let import = create(&world, opening("file")).await.expect("created");
    assert_eq!((import.state(), import.received_bytes), (Receiving, 0));
    let unreadable = "{\"externalId\": \"MARKER\", \"shoeSize\": 44}\n\nMARKER\n{\"externalId\": \"9\"}";
    let text = format!("{}{unreadable}", lines(0..1_200));
    // In the middle of a line, and of a letter.
    let cut = text.find('广').expect("a letter") + 1;
    let (first, second) = text.as_bytes().split_at(cut);
    let at = i64::try_from(cut).expect("short");
    assert_eq!(append(&world, &import, 0, first).await.expect("here"), at);
    assert_eq!(append(&world, &import, 0, first).await.expect("as before"), at);
    let gap = append(&world, &import, at + 1, second).await;
    assert_eq!(refused(gap, Code::FailedPrecondition, "CHUNK_GAP")["next_offset"], at.to_string());
    let other = append(&world, &import, 0, &first[1..]).await;
    assert_eq!(refused(other, Code::FailedPrecondition, "CHUNK_DIFFERS")["offset"], "0");
    let total = length(&text);
    let early = start(&world, &import, total).await;
    assert_eq!(refused(early, Code::FailedPrecondition, "IMPORT_INCOMPLETE")["received_bytes"], at.to_string());
    assert_eq!(append(&world, &import, at, second).await.expect("here"), total);

    let at_work = start(&world, &import, total).await.expect("started");
    assert_eq!(at_work.state(), Running);
    refused(append(&world, &import, total, b"more").await, Code::FailedPrecondition, "IMPORT_STATE");
    let ended = over(&world, &import, Ended).await;

    assert_eq!((ended.read_bytes, ended.read_lines), (total, 1_204));
    let run = ended.run.expect("its run");
    assert_eq!((run.state(), run.committed_through), (pb::SyncRunState::Ended, 3));
    assert_eq!(counts(&run), [(Created, 1_200), (Rejected, 3)]);
    assert_eq!(world.lookup("crm", "1199").await.expect("found").profile, Some(in_city("广州")));
    let request =
        pb::ListRejectedRowsRequest { programme_id: world.programme.clone(), sync_run_id: run.sync_run_id, ..Default::default() };
    let rejected = world.sync_runs().list_rejected_rows(request).await.expect("a page").into_inner().rows;
    let why: Vec<_> = rejected.into_iter().map(|row| row.status.expect("why").message).collect();
    assert!(why[0].contains("LINE_UNREADABLE") && why[1].contains("LINE_UNREADABLE"), "{why:?}");
    assert!(why[2].contains("source_time") && !why.concat().contains("MARKER"), "{why:?}");
    refused(cancel(&world, &import).await, Code::FailedPrecondition, "IMPORT_STATE");
}

#[tokio::test]
async fn an_import_that_is_stopped_with_the_service_goes_on_to_the_same_end() {
    let world = World::new().await;
    let import = create(&world, opening("file")).await.expect("created");
    let text = lines(0..5_000);
    append(&world, &import, 0, text.as_bytes()).await.expect("here");
    // Somebody holds a person of the second batch, so that the service is stopped in the middle.
    world.upsert(vec![crate::world::row("700", 1, in_city("深圳"))]).await;
    let mut admin = world.registry.database.admin.begin().await.expect("a transaction");
    sqlx::query("SELECT 1 FROM member FOR UPDATE").execute(&mut *admin).await.expect("the member is there");
    start(&world, &import, length(&text)).await.expect("started");
    world.wait_for_a_waiting_call().await;
    assert_eq!(get(&world, &import).await.expect("there").read_lines, 500);
    let World { registry, programme, .. } = world;
    let stopping = tokio::spawn(registry.stop());
    admin.rollback().await.expect("given back");
    let world = World::of(serve(stopping.await.expect("it stops")).await, programme);

    let ended = over(&world, &import, Ended).await;

    let run = ended.run.expect("its run");
    assert_eq!((ended.read_lines, run.committed_through), (5_000, 10));
    assert_eq!(counts(&run).iter().map(|(_, rows)| rows).sum::<i64>(), 5_000);
    assert_eq!(world.count("SELECT count(*) FROM member").await, 5_000);
    assert_eq!(world.count("SELECT count(*) FROM member WHERE version > 2").await, 0);
}

#[tokio::test]
async fn a_run_has_one_import_and_its_settings() {
    let world = World::new().await;
    let import = create(&world, opening("file")).await.expect("created");
    let again = create(&world, opening("file")).await;
    assert_eq!(refused(again, Code::AlreadyExists, "IMPORT_EXISTS")["resource_id"], import.import_id);
    let trial = pb::SyncOpening { validate_only: true, ..opening("file") };
    refused(create(&world, trial).await, Code::FailedPrecondition, "RUN_DIFFERS");
    let known = pb::SyncOpening { sync_run_id: id(), ..Default::default() };
    assert_eq!(violations(create(&world, known).await), pairs([("run.sync_run_id", "RUN_NOT_NEW")]));
    Stream::open(&world, opening("streamed")).await.close().await;
    refused(create(&world, opening("streamed")).await, Code::FailedPrecondition, "RUN_BEGUN");
    let nowhere = pb::MemberImport { import_id: id(), ..Default::default() };
    refused(get(&world, &nowhere).await, Code::NotFound, "IMPORT_NOT_FOUND");
    refused(append(&world, &nowhere, 0, b"x").await, Code::NotFound, "IMPORT_NOT_FOUND");
}

#[tokio::test]
async fn no_stream_feeds_or_closes_the_run_of_a_file_until_that_is_over() {
    let world = World::new().await;
    let import = create(&world, opening("file")).await.expect("created");
    let run = pb::SyncOpening { sync_run_id: import.run.clone().expect("its run").sync_run_id, ..Default::default() };
    let rows = || crate::stream::batch(1, vec![crate::world::row("1", 1, in_city("广州"))]);
    let mut feeding = Stream::open(&world, run.clone()).await;
    let figures = refused(feeding.exchange(rows()).await, Code::FailedPrecondition, "RUN_OF_IMPORT");
    assert_eq!(figures["import_id"], import.import_id);
    let mut closing = Stream::open(&world, run.clone()).await;
    closing.say(pb::sync_members_request::Message::Close(pb::SyncClosing {})).await;
    refused(closing.answer().await, Code::FailedPrecondition, "RUN_OF_IMPORT");
    cancel(&world, &import).await.expect("cancelled");
    let mut stream = Stream::open(&world, run).await;
    stream.exchange(rows()).await.expect("it is nobody's now");
    assert_eq!(stream.close().await.state(), pb::SyncRunState::Ended);
}

#[tokio::test]
async fn a_full_file_sweeps_whom_it_lacks() {
    let world = World::new().await;
    let people: Vec<_> = (0..20).map(|i| crate::world::row(&i.to_string(), 1, in_city("广州"))).collect();
    world.upsert(people).await;
    let full = pb::SyncOpening { mode: pb::SyncMode::Full.into(), as_of: Some(at(50_000_000)), ..opening("file") };
    let import = create(&world, full).await.expect("created");
    let text = lines(0..19);
    append(&world, &import, 0, text.as_bytes()).await.expect("here");
    start(&world, &import, length(&text)).await.expect("started");
    over(&world, &import, Ended).await;
    let run = wait::until("the sweep to end", PATIENCE, async || {
        let run = get(&world, &import).await.expect("there").run.expect("its run");
        run.end_time.is_some().then_some(run)
    })
    .await;
    assert_eq!((run.unseen_identities, run.swept_identities), (1, 1));
    assert_eq!(world.lookup("crm", "19").await.expect("found").state(), pb::MemberState::Suspended);
    assert_eq!(counts(&run), [(Unchanged, 19)]);
}

#[tokio::test]
async fn an_import_is_cancelled_by_a_caller_or_by_time_and_its_file_is_removed() {
    let world = World::new().await;
    let (stopped, left) =
        (create(&world, opening("stopped")).await.expect("created"), create(&world, opening("left")).await.expect("created"));
    for import in [&stopped, &left] {
        append(&world, import, 0, lines(0..3).as_bytes()).await.expect("here");
    }
    assert_eq!(cancel(&world, &stopped).await.expect("cancelled").state(), Cancelled);
    refused(start(&world, &stopped, 0).await, Code::FailedPrecondition, "IMPORT_STATE");
    wait::until("its file to be removed", PATIENCE, async || {
        (world.count("SELECT count(*) FROM member_import_chunk").await == 1).then_some(())
    })
    .await;
    world.registry.advance(DAY * 8).await;
    purge_syncs::sweep(world.replica()).await;
    over(&world, &left, Cancelled).await;
    assert_eq!(world.count("SELECT count(*) FROM member").await, 0);
}

#[tokio::test]
async fn a_line_without_an_end_stops_the_import_behind_what_went_in() {
    let world = World::new().await;
    let import = create(&world, opening("file")).await.expect("created");
    let text = format!("{}{}", lines(0..2), "x".repeat(1024 * 1024 + 2));
    append(&world, &import, 0, text.as_bytes()).await.expect("here");
    append(&world, &import, length(&text), b"x").await.expect("here");
    start(&world, &import, length(&text) + 1).await.expect("started");
    let ended = over(&world, &import, LineTooLong).await;
    assert_eq!(ended.read_lines, 2);
    let run = ended.run.expect("its run");
    assert_eq!((run.state(), counts(&run)), (pb::SyncRunState::Open, vec![(Created, 2)]));
}

#[tokio::test]
async fn an_import_works_over_http_alone() {
    let world = World::new().await;
    let http = world.registry.http();
    let base = format!("/v1/programmes/{}/memberImports", world.programme);
    let body = json!({"requestId": id(), "run": {"sourceSystem": "crm", "runName": "file"}});
    let created = http.post(&base, &body).await.good();
    let import_id = created["memberImport"]["importId"].as_str().expect("an id").to_owned();
    let text = lines(0..2);
    let body = json!({"offset": "0", "content": base64(text.as_bytes())});
    let appended = http.post(&format!("{base}/{import_id}:append"), &body).await.good();
    assert_eq!(appended["receivedBytes"], text.len().to_string());
    let body = json!({"requestId": id(), "totalBytes": text.len().to_string()});
    http.post(&format!("{base}/{import_id}:import"), &body).await.good();
    over(&world, &pb::MemberImport { import_id, ..Default::default() }, Ended).await;
    assert_eq!(world.count("SELECT count(*) FROM member").await, 2);
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
