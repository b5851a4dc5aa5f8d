//! Services as processes of the `koc` binary, which can be killed and started again.

use crate::{database, service::free_address, token, wait};
use anyhow::{Context, ensure};
use koc_chassis::postgres;
use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The binary that this build made.
///
/// # Panics
/// When it was not built: `cargo test --workspace` builds it, a test of this crate alone does not.
#[must_use]
pub fn koc() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let folder = test.parent().and_then(std::path::Path::parent).expect("tests are built in target/<profile>/deps");
    let koc = folder.join("koc");
    assert!(koc.exists(), "{} is missing: build it with `cargo build -p koc`", koc.display());
    koc
}

/// One replica of a service, at an address of its own. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    address: SocketAddr,
    ops: SocketAddr,
    database_url: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A replica of `name` that is not running yet, on a database entered as superuser by `superuser`.
    #[must_use]
    pub fn new(name: &'static str, superuser: &str) -> Self {
        let database_url = database::with_user(superuser, &format!("koc_{name}_app"));
        let address = free_address();
        let log = token::folder().join(format!("{name}-{}.log", address.port()));
        Self { name, address, ops: free_address(), database_url, log, child: None }
    }

    /// Which service it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it serves.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts it; it must not be running. `environment` says where the others are.
    ///
    /// # Panics
    /// When the binary does not run.
    pub fn launch(&mut self, environment: &[(String, String)]) {
        let mut command = Command::new(koc());
        let log = std::fs::OpenOptions::new().append(true).create(true).open(&self.log).expect("the temp folder is writable");
        command
            .args(["serve", self.name])
            .env("KOC_LOG", "warn,koc_chassis=info")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("KOC_DATABASE_URL", &self.database_url)
            .env("KOC_LISTEN", self.address.to_string())
            .env("KOC_OPS_LISTEN", self.ops.to_string())
            .env("KOC_JWKS_FILE", token::jwks_file())
            .env("KOC_PEER_TOKEN_FILE", token::peer_token_file())
            .env("KOC_SUPPRESSION_KEYS_FILE", token::suppression_keys_file())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file has a second handle"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the binary runs"));
    }

    /// What it has logged, since the first start.
    ///
    /// # Panics
    /// When it was never started.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("it writes its log there")
    }

    /// Waits until it serves.
    pub async fn ready(&self) {
        wait::until("a service to serve", PATIENCE, async || TcpStream::connect(self.address).ok()).await;
    }

    /// Ends it as `kill -9` does.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours can be killed");
            child.wait().expect("a killed child ends");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Makes the schemas and roles of services, with the binary's own migrations.
///
/// # Errors
/// When the database or the binary refuses.
pub async fn migrate(superuser: &str, services: &[&'static str]) -> anyhow::Result<()> {
    for name in services {
        let (owner, app) = (format!("koc_{name}_owner"), format!("koc_{name}_app"));
        postgres::bootstrap(superuser, name, (&owner, "test"), (&app, "test")).await?;
        let output = tokio::process::Command::new(koc())
            .args(["migrate", name, "--owner-database-url", &database::with_user(superuser, &owner)])
            .output()
            .await
            .context("koc migrate does not run")?;
        ensure!(output.status.success(), "koc migrate {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
