//! What is measured, and beside what.

use crate::{
    calls::Step,
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
        spread: bool,
    },
    RawBatch {
        size: usize,
    },
    Reserve {
        callers: usize,
        replicas: usize,
        spread: bool,
    },
    /// On one hot envelope, after as many Reserves.
    Then {
        step: Then,
        callers: usize,
    },
}

/// See [`Figure::Then`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Then {
    Commit,
    Spend,
    Release,
    Get,
}

const fn raw(callers: usize) -> Figure {
    Figure::Raw { callers, spread: false }
}

const fn hot(callers: usize, replicas: usize) -> Figure {
    Figure::Reserve { callers, replicas, spread: false }
}

/// What is compared with what, and the ratio that must be reached, if any.
fn comparisons() -> Vec<(String, Figure, Figure, Option<f64>)> {
    let mut all = vec![
        ("Reserve, one envelope, 1 caller".to_owned(), hot(1, 1), raw(1), Some(0.3)),
        ("Reserve, one envelope, 8 callers".to_owned(), hot(8, 1), raw(8), None),
        ("Reserve, one envelope, 64 callers".to_owned(), hot(64, 1), raw(64), Some(10.0)),
        ("Reserve, one envelope, 512 callers".to_owned(), hot(512, 1), raw(64), None),
        ("Reserve, one envelope, 256 callers".to_owned(), hot(256, 1), Figure::Bare { callers: 256 }, Some(0.25)),
    ];
    for replicas in 2..=REPLICAS {
        for callers in [64, 512] {
            let name = format!("Reserve, one envelope, {callers} callers, {replicas} replicas");
            all.push((name, hot(callers, replicas), raw(64), None));
        }
    }
    let spread = Figure::Reserve { callers: 64, replicas: 1, spread: true };
    let raw_spread = Figure::Raw { callers: 64, spread: true };
    all.push(("Reserve, 1,000 envelopes, 64 callers".to_owned(), spread, raw_spread, Some(2.0)));
    for step in [Then::Commit, Then::Spend, Then::Release] {
        let figure = Figure::Then { step, callers: 64 };
        all.push((format!("{step:?}, one envelope, 64 callers"), figure, hot(64, 1), Some(0.8)));
    }
    let get = Figure::Then { step: Then::Get, callers: 256 };
    all.push(("GetReservation, 256 callers".to_owned(), get, Figure::Bare { callers: 256 }, Some(0.4)));
    all.push(("Set of 256 as raw SQL, 1 client".to_owned(), Figure::RawBatch { size: 256 }, raw(1), None));
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
        Figure::Raw { callers, spread: false } => format!("raw SQL, one account, {callers}"),
        Figure::Raw { callers, spread: true } => format!("raw SQL, 1,000 accounts, {callers}"),
        Figure::RawBatch { size } => format!("raw SQL, sets of {size}"),
        Figure::Reserve { callers, .. } => format!("Reserve, {callers}"),
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
            Figure::Raw { callers, spread } => {
                let accounts = if spread { stage.accounts.clone() } else { stage.accounts[..1].to_vec() };
                (callers, Work::Raw { url: stage.raw_url.clone(), accounts })
            }
            Figure::RawBatch { size } => (1, Work::RawBatch { url: stage.raw_url.clone(), account: stage.accounts[0], size }),
            Figure::Reserve { callers, replicas, spread } => {
                stage.replicas(replicas).await?;
                (callers, Work::Budget { target: stage.target(spread), steps: vec![Step::Reserve] })
            }
            Figure::Then { step, callers } => {
                stage.replicas(1).await?;
                let steps = match step {
                    Then::Commit => vec![Step::Reserve, Step::Commit],
                    Then::Spend => vec![Step::Reserve, Step::Commit, Step::Spend],
                    Then::Release => vec![Step::Reserve, Step::Release],
                    Then::Get => vec![Step::Reserve, Step::Get],
                };
                (callers, Work::Budget { target: stage.target(false), steps })
            }
        };
        let order = Order { warm_up: measure / 4, measure, callers, work };
        let measured = process::load(&order).await?;
        self.slowest_feed = self.slowest_feed.max(self.stage.settle().await?);
        let last = measured.last().copied().unwrap_or_default();
        self.found.entry(figure).or_default().push(last);
        Ok(())
    }
}
