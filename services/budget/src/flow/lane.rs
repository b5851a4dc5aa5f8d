//! Operations of many callers in one transaction. What waits is decided in order of arrival and committed together; nobody is answered
//! before that. Which replica or lane an operation comes through makes no difference to what it may do: the envelopes' locks
//! decide, and other transactions, such as an activation, take the same ones.

use super::post_operations::{done, lost_race, post};
use crate::{
    domain::{books::Receipt, reservation::Reservation},
    error::Error,
    ids::ReservationId,
    store::{
        self,
        operation::{Answer, Keys, Operation},
    },
};
use koc_chassis::{
    fault::{ServiceError, chain, is_transient, is_unreachable},
    gate::Outcome,
    lane::{self, Find, Limits, Shared, Work},
    postgres::{Db, OwnConnection},
};
use sqlx::{Connection, PgConnection};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Most operations in one transaction, and most that wait for the next ones.
pub const OPERATIONS: Limits = Limits { group: 512, queue: 4_096 };
/// Longest statement of a group, and its longest wait for a lock: its own bounds and not those of a caller, and short, as all wait
/// behind it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// Where operations wait.
#[derive(Clone)]
pub struct Lane(lane::Lane<Ledger>);

impl Lane {
    /// The lane, and its work, to be run in the background.
    pub fn new(db: &Db, limits: Limits) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let conn = db.own_connection(STATEMENT_TIMEOUT, LOCK_TIMEOUT);
        let (lane, work) = lane::Lane::new(Ledger { db: db.clone(), conn, careful: AtomicU32::new(0) }, limits);
        (Self(lane), work)
    }

    /// Runs one operation.
    pub async fn run(&self, operation: Operation) -> Result<Outcome<Receipt>, Error> {
        self.0.ask(operation).await?
    }

    /// Runs several operations in order, each with an answer of its own. They are decided one after the other, and need not all
    /// succeed.
    pub async fn run_all(&self, operations: Vec<Operation>) -> Result<Vec<Result<Outcome<Receipt>, Error>>, Error> {
        Ok(self.0.ask_all(operations).await?)
    }
}

struct Ledger {
    db: Db,
    conn: OwnConnection,
    /// Groups that are still to look up their request ids: retries come many at a time.
    careful: AtomicU32,
}

/// After a request id came again, so many groups look theirs up before they decide. The others find out when they write.
const CAREFUL: u32 = 64;

impl Work for Ledger {
    type Ask = Operation;
    type Answer = Result<Outcome<Receipt>, Error>;
    const NAME: &'static str = "post operations";

    async fn serve(&self, group: Vec<Operation>) -> Vec<Self::Answer> {
        let mut answers = Vec::with_capacity(group.len());
        // What is still to be done, the next part last.
        let mut parts = vec![group.as_slice()];
        while let Some(part) = parts.pop() {
            match self.persist(part).await {
                Ok(answered) => answers.extend(answered.into_iter().zip(part).map(|(answer, operation)| done(answer, operation))),
                Err(error) if part.len() == 1 => answers.push(Err(error)),
                // Nothing of it is the fault of one operation, or its envelope is locked for long: parting them would make all wait.
                Err(error) if error.database().is_some_and(is_transient) => {
                    answers.extend(Shared::among(error, part.len()).map(|error| Err(error.into())));
                }
                // One that fails harms no neighbour: it is parted from the others until it stands alone.
                Err(error) => {
                    tracing::warn!(error = chain(&error), operations = part.len(), "a group failed; halving it");
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        self.db.wake_feed();
        answers
    }
}

impl Ledger {
    /// Runs operations in a transaction; anew when a request id was used before, and once more when it lost a race or its connection:
    /// those that were committed all the same are known by their keys then.
    async fn persist(&self, operations: &[Operation]) -> Result<Vec<Answer>, Error> {
        let careful = self.careful.load(Ordering::Relaxed);
        self.careful.store(careful.saturating_sub(1), Ordering::Relaxed);
        let (mut keys, mut retries) = if careful == 0 { (Keys::New, 2) } else { (Keys::Any, 1) };
        loop {
            match self.once(operations, keys).await {
                Err(error) if retries > 0 && error.database().is_some_and(|error| lost_race(error) || is_unreachable(error)) => {
                    self.careful.store(CAREFUL, Ordering::Relaxed);
                    (keys, retries) = (Keys::Any, retries - 1);
                }
                answered => return answered,
            }
        }
    }

    async fn once(&self, operations: &[Operation], keys: Keys) -> Result<Vec<Answer>, Error> {
        let work = async {
            let mut conn = self.conn.take().await?;
            let mut tx = conn.begin().await?;
            let answers = post(&mut tx, operations, keys).await?;
            tx.commit().await?;
            self.conn.give_back(conn);
            Ok(answers)
        };
        self.conn.within(work).await
    }
}

/// Reads of reservations by id.
pub struct ById;

impl Find for ById {
    type Id = ReservationId;
    type Found = Reservation;
    type Error = Error;
    const NAME: &'static str = "find reservations";

    async fn find(conn: &mut PgConnection, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Reservation>, Error> {
        Ok(store::reservation::by_ids(conn, ids).await?)
    }
}
