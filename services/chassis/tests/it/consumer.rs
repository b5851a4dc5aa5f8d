//! Consumers: each change has its effect once and in its subject's order, whoever dies and whatever fails.

use crate::mini::{self, PATIENCE, count, publish, replica};
use futures::{StreamExt, stream::BoxStream};
use koc_chassis::{
    consumer::{Consumer, Effect, EffectError, Source},
    fault::reason_of,
    feed::Feed,
    postgres::Db,
};
use koc_proto::koc::feed::v1::Change;
use koc_tests::{
    service::{self, ServiceDatabase},
    wait,
};
use rand::Rng;
use sqlx::PgConnection;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Status;
use uuid::Uuid;

/// A feed read in the process that serves it.
struct Near(Feed);

#[async_trait::async_trait]
impl Source for Near {
    async fn watch(&self, after: i64) -> Result<BoxStream<'static, Result<(Vec<Change>, i64), Status>>, Status> {
        let pages = self.0.watch(None, after).map_err(|fault| fault.into_status("test"))?;
        let pages = ReceiverStream::new(pages);
        Ok(pages.map(|page| page.map(|p| (p.changes, p.through)).map_err(|fault| fault.into_status("test"))).boxed())
    }
}

type Rule = Box<dyn Fn(&Change) -> Result<(), EffectError> + Send + Sync>;

/// Notes each change, then does what the rule says: what was noted must go when it fails.
struct Noting(Rule);

#[async_trait::async_trait]
impl Effect for Noting {
    async fn apply(&self, conn: &mut PgConnection, change: &Change) -> Result<(), EffectError> {
        let subject = Uuid::try_parse(&change.subject_id).expect("a fact of ours");
        sqlx::query("INSERT INTO effect (position, subject_id) VALUES ($1, $2)")
            .bind(change.position)
            .bind(subject)
            .execute(conn)
            .await?;
        (self.0)(change)
    }
}

/// Runs a consumer until the handle is dropped, as sudden as a process that is killed.
fn consume(db: &Db, feed: &Feed, rule: Rule) -> AbortOnDropHandle<()> {
    let consumer = Consumer::new(db.clone(), "registry", Arc::new(Near(feed.clone())), Arc::new(Noting(rule)));
    AbortOnDropHandle::new(tokio::spawn(consumer.run(CancellationToken::new())))
}

async fn cursor_at(database: &ServiceDatabase, position: i64) {
    wait::until("the cursor", PATIENCE, async || {
        (count(database, "SELECT coalesce(max(position), 0) FROM feed_cursor").await == position).then_some(())
    })
    .await;
}

/// Positions that had their effect, in the order in which they had it.
async fn effects(database: &ServiceDatabase) -> Vec<i64> {
    sqlx::query_scalar("SELECT position FROM effect ORDER BY nr").fetch_all(&database.admin).await.expect("effects")
}

async fn effects_reach(database: &ServiceDatabase, number: usize) {
    wait::until("the effects", PATIENCE, async || (effects(database).await.len() == number).then_some(())).await;
}

