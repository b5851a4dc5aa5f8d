//! What the registry is configured by. It calls no other service.

use koc_chassis::config::ServeConfig;

/// Settings of the registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub common: ServeConfig,
}
