//! Following the registry's members: each of its facts has one function, which a service overrides with what the fact does there. What all
//! keep of members ([`members`]) is kept here.
//!
//! A new fact of the registry gets a function of [`Follow`] with an effect that does nothing, and a line in [`Follower::apply`]; its
//! effects go into `flow/follow_registry.rs` of the services. Effects come in the feed's order for each member, and in any order for
//! two of them; a database that was there before a fact was reads all from the start.

use crate::{
    consumer::{Effect, EffectError, fact, programme_of},
    ids::{MemberId, ProgrammeId},
    members::{self, Merge, Place, Purpose, Standing},
    peer::{PeerChannel, is_transient},
    postgres::Db,
};
use async_trait::async_trait;
use koc_proto::koc::{feed::v1::Change, registry::v1 as pb};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use tonic::Status;

/// What the cursors of those that follow members are called. Its own name makes a service that read the feed for other facts before, or knew
/// of no members but its own, begin anew.
pub const SOURCE: &str = "registry_standings";

/// Members whose standing is asked for at once.
const PAGE: i32 = 1_000;
/// Members that are brought up to date in one transaction: each may lock what it touches.
const RENEWED: usize = 50;

/// What the registry's facts do in a service. The functions run in the transaction that moves the cursor; what all keep of members is kept
/// when they are called, but for merges, where [`Follow::merged`] keeps it.
#[async_trait]
pub trait Follow: Send + Sync {
    /// A programme was created.
    async fn programme_created(&self, _conn: &mut PgConnection, _programme: ProgrammeId) -> Result<(), EffectError> {
        Ok(())
    }

    /// A member was suspended.
    async fn suspended(&self, _conn: &mut PgConnection, _programme: ProgrammeId, _member: MemberId) -> Result<(), EffectError> {
        Ok(())
    }

    /// A member takes part again.
    async fn reinstated(&self, _conn: &mut PgConnection, _programme: ProgrammeId, _member: MemberId) -> Result<(), EffectError> {
        Ok(())
    }

    /// A member withdrew its consent for a purpose.
    async fn consent_withdrawn(
        &self,
        _conn: &mut PgConnection,
        _programme: ProgrammeId,
        _member: MemberId,
        _purpose: Purpose,
    ) -> Result<(), EffectError> {
        Ok(())
    }

    /// A member was merged into another, or that was undone.
    async fn merged(&self, conn: &mut PgConnection, merge: &Merge) -> Result<(), EffectError> {
        members::put_merge(conn, merge).await?;
        Ok(())
    }

    /// A member moved between tiers.
    async fn tier_changed(
        &self,
        _conn: &mut PgConnection,
        _programme: ProgrammeId,
        _moved: &pb::MemberTierChanged,
    ) -> Result<(), EffectError> {
        Ok(())
    }
}

/// Applies the registry's facts about members.
pub struct Follower<F> {
    db: Db,
    registry: PeerChannel,
    follow: F,
}

impl<F: Follow> Follower<F> {
    pub fn new(db: Db, registry: PeerChannel, follow: F) -> Self {
        Self { db, registry, follow }
    }

    async fn put_suspended(
        &self,
        conn: &mut PgConnection,
        programme: ProgrammeId,
        member: MemberId,
        version: i64,
        suspended: bool,
    ) -> Result<(), EffectError> {
        // What is older than what is known already has no effect either: it may be read again years later.
        if !members::put_suspended(conn, programme, member, version, suspended).await? {
            return Ok(());
        }
        match suspended {
            true => self.follow.suspended(conn, programme, member).await,
            false => self.follow.reinstated(conn, programme, member).await,
        }
    }

    /// Brings one member to how the registry has it.
    async fn renew(&self, conn: &mut PgConnection, told: &pb::MemberStanding) -> Result<(), EffectError> {
        let Place { programme, member } = place(told)?;
        if let Some(last) = &told.last_merge {
            let merge = merge(programme, &last.merge_id, &told.member_id, &last.winner_member_id, last.undone)?;
            self.follow.merged(conn, &merge).await?;
        }
        let withdrawn = told.withdrawn_purposes().filter_map(purpose).map(|purpose| purpose.name().to_owned()).collect();
        let standing = Standing::new(told.suspended, withdrawn);
        if !members::put(conn, programme, member, told.version, &standing).await? {
            return Ok(());
        }
        // How it stands matters once it stands for itself.
        if members::group(conn, programme, member).await?.first() != Some(&member) {
            return Ok(());
        }
        if standing.suspended {
            self.follow.suspended(conn, programme, member).await?;
        }
        for purpose in Purpose::ALL.into_iter().filter(|purpose| standing.withdrew(*purpose)) {
            self.follow.consent_withdrawn(conn, programme, member, purpose).await?;
        }
        Ok(())
    }

    async fn renew_all(&self, standings: &[pb::MemberStanding]) -> Result<(), EffectError> {
        for some in standings.chunks(RENEWED) {
            let mut tx = self.db.begin().await?;
            for told in some {
                self.renew(&mut tx, told).await?;
            }
            tx.commit().await?;
            self.db.wake();
        }
        Ok(())
    }
}

fn place(told: &pb::MemberStanding) -> Result<Place, EffectError> {
    let programme = ProgrammeId::parse("programme_id", &told.programme_id)?;
    Ok(Place { programme, member: MemberId::parse("member_id", &told.member_id)? })
}

