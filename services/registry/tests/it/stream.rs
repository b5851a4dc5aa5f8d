//! Syncing by stream.

use crate::world::{World, in_city, outcomes, pairs, refused, row, violations};
use futures::{FutureExt, future::join_all};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::token;
use pb::SyncOutcome::{Created, Rejected, Unchanged};
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

struct Stream {
    batches: mpsc::Sender<pb::SyncMembersRequest>,
    answers: Streaming<pb::SyncMembersResponse>,
}

impl Stream {
    async fn open(mut client: crate::world::Sync) -> Self {
        let (batches, receiver) = mpsc::channel(64);
        let answers = client.sync_members(ReceiverStream::new(receiver)).await.expect("let in").into_inner();
        Self { batches, answers }
    }

    async fn send(&self, batch: pb::SyncMembersRequest) {
        self.batches.send(batch).await.expect("the stream is open");
    }

    async fn answer(&mut self) -> Result<pb::SyncMembersResponse, Status> {
        self.answers.message().await.map(|answer| answer.expect("an answer"))
    }

    /// Says that no more comes, and takes what is left.
    async fn finish(mut self) -> Vec<pb::SyncMembersResponse> {
        drop(self.batches);
        let mut answers = Vec::new();
        while let Some(answer) = self.answers.message().await.expect("answered") {
            answers.push(answer);
        }
        answers
    }
}

fn batch(world: &World, batch_number: i64, rows: Vec<pb::MemberRow>) -> pb::SyncMembersRequest {
    let (programme_id, source_system) = (world.programme.clone(), "crm".to_owned());
    pb::SyncMembersRequest { programme_id, source_system, batch_number, rows, validate_only: false }
}

/// Holds a member's row until the transaction of the connection ends.
async fn hold(connection: &mut PgConnection, member_id: &str) {
    let sql = "SELECT 1 FROM registry.member WHERE member_id = $1::uuid FOR UPDATE";
    sqlx::query(sql).bind(member_id).execute(connection).await.expect("the member is there");
}

async fn admin(world: &World) -> PgConnection {
    PgConnection::connect_with(&world.registry.database.admin.connect_options()).await.expect("a connection")
}

#[tokio::test]
async fn batches_are_answered_in_order_once_they_are_committed() {
    let world = World::new().await;
    let mut stream = Stream::open(world.sync()).await;
    for number in 1..=12 {
        let good = row(&number.to_string(), 1, in_city("广州"));
        stream.send(batch(&world, number, vec![good.clone(), row("", 1, in_city("深圳")), good])).await;
    }
    for number in 1..=12 {
        let answer = stream.answer().await.expect("answered");
        assert_eq!(answer.committed_through, number);
        assert_eq!(outcomes(&answer.results), [Created, Rejected, Unchanged]);
        let found = world.lookup("crm", &number.to_string()).await.expect("committed by now");
        assert_eq!(found.member_id, answer.results[0].member_id);
    }
    assert_eq!(stream.finish().await, []);
}

#[tokio::test]
async fn a_batch_is_read_only_when_the_one_before_is_answered() {
    let world = World::new().await;
    let member_id = world.upsert(vec![row("1", 1, in_city("广州"))]).await[0].member_id.clone();
    let mut admin = admin(&world).await;
    let mut held = admin.begin().await.expect("a transaction");
    hold(&mut held, &member_id).await;

    let mut stream = Stream::open(world.sync()).await;
    stream.send(batch(&world, 1, vec![row("1", 2, in_city("深圳"))])).await;
    stream.send(batch(&world, 2, vec![row("2", 2, in_city("深圳"))])).await;
    world.wait_for_a_waiting_call().await;

    assert!(stream.answers.message().now_or_never().is_none(), "nothing is committed yet");
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 1, "the second batch waits for the first");
    held.rollback().await.expect("given back");
    let through: Vec<_> = stream.finish().await.iter().map(|answer| answer.committed_through).collect();
    assert_eq!(through, [1, 2]);
}

