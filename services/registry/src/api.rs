//! The registry's gRPC services: decode, call, encode.

mod convert;
mod error;

mod badge;
mod erasure;
mod export;
mod feed;
mod field_owner;
mod honour;
mod member;
mod member_feed;
mod member_import;
mod points;
mod programme;
mod standing;
mod sync;
mod sync_run;
mod tier;
mod tier_policy;
mod value_profile;
mod webhook;

pub use webhook::payload;

use crate::{
    IDENTITY,
    domain::{erasure::Terms, suppression::Keys},
    error::Error,
    flow::{find_members::ById, seal_secret::Seal},
};
use koc_chassis::{
    lane::{Lane, Reading},
    server::{MAX_MESSAGE_BYTES, Service},
};
use koc_proto::koc::registry::v1 as pb;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};

pub use sync::row as parse_row;

/// With it callers see what is personal where others see that there is something.
const PERSONAL_SCOPE: &str = "registry.pii";

/// How erased persons are known, and what every erasure is held to.
#[derive(Debug, Clone)]
pub struct Privacy {
    pub keys: Arc<Keys>,
    pub terms: Arc<Terms>,
}

/// A generated server with the suite's limits; it answers in the encoding that the client asks for.
macro_rules! served {
    ($server:path, $api:expr) => {
        <$server>::new($api)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
    };
}

/// All gRPC services of the registry. Streams end when `stop` is cancelled. Reads of a member wait in `members` for each other. `seal` keeps
/// the secrets of webhooks, which may be on private addresses when `local`.
pub fn routes(
    service: &Service,
    privacy: &Privacy,
    members: Lane<Reading<ById>>,
    stop: CancellationToken,
    seal: Seal,
    local: bool,
) -> Routes {
    let gate = service.gate::<Error>();
    let webhooks = webhook::WebhookApi::new(gate.clone(), service.feed().clone(), seal, local);
    let follow = member_feed::MemberFeedApi::new(gate.clone(), service.feed().clone(), stop.clone());
    let Privacy { keys, terms } = privacy.clone();
    let feed = feed::FeedApi { gate: gate.clone(), feed: service.feed().clone(), domain: IDENTITY.domain };
    Routes::new(served!(pb::programme_service_server::ProgrammeServiceServer<_>, programme::ProgrammeApi::new(gate.clone())))
        .add_service(served!(
            pb::member_service_server::MemberServiceServer<_>,
            member::MemberApi::new(gate.clone(), members, keys.clone())
        ))
        .add_service(served!(pb::sync_service_server::SyncServiceServer<_>, sync::SyncApi::new(gate.clone(), keys.clone(), stop)))
        .add_service(served!(
            pb::member_import_service_server::MemberImportServiceServer<_>,
            member_import::MemberImportApi::new(gate.clone())
        ))
        .add_service(served!(
            pb::sync_run_service_server::SyncRunServiceServer<_>,
            sync_run::SyncRunApi::new(gate.clone(), keys.clone())
        ))
        .add_service(served!(
            pb::field_owner_service_server::FieldOwnerServiceServer<_>,
            field_owner::FieldOwnerApi::new(gate.clone())
        ))
        .add_service(served!(
            pb::erasure_service_server::ErasureServiceServer<_>,
            erasure::ErasureApi::new(gate.clone(), keys, terms.clone())
        ))
        .add_service(served!(pb::export_service_server::ExportServiceServer<_>, export::ExportApi::new(gate.clone(), terms)))
        .add_service(served!(pb::tier_service_server::TierServiceServer<_>, tier::TierApi::new(gate.clone())))
        .add_service(served!(
            pb::tier_policy_service_server::TierPolicyServiceServer<_>,
            tier_policy::TierPolicyApi::new(gate.clone())
        ))
        .add_service(served!(
            pb::value_profile_service_server::ValueProfileServiceServer<_>,
            value_profile::ValueProfileApi::new(gate.clone())
        ))
        .add_service(served!(pb::points_service_server::PointsServiceServer<_>, points::PointsApi::new(gate.clone())))
        .add_service(served!(pb::badge_service_server::BadgeServiceServer<_>, badge::BadgeApi::new(gate.clone())))
        .add_service(served!(pb::honour_service_server::HonourServiceServer<_>, honour::HonourApi::new(gate)))
        .add_service(served!(pb::member_feed_service_server::MemberFeedServiceServer<_>, follow))
        .add_service(served!(pb::webhook_service_server::WebhookServiceServer<_>, webhooks))
        .add_service(served!(pb::feed_service_server::FeedServiceServer<_>, feed))
}
