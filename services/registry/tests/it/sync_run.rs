//! Runs of a sync: resumed, answered again, reported, and their rejected rows.

use crate::{
    stream::{Stream, batch, counts, opening},
    world::{DAY, World, ahead, id, in_city, outcomes, pairs, refused, row, row_violations, serve, violations},
};
use koc_proto::koc::registry::v1 as pb;
use koc_registry::flow::purge_syncs;
use pb::SyncOutcome::{Created, Rejected, Unchanged, Updated};
use std::time::Duration;
use tonic::{Code, Status};

async fn get(world: &World, run: &pb::SyncRun) -> Result<pb::SyncRun, Status> {
    let request = pb::GetSyncRunRequest { programme_id: world.programme.clone(), sync_run_id: run.sync_run_id.clone() };
    Ok(world.sync_runs().get_sync_run(request).await?.into_inner().run.expect("a run"))
}

async fn rejected(world: &World, run: &pb::SyncRun) -> Vec<pb::RejectedRow> {
    let request = pb::ListRejectedRowsRequest {
        programme_id: world.programme.clone(),
        sync_run_id: run.sync_run_id.clone(),
        ..Default::default()
    };
    world.sync_runs().list_rejected_rows(request).await.expect("a page").into_inner().rows
}

fn retry_request(world: &World, run: &pb::SyncRun, corrections: Vec<pb::RejectedRowCorrection>) -> pb::RetryRejectedRowsRequest {
    let (programme_id, sync_run_id) = (world.programme.clone(), run.sync_run_id.clone());
    pb::RetryRejectedRowsRequest { programme_id, sync_run_id, corrections, page_token: String::new() }
}

async fn retry(world: &World, request: pb::RetryRejectedRowsRequest) -> Result<Vec<(i64, i32, pb::SyncOutcome)>, Status> {
    let rows = world.sync_runs().retry_rejected_rows(request).await?.into_inner().rows;
    let told = |row: pb::RetriedRow| {
        let result = row.result.expect("a result");
        (row.batch_number, result.row_index, result.outcome())
    };
    Ok(rows.into_iter().map(told).collect())
}

fn phone(external_id: &str, phone: &str) -> pb::MemberRow {
    row(external_id, 1, pb::MemberProfile { phone: phone.into(), ..in_city("广州") })
}

#[tokio::test]
async fn a_run_is_gone_on_with_by_its_name_or_its_id_behind_what_was_committed() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, opening("nightly")).await;
    stream.exchange(batch(1, vec![row("1", 1, in_city("广州"))])).await.expect("answered");
    stream.exchange(batch(2, vec![row("2", 1, in_city("广州"))])).await.expect("answered");
    // The sender is gone.
    drop(stream);

    let (mut stream, run) = Stream::begin(world.sync(), &world.programme, opening("nightly")).await.expect("gone on with");
    assert_eq!((run.committed_through, run.state()), (2, pb::SyncRunState::Open));
    stream.exchange(batch(3, vec![row("3", 1, in_city("广州"))])).await.expect("answered");
    drop(stream);
    let by_id = pb::SyncOpening { sync_run_id: run.sync_run_id.clone(), ..Default::default() };
    let (stream, same) = Stream::begin(world.sync(), &world.programme, by_id).await.expect("gone on with");
    assert_eq!((&same.sync_run_id, same.committed_through), (&run.sync_run_id, 3));
    let closed = stream.close().await;
    assert_eq!(counts(&closed), [(Created, 3)]);
    assert_eq!(get(&world, &run).await.expect("there"), closed);

    // Another source's run of the same name is another run.
    let other = pb::SyncOpening { source_system: "shop".into(), ..opening("nightly") };
    let (_, other) = Stream::begin(world.sync(), &world.programme, other).await.expect("opened");
    assert_eq!((other.committed_through, other.sync_run_id != run.sync_run_id), (0, true));
    let unknown = pb::SyncOpening { sync_run_id: id(), ..Default::default() };
    refused(Stream::begin(world.sync(), &world.programme, unknown).await.map(|_| ()), Code::NotFound, "RUN_NOT_FOUND");
}

