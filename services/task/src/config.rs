//! What the task service is configured by.

use koc_chassis::config::{BudgetPeer, RegistryPeer, ServeConfig};

/// Settings of the task service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub common: ServeConfig,
    #[command(flatten)]
    pub registry: RegistryPeer,
    #[command(flatten)]
    pub budget: BudgetPeer,
}
