//! What the registry's facts about members do to money. What a fact is, and which there are, stands in [`Follow`].

use crate::{
    flow::open_promotion,
    ids::{MemberId, ProgrammeId},
    store::{self, promotion::Moved},
};
use async_trait::async_trait;
use koc_chassis::{
    clock,
    consumer::EffectError,
    follow::Follow,
    members::{self, Merge},
};
use koc_proto::koc::registry::v1 as registry;
use sqlx::PgConnection;

/// Follows the registry's members. Who is suspended, and what consents were withdrawn, is kept by then and asked when money is to move.
pub struct FollowRegistry;

#[async_trait]
impl Follow for FollowRegistry {
    /// Who rises to a tier with a gift gets it, once.
    async fn tier_changed(
        &self,
        conn: &mut PgConnection,
        programme: ProgrammeId,
        told: &registry::MemberTierChanged,
    ) -> Result<(), EffectError> {
        let moved = Moved {
            programme,
            member: MemberId::parse("member_id", &told.member_id)?,
            from_tier_id: &told.from_tier_id,
            to_tier_id: &told.to_tier_id,
            time: clock::required("move_time", told.move_time.as_ref())?,
        };
        if let Some(promotion) = store::promotion::begin(conn, moved).await? {
            open_promotion::start(conn, programme, promotion).await?;
        }
        Ok(())
    }

    /// Members that are one person have their limits summed, and each has its own again when they are parted: what is in use of each is
    /// that of its own reservations all along, so nothing is moved.
    async fn merged(&self, conn: &mut PgConnection, merge: &Merge) -> Result<(), EffectError> {
        let persons = store::member::lock_persons(conn, merge.programme, &[merge.loser, merge.winner]).await?;
        if members::put_merge(conn, merge).await? {
            store::member_limit::take_borrowed(conn, merge.programme, &persons).await?;
            store::member_limit::take_back(conn, merge.programme, &persons).await?;
            store::member_limit::lend(conn, merge.programme, &persons).await?;
        }
        Ok(())
    }
}
