//! The registry's feed.

koc_chassis::feed_service!(koc_proto::koc::registry::v1, crate::error::Error);
