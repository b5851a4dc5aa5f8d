//! What the registry is configured by. It calls no other service.

use crate::{
    api::Privacy,
    domain::{erasure::Terms, suppression::Keys},
    flow::seal_secret::Seal,
};
use anyhow::Context;
use chrono::TimeDelta;
use koc_chassis::config::ServeConfig;
use std::{path::PathBuf, sync::Arc};

/// Settings of the registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub common: ServeConfig,
    #[command(flatten)]
    pub erasure: ErasureConfig,
    #[command(flatten)]
    pub webhooks: WebhookConfig,
}

/// What becomes of erased members.
#[derive(Debug, Clone, clap::Args)]
pub struct ErasureConfig {
    /// File with the keys of the hashes by which erased persons are kept out, one a line: an id, a blank, and 32 bytes or more in
    /// hexadecimal. The first is for new hashes; one that was ever used must stay. Without it nobody can be erased.
    #[arg(long, env = "KOC_SUPPRESSION_KEYS_FILE")]
    pub suppression_keys_file: Option<PathBuf>,

    /// Who must acknowledge each erasure: the services, and consumers of the feed outside of the suite.
    #[arg(long, env = "KOC_ERASURE_CONSUMERS", value_delimiter = ',', default_values_t = consumers())]
    pub erasure_consumers: Vec<String>,

    /// How many hours they have.
    #[arg(long, env = "KOC_ERASURE_DEADLINE_HOURS", default_value_t = DEADLINE_HOURS, value_parser = clap::value_parser!(u32).range(1..=720))]
    pub erasure_deadline_hours: u32,
}

const DEADLINE_HOURS: u32 = 72;

fn consumers() -> Vec<String> {
    ["budget", "task", "measurement"].map(str::to_owned).into()
}

impl Default for ErasureConfig {
    fn default() -> Self {
        Self { suppression_keys_file: None, erasure_consumers: consumers(), erasure_deadline_hours: DEADLINE_HOURS }
    }
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
        Self { common, erasure: ErasureConfig::default(), webhooks: WebhookConfig::default() }
    }
}

impl ErasureConfig {
    /// Reads the keys.
    pub fn privacy(&self) -> anyhow::Result<Privacy> {
        let keys = match &self.suppression_keys_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                Keys::parse(&text).with_context(|| format!("{} holds no keys", path.display()))?
            }
            None => Keys::default(),
        };
        let within = TimeDelta::hours(i64::from(self.erasure_deadline_hours));
        let terms = Terms { consumers: self.erasure_consumers.clone(), within };
        Ok(Privacy { keys: Arc::new(keys), terms: Arc::new(terms) })
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
