//! The launcher on real Postgres servers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use koc_chassis::cluster::{self, Binaries, Cluster, ClusterError, ClusterOptions, Source};
use sqlx::{Connection, Executor, PgConnection};

const PATIENCE: Duration = Duration::from_secs(30);
/// Tell [`the_child_that_runs_a_server`] in which folder, and that it is to detach it.
const CHILD_FOLDER: &str = "KOC_CLUSTER_TEST_FOLDER";
const CHILD_DETACHES: &str = "KOC_CLUSTER_TEST_DETACHES";

/// A cluster's folder of a test's own, erased at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("koc-cluster-test-{}-{count}", std::process::id())))
    }

    fn options(&self) -> ClusterOptions {
        ClusterOptions { durable: false, ..ClusterOptions::new(&self.0, binaries()) }
    }

    fn start(&self) -> Cluster {
        Cluster::start(self.options()).unwrap()
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = cluster::erase(&self.0)
            && !thread::panicking()
        {
            panic!("{error}");
        }
    }
}

/// Found, or installed once for all tests of this file.
fn binaries() -> Binaries {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    Binaries::find_or_install(&std::env::temp_dir(), Source::Any).unwrap()
}

fn ask(url: &str, sql: &'static str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    })
}

fn run(url: &str, sql: &'static str) -> sqlx::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        connection.execute(sql).await?;
        Ok(())
    })
}

fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = check() {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn data_and_port_are_kept_from_one_run_to_the_next() {
    let scratch = Scratch::new();
    let first = scratch.start();
    let (port, url) = (first.port(), first.superuser_url("postgres"));
    run(&url, "CREATE TABLE kept AS SELECT 'still here' AS word").unwrap();
    drop(first);
    assert!(run(&url, "SELECT 1").is_err());

    let second = scratch.start();

    assert_eq!(second.port(), port);
    assert_eq!(ask(&second.superuser_url("postgres"), "SELECT word FROM kept"), "still here");
    assert_eq!(ask(&url, "SHOW listen_addresses"), "127.0.0.1");
    assert_eq!(ask(&url, "SHOW unix_socket_directories"), "");
}

#[test]
fn only_who_knows_the_password_gets_in() {
    let scratch = Scratch::new();
    let cluster = scratch.start();
    let url = cluster.superuser_url("postgres");
    assert_eq!(ask(&url, "SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'postgres'"), "SCRAM-SHA-256");

    let (head, tail) = url.split_once('@').unwrap();
    let wrong = format!("{head}0@{tail}");
    let error = run(&wrong, "SELECT 1").unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "28P01");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(scratch.0.join("password")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_callers_settings_win() {
    let scratch = Scratch::new();
    let mut options = scratch.options();
    options.settings = vec![("max_connections".into(), "17".into())];
    let cluster = Cluster::start(options).unwrap();
    let url = cluster.superuser_url("postgres");
    assert_eq!(ask(&url, "SHOW max_connections"), "17");
    assert_eq!(ask(&url, "SHOW fsync"), "off");
}

#[test]
fn a_folder_is_run_by_one_launcher_at_a_time() {
    let scratch = Scratch::new();
    let cluster = scratch.start();
    let second = Cluster::start(scratch.options()).unwrap_err();
    assert!(matches!(second, ClusterError::InUse { .. }), "{second}");
    let erased = cluster::erase(&scratch.0).unwrap_err();
    assert!(matches!(erased, ClusterError::InUse { .. }), "{erased}");
    assert_eq!(ask(&cluster.superuser_url("postgres"), "SELECT 'alive'"), "alive");
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_started() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = ClusterOptions { port: Some(port), ..scratch.options() };
    let error = Cluster::start(options).unwrap_err();
    assert!(matches!(error, ClusterError::PortInUse { port: named } if named == port), "{error}");
    assert_eq!(cluster::running(&scratch.0).unwrap(), None);
}

#[test]
fn a_kept_port_that_is_taken_now_gives_way_to_another() {
    let scratch = Scratch::new();
    let port = scratch.start().port();
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let second = scratch.start();
    assert_ne!(second.port(), port);
    assert_eq!(ask(&second.superuser_url("postgres"), "SELECT 'alive'"), "alive");
}

#[test]
fn a_setting_that_postgres_refuses_is_told_in_its_own_words() {
    let scratch = Scratch::new();
    let mut options = scratch.options();
    options.settings = vec![("shared_buffers".into(), "a lot".into())];
    let error = Cluster::start(options).unwrap_err();
    assert!(matches!(error, ClusterError::Exited { .. }), "{error}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[test]
fn an_interrupted_initdb_and_an_incomplete_data_folder_are_repaired() {
    let scratch = Scratch::new();
    drop(scratch.start());
    fs::create_dir_all(scratch.0.join("data.part/base")).unwrap();
    fs::remove_file(scratch.data().join("global/pg_control")).unwrap();

    let cluster = scratch.start();

    assert_eq!(ask(&cluster.superuser_url("postgres"), "SELECT 'alive'"), "alive");
    assert!(scratch.0.join("data.damaged/PG_VERSION").exists());
    assert!(!scratch.0.join("data.part").exists());
}

#[test]
fn data_of_another_version_are_left_alone_and_the_way_out_is_told() {
    let scratch = Scratch::new();
    drop(scratch.start());
    fs::write(scratch.data().join("PG_VERSION"), "9\n").unwrap();
    let error = Cluster::start(scratch.options()).unwrap_err();
    assert!(matches!(&error, ClusterError::OtherVersion { found, .. } if found == "9"), "{error}");
    assert!(error.to_string().contains("--fresh"), "{error}");
    assert!(scratch.data().join("global/pg_control").exists());
}

#[test]
fn data_without_their_password_are_left_alone() {
    let scratch = Scratch::new();
    drop(scratch.start());
    fs::remove_file(scratch.0.join("password")).unwrap();
    let error = Cluster::start(scratch.options()).unwrap_err();
    assert!(matches!(error, ClusterError::PasswordLost { .. }), "{error}");
}

#[test]
fn a_server_that_dies_is_noticed_and_the_next_start_recovers() {
    let scratch = Scratch::new();
    let mut cluster = scratch.start();
    assert_eq!(cluster.exited(), None);
    kill("-KILL", cluster.pid());
    wait_for("the server's death to be noticed", || cluster.exited());
    drop(cluster);

    let next = scratch.start();
    assert_eq!(ask(&next.superuser_url("postgres"), "SELECT 'alive'"), "alive");
}

#[test]
fn a_detached_server_ends_with_its_launcher_unless_it_is_kept() {
    let scratch = Scratch::new();
    drop(Cluster::start_detached(scratch.options()).unwrap());
    assert_eq!(cluster::running(&scratch.0).unwrap(), None);

    let cluster = Cluster::start_detached(scratch.options()).unwrap();
    let (pid, url) = (cluster.pid(), cluster.superuser_url("postgres"));
    cluster.keep().unwrap();
    assert_eq!(ask(&url, "SELECT 'alive'"), "alive");
    assert_eq!(cluster::running(&scratch.0).unwrap(), Some(pid));

    // A leftover, now, for the next start.
    let next = scratch.start();
    assert_ne!(next.pid(), pid);
    assert_eq!(ask(&next.superuser_url("postgres"), "SELECT 'alive'"), "alive");
}

/// Only with the variable set it does something: it is the launcher that the test below kills.
#[test]
fn the_child_that_runs_a_server() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else {
        return;
    };
    let options = ClusterOptions { durable: false, ..ClusterOptions::new(folder, binaries()) };
    let start = match std::env::var_os(CHILD_DETACHES) {
        Some(_) => Cluster::start_detached,
        None => Cluster::start,
    };
    let _cluster = start(options).unwrap();
    std::io::stdin().lines().for_each(drop);
}

/// Starts a launcher as a process of its own, kills it as soon as its server is ready, and waits for the server's
/// end.
fn kill_a_launcher(scratch: &Scratch, prepare: impl FnOnce(&mut Command)) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_child_that_runs_a_server"]).env(CHILD_FOLDER, &scratch.0);
    prepare(&mut command);
    let mut launcher = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the server to be ready", || {
        let text = fs::read_to_string(scratch.data().join("postmaster.pid")).ok()?;
        text.contains("ready").then_some(())
    });
    assert!(cluster::running(&scratch.0).unwrap().is_some());

    kill("-KILL", launcher.id());
    launcher.wait().unwrap();

    wait_for("the server to end", || cluster::running(&scratch.0).unwrap().is_none().then_some(()));
}

#[test]
#[cfg(target_os = "linux")]
fn a_launcher_that_is_killed_leaves_no_server_behind() {
    kill_a_launcher(&Scratch::new(), |_| {});
}

#[test]
fn a_launcher_that_is_killed_before_it_lets_go_leaves_no_detached_server_behind() {
    kill_a_launcher(&Scratch::new(), |command| {
        command.env(CHILD_DETACHES, "1");
    });
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}
