//! What a grant takes and gives as it moves: stock, days of a unit, money, memo entries. In the transaction of the move.

use super::post_operations::{asked, post_all};
use crate::{
    domain::{
        books::Command,
        cost::estimate::Estimate,
        grant::{Grant, TIME_TO_LIVE},
        plan::Stage,
        refusal::Refusal,
        stock::{Booking, memo_entries},
    },
    error::Error,
    ids::ReservationId,
    store::{self, estimate::Kept, operation::Operation, stock::Cause},
};
use koc_chassis::{fault::constraint, gate::Work, money::Currency};

// What a grant asks of the ledger, each once; together with the grant they are the operations' keys.
const RESERVE: &str = "koc.budget.grant.Reserve";
const EXTEND: &str = "koc.budget.grant.Extend";
const COMMIT: &str = "koc.budget.grant.Commit";
const SPEND: &str = "koc.budget.grant.Spend";
const RELEASE: &str = "koc.budget.grant.Release";
const RESERVE_EXTRA: &str = "koc.budget.grant.ReserveExtra";
const COMMIT_EXTRA: &str = "koc.budget.grant.CommitExtra";
const SPEND_EXTRA: &str = "koc.budget.grant.SpendExtra";

/// Takes what a grant needs: kits from stock, the days of its unit, and the cash of its estimate from its envelope.
pub async fn hold(work: &mut Work, grant: &mut Grant, estimate: Option<&Estimate>, currency: Currency) -> Result<(), Error> {
    let actor = work.actor().to_owned();
    let kits = grant.kits();
    if kits > 0 {
        let cause = Cause { grant: Some(grant.id), reference: "", actor: &actor };
        if store::stock::take(work.conn(), grant.resource, kits, cause).await?.is_none() {
            let available = store::stock::on_hand(work.conn(), grant.resource).await?;
            return Err(Error::StockExhausted { resource: grant.resource, asked: kits, available });
        }
    }
    if let Some((unit, (start, end))) = grant.unit.zip(grant.booked_days()) {
        let booking = Booking { grant: grant.id, unit, start, end, ended: false };
        store::booking::insert(work.conn(), &booking).await.map_err(|error| match constraint(&error) {
            Some("booking_overlap") => Error::BookingOverlaps { unit, start, end },
            _ => Error::Database(error),
        })?;
    }
    let cash = estimate.map_or(0, Estimate::cash);
    if let Some(envelope) = grant.envelope.filter(|_| cash > 0) {
        let reservation = ReservationId::new();
        let command = Command::Reserve {
            reservation,
            envelope,
            member: Some(grant.member),
            purpose: grant.purpose(),
            amount: cash,
            time_to_live: grant.time_to_live(work.now().await?),
        };
        run(work, grant, currency, None, vec![(RESERVE, command)]).await?;
        grant.reservation = Some(reservation);
    }
    Ok(())
}

/// Gives back what a grant took.
pub async fn give_back(work: &mut Work, grant: &Grant, currency: Currency) -> Result<(), Error> {
    let actor = work.actor().to_owned();
    let kits = grant.kits();
    if kits > 0 {
        let cause = Cause { grant: Some(grant.id), reference: "", actor: &actor };
        if store::stock::put(work.conn(), grant.resource, kits, cause).await?.is_none() {
            return Err(Error::StockTooLarge(grant.resource));
        }
    }
    store::booking::cancel(work.conn(), grant.id).await?;
    match grant.reservation {
        None => Ok(()),
        Some(reservation) => {
            let command = Command::Release { reservation, amount: None };
            run(work, grant, currency, None, vec![(RELEASE, command)]).await
        }
    }
}

/// Makes what a grant costs in cash owed.
pub async fn commit(work: &mut Work, grant: &Grant, currency: Currency) -> Result<(), Error> {
    let Some(reservation) = grant.reservation else { return Ok(()) };
    let command = Command::Commit { reservation, amount: None, release_rest: false };
    run(work, grant, currency, None, vec![(COMMIT, command)]).await
}

/// Sees to it that what was held for a grant is held still, and for as long as its unit is out. What expired is held again, or refused.
pub async fn keep_held(work: &mut Work, grant: &Grant, currency: Currency) -> Result<(), Error> {
    let Some(reservation) = grant.reservation else { return still_open(work, grant, currency).await };
    let command = Command::Extend { reservation, time_to_live: grant.time_to_live(work.now().await?) };
    run(work, grant, currency, None, vec![(EXTEND, command)]).await
}

