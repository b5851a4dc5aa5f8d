//! Syncing by stream.

use crate::world::{World, in_city, outcomes, pairs, refused, row, violations};
use futures::{FutureExt, future::join_all};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::token;
use pb::{
    SyncOutcome::{Created, Rejected, Unchanged},
    sync_members_request::Message,
};
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// An open run.
pub struct Stream {
    programme_id: String,
    messages: mpsc::Sender<pb::SyncMembersRequest>,
    pub answers: Streaming<pb::SyncMembersResponse>,
}

impl Stream {
    /// Opens a run, or goes on with one: the stream, and the run as it is.
    pub async fn begin(
        mut client: crate::world::Sync,
        programme_id: &str,
        opening: pb::SyncOpening,
    ) -> Result<(Self, pb::SyncRun), Status> {
        let (messages, receiver) = mpsc::channel(64);
        let first = pb::SyncMembersRequest { programme_id: programme_id.to_owned(), message: Some(Message::Open(opening)) };
        messages.send(first).await.expect("the stream is open");
        let answers = client.sync_members(ReceiverStream::new(receiver)).await?.into_inner();
        let mut stream = Self { programme_id: programme_id.to_owned(), messages, answers };
        let answer = stream.answer().await?;
        assert!(answer.credit >= 1);
        let run = answer.run.expect("the run is told");
        assert_eq!(answer.committed_through, run.committed_through);
        Ok((stream, run))
    }

    pub async fn open(world: &World, opening: pb::SyncOpening) -> Self {
        Self::begin(world.sync(), &world.programme, opening).await.expect("let in").0
    }

    pub async fn say(&self, message: Message) {
        let request = pb::SyncMembersRequest { programme_id: self.programme_id.clone(), message: Some(message) };
        self.messages.send(request).await.expect("the stream is open");
    }

    pub async fn send(&self, batch: pb::SyncBatch) {
        self.say(Message::Batch(batch)).await;
    }

    pub async fn answer(&mut self) -> Result<pb::SyncMembersResponse, Status> {
        self.answers.message().await.map(|answer| answer.expect("an answer"))
    }

    /// Sends a batch and takes its answer.
    pub async fn exchange(&mut self, batch: pb::SyncBatch) -> Result<pb::SyncMembersResponse, Status> {
        self.send(batch).await;
        self.answer().await
    }

    /// Closes the run: how it is then.
    pub async fn close(mut self) -> pb::SyncRun {
        self.say(Message::Close(pb::SyncClosing {})).await;
        let run = self.answer().await.expect("answered").run.expect("the run is told");
        assert_eq!(self.answers.message().await.expect("no refusal"), None, "nothing comes after the last answer");
        run
    }

    /// Says that no more comes, and takes what is left.
    async fn finish(self) -> Vec<pb::SyncMembersResponse> {
        let Self { messages, mut answers, .. } = self;
        drop(messages);
        let mut left = Vec::new();
        while let Some(answer) = answers.message().await.expect("answered") {
            left.push(answer);
        }
        left
    }
}

/// A run of the system `crm`.
pub fn opening(run_name: &str) -> pb::SyncOpening {
    pb::SyncOpening { source_system: "crm".into(), run_name: run_name.into(), ..Default::default() }
}

pub fn batch(batch_number: i64, rows: Vec<pb::MemberRow>) -> pb::SyncBatch {
    pb::SyncBatch { batch_number, rows, unread_external_ids: Vec::new() }
}

/// What a run counted, in the order of the outcomes.
pub fn counts(run: &pb::SyncRun) -> Vec<(pb::SyncOutcome, i64)> {
    run.counts.iter().map(|count| (count.outcome(), count.rows)).collect()
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
    let mut stream = Stream::open(&world, opening("nightly")).await;
    for number in 1..=12 {
        let good = row(&number.to_string(), 1, in_city("广州"));
        stream.send(batch(number, vec![good.clone(), row("", 1, in_city("深圳")), good])).await;
    }
    for number in 1..=12 {
        let answer = stream.answer().await.expect("answered");
        assert_eq!((answer.committed_through, answer.replayed), (number, false));
        assert!((1..=8).contains(&answer.credit));
        assert_eq!(outcomes(&answer.results), [Created, Rejected, Unchanged]);
        let found = world.lookup("crm", &number.to_string()).await.expect("committed by now");
        assert_eq!(found.member_id, answer.results[0].member_id);
    }
    let run = stream.close().await;
    assert_eq!((run.state(), run.committed_through), (pb::SyncRunState::Ended, 12));
    assert_eq!(counts(&run), [(Created, 12), (Unchanged, 12), (Rejected, 12)]);
    assert_eq!((run.actor.as_str(), run.end_time.is_some()), ("tester", true));
}

