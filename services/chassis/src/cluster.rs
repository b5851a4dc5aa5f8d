//! A private Postgres server: found or installed, set up, started and ended by this process.
//!
//! `koc dev` runs one below its state folder, and the tests share a throw-away one. It listens on 127.0.0.1
//! only and on no Unix socket, whose path may be at most some hundred bytes long. The superuser's password is
//! random and stands in a file that only its owner can read.
//!
//! Everything here blocks: call it from the main thread, before or beside the asynchronous runtime.
//!
//! ```text
//! <folder>/lock       held by the process that runs the server
//!          data/      what initdb made
//!          log        of this run; log.previous of the one before
//!          port       taken again by the next run, if it is free
//!          password   of the superuser
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

mod account;
mod binaries;
mod data;
mod error;
mod process;
mod server;

use account::Account;
pub use binaries::{BINARIES_VARIABLE, Binaries, OLDEST_MAJOR, Source};
pub use error::ClusterError;
use error::io_error;
use server::Server;

/// The superuser that `initdb` makes.
pub const SUPERUSER: &str = "postgres";

/// Since this version the number of SCRAM's hash rounds is a setting, and `initdb` takes settings.
const SCRAM_ROUNDS_SETTABLE_MAJOR: u32 = 16;
const PASSWORD_BYTES: usize = 16;
/// Another program may take a free port between the look and the start.
const PORT_ATTEMPTS_MAX: u32 = 5;
/// How long a folder may be held by a child that has just been forked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long the processes of a killed server may take to notice that it is gone.
const REMAINS_TIMEOUT: Duration = Duration::from_secs(15);
const REMAINS_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How much work it is to prove that one knows the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// SCRAM-SHA-256 with the thousands of hash rounds that keep a stolen verifier from being guessed.
    #[default]
    Strong,
    /// SCRAM with a single round, or MD5 where the server cannot be told the number of rounds (before version 16).
    /// For throw-away clusters, whose clients connect all the time and are built without optimisation: it saves
    /// each connection some 15 ms. The password is random, so there is nothing to guess.
    Quick,
}

impl Authentication {
    /// What `initdb` of this version has to be told.
    fn initdb_arguments(self, major: u32) -> &'static [&'static str] {
        match self {
            Self::Strong => &["--auth", "scram-sha-256"],
            Self::Quick if major >= SCRAM_ROUNDS_SETTABLE_MAJOR => &["--auth", "scram-sha-256", "--set", "scram_iterations=1"],
            Self::Quick => &["--auth", "md5"],
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The cluster's folder; made if absent. See [`place`] for where it really is when root asks.
    pub dir: PathBuf,
    /// The server's programs.
    pub binaries: Binaries,
    /// The port on 127.0.0.1. `None` takes the one of the former run, else a free one.
    pub port: Option<u16>,
    /// Whether what is committed survives a crash of the machine. Throw-away clusters are much quicker without.
    pub durable: bool,
    /// How clients log in. Fixed when the data folder is made.
    pub authentication: Authentication,
    /// Further settings, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

impl ClusterOptions {
    /// A durable cluster in `dir` on a port of its own.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, binaries: Binaries) -> Self {
        Self {
            dir: dir.into(),
            binaries,
            port: None,
            durable: true,
            authentication: Authentication::default(),
            settings: Vec::new(),
        }
    }
}

/// A running server. Dropping it shuts the server down, unless it was detached and then kept.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    kept: bool,
    folder: PathBuf,
    port: u16,
    password: String,
    /// Released after the server has ended: fields are dropped after `drop` has run.
    _lock: File,
}

impl Cluster {
    /// Starts the server as a child of this process and returns when it takes connections.
    ///
    /// On Linux the kernel shuts the server down when the *thread* that called this ends, so that not even
    /// `kill -9` leaves one behind: call it from the main thread, or one that lives as long.
    ///
    /// # Errors
    /// Any [`ClusterError`]; a server that did start has been stopped again.
    pub fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        Self::launch(&options, false)
    }

    /// Starts the server in a session of its own. Until [`Cluster::keep`] it ends with this process, however
    /// that ends; afterwards it lives on by itself.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_detached(options: ClusterOptions) -> Result<Self, ClusterError> {
        Self::launch(&options, true)
    }

    /// Lets a detached server outlive this process.
    ///
    /// # Errors
    /// [`ClusterError::Io`] when the shell that guards it cannot be told; the server is stopped then.
    pub fn keep(mut self) -> Result<(), ClusterError> {
        self.server.keep()?;
        self.kept = true;
        Ok(())
    }

    /// Where clients reach database `name` as superuser, the password included.
    #[must_use]
    pub fn superuser_url(&self, name: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{name}", self.password, self.port)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The folder in use, which is not always the one that was asked for.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How the server ended, if it has ended by itself.
    pub fn exited(&mut self) -> Option<String> {
        self.server.exited()
    }

    fn launch(options: &ClusterOptions, detached: bool) -> Result<Self, ClusterError> {
        let account = Account::of_server()?;
        let folder = account.place(&options.dir)?;
        if std::path::absolute(&options.dir).is_ok_and(|wanted| wanted != folder) {
            tracing::info!(
                wanted = %options.dir.display(), used = %folder.display(),
                "the account that runs Postgres cannot reach the wanted folder"
            );
        }
        account.own_folder(&folder)?;
        let lock = lock(&folder)?;
        let data = folder.join("data");
        data::stop_leftover(&data)?;
        let password_file = folder.join("password");
        let password = password(&password_file, &data, account)?;
        data::prepare(&folder, &data, &options.binaries, account, options.durable, options.authentication, &password_file)?;
        let (server, port) = run(options, account, &folder, &data, detached)?;
        tracing::debug!(pid = server.pid(), port, folder = %folder.display(), "Postgres is ready");
        Ok(Self { server, kept: false, folder, port, password, _lock: lock })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.kept {
            self.server.stop();
        }
    }
}

