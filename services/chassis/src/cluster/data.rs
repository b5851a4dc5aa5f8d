//! The data folder: made whole or not at all, never started by two servers, never by another version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::account::Account;
use super::binaries::{Binaries, output};
use super::error::{ClusterError, io_error};
use super::process::{self, Signal};
use super::{Authentication, SUPERUSER};

/// How long a leftover server gets for each harder way of being stopped.
const STOP_STEP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What the server writes about itself into its data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) ready: bool,
}

impl PidFile {
    /// First line: process id. Eighth line, once the server has one to write: its state.
    fn parse(text: &str) -> Option<Self> {
        let pid = text.lines().next()?.trim().parse().ok()?;
        let ready = text.lines().nth(7).is_some_and(|line| line.trim() == "ready");
        Some(Self { pid, ready })
    }

    pub(super) fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(pid_file(data)).ok()?)
    }
}

fn pid_file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

/// The server that runs on this data folder. A process id alone proves nothing: it may have been given to
/// another program since, so the command line must name a Postgres and this very folder. A process that has
/// ended and is not yet waited for has no command line, and counts as gone.
pub(super) fn running_server(data: &Path) -> Option<u32> {
    let pid = PidFile::read(data)?.pid;
    is_server_on(pid, data).then_some(pid)
}

fn is_server_on(pid: u32, data: &Path) -> bool {
    let line = command_line(pid).unwrap_or_default();
    line.contains("postgres") && line.contains(&format!("-D {} ", data.display()))
}

/// Whether the process runs: one that has ended and is not yet waited for does not.
pub(super) fn is_alive(pid: u32) -> bool {
    let state = if cfg!(target_os = "linux") {
        // "pid (name) state …", where the name may hold anything, parentheses too.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').map(|(_, rest)| rest.to_owned())
    } else {
        output(Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()])).ok()
    };
    state.is_some_and(|state| !state.trim_start().starts_with(['Z', 'X']) && !state.trim().is_empty())
}

fn command_line(pid: u32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        return Some(String::from_utf8_lossy(&line).replace('\0', " "));
    }
    output(Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()])).ok()
}

/// Stops the server of an earlier run whose launcher was killed.
pub(super) fn stop_leftover(data: &Path) -> Result<(), ClusterError> {
    let Some(file) = PidFile::read(data) else {
        return Ok(());
    };
    if is_server_on(file.pid, data) {
        tracing::warn!(pid = file.pid, data = %data.display(), "stopping the Postgres of an earlier run");
        return stop(file.pid, data);
    }
    if is_alive(file.pid) {
        disown(data, file.pid)?;
    }
    Ok(())
}

/// The id in the file belongs to a stranger by now, and Postgres would take that for a running server.
/// The file itself must stay: through it the server finds out whether processes of the former one still hold
/// its shared memory. Postgres accepts the id of its own parent as stale, so ours goes there.
fn disown(data: &Path, stranger: u32) -> Result<(), ClusterError> {
    let path = pid_file(data);
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    tracing::warn!(stranger, "the process id of the former Postgres belongs to another program now");
    fs::write(&path, format!("{}\n{rest}", std::process::id())).map_err(io_error("write", &path))
}

/// Ends the server on this folder: politely, then firmly, then by force.
fn stop(pid: u32, data: &Path) -> Result<(), ClusterError> {
    for signal in [Signal::FastShutdown, Signal::ImmediateShutdown, Signal::Kill] {
        process::send(pid, signal);
        let since = Instant::now();
        while since.elapsed() < STOP_STEP_TIMEOUT {
            if !is_server_on(pid, data) {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
    Err(ClusterError::StillRunning { pid })
}

/// Makes the data folder where there is none, and checks an existing one.
///
/// `initdb` works in a sibling that gets its name only when it is whole; so what lies there unfinished is the
/// rest of an interrupted run, and goes.
pub(super) fn prepare(
    folder: &Path,
    data: &Path,
    binaries: &Binaries,
    account: Account,
    durable: bool,
    authentication: Authentication,
    password_file: &Path,
) -> Result<(), ClusterError> {
    let version = data.join("PG_VERSION");
    if version.exists() && data.join("global/pg_control").exists() {
        let text = fs::read_to_string(&version).map_err(io_error("read", &version))?;
        let (found, wanted) = (text.trim(), binaries.major()?.to_string());
        if found != wanted {
            return Err(ClusterError::OtherVersion { path: data.into(), found: found.into(), wanted });
        }
        return Ok(());
    }
    if data.exists() {
        // No server can start on it, but it may hold what somebody wants to look at.
        let aside = folder.join("data.damaged");
        remove_tree(&aside)?;
        tracing::warn!(from = %data.display(), to = %aside.display(), "setting an incomplete data folder aside");
        fs::rename(data, &aside).map_err(io_error("set aside", data))?;
    }
    let part = folder.join("data.part");
    remove_tree(&part)?;
    let mut command = account.command(&binaries.program("initdb"));
    command.args(authentication.initdb_arguments(binaries.major()?));
    command.args(["--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C"]);
    command.arg("--no-instructions").arg("--pwfile").arg(password_file);
    if !durable {
        command.arg("--no-sync");
    }
    output(command.arg("--pgdata").arg(&part))?;
    fs::rename(&part, data).map_err(io_error("name", data))
}

/// Removes a folder that may not be there.
pub(super) fn remove_tree(path: &Path) -> Result<(), ClusterError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str, pid: u32) -> PathBuf {
        let data = std::env::temp_dir().join(format!("koc-data-{name}-{}", std::process::id()));
        fs::create_dir_all(&data).unwrap();
        fs::write(pid_file(&data), format!("{pid}\n{}\n1\n5432\n\n127.0.0.1\n  1 2\nready   \n", data.display())).unwrap();
        data
    }

    #[test]
    fn a_server_is_ready_when_the_eighth_line_says_so() {
        let starting = "41\n/data\n1700000000\n5433\n\n127.0.0.1\n  123   4\nstarting\n";
        assert_eq!(PidFile::parse(starting), Some(PidFile { pid: 41, ready: false }));
        let ready = starting.replace("starting", "ready   ");
        assert_eq!(PidFile::parse(&ready), Some(PidFile { pid: 41, ready: true }));
        assert_eq!(PidFile::parse("41\n/data\n"), Some(PidFile { pid: 41, ready: false }));
        assert_eq!(PidFile::parse(""), None);
    }

    #[test]
    fn a_stranger_with_the_same_process_id_is_left_alone_and_no_longer_named() {
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        let data = scratch("stranger", stranger.id());

        assert_eq!(running_server(&data), None);
        stop_leftover(&data).unwrap();

        assert_eq!(stranger.try_wait().unwrap(), None);
        let file = PidFile::read(&data).unwrap();
        assert_eq!(file, PidFile { pid: std::process::id(), ready: true });
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        fs::remove_dir_all(&data).unwrap();
    }
}
