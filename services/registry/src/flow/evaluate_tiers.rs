//! Judging members by the policy in force: one transaction under the programme's lock, so that two evaluations never see the same member at
//! once and room in a tier is given away once. What was judged gives nothing new when it is judged again, so neither a retry nor a crash
//! between two parts moves anybody twice.

use super::award_badges;
use crate::{
    domain::{
        history::{Before, Change, ChangeKind, TIER_ID},
        tier::{Candidate, Outcome, Policy, Rooms, Tier, judge, verdict::risk},
    },
    error::Error,
    store::{
        self,
        tier::{Move, standing::Kept},
    },
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    gate::Work,
    ids::ProgrammeId,
    outbox::{self, NewFact},
};
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use uuid::Uuid;

/// Members judged in one evaluation: it is one transaction that holds them all, and one answer that names them all.
const MAX_JUDGED: usize = 1_000;

/// What an evaluation made of members.
pub struct Evaluated {
    /// Also of members that stay as they are.
    pub moves: Vec<Move>,
    /// The last one judged, when there may be more.
    pub last: Option<Uuid>,
    /// By which they were judged.
    pub policy: Policy,
}

/// Judges the members after one of them that are due.
pub async fn evaluate(work: &mut Work, after: Uuid) -> Result<Evaluated, Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::ProgrammeNotFound { programme });
    }
    let policy = store::tier::policy::active(work.conn(), programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let tiers = store::tier::list(work.conn(), programme).await?;
    let due = store::tier::standing::due(work.conn(), programme, after, MAX_JUDGED as i64).await?;
    let last = due.get(MAX_JUDGED - 1).copied();
    // In a statement of its own, so that what is read afterwards is as it is under the locks.
    let locked = store::tier::standing::lock(work.conn(), programme, &due).await?;
    let candidates = store::tier::standing::candidates(work.conn(), programme, &locked).await?;
    let mut rooms = rooms(work.conn(), programme, &policy).await?;
    let now = work.now().await?;
    let (mut moves, mut kept) = (Vec::with_capacity(candidates.len()), Vec::new());
    for candidate in candidates {
        let (told, standing) = judged(candidate, &tiers, &policy, &mut rooms, &actor, now);
        kept.push(standing);
        moves.push(told);
    }
    store::tier::standing::put(work.conn(), programme, &kept).await?;
    let changed: Vec<Move> = moves.iter().filter(|m| m.outcome != Outcome::Stayed).cloned().collect();
    apply(work.conn(), programme, &changed, &actor, now).await?;
    Ok(Evaluated { moves, last, policy })
}

/// How many more members tiers take. The programme is locked.
pub async fn rooms(conn: &mut PgConnection, programme: ProgrammeId, policy: &Policy) -> Result<Rooms, Error> {
    let limits = Rooms::limits(&policy.rules, MAX_JUDGED as i64);
    let members = store::tier::standing::count_up_to(conn, programme, &limits).await?;
    Ok(Rooms::new(&policy.rules, &members))
}

fn judged(
    mut candidate: Candidate,
    tiers: &[Tier],
    policy: &Policy,
    rooms: &mut Rooms,
    actor: &str,
    now: DateTime<Utc>,
) -> (Move, Kept) {
    let verdict = judge(&candidate, tiers, &policy.rules, rooms, now);
    rooms.moved(&candidate.tier_id, &verdict.to_tier_id);
    let readings = candidate.periods(&policy.rules).into_iter().cloned().collect();
    let told = Move {
        member: candidate.member,
        from_tier_id: candidate.tier_id.clone(),
        to_tier_id: verdict.to_tier_id.clone(),
        outcome: verdict.outcome,
        reason: verdict.reason,
        policy_version: policy.version,
        readings,
        actor: actor.to_owned(),
        time: now,
    };
    if told.leads() {
        candidate.tier_since = now;
    }
    candidate.standing = verdict.standing;
    candidate.standing.hold = candidate.standing.hold.filter(|hold| hold.stands(now));
    candidate.tier_id = verdict.to_tier_id;
    let risk = risk(&candidate, tiers, &policy.rules);
    let kept = Kept { member: candidate.member, standing: candidate.standing, risk };
    (told, kept)
}

/// Writes what became of members, other than that they stay as they are: their tiers, history, facts and badges. The members are locked.
pub async fn apply(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    moves: &[Move],
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let versions = store::tier::put_tiers(conn, programme, moves, now).await?;
    store::tier::insert_moves(conn, programme, moves).await?;
    let led: Vec<&Move> = moves.iter().filter(|m| m.leads()).collect();
    let moved: Vec<Uuid> = led.iter().map(|m| m.member.0).collect();
    store::tier::consume_proposals(conn, programme, &moved, now).await?;
    let change = |m: &&Move| {
        let fields = vec![Before::named(TIER_ID, &m.from_tier_id)];
        versions.get(&m.member).map(|version| Change::by_api(m.member, *version, ChangeKind::Updated, fields))
    };
    let changes: Vec<Change> = led.iter().filter_map(change).collect();
    store::history::insert_all(conn, programme, &changes, actor, now).await?;
    let facts: Vec<NewFact> = moves.iter().filter_map(|m| fact(programme, m)).collect();
    outbox::append(conn, &facts).await?;
    award_badges::award_changed(conn, programme, &moved, actor, now).await
}

/// What a move tells; None for a hold, which changes nothing that others see.
fn fact(programme: ProgrammeId, m: &Move) -> Option<NewFact> {
    let time = Some(clock::to_proto(m.time));
    if m.leads() {
        let fact = pb::MemberTierChanged {
            member_id: m.member.to_string(),
            from_tier_id: m.from_tier_id.clone(),
            to_tier_id: m.to_tier_id.clone(),
            policy_version: m.policy_version,
            move_time: time,
        };
        return Some(NewFact::new(programme, m.member.0, &fact));
    }
    if !matches!(m.outcome, Outcome::Reviewed | Outcome::Dormant | Outcome::Cleared) {
        return None;
    }
    let fact = pb::MemberTierReviewed {
        member_id: m.member.to_string(),
        tier_id: m.to_tier_id.clone(),
        under_review: m.outcome != Outcome::Cleared,
        dormant: m.outcome == Outcome::Dormant,
        policy_version: m.policy_version,
        review_time: time,
    };
    Some(NewFact::new(programme, m.member.0, &fact))
}
