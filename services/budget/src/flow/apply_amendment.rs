//! What an amendment does once it is approved, in the transaction of the last approval: all of it or nothing.
//!
//! The plans' rows are locked before, by id; here their envelopes are. From then on no money moves in them but by this, so what is decided
//! upon holds when it is written. A reservation that came first has its money, and one that comes later finds what is left.

use super::{
    fact,
    post_operations::{asked, post_all},
};
use crate::{
    domain::{
        amendment::{Amendment, AmendmentKind, Closing, Line, MAX_RELEASED, OpenReservations, carry_over_target, diff},
        books::Command,
        envelope::{Envelope, Tree},
        plan::{Plan, Stage},
        refusal::Refusal,
        reserve_policy::ReservePolicy,
    },
    error::Error,
    ids::{AmendmentId, EnvelopeId, ReservationId},
    store::{self, envelope::Added, operation::Operation},
};
use koc_chassis::{gate::Work, money::Currency};
use uuid::Uuid;

/// What an amendment asks of the ledger; together with the amendment and what is moved it is the operation's key.
const APPLY: &str = "koc.budget.amendment.Apply";

/// The plans that an amendment concerns, locked.
pub struct Plans {
    pub plan: Plan,
    /// The one that is carried over into.
    pub carry_over: Option<Plan>,
}

impl Plans {
    /// Checks that they take changes of this kind now: both are active, and the first may be closed when it is to be closed again.
    pub fn must_take(&self, kind: AmendmentKind) -> Result<(), Error> {
        let again = kind == AmendmentKind::Close && self.plan.state.stage() == Stage::Closed;
        for plan in (!again).then_some(&self.plan).into_iter().chain(&self.carry_over) {
            plan.state.must_be(Stage::Active).map_err(|why| Error::of_plan(plan.id, why))?;
        }
        Ok(())
    }
}

/// Does what the amendment says. Refused, it is to be rolled back.
pub async fn apply(work: &mut Work, amendment: &mut Amendment, plans: &mut Plans, currency: Currency) -> Result<(), Error> {
    plans.must_take(amendment.kind)?;
    let commands = match amendment.closing {
        Some(closing) => {
            let found = survey(work, plans, closing).await?;
            (amendment.total_before, amendment.total_after) = (found.total_before, found.total_after);
            amendment.lines = found.lines;
            let release = |reservation: &ReservationId| Command::Release { reservation: *reservation, amount: None };
            found.open.iter().map(release).chain(moves(&amendment.lines)).collect()
        }
        None => {
            store::envelope::lock_all(work.conn(), &[plans.plan.id]).await?;
            check_parents(work, &amendment.lines).await?;
            add_envelopes(work, &plans.plan, &amendment.lines).await?;
            moves(&amendment.lines).collect::<Vec<_>>()
        }
    };
    let operations: Vec<Operation> = commands.into_iter().map(|c| operation(work, amendment.id, c, currency)).collect();
    post_all(work, &operations).await?;
    match amendment.kind {
        AmendmentKind::Close => shut(work, plans, &amendment.lines).await?,
        AmendmentKind::Change | AmendmentKind::Transfer => {
            set_overruns(work, &plans.plan, &amendment.lines, currency).await?;
            store::plan::amend(work.conn(), &mut plans.plan).await?;
        }
        AmendmentKind::ReservePolicy => {
            set_policy(work, amendment, &plans.plan).await?;
            store::plan::amend(work.conn(), &mut plans.plan).await?;
        }
    }
    Ok(())
}

/// Makes the first of the plans CLOSED, its money having been moved as the lines say.
pub async fn shut(work: &mut Work, plans: &mut Plans, lines: &[Line]) -> Result<(), Error> {
    let state = plans.plan.state.clone().close().map_err(|why| Error::of_plan(plans.plan.id, why))?;
    store::plan::set_state(work.conn(), &mut plans.plan, state).await?;
    let touched = |plan: &&mut Plan| lines.iter().any(|line| line.plan == plan.id);
    if let Some(into) = plans.carry_over.as_mut().filter(touched) {
        store::plan::amend(work.conn(), into).await?;
    }
    Ok(())
}

