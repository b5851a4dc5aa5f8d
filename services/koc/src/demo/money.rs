//! With what: plans, payments, accounts.

use super::{
    sample::Plan,
    stage::{FINANCE, PLANNER, Stage, call, must},
    work::Done,
};
use crate::client;
use anyhow::Context;
use koc_chassis::clock;
use koc_proto::koc::budget::v1 as pb;

/// Makes a quarter's plan: drafted and submitted by one person, approved by another, activated.
pub async fn plan(stage: &Stage, plan: &Plan) -> anyhow::Result<()> {
    let (start, end) = stage.sample.period(plan)?;
    let envelopes: anyhow::Result<Vec<_>> = plan
        .envelopes
        .iter()
        .map(|envelope| {
            let class = pb::ResourceClass::from_str_name(&format!("RESOURCE_CLASS_{}", envelope.class));
            Ok(pb::NewEnvelope {
                resource_class: class.context("a class of the sample is not known")?.into(),
                display_name: format!("{} {}", plan.quarter, envelope.class),
                allocated: Some(stage.amount(&envelope.amount_cny)?),
                ..Default::default()
            })
        })
        .collect();
    let (programme_id, quarter) = (stage.programme_id(), &plan.quarter);
    let request_id = |step: &str| stage.request_id(&format!("{quarter} plan {step}"));
    let request = pb::CreatePlanRequest {
        programme_id: programme_id.clone(),
        request_id: request_id("create"),
        display_name: quarter.clone(),
        period_start_time: Some(clock::to_proto(start)),
        period_end_time: Some(clock::to_proto(end)),
        envelopes: envelopes?,
        automatic_draw_limit: Some(stage.amount(&stage.sample.reserve.auto_approve_cny)?),
        policy: None,
    };
    let created = must!(PLANNER, stage.plans(), create_plan, request)?.plan.context("an answer without its plan")?;
    let plan_id = created.plan_id;
    let etag = String::new();

    let (programme, id) = (programme_id.clone(), plan_id.clone());
    let request =
        pb::SubmitPlanRequest { programme_id: programme, request_id: request_id("submit"), plan_id: id, etag: etag.clone() };
    must!(PLANNER, stage.plans(), submit_plan, request)?;

    let approve = |step: &str| pb::ApprovePlanRequest {
        programme_id: programme_id.clone(),
        request_id: request_id(step),
        plan_id: plan_id.clone(),
        etag: etag.clone(),
    };
    match call!(PLANNER, stage.plans(), approve_plan, approve("approve by the submitter")) {
        Ok(_) => anyhow::bail!("the plan was approved by the one who submitted it"),
        Err(refusal) => {
            stage.say(&format!("  Plan {quarter}: the planner's own approval is refused: {}", client::describe(&refusal)))
        }
    }
    must!(FINANCE, stage.plans(), approve_plan, approve("approve"))?;
    let (programme, id) = (programme_id.clone(), plan_id.clone());
    let request = pb::ActivatePlanRequest { programme_id: programme, request_id: request_id("activate"), plan_id: id, etag };
    let active = must!(PLANNER, stage.plans(), activate_plan, request)?.plan.context("an answer without its plan")?;
    let amounts: Vec<String> = active
        .envelopes
        .iter()
        .map(|e| {
            let allocated = e.balances.as_ref().and_then(|b| b.allocated.as_ref());
            format!("{} {}", e.resource_class().as_str_name().trim_start_matches("RESOURCE_CLASS_"), stage.money(allocated))
        })
        .collect();
    stage.say(&format!("  Plan {quarter} is active, approved by {}: {}", active.approved_by, amounts.join(", ")));
    Ok(())
}

/// The envelope of a class in a quarter's plan.
pub async fn envelope(stage: &Stage, plan: &Plan, class: pb::ResourceClass) -> anyhow::Result<pb::Envelope> {
    let plans = list(stage).await?;
    let listed = plans.into_iter().find(|p| p.display_name == plan.quarter).context("the quarter has no plan")?;
    let request = pb::GetPlanRequest { programme_id: stage.programme_id(), plan_id: listed.plan_id };
    let plan = must!(FINANCE, stage.plans(), get_plan, request)?.plan.context("an answer without its plan")?;
    let envelope = plan.envelopes.into_iter().find(|e| e.resource_class() == class);
    envelope.with_context(|| format!("the plan has no envelope for {}", class.as_str_name()))
}

/// All plans of the programme, without their envelopes.
pub async fn list(stage: &Stage) -> anyhow::Result<Vec<pb::Plan>> {
    let request = pb::ListPlansRequest { programme_id: stage.programme_id(), page_size: 100, page_token: String::new() };
    Ok(must!(FINANCE, stage.plans(), list_plans, request)?.plans)
}

/// Pays what is owed for the quarter's deliveries.
pub async fn pay(stage: &Stage, plan: &Plan, done: &[Done]) -> anyhow::Result<()> {
    let mut paid = 0;
    for done in done {
        let request = pb::SpendRequest {
            programme_id: stage.programme_id(),
            request_id: stage.request_id(&format!("spend {}", done.key)),
            reservation_id: done.reservation_id.clone(),
            amount: None,
            payment_reference: format!("payrun-{}", plan.quarter),
            ..Default::default()
        };
        must!(FINANCE, stage.reservations(), spend, request)?;
        paid += 1;
    }
    stage.say(&format!("  {paid} deliveries are paid"));
    Ok(())
}

/// Tells the money per class, and has the ledger verified.
pub async fn account(stage: &Stage) -> anyhow::Result<bool> {
    for plan in list(stage).await? {
        let (programme_id, plan_id) = (stage.programme_id(), plan.plan_id.clone());
        let request = pb::GetPlanSummaryRequest { programme_id, plan_id, as_of_time: None };
        let summary = must!(FINANCE, stage.plans(), get_plan_summary, request)?;
        stage.say(&format!("  Money of {}:", plan.display_name));
        for class in &summary.classes {
            let b = class.balances.clone().unwrap_or_default();
            stage.say(&format!(
                "    {:<18} allocated {}, reserved {}, committed {}, spent {}, available {}; {} members, {} each",
                class.resource_class().as_str_name().trim_start_matches("RESOURCE_CLASS_"),
                stage.money(b.allocated.as_ref()),
                stage.money(b.reserved.as_ref()),
                stage.money(b.committed.as_ref()),
                stage.money(b.spent.as_ref()),
                stage.money(b.available.as_ref()),
                class.member_count,
                stage.money(class.amount_per_member.as_ref()),
            ));
        }
    }
    // The sequencer writes the chain a moment after the entries.
    let verified = client::until("the ledger's chain to be complete", async || {
        let request = pb::VerifyLedgerRequest { programme_id: stage.programme_id() };
        let verified = must!(FINANCE, stage.ledger(), verify_ledger, request)?;
        Ok((!verified.valid || verified.chained_count == verified.entry_count).then_some(verified))
    })
    .await?;
    if verified.valid {
        let head = verified.chain_head.get(..16).unwrap_or_default();
        stage.say(&format!("  Ledger: {} entries recomputed, all sums and the chain hold; head {head}…", verified.entry_count));
    } else {
        stage.say(&format!("  Ledger: NOT valid: {} (entry {})", verified.finding, verified.bad_entry_id));
    }
    Ok(verified.valid)
}
