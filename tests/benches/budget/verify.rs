//! The verification of a large ledger: how long it takes, and that the service's memory does not grow with it.

use crate::stage::Stage;
use koc_tests::ledger;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

const ENVELOPES: i32 = 8;
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Grows a ledger of about so many entries, which takes far longer than to verify it, and prints figures.
#[allow(clippy::print_stdout)]
pub async fn measure(stage: &mut Stage, entries: i64) -> anyhow::Result<()> {
    let programme = Uuid::now_v7();
    let blocks = i32::try_from(entries / i64::from(ENVELOPES) / ledger::BLOCK)?.max(1);
    let entries = ledger::grow(&stage.pool().await?, programme, ENVELOPES, blocks).await?;
    let before = stage.resident_kib()?;
    let mut most = before;
    let begun = Instant::now();
    let verification =
        stage.verify_in_background(&programme.to_string(), LOOK, |resident_kib| most = most.max(resident_kib)).await?;
    let elapsed = begun.elapsed().as_secs_f64();
    anyhow::ensure!(verification.verified_entry_count == entries, "{verification:?}");
    println!(
        "{entries} entries verified in {elapsed:.1} s, {:.0} a second; resident {} MiB before, {} at most, {} after",
        entries as f64 / elapsed,
        before / 1024,
        most / 1024,
        stage.resident_kib()? / 1024,
    );
    Ok(())
}
