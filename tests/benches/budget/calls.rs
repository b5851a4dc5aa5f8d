//! Callers of the budget service.

use crate::{
    bare::channels,
    load::{Caller, Measured, Order, drive},
};
use anyhow::{Context, bail, ensure};
use koc_proto::{google::r#type::Money, koc::budget::v1 as pb};
use koc_tests::service::Bearer;
use serde::{Deserialize, Serialize};
use tonic::{service::interceptor::InterceptedService, transport::Channel};
use uuid::Uuid;

/// Where calls go, and on what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    pub urls: Vec<String>,
    pub token: String,
    pub programme: String,
    /// Callers take them in turn.
    pub envelopes: Vec<String>,
}

/// A kind of call. All but Reserve take reservations that the steps before have left, until none is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    Reserve,
    Commit,
    Spend,
    Release,
    /// Reads them, again and again.
    Get,
    /// As Reserve, many in one call.
    BatchReserve,
    /// Reads many of them in one call.
    BatchGet,
}

/// How many of them one call of a batch form has.
pub const RESERVES_OF_A_BATCH: usize = 256;
pub const READS_OF_A_BATCH: usize = 100;

impl Step {
    /// How many pieces of work a call of it does.
    pub fn size(self) -> usize {
        match self {
            Self::BatchReserve => RESERVES_OF_A_BATCH,
            Self::BatchGet => READS_OF_A_BATCH,
            _ => 1,
        }
    }
}

type Client = pb::reservation_service_client::ReservationServiceClient<InterceptedService<Channel, Bearer>>;

struct One {
    client: Client,
    target: std::sync::Arc<Target>,
    step: Step,
    /// Which call this is of the caller's.
    turn: usize,
    /// Reservations that are to be worked on.
    todo: Vec<String>,
    done: Vec<String>,
}

fn fen() -> Option<Money> {
    Some(Money { currency_code: "CNY".into(), units: 0, nanos: 10_000_000 })
}

impl One {
    fn reserve(&self) -> pb::ReserveRequest {
        pb::ReserveRequest {
            programme_id: self.target.programme.clone(),
            request_id: Uuid::now_v7().to_string(),
            envelope_id: self.target.envelopes[self.turn % self.target.envelopes.len()].clone(),
            purpose: "assignment/1".into(),
            amount: fen(),
            time_to_live: Some(prost_types::Duration { seconds: 24 * 60 * 60, nanos: 0 }),
            ..Default::default()
        }
    }
}

impl Caller for One {
    async fn call(&mut self) -> anyhow::Result<bool> {
        self.turn += 1;
        let (programme_id, request_id) = (self.target.programme.clone(), Uuid::now_v7().to_string());
        if self.step == Step::Reserve {
            let held = self.client.reserve(self.reserve()).await?.into_inner().reservation.context("a reservation")?;
            self.done.push(held.reservation_id);
            return Ok(true);
        }
        if self.step == Step::Get {
            let reservation_id = self.todo[self.turn % self.todo.len()].clone();
            self.client.get_reservation(pb::GetReservationRequest { programme_id, reservation_id }).await?;
            return Ok(true);
        }
        if self.step == Step::BatchReserve {
            let requests = (0..RESERVES_OF_A_BATCH).map(|_| self.reserve()).collect();
            let request = pb::BatchReserveRequest { programme_id, requests, ..Default::default() };
            let results = self.client.batch_reserve(request).await?.into_inner().results;
            let held = results.into_iter().filter_map(|r| Some(r.response?.reservation?.reservation_id));
            let before = self.done.len();
            self.done.extend(held);
            ensure!(self.done.len() - before == RESERVES_OF_A_BATCH, "a request of a batch was refused");
            return Ok(true);
        }
        if self.step == Step::BatchGet {
            let ids = self.todo.iter().cycle().skip(self.turn * READS_OF_A_BATCH % self.todo.len()).take(READS_OF_A_BATCH);
            let reservation_ids: Vec<String> = ids.cloned().collect();
            let request = pb::BatchGetReservationsRequest { programme_id, reservation_ids };
            let found = self.client.batch_get_reservations(request).await?.into_inner().reservations.len();
            ensure!(found == READS_OF_A_BATCH, "a batch of reads found {found}");
            return Ok(true);
        }
        let Some(reservation_id) = self.todo.pop() else { bail!("a caller has no reservation") };
        self.done.push(reservation_id.clone());
        match self.step {
            Step::Commit => {
                let request = pb::CommitRequest { programme_id, request_id, reservation_id, amount: fen(), ..Default::default() };
                self.client.commit(request).await?;
            }
            Step::Spend => {
                let request = pb::SpendRequest { programme_id, request_id, reservation_id, amount: fen(), ..Default::default() };
                self.client.spend(request).await?;
            }
            _ => {
                let request =
                    pb::ReleaseRequest { programme_id, request_id, reservation_id, amount: fen(), ..Default::default() };
                self.client.release(request).await?;
            }
        }
        Ok(!self.todo.is_empty())
    }
}

/// Takes the steps one after the other; each caller goes on with its own reservations.
pub async fn load(order: &Order, target: Target, steps: Vec<Step>) -> anyhow::Result<Vec<Measured>> {
    let channels = channels(&target.urls, order.callers).await?;
    let target = std::sync::Arc::new(target);
    let caller = |nr: usize| {
        let bearer = Bearer::new(Some(target.token.clone()), None);
        let channel = channels[nr % channels.len()].clone();
        let client = Client::new(InterceptedService::new(channel, bearer));
        // Callers begin at different envelopes.
        let turn = nr * 7_919;
        One { client, target: target.clone(), step: Step::Reserve, turn, todo: Vec::new(), done: Vec::new() }
    };
    let mut callers: Vec<One> = (0..order.callers).map(caller).collect();
    let mut measured = Vec::new();
    for step in steps {
        for caller in &mut callers {
            caller.step = step;
            // Oldest first, as they came.
            caller.todo = std::mem::take(&mut caller.done);
            caller.todo.reverse();
        }
        let (figures, back) = drive(order, callers).await?;
        callers = back;
        // The figures are per piece of work, not per call.
        measured.push(Measured { per_second: figures.per_second * step.size() as f64, ..figures });
    }
    Ok(measured)
}
