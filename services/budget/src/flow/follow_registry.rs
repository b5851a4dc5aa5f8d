//! What the registry's facts about members do to money. What a fact is, and which there are, stands in [`Follow`].

use crate::store;
use async_trait::async_trait;
use koc_chassis::follow::{Follow, Known};
use sqlx::PgConnection;

/// Follows the registry's members.
pub struct FollowRegistry;

#[async_trait]
impl Follow for FollowRegistry {
    async fn known(&self, conn: &mut PgConnection, after: Known, limit: i64) -> Result<Vec<Known>, sqlx::Error> {
        store::member::known(conn, after, limit).await
    }
}