/// How a member stands, as the registry gives it.
pub fn standing(member: &pb::Member) -> Standing {
    let consents = member.profile.as_ref().map(|profile| profile.consents.as_slice()).unwrap_or_default();
    let withdrawn = consents.iter().filter(|consent| !consent.granted).filter_map(|consent| purpose(consent.purpose()));
    // Of who was erased nothing begins any more, as of who is suspended.
    let stopped = matches!(member.state(), pb::MemberState::Suspended | pb::MemberState::Erased);
    Standing::new(stopped, withdrawn.map(|purpose| purpose.name().to_owned()).collect())
}

fn purpose(wire: pb::ConsentPurpose) -> Option<Purpose> {
    match wire {
        pb::ConsentPurpose::Participation => Some(Purpose::Participation),
        pb::ConsentPurpose::Profiling => Some(Purpose::Profiling),
        pb::ConsentPurpose::ContentUse => Some(Purpose::ContentUse),
        pb::ConsentPurpose::Contact => Some(Purpose::Contact),
        pb::ConsentPurpose::Unspecified => None,
    }
}

fn merge(programme: ProgrammeId, id: &str, loser: &str, winner: &str, undone: bool) -> Result<Merge, EffectError> {
    let (loser, winner) = (MemberId::parse("loser_member_id", loser)?, MemberId::parse("winner_member_id", winner)?);
    Ok(Merge { programme, id: crate::ids::parse("merge_id", id)?, loser, winner, undone })
}

#[async_trait]
impl<F: Follow> Effect for Follower<F> {
    async fn apply(&self, conn: &mut PgConnection, change: &Change) -> Result<(), EffectError> {
        let programme = programme_of(change)?;
        let member = |id: &str| MemberId::parse("member_id", id);
        if fact::<pb::ProgrammeCreated>(change)?.is_some() {
            self.follow.programme_created(conn, programme).await
        } else if let Some(told) = fact::<pb::MemberSuspended>(change)? {
            self.put_suspended(conn, programme, member(&told.member_id)?, told.version, true).await
        } else if let Some(told) = fact::<pb::MemberReinstated>(change)? {
            self.put_suspended(conn, programme, member(&told.member_id)?, told.version, false).await
        } else if let Some(told) = fact::<pb::MemberConsentChanged>(change)? {
            let member = member(&told.member_id)?;
            let purpose = purpose(told.purpose()).ok_or_else(|| EffectError::Park("the purpose is unknown here".to_owned()))?;
            let newest = members::put_consent(conn, programme, member, told.version, purpose, told.granted).await?;
            if told.granted || !newest { Ok(()) } else { self.follow.consent_withdrawn(conn, programme, member, purpose).await }
        } else if let Some(told) = fact::<pb::MemberMerged>(change)? {
            let merge = merge(programme, &told.merge_id, &told.loser_member_id, &told.winner_member_id, false)?;
            self.follow.merged(conn, &merge).await
        } else if let Some(told) = fact::<pb::MemberUnmerged>(change)? {
            let merge = merge(programme, &told.merge_id, &told.loser_member_id, &told.winner_member_id, true)?;
            self.follow.merged(conn, &merge).await
        } else if let Some(told) = fact::<pb::MemberTierChanged>(change)? {
            self.follow.tier_changed(conn, programme, &told).await
        } else {
            Ok(())
        }
    }

    /// Whatever replicas do at once, and whatever is told meanwhile, it comes to the same: of what is put the newer counts, and a merge that
    /// was undone is never heard of again. All merges that ever were are put, so that the feed, read from its start after this, makes none of
    /// them stand for a moment that is long undone.
    async fn catch_up(&self) -> Result<bool, EffectError> {
        let mut client = pb::member_feed_service_client::MemberFeedServiceClient::new(self.registry.clone());
        let (mut page_token, mut after) = (String::new(), Place::FIRST);
        loop {
            // Before the registry is asked: whoever is not stopped by its answer, and has not changed here since, is not stopped any more.
            let mut conn = self.db.read().await?;
            let stopped = members::stopped(&mut conn, after, i64::from(PAGE)).await?;
            drop(conn);
            let request =
                pb::ListMemberStandingsRequest { programme_id: String::new(), page_size: PAGE, page_token: page_token.clone() };
            let answer = client.list_member_standings(request).await.map_err(failed)?.into_inner();
            self.renew_all(&answer.standings).await?;
            let named = answer.standings.iter().map(place).collect::<Result<BTreeSet<_>, _>>()?;
            let through = match answer.next_page_token.is_empty() {
                true => Place::LAST,
                false => named.last().copied().unwrap_or(Place::LAST),
            };
            let read_through = match stopped.last() {
                Some((last, _)) if i32::try_from(stopped.len()).is_ok_and(|n| n == PAGE) => *last,
                _ => Place::LAST,
            };
            let mut tx = self.db.begin().await?;
            for (at, version) in stopped.iter().filter(|(at, _)| *at <= through && !named.contains(at)) {
                if members::let_go(&mut tx, *at, *version).await? {
                    self.follow.reinstated(&mut tx, at.programme, at.member).await?;
                }
            }
            tx.commit().await?;
            after = through.min(read_through);
            if after == through {
                page_token = answer.next_page_token;
                if page_token.is_empty() {
                    return Ok(true);
                }
            }
        }
    }
}

fn failed(status: Status) -> EffectError {
    let text = format!("the registry answered {:?}: {}", status.code(), status.message());
    if is_transient(&status) { EffectError::Transient(text) } else { EffectError::Park(text) }
}
