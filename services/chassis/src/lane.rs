//! Serving calls together. Whoever asks while a group is at work waits in a queue; when the group is done, all that waits is the next
//! one. No timer: an idle lane serves a single call at once, a busy one as many as came meanwhile. One commit, or one query, then
//! serves hundreds of calls, and one hot row is locked once for all of them.
//!
//! Callers are served in the order in which they came. The queue is bounded; what comes beyond the bound is told to come back.

use crate::{
    context::{self, SPANS},
    fault::{Fault, ServiceError, is_transient, is_unreachable},
    postgres::{Db, OwnConnection},
};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use sqlx::PgConnection;
use std::{collections::HashMap, hash::Hash, marker::PhantomData, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// How much a lane takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most that one group serves; a request of more than that is a group of its own.
    pub group: usize,
    /// Most that may wait.
    pub queue: usize,
}

/// What a lane does.
pub trait Work: Send + Sync + 'static {
    type Ask: Send + 'static;
    type Answer: Send + 'static;

    /// What the group's span is called.
    const NAME: &'static str;

    /// Serves a group; an answer for each ask, in order.
    fn serve(&self, group: Vec<Self::Ask>) -> impl Future<Output = Vec<Self::Answer>> + Send;
}

/// Why a lane gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    #[error("as much waits as may wait")]
    QueueFull,
    #[error("the deadline passed before the call was taken from the queue; nothing was done")]
    DeadlinePassed,
    #[error("the service is going away")]
    Ended,
}

impl Unserved {
    pub fn fault(self) -> Fault {
        match self {
            Self::QueueFull => Fault::overloaded("QUEUE_FULL", "too many calls of this kind wait"),
            Self::DeadlinePassed => Fault::deadline(),
            Self::Ended => Fault::unavailable("DRAINING", "the service is going away; call again"),
        }
    }
}

/// An error that all calls of a group share.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Shared<E: std::error::Error + 'static>(#[source] pub Arc<E>);

impl<E: ServiceError> Shared<E> {
    /// The error once for each of `count` calls.
    pub fn among(error: E, count: usize) -> impl Iterator<Item = Self> {
        let error = Arc::new(error);
        std::iter::repeat_with(move || Self(error.clone())).take(count)
    }
}

/// A read of many things by their ids, in one query.
pub trait Find: Send + Sync + 'static {
    type Id: Eq + Hash + Copy + Send + Sync + 'static;
    type Found: Clone + Send + 'static;
    type Error: ServiceError;

    /// What the group's span is called.
    const NAME: &'static str;

    /// Those of `ids` that are there.
    fn find(
        conn: &mut PgConnection,
        ids: &[Self::Id],
    ) -> impl Future<Output = Result<HashMap<Self::Id, Self::Found>, Self::Error>> + Send;
}

/// Serves reads together: those that came while one query ran are the next one.
pub struct Reading<F> {
    conn: OwnConnection,
    find: PhantomData<F>,
}

/// Longest query of a group of reads: all wait behind it.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// What reads take.
const READS: Limits = Limits { group: 256, queue: 1_024 };

impl<F: Find> Reading<F> {
    /// A lane of reads, and its work, to be run in the background.
    pub fn lane(db: &Db) -> (Lane<Self>, impl Future<Output = ()> + Send + 'static) {
        Lane::new(Self { conn: db.own_connection(READ_TIMEOUT, READ_TIMEOUT), find: PhantomData }, READS)
    }

    async fn once(&self, ids: &[F::Id]) -> Result<HashMap<F::Id, F::Found>, F::Error> {
        let work = async {
            let mut conn = self.conn.take().await?;
            let found = F::find(&mut conn, ids).await?;
            self.conn.give_back(conn);
            Ok(found)
        };
        self.conn.within(work).await
    }
}

impl<F: Find> Work for Reading<F> {
    type Ask = F::Id;
    type Answer = Result<Option<F::Found>, Shared<F::Error>>;
    const NAME: &'static str = F::NAME;

    async fn serve(&self, group: Vec<F::Id>) -> Vec<Self::Answer> {
        let mut answers = Vec::with_capacity(group.len());
        // What is still to be read, the next part last.
        let mut parts = vec![group.as_slice()];
        while let Some(part) = parts.pop() {
            let found = match self.once(part).await {
                // The kept connection may have ended since its last use.
                Err(error) if error.database().is_some_and(is_unreachable) => self.once(part).await,
                found => found,
            };
            match found {
                Ok(found) => answers.extend(part.iter().map(|id| Ok(found.get(id).cloned()))),
                // A thing that cannot be read keeps nobody from the others: it is parted from them until it stands alone.
                Err(error) if part.len() > 1 && !error.database().is_some_and(is_transient) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) => answers.extend(Shared::among(error, part.len()).map(Err)),
            }
        }
        answers
    }
}

type Reply<W> = oneshot::Sender<Result<Vec<<W as Work>::Answer>, Unserved>>;

/// What one caller asks, together with others or alone.
struct Request<W: Work> {
    asks: Vec<W::Ask>,
    deadline: Option<Instant>,
    span: SpanContext,
    reply: Reply<W>,
    /// Its places in the queue, given back when it is taken.
    _places: OwnedSemaphorePermit,
}