/// Sees to it, under its envelope's lock, that what a grant may come to cost can be paid: its plan is active, and is not closed while the
/// unit is out.
async fn still_open(work: &mut Work, grant: &Grant, currency: Currency) -> Result<(), Error> {
    let Some(id) = grant.envelope else { return Ok(()) };
    match store::operation::lock_envelope(work.conn(), id).await? {
        None => Err(Error::EnvelopeNotFound(id)),
        Some(book) if book.stage == Stage::Active => Ok(()),
        Some(book) => {
            let refusal = Refusal::PlanState { plan: book.plan, state: book.stage.as_str().to_owned() };
            Err(Error::Refused { refusal, currency })
        }
    }
}

/// Makes what is owed for a grant paid, and posts what it cost without cash.
pub async fn spend(
    work: &mut Work,
    grant: &Grant,
    kept: Option<&Kept>,
    currency: Currency,
    paid: Option<String>,
) -> Result<(), Error> {
    memo(work, grant, kept).await?;
    let Some(reservation) = grant.reservation else { return Ok(()) };
    run(work, grant, currency, paid, vec![(SPEND, Command::Spend { reservation, amount: None })]).await
}

/// As [`commit`] and [`spend`] at once.
pub async fn pay(
    work: &mut Work,
    grant: &Grant,
    kept: Option<&Kept>,
    currency: Currency,
    paid: Option<String>,
) -> Result<(), Error> {
    memo(work, grant, kept).await?;
    let Some(reservation) = grant.reservation else { return Ok(()) };
    let commit = Command::Commit { reservation, amount: None, release_rest: false };
    let spend = Command::Spend { reservation, amount: None };
    run(work, grant, currency, paid, vec![(COMMIT, commit), (SPEND, spend)]).await
}

/// Pays what a grant really cost: `kept` is its last estimate, `held` what its first one held in cash. The rest of the hold goes back;
/// what is missing is held first.
pub async fn settle(
    work: &mut Work,
    grant: &mut Grant,
    kept: &Kept,
    held: i64,
    currency: Currency,
    paid: Option<String>,
) -> Result<(), Error> {
    let cash = kept.estimate.cash();
    let mut commands = Vec::new();
    if let Some((envelope, missing)) = grant.envelope.zip(cash.checked_sub(held)).filter(|(_, missing)| *missing > 0) {
        let reservation = ReservationId::new();
        let command = Command::Reserve {
            reservation,
            envelope,
            member: Some(grant.member),
            purpose: grant.purpose(),
            amount: missing,
            time_to_live: TIME_TO_LIVE,
        };
        commands.push((RESERVE_EXTRA, command));
        commands.push((COMMIT_EXTRA, Command::Commit { reservation, amount: None, release_rest: false }));
        commands.push((SPEND_EXTRA, Command::Spend { reservation, amount: None }));
        grant.extra_reservation = Some(reservation);
    }
    if let Some(reservation) = grant.reservation {
        match cash.min(held) {
            0 => commands.push((RELEASE, Command::Release { reservation, amount: None })),
            owed => {
                commands.push((COMMIT, Command::Commit { reservation, amount: Some(owed), release_rest: true }));
                commands.push((SPEND, Command::Spend { reservation, amount: Some(owed) }));
            }
        }
    }
    memo(work, grant, Some(kept)).await?;
    run(work, grant, currency, paid, commands).await
}

/// Posts what a grant cost without cash. Before the ledger is asked, so that its envelope is locked no longer than it must be.
async fn memo(work: &mut Work, grant: &Grant, kept: Option<&Kept>) -> Result<(), Error> {
    let Some(kept) = kept else { return Ok(()) };
    let (programme, actor, now) = (work.programme(), work.actor().to_owned(), work.now().await?);
    let entries = memo_entries(grant.id, kept.id, &kept.estimate, &actor, now);
    Ok(store::memo::post(work.conn(), programme, &entries).await?)
}

/// Asks the ledger, in order; the first refusal ends the move.
async fn run(
    work: &mut Work,
    grant: &Grant,
    currency: Currency,
    paid: Option<String>,
    commands: Vec<(&'static str, Command)>,
) -> Result<(), Error> {
    let paid = paid.filter(|reference| !reference.is_empty());
    let operation = |(method, command): (&'static str, Command)| Operation {
        payment_reference: paid.clone().filter(|_| matches!(command, Command::Spend { .. })),
        ..asked(work, method, grant.id.0, command, currency)
    };
    let operations: Vec<Operation> = commands.into_iter().map(operation).collect();
    post_all(work, &operations).await
}
