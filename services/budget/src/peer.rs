//! What is asked of the registry: the currency of a programme. It never changes, so it is asked once and kept, in the database for
//! good and in memory for a while; afterwards the budget works without the registry.

use crate::{error::Error, ids::ProgrammeId, store};
use koc_chassis::{
    money::Currency,
    peer::{PeerChannel, is_transient},
    postgres::Db,
};
use koc_proto::koc::registry::v1 as pb;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tonic::Code;

/// Programmes whose currency is kept in memory; beyond it all are forgotten and read again.
const MAX_CACHED: usize = 10_000;

/// The currencies of programmes.
pub struct Currencies {
    db: Db,
    registry: PeerChannel,
    cached: Mutex<HashMap<ProgrammeId, Currency>>,
}

impl Currencies {
    pub fn new(db: Db, registry: PeerChannel) -> Self {
        Self { db, registry, cached: Mutex::default() }
    }

    /// The currency of a programme that has plans or limits here; None for one that has neither.
    pub async fn known(&self, programme: ProgrammeId) -> Result<Option<Currency>, Error> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner).get(&programme).copied();
        if cached.is_some() {
            return Ok(cached);
        }
        let mut conn = self.db.read().await?;
        let Some(code) = store::programme::currency(&mut conn, programme).await? else { return Ok(None) };
        let currency = Currency::from_code(&code).ok_or(Error::CurrencyUnknown(code))?;
        self.keep(programme, currency);
        Ok(Some(currency))
    }

    /// The currency of any programme; asks the registry the first time. To be called outside transactions.
    pub async fn of(&self, programme: ProgrammeId) -> Result<Currency, Error> {
        if let Some(currency) = self.known(programme).await? {
            return Ok(currency);
        }
        let mut client = pb::programme_service_client::ProgrammeServiceClient::new(self.registry.clone());
        let request = pb::GetProgrammeRequest { programme_id: programme.to_string() };
        let answer = client.get_programme(request).await.map_err(|status| match status.code() {
            Code::NotFound => Error::ProgrammeNotFound(programme),
            _ if is_transient(&status) => Error::RegistryUnavailable(status),
            _ => Error::RegistryRefused(status),
        })?;
        let code = answer.into_inner().programme.ok_or(Error::ProgrammeNotFound(programme))?.currency_code;
        let currency = Currency::from_code(&code).ok_or(Error::CurrencyUnknown(code))?;
        let mut tx = self.db.begin().await?;
        store::programme::remember(&mut tx, programme, currency.code()).await?;
        tx.commit().await?;
        self.keep(programme, currency);
        Ok(currency)
    }

    fn keep(&self, programme: ProgrammeId, currency: Currency) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        cached.insert(programme, currency);
    }
}
