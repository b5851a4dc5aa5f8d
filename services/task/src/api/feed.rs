//! The service's feed.

koc_chassis::feed_service!(koc_proto::koc::task::v1, crate::error::Error);
