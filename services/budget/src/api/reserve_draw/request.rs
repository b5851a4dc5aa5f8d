//! Asking for money of the reserve, for the first time or for more.

use crate::{
    domain::{
        barred,
        envelope::Envelope,
        plan::{Plan, ResourceClass, Stage},
        reserve_draw::{Decided, Draw, DrawKind, DrawState, Evidence},
        reserve_policy::{ReservePolicy, Way},
    },
    error::{CoolingSubject, Error},
    flow::{
        fact,
        hold_reserve::hold,
        lapse::{self, Waiting},
    },
    ids::{MemberId, OutputId, PlanId, ReserveDrawId},
    store,
};
use chrono::{DateTime, Utc};
use koc_chassis::{fault::Violation, gate::Work, job, members, money::Currency};
use koc_proto::{koc::budget::v1 as pb, rules::Rules};

/// What is asked of the reserve.
#[derive(Debug, Clone)]
pub struct Asked {
    pub plan: Option<PlanId>,
    pub as_of: DateTime<Utc>,
    pub kind: DrawKind,
    pub amount: i64,
    pub member: Option<MemberId>,
    pub output: Option<OutputId>,
    pub evidence: Vec<Evidence>,
    pub decide_by_time: DateTime<Utc>,
}

/// What is asked for a draw that stands.
#[derive(Debug, Clone)]
pub struct MoreAsked {
    pub first: ReserveDrawId,
    pub amount: i64,
    pub evidence: Vec<Evidence>,
    pub decide_by_time: DateTime<Utc>,
}

pub async fn request(work: &mut Work, mut asked: Asked, currency: Currency) -> Result<Draw, Error> {
    let programme = work.programme();
    if let Some(member) = asked.member {
        asked.member = members::group(work.conn(), programme, member).await?.first().copied();
    }
    // Two requests for one output or member do not miss each other.
    if let Some(output) = asked.output {
        store::reserve_draw::lock_output(work.conn(), output).await?;
    }
    if let Some(member) = asked.member {
        store::reserve_draw::lock_member(work.conn(), member).await?;
    }
    let plan = match asked.plan {
        Some(id) => store::plan::find(work.conn(), programme, id).await?.ok_or(Error::PlanNotFound(id))?,
        None => {
            let found = store::plan::active_at(work.conn(), programme, asked.as_of).await?;
            found.ok_or(Error::NoActivePlan(asked.as_of))?
        }
    };
    let reserve = reserve_of(work, &plan).await?;
    let policy = store::reserve_policy::current(work.conn(), &plan).await?;
    let now = work.now().await?;
    in_time(asked.decide_by_time, now)?;
    cooled_down(work, &asked, &policy, now).await?;
    let draw = Draw {
        id: ReserveDrawId::new(),
        programme,
        plan: plan.id,
        envelope: reserve.id,
        kind: asked.kind,
        state: DrawState::Requested,
        amount: asked.amount,
        member: asked.member,
        output: asked.output,
        evidence: asked.evidence,
        decide_by_time: asked.decide_by_time,
        requested_by: work.actor().to_owned(),
        create_time: now,
        policy_version: policy.version,
        approvals_needed: 1,
        approvals: Vec::new(),
        first_draw: None,
        settled: false,
        wholly_spent: false,
        outcome: None,
    };
    let sum = draw.amount;
    place(work, Placing { draw, sum, policy, reserve, currency }, pb::RequestReserveDrawRequest::NAME, None).await
}

pub async fn top_up(work: &mut Work, asked: MoreAsked, reason: String, currency: Currency) -> Result<Draw, Error> {
    let programme = work.programme();
    // Two top-ups of one draw do not miss each other's amounts.
    store::reserve_draw::lock(work.conn(), programme, asked.first).await?;
    let first = store::reserve_draw::find(work.conn(), programme, asked.first).await?;
    let first = first.ok_or(Error::DrawNotFound(asked.first))?;
    first.can_be_topped_up().map_err(|why| Error::of_draw(first.id, why))?;
    let plan = store::plan::find(work.conn(), programme, first.plan).await?.ok_or(Error::PlanNotFound(first.plan))?;
    let reserve = reserve_of(work, &plan).await?;
    let policy = store::reserve_policy::current(work.conn(), &plan).await?;
    let now = work.now().await?;
    in_time(asked.decide_by_time, now)?;
    let standing = store::reserve_draw::standing(work.conn(), first.id).await?;
    let sum = standing.saturating_add(asked.amount);
    let draw = Draw {
        id: ReserveDrawId::new(),
        state: DrawState::Requested,
        amount: asked.amount,
        evidence: asked.evidence,
        decide_by_time: asked.decide_by_time,
        requested_by: work.actor().to_owned(),
        create_time: now,
        policy_version: policy.version,
        approvals_needed: 1,
        approvals: Vec::new(),
        first_draw: Some(first.id),
        settled: false,
        wholly_spent: false,
        outcome: None,
        ..first
    };
    let placing = Placing { draw, sum, policy, reserve, currency };
    place(work, placing, pb::TopUpReserveDrawRequest::NAME, Some(reason)).await
}

