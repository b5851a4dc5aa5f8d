//! Deciding on a draw, and closing it.

use super::request::unbarred;
use crate::{
    domain::{
        reserve_draw::{Approval, Approving, Decided, Draw, DrawState, Evidence, Outcome},
        reserve_policy::ReservePolicy,
    },
    error::Error,
    flow::{fact, hold_reserve::hold, lapse::Waiting},
    ids::ReserveDrawId,
    store::{self, reserve_draw::Wanted},
};
use koc_chassis::{gate::Work, job, money::Currency};
use koc_proto::{koc::budget::v1 as pb, rules::Rules};

/// The most top-ups of a draw that a report reads; each takes people or a part of a bounded sum.
const MAX_TOP_UPS: i64 = 10_000;

pub async fn approve(work: &mut Work, id: ReserveDrawId, reason: String, currency: Currency) -> Result<Draw, Error> {
    let (mut draw, first) = locked(work, id).await?;
    let (now, actor) = (work.now().await?, work.actor().to_owned());
    unbarred(work, &draw).await?;
    let approving = draw.approvable(first.as_ref(), &actor, now).map_err(|why| Error::of_draw(id, why))?;
    let approval = Approval { by: actor.clone(), reason: reason.clone(), time: now };
    store::reserve_draw::approve(work.conn(), &mut draw, approval).await?;
    if approving == Approving::Wholly {
        let policy = policy_of(work, &draw).await?;
        let reservation = hold(work, &draw, currency, pb::ApproveReserveDrawRequest::NAME).await?;
        let decided = Decided { by: Some(actor), reason: reason.clone() };
        let report_due_time = policy.terms.report_due(now);
        settle(work, &mut draw, DrawState::Approved { reservation, decided, report_due_time }).await?;
    }
    told(work, &draw, reason).await?;
    Ok(draw)
}

pub async fn reject(work: &mut Work, id: ReserveDrawId, reason: String) -> Result<Draw, Error> {
    let (mut draw, first) = locked(work, id).await?;
    let (now, actor) = (work.now().await?, work.actor().to_owned());
    draw.decidable(first.as_ref(), &actor, now).map_err(|why| Error::of_draw(id, why))?;
    let decided = Decided { by: Some(actor), reason: reason.clone() };
    settle(work, &mut draw, DrawState::Rejected { decided }).await?;
    told(work, &draw, reason).await?;
    Ok(draw)
}

pub async fn report(work: &mut Work, id: ReserveDrawId, value: i64, figures: Vec<Evidence>, note: String) -> Result<Draw, Error> {
    let (mut draw, _) = locked(work, id).await?;
    let programme = work.programme();
    let wanted = Wanted { first: Some(id), ..Wanted::default() };
    let mut top_ups = store::reserve_draw::list(work.conn(), programme, &wanted, MAX_TOP_UPS).await?;
    let now = work.now().await?;
    draw.reportable(&top_ups).map_err(|why| Error::of_draw(id, why))?;
    let outcome = Outcome { value, figures, note: note.clone(), reported_by: work.actor().to_owned(), report_time: now };
    store::reserve_draw::report(work.conn(), id, &outcome).await?;
    for top_up in top_ups.iter_mut().filter(|top_up| top_up.reservation().is_some()) {
        top_up.outcome = Some(outcome.clone());
        work.emit(top_up.id.0, &fact::reserve_draw_changed(top_up)).await?;
    }
    draw.outcome = Some(outcome);
    told(work, &draw, note).await?;
    Ok(draw)
}

/// A draw, locked, with the one that it adds to.
async fn locked(work: &mut Work, id: ReserveDrawId) -> Result<(Draw, Option<Draw>), Error> {
    let programme = work.programme();
    store::reserve_draw::lock(work.conn(), programme, id).await?;
    let draw = store::reserve_draw::find(work.conn(), programme, id).await?.ok_or(Error::DrawNotFound(id))?;
    let first = match draw.first_draw {
        Some(first) => store::reserve_draw::find(work.conn(), programme, first).await?,
        None => None,
    };
    Ok((draw, first))
}

/// The policy that a draw is decided by.
async fn policy_of(work: &mut Work, draw: &Draw) -> Result<ReservePolicy, Error> {
    let (plan, version) = (draw.plan, draw.policy_version);
    let programme = work.programme();
    let found = store::plan::find(work.conn(), programme, plan).await?.ok_or(Error::PlanNotFound(plan))?;
    let policy = store::reserve_policy::version(work.conn(), &found, version).await?;
    policy.ok_or(Error::PolicyVersionNotFound { plan, version })
}

async fn settle(work: &mut Work, draw: &mut Draw, state: DrawState) -> Result<(), Error> {
    store::reserve_draw::set_state(work.conn(), draw, state).await?;
    job::cancel(work.conn(), draw.id.0, Draw::KIND).await?;
    Ok(())
}

async fn told(work: &mut Work, draw: &Draw, reason: String) -> Result<(), Error> {
    work.audit(draw.id.0, Some(reason));
    work.emit(draw.id.0, &fact::reserve_draw_changed(draw)).await?;
    Ok(())
}
