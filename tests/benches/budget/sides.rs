//! What is measured, and beside what.

use crate::{
    calls::{RESERVES_OF_A_BATCH, Step},
    load::{Measured, Order, Work},
    process,
    report::{Row, Table},
    stage::{REPLICAS, Stage},
};
use std::{collections::BTreeMap, time::Duration};

/// A figure, by what it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    Bare {
        callers: usize,
    },
    Raw {
        callers: usize,
        on: On,
    },
    RawBatch {
        size: usize,
    },
    Reserve {
        callers: usize,
        replicas: usize,
        on: On,
    },
    /// In sets, on one hot envelope.
    BatchReserve,
    /// On one hot envelope, after as many Reserves.
    Then {
        step: Then,
        callers: usize,
    },
}

/// Where money is taken from, and how long the disk takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// One envelope or account: all wait for the same row.
    Hot,
    /// A thousand of them.
    Spread,
    /// One, and each flush of the log takes 3 ms longer, as on a volume across a network.
    HotSlowDisk,
}

/// See [`Figure::Then`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Then {
    Commit,
    Spend,
    Release,
    Get,
    BatchGet,
}

const fn raw(callers: usize) -> Figure {
    Figure::Raw { callers, on: On::Hot }
}

const fn hot(callers: usize, replicas: usize) -> Figure {
    Figure::Reserve { callers, replicas, on: On::Hot }
}

/// What is compared with what, and the ratio that must be reached, if any.
fn comparisons() -> Vec<(String, Figure, Figure, Option<f64>)> {
    let mut all = Vec::new();
    let mut row = |name: String, ours: Figure, beside: Figure, target: Option<f64>| all.push((name, ours, beside, target));
    for replicas in 1..=REPLICAS {
        for callers in [1, 8, 64, 512] {
            let target = match (callers, replicas) {
                (1, 1) => Some(0.3),
                (64, 1) => Some(10.0),
                _ => None,
            };
            let others = if replicas == 1 { String::new() } else { format!(", {replicas} replicas") };
            // Raw SQL gains nothing beyond: the row's lock is all that counts.
            row(
                format!("Reserve, one envelope, {callers} callers{others}"),
                hot(callers, replicas),
                raw(callers.min(64)),
                target,
            );
        }
    }
    row("Reserve, one envelope, 256 callers".into(), hot(256, 1), Figure::Bare { callers: 256 }, Some(0.25));
    let slow = |callers| {
        (Figure::Reserve { callers, replicas: 1, on: On::HotSlowDisk }, Figure::Raw { callers: 8, on: On::HotSlowDisk })
    };
    row("Reserve, one envelope, 256 callers, flushes 3 ms longer".into(), slow(256).0, slow(256).1, Some(40.0));
    let spread = Figure::Reserve { callers: 64, replicas: 1, on: On::Spread };
    row("Reserve, 1,000 envelopes, 64 callers".into(), spread, Figure::Raw { callers: 64, on: On::Spread }, Some(2.0));
    for step in [Then::Commit, Then::Spend, Then::Release] {
        row(format!("{step:?}, one envelope, 64 callers"), Figure::Then { step, callers: 64 }, hot(64, 1), Some(0.8));
    }
    let set = Figure::RawBatch { size: RESERVES_OF_A_BATCH };
    row("BatchReserve, 256 a call, one envelope, 1 caller".into(), Figure::BatchReserve, set, Some(0.6));
    let get = Figure::Then { step: Then::Get, callers: 256 };
    row("GetReservation, 256 callers".into(), get, Figure::Bare { callers: 256 }, Some(0.4));
    let (one, many) = (Figure::Then { step: Then::Get, callers: 8 }, Figure::Then { step: Then::BatchGet, callers: 8 });
    row("BatchGetReservations, 100 a call, 8 callers".into(), many, one, Some(10.0));
    all
}

