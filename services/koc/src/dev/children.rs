//! The services as child processes: started, watched, started again when they die, ended together.

use super::{OPS_OFFSET, SERVICES, keys::Files};
use anyhow::Context;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::Instant,
};

/// A service that dies is started again after this long, and after twice as long each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// So many deaths in a row, each within [`SETTLED`] of its start, and it is given up.
const MAX_DEATHS: u32 = 8;
const SETTLED: Duration = Duration::from_secs(10);
/// After SIGTERM a service has so long to drain.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const WATCH_PAUSE: Duration = Duration::from_millis(50);

struct Supervised {
    name: &'static str,
    port: u16,
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Child,
    started: Instant,
    deaths: u32,
    /// When it is to be started again, while it is dead.
    again: Option<Instant>,
}

/// The four services.
pub struct Children {
    /// Found once: when it is built anew meanwhile, the running one has no path any more.
    program: PathBuf,
    state: PathBuf,
    otlp_endpoint: Option<String>,
    services: Vec<Supervised>,
}

impl Children {
    pub fn new(state: &Path, otlp_endpoint: Option<String>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program cannot find its own file")?;
        Ok(Self { program, state: state.to_owned(), otlp_endpoint, services: Vec::new() })
    }

    /// Starts a service on 127.0.0.1.
    pub fn serve(&mut self, name: &'static str, port: u16, database_url: &str, keys: &Files) -> anyhow::Result<()> {
        let mut environment = vec![
            ("KOC_DATABASE_URL", database_url.to_owned()),
            ("KOC_LISTEN", format!("127.0.0.1:{port}")),
            ("KOC_OPS_LISTEN", format!("127.0.0.1:{}", port + OPS_OFFSET)),
            ("KOC_JWKS_FILE", keys.jwks.display().to_string()),
            ("KOC_PEER_TOKEN_FILE", keys.peer_token(name).display().to_string()),
            ("KOC_SUPPRESSION_KEYS_FILE", keys.suppression_keys.display().to_string()),
            // On this machine alone: receivers are on it too.
            ("KOC_WEBHOOK_KEYS_FILE", keys.webhook_keys.display().to_string()),
            ("KOC_WEBHOOK_LOCAL", "true".to_owned()),
        ];
        environment.extend(peers());
        if let Some(endpoint) = &self.otlp_endpoint {
            environment.push(("KOC_OTLP_ENDPOINT", endpoint.clone()));
        }
        let log = self.state.join(format!("{name}.log"));
        std::fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let child = start(&self.program, name, &environment, &log)?;
        let started = Instant::now();
        self.services.push(Supervised { name, port, environment, log, child, started, deaths: 0, again: None });
        Ok(())
    }

