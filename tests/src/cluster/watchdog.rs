//! The session inside the server that ends the server when nobody uses it.
//!
//! It is a loop in PL/pgSQL whose client has left: the server runs a statement to its end whether or not somebody
//! waits for the answer. The last act is a shell's, which outlives the server and removes its folder.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::AssertSqlSafe;

use super::SuperuserUrl;
use super::lease::{self, LOCK_CLASS, LOCK_LEASE, LOCK_WATCHDOG};

/// How often it looks whether anybody is there: this often within the idle time, and at least once a second.
const LOOKS_PER_IDLE_TIME: u32 = 10;
const LONGEST_LOOK_INTERVAL: Duration = Duration::from_secs(1);
const POST_TIMEOUT: Duration = Duration::from_secs(10);
const POST_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Posts a watchdog. A second one would leave at once.
pub(super) fn post(url: &SuperuserUrl, folder: &Path, idle: Duration) -> anyhow::Result<()> {
    let sql = session(folder, idle)?;
    lease::block_on(async {
        let mut watchdog = lease::connect(url.as_str()).await?;
        let mut observer = lease::connect(url.as_str()).await?;
        tokio::select! {
            ended = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut watchdog) => {
                ended.context("the watchdog ended")?;
                anyhow::bail!("the watchdog ended at once");
            }
            posted = is_posted(&mut observer) => posted,
        }
        // Both connections are cut here. The watchdog's session takes no notice while its loop runs.
    })
}

async fn is_posted(observer: &mut sqlx::PgConnection) -> anyhow::Result<()> {
    let since = Instant::now();
    let sql = "SELECT EXISTS (SELECT FROM pg_locks
                               WHERE locktype = 'advisory' AND classid::int = $1 AND objid::int = $2 AND granted)";
    while !sqlx::query_scalar::<_, bool>(sql).bind(LOCK_CLASS).bind(LOCK_WATCHDOG).fetch_one(&mut *observer).await? {
        ensure!(since.elapsed() < POST_TIMEOUT, "the watchdog does not take its post");
        tokio::time::sleep(POST_POLL_INTERVAL).await;
    }
    Ok(())
}

/// The loop. It commits on every turn, so that it holds back no vacuum. Having taken the lease's lock exclusively
/// at the end of the idle time it keeps it, which turns newcomers away.
fn session(folder: &Path, idle: Duration) -> anyhow::Result<String> {
    let look = (idle / LOOKS_PER_IDLE_TIME).min(LONGEST_LOOK_INTERVAL).as_secs_f64();
    let idle = idle.as_secs_f64();
    let last_act = quoted(&last_act(folder)?);
    Ok(format!(
        r"
DO $watchdog$
DECLARE
    idle_since timestamptz := clock_timestamp();
    leases bigint := 0;
    leases_now bigint;
BEGIN
    IF NOT pg_try_advisory_lock({LOCK_CLASS}, {LOCK_WATCHDOG}) THEN
        RETURN;
    END IF;
    LOOP
        SELECT last_value INTO leases_now FROM koc_leases;
        IF leases_now <> leases THEN
            leases := leases_now;
            idle_since := clock_timestamp();
        END IF;
        IF NOT pg_try_advisory_lock({LOCK_CLASS}, {LOCK_LEASE}) THEN
            idle_since := clock_timestamp();
        ELSIF clock_timestamp() - idle_since >= make_interval(secs => {idle}) THEN
            EXIT;
        ELSE
            PERFORM pg_advisory_unlock({LOCK_CLASS}, {LOCK_LEASE});
        END IF;
        COMMIT;
        PERFORM pg_sleep({look});
    END LOOP;
    EXECUTE format(
        'COPY (SELECT 1 WHERE false) TO PROGRAM %L',
        replace({last_act}, 'POSTMASTER', split_part(pg_read_file('postmaster.pid'), E'\n', 1)));
END
$watchdog$"
    ))
}

/// Shell commands that end the server, wait for it and remove its folder. They are not to be stopped by the
/// signals that the server sends to the process groups of its sessions. The wait is bounded: a server whose folder
/// goes away ends by itself.
fn last_act(folder: &Path) -> anyhow::Result<String> {
    let folder = folder.to_str().context("the folder's name is not UTF-8")?;
    ensure!(!folder.contains('\''), "the folder's name holds a quote: {folder}");
    Ok(format!(
        "(trap '' HUP INT QUIT TERM; kill -INT POSTMASTER; i=0; \
         while [ -e '{folder}/data/postmaster.pid' ] && [ $i -lt 300 ]; \
         do sleep 0.1 || sleep 1; i=$((i+1)); done; \
         rm -rf '{folder}') </dev/null >/dev/null 2>&1 &"
    ))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