#[tokio::test]
async fn a_batch_is_read_only_when_the_one_before_is_answered() {
    let world = World::new().await;
    let member_id = world.upsert(vec![row("1", 1, in_city("广州"))]).await[0].member_id.clone();
    let mut admin = admin(&world).await;
    let mut held = admin.begin().await.expect("a transaction");
    hold(&mut held, &member_id).await;

    let mut stream = Stream::open(&world, opening("nightly")).await;
    stream.send(batch(1, vec![row("1", 2, in_city("深圳"))])).await;
    stream.send(batch(2, vec![row("2", 2, in_city("深圳"))])).await;
    world.wait_for_a_waiting_call().await;

    assert!(stream.answers.message().now_or_never().is_none(), "nothing is committed yet");
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 1, "the second batch waits for the first");
    held.rollback().await.expect("given back");
    let through: Vec<_> = stream.finish().await.iter().map(|answer| answer.committed_through).collect();
    assert_eq!(through, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_the_same_people_at_once_make_each_once_and_none_is_held_up() {
    const STREAMS: i64 = 6;
    const BATCHES: i64 = 4;
    let world = World::new().await;
    let streams = (0..STREAMS).map(|nr| {
        let world = &world;
        async move {
            let stream = Stream::open(world, opening(&nr.to_string())).await;
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
                stream.send(batch(number, rows)).await;
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
            let mut stream = Stream::open(world, opening(&nr.to_string())).await;
            stream.send(batch(1, rows)).await;
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
    let mut stream = Stream::open(&world, opening("nightly")).await;
    stream.send(batch(1, vec![row("1", 1, in_city("广州"))])).await;
    stream.answer().await.expect("answered");
    let stopping = tokio::spawn(world.registry.stop());
    refused(stream.answer().await, Code::Unavailable, "DRAINING");
    stopping.await.expect("it stops");
}

#[tokio::test]
async fn a_message_that_breaks_a_rule_of_the_stream_ends_it_and_what_was_answered_stays() {
    let world = World::new().await;
    let rows = || vec![row("1", 1, in_city("广州"))];
    let unread = pb::SyncBatch { unread_external_ids: vec!["9".into(); 501], ..batch(2, rows()) };
    for (nr, (broken, expected)) in [
        (Message::Batch(batch(0, rows())), pairs([("batch.batch_number", "int.gte")])),
        (Message::Batch(batch(2, Vec::new())), pairs([("batch", "BATCH_EMPTY")])),
        (Message::Batch(batch(2, vec![rows().remove(0); 501])), pairs([("batch.rows", "repeated.max_items")])),
        (Message::Batch(unread), pairs([("batch.unread_external_ids", "repeated.max_items")])),
        (Message::Open(opening("other")), pairs([("message", "RUN_OPENED")])),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = Stream::open(&world, opening(&nr.to_string())).await;
        stream.send(batch(1, rows())).await;
        stream.say(broken).await;
        assert_eq!(stream.answer().await.expect("answered").committed_through, 1);
        assert_eq!(violations(stream.answer().await), expected);
    }
    assert_eq!(world.count("SELECT count(*) FROM member").await, 1);
}

#[tokio::test]
async fn a_stream_is_of_one_programme_that_the_token_may_enter_and_begins_with_its_run() {
    let world = World::new().await;
    let rows = || vec![row("1", 1, in_city("广州"))];
    let other_programme = world.another_programme().await;
    let elsewhere = |message| pb::SyncMembersRequest { programme_id: other_programme.clone(), message: Some(message) };

    let mut stream = Stream::open(&world, opening("nightly")).await;
    stream.messages.send(elsewhere(Message::Batch(batch(1, rows())))).await.expect("the stream is open");
    assert_eq!(violations(stream.answer().await), pairs([("programme_id", "PROGRAMME_CHANGED")]));

    let token = token::token("crm", &["registry.member.sync"], std::slice::from_ref(&world.programme));
    let client = crate::world::Sync::new(world.registry.channel_with(Some(token), None));
    let (mut stream, _) = Stream::begin(client, &world.programme, opening("nightly")).await.expect("let in");
    stream.messages.send(elsewhere(Message::Batch(batch(1, rows())))).await.expect("the stream is open");
    refused(stream.answer().await, Code::PermissionDenied, "PROGRAMME_DENIED");

    let first = pb::SyncMembersRequest { programme_id: world.programme.clone(), message: Some(Message::Batch(batch(1, rows()))) };
    let answer = world.sync().sync_members(tokio_stream::once(first)).await.expect("let in").into_inner().message().await;
    assert_eq!(violations(answer), pairs([("message", "RUN_NOT_OPENED")]));
    assert_eq!(world.count("SELECT count(*) FROM member").await, 0);
}

#[tokio::test]
async fn a_programme_that_is_not_there_has_no_runs() {
    let world = World::new().await;
    let answer = Stream::begin(world.sync(), &crate::world::id(), opening("nightly")).await.map(|_| ());
    refused(answer, Code::NotFound, "PROGRAMME_NOT_FOUND");
}
