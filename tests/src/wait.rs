//! Waiting for what another task, process or server will bring about.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Asks `check` again and again until it answers `Some`, and gives that answer. A check that hangs counts as
/// time passing, too.
///
/// # Panics
/// After `timeout`, with `what` was waited for: write it so that "waited … for {what}" reads well.
pub async fn until<T, F, Fut>(what: &str, timeout: Duration, mut check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let since = Instant::now();
    let mut asked = 0_u32;
    let mut pause = FIRST_PAUSE;
    loop {
        asked += 1;
        let left = timeout.saturating_sub(since.elapsed());
        match tokio::time::timeout(left, check()).await {
            Ok(Some(answer)) => return answer,
            Ok(None) if since.elapsed() < timeout => tokio::time::sleep(pause.min(left)).await,
            Ok(None) | Err(_) => {
                panic!("waited {timeout:?} in vain for {what} (asked {asked} times)")
            }
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
