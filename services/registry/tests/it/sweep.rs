//! Full runs: who is not in the export goes, if they are few, or if a person says so.

use crate::{
    stream::{Stream, batch, opening},
    world::{PATIENCE, SyncRuns, World, at, id, in_city, outcomes, refused, row, serve},
};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::wait;
use pb::{
    MemberState::{Active, Suspended},
    SyncOutcome::{Created, Rejected},
    SyncRunState::{Ended, Held},
};
use tonic::{Code, Status};

/// A full run as of a second.
fn full(run_name: &str, second: i64) -> pb::SyncOpening {
    pb::SyncOpening { mode: pb::SyncMode::Full.into(), as_of: Some(at(second)), ..opening(run_name) }
}

/// The run once its job has come to a state.
async fn reaches(world: &World, run: &pb::SyncRun, state: pb::SyncRunState) -> pb::SyncRun {
    let request = pb::GetSyncRunRequest { programme_id: world.programme.clone(), sync_run_id: run.sync_run_id.clone() };
    wait::until("the run to get there", PATIENCE, async || {
        let run = world.sync_runs().get_sync_run(request.clone()).await.expect("there").into_inner().run.expect("a run");
        (run.state() == state).then_some(run)
    })
    .await
}

fn figures(run: &pb::SyncRun) -> (i64, i64, i64) {
    (run.source_identities, run.unseen_identities, run.swept_identities)
}

/// Brings people in, numbered from 0, before the time of any export.
async fn people(world: &World, n: i64) {
    let rows: Vec<_> = (0..n).map(|i| row(&i.to_string(), 1, in_city("广州"))).collect();
    world.upsert(rows).await;
}

async fn state(world: &World, external_id: &str) -> pb::MemberState {
    world.lookup("crm", external_id).await.expect("found").state()
}

async fn confirm(world: &World, actor: &str, run: &pb::SyncRun) -> Result<pb::SyncRun, Status> {
    let request = pb::ConfirmSweepRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        sync_run_id: run.sync_run_id.clone(),
        reason: "客户已核对".into(),
    };
    let mut client = SyncRuns::new(world.registry.channel_of(actor));
    Ok(client.confirm_sweep(request).await?.into_inner().run.expect("the run"))
}

