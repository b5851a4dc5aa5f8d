//! Members coming in, in figures: a sync by stream with all rules, history and facts, beside raw COPY into a table of the same columns and
//! indexes, in one run on one throw-away Postgres. What counts is the ratio of the two sides; absolute figures are the machine's.
//!
//! `cargo bench-registry` runs it; `-- --help` says what can be chosen. It starts everything itself, and each part is a process of its own:
//! Postgres (durable: fsync and synchronous_commit on), the registry, and whoever sends.

mod process;
mod send;
mod stage;

use clap::Parser;
use process::Role;
use send::Order;

/// As the services have it; both sides of each comparison run on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The ratios to COPY that must be reached.
const FIRST_LOAD: f64 = 0.25;
const NOTHING_CHANGED: f64 = 0.5;

/// Measures the registry's sync beside raw COPY.
#[derive(Debug, Parser)]
#[command(name = "cargo bench-registry")]
struct Options {
    /// Rows that are sent.
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
    /// How often each figure is measured, each time into a programme of its own; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Streams at once, each with its share of the rows.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// One run of 10,000 rows: shows where things stand, not more.
    #[arg(long)]
    quick: bool,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Rows per second of one run.
struct Run {
    first: f64,
    again: f64,
    copy: f64,
    resident_kib: u64,
}

fn main() -> anyhow::Result<()> {
    if let Some(role) = process::role() {
        return role.play();
    }
    let mut options = Options::parse();
    if options.quick {
        (options.rows, options.runs) = (10_000, 1);
    }
    // Its server ends with the thread that started it, so that is the main one.
    let postgres = stage::Postgres::start()?;
    let runs = process::runtime()?.block_on(async {
        let mut stage = stage::Stage::set(&postgres).await?;
        let mut runs = Vec::new();
        for _ in 0..options.runs {
            runs.push(measure(&mut stage, &options).await?);
        }
        anyhow::Ok(runs)
    });
    postgres.remove()?;
    print(&options, &runs?);
    Ok(())
}

async fn measure(stage: &mut stage::Stage, options: &Options) -> anyhow::Result<Run> {
    let programme = stage.programme().await?;
    let order = |run: &str| Order {
        url: stage.url.clone(),
        token: stage.token.clone(),
        programme: programme.clone(),
        run: run.to_owned(),
        rows: options.rows,
        streams: options.streams,
    };
    let (first_order, again_order) = (order("first"), order("again"));
    let first = process::run(&Role::Send(first_order)).await?;
    anyhow::ensure!(first.created == options.rows, "{} of {} rows were new", first.created, options.rows);
    stage.settle().await?;
    let copy = stage.copy(&programme).await?;
    let again = process::run(&Role::Send(again_order)).await?;
    anyhow::ensure!(again.unchanged == options.rows, "{} of {} rows were unchanged", again.unchanged, options.rows);
    stage.settle().await?;
    let per_second = |seconds: f64| options.rows as f64 / seconds;
    Ok(Run {
        first: per_second(first.seconds),
        again: per_second(again.seconds),
        copy: per_second(copy),
        resident_kib: stage.resident_kib()?,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[allow(clippy::print_stdout)]
fn print(options: &Options, runs: &[Run]) {
    let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let copy = of(|run| run.copy);
    println!(
        "\nMedian of {} × {} rows over {} streams; durable Postgres, all on the same cores.\n",
        options.runs, options.rows, options.streams
    );
    println!("| work | rows per second | raw COPY, rows per second | ratio | must be |");
    println!("|---|---:|---:|---:|---|");
    for (name, rate, ratio, target) in [
        ("SyncMembers, first load", of(|run| run.first), of(|run| run.first / run.copy), FIRST_LOAD),
        ("SyncMembers, nothing changed", of(|run| run.again), of(|run| run.again / run.copy), NOTHING_CHANGED),
    ] {
        let missed = if ratio >= target { format!("≥ {target}") } else { format!("**≥ {target}, missed**") };
        println!("| {name} | {rate:.0} | {copy:.0} | {ratio:.2} | {missed} |");
    }
    let resident = runs.iter().map(|run| run.resident_kib).max().unwrap_or(0);
    println!("\nThe registry took at most {} MiB after a run.", resident / 1024);
}
