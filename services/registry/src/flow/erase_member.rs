//! Destroying what is held of a person, under all the ids that were merged into one, in one transaction.

use super::{of_person, rank_members};
use crate::{
    domain::{
        erasure::{Erasure, Ground, Terms},
        history::{Change, ChangeKind},
        member::State,
        suppression::{Digest, Identifier, Keys},
    },
    error::Error,
    store::{self, member::Locked},
};
use koc_chassis::{
    gate::Work,
    ids::{MemberId, ProgrammeId},
    page,
    postgres::Db,
};
use koc_proto::koc::registry::v1 as pb;
use opentelemetry::{KeyValue, metrics::Gauge};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// MEMBER_ERASED when nothing is known of a member any more.
pub fn check_living(member: &Locked) -> Result<(), Error> {
    match member.state {
        State::Erased => Err(Error::MemberErased { member: member.id, erasure: None }),
        State::Active | State::Suspended => Ok(()),
    }
}

/// Erases the person that an id belongs to, whose etag may be given.
pub async fn erase(
    work: &mut Work,
    member: MemberId,
    ground: Ground,
    etag: &str,
    keys: &Keys,
    terms: &Terms,
) -> Result<Erasure, Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let person = lock_person(work.conn(), programme, member).await?;
    // Its row is there, and the others lead to it.
    let Some(end) = person.iter().find(|one| one.merged_into.is_none()) else { return Err(sqlx::Error::RowNotFound.into()) };
    if end.state == State::Erased {
        let erasure = store::erasure::of_member(work.conn(), programme, end.id).await?;
        return Err(Error::MemberErased { member: end.id, erasure });
    }
    if !page::etag_matches(etag, end.version) {
        return Err(Error::EtagMismatch { member: end.id, version: end.version });
    }
    let digests = digests(work.conn(), programme, &person, keys).await?;
    let mut ids: Vec<Uuid> = person.iter().map(|one| one.id.0).collect();
    ids.sort_unstable();
    for id in &ids {
        rank_members::show(work.conn(), programme, MemberId(*id), false).await?;
    }
    let now = work.now().await?;
    // From here on no run keeps a row that it rejects before it has seen that the person is erased.
    store::suppression::hold_alone(work.conn(), programme).await?;
    let rejected = of_person::rejected(work.conn(), programme, &person).await?;
    let rejected = store::rejected_row::destroy(work.conn(), programme, &rejected).await?;
    let mut erased = store::erasure::destroy(work.conn(), programme, &ids, now).await?;
    let exports = store::export::delete_of(work.conn(), programme, &ids).await?;
    for (name, rows) in [("member_export", exports), ("rejected_row", rejected)].into_iter().filter(|(_, rows)| *rows > 0) {
        erased.insert(name.to_owned(), i64::try_from(rows).unwrap_or(i64::MAX));
    }
    let members = ids.iter().copied().map(MemberId).collect();
    let erasure = Erasure::begin(end.id, members, ground, erased, actor.clone(), now, terms);
    store::erasure::insert(work.conn(), programme, &erasure).await?;
    store::suppression::put_all(work.conn(), programme, erasure.id, &digests, now).await?;
    let changes: Vec<Change> =
        person.iter().map(|one| Change::by_api(one.id, one.version + 1, ChangeKind::Erased, Vec::new())).collect();
    store::history::insert_all(work.conn(), programme, &changes, &actor, now).await?;
    // Who knows nothing of erasures stops what needs the member all the same.
    for one in person.iter().filter(|one| one.state == State::Active) {
        let cause = pb::MemberSuspensionCause::Caller.into();
        let fact = pb::MemberSuspended { member_id: one.id.to_string(), version: one.version + 1, cause };
        work.emit(one.id.0, &fact).await?;
    }
    let fact = pb::MemberErased {
        erasure_id: erasure.id.to_string(),
        member_id: end.id.to_string(),
        member_ids: erasure.members.iter().map(MemberId::to_string).collect(),
    };
    work.emit(end.id.0, &fact).await?;
    work.audit(end.id.0, Some(ground.name().to_owned()));
    Ok(erasure)
}

/// Locks all members of a person, in the order of their ids.
pub async fn lock_person(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<Vec<Locked>, Error> {
    loop {
        let ids = store::merge::person(conn, programme, member).await?;
        if ids.is_empty() {
            return Err(Error::MemberNotFound { member: Some(member) });
        }
        let locked = store::member::lock_all(conn, programme, &ids).await?;
        // Unless a merge, or its undoing, came while this waited.
        if store::merge::person(conn, programme, member).await? == ids {
            return Ok(locked);
        }
    }
}

/// The hashes of all by which the person is or was known.
async fn digests(conn: &mut PgConnection, programme: ProgrammeId, person: &[Locked], keys: &Keys) -> Result<Vec<Digest>, Error> {
    let ids: Vec<Uuid> = person.iter().map(|one| one.id.0).collect();
    let mut identifiers: BTreeSet<Identifier> =
        store::identity::of_members(conn, programme, &ids).await?.into_iter().map(Identifier::Identity).collect();
    for one in person {
        identifiers.extend(Identifier::of_contact(&one.record.profile.email, &one.record.profile.phone));
    }
    for (email, phone) in store::history::contacts(conn, programme, &ids).await? {
        identifiers.extend(Identifier::of_contact(&email, &phone));
    }
    if keys.ids().is_empty() {
        return Err(Error::SuppressionKeyMissing { key_id: None });
    }
    Ok(identifiers.iter().filter_map(|identifier| keys.keep(programme, identifier)).collect())
}

/// Shows who has not followed in time: as a gauge, and in the log.
#[derive(Clone)]
pub struct Overdue {
    db: Db,
    consumers: Vec<String>,
    gauge: Gauge<i64>,
}

impl Overdue {
    /// `consumers` show as 0 while they follow in time.
    pub fn new(db: Db, consumers: Vec<String>) -> Self {
        let what = "Erasures that a consumer of the feed has not followed in time";
        Self {
            db,
            consumers,
            gauge: opentelemetry::global::meter("koc").i64_gauge("koc.erasure.overdue").with_description(what).build(),
        }
    }

    /// Looks once.
    pub async fn look(self) {
        let found = match self.read().await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(error = %error, "overdue erasures could not be looked for");
                return;
            }
        };
        for consumer in self.consumers.iter().filter(|consumer| found.iter().all(|(late, ..)| late != *consumer)) {
            self.gauge.record(0, &[KeyValue::new("consumer", consumer.clone())]);
        }
        for (consumer, count, oldest) in found {
            tracing::warn!(consumer, count, oldest_deadline = %oldest, "erasures are overdue: somebody still holds what was to be destroyed");
            self.gauge.record(count, &[KeyValue::new("consumer", consumer)]);
        }
    }

    async fn read(&self) -> Result<Vec<(String, i64, chrono::DateTime<chrono::Utc>)>, sqlx::Error> {
        store::erasure::overdue(&mut *self.db.read().await?).await
    }
}
