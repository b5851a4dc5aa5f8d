//! One batch of a sync, in one transaction and a fixed number of statements whatever its size: the identities of the rows are found
//! or claimed, the members behind them locked, the rows folded into them in order, and what changed is written with its facts.

use crate::{
    domain::{
        history::{Before, Change, ChangeKind},
        member::{State, TrustLevel},
        merge::Refusal,
        profile::Field,
        suppression::Keys,
        sync::{Outcome, Person, Row},
    },
    error::Error,
    flow::{erase_member::check_living, suppress, tell_consents},
    store::{self, member::Locked},
};
use koc_chassis::{
    clock,
    fault::{Violation, is_race},
    gate::Call,
    ids::MemberId,
    outbox::{self, NewFact},
    postgres::Db,
};
use koc_proto::koc::registry::v1 as pb;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;

/// How often a batch that lost a race is applied.
const MAX_ATTEMPTS: u32 = 5;

/// Rows of one source system; those that break a rule come with what they break.
#[derive(Debug)]
pub struct Batch {
    pub source_system: String,
    pub rows: Vec<Result<Row, Vec<Violation>>>,
    /// Finds out what would happen and changes nothing.
    pub validate_only: bool,
    /// Full name of the request, for the audit entry.
    pub method: &'static str,
    /// What erased persons are known by.
    pub keys: Arc<Keys>,
}

/// What became of a row. The member of a row that would be created is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Done { outcome: Outcome, member: Option<MemberId> },
    Rejected(Vec<Violation>),
}

