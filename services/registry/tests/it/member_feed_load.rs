//! The members' changes under sixteen writers, read by consumers that are killed again and again, while transactions lie idle in the
//! database.

use crate::world::{World, in_city, row};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use std::{
    collections::{BTreeMap, HashSet},
    sync::OnceLock,
    time::{Duration, UNIX_EPOCH},
};

const WRITERS: usize = 16;
const BATCHES: usize = 12;
const MEMBERS: usize = 40;
/// A consumer dies after so many messages, and has not kept the position of the last.
const MESSAGES_PER_LIFE: usize = 3;

/// What a consumer keeps: its position, and each event once.
#[derive(Default)]
struct Consumer {
    position: String,
    seen: HashSet<String>,
    events: Vec<(String, String)>,
    doubled: usize,
    lags: Vec<Duration>,
}

impl Consumer {
    /// Takes events; the position is kept by who is not killed before.
    fn take(&mut self, events: Vec<pb::MemberEvent>) {
        let now = UNIX_EPOCH.elapsed().expect("after 1970");
        for event in events {
            if !self.seen.insert(event.event_id.clone()) {
                self.doubled += 1;
                continue;
            }
            let time = event.event_time.unwrap_or_default();
            let at = Duration::new(time.seconds.unsigned_abs(), time.nanos.unsigned_abs());
            self.lags.push(now.saturating_sub(at));
            self.events.push((event.member_id, event.event_id));
        }
    }

    fn per_member(&self) -> BTreeMap<&str, Vec<&str>> {
        per_member(self.events.iter().map(|(member, event)| (member.as_str(), event.as_str())))
    }

    /// Figures to look at, on which nothing hangs.
    #[allow(clippy::print_stdout)]
    fn print(&self, who: &str) {
        let mut lags = self.lags.clone();
        lags.sort_unstable();
        let at =
            |share: usize| lags.get((lags.len() * share / 100).min(lags.len().saturating_sub(1))).copied().unwrap_or_default();
        println!("{who}: {} events, {} came twice; lag p50 {:?}, p99 {:?}", lags.len(), self.doubled, at(50), at(99));
    }
}

fn per_member<'a>(events: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (member, event) in events {
        found.entry(member).or_default().push(event);
    }
    found
}

/// How many events there are in the end: not known while the writers are at work.
#[derive(Default)]
struct Total(OnceLock<usize>);

impl Total {
    fn is(&self, count: usize) -> bool {
        self.0.get().is_some_and(|total| count >= *total)
    }
}

/// Reads by a stream until all is read, and begins anew after each life.
async fn by_stream(world: &World, total: &Total) -> Consumer {
    let mut consumer = Consumer::default();
    while !total.is(consumer.events.len()) {
        let request = pb::WatchMembersRequest {
            programme_id: world.programme.clone(),
            position: consumer.position.clone(),
            heartbeat_seconds: 1,
            ..Default::default()
        };
        let mut stream = world.follow().watch_members(request).await.expect("let in").into_inner();
        for life in 1..=MESSAGES_PER_LIFE {
            let message = stream.message().await.expect("a message").expect("the stream goes on");
            consumer.take(message.events);
            if life < MESSAGES_PER_LIFE {
                consumer.position = message.position;
            }
        }
    }
    consumer
}

/// The same by pages.
async fn by_pages(world: &World, total: &Total) -> Consumer {
    let mut consumer = Consumer::default();
    let mut life = 0;
    while !total.is(consumer.events.len()) {
        let request = pb::ListMemberChangesRequest {
            programme_id: world.programme.clone(),
            position: consumer.position.clone(),
            page_size: 70,
            ..Default::default()
        };
        let page = world.follow().list_member_changes(request).await.expect("a page").into_inner();
        consumer.take(page.events);
        life += 1;
        if life % MESSAGES_PER_LIFE != 0 {
            consumer.position = page.position;
        }
    }
    consumer
}

/// What the suite's own feed holds of members, as pairs of member and fact.
async fn truth(world: &World) -> Vec<(String, String)> {
    let mut request = pb::ListChangesRequest { programme_id: world.programme.clone(), after_position: 0, page_size: 1_000 };
    let mut told = Vec::new();
    loop {
        let page = world.feed().list_changes(request.clone()).await.expect("a page").into_inner();
        let of_members = page.changes.into_iter().filter(|change| change.subject_id != world.programme);
        told.extend(of_members.map(|change| (change.subject_id, change.fact_id)));
        request.after_position = page.through_position;
        if page.through_position >= page.head_position {
            return told;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_doubled_or_out_of_order_whoever_is_killed_and_whatever_lies_idle() {
    let world = World::new().await;
    // One that wrote, and one that reads as of an instant: a feed that waited for the oldest transaction would stand still.
    let mut wrote = world.registry.database.admin.begin().await.expect("begun");
    sqlx::query("CREATE TABLE idle (n integer)").execute(&mut *wrote).await.expect("written");
    let mut reads = world.registry.database.admin.begin().await.expect("begun");
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *reads).await.expect("set");
    sqlx::query("SELECT count(*) FROM member").execute(&mut *reads).await.expect("read");

    let total = Total::default();
    let write = async |writer: usize| {
        for batch in 0..BATCHES {
            // Each member is written by all.
            let rows = (0..4).map(|i| {
                let second = i64::try_from(writer + WRITERS * batch).expect("small");
                row(&((writer + batch * 4 + i * 7) % MEMBERS).to_string(), second, in_city(&format!("{writer}/{batch}")))
            });
            world.upsert(rows.collect()).await;
        }
    };
    let writers = async {
        join_all((0..WRITERS).map(write)).await;
        world.changes().await;
        let count = truth(&world).await.len();
        total.0.set(count).expect("said once");
        count
    };
    let (count, streamed, paged) = tokio::join!(writers, by_stream(&world, &total), by_pages(&world, &total));

    let truth = truth(&world).await;
    assert!(count >= MEMBERS && truth.len() == count, "{count} events");
    let truth = per_member(truth.iter().map(|(member, event)| (member.as_str(), event.as_str())));
    for (who, consumer) in [("a stream", &streamed), ("pages", &paged)] {
        consumer.print(who);
        assert_eq!(consumer.events.len(), count, "{who}");
        assert_eq!(consumer.per_member(), truth, "{who}");
    }
    reads.rollback().await.expect("ended");
    wrote.rollback().await.expect("ended");
}
