//! The sequencer and the feed: every committed fact once, in a dense order that keeps each subject's own.

use crate::mini::{self, PATIENCE, count, create, publish, replica};
use koc_chassis::{
    fault::reason_of,
    feed::{Feed, Page},
    outbox::{self, NewFact},
    postgres::Db,
    sequencer::{self, OnSequenced, Sequenced},
};
use koc_proto::koc::{feed::v1::Change, registry::v1 as pb};
use koc_tests::{
    service::{self, ServiceDatabase},
    token, wait,
};
use pb::feed_service_client::FeedServiceClient;
use prost::Message;
use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use uuid::Uuid;

/// Runs a sequencer as each replica does, until the guard is dropped.
fn sequence(db: &Db) -> DropGuard {
    let stop = CancellationToken::new();
    tokio::spawn(sequencer::run(db.clone(), None, stop.clone()));
    stop.drop_guard()
}

/// Adds one to a subject's account and tells of it, its row locked; the transaction stays open a moment. Odd ones are taken back.
async fn write(db: &Db, account: i32, subject: Uuid, nr: u64) -> Result<Option<i64>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let sql = "UPDATE account SET balance = balance + 1 WHERE account_id = $1 RETURNING balance";
    let version: i64 = sqlx::query_scalar(sql).bind(account).fetch_one(&mut *tx).await?;
    let fact = pb::MemberChanged { member_id: subject.to_string(), version, ..Default::default() };
    outbox::append(&mut tx, &[NewFact::new(Uuid::nil().into(), subject, &fact)]).await?;
    #[allow(clippy::cast_precision_loss)]
    let pause = (nr * 7 % 5) as f64 / 1000.0;
    sqlx::query("SELECT pg_sleep($1)").bind(pause).execute(&mut *tx).await?;
    if nr % 4 == 3 {
        tx.rollback().await?;
        return Ok(None);
    }
    tx.commit().await?;
    db.wake();
    Ok(Some(version))
}

async fn accounts(database: &ServiceDatabase, number: i32) -> Vec<Uuid> {
    let sql = "INSERT INTO account SELECT nr, 0 FROM generate_series(0, $1 - 1) AS nr";
    sqlx::query(sql).bind(number).execute(&database.admin).await.expect("accounts");
    (0..number).map(|_| Uuid::now_v7()).collect()
}

fn version(value: &[u8]) -> i64 {
    pb::MemberChanged::decode(value).expect("a fact of ours").version
}

