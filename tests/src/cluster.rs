//! One throw-away Postgres for all test processes of a user on this machine.
//!
//! The first process that needs it starts it, the others find it, and it removes itself when nobody has used it
//! for a while. Three things make that safe:
//!
//! - **The state file** says where the cluster is. It is replaced as a whole, so it can be read without a lock,
//!   and joining a running cluster costs one connection. Starting one is done under a file lock, which the kernel
//!   gives back when its holder is killed.
//! - **The lease** is a connection that holds an advisory lock in shared mode ([`lease`]). The kernel closes it
//!   however the process ends.
//! - **The watchdog** ([`watchdog`]) is a session inside the server: it cannot be killed without the server
//!   noticing, needs no program on this machine, and takes the same lock exclusively before it ends the server.
//!   So either a newcomer holds its lease first and the watchdog waits, or the newcomer is turned away and starts
//!   the next cluster.
//!
//! Each cluster has a folder of a name never used before, so that the removal of an old one cannot hit a new one.
//! After a reboot the state file leads nowhere, which is found out by asking, and a new cluster is started.
//! What remains of a dead one is removed by the next start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use koc_chassis::cluster::{self, Authentication, Binaries, Cluster, ClusterOptions, Source};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

mod lease;
mod watchdog;

pub use lease::Lease;
pub(crate) use lease::{LOCK_CLASS, LOCK_LEASE};

/// Raise this when the settings below or anything that is stored changes: clusters of another format are left
/// to those who still use them.
const FORMAT: u32 = 1;
/// How long the cluster outlives its last user: long enough to think about a failure and run the test again.
const IDLE: Duration = Duration::from_secs(60);
/// More than two test processes of many threads ever open.
const MAX_CONNECTIONS: u32 = 400;
const SHARED_BUFFERS: &str = "256MB";

/// The way into a cluster as superuser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SuperuserUrl(String);

impl SuperuserUrl {
    /// The URL of database `postgres`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of another database.
    #[must_use]
    pub fn database(&self, name: &str) -> String {
        let (server, _) = self.0.rsplit_once('/').expect("the launcher's URLs end in /<database>");
        format!("{server}/{name}")
    }
}

/// Which cluster to join.
#[derive(Clone, Debug)]
pub struct SharedOptions {
    /// Where the state file and the lock are: processes with the same folder share a cluster. Made if absent; only
    /// this user may be able to enter it.
    pub folder: PathBuf,
    /// How long the cluster outlives its last user.
    pub idle: Duration,
}

impl Default for SharedOptions {
    /// The cluster of all tests of this user.
    fn default() -> Self {
        let name = format!("koc-tests-{}", cluster::effective_uid());
        Self { folder: std::env::temp_dir().join(name), idle: IDLE }
    }
}

/// The cluster of all tests. Started if need be; stays at least as long as this process.
///
/// # Panics
/// When there is no Postgres to be had, or the running one does not answer: no test can go on then.
pub fn shared() -> &'static SuperuserUrl {
    shared_lease().url()
}

/// This process's lease on the cluster of all tests.
pub(crate) fn shared_lease() -> &'static Lease {
    static LEASE: OnceLock<Lease> = OnceLock::new();
    LEASE.get_or_init(|| join(&SharedOptions::default()).unwrap_or_else(|error| panic!("no Postgres for the tests: {error:#}")))
}

/// Joins the cluster named by `options`, after starting it if there is none. It lives at least as long as the
/// lease. Blocks, for a few milliseconds or for the time of an `initdb`.
///
/// # Errors
/// When there is no Postgres to be had, or the running one refuses for another reason than that it is ending.
pub fn join(options: &SharedOptions) -> anyhow::Result<Lease> {
    let files = Files::of(options)?;
    if let Some(State { url: Some(url), .. }) = files.read()
        && let Ok(lease) = Lease::take(&url)
        && lease.is_watched()
    {
        return Ok(lease);
    }
    let _starting = files.lock()?;
    if let Some(state) = files.read() {
        if let Some(lease) = rejoin(&state, options)? {
            return Ok(lease);
        }
        cluster::erase(&state.folder).context("removing the remains of a former cluster")?;
    }
    start(&files, options)
}

