//! Whom the task service asks: the registry for programmes and members, the budget service for money.

use crate::{
    domain::{
        EnvelopeId, ReservationId,
        assignment::Unfunded,
        task::{Candidate, Participation},
    },
    error::Error,
};
use koc_chassis::{
    follow,
    ids::{MemberId, ProgrammeId},
    members::{Purpose, Standing},
    money::{Currency, Money},
    page,
    peer::PeerChannel,
};
use koc_proto::koc::{budget::v1 as budget, registry::v1 as registry};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Currencies of programmes that are remembered; they never change.
const REMEMBERED_PROGRAMMES: usize = 10_000;

/// The registry: who.
#[derive(Clone)]
pub struct Registry {
    channel: PeerChannel,
    currencies: Arc<Mutex<HashMap<ProgrammeId, Currency>>>,
}

impl Registry {
    pub fn new(channel: PeerChannel) -> Self {
        Self { channel, currencies: Arc::default() }
    }

    /// The currency of a programme.
    pub async fn currency(&self, programme: ProgrammeId) -> Result<Currency, Error> {
        let remembered = self.currencies.lock().unwrap_or_else(PoisonError::into_inner).get(&programme).copied();
        if let Some(currency) = remembered {
            return Ok(currency);
        }
        let request = registry::GetProgrammeRequest { programme_id: programme.to_string() };
        let mut client = registry::programme_service_client::ProgrammeServiceClient::new(self.channel.clone());
        let answer = client.get_programme(request).await.map_err(|status| match reason(&status).as_str() {
            "PROGRAMME_NOT_FOUND" => Error::ProgrammeNotFound(programme),
            _ => Error::Peer { peer: "registry", status: Box::new(status) },
        })?;
        let code = answer.into_inner().programme.unwrap_or_default().currency_code;
        let currency = Currency::from_code(&code).ok_or_else(|| Error::Peer {
            peer: "registry",
            status: Box::new(Status::internal("the programme's currency is unknown here")),
        })?;
        let mut currencies = self.currencies.lock().unwrap_or_else(PoisonError::into_inner);
        if currencies.len() >= REMEMBERED_PROGRAMMES {
            currencies.clear();
        }
        currencies.insert(programme, currency);
        Ok(currency)
    }

    /// What matters of a member for an offer, as it is now.
    pub async fn candidate(&self, programme: ProgrammeId, member: MemberId) -> Result<Candidate, Error> {
        let request = registry::GetMemberRequest { programme_id: programme.to_string(), member_id: member.to_string() };
        let mut client = registry::member_service_client::MemberServiceClient::new(self.channel.clone());
        let answer = client.get_member(request).await.map_err(|status| match reason(&status).as_str() {
            "MEMBER_NOT_FOUND" => Error::MemberNotFound(member),
            _ => Error::Peer { peer: "registry", status: Box::new(status) },
        })?;
        let found = answer.into_inner().member.unwrap_or_default();
        if found.state() == registry::MemberState::Erased {
            return Err(Error::MemberNotFound(member));
        }
        let standing = follow::standing(&found);
        let version = page::etag_version(&found.etag).unwrap_or_default();
        let profile = found.profile.unwrap_or_default();
        Ok(Candidate {
            member: MemberId::parse("member_id", &found.member_id)?,
            tier_id: found.tier_id,
            region_code: Some(profile.region_code).filter(|code| !code.is_empty()),
            version,
            participation: participation(&standing),
        })
    }
}

/// Whether one who stands so may take what is offered.
pub fn participation(standing: &Standing) -> Participation {
    match (standing.suspended, standing.withdrew(Purpose::Participation)) {
        (true, _) => Participation::Suspended,
        (false, true) => Participation::Withdrawn,
        (false, false) => Participation::Given,
    }
}

/// The budget service: with what.
#[derive(Clone)]
pub struct Budget {
    channel: PeerChannel,
}

/// Money to be held.
#[derive(Debug, Clone)]
pub struct Hold {
    pub programme: ProgrammeId,
    pub request_id: String,
    pub envelope: EnvelopeId,
    pub member: MemberId,
    /// A reference such as `assignment/…`.
    pub purpose: String,
    pub amount: Money,
    pub seconds: i64,
}

/// A refusal by a business rule: asked again in the same way it is given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub Unfunded);

impl Budget {
    pub fn new(channel: PeerChannel) -> Self {
        Self { channel }
    }

    fn client(&self) -> budget::reservation_service_client::ReservationServiceClient<PeerChannel> {
        budget::reservation_service_client::ReservationServiceClient::new(self.channel.clone())
    }

