//! What the registry's facts about members do to assignments. What a fact is, and which there are, stands in [`Follow`].

use super::{keep, lock_to_end};
use crate::{domain::AssignmentId, store};
use async_trait::async_trait;
use koc_chassis::{
    clock,
    consumer::EffectError,
    follow::Follow,
    ids::{MemberId, ProgrammeId},
    members::{self, Merge, Purpose},
};
use sqlx::PgConnection;

/// In whose name the registry's facts act.
const REGISTRY_ACTOR: &str = "service:registry";

/// Follows the registry's members. A tier is not refreshed here: an assignment keeps the one it was offered by, and each offer asks for the
/// present one.
pub struct FollowRegistry;

#[async_trait]
impl Follow for FollowRegistry {
    /// Open offers end, so that their places go to others. What was taken goes on: it is delivered, judged and paid.
    async fn suspended(&self, conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<(), EffectError> {
        let person = members::group(conn, programme, member).await?;
        // One that is being offered just now is seen after it, or sees what was told before it.
        for id in &person {
            store::member::lock(conn, *id).await?;
        }
        let offers = store::assignment::offers_of(conn, programme, &person).await?;
        end_offers(conn, programme, &offers).await
    }

    /// The same for who does not want to take part any more.
    async fn consent_withdrawn(
        &self,
        conn: &mut PgConnection,
        programme: ProgrammeId,
        member: MemberId,
        purpose: Purpose,
    ) -> Result<(), EffectError> {
        match purpose {
            Purpose::Participation => self.suspended(conn, programme, member).await,
            Purpose::Profiling | Purpose::ContentUse | Purpose::Contact => Ok(()),
        }
    }

    /// Nobody has a task twice: of two offers in one the younger ends, and one beside work that was taken.
    async fn merged(&self, conn: &mut PgConnection, merge: &Merge) -> Result<(), EffectError> {
        if members::put_merge(conn, merge).await? && !merge.undone {
            let person = members::group(conn, merge.programme, merge.winner).await?;
            let offers = store::assignment::offers_twice(conn, merge.programme, &person).await?;
            end_offers(conn, merge.programme, &offers).await?;
        }
        Ok(())
    }
}

async fn end_offers(conn: &mut PgConnection, programme: ProgrammeId, offers: &[AssignmentId]) -> Result<(), EffectError> {
    for offer in offers {
        let Some(assignment) = lock_to_end(conn, programme, *offer).await? else { continue };
        let (before, now) = (assignment.state.clone(), clock::now(conn).await?);
        if let Some(ended) = assignment.withdraw_offer(now) {
            keep(conn, &before, &ended, REGISTRY_ACTOR).await?;
        }
    }
    Ok(())
}
