//! The parts of the bench as processes: this program again, in another role.

use crate::{bare, load};
use anyhow::Context;
use koc_chassis::{
    config::{RegistryPeer, ServeConfig},
    server, telemetry,
};
use serde::{Deserialize, Serialize};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Says which role a process has; the main one has none.
const ROLE: &str = "KOC_BENCH_ROLE";

/// What a process of the bench is there for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Role {
    Registry(Service),
    Budget(Service),
    /// gRPC with nothing behind it.
    Bare(SocketAddr),
    /// Makes load as it is told on its input.
    Load,
}

/// How a service is started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    pub database_url: String,
    pub listen: SocketAddr,
    pub ops_listen: SocketAddr,
    pub jwks_file: PathBuf,
    pub peer_token_file: PathBuf,
    pub registry_url: String,
}

/// The role of this process.
pub fn role() -> Option<Role> {
    let text = std::env::var(ROLE).ok()?;
    Some(serde_json::from_str(&text).expect("the bench writes roles that it can read"))
}

/// As the services have it: all cores.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

impl Role {
    /// Does what the process is there for, to its end.
    pub fn play(self) -> anyhow::Result<()> {
        let runtime = runtime()?;
        match self {
            Self::Registry(service) => runtime.block_on(async {
                let telemetry = telemetry::init("koc-registry", "warn", None)?;
                let config = koc_registry::Config::from(service.common());
                koc_registry::serve(config, telemetry.metrics(), server::stop_signal()?).await
            }),
            Self::Budget(service) => runtime.block_on(async {
                let telemetry = telemetry::init("koc-budget", "warn", None)?;
                let registry = RegistryPeer { registry_url: service.registry_url.clone() };
                let config = koc_budget::Config { common: service.common(), registry };
                koc_budget::serve(config, telemetry.metrics(), server::stop_signal()?).await
            }),
            Self::Bare(address) => runtime.block_on(bare::serve(address)),
            Self::Load => {
                let mut order = String::new();
                std::io::stdin().read_to_string(&mut order)?;
                let measured = runtime.block_on(load::follow(serde_json::from_str(&order)?))?;
                Ok(std::io::stdout().write_all(&serde_json::to_vec(&measured)?)?)
            }
        }
    }
}

impl Service {
    fn common(&self) -> ServeConfig {
        ServeConfig {
            database_url: self.database_url.clone(),
            listen: Some(self.listen),
            ops_listen: Some(self.ops_listen),
            jwks_file: self.jwks_file.clone(),
            peer_token_file: Some(self.peer_token_file.clone()),
            database_connections: 16,
            feed_days: None,
            otlp_endpoint: None,
            log: "warn".into(),
        }
    }
}

/// A process that goes when this is dropped.
pub struct Running(Child);

impl Running {
    /// The memory that it takes, as Linux counts it.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it is at work")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(role: &Role) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, serde_json::to_string(role)?);
    Ok(command)
}

/// Starts a process that stays.
pub fn start(role: &Role) -> anyhow::Result<Running> {
    Ok(Running(command(role)?.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
}

/// Has a process make load, and gives what it measured.
pub async fn load(order: &load::Order) -> anyhow::Result<Vec<load::Measured>> {
    let mut child = command(&Role::Load)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let order = serde_json::to_vec(order)?;
    let output = tokio::task::spawn_blocking(move || {
        // Dropped when written, so that the other side comes to its end.
        child.stdin.take().context("it has an input")?.write_all(&order)?;
        anyhow::Ok(child.wait_with_output()?)
    })
    .await??;
    anyhow::ensure!(output.status.success(), "the load failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
