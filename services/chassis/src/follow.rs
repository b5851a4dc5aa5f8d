//! Following the registry's members: each of its facts has one function, which a service overrides with what the fact does there. What all
//! keep of members ([`members`]) is kept here.
//!
//! A new fact of the registry gets a function of [`Follow`] with an effect that does nothing, and a line in [`Follower::apply`]; its
//! effects go into `flow/follow_registry.rs` of the services. Effects come in the feed's order for each member, and in any order for
//! two of them; a database that was there before a fact was reads all from the start.

use crate::{
    consumer::{Effect, EffectError, fact, programme_of},
    ids::{MemberId, ProgrammeId},
    members::{self, Merge, Purpose, Standing},
    page,
    peer::{PeerChannel, is_transient},
    postgres::Db,
};
use async_trait::async_trait;
use koc_proto::koc::{feed::v1::Change, registry::v1 as pb};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashSet};
use tonic::Status;
use uuid::Uuid;

/// What the cursors of those that follow members are called. Its own name makes a service that read the feed for other facts before begin
/// anew.
pub const SOURCE: &str = "registry_members";

/// Members that are asked for at once.
const PAGE: i64 = 1_000;

/// A member of a programme; ordered by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    pub member: MemberId,
    pub programme: ProgrammeId,
}

/// What the registry's facts do in a service. The functions run in the transaction that moves the cursor; what all keep of members is kept
/// when they are called, but for merges, where [`Follow::merged`] keeps it.
#[async_trait]
pub trait Follow: Send + Sync {
    /// Members that the service keeps something of, in the order of their ids, after one.
    async fn known(&self, conn: &mut PgConnection, after: Known, limit: i64) -> Result<Vec<Known>, sqlx::Error>;

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

    /// Brings one member to how the registry has it, which gave `found` for `asked`.
    async fn renew(
        &self,
        conn: &mut PgConnection,
        programme: ProgrammeId,
        asked: MemberId,
        found: &pb::Member,
    ) -> Result<(), EffectError> {
        let end = MemberId::parse("member_id", &found.member_id)?;
        let leads_to = members::group(conn, programme, asked).await?.first().copied().unwrap_or(asked);
        if leads_to != end {
            // Nobody says which merge it was, so that any fact that comes later counts.
            members::forget_merge(conn, programme, asked).await?;
            let winner = if end == asked { leads_to } else { end };
            let merge = Merge { programme, id: Uuid::nil(), loser: asked, winner, undone: end == asked };
            self.follow.merged(conn, &merge).await?;
        }
        let standing = standing(found);
        let version = page::etag_version(&found.etag).ok_or_else(|| EffectError::Park("the member's etag is none".to_owned()))?;
        if !members::put(conn, programme, end, version, &standing).await? {
            return Ok(());
        }
        if standing.suspended {
            self.follow.suspended(conn, programme, end).await?;
        }
        for purpose in Purpose::ALL.into_iter().filter(|purpose| standing.withdrew(*purpose)) {
            self.follow.consent_withdrawn(conn, programme, end, purpose).await?;
        }
        Ok(())
    }
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

    async fn catch_up(&self) -> Result<bool, EffectError> {
        let mut client = pb::member_service_client::MemberServiceClient::new(self.registry.clone());
        let mut after = Known { member: MemberId(Uuid::nil()), programme: ProgrammeId(Uuid::nil()) };
        loop {
            let mut conn = self.db.read().await?;
            let known = self.follow.known(&mut conn, after, PAGE).await?;
            drop(conn);
            let Some(last) = known.last().copied() else { return Ok(true) };
            let mut by_programme: BTreeMap<ProgrammeId, Vec<MemberId>> = BTreeMap::new();
            for Known { member, programme } in known {
                by_programme.entry(programme).or_default().push(member);
            }
            for (programme, members) in by_programme {
                let member_ids = members.iter().map(ToString::to_string).collect();
                let request = pb::BatchGetMembersRequest { programme_id: programme.to_string(), member_ids };
                let answer = client.batch_get_members(request).await.map_err(failed)?.into_inner();
                let missing: HashSet<&str> = answer.missing_member_ids.iter().map(String::as_str).collect();
                let there = members.iter().filter(|member| !missing.contains(member.to_string().as_str()));
                let mut tx = self.db.begin().await?;
                for (asked, found) in there.zip(&answer.members) {
                    self.renew(&mut tx, programme, *asked, found).await?;
                }
                tx.commit().await?;
            }
            self.db.wake();
            after = last;
        }
    }
}

fn failed(status: Status) -> EffectError {
    let text = format!("the registry answered {:?}: {}", status.code(), status.message());
    if is_transient(&status) { EffectError::Transient(text) } else { EffectError::Park(text) }
}