/// Where a cluster that is asked for in `dir` really is: root's server runs as another account, and where that
/// one cannot reach `dir`, a folder below the system's temporary one stands in for it.
///
/// # Errors
/// [`ClusterError::NoAccount`], [`ClusterError::OutOfReach`], [`ClusterError::Io`].
pub fn place(dir: &Path) -> Result<PathBuf, ClusterError> {
    Account::of_server()?.place(dir)
}

/// Process id of the server that runs on the cluster in `dir`, whoever started it.
///
/// # Errors
/// As [`place`].
pub fn running(dir: &Path) -> Result<Option<u32>, ClusterError> {
    Ok(data::running_server(&place(dir)?.join("data")))
}

/// Removes the cluster in `dir` with all its data, after stopping a server that was left running on it.
///
/// # Errors
/// [`ClusterError::InUse`] while another process runs it, [`ClusterError::StillRunning`], [`ClusterError::Io`].
pub fn erase(dir: &Path) -> Result<(), ClusterError> {
    let folder = place(dir)?;
    let remove = || {
        Account::of_server()?.own_folder(&folder)?;
        let lock = lock(&folder)?;
        data::stop_leftover(&folder.join("data"))?;
        data::remove_tree(&folder)?;
        drop(lock);
        Ok(())
    };
    match remove() {
        // Somebody else may be removing it, too.
        Err(_) if !folder.exists() => Ok(()),
        outcome => outcome,
    }
}

/// The user on whose behalf this process acts: what is shared per user is named by it.
#[must_use]
pub fn effective_uid() -> u32 {
    process::effective_uid()
}

/// Takes the folder for this process; the kernel gives it back when the process ends. A child that was just forked holds what its
/// parent held until it has become another program, so that one look is not enough.
fn lock(folder: &Path) -> Result<File, ClusterError> {
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_TIMEOUT => thread::sleep(LOCK_POLL_INTERVAL),
            Err(TryLockError::WouldBlock) => return Err(ClusterError::InUse { path: folder.into() }),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
    }
}

/// The superuser's password: the kept one, or a new one for a cluster that is still to be made.
fn password(file: &Path, data: &Path, account: Account) -> Result<String, ClusterError> {
    match fs::read_to_string(file) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_error("read", file)(error));
        }
        _ if data.join("PG_VERSION").exists() => {
            return Err(ClusterError::PasswordLost { path: file.into() });
        }
        _ => {}
    }
    let password = hex::encode(rand::random::<[u8; PASSWORD_BYTES]>());
    let mut options = OpenOptions::new();
    options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| writeln!(file, "{password}"))
        .map_err(io_error("write", file))?;
    account.give(file)?;
    Ok(password)
}

/// Starts the server on a port, another one when it was snatched away, and again while processes of a killed
/// server still hold its shared memory.
fn run(
    options: &ClusterOptions,
    account: Account,
    folder: &Path,
    data: &Path,
    detached: bool,
) -> Result<(Server, u16), ClusterError> {
    let port_file = folder.join("port");
    let log = folder.join("log");
    let since = Instant::now();
    let mut attempts = 0;
    loop {
        let port = choose_port(options.port, &port_file)?;
        let mut command = account.command(&options.binaries.program("postgres"));
        command.arg("-D").arg(data);
        for (name, value) in settings(options, port) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut server = Server::spawn(command, account, data, &log, detached)?;
        let error = match server.await_ready() {
            Ok(()) => {
                fs::write(&port_file, port.to_string()).map_err(io_error("write", &port_file))?;
                return Ok((server, port));
            }
            Err(error) => error,
        };
        server.stop();
        let tail = if let ClusterError::Exited { tail, .. } = &error { tail.as_str() } else { "" };
        if tail.contains("could not bind") {
            attempts += 1;
            if options.port.is_some() || attempts == PORT_ATTEMPTS_MAX {
                return Err(ClusterError::PortInUse { port });
            }
            continue;
        }
        if tail.contains("pre-existing shared memory block") && since.elapsed() < REMAINS_TIMEOUT {
            thread::sleep(REMAINS_POLL_INTERVAL);
            continue;
        }
        return Err(error);
    }
}

fn choose_port(wanted: Option<u16>, file: &Path) -> Result<u16, ClusterError> {
    if let Some(port) = wanted {
        return if server::is_free(port) { Ok(port) } else { Err(ClusterError::PortInUse { port }) };
    }
    let former = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    match former.filter(|port| server::is_free(*port)) {
        Some(port) => Ok(port),
        None => server::free_port(),
    }
}

/// Settings of the command line, which win over those in files; the caller's come last and win over ours.
fn settings(options: &ClusterOptions, port: u16) -> Vec<(String, String)> {
    let mut settings = vec![
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.to_string()),
        ("unix_socket_directories", String::new()),
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("timezone", "UTC".to_owned()),
        ("log_timezone", "UTC".to_owned()),
    ];
    if !options.durable {
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            settings.push((name, "off".to_owned()));
        }
    }
    let ours = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
    ours.chain(options.settings.iter().cloned()).collect()
}