#[tokio::test]
async fn whom_a_full_run_did_not_see_is_deleted_when_they_are_few() {
    let world = World::new().await;
    people(&world, 40).await;
    // Another source's people are none of its business, and whom the source spoke of after the export is not judged by it.
    world.send(world.batch("shop", vec![row("a", 1, in_city("广州"))])).await;
    world.upsert(vec![row("late", 50, in_city("广州"))]).await;
    let mut stream = Stream::open(&world, full("weekly", 10)).await;
    let rows = (0..38).map(|i| row(&i.to_string(), 1, in_city("广州"))).chain([row("new", 5, in_city("北京"))]).collect();
    stream.exchange(batch(1, rows)).await.expect("answered");
    let closed = stream.close().await;

    let run = reaches(&world, &closed, Ended).await;

    // Forty, the late one and the new one; two were not seen.
    assert_eq!((figures(&run), run.end_time.is_some()), ((42, 2, 2), true));
    for (person, expected) in [("37", Active), ("38", Suspended), ("39", Suspended), ("late", Active), ("new", Active)] {
        assert_eq!(state(&world, person).await, expected, "{person}");
    }
    assert_eq!(world.lookup("shop", "a").await.expect("found").state(), Active);
    wait::until("what it saw to be forgotten", PATIENCE, async || {
        (world.count("SELECT count(*) FROM sync_seen").await == 0).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM sync_run WHERE walked_to IS NOT NULL").await, 0);
    // A row from before the export brings nobody back, one from after it does.
    world.upsert(vec![row("38", 9, in_city("深圳")), row("39", 11, in_city("深圳"))]).await;
    assert_eq!((state(&world, "38").await, state(&world, "39").await), (Suspended, Active));
}

#[tokio::test]
async fn whoever_is_in_a_later_export_is_back_unchanged_and_safe_from_an_older_one() {
    let world = World::new().await;
    people(&world, 40).await;
    let all = |range: std::ops::Range<i64>| range.map(|i| row(&i.to_string(), 1, in_city("广州"))).collect::<Vec<_>>();
    // Two exports that lack some by mistake: of one the few are deleted, the other waits for a person's word.
    let mut few = Stream::open(&world, full("few", 10)).await;
    few.exchange(batch(1, all(0..39))).await.expect("answered");
    reaches(&world, &few.close().await, Ended).await;
    let mut many = Stream::open(&world, full("many", 11)).await;
    many.exchange(batch(1, all(0..30))).await.expect("answered");
    let held = reaches(&world, &many.close().await, Held).await;
    assert_eq!(state(&world, "39").await, Suspended);

    let mut whole = Stream::open(&world, full("whole", 12)).await;
    whole.exchange(batch(1, all(0..40))).await.expect("answered");
    let whole = reaches(&world, &whole.close().await, Ended).await;
    assert_eq!((state(&world, "39").await, figures(&whole)), (Active, (40, 0, 0)));
    confirm(&world, "operator", &held).await.expect("confirmed");
    let late = reaches(&world, &held, Ended).await;
    assert_eq!((state(&world, "35").await, late.swept_identities), (Active, 0));
}

#[tokio::test]
async fn too_many_are_deleted_only_when_another_person_says_so() {
    let world = World::new().await;
    people(&world, 10).await;
    let mut stream = Stream::open(&world, full("weekly", 10)).await;
    stream.exchange(batch(1, (0..8).map(|i| row(&i.to_string(), 1, in_city("广州"))).collect())).await.expect("answered");
    let closed = stream.close().await;
    let run = reaches(&world, &closed, Held).await;
    assert_eq!((figures(&run), run.end_time), ((10, 2, 0), None));
    assert_eq!((state(&world, "8").await, state(&world, "9").await), (Active, Active));

    refused(confirm(&world, "tester", &run).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    assert_eq!(run.closed_by, "tester");
    // Meanwhile one of them has shown up.
    world.upsert(vec![row("9", 20, in_city("广州"))]).await;
    confirm(&world, "operator", &run).await.expect("confirmed");
    let run = reaches(&world, &run, Ended).await;

    assert_eq!(figures(&run), (10, 2, 1));
    assert_eq!((state(&world, "8").await, state(&world, "9").await), (Suspended, Active));
    let answer = confirm(&world, "operator", &run).await;
    assert_eq!(refused(answer, Code::FailedPrecondition, "RUN_NOT_HELD")["state"], "ENDED");
}

#[tokio::test]
async fn who_closed_a_run_that_another_opened_may_not_confirm_it_either() {
    let world = World::new().await;
    people(&world, 10).await;
    let mut stream = Stream::open(&world, full("weekly", 10)).await;
    stream.exchange(batch(1, vec![row("0", 1, in_city("广州"))])).await.expect("answered");
    let known = reaches_open(&world).await;
    let closer = crate::world::Sync::new(world.registry.channel_of("closer"));
    let (closing, _) = Stream::begin(closer, &world.programme, known).await.expect("let in");
    let run = reaches(&world, &closing.close().await, Held).await;
    assert_eq!((run.actor.as_str(), run.closed_by.as_str()), ("tester", "closer"));
    for actor in ["tester", "closer"] {
        refused(confirm(&world, actor, &run).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    }
    confirm(&world, "operator", &run).await.expect("confirmed");
}

#[tokio::test]
async fn corrections_leave_the_count_of_rows_that_are_nobodys_right() {
    let world = World::new().await;
    people(&world, 40).await;
    let mut stream = Stream::open(&world, full("weekly", 10)).await;
    let bad = |id: &str| pb::MemberRow { source_time: None, ..row(id, 0, in_city("广州")) };
    let rows: Vec<_> = (0..38).map(|i| row(&i.to_string(), 1, in_city("广州"))).chain([bad(""), bad("39")]).collect();
    stream.exchange(batch(1, rows)).await.expect("answered");
    let run = {
        let request = pb::ListSyncRunsRequest { programme_id: world.programme.clone(), ..Default::default() };
        world.sync_runs().list_sync_runs(request).await.expect("a page").into_inner().runs.remove(0)
    };
    let correct = async |row_index: i32, row: pb::MemberRow| {
        let correction = pb::RejectedRowCorrection { batch_number: 1, row_index, row: Some(row) };
        let request = pb::RetryRejectedRowsRequest {
            programme_id: world.programme.clone(),
            sync_run_id: run.sync_run_id.clone(),
            corrections: vec![correction],
            page_token: String::new(),
        };
        world.sync_runs().retry_rejected_rows(request).await.expect("answered");
        let request = pb::GetSyncRunRequest { programme_id: world.programme.clone(), sync_run_id: run.sync_run_id.clone() };
        world.sync_runs().get_sync_run(request).await.expect("there").into_inner().run.expect("a run").unidentified_rows
    };
    assert_eq!(run.unidentified_rows, 1);
    // Mended half and then in whole; and one that was somebody's is nobody's for a while.
    assert_eq!(correct(38, bad("38")).await, 0);
    assert_eq!(correct(39, bad("")).await, 1);
    assert_eq!(correct(38, row("38", 1, in_city("广州"))).await, 1);
    assert_eq!(correct(39, row("39", 1, in_city("广州"))).await, 0);
    let run = reaches(&world, &stream.close().await, Ended).await;
    assert_eq!((figures(&run), run.unidentified_rows), ((40, 0, 0), 0));
}

/// How the one open run is gone on with by its id.
async fn reaches_open(world: &World) -> pb::SyncOpening {
    let request = pb::ListSyncRunsRequest { programme_id: world.programme.clone(), ..Default::default() };
    let run = world.sync_runs().list_sync_runs(request).await.expect("a page").into_inner().runs.remove(0);
    pb::SyncOpening { sync_run_id: run.sync_run_id, ..Default::default() }
}

#[tokio::test]
async fn whose_row_was_rejected_or_could_not_be_read_is_not_taken_for_deleted() {
    let world = World::new().await;
    people(&world, 40).await;
    let mut stream = Stream::open(&world, full("weekly", 10)).await;
    let bad = pb::MemberRow { source_time: None, ..row("38", 0, in_city("广州")) };
    let rows: Vec<_> = (0..38).map(|i| row(&i.to_string(), 1, in_city("广州"))).chain([bad]).collect();
    let unread = pb::SyncBatch { unread_external_ids: vec!["39".into()], ..batch(1, rows) };
    let answer = stream.exchange(unread).await.expect("answered");
    assert_eq!(outcomes(&answer.results)[38], Rejected);
    let closed = stream.close().await;
    assert_eq!(figures(&reaches(&world, &closed, Ended).await), (40, 0, 0));

    // An id that cannot be read may be anybody's: nobody goes without a person's word.
    let mut stream = Stream::open(&world, full("next", 20)).await;
    let rows: Vec<_> = (0..39).map(|i| row(&i.to_string(), 1, in_city("广州"))).collect();
    let unread = pb::SyncBatch { unread_external_ids: vec![String::new()], ..batch(1, rows) };
    stream.exchange(unread).await.expect("answered");
    let closed = stream.close().await;
    let run = reaches(&world, &closed, Held).await;
    assert_eq!((figures(&run), run.unidentified_rows), ((40, 1, 0), 1));
}

#[tokio::test]
async fn a_full_trial_says_whom_it_would_delete() {
    let world = World::new().await;
    people(&world, 4).await;
    let trial = pb::SyncOpening { validate_only: true, ..full("trial", 10) };
    let mut stream = Stream::open(&world, trial).await;
    stream.exchange(batch(1, vec![row("0", 1, in_city("广州"))])).await.expect("answered");
    let closed = stream.close().await;
    let run = reaches(&world, &closed, Ended).await;
    assert_eq!(figures(&run), (4, 3, 0));
    assert_eq!(world.count("SELECT count(*) FROM member WHERE state <> 'ACTIVE'").await, 0);
}

#[tokio::test]
async fn a_sweep_of_many_parts_goes_on_after_the_service_is_stopped() {
    let world = World::new().await;
    // More than one step deletes.
    for part in 0..2 {
        let rows: Vec<_> = (0..300).map(|i| row(&format!("{part}-{i}"), 1, in_city("广州"))).collect();
        world.upsert(rows).await;
    }
    let mut stream = Stream::open(&world, full("weekly", 10)).await;
    let answer = stream.exchange(batch(1, vec![row("new", 1, in_city("广州"))])).await.expect("answered");
    assert_eq!(outcomes(&answer.results), [Created]);
    let closed = stream.close().await;
    let run = reaches(&world, &closed, Held).await;
    confirm(&world, "operator", &run).await.expect("confirmed");
    let World { registry, programme, .. } = world;
    let world = World::of(serve(registry.stop().await).await, programme);

    let run = reaches(&world, &run, Ended).await;

    assert_eq!(figures(&run), (601, 600, 600));
    assert_eq!(world.count("SELECT count(*) FROM member WHERE state = 'SUSPENDED'").await, 600);
    assert_eq!(world.count("SELECT count(*) FROM member WHERE version <> 3 AND state = 'SUSPENDED'").await, 0);
}