    /// Waits until all services are ready. One that ends before is an error with what its log says last.
    pub async fn ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let give_up = Instant::now() + patience;
        for service in &mut self.services {
            while !is_ready(service.port + OPS_OFFSET).await {
                let log = service.log.display();
                if let Some(status) = service.child.try_wait()? {
                    anyhow::bail!("the {} service ended ({status}):\n{}\nits log: {log}", service.name, last_lines(&service.log));
                }
                anyhow::ensure!(Instant::now() < give_up, "the {} service is not ready; its log: {log}", service.name);
                tokio::time::sleep(WATCH_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Starts again whatever dies; returns when one dies again and again.
    pub async fn supervise(&mut self) {
        loop {
            for service in &mut self.services {
                if !service.watch(&self.program) {
                    return;
                }
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }

    /// Starts the demo, a client like any other.
    pub fn demo(&self, keys: &Files) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg("demo").envs(peers()).env("KOC_TOKEN_FILE", &keys.token).env_remove("KOC_TOKEN").kill_on_drop(true);
        command.env("KOC_MEASUREMENT_URL", format!("http://127.0.0.1:{}", SERVICES[3].1));
        if let Some(endpoint) = &self.otlp_endpoint {
            command.env("KOC_OTLP_ENDPOINT", endpoint);
        }
        signal::end_with_parent(&mut command);
        command.spawn().context("the demo cannot be started")
    }

    /// Where everything is, and a first call.
    pub fn directions(&self, keys: &Files) -> String {
        let mut text = String::from("\n");
        for service in &self.services {
            let ops = service.port + OPS_OFFSET;
            text.push_str(&format!(
                "  {:<12} grpc and http 127.0.0.1:{}   metrics and health http://127.0.0.1:{ops}   log {}\n",
                service.name,
                service.port,
                service.log.display()
            ));
        }
        let token = keys.token.display();
        let programme = crate::demo::programme_id();
        text.push_str(&format!(
            "  token        {token} (every scope, every programme; `koc token sign` makes others)\n\n\
             A first call, with curl (http://127.0.0.1:7401/openapi.json describes them all), then with grpcurl:\n\n  \
             curl -H \"authorization: Bearer $(cat {token})\" \\\n    \
             \"http://127.0.0.1:7401/v1/programmes/{programme}/members?pageSize=3\"\n\n  \
             grpcurl -plaintext -H \"authorization: Bearer $(cat {token})\" \\\n    \
             -d '{{\"programme_id\": \"{programme}\", \"page_size\": 3}}' \\\n    \
             127.0.0.1:7401 koc.registry.v1.MemberService/ListMembers\n\n\
             Ctrl-C stops everything; what was kept is there again next time.\n"
        ));
        text
    }

    /// What the services use of the machine's memory.
    pub fn memory(&self) -> String {
        let resident = |service: &Supervised| {
            let pages = std::fs::read_to_string(format!("/proc/{}/statm", service.child.id()?)).ok()?;
            let pages: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
            Some(format!("{} {} MB", service.name, pages * 4096 / 1_000_000))
        };
        let all: Vec<String> = self.services.iter().filter_map(resident).collect();
        if all.is_empty() { String::new() } else { format!("Memory: {}.", all.join(", ")) }
    }

    /// Tells all to drain, the last caller first, and waits; who does not end is killed.
    pub async fn stop(mut self) {
        for service in self.services.iter().rev() {
            if let Some(pid) = service.child.id() {
                signal::terminate(pid);
            }
        }
        let give_up = Instant::now() + STOP_PATIENCE;
        for service in &mut self.services {
            if tokio::time::timeout_at(give_up, service.child.wait()).await.is_err() {
                // It is on its way out already when this fails.
                let _ = service.child.kill().await;
            }
        }
    }
}

impl Supervised {
    /// False when it dies again and again.
    fn watch(&mut self, program: &Path) -> bool {
        match self.again {
            None => {
                if let Ok(None) = self.child.try_wait() {
                    return true;
                }
                self.deaths = if self.started.elapsed() < SETTLED { self.deaths + 1 } else { 1 };
                let pause = FIRST_PAUSE.saturating_mul(1 << (self.deaths - 1).min(16)).min(LONGEST_PAUSE);
                tracing::warn!(service = self.name, "a service died; it is started again");
                self.again = Some(Instant::now() + pause);
                self.deaths < MAX_DEATHS
            }
            Some(again) if again > Instant::now() => true,
            Some(_) => {
                self.again = None;
                self.started = Instant::now();
                match start(program, self.name, &self.environment, &self.log) {
                    Ok(child) => {
                        self.child = child;
                        true
                    }
                    Err(_) => false,
                }
            }
        }
    }
}

/// Where clients and services find the services.
fn peers() -> impl Iterator<Item = (&'static str, String)> {
    let names = ["KOC_REGISTRY_URL", "KOC_BUDGET_URL", "KOC_TASK_URL"];
    names.into_iter().zip(SERVICES).map(|(name, (_, port))| (name, format!("http://127.0.0.1:{port}")))
}

fn start(program: &Path, name: &str, environment: &[(&'static str, String)], log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new().append(true).create(true).open(log)?;
    let mut command = Command::new(program);
    command.args(["serve", name]).envs(environment.iter().cloned());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    signal::end_with_parent(&mut command);
    command.spawn().with_context(|| format!("the {name} service cannot be started"))
}

async fn is_ready(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(answer.starts_with(b"HTTP/1.1 200"))
    };
    tokio::time::timeout(Duration::from_secs(1), ask).await.ok().flatten().unwrap_or(false)
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(3)..].join("\n")
}

#[allow(unsafe_code)]
mod signal {
    //! Signals to and from child processes.

    /// The child is killed when the thread that starts it ends, so that not even `kill -9` leaves it behind: its database goes the same
    /// way, so there is nothing to drain to. In a terminal, Ctrl-C reaches this process alone, which then ends its children in order.
    pub fn end_with_parent(command: &mut tokio::process::Command) {
        command.process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec only the async-signal-safe prctl is called.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
    }

    /// Sends SIGTERM.
    pub fn terminate(pid: u32) {
        let Ok(pid) = libc::pid_t::try_from(pid) else { return };
        // SAFETY: kill has no memory effects; the child is ours and not yet waited for, so the id is still its own.
        unsafe {
            libc::kill(pid, libc::SIGTERM);
        }
    }
}
