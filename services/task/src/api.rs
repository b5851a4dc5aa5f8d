//! The calls: decoded, done, encoded.

pub mod convert;

mod assignment;
mod brief;
mod delivery;
mod error;
mod feed;
mod task;

use crate::{error::Error, peer::Registry};
use koc_chassis::server::{MAX_MESSAGE_BYTES, Service};
use koc_proto::koc::task::v1 as pb;
use tonic::{
    codec::CompressionEncoding::{Gzip, Zstd},
    service::Routes,
};

/// A generated server with what all of them have: a bound on messages, and compression as the caller likes it.
macro_rules! bounded {
    ($server:expr) => {
        $server
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(Zstd)
            .accept_compressed(Gzip)
            .send_compressed(Zstd)
            .send_compressed(Gzip)
    };
}

/// All calls of the service.
pub fn routes(service: &Service, registry: Registry) -> Routes {
    let gate = service.gate::<Error>();
    let briefs = brief::BriefApi { gate: gate.clone(), registry: registry.clone() };
    let tasks = task::TaskApi { gate: gate.clone(), registry: registry.clone() };
    let assignments = assignment::AssignmentApi { gate: gate.clone(), registry };
    let feed = feed::FeedApi { gate, feed: service.feed().clone(), domain: crate::IDENTITY.domain };
    Routes::new(bounded!(pb::brief_service_server::BriefServiceServer::new(briefs)))
        .add_service(bounded!(pb::task_service_server::TaskServiceServer::new(tasks)))
        .add_service(bounded!(pb::assignment_service_server::AssignmentServiceServer::new(assignments)))
        .add_service(bounded!(pb::feed_service_server::FeedServiceServer::new(feed)))
}
