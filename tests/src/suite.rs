//! The whole suite as it runs in production: four processes of the `koc` binary, on one database with a schema each.

use crate::{
    database::{self, TestDatabase},
    process::{Process, koc, migrate},
    token,
};
use std::process::{Command, Output, Stdio};

/// The services in the order in which they call: each calls those before it.
pub const SERVICES: [&str; 4] = ["registry", "budget", "task", "measurement"];

/// Four services at work. They are killed when this is dropped.
pub struct Suite {
    members: Vec<Process>,
    otlp_endpoint: Option<String>,
    log_filter: Option<&'static str>,
    database: TestDatabase,
}

impl Suite {
    /// Starts all four on a new database; their telemetry goes to `otlp_endpoint`.
    pub async fn start(otlp_endpoint: Option<String>) -> Self {
        Self::start_logging(otlp_endpoint, None).await
    }

    /// As [`Self::start`], with another filter of what is logged.
    pub async fn start_logging(otlp_endpoint: Option<String>, log_filter: Option<&'static str>) -> Self {
        // The binary's own migrations make the template, so its file is in the key.
        let made = std::fs::metadata(koc()).and_then(|m| m.modified()).expect("the binary is there");
        let made = made.duration_since(std::time::UNIX_EPOCH).expect("a time of this era").as_micros();
        let init = |superuser: String| async move { migrate(&superuser, &SERVICES).await };
        let database = database::from_template(&format!("suite_{made}"), init).await;
        let members = SERVICES.map(|name| Process::new(name, database.url()));
        let mut suite = Self { members: members.into(), otlp_endpoint, log_filter, database };
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
        self.member(name).launch(&environment);
    }

    /// Waits until a service serves.
    pub async fn ready(&mut self, name: &str) {
        self.member(name).ready().await;
    }

    /// Ends a service as `kill -9` does.
    pub fn kill(&mut self, name: &str) {
        self.member(name).kill();
    }

    /// The database of all four, entered as superuser.
    #[must_use]
    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    /// Where a service serves.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        self.members.iter().find(|m| m.name() == name).expect("one of the four").url()
    }

    /// What a service has logged.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        self.members.iter().find(|m| m.name() == name).expect("one of the four").log()
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
        let mut all: Vec<_> = self.members.iter().map(|m| (format!("KOC_{}_URL", m.name().to_uppercase()), m.url())).collect();
        all.extend(self.otlp_endpoint.iter().map(|endpoint| ("KOC_OTLP_ENDPOINT".to_owned(), endpoint.clone())));
        all.extend(self.log_filter.iter().map(|filter| ("KOC_LOG".to_owned(), (*filter).to_owned())));
        // Spans are wanted soon, not after the usual five seconds.
        all.push(("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "200".to_owned()));
        all
    }

    fn member(&mut self, name: &str) -> &mut Process {
        self.members.iter_mut().find(|m| m.name() == name).expect("one of the four")
    }
}
