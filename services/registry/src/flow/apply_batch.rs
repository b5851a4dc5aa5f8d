//! One batch of a sync, in one transaction and a fixed number of statements whatever its size: the identities of the rows are found
//! or claimed, the members behind them locked, the rows folded into them in order, and what changed is written with its facts.

use super::{rank_members, tell_consents};
use crate::{
    domain::{
        history::{Before, Change, ChangeKind, STATE},
        member::{State, SuspensionCause, TrustLevel},
        merge::Refusal,
        ownership::Owners,
        presence::{Presence, Standing, settle},
        profile::Field,
        search,
        suppression::Keys,
        sync::{Fold, Outcome, Person, Row},
    },
    error::Error,
    flow::{erase_member::check_living, suppress},
    store::{
        self,
        audit::Act,
        identity::Claim,
        member::{Locked, Turn},
    },
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, is_race},
    ids::{MemberId, ProgrammeId},
    outbox::{self, NewFact},
    postgres::Db,
};
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// How often a batch that lost a race is applied.
pub const MAX_ATTEMPTS: u32 = 5;
/// What a member's changed identities are called in facts and in its history.
const EXTERNAL_IDENTITIES: &str = "external_identities";

/// Rows of one source system; those that break a rule come with what they break.
#[derive(Debug)]
pub struct Batch<'a> {
    pub source_system: &'a str,
    pub rows: &'a [Result<Row, Vec<Violation>>],
    /// Of rows of a full export: when it was made. Whoever is in it was there then, however long ago something of them changed.
    pub as_of: Option<DateTime<Utc>>,
    /// Finds out what would happen and changes nothing.
    pub validate_only: bool,
    /// Full name of the request, for the audit entry.
    pub method: &'static str,
    /// What erased persons are known by.
    pub keys: &'a Keys,
}

impl Batch<'_> {
    /// What a row says of its identity.
    fn presence(&self, row: &Row) -> Presence {
        let said = row.presence();
        match self.as_of {
            Some(as_of) if !said.deleted => Presence { time: said.time.max(as_of), ..said },
            _ => said,
        }
    }
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Done {
        outcome: Outcome,
        /// None where there is none: it would be created, the person was erased, or the row deletes somebody who is not known.
        member: Option<MemberId>,
        /// Fields of the row that belong to another source.
        ignored: Vec<Field>,
    },
    Rejected(Vec<Violation>),
}

impl Applied {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Done { outcome, .. } => *outcome,
            Self::Rejected(_) => Outcome::Rejected,
        }
    }
}

/// Whether what failed may succeed when it is done again from its beginning: it lost a race, or somebody merged or erased one of its members
/// while it waited for them.
pub fn is_lost_race(error: &Error) -> bool {
    match error {
        Error::Database(error) => is_race(error),
        Error::MergeRefused(Refusal::Merged { .. }) | Error::MemberErased { .. } => true,
        _ => false,
    }
}