    /// Holds money.
    pub async fn reserve(&self, hold: Hold) -> Result<Result<ReservationId, Refusal>, Status> {
        let request = budget::ReserveRequest {
            programme_id: hold.programme.to_string(),
            request_id: hold.request_id,
            envelope_id: hold.envelope.to_string(),
            member_id: hold.member.to_string(),
            purpose: hold.purpose,
            amount: Some(hold.amount.to_proto()),
            time_to_live: Some(prost_types::Duration { seconds: hold.seconds, nanos: 0 }),
            ..Default::default()
        };
        match self.client().reserve(request).await {
            Ok(answer) => {
                let id = answer.into_inner().reservation.unwrap_or_default().reservation_id;
                ReservationId::parse("reservation_id", &id)
                    .map(Ok)
                    .map_err(|_| Status::internal("the budget service answered without a reservation"))
            }
            Err(status) => refusal(&status).map(|refused| Err(Refusal(refused))).ok_or(status),
        }
    }

    /// Makes a part of the held money owed and gives the rest back.
    pub async fn commit(
        &self,
        programme: ProgrammeId,
        request_id: String,
        hold: ReservationId,
        amount: Money,
    ) -> Result<Result<(), Refusal>, Status> {
        let request = budget::CommitRequest {
            programme_id: programme.to_string(),
            request_id,
            reservation_id: hold.to_string(),
            amount: Some(amount.to_proto()),
            release_rest: true,
            ..Default::default()
        };
        match self.client().commit(request).await {
            Ok(_) => Ok(Ok(())),
            Err(status) => refusal(&status).map(|refused| Err(Refusal(refused))).ok_or(status),
        }
    }

    /// Gives all that is still held back.
    pub async fn release(
        &self,
        programme: ProgrammeId,
        request_id: String,
        hold: ReservationId,
    ) -> Result<Result<(), Refusal>, Status> {
        let request = budget::ReleaseRequest {
            programme_id: programme.to_string(),
            request_id,
            reservation_id: hold.to_string(),
            amount: None,
            ..Default::default()
        };
        match self.client().release(request).await {
            Ok(_) => Ok(Ok(())),
            // Nothing is held any more: the hold ran out, and what it held went back by itself.
            Err(status) if reason(&status) == "RESERVATION_EXHAUSTED" => Ok(Ok(())),
            Err(status) => refusal(&status).map(|refused| Err(Refusal(refused))).ok_or(status),
        }
    }
}

fn reason(status: &Status) -> String {
    koc_chassis::fault::reason_of(status)
}

/// The budget's refusal with its figures; None for what is no business refusal. A code without a reason is not the budget's own
/// word but that of something between, and no refusal.
fn refusal(status: &Status) -> Option<Unfunded> {
    if !matches!(status.code(), Code::FailedPrecondition | Code::NotFound) {
        return None;
    }
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| !info.reason.is_empty())?;
    let text = |name: &str| info.metadata.get(name).filter(|value| !value.is_empty()).cloned();
    let minor = |name: &str| text(name).and_then(|value| value.parse().ok());
    Some(Unfunded {
        reason: info.reason.clone(),
        limit_type: text("limit_type"),
        limit_id: text("limit_id"),
        asked_minor: minor("asked_minor"),
        available_minor: minor("available_minor"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use koc_chassis::fault::Fault;

    #[test]
    fn a_refusal_for_money_keeps_its_figures() {
        let fault = Fault::refused("ENVELOPE_EXHAUSTED", "the envelope has too little")
            .with("limit_type", "ENVELOPE")
            .with("limit_id", "0190c2a5-0000-7000-8000-000000000001")
            .with("asked_minor", 5_000)
            .with("available_minor", -20);
        let refused = refusal(&fault.into_status("budget.koc")).expect("a refusal");
        assert_eq!(refused.reason, "ENVELOPE_EXHAUSTED");
        assert_eq!(refused.limit_type.as_deref(), Some("ENVELOPE"));
        assert_eq!((refused.asked_minor, refused.available_minor), (Some(5_000), Some(-20)));
    }

    #[test]
    fn a_refusal_for_the_plans_state_has_no_figures() {
        let refused = refusal(&Fault::refused("PLAN_STATE", "the plan is CLOSED").into_status("budget.koc")).expect("a refusal");
        assert_eq!((refused.reason.as_str(), refused.asked_minor, refused.limit_id), ("PLAN_STATE", None, None));
    }

    #[test]
    fn what_may_pass_or_does_not_come_from_the_budget_is_no_refusal() {
        assert_eq!(refusal(&Fault::unavailable("DATABASE_UNAVAILABLE", "down").into_status("budget.koc")), None);
        assert_eq!(refusal(&Status::not_found("no route")), None);
        assert_eq!(refusal(&Fault::invalid(Vec::new()).into_status("budget.koc")), None);
    }
}