/// Joins the cluster that somebody else has started in the meantime, or that has lost its watchdog.
fn rejoin(state: &State, options: &SharedOptions) -> anyhow::Result<Option<Lease>> {
    let Some(url) = &state.url else {
        return Ok(None);
    };
    match Lease::take(url) {
        Ok(lease) => {
            if !lease.is_watched() {
                watchdog::post(url, &state.folder, options.idle)?;
            }
            Ok(Some(lease))
        }
        // The port may be another server's by now; only our own can refuse us for a reason that matters.
        Err(error) if lease::is_ending(&error) || cluster::running(&state.folder)?.is_none() => Ok(None),
        Err(error) => Err(error).context("the running cluster of the tests refuses"),
    }
}

fn start(files: &Files, options: &SharedOptions) -> anyhow::Result<Lease> {
    let binaries = Binaries::find_or_install(&files.folder, Source::Any)?;
    let wanted = std::env::temp_dir().join(format!("koc-tests-pg-{}", Uuid::new_v4().simple()));
    let folder = cluster::place(&wanted)?;
    // Written first: whoever comes after a crash at this point knows what to remove.
    files.write(&State { folder: folder.clone(), url: None })?;
    let cluster = Cluster::start_detached(ClusterOptions {
        durable: false,
        authentication: Authentication::Quick,
        settings: vec![
            ("max_connections".into(), MAX_CONNECTIONS.to_string()),
            ("shared_buffers".into(), SHARED_BUFFERS.into()),
            // The watchdog is a session: were the server to drop all sessions and go on, nobody would end it.
            ("restart_after_crash".into(), "off".into()),
        ],
        ..ClusterOptions::new(&folder, binaries)
    })?;
    let url = SuperuserUrl(cluster.superuser_url("postgres"));
    lease::prepare(&url)?;
    let lease = Lease::take(&url)?;
    watchdog::post(&url, &folder, options.idle)?;
    cluster.keep()?;
    files.write(&State { folder, url: Some(url) })?;
    Ok(lease)
}

/// What processes tell each other about a cluster.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    folder: PathBuf,
    /// Absent until the cluster takes connections.
    url: Option<SuperuserUrl>,
}

/// The files through which processes find a cluster. They stay: a lock file that is removed while somebody waits
/// for it locks nobody out.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    name: String,
}

impl Files {
    fn of(options: &SharedOptions) -> anyhow::Result<Self> {
        let folder = options.folder.clone();
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("making {}", folder.display()));
            }
            _ => {}
        }
        let meta = fs::symlink_metadata(&folder)?;
        ensure!(
            meta.is_dir() && meta.uid() == cluster::effective_uid() && meta.mode() & 0o077 == 0,
            "{} is open to others; remove it",
            folder.display()
        );
        // Whoever asks for other programs, another version perhaps, gets another cluster.
        let mut programs = DefaultHasher::new();
        std::env::var_os(cluster::BINARIES_VARIABLE).hash(&mut programs);
        let name = format!("cluster-{FORMAT}-{:016x}", programs.finish());
        Ok(Self { folder, name })
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.name))
    }

    fn lock(&self) -> anyhow::Result<File> {
        let path = self.path("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }

    /// No state and one that cannot be read come to the same: nothing to join.
    fn read(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.path("json")).ok()?).ok()
    }

    fn write(&self, state: &State) -> anyhow::Result<()> {
        let part = self.path("json.part");
        write_private(&part, &serde_json::to_vec(state)?)?;
        fs::rename(&part, self.path("json"))?;
        Ok(())
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path)?;
    Ok(file.write_all(bytes)?)
}
