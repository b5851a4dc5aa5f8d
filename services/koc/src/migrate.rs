//! `koc migrate`: schemas are made and brought up to date by a command with the owner role, never by a service as it starts.

use anyhow::Context;
use clap::{Args, ValueEnum};
use koc_chassis::postgres::{self, Schema};
use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    Registry,
    Budget,
    Task,
    Measurement,
    All,
}

/// Bring the schema of one service, or of all, to the newest version.
///
/// Makes the schema if it is missing, and grants the application role what it may do. Can be run any number of times, and while
/// services of the version before are at work.
#[derive(Args)]
pub struct Migrate {
    target: Target,

    /// Address of the database, with the role that owns the schema.
    #[arg(long, env = "KOC_OWNER_DATABASE_URL", hide_env_values = true)]
    owner_database_url: String,

    /// The role that the service itself uses; `{service}` stands for the service's name.
    #[arg(long, env = "KOC_APPLICATION_ROLE", default_value = "koc_{service}_app")]
    application_role: String,
}

impl Target {
    pub fn schemas(self) -> Vec<Schema> {
        match self {
            Self::Registry => vec![koc_registry::SCHEMA],
            Self::Budget => vec![koc_budget::SCHEMA],
            Self::Task => vec![koc_task::SCHEMA],
            Self::Measurement => vec![koc_measurement::SCHEMA],
            Self::All => {
                [Self::Registry, Self::Budget, Self::Task, Self::Measurement].into_iter().flat_map(Self::schemas).collect()
            }
        }
    }
}

impl Migrate {
    #[allow(clippy::print_stdout)]
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        for schema in self.target.schemas() {
            let role = self.application_role.replace("{service}", schema.name);
            postgres::migrate(&self.owner_database_url, &schema, &role)
                .await
                .with_context(|| format!("the schema {} could not be migrated", schema.name))?;
            println!("{}: up to date", schema.name);
        }
        Ok(ExitCode::SUCCESS)
    }
}