#[tokio::test]
async fn the_same_batch_again_is_answered_as_before_and_other_rows_under_its_number_are_refused() {
    let world = World::new().await;
    let rows = vec![row("1", 1, in_city("广州")), phone("2", "12"), row("3", 1, in_city("深圳"))];
    let mut stream = Stream::open(&world, opening("nightly")).await;
    let first = stream.exchange(batch(1, rows.clone())).await.expect("answered");
    stream.exchange(batch(2, vec![row("1", 2, in_city("北京"))])).await.expect("answered");
    let facts = world.changes().await.len();

    let mut again = Stream::open(&world, opening("nightly")).await;
    let second = again.exchange(batch(1, rows.clone())).await.expect("answered");

    assert!(second.replayed && !first.replayed);
    assert_eq!((second.committed_through, &second.results), (1, &first.results));
    assert_eq!(outcomes(&second.results), [Created, Rejected, Created]);
    assert_eq!(world.changes().await.len(), facts);
    assert_eq!(rejected(&world, &again_run(&world).await).await.len(), 1);

    let mut others = rows.clone();
    others.swap(0, 2);
    let answer = again.exchange(batch(1, others)).await;
    assert_eq!(refused(answer, Code::FailedPrecondition, "BATCH_DIFFERS")["batch_number"], "1");
    let mut gap = Stream::open(&world, opening("nightly")).await;
    let answer = gap.exchange(batch(4, rows.clone())).await;
    assert_eq!(refused(answer, Code::FailedPrecondition, "BATCH_GAP")["next_batch_number"], "3");

    // Once it is closed, too.
    Stream::open(&world, opening("nightly")).await.close().await;
    let mut closed = Stream::open(&world, opening("nightly")).await;
    assert!(closed.exchange(batch(1, rows.clone())).await.expect("answered").replayed);
    let answer = closed.exchange(batch(3, rows)).await;
    assert_eq!(refused(answer, Code::FailedPrecondition, "RUN_CLOSED")["state"], "ENDED");
}

async fn again_run(world: &World) -> pb::SyncRun {
    Stream::begin(world.sync(), &world.programme, opening("nightly")).await.expect("gone on with").1
}

#[tokio::test]
async fn a_run_of_this_name_with_other_settings_is_refused() {
    let world = World::new().await;
    Stream::open(&world, opening("nightly")).await;
    let trial = pb::SyncOpening { validate_only: true, ..opening("nightly") };
    let answer = Stream::begin(world.sync(), &world.programme, trial).await.map(|_| ());
    assert_eq!(refused(answer, Code::FailedPrecondition, "RUN_DIFFERS")["setting"], "validate_only");
    let full = pb::SyncOpening { mode: pb::SyncMode::Full.into(), ..opening("weekly") };
    let answer = Stream::begin(world.sync(), &world.programme, full).await.map(|_| ());
    assert_eq!(violations(answer), pairs([("open.as_of", "AS_OF_REQUIRED")]));
    let ahead = ahead(Duration::from_secs(11 * 60));
    let full = pb::SyncOpening { mode: pb::SyncMode::Full.into(), as_of: Some(ahead), ..opening("weekly") };
    let answer = Stream::begin(world.sync(), &world.programme, full).await.map(|_| ());
    assert_eq!(violations(answer), pairs([("as_of", "AS_OF_AHEAD")]));
    let bold = pb::SyncOpening { max_delete_percent: Some(21), ..opening("weekly") };
    let answer = Stream::begin(world.sync(), &world.programme, bold).await.map(|_| ());
    assert_eq!(violations(answer), pairs([("open.max_delete_percent", "int.lte")]));
}

