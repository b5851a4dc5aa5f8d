//! Making load: so many callers, each with one call at a time, the next when the last is answered.

use crate::{bare, calls, raw};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// What to do, and how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub warm_up: Duration,
    pub measure: Duration,
    pub callers: usize,
    pub work: Work,
}

/// What a caller does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// Calls that end at once.
    Bare { url: String },
    /// Calls of the budget service: one figure for each of the steps, which take the reservations of the step before.
    Budget { target: calls::Target, steps: Vec<calls::Step> },
    /// The same work as SQL.
    Raw { url: String, accounts: Vec<uuid::Uuid> },
    /// Sets of so many as SQL.
    RawBatch { url: String, account: uuid::Uuid, size: usize },
}

/// What came of one kind of call.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Measured {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Does it.
pub async fn follow(order: Order) -> anyhow::Result<Vec<Measured>> {
    match order.work.clone() {
        Work::Bare { url } => Ok(vec![bare::load(&order, &url).await?]),
        Work::Budget { target, steps } => calls::load(&order, target, steps).await,
        Work::Raw { url, accounts } => Ok(vec![raw::load(&order, &url, &accounts).await?]),
        Work::RawBatch { url, account, size } => Ok(vec![raw::load_batches(&order, &url, account, size).await?]),
    }
}

/// One who calls.
pub trait Caller: Send + 'static {
    /// Calls once; false when there is nothing left to call for.
    fn call(&mut self) -> impl Future<Output = anyhow::Result<bool>> + Send;
}

/// Has all callers at work for the order's time. Calls count that begin after the warm-up and are answered before the end; what a caller
/// has left is given back with it.
pub async fn drive<C: Caller>(order: &Order, callers: Vec<C>) -> anyhow::Result<(Measured, Vec<C>)> {
    let start = Instant::now() + order.warm_up;
    let end = start + order.measure;
    let mut all = JoinSet::new();
    for mut caller in callers {
        all.spawn(async move {
            let mut took = Vec::new();
            let mut last = Instant::now();
            while last < end {
                let begun = last;
                let more = caller.call().await?;
                last = Instant::now();
                if begun >= start && last <= end {
                    took.push(last - begun);
                }
                if !more {
                    break;
                }
            }
            anyhow::Ok((took, last.min(end), caller))
        });
    }
    let (mut took, mut callers, mut ended) = (Vec::new(), Vec::new(), start);
    while let Some(done) = all.join_next().await {
        let (one, last, caller) = done??;
        took.extend(one);
        callers.push(caller);
        ended = ended.max(last);
    }
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3);
    let per_second = took.len() as f64 / (ended - start).as_secs_f64();
    Ok((Measured { per_second, p50_ms: at(0.5), p99_ms: at(0.99) }, callers))
}
