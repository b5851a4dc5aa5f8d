//! What other services tell: settled assignments from task, draws and their money from the budget; the registry's facts are in
//! [`super::follow_registry`]. The feeds have no mutual order, so each effect stands by itself and the same fact told twice changes nothing.

use crate::{
    domain::{
        ids::OutputId,
        output::{Metric, Output},
    },
    store::{self, output::NewTarget},
};
use async_trait::async_trait;
use koc_chassis::{
    clock,
    consumer::{Effect, EffectError, fact, programme_of},
    ids::{MemberId, ProgrammeId, parse},
    money::{Currency, Money},
    outbox::{self, NewFact},
};
use koc_proto::{
    google::r#type::Money as WireMoney,
    koc::{budget::v1 as budget, feed::v1::Change, measurement::v1 as pb, task::v1 as task},
};
use sqlx::PgConnection;
use uuid::Uuid;

/// What the purpose of a draw's reservation begins with; its id follows.
const DRAW_PURPOSE: &str = "reserve_draw/";
/// How the purpose of an assignment's reservation begins.
const ASSIGNMENT_PURPOSE: &str = "assignment/";

/// An amount in the currency that it names.
fn amount(field: &str, wire: Option<&WireMoney>) -> Result<Money, EffectError> {
    let code = wire.map(|wire| wire.currency_code.as_str()).unwrap_or_default();
    let currency = Currency::from_code(code).ok_or_else(|| EffectError::Park(format!("{field} is in no currency")))?;
    Money::parse_not_negative(field, wire, currency).map_err(EffectError::from)
}

/// The task service's facts.
pub struct TaskEffect;

#[async_trait]
impl Effect for TaskEffect {
    async fn apply(&self, conn: &mut PgConnection, change: &Change) -> Result<(), EffectError> {
        match fact::<task::AssignmentSettled>(change)? {
            Some(settled) => register_outputs(conn, programme_of(change)?, &settled).await,
            None => Ok(()),
        }
    }
}

/// One output for each accepted deliverable, with its part of what was earned.
async fn register_outputs(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    settled: &task::AssignmentSettled,
) -> Result<(), EffectError> {
    let member = MemberId::parse("member_id", &settled.member_id)?;
    let assignment = parse("assignment_id", &settled.assignment_id)?;
    let brief = parse("brief_id", &settled.brief_id)?;
    let targets: Vec<NewTarget> = settled
        .output_targets
        .iter()
        .filter(|target| Metric::from_number(target.metric).is_some() && target.target_value > 0)
        .map(|target| NewTarget {
            metric: i16::try_from(target.metric).unwrap_or_default(),
            target_value: target.target_value,
            within_days: target.within_days,
        })
        .collect();
    let now = clock::now(conn).await?;
    store::output::lock_assignment(conn, assignment).await?;
    for deliverable in &settled.deliverables {
        let cost = amount("deliverables.cost", deliverable.cost.as_ref())?;
        let output = Output {
            id: OutputId::new(),
            programme,
            member,
            assignment,
            brief,
            deliverable_key: deliverable.deliverable_key.clone(),
            kind: deliverable.kind().as_str_name().to_owned(),
            platform: deliverable.platform.clone(),
            tier: settled.tier_id.clone(),
            published_at: clock::required("deliverables.publish_time", deliverable.publish_time.as_ref())?,
            currency: cost.currency.code().to_owned(),
            reward_minor: cost.minor,
            boost_minor: 0,
            created_at: now,
        };
        if store::output::insert(conn, &output, &targets).await? {
            let registered = pb::OutputRegistered {
                output_id: output.id.to_string(),
                member_id: member.to_string(),
                assignment_id: assignment.to_string(),
            };
            outbox::append(conn, &[NewFact::new(programme, output.id.0, &registered)]).await?;
        }
    }
    // The budget may have told of it first.
    store::output::take_off_returned(conn, programme, assignment).await?;
    Ok(())
}

/// The budget's facts.
pub struct BudgetEffect;

#[async_trait]
impl Effect for BudgetEffect {
    async fn apply(&self, conn: &mut PgConnection, change: &Change) -> Result<(), EffectError> {
        if let Some(draw) = fact::<budget::ReserveDrawChanged>(change)? {
            if !draw.output_id.is_empty() {
                let id = parse("reserve_draw_id", &draw.reserve_draw_id)?;
                let output = OutputId::parse("output_id", &draw.output_id)?;
                let dropped = matches!(draw.state(), budget::ReserveDrawState::Rejected | budget::ReserveDrawState::Lapsed);
                store::output::put_draw(conn, programme_of(change)?, id, output, dropped).await?;
            }
        } else if let Some(posted) = fact::<budget::LedgerPosted>(change)? {
            take_owed(conn, change, &posted).await?;
        }
        Ok(())
    }
}

/// Money owed for a draw is cost of its output, and what is owed for an assignment no more is none of its outputs'. What is paid later is
/// the same money, so only what becomes owed counts, and what is owed or paid no more counts back.
async fn take_owed(conn: &mut PgConnection, change: &Change, posted: &budget::LedgerPosted) -> Result<(), EffectError> {
    let subject = |prefix: &str| posted.purpose.strip_prefix(prefix).and_then(|id| Uuid::try_parse(id).ok());
    let sign = match posted.kind() {
        budget::LedgerEntryKind::Commit => 1,
        budget::LedgerEntryKind::ReverseCommit | budget::LedgerEntryKind::Refund => -1,
        _ => return Ok(()),
    };
    let (draw, assignment) = (subject(DRAW_PURPOSE), subject(ASSIGNMENT_PURPOSE));
    if draw.is_none() && assignment.is_none() {
        return Ok(());
    }
    let programme = programme_of(change)?;
    let entry = parse("entry_id", &posted.entry_id)?;
    let owed = sign * amount("amount", posted.amount.as_ref())?.minor;
    if let Some(draw) = draw {
        store::output::insert_draw_posting(conn, programme, draw, entry, owed).await?;
    }
    if let Some(assignment) = assignment {
        store::output::lock_assignment(conn, assignment).await?;
        store::output::insert_assignment_posting(conn, programme, assignment, entry, owed).await?;
        store::output::take_off_returned(conn, programme, assignment).await?;
    }
    Ok(())
}