/// Applies a batch in a transaction of its own; gives a result per row, in order. Errors: PROGRAMME_NOT_FOUND.
pub async fn apply_batch(db: &Db, act: Act<'_>, batch: &Batch<'_>) -> Result<Vec<Applied>, Error> {
    let mut attempt = 1;
    loop {
        match apply_once(db, act, batch).await {
            Err(error) if is_lost_race(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

async fn apply_once(db: &Db, act: Act<'_>, batch: &Batch<'_>) -> Result<Vec<Applied>, Error> {
    let mut tx = db.begin().await?;
    let applied = apply(&mut tx, act, batch).await?;
    if batch.validate_only {
        tx.rollback().await?;
    } else {
        tx.commit().await?;
        db.wake();
    }
    Ok(applied)
}

/// Applies a batch in the caller's transaction, which is rolled back where it is a trial.
pub async fn apply(conn: &mut PgConnection, act: Act<'_>, batch: &Batch<'_>) -> Result<Vec<Applied>, Error> {
    let programme = act.programme;
    let tier_id = store::tier::lowest(conn, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let owners = store::field_owner::owners(conn, programme).await?;
    let arrival = clock::now(conn).await?;
    // Rows that the registry takes no notice of, whatever they say, go no further than this: nothing is claimed for them.
    let rows: Vec<Result<&Row, Vec<Violation>>> = batch
        .rows
        .iter()
        .map(|row| match row {
            Ok(row) => row.check_clock(arrival).map(|()| row).map_err(|violation| vec![violation]),
            Err(violations) => Err(violations.clone()),
        })
        .collect();

    let mut work = AtWork::lock(conn, act, batch, &rows, arrival).await?;
    let results = rows
        .iter()
        .map(|row| match row {
            Ok(row) => work.take(row, &owners),
            Err(violations) => Ok(Applied::Rejected(violations.clone())),
        })
        .collect::<Result<Vec<Applied>, Error>>()?;
    if !batch.validate_only {
        work.write(conn, &tier_id).await?;
    }
    Ok(results)
}

/// A member of the batch.
struct Folded {
    person: Person,
    /// None for one that the batch creates.
    stored: Option<(State, Option<SuspensionCause>, TrustLevel, i64)>,
}

/// An identity of the batch.
struct Spoken {
    claim: Claim,
    /// While the rows speak of it; what is stored is the claim's.
    standing: Standing,
    /// One that is new, and of whom the source speaks as of somebody whom it has: a member is made for it.
    kept: bool,
    /// Its deletion was told when it was nobody's.
    buried: bool,
}

impl Spoken {
    /// Whether it ends as another than it was: deleted, or back.
    fn is_turned(&self) -> bool {
        match self.claim.new {
            true => self.kept && self.standing.is_deleted(),
            false => self.standing.is_deleted() != self.claim.standing.is_deleted(),
        }
    }
}

/// A batch at work, with all that it needs locked.
struct AtWork<'a> {
    act: Act<'a>,
    batch: &'a Batch<'a>,
    identities: BTreeMap<String, Spoken>,
    /// External ids of persons who were erased: nothing is kept of their rows.
    suppressed: BTreeSet<String>,
    members: BTreeMap<MemberId, Folded>,
}

impl<'a> AtWork<'a> {
    async fn lock(
        conn: &mut PgConnection,
        act: Act<'a>,
        batch: &'a Batch<'a>,
        rows: &[Result<&Row, Vec<Violation>>],
        arrival: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let (programme, source) = (act.programme, batch.source_system);
        let mut said: BTreeMap<&str, Presence> = BTreeMap::new();
        for row in rows.iter().flatten() {
            let presence = batch.presence(row);
            let last = said.entry(&row.external_id).or_insert(presence);
            *last = presence.max(*last);
        }
        let claims = store::identity::find_or_claim(conn, programme, source, &said, arrival).await?;
        let known: BTreeSet<Uuid> = claims.values().filter(|claim| !claim.new).map(|claim| claim.member.0).collect();
        let known: Vec<Uuid> = known.into_iter().collect();
        let locked = store::member::lock_all(conn, programme, &known).await?;
        if let Some((member, into)) = locked.iter().find_map(|m| Some((m.id, m.merged_into?))) {
            return Err(Refusal::Merged { member, into }.into());
        }
        locked.iter().try_for_each(check_living)?;
        let mut identities: BTreeMap<String, Spoken> = claims
            .into_iter()
            .map(|(id, claim)| (id, Spoken { claim, standing: Standing::default(), kept: false, buried: false }))
            .collect();
        // Nor did anybody undo a merge meanwhile: what was the winner's is another person's again. What was said of them is read under the
        // locks of their members, which whoever says something holds.
        let found: Vec<&str> = identities.iter().filter(|(_, s)| !s.claim.new).map(|(id, _)| id.as_str()).collect();
        for (id, claim) in store::identity::find_all(conn, programme, source, &found).await? {
            let Some(spoken) = identities.get_mut(&id) else { continue };
            if spoken.claim.member != claim.member {
                return Err(Refusal::Merged { member: spoken.claim.member, into: claim.member }.into());
            }
            (spoken.claim, spoken.standing) = (claim, claim.standing);
        }
        let new: BTreeSet<&str> = identities.iter().filter(|(_, s)| s.claim.new).map(|(id, _)| id.as_str()).collect();
        let accepted = rows.iter().flatten().copied();
        let suppressed = suppress::newcomers(conn, programme, batch.keys, source, accepted, &new).await?;
        identities.retain(|id, _| !suppressed.contains(id));
        let new: Vec<&str> = identities.iter().filter(|(_, s)| s.claim.new).map(|(id, _)| id.as_str()).collect();
        if !new.is_empty() {
            for (id, deletion) in store::identity::tombstones(conn, programme, source, &new).await? {
                if let Some(spoken) = identities.get_mut(&id) {
                    (spoken.standing, spoken.buried) = (Standing { last: Some(deletion) }, true);
                }
            }
        }
        let members = locked
            .into_iter()
            .map(|m| {
                let stored = Some((m.state, m.suspension_cause, m.trust_level, m.version));
                (m.id, Folded { person: Person::new(m.record), stored })
            })
            .collect();
        Ok(Self { act, batch, identities, suppressed, members })
    }

    /// Takes a row in.
    fn take(&mut self, row: &Row, owners: &Owners) -> Result<Applied, Error> {
        if self.suppressed.contains(&row.external_id) {
            return Ok(Applied::Done { outcome: Outcome::Suppressed, member: None, ignored: Vec::new() });
        }
        // The identity of every other accepted row was found or claimed.
        let Some(spoken) = self.identities.get_mut(&row.external_id) else { return Err(sqlx::Error::RowNotFound.into()) };
        let Claim { member, new, merged, .. } = spoken.claim;
        let turned = spoken.standing.hear(self.batch.presence(row));
        let known = !new || spoken.kept;
        if row.deleted {
            let outcome = match (turned, spoken.standing.is_deleted()) {
                (true, _) => Outcome::Deleted,
                (false, true) => Outcome::Unchanged,
                (false, false) => Outcome::Stale,
            };
            let member = (known && !(new && self.batch.validate_only)).then_some(member);
            return Ok(Applied::Done { outcome, member, ignored: Vec::new() });
        }
        spoken.kept = true;
        let folded = self.members.entry(member).or_insert_with(|| Folded { person: Person::default(), stored: None });
        let Fold { outcome, ignored } = folded.person.fold(row, self.batch.source_system, owners);
        let outcome = match (known, merged) {
            (false, _) => Outcome::Created,
            (true, true) => Outcome::Merged,
            (true, false) if turned => Outcome::Updated,
            (true, false) => outcome,
        };
        let member = (!(new && self.batch.validate_only)).then_some(member);
        Ok(Applied::Done { outcome, member, ignored })
    }

    async fn write(self, conn: &mut PgConnection, tier_id: &str) -> Result<(), Error> {
        let Self { act, batch, identities, members, .. } = self;
        let programme = act.programme;
        let turned: BTreeSet<MemberId> =
            identities.values().filter(|spoken| spoken.is_turned()).map(|spoken| spoken.claim.member).collect();
        keep_identities(conn, act, batch, &identities).await?;
        let now = clock::now(conn).await?;
        let (mut created, mut updated, mut renamed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut facts, mut changes, mut standings) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut of_consents = Vec::new();
        for (id, Folded { person, stored }) in members {
            let mut fields = person.befores();
            if stored.is_none() || person.is_renamed() {
                renamed.push((id.0, search::names(&person.record.profile)));
            }
            let consents = person.consent_changes();
            let Person { record, changed, stamped, .. } = person;
            let mut changed_fields = Field::paths(changed);
            if stored.is_some() && turned.contains(&id) {
                changed_fields.push(EXTERNAL_IDENTITIES.to_owned());
                fields.push(Before::unkept(EXTERNAL_IDENTITIES));
            }
            let visible = stored.is_none() || !changed_fields.is_empty();
            let (state, suspension_cause, trust_level, version) = match stored {
                None => (State::Active, None, TrustLevel::New, 1),
                Some((state, cause, trust_level, version)) => (state, cause, trust_level, version + i64::from(visible)),
            };
            if visible {
                let fact = pb::MemberChanged { member_id: id.to_string(), created: stored.is_none(), changed_fields, version };
                facts.push(NewFact::new(programme, id.0, &fact));
                of_consents.extend(tell_consents::facts(programme, id, version, &consents));
                let (kind, fields) = match stored {
                    None => (ChangeKind::Created, fields.into_iter().map(|before| Before::unkept(before.path)).collect()),
                    Some(_) => (ChangeKind::Updated, fields),
                };
                let source = batch.source_system.to_owned();
                changes.push(Change { source, ..Change::by_api(id, version, kind, fields) });
            }
            if turned.contains(&id) {
                standings.insert(id, (state, suspension_cause, version));
            }
            let written = Locked { id, record, state, suspension_cause, trust_level, version, merged_into: None };
            match stored {
                None => created.push(written),
                Some(_) if visible || stamped => updated.push(written),
                Some(_) => {}
            }
        }
        store::member::insert_all(conn, programme, tier_id, &created, now).await?;
        store::member::update_all(conn, programme, &updated, now).await?;
        let changed = facts.len() - created.len();
        let turns = settle_all(conn, act, &standings, now).await?;
        for turn in &turns {
            let (kind, fact) = told(programme, turn);
            facts.push(fact);
            let before = standings.get(&turn.member).map_or(State::Active, |(state, ..)| *state);
            let source = batch.source_system.to_owned();
            let reason = Some(SuspensionCause::SourceDeleted.name().to_owned());
            let fields = vec![Before::named(STATE, before.name())];
            changes.push(Change { source, reason, ..Change::by_api(turn.member, turn.version, kind, fields) });
        }
        store::search::put(conn, programme, &renamed).await?;
        store::history::insert_all(conn, programme, &changes, act.actor, now).await?;
        outbox::append(conn, &facts).await?;
        outbox::append(conn, &of_consents).await?;
        if !facts.is_empty() {
            let mut reason = format!("from {}: {} members created, {changed} changed", batch.source_system, created.len());
            if !turns.is_empty() {
                let suspended = turns.iter().filter(|turn| turn.state == State::Suspended).count();
                reason += &format!(", {suspended} suspended, {} reinstated", turns.len() - suspended);
            }
            store::audit::insert(conn, act, batch.method, Uuid::now_v7(), &reason).await?;
        }
        Ok(())
    }
}

/// Writes what was said of the identities, and gives those back that only deletions were heard of.
async fn keep_identities(
    conn: &mut PgConnection,
    act: Act<'_>,
    batch: &Batch<'_>,
    identities: &BTreeMap<String, Spoken>,
) -> Result<(), Error> {
    let (mut heard, mut buried, mut unburied) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (id, spoken) in identities {
        let Some(last) = spoken.standing.last else { continue };
        if spoken.claim.new && !spoken.kept {
            buried.insert(id.as_str(), last);
            continue;
        }
        if spoken.claim.standing.last != Some(last) {
            heard.insert(id.as_str(), last);
        }
        if spoken.buried {
            unburied.push(id.as_str());
        }
    }
    let (programme, source) = (act.programme, batch.source_system);
    store::identity::hear(conn, programme, source, &heard).await?;
    store::identity::bury(conn, programme, source, &buried).await?;
    store::identity::unbury(conn, programme, source, &unburied).await?;
    Ok(())
}

/// Suspends those of whom no identity is left, and reinstates those of whom one is back.
async fn settle_all(
    conn: &mut PgConnection,
    act: Act<'_>,
    standings: &BTreeMap<MemberId, (State, Option<SuspensionCause>, i64)>,
    now: DateTime<Utc>,
) -> Result<Vec<Turn>, Error> {
    if standings.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = standings.keys().map(|id| id.0).collect();
    let live = store::identity::count_live(conn, act.programme, &ids).await?;
    let turns: Vec<Turn> = standings
        .iter()
        .filter_map(|(member, (state, cause, version))| {
            let state = settle(*state, *cause, live.get(member).copied().unwrap_or(0))?;
            let cause = (state == State::Suspended).then_some(SuspensionCause::SourceDeleted);
            Some(Turn { member: *member, state, cause, version: version + 1 })
        })
        .collect();
    store::member::set_states(conn, act.programme, &turns, now).await?;
    for turn in &turns {
        rank_members::show(conn, act.programme, turn.member, turn.state == State::Active).await?;
    }
    Ok(turns)
}

fn told(programme: ProgrammeId, turn: &Turn) -> (ChangeKind, NewFact) {
    let (member_id, version) = (turn.member.to_string(), turn.version);
    match turn.state {
        State::Suspended => {
            let cause = pb::MemberSuspensionCause::SourceDeleted.into();
            let fact = pb::MemberSuspended { member_id, version, cause };
            (ChangeKind::Suspended, NewFact::new(programme, turn.member.0, &fact))
        }
        _ => {
            let fact = pb::MemberReinstated { member_id, version };
            (ChangeKind::Reinstated, NewFact::new(programme, turn.member.0, &fact))
        }
    }
}
