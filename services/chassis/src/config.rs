//! What every service is configured by: flags, or environment variables of the same meaning. Parsed once, passed as a value.

use std::{net::SocketAddr, path::PathBuf};

/// Settings that all services have.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeConfig {
    /// Address of the database, with the service's application role; `search_path` is set by the service.
    #[arg(long, env = "KOC_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,

    /// Where gRPC and HTTP/JSON are served; by default all addresses and the service's own port.
    #[arg(long, env = "KOC_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Where health (gRPC and /livez, /readyz) and /metrics are served; by default all addresses and the service's own port + 10.
    #[arg(long, env = "KOC_OPS_LISTEN")]
    pub ops_listen: Option<SocketAddr>,

    /// JSON Web Key Set with the public keys that tokens are checked against.
    #[arg(long, env = "KOC_JWKS_FILE")]
    pub jwks_file: PathBuf,

    /// File with the token that this service shows to its peers.
    #[arg(long, env = "KOC_PEER_TOKEN_FILE")]
    pub peer_token_file: Option<PathBuf>,

    /// Most connections to the database that calls share; one more for each kind of work that is done in groups.
    #[arg(long, env = "KOC_DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(4..=200))]
    pub database_connections: u32,

    /// For how many days facts stay in the feed, 30 or more; for good when not set. Of use for the registry's and measurement's feeds: the
    /// budget's and the task service's are kept for good.
    #[arg(long, env = "KOC_FEED_DAYS", value_parser = clap::value_parser!(u16).range(30..))]
    pub feed_days: Option<u16>,

    /// Address of an OTLP collector (gRPC), e.g. http://localhost:4317; without it traces are not sent.
    #[arg(long, env = "KOC_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// What is logged, e.g. `info` or `info,koc_budget=debug`.
    #[arg(long, env = "KOC_LOG", default_value = "info")]
    pub log: String,
}

/// Where the services to the left of one are. Each service takes those it calls.
#[derive(Debug, Clone, clap::Args)]
pub struct RegistryPeer {
    /// Address of the registry.
    #[arg(long, env = "KOC_REGISTRY_URL", default_value = "http://127.0.0.1:7401")]
    pub registry_url: String,
}

/// See [`RegistryPeer`].
#[derive(Debug, Clone, clap::Args)]
pub struct BudgetPeer {
    /// Address of the budget service.
    #[arg(long, env = "KOC_BUDGET_URL", default_value = "http://127.0.0.1:7402")]
    pub budget_url: String,
}

/// See [`RegistryPeer`].
#[derive(Debug, Clone, clap::Args)]
pub struct TaskPeer {
    /// Address of the task service.
    #[arg(long, env = "KOC_TASK_URL", default_value = "http://127.0.0.1:7403")]
    pub task_url: String,
}