#[tokio::test]
async fn two_senders_of_one_run_at_once_have_each_batch_applied_once() {
    let world = World::new().await;
    let rows = |number: i64| (0..20).map(|i| row(&format!("{number}-{i}"), 1, in_city("广州"))).collect::<Vec<_>>();
    let send = || async {
        let mut stream = Stream::open(&world, opening("nightly")).await;
        let mut replayed = 0;
        for number in 1..=6 {
            replayed += i32::from(stream.exchange(batch(number, rows(number))).await.expect("answered").replayed);
        }
        replayed
    };
    let (one, other) = tokio::join!(send(), send());
    assert_eq!(one + other, 6);
    assert_eq!(world.count("SELECT count(*) FROM member").await, 120);
    assert_eq!(counts(&again_run(&world).await), [(Created, 120)]);
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_is_gone_on_with_to_the_same_end() {
    let world = World::new().await;
    let member_id = world.upsert(vec![row("1", 1, in_city("广州"))]).await[0].member_id.clone();
    let mut stream = Stream::open(&world, opening("nightly")).await;
    stream.exchange(batch(1, vec![row("1", 2, in_city("深圳")), row("2", 2, in_city("深圳"))])).await.expect("answered");
    // The service stops while the second batch waits for a row.
    let mut admin = world.registry.database.admin.begin().await.expect("a transaction");
    let hold = "SELECT 1 FROM member WHERE member_id = $1::uuid FOR UPDATE";
    sqlx::query(hold).bind(&member_id).execute(&mut *admin).await.expect("the member is there");
    let second = vec![row("1", 3, in_city("北京")), row("3", 3, in_city("北京"))];
    stream.send(batch(2, second.clone())).await;
    world.wait_for_a_waiting_call().await;
    let World { registry, programme, .. } = world;
    let stopping = tokio::spawn(registry.stop());
    // The batch is let go only once nobody waits for its answer.
    drop(stream);
    admin.rollback().await.expect("given back");
    let world = World::of(serve(stopping.await.expect("it stops")).await, programme);

    let (mut stream, run) = Stream::begin(world.sync(), &world.programme, opening("nightly")).await.expect("gone on with");
    // It was committed as a whole, or not at all.
    assert!((1..=2).contains(&run.committed_through));
    stream.exchange(batch(2, second)).await.expect("answered");
    let run = stream.close().await;

    assert_eq!(counts(&run).iter().map(|(_, rows)| rows).sum::<i64>(), 4);
    assert_eq!(world.count("SELECT count(*) FROM member").await, 3);
    assert_eq!(world.lookup("crm", "1").await.expect("found").profile, Some(in_city("北京")));
    assert_eq!(world.told(&member_id).await.iter().map(|change| change.version).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_trial_is_reported_as_any_run_and_changes_no_member() {
    let world = World::new().await;
    world.upsert(vec![row("1", 1, in_city("广州"))]).await;
    let facts = world.changes().await.len();
    let trial = pb::SyncOpening { validate_only: true, ..opening("trial") };
    let mut stream = Stream::open(&world, trial).await;
    let rows = vec![row("1", 2, in_city("深圳")), row("2", 1, in_city("深圳")), phone("3", "12"), row("1", 1, in_city("广州"))];
    let answer = stream.exchange(batch(1, rows)).await.expect("answered");
    assert_eq!(outcomes(&answer.results)[..3], [Updated, Created, Rejected]);
    assert_eq!(answer.results[1].member_id, "");
    let run = stream.close().await;
    assert_eq!(counts(&run)[..2], [(Created, 1), (Updated, 1)]);
    assert!(run.validate_only && run.state() == pb::SyncRunState::Ended);
    assert_eq!(rejected(&world, &run).await.len(), 1);
    assert_eq!((world.count("SELECT count(*) FROM member").await, world.changes().await.len()), (1, facts));
    assert_eq!(world.lookup("crm", "1").await.expect("found").profile, Some(in_city("广州")));
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 1);
}

#[tokio::test]
async fn rejected_rows_are_kept_with_all_they_break_until_they_go_in() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, opening("nightly")).await;
    let soon = pb::MemberRow { source_time: Some(ahead(Duration::from_secs(15 * 60))), ..row("2", 0, in_city("深圳")) };
    stream.exchange(batch(1, vec![phone("1", "12"), soon.clone()])).await.expect("answered");
    stream.exchange(batch(2, vec![row("9", 1, in_city("广州")), phone("", "34")])).await.expect("answered");
    let run = stream.close().await;
    assert_eq!(counts(&run), [(Created, 1), (Rejected, 3)]);

    let rows = rejected(&world, &run).await;
    let places: Vec<_> = rows.iter().map(|row| (row.batch_number, row.row_index)).collect();
    assert_eq!(places, [(1, 0), (1, 1), (2, 1)]);
    assert_eq!(rows[0].row, Some(phone("1", "12")));
    let as_result = |row: &pb::RejectedRow| pb::MemberRowResult {
        outcome: Rejected.into(),
        status: row.status.clone(),
        ..Default::default()
    };
    assert_eq!(row_violations(&as_result(&rows[0])), pairs([("profile.phone", "string.pattern")]));
    let both = pairs([("external_id", "string.min_len"), ("profile.phone", "string.pattern")]);
    assert_eq!(row_violations(&as_result(&rows[2])), both);

    // Nothing has changed but the time: the clock has caught up with one of them.
    world.registry.advance(Duration::from_secs(10 * 60)).await;
    let again = retry(&world, retry_request(&world, &run, Vec::new())).await.expect("answered");
    assert_eq!(again, [(1, 0, Rejected), (1, 1, Created), (2, 1, Rejected)]);
    // A person mends one, and another not quite.
    let correction = |batch_number, row_index, row| pb::RejectedRowCorrection { batch_number, row_index, row: Some(row) };
    let corrections = vec![correction(1, 0, phone("1", "+8613900000000")), correction(2, 1, phone("4", "34"))];
    let again = retry(&world, retry_request(&world, &run, corrections.clone())).await.expect("answered");
    assert_eq!(again, [(1, 0, Created), (2, 1, Rejected)]);

    let left = rejected(&world, &run).await;
    assert_eq!((left.len(), left[0].row.clone()), (1, Some(phone("4", "34"))));
    assert_eq!(row_violations(&as_result(&left[0])), pairs([("profile.phone", "string.pattern")]));
    assert_eq!(counts(&get(&world, &run).await.expect("there")), [(Created, 3), (Rejected, 1)]);
    // Asked for again, what went in by then keeps nobody from being mended.
    let mended = correction(2, 1, phone("4", "+8613900000001"));
    let request = retry_request(&world, &run, vec![corrections[0].clone(), mended.clone()]);
    let rows = world.sync_runs().retry_rejected_rows(request.clone()).await.expect("answered").into_inner().rows;
    let told = |row: &pb::RetriedRow| {
        let result = row.result.clone().unwrap_or_default();
        (row.batch_number, result.row_index, result.outcome(), row.not_rejected)
    };
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), [(2, 1, Created, false), (1, 0, pb::SyncOutcome::Unspecified, true)]);
    let rows = world.sync_runs().retry_rejected_rows(request).await.expect("answered").into_inner().rows;
    assert!(rows.len() == 2 && rows.iter().all(|row| row.not_rejected), "{rows:?}");
    assert_eq!(counts(&get(&world, &run).await.expect("there")), [(Created, 4)]);
    let twice = retry(&world, retry_request(&world, &run, vec![mended.clone(), mended])).await;
    assert_eq!(violations(twice), pairs([("corrections[1]", "ROW_REPEATED")]));
    let nowhere = pb::SyncRun { sync_run_id: id(), ..run };
    refused(retry(&world, retry_request(&world, &nowhere, Vec::new())).await, Code::NotFound, "RUN_NOT_FOUND");
}

