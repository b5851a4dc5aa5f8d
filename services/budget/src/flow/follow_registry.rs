//! What the registry's facts about members do to money. What a fact is, and which there are, stands in [`Follow`].

use crate::store;
use async_trait::async_trait;
use koc_chassis::{
    consumer::EffectError,
    follow::{Follow, Known},
    members::{self, Merge},
};
use sqlx::PgConnection;

/// Follows the registry's members. Who is suspended, and what consents were withdrawn, is kept by then and asked when money is to move.
pub struct FollowRegistry;

#[async_trait]
impl Follow for FollowRegistry {
    async fn known(&self, conn: &mut PgConnection, after: Known, limit: i64) -> Result<Vec<Known>, sqlx::Error> {
        store::member::known(conn, after, limit).await
    }

    /// Members that are one person have their limits summed, and each has its own again when they are parted: what is in use of each is
    /// that of its own reservations all along, so nothing is moved.
    async fn merged(&self, conn: &mut PgConnection, merge: &Merge) -> Result<(), EffectError> {
        let persons = store::member::lock_persons(conn, merge.programme, &[merge.loser, merge.winner]).await?;
        if members::put_merge(conn, merge).await? {
            store::member_limit::take_borrowed(conn, merge.programme, &persons).await?;
            store::member_limit::lend(conn, merge.programme, &persons).await?;
        }
        Ok(())
    }
}
