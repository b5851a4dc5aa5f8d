//! The harness itself: what all other tests take for granted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use koc_tests::cluster::{self, Lease, SharedOptions};
use koc_tests::{database, wait};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, raw_sql};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);
/// Tell [`the_child_that_holds_a_lease`] which cluster to join, and where to say which one it was.
const CHILD_FOLDER: &str = "KOC_TESTS_CHILD_FOLDER";
const CHILD_ANSWER: &str = "KOC_TESTS_CHILD_ANSWER";
const CHILD_IDLE: Duration = Duration::from_secs(2);

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn things(url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    raw_sql("CREATE TABLE thing (name text PRIMARY KEY); INSERT INTO thing VALUES ('of the template')")
        .execute(&mut connection)
        .await?;
    Ok(())
}

async fn names(url: &str) -> Vec<String> {
    let sql = "SELECT name FROM thing ORDER BY name";
    sqlx::query_scalar(sql).fetch_all(&mut connect(url).await).await.unwrap()
}

/// A key that no other run uses.
fn unique(what: &str) -> String {
    format!("{what}-{}", Uuid::new_v4().simple())
}

async fn databases_like(pattern: &str) -> Vec<String> {
    let mut connection = connect(cluster::shared().as_str()).await;
    let sql = "SELECT datname::text FROM pg_database WHERE datname LIKE $1 ORDER BY datname";
    sqlx::query_scalar(sql).bind(pattern).fetch_all(&mut connection).await.unwrap()
}

#[tokio::test]
async fn two_databases_of_one_template_do_not_see_each_other() {
    let key = unique("isolation");
    let one = database::from_template(&key, |url| async move { things(&url).await }).await;
    let other = database::from_template(&key, |url| async move { things(&url).await }).await;

    raw_sql("INSERT INTO thing VALUES ('of one')").execute(&mut connect(one.url()).await).await.unwrap();

    assert_ne!(one.name(), other.name());
    assert_eq!(names(one.url()).await, ["of one", "of the template"]);
    assert_eq!(names(other.url()).await, ["of the template"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_callers_at_once_make_a_template_once() {
    let key: Arc<str> = unique("crowd").into();
    let made = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (key, made) = (key.clone(), made.clone());
            tokio::spawn(async move {
                database::from_template(&key, |url| async move {
                    made.fetch_add(1, Ordering::SeqCst);
                    things(&url).await
                })
                .await
            })
        })
        .collect();

    let mut databases = Vec::new();
    for caller in callers {
        databases.push(caller.await.unwrap());
    }

    assert_eq!(made.load(Ordering::SeqCst), 1);
    let mut distinct: Vec<&str> = databases.iter().map(|database| database.name()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 16);
    for database in &databases {
        assert_eq!(names(database.url()).await, ["of the template"]);
    }
}

#[tokio::test]
async fn a_template_that_failed_half_way_is_made_afresh() {
    let key = unique("failure");
    let own_key = key.clone();
    let failed = tokio::spawn(async move {
        database::from_template(&own_key, |url| async move {
            things(&url).await?;
            anyhow::bail!("after half of the work")
        })
        .await
    });
    let panic = failed.await.unwrap_err().into_panic();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("after half of the work"), "{text}");

    let database = database::from_template(&key, |url| async move { things(&url).await }).await;
    assert_eq!(names(database.url()).await, ["of the template"]);
}

#[tokio::test]
async fn a_connection_left_open_while_making_a_template_does_not_keep_it_from_being_copied() {
    let mut left_open = None;
    let database = database::from_template(&unique("leak"), |url| {
        let left_open = &mut left_open;
        async move {
            things(&url).await?;
            *left_open = Some(PgConnection::connect(&url).await?);
            Ok(())
        }
    })
    .await;
    assert_eq!(names(database.url()).await, ["of the template"]);
}

