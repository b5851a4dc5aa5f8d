//! Following what happens to a programme's members: the facts of the registry's feed, with each member as it is when they are read.

use crate::{
    domain::{
        history::{STATE, TIER_ID},
        member::State,
        member_feed::{Event, EventKind, Now, Place, Told},
    },
    error::Error,
    store,
};
use koc_chassis::{
    clock,
    feed::{Feed, Page},
    ids::{MemberId, ProgrammeId},
    postgres::Db,
};
use koc_proto::{
    koc::{feed::v1::Change, registry::v1 as pb},
    rules::Rules,
};
use prost::Message;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Reads what happens to the members of one programme.
#[derive(Clone)]
pub struct Follower {
    db: Db,
    feed: Feed,
    programme: ProgrammeId,
    /// All when empty.
    kinds: BTreeSet<EventKind>,
}

impl Follower {
    pub fn new(db: Db, feed: Feed, programme: ProgrammeId, kinds: BTreeSet<EventKind>) -> Self {
        Self { db, feed, programme, kinds }
    }

    pub fn programme(&self) -> ProgrammeId {
        self.programme
    }

    /// Where to begin: at the oldest that is kept, or with a snapshot. Its position is read before its first member: what changes from
    /// then on is told again after it.
    pub async fn begin(&self, snapshot: bool) -> Result<Place, Error> {
        let head = self.feed.head().await?;
        if !snapshot {
            return Ok(Place { epoch: head.epoch, position: self.feed.oldest().await?, fact: None, snapshot: None });
        }
        self.place(head.epoch, head.position, Some(Uuid::nil())).await
    }

    /// Checks that a place is of this feed's history. What is not kept any more shows when it is read on.
    pub async fn check(&self, place: &Place) -> Result<(), Error> {
        let head = self.feed.head().await?;
        let of_this_history = match place.fact {
            _ if place.epoch != head.epoch || place.position > head.position => false,
            None => true,
            Some(fact) => self.fact_at(place.position).await?.is_none_or(|kept| kept == fact),
        };
        if of_this_history { Ok(()) } else { Err(Error::EpochChanged) }
    }

    /// The place at a position of this history.
    pub async fn place(&self, epoch: Uuid, position: i64, snapshot: Option<Uuid>) -> Result<Place, Error> {
        Ok(Place { epoch, position, fact: self.fact_at(position).await?, snapshot })
    }

    /// The fact at a position; None before the first, and where it is not kept any more.
    async fn fact_at(&self, position: i64) -> Result<Option<Uuid>, Error> {
        if position == 0 {
            return Ok(None);
        }
        match self.feed.list(None, position - 1, 1).await.map_err(Error::from) {
            Ok(page) => Ok(page.changes.first().and_then(|change| Uuid::try_parse(&change.fact_id).ok())),
            Err(Error::PositionDropped) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next members of a snapshot, in the order of their ids, and where it goes on; None where that was the last.
    pub async fn members(&self, place: &Place, after: Uuid, size: i64) -> Result<(Vec<Event>, Option<Uuid>), Error> {
        let mut tx = self.db.read().await?;
        let ids = store::member::list_ids(&mut tx, self.programme, after, size).await?;
        let mut found = store::member::get_all_own(&mut tx, self.programme, &ids).await?;
        let time = clock::now(&mut tx).await?;
        let event = |id: &Uuid| {
            let member = MemberId(*id);
            let (position, kind) = (place.position, EventKind::Snapshot);
            let told = Told { fact: None, position, kind, member, changed_fields: Vec::new(), time };
            Event { told, now: now(found.remove(&member)) }
        };
        let events: Vec<Event> = ids.iter().map(event).collect();
        let full = i64::try_from(ids.len()).is_ok_and(|n| n == size);
        Ok((events, ids.last().copied().filter(|_| full)))
    }

    /// What a page of the feed tells of members.
    pub fn told(&self, page: &Page) -> Result<Vec<Told>, Error> {
        let mut told = Vec::new();
        for change in &page.changes {
            let Some((kind, changed_fields)) = kind(change)? else { continue };
            if self.kinds.is_empty() || self.kinds.contains(&kind) {
                told.push(Told {
                    fact: Some(uuid(&change.fact_id)?),
                    position: change.position,
                    kind,
                    member: MemberId(uuid(&change.subject_id)?),
                    changed_fields,
                    time: clock::required("record_time", change.record_time.as_ref())?,
                });
            }
        }
        Ok(told)
    }

    /// Adds to what was told the members as they are now, all read at once.
    pub async fn join(&self, told: Vec<Told>) -> Result<Vec<Event>, Error> {
        if told.is_empty() {
            return Ok(Vec::new());
        }
        let ids: BTreeSet<Uuid> = told.iter().map(|told| told.member.0).collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let mut tx = self.db.read().await?;
        let found = store::member::get_all_own(&mut tx, self.programme, &ids).await?;
        let event = |told: Told| Event { now: now(found.get(&told.member).cloned()), told };
        Ok(told.into_iter().map(event).collect())
    }
}

fn now(found: Option<(crate::domain::member::Member, Option<MemberId>)>) -> Now {
    match found {
        None => Now::Erased,
        Some((member, _)) if member.state == State::Erased => Now::Erased,
        Some((_, Some(winner))) => Now::MergedInto(winner),
        Some((member, None)) => Now::Member(Box::new(member)),
    }
}

/// What a fact tells of its subject as a member; None for what it tells of others.
fn kind(change: &Change) -> Result<Option<(EventKind, Vec<String>)>, Error> {
    let Some(fact) = &change.fact else { return Ok(None) };
    let plain = |kind: EventKind, fields: &[&str]| Some((kind, fields.iter().map(|field| (*field).to_owned()).collect()));
    Ok(match fact.type_url.rsplit('/').next().unwrap_or_default() {
        pb::MemberChanged::NAME => {
            let told = pb::MemberChanged::decode(fact.value.as_slice()).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            Some((if told.created { EventKind::Created } else { EventKind::Updated }, told.changed_fields))
        }
        pb::MemberSuspended::NAME => plain(EventKind::Suspended, &[STATE]),
        pb::MemberReinstated::NAME => plain(EventKind::Reinstated, &[STATE]),
        pb::MemberMerged::NAME => plain(EventKind::Merged, &[]),
        pb::MemberUnmerged::NAME => plain(EventKind::Unmerged, &[]),
        pb::MemberTierChanged::NAME => plain(EventKind::TierChanged, &[TIER_ID, "tier_since"]),
        pb::PointsChanged::NAME => plain(EventKind::PointsChanged, &[]),
        pb::MemberTitleChanged::NAME => plain(EventKind::TitleChanged, &[]),
        pb::BadgeAwarded::NAME => plain(EventKind::BadgeAwarded, &[]),
        pb::BadgeRevoked::NAME => plain(EventKind::BadgeRevoked, &[]),
        pb::MemberErased::NAME => plain(EventKind::Erased, &[]),
        _ => None,
    })
}

fn uuid(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|e| sqlx::Error::Decode(Box::new(e)).into())
}