#[tokio::test]
async fn rejected_rows_and_runs_come_in_pages() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, opening("nightly")).await;
    stream.exchange(batch(1, (0..5).map(|i| phone(&i.to_string(), "12")).collect())).await.expect("answered");
    let run = stream.close().await;
    let mut request = pb::ListRejectedRowsRequest {
        programme_id: world.programme.clone(),
        sync_run_id: run.sync_run_id.clone(),
        page_size: 2,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = world.sync_runs().list_rejected_rows(request.clone()).await.expect("a page").into_inner();
        found.extend(page.rows.into_iter().map(|row| row.row_index));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, [0, 1, 2, 3, 4]);
    request.page_token = "bent".into();
    assert_eq!(violations(world.sync_runs().list_rejected_rows(request).await), pairs([("page_token", "PAGE_TOKEN_INVALID")]));

    let shop = pb::SyncOpening { source_system: "shop".into(), ..opening("weekly") };
    Stream::open(&world, shop).await;
    let list = |source_system: &str| pb::ListSyncRunsRequest {
        programme_id: world.programme.clone(),
        source_system: source_system.into(),
        ..Default::default()
    };
    let runs = world.sync_runs().list_sync_runs(list("")).await.expect("a page").into_inner().runs;
    assert_eq!(runs.iter().map(|run| run.run_name.as_str()).collect::<Vec<_>>(), ["weekly", "nightly"]);
    let runs = world.sync_runs().list_sync_runs(list("crm")).await.expect("a page").into_inner().runs;
    assert_eq!(runs, [run]);
}

