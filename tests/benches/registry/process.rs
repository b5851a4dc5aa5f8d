//! The parts of the bench as processes: this program again, in another role.

use crate::send::{self, Order, Sent};
use anyhow::Context;
use koc_chassis::{config::ServeConfig, server, telemetry};
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Says which role a process has; the main one has none.
const ROLE: &str = "KOC_BENCH_ROLE";

/// What a process of the bench is there for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Role {
    Registry {
        database_url: String,
        listen: SocketAddr,
        ops_listen: SocketAddr,
        jwks_file: PathBuf,
    },
    /// Sends rows, and says on its output how long that took.
    Send(Order),
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
            Self::Registry { database_url, listen, ops_listen, jwks_file } => runtime.block_on(async {
                let telemetry = telemetry::init("koc-registry", "warn", None)?;
                let common = ServeConfig {
                    database_url,
                    listen: Some(listen),
                    ops_listen: Some(ops_listen),
                    jwks_file,
                    peer_token_file: None,
                    database_connections: 16,
                    feed_days: None,
                    otlp_endpoint: None,
                    log: "warn".into(),
                };
                koc_registry::serve(common.into(), telemetry.metrics(), server::stop_signal()?).await
            }),
            Self::Send(order) => {
                let sent = runtime.block_on(send::send(order))?;
                Ok(std::io::stdout().write_all(&serde_json::to_vec(&sent)?)?)
            }
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

/// Has a process send, and gives what it says.
pub async fn run(role: &Role) -> anyhow::Result<Sent> {
    let child = command(role)?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    anyhow::ensure!(output.status.success(), "the sender failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
