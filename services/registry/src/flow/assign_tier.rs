//! A person puts a member into a tier, holds it there, and ends the hold.

use super::{erase_member::check_living, evaluate_tiers};
use crate::{
    domain::tier::{Outcome, Standing, standing::Hold, verdict::risk},
    error::Error,
    store::{
        self,
        tier::{Move, standing::Kept},
    },
};
use chrono::{DateTime, Utc};
use koc_chassis::{fault::Violation, gate::Work, ids::MemberId};

/// What is asked.
pub struct Assignment {
    pub member: MemberId,
    pub tier_id: String,
    /// None: until somebody ends it.
    pub hold_end: Option<DateTime<Utc>>,
    pub reason: String,
}

/// Puts a member into a tier and holds it there.
pub async fn assign(work: &mut Work, asked: Assignment) -> Result<Move, Error> {
    let (programme, tier_id) = (work.programme(), asked.tier_id.clone());
    let tiers = store::tier::list(work.conn(), programme).await?;
    if !tiers.iter().any(|tier| tier.id == tier_id) {
        return Err(Error::TierNotFound { tier_id });
    }
    put(work, asked.member, asked.reason, |now, standing| {
        if asked.hold_end.is_some_and(|end| end <= now) {
            return Err(Violation::new("hold_end_time", "HOLD_TIME_PAST", "must be in the future").into());
        }
        // What was measured before counts neither for the member nor against it.
        let counted_to = standing.counted_to.max(Some(now));
        let standing = Standing { counted_to, review: None, hold: Some(Hold { end: asked.hold_end }) };
        Ok((Outcome::Assigned, Some(tier_id), standing))
    })
    .await
}

/// Ends a hold.
pub async fn end(work: &mut Work, member: MemberId, reason: String) -> Result<Move, Error> {
    put(work, member, reason, |now, standing| match standing.hold.filter(|hold| hold.stands(now)) {
        None => Err(Error::TierNotHeld { member }),
        Some(_) => Ok((Outcome::HoldEnded, None, Standing { hold: None, ..standing })),
    })
    .await
}

/// Writes what `decide` makes of a member's standing, and the tier it puts it into.
async fn put(
    work: &mut Work,
    member: MemberId,
    reason: String,
    decide: impl FnOnce(DateTime<Utc>, Standing) -> Result<(Outcome, Option<String>, Standing), Error> + Send,
) -> Result<Move, Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let locked = store::member::lock(work.conn(), programme, member).await?;
    let locked = locked.ok_or(Error::MemberNotFound { member: Some(member) })?;
    check_living(&locked)?;
    let member = locked.id;
    work.audit(member.0, Some(reason.clone()));
    let candidate = store::tier::standing::candidate(work.conn(), programme, member).await?;
    let mut candidate = candidate.ok_or(Error::MemberNotFound { member: Some(member) })?;
    let policy = store::tier::policy::active(work.conn(), programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let tiers = store::tier::list(work.conn(), programme).await?;
    let now = work.now().await?;
    let (outcome, to, standing) = decide(now, candidate.standing)?;
    let from_tier_id = candidate.tier_id.clone();
    let to_tier_id = to.unwrap_or_else(|| from_tier_id.clone());
    if to_tier_id != from_tier_id {
        candidate.tier_since = now;
    }
    (candidate.tier_id, candidate.standing) = (to_tier_id.clone(), standing);
    let kept = Kept { member, standing, risk: risk(&candidate, &tiers, &policy.rules) };
    store::tier::standing::put(work.conn(), programme, &[kept]).await?;
    let (policy_version, readings) = (policy.version, Vec::new());
    let made = Move { member, from_tier_id, to_tier_id, outcome, reason, policy_version, readings, actor, time: now };
    let actor = made.actor.clone();
    evaluate_tiers::apply(work.conn(), programme, std::slice::from_ref(&made), &actor, now).await?;
    Ok(made)
}