#[tokio::test]
async fn large_rows_that_are_rejected_come_and_are_retried_as_many_as_fit_at_a_time() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, opening("nightly")).await;
    let large = |i: i64| row(&i.to_string(), 1, pb::MemberProfile { city: "x".repeat(600_000), ..Default::default() });
    stream.exchange(batch(1, (0..5).map(large).collect())).await.expect("answered");
    let run = stream.close().await;
    let mut request = pb::ListRejectedRowsRequest {
        programme_id: world.programme.clone(),
        sync_run_id: run.sync_run_id.clone(),
        ..Default::default()
    };
    let mut pages = Vec::new();
    loop {
        let page = world.sync_runs().list_rejected_rows(request.clone()).await.expect("a page").into_inner();
        pages.push(page.rows.iter().map(|row| row.row_index).collect::<Vec<_>>());
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [vec![0, 1], vec![2, 3], vec![4]]);
    let retried = world.sync_runs().retry_rejected_rows(retry_request(&world, &run, Vec::new())).await.expect("answered");
    let retried = retried.into_inner();
    assert_eq!((retried.rows.len(), retried.next_page_token.is_empty()), (2, false));
}

#[tokio::test]
async fn deletions_of_nobody_are_forgotten_after_a_year() {
    let world = World::new().await;
    let deletion = pb::MemberRow { deleted: true, source_time: Some(ahead(Duration::ZERO)), ..row("7", 0, Default::default()) };
    world.upsert(vec![deletion]).await;
    let kept = "SELECT count(*) FROM identity_tombstone";
    for (days, left) in [(364, 1), (2, 0)] {
        world.registry.advance(DAY * days).await;
        purge_syncs::sweep(world.replica()).await;
        assert_eq!(world.count(kept).await, left);
    }
}

#[tokio::test]
async fn a_stored_answer_holds_nothing_personal_and_ends_with_its_time() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, opening("nightly")).await;
    let rows = vec![
        row("MARKER-id", 1, in_city("MARKER-city")),
        row("MARKER-2", 1, pb::MemberProfile { email: "MARKER".into(), ..in_city("MARKER-city") }),
    ];
    let answer = stream.exchange(batch(1, rows.clone())).await.expect("answered");
    assert_eq!(outcomes(&answer.results), [Created, Rejected]);
    let kept = "SELECT count(*) FROM sync_batch WHERE position('MARKER' IN encode(answer, 'escape')) > 0";
    assert_eq!((world.count(kept).await, world.count("SELECT count(*) FROM sync_batch").await), (0, 1));

    drop(stream);
    world.registry.advance(DAY * 31).await;
    purge_syncs::sweep(world.replica()).await;
    let kept = "SELECT (SELECT count(*) FROM sync_batch) + (SELECT count(*) FROM rejected_row)";
    assert_eq!(world.count(kept).await, 0);
    let run = again_run(&world).await;
    assert_eq!((run.state(), run.committed_through), (pb::SyncRunState::Lapsed, 1));
    let mut stream = Stream::open(&world, opening("nightly")).await;
    refused(stream.exchange(batch(1, rows.clone())).await, Code::FailedPrecondition, "BATCH_FORGOTTEN");
    let mut stream = Stream::open(&world, opening("nightly")).await;
    refused(stream.exchange(batch(2, rows)).await, Code::FailedPrecondition, "RUN_CLOSED");
}

#[tokio::test]
async fn an_unchanged_batch_in_another_run_changes_nothing() {
    let world = World::new().await;
    let rows: Vec<_> = (0..50).map(|i| row(&i.to_string(), i, in_city("广州"))).collect();
    Stream::open(&world, opening("monday")).await.exchange(batch(1, rows.clone())).await.expect("answered");
    let facts = world.changes().await.len();
    let mut stream = Stream::open(&world, opening("tuesday")).await;
    stream.exchange(batch(1, rows)).await.expect("answered");
    assert_eq!(counts(&stream.close().await), [(Unchanged, 50)]);
    assert_eq!(world.changes().await.len(), facts);
}
