//! The service stops, and its connections break, amid calls: what was acknowledged stands, once.

use crate::world::*;
use koc_proto::koc::budget::v1 as pb;
use koc_tests::wait;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Barrier, task::JoinSet};
use tonic::{Code, Response, Status};

const CLIENTS: usize = 8;
const ROUNDS: usize = 6;
/// Of an envelope that they empty some time before they are through.
const MONEY: i64 = 280;

/// What a client sent and what it was told: for each round a hold of 10, a commit of 7 with the rest given back, a payment of 5.
type Story = Vec<(pb::ReserveRequest, Result<pb::ReserveResponse, String>, Vec<(pb::CommitRequest, pb::CommitResponse)>)>;

/// Sends the same request until it is answered; only what a caller is told to repeat may come in between.
async fn insist<R: Clone, T, F>(client: &Client, request: &R, call: impl Fn(Reservations, R) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    for _ in 0..1_000 {
        match call(client.reservations.clone(), request.clone()).await {
            // Without details it is not the service's word: the connection broke, and the client says so.
            Err(status) if status.code() == Code::Unavailable || status.details().is_empty() => {
                client.troubles.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answer => return answer.map(Response::into_inner),
        }
    }
    panic!("never answered");
}

struct Client {
    reservations: Reservations,
    holds: Vec<pb::ReserveRequest>,
    programme: String,
    troubles: Arc<AtomicUsize>,
}

impl Client {
    fn commit_request(&self, reservation_id: &str) -> pb::CommitRequest {
        let (programme_id, reservation_id) = (self.programme.clone(), reservation_id.to_owned());
        pb::CommitRequest {
            programme_id,
            request_id: id(),
            reservation_id,
            amount: Some(fen(7)),
            release_rest: true,
            ..Default::default()
        }
    }

    fn spend_request(&self, reservation_id: &str) -> pb::SpendRequest {
        let (programme_id, reservation_id) = (self.programme.clone(), reservation_id.to_owned());
        let payment_reference = String::new();
        pb::SpendRequest {
            programme_id,
            request_id: id(),
            reservation_id,
            amount: Some(fen(5)),
            payment_reference,
            ..Default::default()
        }
    }

    async fn run(self, middle: Arc<Barrier>) -> Story {
        let mut story = Story::new();
        for (nr, hold) in self.holds.iter().enumerate() {
            if nr == ROUNDS / 3 {
                middle.wait().await;
            }
            let held = insist(&self, hold, |mut client, request| async move { client.reserve(request).await }).await;
            let mut commits = Vec::new();
            let held = match held {
                Ok(held) => Ok(held),
                Err(status) => {
                    let message = status.message().to_owned();
                    refused::<()>(Err(status), Code::FailedPrecondition, "ENVELOPE_EXHAUSTED");
                    Err(message)
                }
            };
            if let Ok(held) = &held {
                let of = held.reservation.clone().expect("a reservation").reservation_id;
                let commit = self.commit_request(&of);
                let owed = insist(&self, &commit, |mut client, request| async move { client.commit(request).await }).await;
                commits.push((commit, owed.expect("owed")));
                let spend = self.spend_request(&of);
                let paid = insist(&self, &spend, |mut client, request| async move { client.spend(request).await }).await;
                let paid = paid.expect("paid").reservation.expect("a reservation");
                assert_eq!(parts(&paid), [0, 2, 5, 3]);
            }
            story.push((hold.clone(), held, commits));
        }
        story
    }
}

/// Starts all clients; they meet `middle` when a third of their work is done.
async fn clients(world: &World, middle: &Arc<Barrier>) -> (JoinSet<Story>, String, Arc<AtomicUsize>) {
    let envelope = world.envelope_of(MONEY).await;
    let troubles = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let hold = |_| pb::ReserveRequest { envelope_id: envelope.clone(), ..world.reserve_request(10) };
        let client = Client {
            reservations: Reservations::new(world.budget.channel()),
            holds: (0..ROUNDS).map(hold).collect(),
            programme: world.programme.clone(),
            troubles: Arc::clone(&troubles),
        };
        clients.spawn(client.run(Arc::clone(middle)));
    }
    (clients, envelope, troubles)
}

/// Everything that was acknowledged is in the ledger once, and is acknowledged in the same words again.
async fn settled(world: &World, envelope: &str, stories: Vec<Story>) {
    let stories: Vec<_> = stories.into_iter().flatten().collect();
    let held = stories.iter().filter(|(_, held, _)| held.is_ok()).count();
    assert_eq!(stories.len(), CLIENTS * ROUNDS);
    let entries = world.entries(envelope).await;
    // An allocation, and for each hold itself, its commit, what was given back, and the payment.
    assert_eq!(entries.len(), 1 + 4 * held);
    assert_eq!(world.available(envelope).await, MONEY - 7 * i64::try_from(held).expect("few"));
    let mut client = world.reservations();
    for (hold, answer, commits) in stories {
        let again = client.reserve(hold).await.map(Response::into_inner).map_err(|status| status.message().to_owned());
        assert_eq!(again, answer);
        for (commit, owed) in commits {
            assert_eq!(client.commit(commit).await.expect("the first answer").into_inner(), owed);
        }
    }
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_stands_once_after_a_restart_amid_calls() {
    let world = World::new().await;
    let middle = Arc::new(Barrier::new(CLIENTS + 1));
    let (clients, envelope, troubles) = clients(&world, &middle).await;
    middle.wait().await;
    let world = world.restart().await;
    let stories = clients.join_all().await;
    assert!(troubles.load(Ordering::Relaxed) > 0, "the service was away");
    settled(&world, &envelope, stories).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_stands_once_though_connections_broke_in_between() {
    let world = World::new().await;
    let middle = Arc::new(Barrier::new(CLIENTS + 1));
    let (clients, envelope, _) = clients(&world, &middle).await;
    middle.wait().await;
    // Wherever each of them is: before its commit, after it, or between the commit and its answer.
    for _ in 0..8 {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND usename = 'koc_budget_app'";
        let ended: i64 = sqlx::query_scalar(sql).fetch_one(&world.budget.database.admin).await.expect("ended");
        assert!(ended > 0, "connections were open");
        // Until somebody works again.
        wait::until("a call to succeed", PATIENCE, async || world.reserve(1).await.ok()).await;
    }
    // Callers need not have noticed: what a connection broke under is run once more.
    let stories = clients.join_all().await;
    settled(&world, &envelope, stories).await;
}
