//! One run of the server: starting it, knowing when it is ready or has failed, ending it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::account::Account;
use super::data::{self, PidFile};
use super::error::{ClusterError, io_error};
use super::process::{self, Signal};

/// Recovery after a crash is the slowest start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A fast shutdown writes a checkpoint; after this long the kernel ends the server.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How much of its log an error quotes.
const LOG_TAIL_BYTES: u64 = 4 * 1024;
const LOG_TAIL_LINES: usize = 15;

/// Starts its arguments in the background, tells their process id, and ends them unless a line arrives before
/// the pipe from the launcher closes. A shell starts background programs deaf to SIGINT, and Postgres hears it only
/// when it has set itself up; until then SIGTERM ends it.
const GUARD: &str = r#""$@" >&2 & echo $!; exec >&2; read -r keep || { kill -TERM $!; kill -INT $!; }"#;

/// How the server hangs on this process.
#[derive(Debug)]
enum Hold {
    /// A child that goes when we go.
    Child(Child),
    /// A process of its own, behind a shell that ends it if we go before saying that it shall stay. As long as
    /// the shell waits for that, the server's id cannot be given to another process.
    Guarded { guard: Child, pid: u32 },
}

/// A server process.
#[derive(Debug)]
pub(super) struct Server {
    hold: Hold,
    data: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Spawns `command`, which is `postgres -D data …`, writing to `log`.
    pub(super) fn spawn(
        mut command: Command,
        account: Account,
        data: &Path,
        log: &Path,
        detached: bool,
    ) -> Result<Self, ClusterError> {
        let previous = log.with_file_name("log.previous");
        if log.exists() {
            fs::rename(log, &previous).map_err(io_error("set aside", log))?;
        }
        let sink = File::create(log).map_err(io_error("write", log))?;
        let hold = if detached {
            let mut guard = account.command(Path::new("/bin/sh"));
            guard.args(["-c", GUARD, "sh"]).arg(command.get_program()).args(command.get_args());
            guard.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(sink);
            process::lead_session(&mut guard);
            let mut guard = guard.spawn().map_err(io_error("start", Path::new("/bin/sh")))?;
            let mut line = String::new();
            if let Some(answers) = guard.stdout.take() {
                BufReader::new(answers).read_line(&mut line).map_err(io_error("read from", Path::new("/bin/sh")))?;
            }
            let pid = line.trim().parse().map_err(|_| ClusterError::Program {
                program: "/bin/sh".into(),
                said: format!("no process id in `{}`", line.trim()),
            })?;
            Hold::Guarded { guard, pid }
        } else {
            let copy = sink.try_clone().map_err(io_error("write", log))?;
            command.stdin(Stdio::null()).stdout(copy).stderr(sink);
            // A process group of its own: Ctrl-C at the terminal is for the launcher, which ends the
            // server last.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            process::die_with_parent(&mut command);
            let program = PathBuf::from(command.get_program());
            Hold::Child(command.spawn().map_err(io_error("start", &program))?)
        };
        Ok(Self { hold, data: data.into(), log: log.into() })
    }

    pub(super) fn pid(&self) -> u32 {
        match &self.hold {
            Hold::Child(child) => child.id(),
            Hold::Guarded { pid, .. } => *pid,
        }
    }

    /// How the server ended, if it has.
    pub(super) fn exited(&mut self) -> Option<String> {
        match &mut self.hold {
            Hold::Child(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            Hold::Guarded { pid, .. } => (!data::is_alive(*pid)).then(|| "it is gone".to_owned()),
        }
    }

    /// Returns when the server takes connections.
    pub(super) fn await_ready(&mut self) -> Result<(), ClusterError> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return Err(ClusterError::Exited { status, log: self.log.clone(), tail: tail(&self.log) });
            }
            // The file of a server that was killed may still say ready: the id tells whose it is.
            if PidFile::read(&self.data) == Some(PidFile { pid: self.pid(), ready: true }) {
                return Ok(());
            }
            if since.elapsed() > START_TIMEOUT {
                return Err(ClusterError::NotReady {
                    seconds: START_TIMEOUT.as_secs(),
                    log: self.log.clone(),
                    tail: tail(&self.log),
                });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Lets a detached server live on without us.
    pub(super) fn keep(&mut self) -> Result<(), ClusterError> {
        let Hold::Guarded { guard, .. } = &mut self.hold else {
            return Ok(());
        };
        let shell = Path::new("/bin/sh");
        if let Some(mut pipe) = guard.stdin.take() {
            pipe.write_all(b"keep\n").map_err(io_error("write to", shell))?;
        }
        guard.wait().map_err(io_error("wait for", shell))?;
        Ok(())
    }

    /// Ends the server: a fast shutdown, and by force when that takes too long. A signal that comes before the
    /// server has set itself up may be lost, so it is repeated; Postgres takes no notice of the second.
    pub(super) fn stop(&mut self) {
        let pid = self.pid();
        let since = Instant::now();
        while self.exited().is_none() {
            if since.elapsed() < STOP_TIMEOUT {
                process::send(pid, Signal::FastShutdown);
                thread::sleep(POLL_INTERVAL);
                continue;
            }
            tracing::warn!(pid, "Postgres did not shut down in time and is killed");
            process::send(pid, Signal::Kill);
            break;
        }
        let waited = match &mut self.hold {
            Hold::Child(child) => child.wait(),
            Hold::Guarded { guard, .. } => {
                drop(guard.stdin.take());
                guard.wait()
            }
        };
        if let Err(error) = waited {
            tracing::warn!(pid, %error, "could not wait for the end of Postgres");
        }
    }
}

/// The end of a log file, for an error message.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// Whether nobody listens on this port of the loopback address.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port nobody listens on at this moment.
pub(super) fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(io_error("find a free port on", Path::new("127.0.0.1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_the_last_lines_of_the_log_only() {
        let log = std::env::temp_dir().join(format!("koc-tail-{}", std::process::id()));
        let text: String = (0..2_000).map(|line| format!("line {line}\n")).collect();
        fs::write(&log, text).unwrap();
        let quoted = tail(&log);
        fs::remove_file(&log).unwrap();
        assert_eq!(quoted.lines().count(), LOG_TAIL_LINES);
        assert!(quoted.ends_with("line 1999"));
        assert_eq!(tail(&log), "");
    }
}