/// Makes databases until `name` has gone: they are removed several at a time.
async fn goes_away(name: &str) {
    for _ in 0..32 {
        if databases_like(name).await.is_empty() {
            return;
        }
        drop(database::from_template("empty", |_| async { Ok(()) }).await);
    }
    wait::until("the database to go away", PATIENCE, || async { databases_like(name).await.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_dropped_database_is_removed_even_while_somebody_is_connected() {
    let database = database::from_template("empty", |_| async { Ok(()) }).await;
    let other = database::from_template("empty", |_| async { Ok(()) }).await;
    let name = database.name().to_owned();
    let _guest = connect(database.url()).await;
    assert_eq!(databases_like(&name).await, [name.as_str()]);

    drop(database);

    goes_away(&name).await;
    assert_eq!(databases_like(other.name()).await, [other.name()]);
}

#[tokio::test]
async fn a_database_whose_process_was_killed_is_removed() {
    // No lease has this number: process 1 is never a server's.
    let abandoned = format!("koc_test_1_{}", Uuid::new_v4().simple());
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {abandoned}"));
    raw_sql(create).execute(&mut connect(cluster::shared().as_str()).await).await.unwrap();

    goes_away(&abandoned).await;
}

/// Run by itself it joins and leaves a cluster; with the variables set it is the other process of the tests below.
#[test]
fn the_child_that_holds_a_lease() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else {
        assert!(cluster::shared().as_str().starts_with("postgres://"));
        return;
    };
    let lease = cluster::join(&SharedOptions { folder: folder.into(), idle: CHILD_IDLE }).unwrap();
    let answer = PathBuf::from(std::env::var_os(CHILD_ANSWER).unwrap());
    let part = answer.with_extension("part");
    std::fs::write(&part, lease.url().as_str()).unwrap();
    std::fs::rename(part, answer).unwrap();
    // Until the other side of the pipe closes, or a signal comes.
    std::io::stdin().lines().for_each(drop);
}

fn child(folder: &Path, answer: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_that_holds_a_lease"])
        .env(CHILD_FOLDER, folder)
        .env(CHILD_ANSWER, answer)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn answer(file: &Path) -> String {
    wait::until("a child to join the cluster", PATIENCE, || async { std::fs::read_to_string(file).ok() }).await
}

/// Joins a cluster of this test's own, which does not wait long for others.
async fn join(folder: &Path) -> Lease {
    let options = SharedOptions { folder: folder.into(), idle: Duration::from_millis(500) };
    tokio::task::spawn_blocking(move || cluster::join(&options).unwrap()).await.unwrap()
}

/// The folder that the server itself says it runs in.
async fn folder(url: &str) -> PathBuf {
    let mut connection = connect(url).await;
    let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    Path::new(&data).parent().unwrap().to_owned()
}

async fn is_gone(url: &str, folder: &Path) {
    wait::until("the idle cluster to end and its folder to be removed", PATIENCE, || async {
        (!folder.exists() && PgConnection::connect(url).await.is_err()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn processes_that_start_at_the_same_moment_share_one_cluster_which_outlives_the_first() {
    let scratch = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..4).map(|child| scratch.path().join(child.to_string())).collect();
    let mut children: Vec<Child> = files.iter().map(|file| child(&scratch.path().join("cluster"), file)).collect();

    let url = answer(&files[0]).await;
    for file in &files {
        assert_eq!(answer(file).await, url);
    }
    // A child that is killed has no chance to give its lease back.
    let mut last = children.pop().unwrap();
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let folder = folder(&url).await;
    // Longer than the idle time: one lease is left.
    let pause = sqlx::AssertSqlSafe(format!("SELECT pg_sleep({})", (CHILD_IDLE * 2).as_secs_f64()));
    raw_sql(pause).execute(&mut connect(&url).await).await.unwrap();

    last.kill().unwrap();
    last.wait().unwrap();
    is_gone(&url, &folder).await;
}

#[tokio::test]
async fn an_idle_cluster_ends_and_the_next_process_gets_a_new_one() {
    let scratch = tempfile::tempdir().unwrap();
    let first = join(&scratch.path().join("cluster")).await;
    let second = join(&scratch.path().join("cluster")).await;
    assert_eq!(first.url(), second.url());
    let url = first.url().clone();
    let folder = folder(url.as_str()).await;

    drop((first, second));
    is_gone(url.as_str(), &folder).await;

    let third = join(&scratch.path().join("cluster")).await;
    assert_ne!(third.url(), &url);
    let next_folder = self::folder(third.url().as_str()).await;
    let next = third.url().clone();
    drop(third);
    is_gone(next.as_str(), &next_folder).await;
}

#[tokio::test]
async fn a_cluster_that_lost_its_watchdog_gets_another_one() {
    let scratch = tempfile::tempdir().unwrap();
    let first = join(&scratch.path().join("cluster")).await;
    let url = first.url().clone();
    let folder = folder(url.as_str()).await;
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%$watchdog$%' AND pid <> pg_backend_pid()";
    let ended: i64 = sqlx::query_scalar(sql).fetch_one(&mut connect(url.as_str()).await).await.unwrap();
    assert_eq!(ended, 1);

    let second = join(&scratch.path().join("cluster")).await;
    assert_eq!(second.url(), &url);
    drop((first, second));
    is_gone(url.as_str(), &folder).await;
}

#[tokio::test]
async fn a_cluster_whose_server_was_killed_is_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let first = join(&scratch.path().join("cluster")).await;
    let url = first.url().clone();
    let dead = folder(url.as_str()).await;
    let pid = koc_chassis::cluster::running(&dead).unwrap().unwrap();
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());

    let second = join(&scratch.path().join("cluster")).await;
    assert_ne!(second.url(), &url);
    assert!(!dead.exists());
    let alive = folder(second.url().as_str()).await;
    let next = second.url().clone();
    drop((first, second));
    is_gone(next.as_str(), &alive).await;
}

#[tokio::test]
#[should_panic(expected = "in vain for the moon to turn green (asked")]
async fn waiting_in_vain_says_what_for() {
    wait::until("the moon to turn green", Duration::from_millis(50), || async { None::<()> }).await;
}

#[tokio::test]
#[should_panic(expected = "in vain for an answer (asked 1 times)")]
async fn a_check_that_hangs_is_cut_off() {
    wait::until("an answer", Duration::from_millis(50), std::future::pending::<Option<()>>).await;
}