async fn start() -> (ServiceDatabase, Db, Feed) {
    let database = service::database(&mini::schema()).await;
    let db = replica(&database);
    let feed = Feed::start(db.clone(), CancellationToken::new());
    (database, db, feed)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_are_killed_at_random_apply_each_change_once_and_in_order() {
    const LAST: i64 = 2_400;
    let (database, db, feed) = start().await;
    let subjects: Vec<_> = (0..40).map(|_| Uuid::now_v7()).collect();
    publish(&db, &subjects, LAST / 40).await;
    let other = replica(&database);
    let begin = |nr: usize| consume(if nr == 0 { &db } else { &other }, &feed, Box::new(|_| Ok(())));
    let mut replicas = [begin(0), begin(1)];
    let mut kills = 0;
    while count(&database, "SELECT coalesce(max(position), 0) FROM feed_cursor").await < LAST {
        let (nr, life) = {
            let mut rng = rand::rng();
            (rng.random_range(0..2), rng.random_range(10..120))
        };
        // How long one lives, not what is waited for.
        tokio::time::sleep(Duration::from_millis(life)).await;
        replicas[nr] = begin(nr);
        kills += 1;
        assert!(kills < 1_000, "it gets somewhere all the same");
    }
    assert!(kills > 3, "killed {kills} times only");
    drop(replicas);
    assert_eq!(effects(&database).await, (1..=LAST).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_change_that_fails_is_parked_with_its_subjects_later_ones_and_applied_in_order_once_it_passes() {
    let (database, db, feed) = start().await;
    let subjects: Vec<_> = (0..3).map(|_| Uuid::now_v7()).collect();
    // Subject 0 has 1, 4, 7, 10; subject 1 has 2, 5, 8, 11; subject 2 has 3, 6, 9, 12.
    publish(&db, &subjects, 4).await;
    let mended = Arc::new(AtomicUsize::new(0));
    let rule = |mended: &Arc<AtomicUsize>| -> Rule {
        let mended = mended.clone();
        Box::new(move |change| match (change.position, mended.load(Ordering::SeqCst)) {
            (5, 0) => Err(EffectError::Park("it has no such member".into())),
            _ => Ok(()),
        })
    };
    let consumer = consume(&db, &feed, rule(&mended));
    cursor_at(&database, 12).await;
    assert_eq!(effects(&database).await, [1, 2, 3, 4, 6, 7, 9, 10, 12]);
    let parked: Vec<(i64, Uuid, String)> =
        sqlx::query_as("SELECT position, subject_id, reason FROM parked_fact ORDER BY position")
            .fetch_all(&database.admin)
            .await
            .expect("parked");
    assert_eq!(parked.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [5, 8, 11].map(|position| (position, subjects[1])));
    assert!(parked[0].2.contains("no such member") && parked[1].2.contains("earlier"), "{parked:?}");

    // It is tried again after a while, and again after twice as long; a new one of the subject waits as well.
    database.advance(Duration::from_secs(2)).await;
    wait::until("another try", PATIENCE, async || {
        (count(&database, "SELECT attempts::bigint FROM parked_fact WHERE position = 5").await == 2).then_some(())
    })
    .await;
    let waits = "SELECT extract(epoch FROM next_attempt_time - koc_now())::bigint FROM parked_fact WHERE position = 5";
    assert!((1..=2).contains(&count(&database, waits).await));
    publish(&db, &subjects, 1).await;
    cursor_at(&database, 15).await;
    assert_eq!(effects(&database).await, [1, 2, 3, 4, 6, 7, 9, 10, 12, 13, 15]);

    mended.store(1, Ordering::SeqCst);
    database.advance(Duration::from_secs(600)).await;
    // Another replica has come up meanwhile; the two do not get in each other's way.
    let second = consume(&replica(&database), &feed, rule(&mended));
    effects_reach(&database, 15).await;
    drop((consumer, second));
    assert_eq!(effects(&database).await[11..], [5, 8, 11, 14]);
    assert_eq!(count(&database, "SELECT count(*) FROM parked_fact").await, 0);
}

#[tokio::test]
async fn a_passing_trouble_stops_the_cursor_and_loses_nothing() {
    let (database, db, feed) = start().await;
    let subjects: Vec<_> = (0..5).map(|_| Uuid::now_v7()).collect();
    publish(&db, &subjects, 2).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let tried = tries.clone();
    let _consumer = consume(
        &db,
        &feed,
        Box::new(move |change| {
            if change.position == 4 && tried.fetch_add(1, Ordering::SeqCst) < 3 {
                return Err(EffectError::Transient("a peer is away".into()));
            }
            Ok(())
        }),
    );
    wait::until("two tries", PATIENCE, async || (tries.load(Ordering::SeqCst) >= 2).then_some(())).await;
    assert_eq!(count(&database, "SELECT coalesce(max(position), 0) FROM feed_cursor").await, 0);
    assert_eq!(count(&database, "SELECT count(*) FROM parked_fact").await, 0);
    cursor_at(&database, 10).await;
    assert_eq!(effects(&database).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_effect_that_panics_or_breaks_its_statement_is_parked_and_the_feed_goes_on() {
    let (database, db, feed) = start().await;
    let subjects: Vec<_> = (0..4).map(|_| Uuid::now_v7()).collect();
    publish(&db, &subjects, 1).await;
    let _consumer = consume(
        &db,
        &feed,
        Box::new(|change| {
            assert_ne!(change.position, 2, "as this test wants");
            if change.position == 3 { Err(sqlx::Error::RowNotFound.into()) } else { Ok(()) }
        }),
    );
    cursor_at(&database, 4).await;
    assert_eq!(effects(&database).await, [1, 4]);
    let reasons: Vec<String> =
        sqlx::query_scalar("SELECT reason FROM parked_fact ORDER BY position").fetch_all(&database.admin).await.expect("parked");
    assert_eq!(reasons[0], "the effect panicked");
    assert!(reasons[1].contains("no rows"), "{reasons:?}");
}

/// Breaks off after each message, and says so in turn with an end, an error and a refusal.
struct Torn {
    whole: Near,
    calls: AtomicUsize,
}

#[async_trait::async_trait]
impl Source for Torn {
    async fn watch(&self, after: i64) -> Result<BoxStream<'static, Result<(Vec<Change>, i64), Status>>, Status> {
        let stream = self.whole.watch(after).await?.take(1);
        match self.calls.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => Err(Status::unavailable("not now")),
            1 => Ok(stream.boxed()),
            _ => Ok(stream.chain(futures::stream::iter([Err(Status::unavailable("gone"))])).boxed()),
        }
    }
}

#[tokio::test]
async fn a_feed_that_breaks_off_is_read_on_from_the_cursor() {
    let (database, db, feed) = start().await;
    let subjects: Vec<_> = (0..400).map(|_| Uuid::now_v7()).collect();
    publish(&db, &subjects, 3).await;
    let source = Arc::new(Torn { whole: Near(feed), calls: AtomicUsize::new(0) });
    let consumer = Consumer::new(db, "registry", source.clone(), Arc::new(Noting(Box::new(|_| Ok(())))));
    let _consumer = AbortOnDropHandle::new(tokio::spawn(consumer.run(CancellationToken::new())));
    cursor_at(&database, 1_200).await;
    assert_eq!(effects(&database).await, (1..=1_200).collect::<Vec<_>>());
    assert!(source.calls.load(Ordering::SeqCst) >= 4);
}

#[tokio::test]
async fn a_consumer_ends_when_told_and_a_cursor_beyond_the_head_is_refused() {
    let (database, db, feed) = start().await;
    publish(&db, &[Uuid::now_v7()], 2).await;
    let stop = CancellationToken::new();
    let consumer = Consumer::new(db, "registry", Arc::new(Near(feed.clone())), Arc::new(Noting(Box::new(|_| Ok(())))));
    let running = tokio::spawn(consumer.run(stop.clone()));
    cursor_at(&database, 2).await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("in time").expect("ends well");
    let mut stream = Near(feed).watch(3).await.expect("open");
    assert_eq!(reason_of(&stream.next().await.expect("an answer").expect_err("beyond")), "POSITION_AHEAD");
}