/// Where calls get in.
pub struct Lane<W: Work> {
    queue: mpsc::UnboundedSender<Request<W>>,
    places: Arc<Semaphore>,
}

impl<W: Work> Clone for Lane<W> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), places: self.places.clone() }
    }
}

impl<W: Work> Lane<W> {
    /// The lane, and its work, to be run in the background: it ends when nobody is left who could ask, after the last answer.
    pub fn new(work: W, limits: Limits) -> (Self, impl Future<Output = ()> + Send + 'static) {
        // The places bound it.
        let (queue, waiting) = mpsc::unbounded_channel();
        (Self { queue, places: Arc::new(Semaphore::new(limits.queue)) }, run(work, limits.group, waiting))
    }

    /// Asks for one thing. Whoever stops waiting undoes nothing.
    pub async fn ask(&self, ask: W::Ask) -> Result<W::Answer, Unserved> {
        self.ask_all(vec![ask]).await?.pop().ok_or(Unserved::Ended)
    }

    /// Asks for several things, which are served in order, one after the other, by one group.
    pub async fn ask_all(&self, asks: Vec<W::Ask>) -> Result<Vec<W::Answer>, Unserved> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        let count = u32::try_from(asks.len()).map_err(|_| Unserved::QueueFull)?;
        let places = self.places.clone().try_acquire_many_owned(count).map_err(|_| Unserved::QueueFull)?;
        let (reply, answers) = oneshot::channel();
        let span = tracing::Span::current().context().span().span_context().clone();
        let deadline = context::current().map(|call| call.deadline);
        let request = Request { asks, deadline, span, reply, _places: places };
        self.queue.send(request).map_err(|_| Unserved::Ended)?;
        answers.await.unwrap_or(Err(Unserved::Ended))
    }
}

async fn run<W: Work>(work: W, most: usize, mut waiting: mpsc::UnboundedReceiver<Request<W>>) {
    let mut next = None;
    loop {
        let Some(first) = (match next.take() {
            Some(request) => Some(request),
            None => waiting.recv().await,
        }) else {
            return;
        };
        gather(&waiting, most).await;
        let mut group = Group { asks: Vec::new(), replies: Vec::new(), spans: Vec::new(), now: Instant::now() };
        group.take(first);
        while group.asks.len() < most
            && let Ok(request) = waiting.try_recv()
        {
            if group.asks.len() + request.asks.len() > most {
                next = Some(request);
                break;
            }
            group.take(request);
        }
        group.serve(&work).await;
    }
}

/// Those that were answered just now ask again, all at once. While more of them arrive at each look at the sockets, the group is not
/// full yet; without this the first would go alone and the others wait for it. A lone caller is not held up by it.
async fn gather<T>(waiting: &mpsc::UnboundedReceiver<T>, most: usize) {
    /// Looks in a row that bring nobody, after which it goes on.
    const LOOKS: u32 = 4;
    let (mut looks, mut before) = (0, waiting.len());
    while looks < LOOKS && before < most {
        // Comes back when the runtime has looked at its sockets.
        tokio::task::yield_now().await;
        looks = if waiting.len() == before { looks + 1 } else { 0 };
        before = waiting.len();
    }
}

struct Group<W: Work> {
    asks: Vec<W::Ask>,
    /// Who waits, and for how many answers.
    replies: Vec<(usize, Reply<W>)>,
    spans: Vec<SpanContext>,
    now: Instant,
}

