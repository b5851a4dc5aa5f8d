//! Which operating-system account runs the server, and where that account can reach its files.
//!
//! Postgres refuses to run as root. So root starts it as `postgres`, else as `nobody`, and the files have to
//! stand where that account gets to: not below a home folder that is closed to others.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::error::{ClusterError, io_error};
use super::process;

/// Bytes of the hash in the name of a replacement folder.
const PLACE_HASH_BYTES: usize = 8;

/// The account that runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// This process is not root: the server runs as the same user.
    Own,
    /// This process is root: the server runs as this one.
    Other { uid: u32, gid: u32 },
}

impl Account {
    pub(super) fn of_server() -> Result<Self, ClusterError> {
        if process::effective_uid() != 0 {
            return Ok(Self::Own);
        }
        [c"postgres", c"nobody"]
            .into_iter()
            .find_map(process::account_named)
            .map(|(uid, gid)| Self::Other { uid, gid })
            .ok_or(ClusterError::NoAccount)
    }

    /// A command that runs as this account, in no particular folder, and sees none of the caller's
    /// Postgres settings.
    pub(super) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_ALL", "C");
        for name in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGOPTIONS", "PGTZ", "PGDATESTYLE", "PGCLIENTENCODING"] {
            command.env_remove(name);
        }
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a file or folder to this account.
    pub(super) fn give(self, path: &Path) -> Result<(), ClusterError> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid)).map_err(io_error("give the server's account", path)),
        }
    }

    /// Whether this account gets to `path`: it may pass through every folder above it and into it.
    pub(super) fn reaches(self, path: &Path) -> bool {
        let Self::Other { uid, gid } = self else {
            return true;
        };
        let Ok(path) = path.canonicalize() else {
            return false;
        };
        path.ancestors().all(|folder| {
            folder.metadata().is_ok_and(|meta| {
                let bit = if meta.uid() == uid {
                    0o100
                } else if meta.gid() == gid {
                    0o010
                } else {
                    0o001
                };
                meta.mode() & bit != 0
            })
        })
    }

    /// The folder to use when `wanted` is asked for: itself, or, where the account cannot reach it, one below
    /// the system's temporary folder whose name is derived from it, so that the next run finds it again.
    /// Makes the folders above it.
    pub(super) fn place(self, wanted: &Path) -> Result<PathBuf, ClusterError> {
        let wanted = std::path::absolute(wanted).map_err(io_error("resolve", wanted))?;
        let parent = wanted.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(io_error("make the folder", parent))?;
        if self.reaches(parent) {
            return Ok(wanted);
        }
        let temp = std::env::temp_dir();
        if !self.reaches(&temp) {
            return Err(ClusterError::OutOfReach { path: temp });
        }
        let parent = parent.canonicalize().map_err(io_error("resolve", parent))?;
        let hash = Sha256::new()
            .chain_update(parent.as_os_str().as_encoded_bytes())
            .chain_update(b"/")
            .chain_update(wanted.file_name().unwrap_or_default().as_encoded_bytes())
            .finalize();
        Ok(temp.join(format!("koc-pg-{}", hex::encode(&hash[..PLACE_HASH_BYTES]))))
    }

    /// Makes `folder`, open to this account alone, or checks that an existing one is ours.
    pub(super) fn own_folder(self, folder: &Path) -> Result<(), ClusterError> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let meta = fs::symlink_metadata(folder).map_err(io_error("look at", folder))?;
                let ours = match self {
                    Self::Own => meta.uid() == process::effective_uid(),
                    Self::Other { uid, .. } => meta.uid() == uid || meta.uid() == 0,
                };
                if !meta.is_dir() || !ours {
                    return Err(ClusterError::NotOurs { path: folder.into() });
                }
                fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(io_error("close to others", folder))?;
            }
            Err(error) => return Err(io_error("make the folder", folder)(error)),
        }
        self.give(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("koc-account-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn an_account_does_not_reach_what_lies_below_a_closed_folder() {
        let top = scratch("reach");
        let inner = top.join("inner");
        fs::create_dir_all(&inner).unwrap();
        let stranger = Account::Other { uid: 4_000_001, gid: 4_000_001 };

        fs::set_permissions(&top, Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o711)).unwrap();
        assert!(stranger.reaches(&inner));
        fs::set_permissions(&top, Permissions::from_mode(0o700)).unwrap();
        assert!(!stranger.reaches(&inner));

        fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn a_closed_home_is_replaced_by_one_and_the_same_temporary_folder() {
        let home = scratch("home");
        fs::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
        let stranger = Account::Other { uid: 4_000_001, gid: 4_000_001 };

        let placed = stranger.place(&home.join(".koc/postgres")).unwrap();
        assert_eq!(placed.parent(), Some(std::env::temp_dir().as_path()));
        assert_eq!(placed, stranger.place(&home.join(".koc/postgres")).unwrap());
        assert_ne!(placed, stranger.place(&home.join(".koc/other")).unwrap());
        assert_eq!(Account::Own.place(&home.join(".koc/postgres")).unwrap(), home.join(".koc/postgres"));

        fs::remove_dir_all(&home).unwrap();
    }
}
