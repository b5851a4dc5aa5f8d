//! Merging two members, and parting them again, each in one transaction under the locks of both members and both accounts.

use super::{
    award_badges,
    erase_member::check_living,
    move_points::{self, Moves},
    rank_members::{self, Gains},
    tell_consents,
};
use crate::{
    domain::{
        badge::{Award, AwardId, AwardOrigin, MERGE_SOURCE},
        consent::{self, Purpose},
        history::{Before, Change, ChangeKind, STATE},
        leaderboard::Board,
        member::{State, SuspensionCause},
        merge::{self, MergeId, Refusal, Standing, Taken},
        points::{Account, Act, Entry, EntryId},
        profile::Field,
        sync::Person,
    },
    error::Error,
    store::{
        self,
        member::{Locked, Turn},
        merge::Merge,
        points::Wanted,
    },
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    gate::Work,
    ids::{MemberId, ProgrammeId},
    outbox::{self, NewFact},
    page,
};
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// What a member's changed identities are called in facts.
const EXTERNAL_IDENTITIES: &str = "external_identities";

/// What it is called in facts that a merged member leads to another one than before.
const MERGED_INTO: &str = "merged_into_member_id";

/// A merge at work: who acts, when, and on whom.
struct Pair<'a> {
    programme: ProgrammeId,
    actor: &'a str,
    now: DateTime<Utc>,
    reason: &'a str,
    winner: Locked,
    loser: Locked,
}

/// Merges `loser` into `winner`, whose etag may be given.
pub async fn merge(work: &mut Work, winner: MemberId, loser: MemberId, etag: &str, reason: &str) -> Result<(), Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let [winner, loser] = lock(work.conn(), programme, winner, loser).await?;
    if !page::etag_matches(etag, winner.version) {
        return Err(Error::EtagMismatch { member: winner.id, version: winner.version });
    }
    let standing = |locked: &Locked| Standing { member: locked.id, state: locked.state, merged_into: locked.merged_into };
    let count = store::merge::count(work.conn(), programme, &[winner.id.0, loser.id.0]).await? + 1;
    merge::check([standing(&winner), standing(&loser)], count)?;
    let mut accounts = lock_accounts(work.conn(), programme, [winner.id, loser.id]).await?;
    let now = work.now().await?;
    let pair = Pair { programme, actor: &actor, now, reason, winner, loser };

    let id = MergeId::new();
    let (taken, mut fields, befores) = pair.take_fields(work.conn()).await?;
    let led = store::merge::redirect(work.conn(), programme, pair.loser.id, pair.winner.id, now).await?;
    if store::merge::move_identities(work.conn(), programme, pair.loser.id, pair.winner.id).await? > 0 {
        fields.push(EXTERNAL_IDENTITIES.to_owned());
    }
    let awards = pair.copy_awards(work.conn(), id).await?;
    let (lifetime, boards) = pair.move_points(work.conn(), id, &mut accounts).await?;
    let badges = award_badges::by_rule(work.conn(), programme).await?;
    award_badges::award(work.conn(), programme, &[pair.winner.id.0], &badges, &actor, now).await?;
    let merge = Merge {
        id,
        winner: pair.winner.id,
        loser: pair.loser.id,
        winner_version: pair.winner.version + 1,
        taken,
        lifetime,
        boards,
        awards,
    };
    store::merge::insert(work.conn(), programme, &merge, &actor, now).await?;
    store::search::remove(work.conn(), programme, pair.loser.id).await?;
    store::search::put_stored(work.conn(), programme, &[pair.winner.id.0]).await?;
    pair.keep(work.conn(), [(ChangeKind::TookIn, befores), (ChangeKind::MergedInto, Vec::new())]).await?;
    let fact = pb::MemberMerged {
        merge_id: id.to_string(),
        loser_member_id: pair.loser.id.to_string(),
        winner_member_id: pair.winner.id.to_string(),
    };
    pair.tell(work.conn(), NewFact::new(programme, pair.loser.id.0, &fact), fields, led).await?;
    work.audit(pair.loser.id.0, Some(reason.to_owned()));
    Ok(())
}