impl<W: Work> Group<W> {
    fn take(&mut self, request: Request<W>) {
        let Request { asks, deadline, span, reply, _places } = request;
        // A reply that nobody waits for any more is dropped, here and below.
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            let _ = reply.send(Err(Unserved::DeadlinePassed));
            return;
        }
        self.replies.push((asks.len(), reply));
        self.asks.extend(asks);
        if span.is_sampled() {
            self.spans.push(span);
        }
    }

    async fn serve(self, work: &W) {
        if self.replies.is_empty() {
            return;
        }
        let span = tracing::info_span!(target: SPANS, parent: None, "group", otel.name = W::NAME, group.size = self.asks.len());
        for caller in self.spans {
            span.add_link(caller);
        }
        let mut answers = work.serve(self.asks).instrument(span).await.into_iter();
        for (count, reply) in self.replies {
            let _ = reply.send(Ok(answers.by_ref().take(count).collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Doubles numbers; each group waits for a permit, and is noted.
    struct Doubling {
        permits: Arc<Semaphore>,
        groups: mpsc::UnboundedSender<Vec<u32>>,
    }

    impl Work for Doubling {
        type Ask = u32;
        type Answer = u32;
        const NAME: &'static str = "double";

        async fn serve(&self, group: Vec<u32>) -> Vec<u32> {
            let _ = self.groups.send(group.clone());
            self.permits.acquire().await.expect("open").forget();
            group.into_iter().map(|n| n * 2).collect()
        }
    }

    struct Lab {
        lane: Lane<Doubling>,
        permits: Arc<Semaphore>,
        groups: mpsc::UnboundedReceiver<Vec<u32>>,
        work: tokio::task::JoinHandle<()>,
    }

    fn lab(limits: Limits) -> Lab {
        let permits = Arc::new(Semaphore::new(0));
        let (sender, groups) = mpsc::unbounded_channel();
        let (lane, work) = Lane::new(Doubling { permits: permits.clone(), groups: sender }, limits);
        Lab { lane, permits, groups, work: tokio::spawn(work) }
    }

    const LIMITS: Limits = Limits { group: 4, queue: 6 };

    /// Polls once, so that it stands in the queue.
    async fn queued<F: Future>(asked: &mut std::pin::Pin<Box<F>>) {
        assert!(futures::poll!(asked.as_mut()).is_pending());
    }

    #[tokio::test]
    async fn what_comes_while_a_group_is_at_work_is_the_next_group_in_order_of_arrival() {
        let mut lab = lab(LIMITS);
        let mut asked: Vec<_> = (0..6).map(|n| Box::pin(lab.lane.ask(n))).collect();
        queued(&mut asked[0]).await;
        assert_eq!(lab.groups.recv().await, Some(vec![0]), "an idle lane serves one at once");
        for asked in &mut asked[1..] {
            queued(asked).await;
        }
        lab.permits.add_permits(3);
        let answers = futures::future::join_all(asked).await;
        assert_eq!(answers, (0..6).map(|n| Ok(n * 2)).collect::<Vec<_>>());
        assert_eq!(lab.groups.recv().await, Some(vec![1, 2, 3, 4]));
        assert_eq!(lab.groups.recv().await, Some(vec![5]));
    }

    #[tokio::test]
    async fn what_is_asked_together_stays_together() {
        let mut lab = lab(LIMITS);
        let mut first = Box::pin(lab.lane.ask(0));
        queued(&mut first).await;
        assert_eq!(lab.groups.recv().await, Some(vec![0]));
        let (mut pair, mut three) = (Box::pin(lab.lane.ask_all(vec![1, 2])), Box::pin(lab.lane.ask_all(vec![3, 4, 5])));
        queued(&mut pair).await;
        queued(&mut three).await;
        lab.permits.add_permits(3);
        assert_eq!((first.await, pair.await, three.await), (Ok(0), Ok(vec![2, 4]), Ok(vec![6, 8, 10])));
        assert_eq!(lab.groups.recv().await, Some(vec![1, 2]));
        assert_eq!(lab.groups.recv().await, Some(vec![3, 4, 5]));
        // More than a group holds goes alone; more than may wait never gets in.
        lab.permits.add_permits(1);
        assert_eq!(lab.lane.ask_all(vec![1; 6]).await, Ok(vec![2; 6]));
        assert_eq!(lab.lane.ask_all(vec![1; 7]).await, Err(Unserved::QueueFull));
    }

    #[tokio::test]
    async fn who_comes_to_a_full_queue_is_turned_away_and_comes_in_later() {
        let mut lab = lab(LIMITS);
        let mut first = Box::pin(lab.lane.ask(0));
        queued(&mut first).await;
        lab.groups.recv().await;
        let mut waiting: Vec<_> = (1..=6).map(|n| Box::pin(lab.lane.ask(n))).collect();
        for asked in &mut waiting {
            queued(asked).await;
        }
        let refused = lab.lane.ask(7).await.expect_err("full");
        let fault = refused.fault();
        assert_eq!((fault.code, fault.reason.as_str()), (tonic::Code::ResourceExhausted, "QUEUE_FULL"));
        assert!(fault.retry_after.is_some());
        lab.permits.add_permits(4);
        assert_eq!(first.await, Ok(0));
        assert!(futures::future::join_all(waiting).await.iter().all(Result::is_ok));
        assert_eq!(lab.lane.ask(7).await, Ok(14));
    }

    #[tokio::test]
    async fn who_gives_up_is_served_all_the_same_and_whose_deadline_passed_is_not() {
        let mut lab = lab(LIMITS);
        let mut first = Box::pin(lab.lane.ask(0));
        queued(&mut first).await;
        lab.groups.recv().await;
        let mut impatient = Box::pin(lab.lane.ask(1));
        queued(&mut impatient).await;
        drop(impatient);
        let call = context::Current { deadline: Instant::now(), actor: "tester".into() };
        let mut late = Box::pin(context::scope(call, lab.lane.ask(2)));
        queued(&mut late).await;
        lab.permits.add_permits(2);
        assert_eq!((first.await, late.await), (Ok(0), Err(Unserved::DeadlinePassed)));
        assert_eq!(lab.groups.recv().await, Some(vec![1]));
    }

    #[tokio::test]
    async fn the_work_ends_with_the_last_who_could_ask_and_not_before_the_last_answer() {
        let lab = lab(LIMITS);
        let lane = lab.lane.clone();
        let mut last = Box::pin(async move { lane.ask(3).await });
        queued(&mut last).await;
        drop(lab.lane);
        lab.permits.add_permits(1);
        assert_eq!(last.await, Ok(6));
        lab.work.await.expect("ends");
    }
}
