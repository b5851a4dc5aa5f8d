//! `koc serve`: the life of a service's process.

use clap::Subcommand;
use koc_chassis::{config::ServeConfig, server, telemetry};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Serve {
    /// Members, tiers and value profiles: who. Port 7401.
    Registry(koc_registry::Config),
    /// Plans, reservations and the ledger: with what. Port 7402. Calls the registry.
    Budget(koc_budget::Config),
    /// Briefs, tasks and assignments: for what. Port 7403. Calls registry and budget.
    Task(koc_task::Config),
    /// Outputs, value, signals and decisions: to what end. Port 7404. Calls registry, budget and task.
    Measurement(koc_measurement::Config),
}

impl Serve {
    fn common(&self) -> (&'static str, &ServeConfig) {
        match self {
            Self::Registry(config) => ("koc-registry", &config.common),
            Self::Budget(config) => ("koc-budget", &config.common),
            Self::Task(config) => ("koc-task", &config.common),
            Self::Measurement(config) => ("koc-measurement", &config.common),
        }
    }

    pub async fn run(self: Box<Self>) -> anyhow::Result<ExitCode> {
        let (name, common) = self.common();
        let telemetry = telemetry::init(name, &common.log, common.otlp_endpoint.as_deref())?;
        let metrics = telemetry.metrics();
        let stop = server::stop_signal()?;
        let served = match *self {
            Self::Registry(config) => koc_registry::serve(config, metrics, stop).await,
            Self::Budget(config) => koc_budget::serve(config, metrics, stop).await,
            Self::Task(config) => koc_task::serve(config, metrics, stop).await,
            Self::Measurement(config) => koc_measurement::serve(config, metrics, stop).await,
        };
        // The exporters block while they send what is left.
        tokio::task::spawn_blocking(|| telemetry.shutdown()).await?;
        served.map(|()| ExitCode::SUCCESS)
    }
}
