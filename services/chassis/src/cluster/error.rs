//! Why there is no server.

use std::path::{Path, PathBuf};

use super::binaries::{BINARIES_VARIABLE, OLDEST_MAJOR};

/// Why there is no server. Each text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nothing on this machine, and pip got nothing.
    #[error(
        "no Postgres server was found: {why}; install your system's Postgres server package (version \
         {OLDEST_MAJOR} or later), or name the folder of its programs in {BINARIES_VARIABLE}"
    )]
    NoServer {
        /// What stood in the way of getting one.
        why: String,
    },
    /// The override names a folder that will not do.
    #[error(
        "{BINARIES_VARIABLE} is {path}, where `initdb` and `postgres` are not both found, or not for the account \
         that runs the server; correct it or unset it"
    )]
    BadOverride {
        /// What it names.
        path: PathBuf,
    },
    /// Root, on a machine without a lesser account.
    #[error(
        "Postgres refuses to run as root, and there is neither an account `postgres` nor `nobody`; make one of \
         them, or run this as another user"
    )]
    NoAccount,
    /// The account that runs the server cannot get to its files.
    #[error(
        "the account that runs Postgres cannot reach {path}; open that folder to others (chmod a+x), or set TMPDIR \
         to one that is"
    )]
    OutOfReach {
        /// The folder it would have to pass.
        path: PathBuf,
    },
    /// Something stands at our place that somebody else made, or can change.
    #[error("{path} belongs to somebody else or can be changed by others; remove it or choose another folder")]
    NotOurs {
        /// The place.
        path: PathBuf,
    },
    /// Two launchers, one folder.
    #[error("another process runs the Postgres in {path}; stop it first, or use another folder")]
    InUse {
        /// The cluster's folder.
        path: PathBuf,
    },
    /// The data were made by another major version.
    #[error(
        "{path} was made by Postgres {found}, and the server found is version {wanted}; start over with --fresh \
         (its data are lost), or name the programs of version {found} in {BINARIES_VARIABLE}"
    )]
    OtherVersion {
        /// The data folder.
        path: PathBuf,
        /// Version that made it.
        found: String,
        /// Version of the programs.
        wanted: String,
    },
    /// There are data, and no way in.
    #[error("{path}, the password of the superuser, is missing; put it back, or start over with --fresh (the data are lost)")]
    PasswordLost {
        /// Where it should be.
        path: PathBuf,
    },
    /// The port that was asked for is taken.
    #[error("port {port} of 127.0.0.1 is in use by another program; stop that one or choose another port")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// The server ended while it was starting.
    #[error("Postgres ended while it was starting ({status}); the end of {log} says:\n{tail}")]
    Exited {
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server runs, and takes no connections.
    #[error("Postgres was not ready after {seconds} s; the end of {log} says:\n{tail}")]
    NotReady {
        /// How long it was given.
        seconds: u64,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server of an earlier run survives everything.
    #[error("the Postgres of an earlier run (process {pid}) does not end; end it by hand")]
    StillRunning {
        /// Its process id.
        pid: u32,
    },
    /// A program that was run failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Which.
        program: PathBuf,
        /// Its own words.
        said: String,
    },
    /// A file or folder could not be used.
    #[error("could not {doing} {path}")]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// For `map_err`: what was being done, and to what.
pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ClusterError {
    let path = path.to_owned();
    move |source| ClusterError::Io { doing, path, source }
}