/// Gives the plan's reserve policy the version that was proposed. The plan's lock orders the versions.
async fn set_policy(work: &mut Work, amendment: &Amendment, plan: &Plan) -> Result<(), Error> {
    let terms = amendment.terms.clone().ok_or(Error::ReserveMissing(plan.id))?;
    let before = store::reserve_policy::current(work.conn(), plan).await?;
    let policy = ReservePolicy {
        plan: plan.id,
        version: before.version + 1,
        terms,
        reason: amendment.reason.clone(),
        set_by: amendment.proposed_by.clone(),
        amendment: Some(amendment.id),
        create_time: work.now().await?,
    };
    store::reserve_policy::insert(work.conn(), plan, &policy).await?;
    work.emit(plan.id.0, &fact::reserve_policy_changed(&policy)).await?;
    Ok(())
}

/// What money goes out of envelopes, and then what comes into others.
fn moves(lines: &[Line]) -> impl Iterator<Item = Command> {
    let out = lines.iter().filter(|line| line.own_change < 0);
    let into = lines.iter().filter(|line| line.own_change > 0);
    let out = out.map(|line| Command::Deallocate { envelope: line.envelope, amount: -line.own_change });
    out.chain(into.map(|line| Command::Allocate { envelope: line.envelope, amount: line.own_change }))
}

/// Checks that what gets children never held a reservation: only envelopes without children do.
pub async fn check_parents(work: &mut Work, lines: &[Line]) -> Result<(), Error> {
    let is_new = |id: &EnvelopeId| lines.iter().any(|line| line.is_new && line.envelope == *id);
    let parents = lines.iter().filter(|line| line.is_new).filter_map(|line| line.place.parent);
    let parents: Vec<EnvelopeId> = parents.filter(|id| !is_new(id)).collect();
    match store::envelope::with_reservations(work.conn(), &parents).await? {
        Some(id) => Err(Error::EnvelopeHasReservations(id)),
        None => Ok(()),
    }
}

async fn add_envelopes(work: &mut Work, plan: &Plan, lines: &[Line]) -> Result<(), Error> {
    let new = lines.iter().filter(|line| line.is_new);
    let added: Vec<Added<'_>> = new
        .map(|line| Added {
            id: line.envelope,
            place: &line.place,
            display_name: &line.display_name,
            planned: line.own_change,
            overrun_limit: line.overrun_after,
        })
        .collect();
    if !added.is_empty() {
        store::envelope::insert(work.conn(), plan.id, plan.programme, &added).await?;
    }
    Ok(())
}

/// Lets envelopes overrun further, or less far unless they have already.
async fn set_overruns(work: &mut Work, plan: &Plan, lines: &[Line], currency: Currency) -> Result<(), Error> {
    let changed: Vec<&Line> = lines.iter().filter(|line| !line.is_new && line.overrun_before != line.overrun_after).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    for line in &changed {
        let available = envelopes.iter().find(|e| e.id == line.envelope).map_or(0, |e| e.balances.available());
        if available.saturating_add(line.overrun_after) < 0 {
            let (asked, overrun_left) = (line.overrun_before - line.overrun_after, available + line.overrun_before);
            let refusal = Refusal::EnvelopeExhausted { envelope: line.envelope, asked, available, overrun_left };
            return Err(Error::Refused { refusal, currency });
        }
    }
    let limits: Vec<_> = changed.iter().map(|line| (line.envelope, line.overrun_after)).collect();
    Ok(store::envelope::set_overruns(work.conn(), &limits).await?)
}

/// What closing a plan comes to, its envelopes being locked.
pub struct Survey {
    /// What is to be released.
    pub open: Vec<ReservationId>,
    pub lines: Vec<Line>,
    pub total_before: i64,
    pub total_after: i64,
}

