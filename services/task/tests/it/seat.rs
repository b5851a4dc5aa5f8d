//! Services that start, end, and are away for a while.

use crate::world::World;
use koc_chassis::telemetry::Metrics;
use koc_tests::service::{self, Running, ServiceDatabase};
use std::net::SocketAddr;

/// A service that may be away for a while.
pub struct Seat(Option<Running>);

/// What is left of a service that is away: where it was, and its database.
pub struct Away(SocketAddr, ServiceDatabase);

impl std::ops::Deref for Seat {
    type Target = Running;

    fn deref(&self) -> &Running {
        self.0.as_ref().expect("the service is there")
    }
}

impl Seat {
    pub fn new(running: Running) -> Self {
        Self(Some(running))
    }

    /// Ends the service as a signal would.
    pub async fn stop(&mut self) -> Away {
        let running = self.0.take().expect("the service is there");
        Away(running.address, running.stop().await)
    }

    /// Of a service whose runtime is gone.
    pub fn killed(&mut self) -> Away {
        let Running { address, database, .. } = self.0.take().expect("the service was there");
        Away(address, database)
    }
}

pub async fn start_registry(address: SocketAddr, database: ServiceDatabase) -> Running {
    service::start_on(address, database, |common, stop| {
        let erasure = koc_registry::config::ErasureConfig {
            suppression_keys_file: Some(koc_tests::token::suppression_keys_file().to_owned()),
            ..Default::default()
        };
        koc_registry::serve(koc_registry::Config { erasure, ..koc_registry::Config::from(common) }, Metrics::new(), stop)
    })
    .await
}

pub async fn start_budget(address: SocketAddr, database: ServiceDatabase, registry_url: String) -> Running {
    service::start_on(address, database, |common, stop| {
        let registry = koc_chassis::config::RegistryPeer { registry_url };
        koc_budget::serve(koc_budget::config::Config { common, registry }, Metrics::new(), stop)
    })
    .await
}

pub async fn start_task(address: SocketAddr, database: ServiceDatabase, registry_url: String, budget_url: String) -> Running {
    service::start_on(address, database, |common, stop| {
        let registry = koc_chassis::config::RegistryPeer { registry_url };
        let budget = koc_chassis::config::BudgetPeer { budget_url };
        koc_task::serve(koc_task::config::Config { common, registry, budget }, Metrics::new(), stop)
    })
    .await
}

impl World {
    pub async fn start_registry(&mut self, Away(address, database): Away) {
        self.registry = Seat::new(start_registry(address, database).await);
    }

    pub async fn start_budget(&mut self, Away(address, database): Away) {
        self.budget = Seat::new(start_budget(address, database, self.registry.url.clone()).await);
    }

    pub async fn start_task(&mut self, Away(address, database): Away) {
        let budget_url = self.budget.url.clone();
        self.task = Seat::new(start_task(address, database, self.registry.url.clone(), budget_url).await);
    }
}