/// Undoes the merge of `loser`, which must be the last that its winner took part in.
pub async fn unmerge(work: &mut Work, loser: MemberId, reason: &str) -> Result<MemberId, Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let not_merged = Refusal::NotMerged { member: loser };
    let found = store::merge::of_loser(work.conn(), programme, loser).await?;
    let Some(found) = found else {
        let there = store::member::exists(work.conn(), programme, loser).await?;
        return Err(if there { not_merged.into() } else { Error::MemberNotFound { member: Some(loser) } });
    };
    let [winner, loser] = lock(work.conn(), programme, found.winner, loser).await?;
    // Another call may have been quicker: what was read before the locks is read again.
    let merge = store::merge::of_loser(work.conn(), programme, loser.id).await?.filter(|merge| merge.id == found.id);
    let merge = merge.ok_or(not_merged)?;
    check_living(&winner)?;
    let first = match winner.merged_into {
        Some(_) => Some(winner.id),
        None => store::merge::last_loser(work.conn(), programme, winner.id).await?.filter(|last| *last != loser.id),
    };
    if let Some(first) = first {
        return Err(Refusal::NotLast { member: loser.id, first }.into());
    }
    let mut accounts = lock_accounts(work.conn(), programme, [winner.id, loser.id]).await?;
    let now = work.now().await?;
    let pair = Pair { programme, actor: &actor, now, reason, winner, loser };

    let (mut fields, befores) = pair.return_fields(work.conn(), &merge).await?;
    let followers = store::merge::followers(work.conn(), programme, pair.loser.id).await?;
    let led = store::merge::restore(work.conn(), programme, pair.loser.id, &followers, now).await?;
    if store::merge::return_identities(work.conn(), programme, pair.loser.id, pair.winner.id, &followers).await? > 0 {
        fields.push(EXTERNAL_IDENTITIES.to_owned());
    }
    store::merge::undo(work.conn(), programme, merge.id, &actor, now).await?;
    pair.revoke_awards(work.conn(), &merge.awards).await?;
    pair.return_points(work.conn(), &merge, &mut accounts).await?;
    store::search::put_stored(work.conn(), programme, &[pair.winner.id.0, pair.loser.id.0]).await?;
    let (inherited, told) = pair.inherit(work.conn(), &merge).await?;
    pair.keep(work.conn(), [(ChangeKind::GaveBack, befores), (ChangeKind::Unmerged, inherited)]).await?;
    let fact = pb::MemberUnmerged {
        merge_id: merge.id.to_string(),
        loser_member_id: pair.loser.id.to_string(),
        winner_member_id: pair.winner.id.to_string(),
    };
    pair.tell(work.conn(), NewFact::new(programme, pair.loser.id.0, &fact), fields, led).await?;
    outbox::append(work.conn(), &told).await?;
    work.audit(pair.loser.id.0, Some(reason.to_owned()));
    Ok(pair.winner.id)
}

/// Locks two members, whatever they lead to, in the order of their ids.
async fn lock(conn: &mut PgConnection, programme: ProgrammeId, winner: MemberId, loser: MemberId) -> Result<[Locked; 2], Error> {
    let mut found = store::member::lock_all(conn, programme, &[winner.0, loser.0]).await?;
    let mut take = |id: MemberId| {
        let at = found.iter().position(|locked| locked.id == id);
        at.map(|at| found.swap_remove(at)).ok_or(Error::MemberNotFound { member: Some(id) })
    };
    Ok([take(winner)?, take(loser)?])
}

/// The accounts of both with all open lots.
async fn lock_accounts(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    ids: [MemberId; 2],
) -> Result<BTreeMap<MemberId, Account>, Error> {
    let mut accounts = store::points::lock_all(conn, programme, &ids.map(|id| id.0)).await?;
    for account in accounts.values_mut() {
        store::points::load_lots(conn, programme, account, Wanted::All).await?;
    }
    Ok(accounts)
}