impl Survey {
    /// Whether closing the plan moves any money.
    pub fn moves_money(&self) -> bool {
        !self.open.is_empty() || !self.lines.is_empty()
    }
}

/// Locks the plans' envelopes and says what closing comes to.
pub async fn survey(work: &mut Work, plans: &Plans, closing: Closing) -> Result<Survey, Error> {
    let Plans { plan, carry_over } = plans;
    let ids: Vec<_> = std::iter::once(plan).chain(carry_over).map(|plan| plan.id).collect();
    store::envelope::lock_all(work.conn(), &ids).await?;
    let bound = i64::try_from(MAX_RELEASED + 1).unwrap_or(i64::MAX);
    let open = store::reservation::open_in(work.conn(), plan.id, bound).await?;
    if open.len() > MAX_RELEASED || (closing.open == OpenReservations::Refuse && !open.is_empty()) {
        return Err(Error::OpenReservations { plan: plan.id, count: open.len() });
    }
    // What comes back later is paid from what is held for it.
    let out = store::grant::out_in(work.conn(), plan.id).await?;
    if out > 0 {
        return Err(Error::GrantsOut { plan: plan.id, count: out });
    }
    let envelopes = store::envelope::list(work.conn(), plan.id).await?;
    let before = Tree::of(&envelopes, "", |envelope| envelope.balances);
    let mut after = before.clone();
    let mut into = match carry_over {
        Some(plan) => {
            let envelopes = store::envelope::list(work.conn(), plan.id).await?;
            Some((plan, Tree::of(&envelopes, "", |envelope| envelope.balances)))
        }
        None => None,
    };
    let into_before = into.as_ref().map(|(_, tree)| tree.clone());
    for (index, envelope) in envelopes.iter().enumerate() {
        // What is reserved is released before.
        let left = envelope.balances.available() + envelope.balances.reserved;
        if left <= 0 {
            continue;
        }
        after.shift(index, -left);
        if let Some((plan, tree)) = &mut into {
            let class = envelope.place.class;
            let missing = Error::CarryOverTargetMissing { plan: plan.id, class };
            let target = carry_over_target(&envelope.place, tree).ok_or(missing)?;
            tree.shift(target, left);
        }
    }
    let mut lines = diff(plan.id, &before, &after);
    if let (Some((plan, tree)), Some(before)) = (&into, &into_before) {
        if tree.check(&plan.policy).is_err() {
            return Err(Error::ReserveShare(plan.id));
        }
        lines.extend(diff(plan.id, before, tree));
    }
    let total = |tree: &Tree| i64::try_from(tree.total()).unwrap_or(i64::MAX);
    Ok(Survey { open, lines, total_before: total(&before), total_after: total(&after) })
}

/// Refuses what takes more out of an envelope than it has available now, so that nobody decides on what cannot be done.
pub fn check_available(envelopes: &[Envelope], lines: &[Line], currency: Currency) -> Result<(), Error> {
    for line in lines.iter().filter(|line| line.own_change < 0) {
        let available = envelopes.iter().find(|e| e.id == line.envelope).map_or(0, |e| e.balances.available());
        let asked = -line.own_change;
        if asked > available {
            let refusal = Refusal::EnvelopeExhausted { envelope: line.envelope, asked, available, overrun_left: 0 };
            return Err(Error::Refused { refusal, currency });
        }
    }
    Ok(())
}

fn operation(work: &Work, amendment: AmendmentId, command: Command, currency: Currency) -> Operation {
    // An amendment does one thing to each envelope and reservation.
    let subject = command.envelope().map(|id| id.0).or(command.reservation().map(|id| id.0)).unwrap_or_default();
    let request_id = Uuid::new_v5(&amendment.0, subject.as_bytes());
    asked(work, APPLY, request_id, command, currency)
}
