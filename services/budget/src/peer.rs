//! What is asked of the registry. The currency of a programme never changes, so it is asked once and kept, in the database for
//! good and in memory for a while; afterwards money moves without the registry. Who a member is, is asked for each grant: what is
//! handed out cannot be taken back.

use crate::{
    domain::{
        barred,
        grant::{Standing, ValueType},
        plan::ResourceClass,
        resource_kind::ResourceKind,
    },
    error::Error,
    ids::{MemberId, ProgrammeId},
    store,
};
use koc_chassis::{
    follow,
    money::Currency,
    peer::{PeerChannel, is_transient},
    postgres::Db,
};
use koc_proto::koc::registry::v1 as pb;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tonic::{Code, Status};

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
        let answer = client.get_programme(request).await.map_err(|status| failed(status, Error::ProgrammeNotFound(programme)))?;
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

/// What a failed call to the registry means; `missing` when there is no such thing.
fn failed(status: Status, missing: Error) -> Error {
    match status.code() {
        Code::NotFound => missing,
        _ if is_transient(&status) => Error::RegistryUnavailable(status),
        _ => Error::RegistryRefused(status),
    }
}

/// Who members are.
#[derive(Clone)]
pub struct Members {
    registry: PeerChannel,
}

impl Members {
    pub fn new(registry: PeerChannel) -> Self {
        Self { registry }
    }

    async fn member(&self, programme: ProgrammeId, member: MemberId) -> Result<pb::Member, Error> {
        let mut client = pb::member_service_client::MemberServiceClient::new(self.registry.clone());
        let request = pb::GetMemberRequest { programme_id: programme.to_string(), member_id: member.to_string() };
        let answer = client.get_member(request).await.map_err(|status| failed(status, Error::MemberNotFound(member)))?;
        // Of an erased member nothing is known any more.
        let there = |found: &pb::Member| found.state() != pb::MemberState::Erased;
        answer.into_inner().member.filter(there).ok_or(Error::MemberNotFound(member))
    }

    /// Checks that nothing bars the member from a thing of this kind now; without an answer nothing is handed out.
    pub async fn check(&self, programme: ProgrammeId, member: MemberId, kind: ResourceKind) -> Result<(), Error> {
        let found = self.member(programme, member).await?;
        barred::from_kind(kind, &follow::standing(&found)).map_or(Ok(()), |why| Err(Error::of_barred(member, why)))
    }

    /// Whether a move between two tiers is a rise. A tier that the programme does not have any more is below all.
    pub async fn is_rise(&self, programme: ProgrammeId, from: &str, to: &str) -> Result<bool, Error> {
        let mut client = pb::tier_service_client::TierServiceClient::new(self.registry.clone());
        let request = pb::ListTiersRequest { programme_id: programme.to_string() };
        let answer = client.list_tiers(request).await.map_err(|status| failed(status, Error::ProgrammeNotFound(programme)))?;
        let tiers = answer.into_inner().tiers;
        let rank = |id: &str| tiers.iter().find(|tier| tier.tier_id == id).map(|tier| tier.rank);
        Ok(rank(to) > rank(from))
    }

    /// Where a member lives (ISO 3166-2); None when unknown.
    pub async fn region(&self, programme: ProgrammeId, member: MemberId) -> Result<Option<String>, Error> {
        let profile = self.member(programme, member).await?.profile.unwrap_or_default();
        Ok(Some(profile.region_code).filter(|code| !code.is_empty()))
    }

    /// What matters of a member for a grant, as it is now. A tier that the programme does not have any more is taken for the lowest class.
    pub async fn standing(&self, programme: ProgrammeId, member: MemberId) -> Result<Standing, Error> {
        let found = self.member(programme, member).await?;
        let mut client = pb::tier_service_client::TierServiceClient::new(self.registry.clone());
        let request = pb::ListTiersRequest { programme_id: programme.to_string() };
        let answer = client.list_tiers(request).await.map_err(|status| failed(status, Error::ProgrammeNotFound(programme)))?;
        let tier = answer.into_inner().tiers.into_iter().find(|tier| tier.tier_id == found.tier_id);
        let class = match tier.map(|tier| tier.resource_class()) {
            Some(pb::ResourceClass::Incentive) => ResourceClass::Incentive,
            Some(pb::ResourceClass::Exclusive) => ResourceClass::Exclusive,
            Some(pb::ResourceClass::StrategicReserve) => ResourceClass::StrategicReserve,
            Some(pb::ResourceClass::Inclusive | pb::ResourceClass::Unspecified) | None => ResourceClass::Inclusive,
        };
        let labelled = found.value_scores.iter().filter(|score| score.labelled);
        let value_types = labelled.filter_map(|score| match score.value_type() {
            pb::ValueType::Social => Some(ValueType::Social),
            pb::ValueType::Content => Some(ValueType::Content),
            pb::ValueType::Insight => Some(ValueType::Insight),
            pb::ValueType::Unspecified => None,
        });
        Ok(Standing {
            class,
            value_types: value_types.collect(),
            trusted: !matches!(found.trust_level(), pb::TrustLevel::New | pb::TrustLevel::Unspecified),
            member: MemberId::parse("member_id", &found.member_id).map_err(|_| Error::MemberNotFound(member))?,
            standing: follow::standing(&found),
        })
    }
}
