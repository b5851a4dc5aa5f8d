//! Writes the `.sqlx` folders, against which queries are checked where there is no database: `cargo sqlx-prepare`. With `--check` it
//! writes nothing and fails when one of them is not what the migrations and the queries make it.
//!
//! Starts a Postgres of its own, makes each service's schema from the migrations on disk, and has the compiler check the
//! service against it.

use anyhow::{Context, bail, ensure};
use koc_chassis::cluster::{Binaries, Cluster, ClusterOptions, Source};
use sqlx::{ConnectOptions, Connection, migrate::Migrator, postgres::PgConnectOptions};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

const SERVICES: [&str; 4] = ["registry", "budget", "task", "measurement"];

fn main() -> anyhow::Result<()> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("{other:?} is not understood; the only option is --check"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let work = root.join("target/sqlx-prepare");
    std::fs::create_dir_all(&work)?;
    let binaries = Binaries::find_or_install(&work, Source::Any)?;
    let mut options = ClusterOptions::new(work.join("postgres"), binaries);
    options.durable = false;
    let cluster = Cluster::start(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut stale = Vec::new();
    for service in SERVICES {
        let url = runtime.block_on(make_schema(&cluster, &root, service))?;
        let kept = root.join("services").join(service).join(".sqlx");
        let made = if check { work.join(service) } else { kept.clone() };
        if made.exists() {
            std::fs::remove_dir_all(&made)?;
        }
        std::fs::create_dir_all(&made)?;
        compile(&root, service, &url, &made)?;
        if check && contents(&made)? != contents(&kept)? {
            stale.push(service);
        }
    }
    ensure!(stale.is_empty(), "the .sqlx folders of {} are stale: run `cargo sqlx-prepare` and commit them", stale.join(", "));
    Ok(())
}

async fn make_schema(cluster: &Cluster, root: &Path, service: &str) -> anyhow::Result<String> {
    let mut conn = PgConnectOptions::from_str(&cluster.superuser_url("postgres"))?.connect().await?;
    // Names of services are ours and need no quoting.
    for sql in [format!("DROP DATABASE IF EXISTS {service} WITH (FORCE)"), format!("CREATE DATABASE {service}")] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await?;
    }
    conn.close().await?;
    let url = cluster.superuser_url(service);
    let options = PgConnectOptions::from_str(&url)?.options([("search_path", service)]);
    let mut conn = options.connect().await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {service}"))).execute(&mut conn).await?;
    let mut migrations = Vec::new();
    for folder in ["chassis", service] {
        let folder = root.join("services").join(folder).join("migrations");
        migrations.extend(Migrator::new(folder.as_path()).await?.iter().cloned());
    }
    Migrator::with_migrations(migrations).run(&mut conn).await?;
    conn.close().await?;
    Ok(format!("{url}?options=-csearch_path%3D{service}"))
}

fn compile(root: &Path, service: &str, url: &str, made: &Path) -> anyhow::Result<()> {
    // Queries are looked at only when their crate is compiled anew.
    let library = root.join("services").join(service).join("src/lib.rs");
    std::fs::write(&library, std::fs::read(&library)?)?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args(["check", "--quiet", "--locked", "--lib", "--package", &format!("koc-{service}")])
        .env(format!("KOC_{}_PREPARE_URL", service.to_uppercase()), url)
        .env("SQLX_OFFLINE_DIR", made)
        .env_remove("SQLX_OFFLINE")
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "{service} does not compile against its schema");
    Ok(())
}

fn contents(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{} is missing", folder.display()))? {
        let entry = entry?;
        files.insert(entry.file_name().into(), std::fs::read(entry.path())?);
    }
    Ok(files)
}
