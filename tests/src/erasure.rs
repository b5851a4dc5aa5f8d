//! Erasing a member at a registry in the test's own process, and waiting for a service to have followed.

use crate::{answer::id, service::TestChannel, wait};
use koc_proto::koc::registry::v1 as pb;
use std::{collections::BTreeMap, time::Duration};
use tonic::Status;

const PATIENCE: Duration = Duration::from_secs(20);

type Erasures = pb::erasure_service_client::ErasureServiceClient<TestChannel>;

/// Erases a member.
///
/// # Errors
/// When the registry refuses.
pub async fn erase(registry: TestChannel, programme_id: &str, member_id: &str) -> Result<pb::Erasure, Status> {
    let request = pb::EraseMemberRequest {
        programme_id: programme_id.to_owned(),
        request_id: id(),
        member_id: member_id.to_owned(),
        ground: pb::ErasureGround::Requested.into(),
        etag: String::new(),
    };
    Ok(Erasures::new(registry).erase_member(request).await?.into_inner().erasure.unwrap_or_default())
}

/// Waits until a consumer has acknowledged an erasure; gives what it destroyed.
///
/// # Panics
/// When it does not.
pub async fn followed(registry: TestChannel, programme_id: &str, erasure_id: &str, consumer: &str) -> BTreeMap<String, i64> {
    let erasures = Erasures::new(registry);
    wait::until(&format!("{consumer} to have erased"), PATIENCE, async || {
        let request = pb::GetErasureRequest { programme_id: programme_id.to_owned(), erasure_id: erasure_id.to_owned() };
        let erasure = erasures.clone().get_erasure(request).await.expect("found").into_inner().erasure.unwrap_or_default();
        let found = erasure.acknowledgements.into_iter().find(|ack| ack.consumer == consumer).expect("it is waited for");
        let erased = found.erased.into_iter().map(|count| (count.name, count.rows)).collect();
        found.acknowledge_time.map(|_| erased)
    })
    .await
}