/// Measures all, the two sides of each comparison in turn, so that what changes on the machine meanwhile meets both.
pub async fn measure(stage: &mut Stage, seconds: Duration, runs: usize, only: &str) -> anyhow::Result<Table> {
    let wanted: Vec<_> = comparisons().into_iter().filter(|(name, ..)| name.contains(only)).collect();
    let mut orders: Vec<Figure> = Vec::new();
    for (_, left, right, _) in &wanted {
        for figure in [right, left] {
            if !orders.contains(figure) {
                orders.push(*figure);
            }
        }
    }
    let mut measuring = Measuring { stage, seconds, found: BTreeMap::new(), slowest_feed: Duration::ZERO };
    // Caches are filled and statistics are taken before anything counts.
    for figure in [hot(64, 1), raw(64)] {
        measuring.one(figure, Duration::from_secs(2)).await?;
    }
    measuring.stage.analyze().await?;
    measuring.found.clear();
    measuring.slowest_feed = Duration::ZERO;
    for run in 1..=runs {
        for figure in &orders {
            progress(run, runs, figure);
            let seconds = measuring.seconds;
            measuring.one(*figure, seconds).await?;
        }
    }
    let Measuring { stage, found, slowest_feed, .. } = measuring;
    let entries = stage.verify().await?;
    let median = |figure: &Figure| {
        let mut all = found[figure].clone();
        all.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        all[all.len() / 2]
    };
    let row = |(name, left, right, target): &(String, Figure, Figure, Option<f64>)| Row {
        name: name.clone(),
        ours: median(left),
        beside: median(right),
        beside_name: beside(right),
        target: *target,
    };
    Ok(Table { rows: wanted.iter().map(row).collect(), entries, slowest_feed })
}

#[allow(clippy::print_stderr)]
fn progress(run: usize, runs: usize, figure: &Figure) {
    eprintln!("run {run} of {runs}: {figure:?}");
}

fn beside(figure: &Figure) -> String {
    match figure {
        Figure::Bare { callers } => format!("bare gRPC, {callers}"),
        Figure::Raw { callers, on: On::Hot } => format!("raw SQL, one account, {callers}"),
        Figure::Raw { callers, on: On::Spread } => format!("raw SQL, 1,000 accounts, {callers}"),
        Figure::Raw { callers, on: On::HotSlowDisk } => format!("raw SQL, one account, {callers}, the same flushes"),
        Figure::RawBatch { size } => format!("raw SQL, sets of {size}"),
        Figure::Reserve { callers, .. } => format!("Reserve, {callers}"),
        Figure::BatchReserve => "BatchReserve".to_owned(),
        Figure::Then { step, callers } => format!("{step:?}, {callers}"),
    }
}

struct Measuring<'a> {
    stage: &'a mut Stage,
    seconds: Duration,
    found: BTreeMap<Figure, Vec<Measured>>,
    /// The longest that the feed took to come to its end after a figure.
    slowest_feed: Duration,
}

impl Measuring<'_> {
    async fn one(&mut self, figure: Figure, measure: Duration) -> anyhow::Result<()> {
        let stage = &mut *self.stage;
        let (callers, work) = match figure {
            Figure::Bare { callers } => (callers, Work::Bare { url: stage.bare_url.clone() }),
            Figure::Raw { callers, on } => {
                let accounts = if on == On::Spread { stage.accounts.clone() } else { stage.accounts[..1].to_vec() };
                (callers, Work::Raw { url: stage.raw_url.clone(), accounts })
            }
            Figure::RawBatch { size } => (1, Work::RawBatch { url: stage.raw_url.clone(), account: stage.accounts[0], size }),
            Figure::Reserve { callers, replicas, on } => {
                stage.replicas(replicas).await?;
                (callers, Work::Budget { target: stage.target(on == On::Spread), steps: vec![Step::Reserve] })
            }
            Figure::BatchReserve => {
                stage.replicas(1).await?;
                (1, Work::Budget { target: stage.target(false), steps: vec![Step::BatchReserve] })
            }
            Figure::Then { step, callers } => {
                stage.replicas(1).await?;
                let steps = match step {
                    Then::Commit => vec![Step::Reserve, Step::Commit],
                    Then::Spend => vec![Step::Reserve, Step::Commit, Step::Spend],
                    Then::Release => vec![Step::Reserve, Step::Release],
                    Then::Get => vec![Step::Reserve, Step::Get],
                    Then::BatchGet => vec![Step::BatchReserve, Step::BatchGet],
                };
                (callers, Work::Budget { target: stage.target(false), steps })
            }
        };
        let slow = matches!(figure, Figure::Raw { on: On::HotSlowDisk, .. } | Figure::Reserve { on: On::HotSlowDisk, .. });
        stage.slow_flushes(slow).await?;
        let order = Order { warm_up: measure / 4, measure, callers, work };
        let measured = process::load(&order).await?;
        self.slowest_feed = self.slowest_feed.max(self.stage.settle().await?);
        let last = measured.last().copied().unwrap_or_default();
        self.found.entry(figure).or_default().push(last);
        Ok(())
    }
}