impl Pair<'_> {
    /// Lets the winner take what is newer of the loser. Gives what it took, the paths that changed for callers, and what was there before.
    async fn take_fields(&self, conn: &mut PgConnection) -> Result<(Taken, Vec<String>, Vec<Before>), Error> {
        let mut person = Person::new(self.winner.record.clone());
        let taken = person.absorb(&self.loser.record, &store::field_owner::owners(conn, self.programme).await?);
        let (fields, befores) = self.write_winner(conn, person).await?;
        Ok((taken, fields, befores))
    }

    /// Puts back what the winner held before, where nobody has written it since.
    async fn return_fields(&self, conn: &mut PgConnection, merge: &Merge) -> Result<(Vec<String>, Vec<Before>), Error> {
        let befores = store::merge::befores(conn, self.programme, self.winner.id, merge.winner_version).await?;
        let mut person = Person::new(self.winner.record.clone());
        person.give_back(&merge.taken, &befores).map_err(|error| sqlx::Error::Decode(error.into()))?;
        self.write_winner(conn, person).await
    }

    /// Lets what stopped while the two were one stop for the loser too: nobody said which of them it was meant for. That is the winner's
    /// suspension, as nobody is merged who is suspended, and consents that were withdrawn since. Gives what was there before, and facts.
    async fn inherit(&self, conn: &mut PgConnection, merge: &Merge) -> Result<(Vec<Before>, Vec<NewFact>), Error> {
        let (id, version) = (self.loser.id, self.loser.version + 1);
        let since = store::history::changed_since(conn, self.programme, self.winner.id, merge.winner_version).await?;
        let mut person = Person::new(self.loser.record.clone());
        let withdrawn = |purpose: Purpose| consent::withdrawn(&self.winner.record.profile.consents, purpose);
        for purpose in Purpose::ALL.iter().copied().filter(|purpose| withdrawn(*purpose)) {
            let field = Field::Consent(purpose);
            if since.contains(&field.own_path()) && !consent::withdrawn(&self.loser.record.profile.consents, purpose) {
                person.overwrite([field], &self.winner.record.profile, self.now);
            }
        }
        let (mut befores, mut changed_fields, consents) =
            (person.befores(), Field::paths(person.changed.clone()), person.consent_changes());
        let loser = Locked { record: person.record, version, ..self.loser.clone() };
        store::member::update_all(conn, self.programme, &[loser], self.now).await?;
        let suspended = self.winner.state == State::Suspended;
        if suspended {
            let turn = Turn { member: id, state: State::Suspended, cause: self.winner.suspension_cause, version };
            store::member::set_states(conn, self.programme, &[turn], self.now).await?;
            rank_members::show(conn, self.programme, id, false).await?;
            befores.push(Before::named(STATE, self.loser.state.name()));
            changed_fields.push(STATE.to_owned());
        }
        let member_id = id.to_string();
        let mut told = Vec::new();
        if !changed_fields.is_empty() {
            let changed = pb::MemberChanged { member_id: member_id.clone(), created: false, changed_fields, version };
            told.push(NewFact::new(self.programme, id.0, &changed));
        }
        if suspended {
            let cause = match self.winner.suspension_cause {
                Some(SuspensionCause::SourceDeleted) => pb::MemberSuspensionCause::SourceDeleted,
                Some(SuspensionCause::Caller) | None => pb::MemberSuspensionCause::Caller,
            };
            told.push(NewFact::new(self.programme, id.0, &pb::MemberSuspended { member_id, version, cause: cause.into() }));
        }
        told.extend(tell_consents::facts(self.programme, id, version, &consents));
        Ok((befores, told))
    }

    async fn write_winner(&self, conn: &mut PgConnection, person: Person) -> Result<(Vec<String>, Vec<Before>), Error> {
        let (befores, consents, version) = (person.befores(), person.consent_changes(), self.winner.version + 1);
        let fields = Field::paths(person.changed);
        outbox::append(conn, &tell_consents::facts(self.programme, self.winner.id, version, &consents)).await?;
        let winner = Locked { record: person.record, version: self.winner.version + 1, ..self.winner.clone() };
        store::member::update_all(conn, self.programme, &[winner], self.now).await?;
        Ok((fields, befores))
    }

    /// Gives the winner the badges that the loser holds and it does not, or not from the same source.
    async fn copy_awards(&self, conn: &mut PgConnection, merge: MergeId) -> Result<Vec<AwardId>, Error> {
        let theirs = store::badge::standing_awards(conn, self.programme, self.loser.id).await?;
        if theirs.is_empty() {
            return Ok(Vec::new());
        }
        let ours = store::badge::all_awards(conn, self.programme, self.winner.id).await?;
        let repeatable: BTreeSet<String> = store::badge::list(conn, self.programme, "", None)
            .await?
            .into_iter()
            .filter_map(|badge| badge.repeatable.then_some(badge.id))
            .collect();
        let mut held: BTreeSet<String> =
            ours.iter().filter(|award| award.revoke_time.is_none()).map(|award| award.badge_id.clone()).collect();
        let mut awards = Vec::new();
        for award in theirs {
            let same = |other: &&Award| match (&award.origin, &other.origin) {
                (AwardOrigin::Hand(one), AwardOrigin::Hand(other)) if one == other => true,
                (theirs, AwardOrigin::Rule(_)) => theirs.is_by_rule(),
                (theirs, ours) => theirs.is_by_rule() && ours.is_by_rule() && other.revoke_time.is_none(),
            };
            let given = ours.iter().filter(|other| other.badge_id == award.badge_id).find(same).is_some();
            if given || (held.contains(&award.badge_id) && !repeatable.contains(&award.badge_id)) {
                continue;
            }
            held.insert(award.badge_id.clone());
            let (id, actor) = (AwardId::new(), self.actor.to_owned());
            // What the loser's conditions gave is the merge's here: when that is undone, the winner's own can give it yet.
            let origin = match award.origin.is_by_rule() {
                true => AwardOrigin::Hand(format!("{MERGE_SOURCE}{merge}")),
                false => award.origin.clone(),
            };
            awards.push(Award { id, member: self.winner.id, origin, actor, award_time: self.now, ..award });
        }
        award_badges::keep(conn, self.programme, &awards).await?;
        Ok(awards.into_iter().map(|award| award.id).collect())
    }

    /// Takes back what the winner was given for the loser's badges, unless somebody else has.
    async fn revoke_awards(&self, conn: &mut PgConnection, awards: &[AwardId]) -> Result<(), Error> {
        let standing = store::badge::standing_awards(conn, self.programme, self.winner.id).await?;
        let mut facts = Vec::new();
        for award in standing.into_iter().filter(|award| awards.contains(&award.id)) {
            store::badge::revoke(conn, self.programme, award.id, "unmerged", self.actor, self.now).await?;
            let fact = pb::BadgeRevoked {
                member_id: award.member.to_string(),
                award_id: award.id.to_string(),
                badge_id: award.badge_id,
            };
            facts.push(NewFact::new(self.programme, award.member.0, &fact));
        }
        outbox::append(conn, &facts).await?;
        Ok(())
    }

    /// Moves the loser's points to the winner. Gives the lifetime points, and those on boards.
    async fn move_points(
        &self,
        conn: &mut PgConnection,
        id: MergeId,
        accounts: &mut BTreeMap<MemberId, Account>,
    ) -> Result<(i64, BTreeMap<String, i64>), Error> {
        let scores = store::leaderboard::of_member(conn, self.programme, self.loser.id).await?;
        let boards: BTreeMap<String, i64> =
            scores.into_iter().filter(|score| score.points > 0).map(|score| (score.board, score.points)).collect();
        let mut lifetime = 0;
        self.shift_points(conn, accounts, &boards, 1, |winner, loser, act| {
            let (out, parcel) = loser.move_out(id.0, act);
            lifetime = parcel.lifetime;
            out.into_iter().chain(winner.move_in(id.0, parcel, act)).collect()
        })
        .await?;
        Ok((lifetime, boards))
    }

    async fn return_points(
        &self,
        conn: &mut PgConnection,
        merge: &Merge,
        accounts: &mut BTreeMap<MemberId, Account>,
    ) -> Result<(), Error> {
        self.shift_points(conn, accounts, &merge.boards, -1, |winner, loser, act| {
            let (out, parcel) = winner.move_back(merge.id.0, merge.lifetime, act);
            out.into_iter().chain(loser.take_home(merge.id.0, parcel, act)).collect()
        })
        .await
    }

    /// Lets what is overdue expire, moves points as `shift` says, and moves places on boards with them: to the winner, or with a sign of
    /// -1 from it.
    async fn shift_points(
        &self,
        conn: &mut PgConnection,
        accounts: &mut BTreeMap<MemberId, Account>,
        boards: &BTreeMap<String, i64>,
        sign: i64,
        shift: impl FnOnce(&mut Account, &mut Account, &mut Act<'_>) -> Vec<Entry>,
    ) -> Result<(), Error> {
        let before = accounts.clone();
        let mut ids = EntryId::new;
        let mut act = Act { actor: self.actor, now: self.now, ids: &mut ids };
        let (Some(mut winner), Some(mut loser)) = (accounts.remove(&self.winner.id), accounts.remove(&self.loser.id)) else {
            return Err(sqlx::Error::RowNotFound.into());
        };
        let mut entries = winner.expire_due(&mut act);
        entries.extend(loser.expire_due(&mut act));
        entries.extend(shift(&mut winner, &mut loser, &mut act));
        accounts.extend([(winner.member, winner), (loser.member, loser)]);
        let mut gains = Gains::new();
        for (board, points) in boards {
            let Some(board) = Board::parse(board) else { continue };
            gains.insert((board, self.winner.id), sign * points);
            gains.insert((board, self.loser.id), -sign * points);
        }
        let moves = Moves { entries, draws: Vec::new(), gains };
        move_points::write(conn, self.programme, moves, &before, accounts, self.actor).await
    }

    /// Keeps what changed of the winner, and of the loser.
    async fn keep(&self, conn: &mut PgConnection, changes: [(ChangeKind, Vec<Before>); 2]) -> Result<(), Error> {
        let [winner, loser] = changes;
        let change = |(kind, fields), of: &Locked, other: MemberId| Change {
            other: Some(other),
            reason: Some(self.reason.to_owned()),
            ..Change::by_api(of.id, of.version + 1, kind, fields)
        };
        let changes = [change(winner, &self.winner, self.loser.id), change(loser, &self.loser, self.winner.id)];
        store::history::insert_all(conn, self.programme, &changes, self.actor, self.now).await?;
        Ok(())
    }

    /// Publishes the merge, what changed of the winner, and that others are led elsewhere by it: nothing but their own events tells that to who
    /// keeps members by their ids.
    async fn tell(
        &self,
        conn: &mut PgConnection,
        fact: NewFact,
        changed_fields: Vec<String>,
        led: Vec<(MemberId, i64)>,
    ) -> Result<(), Error> {
        let changed = pb::MemberChanged {
            member_id: self.winner.id.to_string(),
            created: false,
            changed_fields,
            version: self.winner.version + 1,
        };
        let mut facts = vec![fact, NewFact::new(self.programme, self.winner.id.0, &changed)];
        for (member, version) in led {
            let changed_fields = vec![MERGED_INTO.to_owned()];
            let changed = pb::MemberChanged { member_id: member.to_string(), created: false, changed_fields, version };
            facts.push(NewFact::new(self.programme, member.0, &changed));
        }
        outbox::append(conn, &facts).await?;
        Ok(())
    }
}