#[tokio::test]
async fn a_stream_that_breaks_leaves_whole_batches_and_is_sent_again() {
    let world = World::new().await;
    let first = vec![row("1", 2, in_city("深圳")), row("2", 2, in_city("深圳"))];
    let second = vec![row("2", 3, in_city("北京")), row("3", 3, in_city("北京"))];
    let mut stream = Stream::open(world.sync()).await;
    stream.send(batch(&world, 1, first.clone())).await;
    let member_id = stream.answer().await.expect("answered").results[1].member_id.clone();
    let mut admin = admin(&world).await;
    let mut held = admin.begin().await.expect("a transaction");
    hold(&mut held, &member_id).await;
    stream.send(batch(&world, 2, second.clone())).await;
    world.wait_for_a_waiting_call().await;

    // The sender is gone in the middle of the second batch.
    drop(stream);
    koc_tests::wait::until("the batch to be given up", crate::world::PATIENCE, async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'koc_registry_app'
                   AND state <> 'idle' AND wait_event_type IS DISTINCT FROM 'Lock'";
        (world.count(sql).await == 0).then_some(())
    })
    .await;
    held.rollback().await.expect("given back");

    let mut stream = Stream::open(world.sync()).await;
    stream.send(batch(&world, 1, first)).await;
    stream.send(batch(&world, 2, second)).await;
    assert_eq!(outcomes(&stream.answer().await.expect("answered").results), [Unchanged, Unchanged]);
    stream.answer().await.expect("answered");
    assert_eq!(world.count("SELECT count(*) FROM member").await, 3);
    assert_eq!(world.lookup("crm", "2").await.expect("found").profile, Some(in_city("北京")));
    assert_eq!(world.told(&member_id).await.iter().map(|change| change.version).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_batch_that_breaks_a_rule_of_the_stream_ends_it_and_those_before_stay() {
    let world = World::new().await;
    let rows = || vec![row("1", 1, in_city("广州"))];
    let other_programme = world.another_programme().await;
    let elsewhere = pb::SyncMembersRequest { programme_id: other_programme.clone(), ..batch(&world, 3, rows()) };
    for (broken, expected) in [
        (batch(&world, 3, rows()), pairs([("batch_number", "BATCH_OUT_OF_ORDER")])),
        (batch(&world, 1, rows()), pairs([("batch_number", "BATCH_OUT_OF_ORDER")])),
        (batch(&world, 0, rows()), pairs([("batch_number", "int.gte")])),
        (batch(&world, 2, Vec::new()), pairs([("rows", "repeated.min_items")])),
        (batch(&world, 2, vec![rows().remove(0); 501]), pairs([("rows", "repeated.max_items")])),
        (elsewhere, pairs([("programme_id", "PROGRAMME_CHANGED"), ("batch_number", "BATCH_OUT_OF_ORDER")])),
    ] {
        let mut stream = Stream::open(world.sync()).await;
        stream.send(batch(&world, 1, rows())).await;
        stream.send(broken).await;
        assert_eq!(stream.answer().await.expect("answered").committed_through, 1);
        assert_eq!(violations(stream.answer().await), expected);
    }
    assert_eq!(world.count("SELECT count(*) FROM member").await, 1);

    // Each batch's programme is checked against the token.
    let token = token::token("crm", &["registry.member.sync"], std::slice::from_ref(&world.programme));
    let mut stream = Stream::open(crate::world::Sync::new(world.registry.channel_with(Some(token), None))).await;
    stream.send(batch(&world, 1, rows())).await;
    stream.send(pb::SyncMembersRequest { programme_id: other_programme, ..batch(&world, 2, rows()) }).await;
    stream.answer().await.expect("answered");
    refused(stream.answer().await, Code::PermissionDenied, "PROGRAMME_DENIED");
}

#[tokio::test]
async fn a_trial_by_stream_changes_nothing() {
    let world = World::new().await;
    let stream = Stream::open(world.sync()).await;
    for number in 1..=2 {
        let trial = pb::SyncMembersRequest { validate_only: true, ..batch(&world, number, vec![row("1", 1, in_city("广州"))]) };
        stream.send(trial).await;
    }
    let answers = stream.finish().await;
    assert!(answers.iter().all(|answer| outcomes(&answer.results) == [Created]));
    assert_eq!((answers.len(), world.count("SELECT count(*) FROM member").await), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_the_same_people_at_once_make_each_once_and_none_is_held_up() {
    const STREAMS: i64 = 6;
    const BATCHES: i64 = 4;
    let world = World::new().await;
    let streams = (0..STREAMS).map(|nr| {
        let world = &world;
        async move {
            let stream = Stream::open(world.sync()).await;
            for number in 1..=BATCHES {
                // All batches overlap, each stream has them in another order.
                let mut rows: Vec<_> = (0..50)
                    .map(|i| {
                        row(&((i + 25 * number) % 100).to_string(), nr + STREAMS * number, in_city(&format!("{nr}-{number}")))
                    })
                    .collect();
                if nr % 2 == 0 {
                    rows.reverse();
                }
                stream.send(batch(world, number, rows)).await;
            }
            stream.finish().await
        }
    });

    let answers = join_all(streams).await;

    assert!(answers.iter().all(|stream| stream.len() == 4 && stream.last().is_some_and(|a| a.committed_through == BATCHES)));
    let results: Vec<_> = answers.iter().flatten().flat_map(|answer| outcomes(&answer.results)).collect();
    assert!(!results.contains(&Rejected));
    assert_eq!(results.iter().filter(|outcome| **outcome == Created).count(), 100);
    assert_eq!(world.count("SELECT count(*) FROM member").await, 100);
    // The newest row of each person stands: of the last stream, in its last batch that had the person.
    assert_eq!(world.count("SELECT count(*) FROM member WHERE city LIKE '5-%'").await, 100);
    assert_eq!(world.count("SELECT count(*) FROM member WHERE city = '5-4'").await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_wait_leave_room_for_other_calls() {
    const SENDERS: i64 = 16;
    let world = World::new().await;
    let member_id = world.upsert(vec![row("1", 1, in_city("广州"))]).await[0].member_id.clone();
    let mut admin = admin(&world).await;
    let mut held = admin.begin().await.expect("a transaction");
    hold(&mut held, &member_id).await;
    // More than the service has connections, half of them by stream, and all want the same row.
    let senders = (0..SENDERS).map(|nr| {
        let world = &world;
        let rows = vec![row("1", 2 + nr, in_city(&format!("第{nr}城")))];
        async move {
            if nr % 2 == 0 {
                return world.upsert(rows).await;
            }
            let mut stream = Stream::open(world.sync()).await;
            stream.send(batch(world, 1, rows)).await;
            stream.answer().await.expect("answered").results
        }
    });
    let others = async {
        world.wait_for_a_waiting_call().await;
        let found = world.get(&member_id).await.expect("read meanwhile");
        let other = world.member(in_city("深圳")).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting = world.count(waiting).await;
        held.rollback().await.expect("given back");
        (found, other, waiting)
    };

    let (results, (found, other, waiting)) = tokio::join!(join_all(senders), others);

    assert_eq!((found.profile, other.profile), (Some(in_city("广州")), Some(in_city("深圳"))));
    assert!((1..=3).contains(&waiting), "{waiting} at work");
    assert!(results.iter().flatten().all(|result| result.member_id == member_id && result.status.is_none()));
    assert_eq!(world.get(&member_id).await.expect("it is there").profile, Some(in_city("第15城")));
}

#[tokio::test]
async fn a_stream_ends_with_the_service_and_says_why() {
    let world = World::new().await;
    let mut stream = Stream::open(world.sync()).await;
    stream.send(batch(&world, 1, vec![row("1", 1, in_city("广州"))])).await;
    stream.answer().await.expect("answered");
    let stopping = tokio::spawn(world.registry.stop());
    refused(stream.answer().await, Code::Unavailable, "DRAINING");
    stopping.await.expect("it stops");
}