/// Applies a batch; gives a result per row, in order. Errors: PROGRAMME_NOT_FOUND.
pub async fn apply_batch(db: &Db, call: &Call, batch: &Batch) -> Result<Vec<Applied>, Error> {
    let mut attempt = 1;
    loop {
        match apply_once(db, call, batch).await {
            Err(Error::Database(error)) if is_race(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
            // Somebody merged or erased one of its members while it waited for them.
            Err(Error::MergeRefused(Refusal::Merged { .. }) | Error::MemberErased { .. }) if attempt < MAX_ATTEMPTS => {
                attempt += 1
            }
            done => return done,
        }
    }
}

/// A member of the batch.
struct Folded {
    person: Person,
    /// None for one that the batch creates.
    stored: Option<(State, TrustLevel, i64)>,
}

async fn apply_once(db: &Db, call: &Call, batch: &Batch) -> Result<Vec<Applied>, Error> {
    let programme = call.programme;
    let mut tx = db.begin().await?;
    let tier_id = store::tier::lowest(&mut tx, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let arrival = clock::now(&mut tx).await?;
    let rows: Vec<Result<&Row, Vec<Violation>>> = batch
        .rows
        .iter()
        .map(|row| match row {
            Ok(row) => row.check_clock(arrival).map(|()| row).map_err(|violation| vec![violation]),
            Err(violations) => Err(violations.clone()),
        })
        .collect();

    let external_ids: BTreeSet<&str> = rows.iter().flatten().map(|row| row.external_id.as_str()).collect();
    let claims = store::identity::find_or_claim(&mut tx, programme, &batch.source_system, &external_ids, arrival).await?;
    let known: BTreeSet<Uuid> = claims.values().filter(|claim| !claim.new).map(|claim| claim.member.0).collect();
    let known: Vec<Uuid> = known.into_iter().collect();
    let locked = store::member::lock_all(&mut tx, programme, &known).await?;
    if let Some((member, into)) = locked.iter().find_map(|m| Some((m.id, m.merged_into?))) {
        return Err(Refusal::Merged { member, into }.into());
    }
    locked.iter().try_for_each(check_living)?;
    // Nor did anybody undo a merge meanwhile: what was the winner's is another person's again.
    let external_ids: Vec<&str> = external_ids.into_iter().collect();
    for (id, claim) in store::identity::find_all(&mut tx, programme, &batch.source_system, &external_ids).await? {
        if let Some(before) = claims.get(&id).filter(|before| before.member != claim.member) {
            return Err(Refusal::Merged { member: before.member, into: claim.member }.into());
        }
    }
    let accepted = rows.iter().flatten().copied();
    let suppressed = suppress::newcomers(&mut tx, programme, &batch.keys, &batch.source_system, accepted, &claims).await?;
    let mut members: BTreeMap<MemberId, Folded> = locked
        .into_iter()
        .map(|m| (m.id, Folded { person: Person::new(m.record), stored: Some((m.state, m.trust_level, m.version)) }))
        .collect();

    let mut results = Vec::with_capacity(rows.len());
    for row in rows {
        let row = match row {
            Ok(row) => row,
            Err(violations) => {
                results.push(Applied::Rejected(violations));
                continue;
            }
        };
        if suppressed.contains(&row.external_id) {
            results.push(Applied::Done { outcome: Outcome::Suppressed, member: None });
            continue;
        }
        // Every accepted row's identity was found or claimed above.
        let Some(claim) = claims.get(&row.external_id) else { return Err(sqlx::Error::RowNotFound.into()) };
        let first = claim.new && !members.contains_key(&claim.member);
        let folded = members.entry(claim.member).or_insert_with(|| Folded { person: Person::default(), stored: None });
        let outcome = folded.person.fold(row, &batch.source_system);
        let outcome = match (first, claim.merged) {
            (true, _) => Outcome::Created,
            (_, true) => Outcome::Merged,
            _ => outcome,
        };
        let member = (!(claim.new && batch.validate_only)).then_some(claim.member);
        results.push(Applied::Done { outcome, member });
    }
    if batch.validate_only {
        tx.rollback().await?;
        return Ok(results);
    }

    let now = clock::now(&mut tx).await?;
    let (mut created, mut updated, mut renamed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut facts, mut changes, mut of_consents) = (Vec::new(), Vec::new(), Vec::new());
    for (id, Folded { person, stored }) in members {
        let fields = person.befores();
        if stored.is_none() || person.is_renamed() {
            renamed.push(id.0);
        }
        let consents = person.consent_changes();
        let Person { record, changed, stamped, .. } = person;
        let visible = stored.is_none() || !changed.is_empty();
        let (state, trust_level, version) = match stored {
            None => (State::Active, TrustLevel::New, 1),
            Some((state, trust_level, version)) => (state, trust_level, version + i64::from(visible)),
        };
        if visible {
            let changed_fields = Field::paths(changed);
            let fact = pb::MemberChanged { member_id: id.to_string(), created: stored.is_none(), changed_fields, version };
            facts.push(NewFact::new(programme, id.0, &fact));
            of_consents.extend(tell_consents::facts(programme, id, version, &consents));
            let (kind, fields) = match stored {
                None => (ChangeKind::Created, fields.into_iter().map(|before| Before::unkept(before.path)).collect()),
                Some(_) => (ChangeKind::Updated, fields),
            };
            let source = batch.source_system.clone();
            changes.push(Change { source, ..Change::by_api(id, version, kind, fields) });
        }
        let written = Locked { id, record, state, trust_level, version, merged_into: None };
        match stored {
            None => created.push(written),
            Some(_) if visible || stamped => updated.push(written),
            Some(_) => {}
        }
    }
    store::member::insert_all(&mut tx, programme, &tier_id, &created, now).await?;
    store::member::update_all(&mut tx, programme, &updated, now).await?;
    store::search::put(&mut tx, programme, &renamed).await?;
    store::history::insert_all(&mut tx, programme, &changes, &call.caller.actor, now).await?;
    outbox::append(&mut tx, &facts).await?;
    outbox::append(&mut tx, &of_consents).await?;
    if !facts.is_empty() {
        let (created, changed) = (created.len(), facts.len() - created.len());
        let reason = format!("from {}: {created} members created, {changed} changed", batch.source_system);
        store::audit::insert(&mut tx, call, batch.method, Uuid::now_v7(), &reason).await?;
    }
    tx.commit().await?;
    db.wake();
    Ok(results)
}
