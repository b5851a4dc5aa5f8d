//! The whole suite as it runs in production: four processes of the `koc` binary, on one database with a schema each.

use crate::{
    database::{self, TestDatabase},
    service::free_address,
    token, wait,
};
use anyhow::{Context, ensure};
use koc_chassis::postgres;
use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

/// The services in the order in which they call: each calls those before it.
pub const SERVICES: [&str; 4] = ["registry", "budget", "task", "measurement"];

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

struct Member {
    name: &'static str,
    address: SocketAddr,
    ops: SocketAddr,
    database_url: String,
    child: Option<Child>,
}

/// Four services at work. They are killed when this is dropped.
pub struct Suite {
    members: Vec<Member>,
    otlp_endpoint: Option<String>,
    _database: TestDatabase,
}

impl Suite {
    /// Starts all four on a new database; their telemetry goes to `otlp_endpoint`.
    pub async fn start(otlp_endpoint: Option<String>) -> Self {
        // The binary's own migrations make the template, so its file is in the key.
        let made = std::fs::metadata(koc()).and_then(|m| m.modified()).expect("the binary is there");
        let made = made.duration_since(std::time::UNIX_EPOCH).expect("a time of this era").as_micros();
        let database =
            database::from_template(&format!("suite_{made}"), |superuser| async move { migrate(&superuser).await }).await;
        let members = SERVICES.map(|name| Member {
            name,
            address: free_address(),
            ops: free_address(),
            database_url: with_user(database.url(), &format!("koc_{name}_app")),
            child: None,
        });
        let mut suite = Self { members: members.into(), otlp_endpoint, _database: database };
        for name in SERVICES {
            suite.launch(name);
        }
        for name in SERVICES {
            suite.ready(name).await;
        }
        suite
    }

    /// Starts a service that is not running.
    pub fn launch(&mut self, name: &str) {
        let environment = self.environment();
        let member = self.member(name);
        let mut command = Command::new(koc());
        command
            .args(["serve", name])
            .envs(environment)
            .env("KOC_DATABASE_URL", &member.database_url)
            .env("KOC_LISTEN", member.address.to_string())
            .env("KOC_OPS_LISTEN", member.ops.to_string())
            .env("KOC_JWKS_FILE", token::jwks_file())
            .env("KOC_PEER_TOKEN_FILE", token::peer_token_file())
            .env("KOC_LOG", "warn,koc_chassis=info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        member.child = Some(command.spawn().expect("the binary runs"));
    }

    /// Waits until a service serves.
    pub async fn ready(&mut self, name: &str) {
        let address = self.member(name).address;
        wait::until("a service to serve", PATIENCE, async || TcpStream::connect(address).ok()).await;
    }

    /// Ends a service as `kill -9` does.
    pub fn kill(&mut self, name: &str) {
        if let Some(mut child) = self.member(name).child.take() {
            child.kill().expect("a child of ours can be killed");
            child.wait().expect("a killed child ends");
        }
    }

    /// Where a service serves.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let member = self.members.iter().find(|m| m.name == name).expect("one of the four");
        format!("http://{}", member.address)
    }

    /// Starts a client command of the binary, with the addresses and a token that may do everything.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(koc());
        command.args(arguments).envs(self.environment()).env("KOC_TOKEN", token::all("suite-test")).stdin(Stdio::null());
        command
    }

    /// Runs a client command to its end.
    ///
    /// # Panics
    /// When it fails; with what it said.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let mut command = self.client(arguments);
        let output: Output =
            tokio::task::spawn_blocking(move || command.output()).await.expect("not cancelled").expect("it runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "koc {arguments:?} failed: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self
            .members
            .iter()
            .map(|m| (format!("KOC_{}_URL", m.name.to_uppercase()), format!("http://{}", m.address)))
            .collect();
        all.extend(self.otlp_endpoint.iter().map(|endpoint| ("KOC_OTLP_ENDPOINT".to_owned(), endpoint.clone())));
        // Spans are wanted soon, not after the usual five seconds.
        all.push(("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "200".to_owned()));
        all
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|m| m.name == name).expect("one of the four")
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

async fn migrate(superuser: &str) -> anyhow::Result<()> {
    for name in SERVICES {
        let (owner, app) = (format!("koc_{name}_owner"), format!("koc_{name}_app"));
        postgres::bootstrap(superuser, name, (&owner, "test"), (&app, "test")).await?;
        let output = tokio::process::Command::new(koc())
            .args(["migrate", name, "--owner-database-url", &with_user(superuser, &owner)])
            .output()
            .await
            .context("koc migrate does not run")?;
        ensure!(output.status.success(), "koc migrate {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The same database, entered by another role.
fn with_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a database URL has a scheme");
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}:test@{host}")
}
