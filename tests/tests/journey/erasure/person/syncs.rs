//! How a CRM speaks of the person.

use super::{Stage, in_days, profile, words};
use koc_proto::koc::registry::v1 as registry;
use registry::{sync_members_request::Message, sync_service_client::SyncServiceClient as Sync};

impl Stage {
    /// A row of the person, and the same again.
    pub async fn sync(&self, profile: &registry::MemberProfile) -> Vec<registry::SyncOutcome> {
        let row = || registry::MemberRow {
            external_id: words("id"),
            source_time: in_days(0),
            profile: Some(profile.clone()),
            clear_fields: Vec::new(),
            deleted: false,
        };
        let first = row();
        let request = registry::BatchUpsertMembersRequest {
            programme_id: self.programme.clone(),
            source_system: "crm".into(),
            rows: vec![first.clone(), first],
            validate_only: false,
        };
        let answer = Sync::new(self.registry("crm")).batch_upsert_members(request).await.expect("applied").into_inner();
        answer.results.iter().map(registry::MemberRowResult::outcome).collect()
    }

    /// Stands in a full export whose run is not over, in rows that break a rule: as it is known, and as nobody knows it, by a number alone.
    pub async fn export(&self, batch_number: i64) -> Vec<registry::SyncOutcome> {
        let row = |external_id: String| registry::MemberRow {
            external_id,
            source_time: in_days(2),
            profile: Some(profile()),
            clear_fields: Vec::new(),
            deleted: false,
        };
        let opening = registry::SyncOpening {
            source_system: "crm".into(),
            run_name: "all".into(),
            mode: registry::SyncMode::Full.into(),
            as_of: Some(prost_types::Timestamp { seconds: self.exported, nanos: 0 }),
            ..Default::default()
        };
        let batch = registry::SyncBatch {
            batch_number,
            rows: vec![row(words("id")), row(format!("unknown {batch_number}")), row(String::new())],
            unread_external_ids: vec![words("id")],
        };
        let programme_id = self.programme.clone();
        let messages = [Message::Open(opening), Message::Batch(batch)]
            .map(|message| registry::SyncMembersRequest { programme_id: programme_id.clone(), message: Some(message) });
        let mut sync = Sync::new(self.registry("crm"));
        let mut answers = sync.sync_members(tokio_stream::iter(messages)).await.expect("let in").into_inner();
        let mut outcomes = Vec::new();
        while let Some(answer) = answers.message().await.expect("answered") {
            outcomes.extend(answer.results.iter().map(registry::MemberRowResult::outcome));
        }
        outcomes
    }
}
