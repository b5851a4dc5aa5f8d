//! The table that the bench prints.

use crate::load::Measured;
use std::time::Duration;

/// One comparison.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub ours: Measured,
    pub beside: Measured,
    pub beside_name: String,
    /// The ratio that must be reached.
    pub target: Option<f64>,
}

/// All of them, and what is to be known beside.
#[derive(Debug)]
pub struct Table {
    pub rows: Vec<Row>,
    /// In the ledger at the end, which adds up.
    pub entries: i64,
    pub slowest_feed: Duration,
}

#[allow(clippy::print_stdout)]
pub fn print(table: &Table, seconds: f64, runs: usize) {
    println!("\nMedian of {runs} × {seconds} s; durable Postgres, client, services and server on the same cores.\n");
    println!("| work | per second | p50 ms | p99 ms | beside | per second | p50 ms | p99 ms | ratio | p99 ratio | must be |");
    println!("|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|");
    for row in &table.rows {
        let (ours, beside) = (row.ours, row.beside);
        let ratio = ours.per_second / beside.per_second;
        let target = match row.target {
            Some(target) if ratio >= target => format!("≥ {target}"),
            Some(target) => format!("**≥ {target}, missed**"),
            None => String::new(),
        };
        println!(
            "| {} | {:.0} | {:.2} | {:.2} | {} | {:.0} | {:.2} | {:.2} | {ratio:.2} | {:.3} | {target} |",
            row.name,
            ours.per_second,
            ours.p50_ms,
            ours.p99_ms,
            row.beside_name,
            beside.per_second,
            beside.p50_ms,
            beside.p99_ms,
            ours.p99_ms / beside.p99_ms,
        );
    }
    println!(
        "\nThe ledger has {} entries and adds up. The feed and the chain were at most {:.1} s behind when the load ended.",
        table.entries,
        table.slowest_feed.as_secs_f64(),
    );
}
