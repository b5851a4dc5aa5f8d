//! What the registry is configured by. It calls no other service.

use crate::flow::seal_secret::Seal;
use anyhow::Context;
use koc_chassis::config::ServeConfig;
use std::path::PathBuf;

/// Settings of the registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub common: ServeConfig,
    #[command(flatten)]
    pub webhooks: WebhookConfig,
}

/// Settings of webhooks.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WebhookConfig {
    /// File with the keys that seal the secrets of webhooks: Base64 of 32 random bytes, one a line. The first seals, what another sealed is
    /// sealed anew, and all open: a new key stands second with every replica before it stands first. Without it there are no webhooks.
    #[arg(long, env = "KOC_WEBHOOK_KEYS_FILE")]
    pub webhook_keys_file: Option<PathBuf>,

    /// Lets webhooks post to private addresses and over http: for tests and on one's own machine alone.
    #[arg(long, env = "KOC_WEBHOOK_LOCAL")]
    pub webhook_local: bool,
}

/// With all else as it is when nothing is said of it.
impl From<ServeConfig> for Config {
    fn from(common: ServeConfig) -> Self {
        Self { common, webhooks: WebhookConfig::default() }
    }
}

impl WebhookConfig {
    /// Reads the keys.
    pub fn seal(&self) -> anyhow::Result<Seal> {
        let Some(path) = &self.webhook_keys_file else { return Ok(Seal::default()) };
        let read = std::fs::read_to_string(path).map_err(anyhow::Error::from).and_then(|text| Seal::parse(&text));
        read.with_context(|| format!("the keys for webhooks in {} cannot be used", path.display()))
    }
}
