//! What the clients ask, and what they are told.

use super::{ENVELOPES, MEMBER_LIMITS, PATIENCE};
use koc_proto::{google::r#type::Money, koc::budget::v1 as pb, rules::Rules};
use koc_tests::{
    answer::id,
    service::{TestChannel, channel_to},
    token,
};
use rand::{Rng, rngs::StdRng};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

type Reservations = pb::reservation_service_client::ReservationServiceClient<TestChannel>;
type Ledger = pb::ledger_service_client::LedgerServiceClient<TestChannel>;

/// A call is given up after this, and nobody knows what became of it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// Reservations that are at work at a time, whoever made them.
const LATEST: usize = 60;

pub fn fen(minor: i64) -> Money {
    let nanos = i32::try_from(minor % 100 * 10_000_000).expect("below a yuan");
    Money { currency_code: "CNY".into(), units: minor / 100, nanos }
}

pub fn minor(money: Option<&Money>) -> i64 {
    money.map_or(0, |money| money.units * 100 + i64::from(money.nanos) / 10_000_000)
}

/// What all clients have in common.
pub struct Shared {
    pub urls: Vec<String>,
    pub programme: String,
    pub envelopes: Vec<String>,
    pub members: Vec<String>,
    /// Of the replicas.
    pub environment: Vec<(String, String)>,
    /// Rounds that are through.
    pub done: AtomicUsize,
    made: Mutex<Vec<String>>,
}

impl Shared {
    pub fn new(
        urls: &[String],
        programme: String,
        envelopes: Vec<String>,
        members: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let (done, made) = (AtomicUsize::default(), Mutex::default());
        Self { urls: urls.to_vec(), programme, envelopes, members, environment, done, made }
    }

    pub fn reservations(&self, replica: usize) -> Reservations {
        Reservations::new(self.channel(replica))
    }

    pub fn ledger(&self, replica: usize) -> Ledger {
        Ledger::new(self.channel(replica))
    }

    fn channel(&self, replica: usize) -> TestChannel {
        channel_to(&self.urls[replica % self.urls.len()], Some(token::all("client")), None)
    }
}

/// A request, kept to be sent again and to be looked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    Reserve(pb::ReserveRequest),
    Commit(pb::CommitRequest),
    Spend(pb::SpendRequest),
    Release(pb::ReleaseRequest),
    Extend(pb::ExtendRequest),
    Reverse(pb::ReverseRequest),
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Done {
        reservation: Box<pb::Reservation>,
        available: Option<Money>,
    },
    Refused {
        reason: String,
        figures: HashMap<String, String>,
    },
    /// Nothing that says what became of it.
    Unknown,
}

/// One request and what its client knows of it in the end.
#[derive(Debug, Clone)]
pub struct Event {
    pub asked: Asked,
    pub answer: Answer,
}

impl Asked {
    /// By what the service recognises it: the method and the request id.
    pub fn key(&self) -> (&'static str, &str) {
        match self {
            Self::Reserve(request) => (pb::ReserveRequest::NAME, &request.request_id),
            Self::Commit(request) => (pb::CommitRequest::NAME, &request.request_id),
            Self::Spend(request) => (pb::SpendRequest::NAME, &request.request_id),
            Self::Release(request) => (pb::ReleaseRequest::NAME, &request.request_id),
            Self::Extend(request) => (pb::ExtendRequest::NAME, &request.request_id),
            Self::Reverse(request) => (pb::ReverseRequest::NAME, &request.request_id),
        }
    }

