//! Members at the registry, for tests of what the other services make of them.

use crate::{answer::id, service::TestChannel};
use koc_proto::koc::registry::v1::{self as pb, member_service_client::MemberServiceClient};

/// The members of one programme.
#[derive(Clone)]
pub struct Members {
    client: MemberServiceClient<TestChannel>,
    programme: String,
}

impl Members {
    #[must_use]
    pub fn new(registry: TestChannel, programme: &str) -> Self {
        Self { client: MemberServiceClient::new(registry), programme: programme.to_owned() }
    }

    /// A new member whom the brand trusts; its id.
    ///
    /// # Panics
    /// When the registry refuses, as all functions here do.
    pub async fn create(&self) -> String {
        let request = pb::CreateMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            profile: Some(pb::MemberProfile { region_code: "CN-GD".into(), ..Default::default() }),
            external_identities: Vec::new(),
        };
        let created = self.client.clone().create_member(request).await.expect("a member").into_inner().member;
        let member_id = created.expect("a member").member_id;
        self.update(&member_id, pb::MemberProfile::default(), pb::TrustLevel::Proven, "trust_level").await;
        member_id
    }

    async fn update(&self, member_id: &str, profile: pb::MemberProfile, trust_level: pb::TrustLevel, path: &str) {
        let request = pb::UpdateMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            profile: Some(profile),
            trust_level: trust_level.into(),
            update_mask: Some(prost_types::FieldMask { paths: vec![path.to_owned()] }),
            etag: String::new(),
        };
        self.client.clone().update_member(request).await.expect("updated");
    }

    /// Gives consent for a purpose, or withdraws it.
    pub async fn consent(&self, member_id: &str, purpose: pb::ConsentPurpose, granted: bool) {
        let consents = vec![pb::Consent { purpose: purpose.into(), granted }];
        let profile = pb::MemberProfile { consents, ..Default::default() };
        self.update(member_id, profile, pb::TrustLevel::Unspecified, "profile.consents").await;
    }

    pub async fn suspend(&self, member_id: &str) {
        let request = pb::SuspendMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            reason: "bought followers".into(),
            etag: String::new(),
        };
        self.client.clone().suspend_member(request).await.expect("suspended");
    }

    pub async fn reinstate(&self, member_id: &str) {
        let request = pb::ReinstateMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            reason: "they were real".into(),
            etag: String::new(),
        };
        self.client.clone().reinstate_member(request).await.expect("reinstated");
    }

    pub async fn merge(&self, winner: &str, loser: &str) {
        let request = pb::MergeMembersRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            winner_member_id: winner.to_owned(),
            loser_member_id: loser.to_owned(),
            reason: "one owner".into(),
            etag: String::new(),
        };
        self.client.clone().merge_members(request).await.expect("merged");
    }

    pub async fn unmerge(&self, loser: &str) {
        let request = pb::UnmergeMembersRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            loser_member_id: loser.to_owned(),
            reason: "two owners".into(),
        };
        self.client.clone().unmerge_members(request).await.expect("unmerged");
    }
}
