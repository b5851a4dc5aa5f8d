//! What the service is configured by.

use koc_chassis::config::{RegistryPeer, ServeConfig};

/// Settings of the budget service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub common: ServeConfig,
    #[command(flatten)]
    pub registry: RegistryPeer,
}