    pub async fn send(&self, client: &mut Reservations) -> Answer {
        macro_rules! call {
            ($method:ident, $request:expr) => {
                client.$method(timed($request.clone())).await.map(Response::into_inner)
            };
        }
        let answer = match self {
            Self::Reserve(r) => call!(reserve, r).map(|a| (a.reservation, a.envelope_available)),
            Self::Commit(r) => call!(commit, r).map(|a| (a.reservation, a.envelope_available)),
            Self::Spend(r) => call!(spend, r).map(|a| (a.reservation, None)),
            Self::Release(r) => call!(release, r).map(|a| (a.reservation, a.envelope_available)),
            Self::Extend(r) => call!(extend, r).map(|a| (a.reservation, a.envelope_available)),
            Self::Reverse(r) => call!(reverse, r).map(|a| (a.reservation, a.envelope_available)),
        };
        match answer {
            Ok((reservation, available)) => {
                Answer::Done { reservation: Box::new(reservation.expect("a reservation")), available }
            }
            Err(status) => told(&status),
        }
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn told(status: &Status) -> Answer {
    let passing = [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded];
    // Without details it is not the service's word: the connection broke, and the client says so.
    if passing.contains(&status.code()) || status.details().is_empty() {
        return Answer::Unknown;
    }
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let info = status.get_error_details().error_info().cloned().expect("a reason");
    Answer::Refused { reason: info.reason, figures: info.metadata }
}

/// One of many, with a choice of its own.
pub struct Client {
    shared: Arc<Shared>,
    random: StdRng,
    replicas: Vec<Reservations>,
    ledger: Ledger,
    events: Vec<Event>,
}

impl Client {
    pub fn new(shared: Arc<Shared>, random: StdRng, nr: usize) -> Self {
        let replicas = (0..shared.urls.len()).map(|replica| shared.reservations(replica)).collect();
        let ledger = shared.ledger(nr);
        Self { shared, random, replicas, ledger, events: Vec::new() }
    }

    pub async fn run(mut self, rounds: usize) -> Vec<Event> {
        for _ in 0..rounds {
            let choice = self.random.random_range(0..100);
            match choice {
                0..32 => {
                    let request = self.reserve_request();
                    self.settle(Asked::Reserve(request)).await;
                }
                32..40 => self.batch().await,
                _ => match self.asked(choice).await {
                    Some(asked) => self.settle(asked).await,
                    None => {
                        let request = self.reserve_request();
                        self.settle(Asked::Reserve(request)).await;
                    }
                },
            }
            self.shared.done.fetch_add(1, Ordering::Relaxed);
        }
        self.events
    }

    fn reserve_request(&mut self) -> pb::ReserveRequest {
        let envelope = self.random.random_range(0..ENVELOPES.len());
        let of_member = envelope < MEMBER_LIMITS.len() && self.random.random_bool(0.4);
        pb::ReserveRequest {
            programme_id: self.shared.programme.clone(),
            request_id: id(),
            envelope_id: self.shared.envelopes[envelope].clone(),
            member_id: if of_member { self.shared.members[envelope].clone() } else { String::new() },
            purpose: "assignment/1".into(),
            amount: Some(fen(self.random.random_range(1..300))),
            // Nothing expires while the test runs, however slow the machine is.
            time_to_live: Some(prost_types::Duration { seconds: 24 * 60 * 60, nanos: 0 }),
            validate_only: false,
        }
    }

    /// Something about a reservation that is there; None when there is none, or what it needs cannot be read now.
    async fn asked(&mut self, choice: usize) -> Option<Asked> {
        let reservation_id = {
            let made = self.shared.made.lock().expect("no client panicked");
            let latest = &made[made.len().saturating_sub(LATEST)..];
            (!latest.is_empty()).then(|| latest[self.random.random_range(0..latest.len())].clone())?
        };
        let (programme_id, request_id) = (self.shared.programme.clone(), id());
        let amount = self.random.random_bool(0.7).then(|| fen(self.random.random_range(1..150)));
        Some(match choice {
            40..60 => {
                let release_rest = self.random.random_bool(0.2);
                Asked::Commit(pb::CommitRequest {
                    programme_id,
                    request_id,
                    reservation_id,
                    amount,
                    release_rest,
                    validate_only: false,
                })
            }
            60..72 => {
                let payment_reference = "invoice-1".into();
                Asked::Spend(pb::SpendRequest {
                    programme_id,
                    request_id,
                    reservation_id,
                    amount,
                    payment_reference,
                    validate_only: false,
                })
            }
            72..84 => {
                Asked::Release(pb::ReleaseRequest { programme_id, request_id, reservation_id, amount, validate_only: false })
            }
            84..90 => {
                let time_to_live = Some(prost_types::Duration { seconds: 48 * 60 * 60, nanos: 0 });
                Asked::Extend(pb::ExtendRequest { programme_id, request_id, reservation_id, time_to_live, validate_only: false })
            }
            _ => Asked::Reverse(pb::ReverseRequest {
                entry_id: self.reversible(&reservation_id).await?,
                programme_id,
                request_id,
                reservation_id,
                amount,
                release: self.random.random_bool(0.5),
                reason: pb::ReversalReason::WrongAmount.into(),
                validate_only: false,
            }),
        })
    }

    async fn reversible(&mut self, reservation_id: &str) -> Option<String> {
        let programme_id = self.shared.programme.clone();
        let request = pb::GetReservationRequest { programme_id: programme_id.clone(), reservation_id: reservation_id.to_owned() };
        let envelope_id = self.replicas[0].get_reservation(timed(request)).await.ok()?.into_inner().reservation?.envelope_id;
        let reservation_id = reservation_id.to_owned();
        let request = pb::ListLedgerEntriesRequest { programme_id, envelope_id, reservation_id, ..Default::default() };
        let entries = self.ledger.list_ledger_entries(timed(request)).await.ok()?.into_inner().entries;
        let kinds = [pb::LedgerEntryKind::Commit, pb::LedgerEntryKind::Spend];
        let mut entries: Vec<_> = entries.into_iter().filter(|entry| kinds.contains(&entry.kind())).collect();
        (!entries.is_empty()).then(|| entries.swap_remove(self.random.random_range(0..entries.len())).entry_id)
    }

    /// Sends a request to any replica, mostly until somebody answers, and notes what is known of it then.
    async fn settle(&mut self, asked: Asked) {
        let insist = self.random.random_bool(0.8);
        let since = Instant::now();
        let answer = loop {
            let replica = self.random.random_range(0..self.replicas.len());
            match asked.send(&mut self.replicas[replica]).await {
                Answer::Unknown if insist => {
                    assert!(since.elapsed() < PATIENCE * 5, "never answered: {asked:?}");
                    tokio::time::sleep(PAUSE).await;
                }
                answer => break answer,
            }
        };
        self.note(asked, answer);
    }

    /// Several holds in one call; a batch that is not answered is not sent again.
    async fn batch(&mut self) {
        let count = self.random.random_range(2..6);
        let mut requests: Vec<pb::ReserveRequest> = (0..count).map(|_| self.reserve_request()).collect();
        // The same twice: one request, one answer.
        requests.push(requests[0].clone());
        let request = pb::BatchReserveRequest {
            programme_id: self.shared.programme.clone(),
            requests: requests.clone(),
            validate_only: false,
        };
        let replica = self.random.random_range(0..self.replicas.len());
        let answers: Vec<Answer> = match self.replicas[replica].batch_reserve(timed(request)).await {
            Err(status) => {
                assert_eq!(told(&status), Answer::Unknown, "a batch is not refused as a whole");
                vec![Answer::Unknown; requests.len()]
            }
            Ok(answer) => answer.into_inner().results.into_iter().map(of_result).collect(),
        };
        assert_eq!(answers.first(), answers.last(), "one request, one answer");
        for (asked, answer) in requests.into_iter().zip(answers).take(count) {
            self.note(Asked::Reserve(asked), answer);
        }
    }

    fn note(&mut self, asked: Asked, answer: Answer) {
        if let (Asked::Reserve(_), Answer::Done { reservation, .. }) = (&asked, &answer) {
            self.shared.made.lock().expect("no client panicked").push(reservation.reservation_id.clone());
        }
        self.events.push(Event { asked, answer });
    }
}

fn of_result(result: pb::ReserveResult) -> Answer {
    match (result.response, result.status) {
        (Some(response), None) => {
            let reservation = Box::new(response.reservation.expect("a reservation"));
            Answer::Done { reservation, available: response.envelope_available }
        }
        (None, Some(status)) => {
            let details = prost::Message::encode_to_vec(&status).into();
            told(&Status::with_details(Code::from_i32(status.code), status.message, details))
        }
        both => panic!("an answer or a status: {both:?}"),
    }
}