/// A new draw, with what decides on it.
struct Placing {
    draw: Draw,
    /// Its amount with those that it adds to.
    sum: i64,
    policy: ReservePolicy,
    reserve: Envelope,
    currency: Currency,
}

/// Approves a new draw where policy does, or lets it wait for people.
async fn place(work: &mut Work, placing: Placing, method: &'static str, reason: Option<String>) -> Result<Draw, Error> {
    let Placing { mut draw, sum, policy, reserve, currency } = placing;
    unbarred(work, &draw).await?;
    let terms = &policy.terms;
    let most = terms.most(reserve.balances.allocated);
    if sum > most {
        return Err(Error::DrawTooLarge { plan: draw.plan, asked: sum, most, currency });
    }
    draw.approvals_needed = terms.people(sum);
    if let Way::Automatic(rule) = terms.way(&draw, sum) {
        match hold(work, &draw, currency, method).await {
            Ok(reservation) => {
                let decided = Decided { by: None, reason: rule.to_owned() };
                let report_due_time = terms.report_due(draw.create_time);
                draw.approvals_needed = 0;
                draw.state = DrawState::Approved { reservation, decided, report_due_time };
            }
            // The money is not there now: a person may decide when it is.
            Err(Error::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    store::reserve_draw::insert(work.conn(), &draw).await?;
    if draw.state == DrawState::Requested {
        let actor = work.actor().to_owned();
        let lapse = job::NewJob {
            kind: Draw::KIND,
            programme: draw.programme,
            subject: draw.id.0,
            step: lapse::STEP,
            state: serde_json::json!({}),
            actor: &actor,
            run_time: Some(draw.decide_by_time),
        };
        job::start(work.conn(), lapse).await?;
    }
    work.audit(draw.id.0, reason);
    work.emit(draw.id.0, &fact::reserve_draw_changed(&draw)).await?;
    Ok(draw)
}

/// Refuses a draw for a member that is barred from it, by what is told of it.
pub(super) async fn unbarred(work: &mut Work, draw: &Draw) -> Result<(), Error> {
    let Some(member) = draw.member else { return Ok(()) };
    let standing = members::standing(work.conn(), draw.programme, member).await?;
    barred::from_draw(draw.kind, &standing).map_or(Ok(()), |why| Err(Error::of_barred(member, why)))
}

/// The reserve of an active plan.
async fn reserve_of(work: &mut Work, plan: &Plan) -> Result<Envelope, Error> {
    if plan.state.stage() != Stage::Active {
        return Err(Error::PlanState { plan: plan.id, is: plan.state.stage(), must_be: Stage::Active });
    }
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    let reserve = envelopes.into_iter().find(|e| e.place.class == ResourceClass::StrategicReserve);
    reserve.ok_or(Error::ReserveMissing(plan.id))
}

fn in_time(decide_by_time: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), Violation> {
    if decide_by_time <= now {
        return Err(Violation::new("decide_by_time", "DECIDE_BY_PAST", "must be in the future"));
    }
    Ok(())
}

/// Refuses while the output or the member cools down, until the later of the two ends.
async fn cooled_down(work: &mut Work, asked: &Asked, policy: &ReservePolicy, now: DateTime<Utc>) -> Result<(), Error> {
    let programme = work.programme();
    let mut cooling: Option<(CoolingSubject, DateTime<Utc>)> = None;
    if let Some(output) = asked.output {
        let last = store::reserve_draw::last_for_output(work.conn(), programme, output).await?;
        cooling = last.map(|last| (CoolingSubject::Output(output), last + policy.terms.output_cool_down()));
    }
    if let Some(member) = asked.member {
        let last = store::reserve_draw::last_for_member(work.conn(), programme, member).await?;
        let until = last.map(|last| last + policy.terms.member_cool_down());
        if let Some(until) = until.filter(|until| cooling.is_none_or(|(_, other)| *until > other)) {
            cooling = Some((CoolingSubject::Member(member), until));
        }
    }
    match cooling {
        Some((subject, until)) if now < until => Err(Error::DrawCoolingDown { subject, until }),
        _ => Ok(()),
    }
}