/// Positions are dense from 1, no fact stands twice, and each subject's versions rise by one.
fn assert_whole(changes: &[Change]) {
    let positions: Vec<_> = changes.iter().map(|c| c.position).collect();
    assert_eq!(positions, (1..=i64::try_from(changes.len()).expect("few")).collect::<Vec<_>>());
    assert_eq!(changes.iter().map(|c| &c.fact_id).collect::<HashSet<_>>().len(), changes.len());
    let mut versions: HashMap<&str, i64> = HashMap::new();
    for change in changes {
        let fact = change.fact.as_ref().expect("a fact");
        assert_eq!(fact.type_url, "type.googleapis.com/koc.registry.v1.MemberChanged");
        let last = versions.entry(&change.subject_id).or_default();
        assert_eq!(version(&fact.value), *last + 1, "subject {} at {}", change.subject_id, change.position);
        *last += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_of_sixteen_writers_get_dense_places_beside_an_open_transaction_and_with_two_sequencers() {
    const WRITERS: u64 = 16;
    const WRITES: u64 = 20;
    let database = service::database(&mini::schema()).await;
    let subjects = accounts(&database, 6).await;
    let (one, two) = (replica(&database), replica(&database));
    let _sequencers = [sequence(&one), sequence(&two)];

    // A fact with an early ordinal that is committed last of all.
    let idle_subject = Uuid::now_v7();
    let mut idle = one.begin().await.expect("a transaction");
    let fact = pb::MemberChanged { version: 1, ..Default::default() };
    outbox::append(&mut idle, &[NewFact::new(Uuid::nil().into(), idle_subject, &fact)]).await.expect("a fact");

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (db, subjects) = (if writer % 2 == 0 { one.clone() } else { two.clone() }, subjects.clone());
        writers.spawn(async move {
            let mut committed = 0;
            for nr in 0..WRITES {
                let account = i32::try_from((writer + nr * 5) % 6).expect("small");
                let subject = subjects[usize::try_from(account).expect("small")];
                committed += i64::from(write(&db, account, subject, writer + nr).await.expect("writes").is_some());
            }
            committed
        });
    }
    let committed: i64 = writers.join_all().await.into_iter().sum();
    assert!(committed > 200, "{committed}");
    wait::until("all but the open fact to have their place", PATIENCE, async || {
        (count(&database, "SELECT position FROM feed_head").await == committed).then_some(())
    })
    .await;
    idle.commit().await.expect("commits");
    wait::until("the late fact to have its place", PATIENCE, async || {
        (count(&database, "SELECT position FROM feed_head").await == committed + 1).then_some(())
    })
    .await;

    let feed = Feed::start(one, CancellationToken::new());
    let page = feed.list(None, 0, 1000).await.expect("a page");
    assert_eq!((page.through, page.head), (committed + 1, committed + 1));
    assert_whole(&page.changes);
    assert_eq!(page.changes.last().expect("the late one").subject_id, idle_subject.to_string());
    assert_eq!(count(&database, "SELECT count(*) FROM outbox").await, 0);
}

/// Keeps what it saw; fails the first time.
#[derive(Default)]
struct Hook {
    seen: Mutex<Vec<i64>>,
    failed: Mutex<bool>,
}

#[async_trait::async_trait]
impl OnSequenced for Hook {
    async fn on_sequenced(&self, conn: &mut sqlx::PgConnection, facts: &[Sequenced]) -> Result<(), sqlx::Error> {
        if !std::mem::replace(&mut *self.failed.lock().expect("whole"), true) {
            sqlx::query("SELECT 1 / 0").execute(conn).await?;
        }
        self.seen.lock().expect("whole").extend(facts.iter().map(|f| f.position));
        Ok(())
    }
}

#[tokio::test]
async fn a_hook_sees_each_fact_once_and_in_order_and_its_failure_gives_no_places() {
    let database = service::database(&mini::schema()).await;
    let db = replica(&database);
    let hook = Hook::default();
    let fact = NewFact::new(Uuid::nil().into(), Uuid::now_v7(), &pb::MemberChanged::default());
    let mut tx = db.begin().await.expect("a transaction");
    for of_a_transaction in [600, 700, 50] {
        outbox::append(&mut tx, &vec![fact.clone(); of_a_transaction]).await.expect("facts");
    }
    tx.commit().await.expect("commits");
    let sequencer = sequencer::Sequencer::new(&db);
    sequencer.step(Some(&hook)).await.expect_err("the hook fails");
    assert_eq!(count(&database, "SELECT count(*) FROM fact").await, 0);
    assert_eq!(count(&database, "SELECT position FROM feed_head").await, 0);
    for expected in [1_300, 50, 0] {
        assert_eq!(sequencer.step(Some(&hook)).await.expect("sequences"), expected);
    }
    assert_eq!(*hook.seen.lock().expect("whole"), (1..=1_350).collect::<Vec<_>>());
}

#[tokio::test]
async fn pages_follow_each_other_and_a_programme_sees_its_own_changes_only() {
    let mini = mini::start().await;
    let mut programmes = mini.programmes();
    let requests: Vec<_> = (0..7).map(|nr| create(&format!("programme {nr}"))).collect();
    for request in &requests {
        programmes.create_programme(request.clone()).await.expect("created");
    }
    let mut feed = mini.feed();
    let ask = |programme: &str, after, size| pb::ListChangesRequest {
        programme_id: programme.into(),
        after_position: after,
        page_size: size,
    };
    wait::until("the feed to have all", PATIENCE, async || {
        let page = feed.clone().list_changes(ask("", 0, 0)).await.expect("a page").into_inner();
        (page.head_position == 7).then_some(())
    })
    .await;

    let (mut after, mut seen) = (0, Vec::new());
    for (expected, through) in [(3, 3), (3, 6), (1, 7), (0, 7)] {
        let page = feed.list_changes(ask("", after, 3)).await.expect("a page").into_inner();
        assert_eq!((page.changes.len(), page.through_position, page.head_position), (expected, through, 7));
        after = page.through_position;
        seen.extend(page.changes.into_iter().map(|c| c.subject_id));
    }
    assert_eq!(seen, requests.iter().map(|r| r.programme_id.clone()).collect::<Vec<_>>());

    let own = &requests[3].programme_id;
    let page = feed.list_changes(ask(own, 0, 0)).await.expect("a page").into_inner();
    assert_eq!((page.changes.len(), page.through_position), (1, 7));
    assert_eq!((page.changes[0].position, &page.changes[0].programme_id), (4, own));

    let ahead = feed.list_changes(ask("", 8, 0)).await.expect_err("beyond the head");
    assert_eq!((ahead.code(), reason_of(&ahead).as_str()), (Code::FailedPrecondition, "POSITION_AHEAD"));

    let narrow = token::token("crm", &["registry.feed.read"], std::slice::from_ref(own));
    let mut narrow = FeedServiceClient::new(mini.running.channel_with(Some(narrow), None));
    narrow.list_changes(ask(own, 0, 0)).await.expect("its own");
    for other in ["", requests[0].programme_id.as_str()] {
        let denied = narrow.list_changes(ask(other, 0, 0)).await.expect_err("not its own");
        assert_eq!((denied.code(), reason_of(&denied).as_str()), (Code::PermissionDenied, "PROGRAMME_DENIED"));
        let watch = pb::WatchChangesRequest { programme_id: other.into(), after_position: 0 };
        assert_eq!(narrow.watch_changes(watch).await.expect_err("not its own").code(), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_gets_what_was_and_what_comes_without_a_gap_while_writers_go_on() {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 100;
    let mini = mini::start().await;
    let database = &mini.running.database;
    let subjects = accounts(database, 6).await;
    let db = replica(database);
    // More than a message holds, so that the watcher begins with a backlog of several.
    publish(&db, &subjects[..1], 600).await;
    sqlx::query("UPDATE account SET balance = 600 WHERE account_id = 0").execute(&database.admin).await.expect("in step");

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (db, subjects) = (db.clone(), subjects.clone());
        writers.spawn(async move {
            let mut committed = 0;
            for nr in 0..WRITES {
                let account = i32::try_from((writer + nr) % 6).expect("small");
                let subject = subjects[usize::try_from(account).expect("small")];
                committed += i64::from(write(&db, account, subject, nr).await.expect("writes").is_some());
            }
            committed
        });
    }
    let mut writing = std::pin::pin!(async { writers.join_all().await.into_iter().sum::<i64>() });
    let mut feed = mini.feed();
    let mut stream = feed.watch_changes(pb::WatchChangesRequest::default()).await.expect("open").into_inner();
    let (mut changes, mut last) = (Vec::new(), None);
    let watched = tokio::time::timeout(PATIENCE, async {
        while last.is_none_or(|last| changes.last().is_none_or(|c: &Change| c.position < last)) {
            tokio::select! {
                committed = &mut writing, if last.is_none() => last = Some(600 + committed),
                message = stream.message() => {
                    let message = message.expect("goes on").expect("has no end");
                    assert!(message.changes.len() <= 500);
                    changes.extend(message.changes);
                    assert_eq!(message.through_position, changes.last().map_or(0, |c| c.position));
                    assert!(message.head_position >= message.through_position && message.send_time.is_some());
                }
            }
        }
    });
    watched.await.expect("the watcher sees all in time");
    assert_whole(&changes);
}

#[tokio::test]
async fn a_stream_without_news_beats_and_tells_at_once_when_it_begins_beyond_the_head() {
    let database = service::database(&mini::schema()).await;
    let db = replica(&database);
    publish(&db, &[Uuid::now_v7()], 3).await;
    let feed = Feed::start(db, CancellationToken::new()).heartbeat_every(Duration::from_millis(30));
    let mut stream = feed.watch(None, 3).expect("open");
    for _ in 0..3 {
        let Page { changes, through, head, .. } = stream.recv().await.expect("a beat").expect("not a fault");
        assert_eq!((changes.len(), through, head), (0, 3, 3));
    }
    let mut ahead = feed.watch(None, 4).expect("open");
    let fault = ahead.recv().await.expect("an answer").expect_err("beyond the head");
    assert_eq!(fault.reason, "POSITION_AHEAD");
    assert!(ahead.recv().await.is_none());
}

#[tokio::test]
async fn streams_are_told_when_the_service_drains_whether_they_wait_or_catch_up() {
    let database = service::database(&mini::schema()).await;
    let db = replica(&database);
    publish(&db, &[Uuid::now_v7()], 3).await;
    let subjects: Vec<_> = (0..500).map(|_| Uuid::now_v7()).collect();
    publish(&db, &subjects, 6).await;
    // Many times, for the order in which a stream learns of the drain is chance.
    for _ in 0..20 {
        let drain = CancellationToken::new();
        let feed = Feed::start(db.clone(), drain.clone());
        let mut waiting = feed.watch(None, 3_003).expect("open");
        waiting.recv().await.expect("the head").expect("not a fault");
        let mut behind = feed.watch(None, 0).expect("open");
        behind.recv().await.expect("the first page").expect("not a fault");
        drain.cancel();
        assert_eq!(waiting.recv().await.expect("an answer").expect_err("the end").reason, "DRAINING");
        let mut pages = 0;
        let end = loop {
            match behind.recv().await.expect("an answer before the end") {
                Ok(_) => pages += 1,
                Err(fault) => break fault,
            }
        };
        assert_eq!((end.reason.as_str(), end.code), ("DRAINING", Code::Unavailable));
        assert!(pages < 6, "it did not read the whole backlog first");
    }
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_a_closed_one_makes_room() {
    let database = service::database(&mini::schema()).await;
    let feed = Feed::start(replica(&database), CancellationToken::new());
    let mut streams: Vec<_> = (0..200).map(|_| feed.watch(None, 0).expect("open")).collect();
    assert_eq!(feed.watch(None, 0).expect_err("one too many").reason, "TOO_MANY_STREAMS");
    streams.pop();
    wait::until("room", PATIENCE, async || feed.watch(None, 0).ok()).await;
}
