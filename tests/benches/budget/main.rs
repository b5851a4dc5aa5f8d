//! The hot path of the budget in figures: calls over gRPC beside the same work as raw SQL, and beside gRPC with nothing behind it, in one
//! run on one throw-away Postgres. What counts is the ratio of the two sides; absolute figures are the machine's.
//!
//! `cargo bench-budget` runs it; `-- --help` says what can be chosen. It starts everything itself, and each part is a process of its own:
//! Postgres (durable: fsync and synchronous_commit on), the registry, one to three replicas of the budget, a bare gRPC server, and
//! whoever makes the load.

mod bare;
mod calls;
mod load;
mod process;
mod raw;
mod report;
mod sides;
mod stage;
mod verify;

use clap::Parser;
use std::time::Duration;

/// As the services have it; both sides of each comparison run on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the budget's hot path beside raw Postgres and bare gRPC.
#[derive(Debug, Parser)]
#[command(name = "cargo bench-budget")]
struct Options {
    /// How long each figure is measured, in seconds, after a warm-up.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// How often each figure is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// One run of two seconds for each figure: shows where things stand, not more.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name holds this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Instead of all that: the verification of a ledger of so many entries, 10,000,000 say, and the memory that the service takes for it.
    #[arg(long, value_name = "ENTRIES")]
    verify: Option<i64>,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    if let Some(role) = process::role() {
        return role.play();
    }
    let mut options = Options::parse();
    if options.quick {
        (options.seconds, options.runs) = (2.0, 1);
    }
    // Its server ends with the thread that started it, so that is the main one.
    let postgres = stage::Postgres::start()?;
    let runtime = process::runtime()?;
    let table = runtime.block_on(async {
        let mut stage = stage::Stage::set(&postgres).await?;
        match options.verify {
            Some(entries) => verify::measure(&mut stage, entries).await.map(|()| None),
            None => {
                let seconds = Duration::from_secs_f64(options.seconds);
                sides::measure(&mut stage, seconds, options.runs, &options.only).await.map(Some)
            }
        }
    })?;
    drop(runtime);
    postgres.remove()?;
    if let Some(table) = table {
        report::print(&table, options.seconds, options.runs);
    }
    Ok(())
}
