//! What the service is configured by.

use koc_chassis::config::{BudgetPeer, RegistryPeer, ServeConfig, TaskPeer};

/// Settings of the measurement service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub common: ServeConfig,
    #[command(flatten)]
    pub registry: RegistryPeer,
    #[command(flatten)]
    pub budget: BudgetPeer,
    #[command(flatten)]
    pub task: TaskPeer,
}
