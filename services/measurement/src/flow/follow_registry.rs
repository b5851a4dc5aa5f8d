//! What the registry's facts do here: a programme begins, and members are followed. What a fact is, and which there are, stands in
//! [`Follow`].

use crate::{flow::open_programme, store};
use async_trait::async_trait;
use koc_chassis::{consumer::EffectError, follow::Follow, ids::ProgrammeId};
use sqlx::PgConnection;

/// Follows the registry's members and programmes.
pub struct FollowRegistry;

#[async_trait]
impl Follow for FollowRegistry {
    async fn programme_created(&self, conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), EffectError> {
        if store::programme::find(conn, programme).await?.is_none() {
            open_programme::start(conn, programme).await?;
        }
        Ok(())
    }
}
