//! What goes on after an answer was given: jobs that hold money, settle it, and end what is late. Each step takes the locks, makes
//! the change, its facts and the job's move in one transaction.

pub mod erase_member;
pub mod follow_registry;

mod expire_assignment;
mod reserve_assignment;
mod settle_assignment;

use crate::{
    domain::{
        AssignmentId,
        assignment::{Assignment, State},
    },
    peer::Budget,
    store,
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    ids::ProgrammeId,
    job::{self, JobError, NewJob},
    outbox::{self, NewFact},
    server::Service,
};
use koc_proto::koc::task::v1 as pb;
use sqlx::PgConnection;
use std::sync::Arc;

/// Asks the budget to hold the money of an accepted assignment.
const RESERVE: &str = "reserve_assignment";
/// Tells the budget what is owed or goes back.
const SETTLE: &str = "settle_assignment";
/// Ends an offer that nobody took in time.
const EXPIRE_OFFER: &str = "expire_offer";
/// Ends an assignment that nothing was delivered for in time.
const EXPIRE_DELIVERY: &str = "expire_delivery";

/// In whose name deadlines act.
const CLOCK_ACTOR: &str = "service:task";

/// Has the service run its jobs.
pub fn run(service: &mut Service, budget: &Budget) {
    let db = service.db().clone();
    service.run_jobs(RESERVE, Arc::new(reserve_assignment::ReserveAssignment { db: db.clone(), budget: budget.clone() }));
    service.run_jobs(SETTLE, Arc::new(settle_assignment::SettleAssignment { db: db.clone(), budget: budget.clone() }));
    let expire = Arc::new(expire_assignment::ExpireAssignment { db });
    service.run_jobs(EXPIRE_OFFER, expire.clone());
    service.run_jobs(EXPIRE_DELIVERY, expire);
}

/// Takes the locks for a change that may end an assignment and give its place back: its task's first, then its own. Other changes
/// need only [`store::assignment::lock`], so that the members of one task do not wait for each other.
pub async fn lock_to_end(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    assignment: AssignmentId,
) -> Result<Option<Assignment>, sqlx::Error> {
    store::task::lock_of(conn, programme, assignment).await?;
    store::assignment::lock(conn, programme, assignment).await
}

/// Adds an offer, which ends by itself at its deadline.
pub async fn begin(conn: &mut PgConnection, offered: &Assignment) -> Result<(), sqlx::Error> {
    store::assignment::insert(conn, offered).await?;
    start(conn, offered, EXPIRE_OFFER, CLOCK_ACTOR, serde_json::Value::Null, Some(offered.deadlines.offer)).await?;
    publish(conn, offered).await
}

/// Keeps the transition of a locked assignment with all that follows from it: the fact, the place that falls free, the jobs that
/// begin or need not be any more. `actor` is in whose name they act.
pub async fn keep(conn: &mut PgConnection, before: &State, after: &Assignment, actor: &str) -> Result<(), sqlx::Error> {
    store::assignment::update(conn, after).await?;
    if before.takes_place() && !after.state.takes_place() {
        store::task::free_place(conn, after.task).await?;
    }
    if matches!(before, State::Offered) {
        job::cancel(conn, after.id.0, EXPIRE_OFFER).await?;
    }
    match &after.state {
        State::Reserving => {
            let hold_seconds = after.deadlines.hold_seconds(after.update_time);
            let state = reserve_assignment::state(hold_seconds);
            start(conn, after, RESERVE, actor, state, None).await?;
        }
        // Also what is sent back after its deadline: what was submitted in time is reviewed before it can expire.
        State::InProgress { .. } | State::ChangesRequested { .. } => {
            job::cancel(conn, after.id.0, EXPIRE_DELIVERY).await?;
            let deadline = after.deadlines.delivery;
            start(conn, after, EXPIRE_DELIVERY, CLOCK_ACTOR, serde_json::Value::Null, Some(deadline)).await?;
        }
        _ => job::cancel(conn, after.id.0, EXPIRE_DELIVERY).await?,
    }
    if after.state.dues().is_some() && before.dues().is_none() {
        start(conn, after, SETTLE, actor, serde_json::Value::Null, None).await?;
    }
    if before.name() != after.state.name() {
        publish(conn, after).await?;
    }
    Ok(())
}

async fn start(
    conn: &mut PgConnection,
    assignment: &Assignment,
    kind: &'static str,
    actor: &str,
    state: serde_json::Value,
    run_time: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    let (programme, subject) = (assignment.programme, assignment.id.0);
    job::start(conn, NewJob { kind, programme, subject, step: kind, state, actor, run_time }).await?;
    Ok(())
}

async fn publish(conn: &mut PgConnection, assignment: &Assignment) -> Result<(), sqlx::Error> {
    let fact = pb::AssignmentChanged {
        assignment_id: assignment.id.to_string(),
        task_id: assignment.task.to_string(),
        member_id: assignment.member.to_string(),
        state: pb::AssignmentState::from(&assignment.state).into(),
    };
    outbox::append(conn, &[NewFact::new(assignment.programme, assignment.id.0, &fact)]).await
}

/// A job about something that is not there or not as the job left it: it is kept, fails, and shows.
fn broken(what: impl std::fmt::Display) -> JobError {
    JobError::Broken(what.to_string())
}
