//! How far an import is, on stderr: one line that is written over on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};
use tokio::time::Instant;

/// How often a terminal's line is written anew, and how often a line is added elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(500);
const ELSEWHERE: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    terminal: bool,
    total_bytes: u64,
    started: Instant,
    shown: Instant,
    /// Where it began: what was committed before is no part of the rate.
    from: Option<(u64, u64)>,
    wrote: bool,
}

impl Progress {
    pub(super) fn new(total_bytes: u64) -> Self {
        let now = Instant::now();
        Self { terminal: io::stderr().is_terminal(), total_bytes, started: now, shown: now, from: None, wrote: false }
    }

    /// Says that rows up to here are accounted for, if it is time to. `bytes` are those of the file that they took.
    pub(super) fn at(&mut self, rows: u64, bytes: u64) {
        let now = Instant::now();
        let Some((from_rows, from_bytes)) = self.from else {
            (self.from, self.started) = (Some((rows, bytes)), now);
            return;
        };
        if now - self.shown < if self.terminal { ON_TERMINAL } else { ELSEWHERE } {
            return;
        }
        self.shown = now;
        let done = Done {
            rows,
            new_rows: rows.saturating_sub(from_rows),
            new_bytes: bytes.saturating_sub(from_bytes),
            left_bytes: self.total_bytes.saturating_sub(bytes),
            took: now - self.started,
        };
        self.write(&done.line());
    }

    /// Leaves the terminal as it was.
    pub(super) fn end(&mut self) {
        if self.wrote && self.terminal {
            self.write("");
        }
    }

    fn write(&mut self, line: &str) {
        self.wrote = true;
        // A progress that cannot be shown is no reason to stop.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(io::stderr(), "{line}"),
        };
        let _ = io::stderr().flush();
    }
}

struct Done {
    rows: u64,
    new_rows: u64,
    new_bytes: u64,
    left_bytes: u64,
    took: Duration,
}

impl Done {
    fn line(&self) -> String {
        let seconds = self.took.as_secs_f64().max(f64::EPSILON);
        let rate = self.new_rows as f64 / seconds;
        let left = match self.new_bytes {
            0 => String::new(),
            bytes => format!(", {} left", clock(self.left_bytes as f64 * seconds / bytes as f64)),
        };
        format!("{} rows, {rate:.0}/s{left}", self.rows)
    }
}

/// Seconds as minutes and seconds, with hours where there are some.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_rows_rate_and_the_time_left_of_what_is_new() {
        let done = Done { rows: 60_000, new_rows: 10_000, new_bytes: 2_000, left_bytes: 6_000, took: Duration::from_secs(25) };
        assert_eq!(done.line(), "60000 rows, 400/s, 1:15 left");
        let unknown = Done { new_bytes: 0, ..done };
        assert_eq!(unknown.line(), "60000 rows, 400/s");
    }

    #[test]
    fn a_long_time_is_told_in_hours() {
        assert_eq!((clock(59.6).as_str(), clock(3_725.0).as_str()), ("1:00", "1:02:05"));
    }
}
