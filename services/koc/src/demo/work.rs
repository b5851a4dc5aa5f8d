//! For what: briefs, tasks, and what the cast delivers.

use super::{
    money, people,
    sample::{Brief, Cast, Delivery, Plan, Task},
    stage::{EDITOR, MEMBER, Stage, must},
};
use crate::client;
use anyhow::Context;
use chrono::Days;
use futures::{StreamExt, TryStreamExt, stream};
use koc_chassis::clock;
use koc_proto::koc::{budget::v1 as budget, task::v1 as pb};
use std::collections::HashMap;
use tracing::Instrument;

/// A delivery that was accepted.
pub struct Done {
    /// Member and task of the sample.
    pub key: String,
    pub external_id: String,
    pub task: String,
    pub assignment_id: String,
    pub reservation_id: String,
    pub delivered: usize,
}

/// Tiers and the class of money that pays for their work.
const CLASSES: [(&str, budget::ResourceClass); 3] = [
    ("BASE", budget::ResourceClass::Inclusive),
    ("CORE", budget::ResourceClass::Incentive),
    ("APEX", budget::ResourceClass::Exclusive),
];
/// Members who act at the same time.
const AT_ONCE: usize = 4;
/// From the programme's creation: until when offers can be accepted, and work delivered.
const OFFER_DAYS: Days = Days::new(30);
const DELIVERY_DAYS: Days = Days::new(60);

/// Plays a quarter's tasks: briefed, offered, accepted, delivered, reviewed, settled. What the viral part of the cast does
/// happens in `story`.
pub async fn play(stage: &Stage, plan: &Plan, story: &tracing::Span) -> anyhow::Result<Vec<Done>> {
    let mut done = Vec::new();
    for task in stage.sample.tasks.iter().filter(|t| t.quarter == plan.quarter) {
        let brief = stage.sample.briefs.iter().find(|b| b.key == task.brief).context("a task without its brief")?;
        let brief_id = publish_brief(stage, brief).await?;
        let mut tasks = HashMap::new();
        for tier in &task.tiers {
            tasks.insert(tier.as_str(), publish_task(stage, plan, task, tier, &brief_id).await?);
        }
        let parts = stage.sample.cast.iter().filter_map(|part| {
            let delivery = part.deliveries.iter().find(|d| d.task == task.key)?;
            let span = if part.part.contains("viral") { story.clone() } else { tracing::Span::none() };
            Some((part, delivery, span))
        });
        let accepted = parts.clone().map(|(part, _, span)| {
            let task_id = tasks.get(part.tier.as_str()).map(String::as_str).unwrap_or_default();
            accept(stage, part, &task.key, task_id).instrument(span)
        });
        let accepted: Vec<_> = stream::iter(accepted).buffered(AT_ONCE).try_collect().await?;
        for part in stage.sample.cast.iter().filter(|p| p.refused.as_ref().is_some_and(|r| r.task == task.key)) {
            let task_id = tasks.get(part.tier.as_str()).context("a tier without its task")?;
            let assignment = accept(stage, part, &task.key, task_id).await?;
            let unfunded = assignment.unfunded.context("the refusal that the sample expects did not come")?;
            stage.say(&format!(
                "  A refusal for money: {} asked {}, available {} ({} {})",
                unfunded.reason,
                stage.money(unfunded.asked.as_ref()),
                stage.money(unfunded.available.as_ref()),
                unfunded.limit_type,
                unfunded.limit_id
            ));
        }
        let delivered = parts
            .zip(accepted)
            .map(|((part, delivery, span), assignment)| deliver(stage, part, brief, delivery, assignment).instrument(span));
        done.extend(stream::iter(delivered).buffered(AT_ONCE).try_collect::<Vec<_>>().await?);
        stage.say(&format!("  {} ({}): {} accepted so far this quarter", task.key, brief.title, done.len()));
    }
    Ok(done)
}

async fn publish_brief(stage: &Stage, brief: &Brief) -> anyhow::Result<String> {
    let kind = |name: &str| pb::DeliverableKind::from_str_name(&format!("DELIVERABLE_KIND_{name}"));
    let metric = |name: &str| pb::Metric::from_str_name(&format!("METRIC_{name}"));
    let freedom = pb::CreativeFreedom::from_str_name(&format!("CREATIVE_FREEDOM_{}", brief.creative_freedom));
    let deliverables: anyhow::Result<Vec<_>> = brief
        .deliverables
        .iter()
        .map(|d| {
            Ok(pb::DeliverableSpec {
                deliverable_key: d.key.clone(),
                kind: kind(&d.kind).context("a kind of the sample is not known")?.into(),
                weight_percent: d.weight,
                acceptance_criteria: "Key messages covered, disclosure label shown, nothing to avoid said.".to_owned(),
            })
        })
        .collect();
    let targets: anyhow::Result<Vec<_>> = brief
        .targets
        .iter()
        .map(|t| {
            Ok(pb::OutputTarget {
                metric: metric(&t.metric).context("a metric of the sample is not known")?.into(),
                target_value: t.value,
                within_days: t.within_days,
                tier_id: t.tier.clone(),
            })
        })
        .collect();
    let request = pb::CreateBriefRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("brief {}", brief.key)),
        display_name: brief.title.clone(),
        content: Some(pb::BriefContent {
            goal: brief.goal.clone(),
            product: brief.product.clone(),
            key_messages: brief.key_messages.clone(),
            avoid: brief.avoid.clone(),
            disclosure_label: brief.disclosure_label.clone(),
            creative_freedom: freedom.context("a freedom of the sample is not known")?.into(),
            deliverables: deliverables?,
            output_targets: targets?,
        }),
    };
    let brief_id = must!(EDITOR, stage.briefs(), create_brief, request)?.brief.context("an answer without its brief")?.brief_id;
    let request = pb::PublishBriefRevisionRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("brief {} publish", brief.key)),
        brief_id: brief_id.clone(),
    };
    must!(EDITOR, stage.briefs(), publish_brief_revision, request)?;
    Ok(brief_id)
}

async fn publish_task(stage: &Stage, plan: &Plan, task: &Task, tier: &str, brief_id: &str) -> anyhow::Result<String> {
    let class = CLASSES.iter().find(|(t, _)| *t == tier).context("a tier without a class of money")?.1;
    let reward = stage.sample.cast.iter().find(|p| p.tier == tier).context("a tier without cast")?;
    let created = stage.created().await?;
    let name = format!("{} {tier}", task.key);
    let request = pb::CreateTaskRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("task {name}")),
        display_name: name.clone(),
        brief_id: brief_id.to_owned(),
        brief_revision: 1,
        target: Some(pb::TaskTarget { tier_ids: vec![tier.to_owned()], region_codes: Vec::new() }),
        capacity: task.capacity,
        reward: Some(stage.amount(&reward.cost_per_assignment_cny)?),
        envelope_id: money::envelope(stage, plan, class).await?.envelope_id,
        offer_deadline: Some(clock::to_proto(created + OFFER_DAYS)),
        delivery_deadline: Some(clock::to_proto(created + DELIVERY_DAYS)),
        review_days: 0,
    };
    let task_id = must!(EDITOR, stage.tasks(), create_task, request)?.task.context("an answer without its task")?.task_id;
    let request = pb::PublishTaskRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("task {name} publish")),
        task_id: task_id.clone(),
    };
    must!(EDITOR, stage.tasks(), publish_task, request)?;
    Ok(task_id)
}

/// Offers a task and accepts it in the member's name; the money is held, or refused, when this returns.
async fn accept(stage: &Stage, part: &Cast, task: &str, task_id: &str) -> anyhow::Result<pb::Assignment> {
    let key = format!("{} {task}", part.external_id);
    let request = pb::OfferAssignmentRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("offer {key}")),
        task_id: task_id.to_owned(),
        member_id: people::member_id(stage, &part.external_id).await?,
    };
    let offered = must!(EDITOR, stage.assignments(), offer_assignment, request)?;
    let assignment_id = offered.assignment.context("an answer without its assignment")?.assignment_id;
    let request = pb::AcceptAssignmentRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("accept {key}")),
        assignment_id: assignment_id.clone(),
    };
    must!(MEMBER, stage.assignments(), accept_assignment, request)?;
    until_assignment(stage, &assignment_id, "its money", |a| a.state() != pb::AssignmentState::Reserving).await
}

/// Delivers, has it reviewed and completed; settled when this returns.
async fn deliver(
    stage: &Stage,
    part: &Cast,
    brief: &Brief,
    delivery: &Delivery,
    assignment: pb::Assignment,
) -> anyhow::Result<Done> {
    let key = format!("{} {}", part.external_id, delivery.task);
    let assignment_id = assignment.assignment_id;
    anyhow::ensure!(assignment.unfunded.is_none(), "{key} was refused for money: {:?}", assignment.unfunded);
    let deliverables = delivery.delivered.iter().map(|deliverable| {
        let spec = brief.deliverables.iter().find(|d| d.key == *deliverable);
        pb::SubmittedDeliverable {
            deliverable_key: deliverable.clone(),
            platform: spec.map(|d| d.platform.clone()).unwrap_or_default(),
            url: format!("https://social.example.com/{}/{}/{deliverable}", part.external_id, delivery.task),
            publish_time: Some(clock::to_proto(delivery.live_at)),
            text: String::new(),
        }
    });
    let request = pb::SubmitWorkRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("submit {key}")),
        assignment_id: assignment_id.clone(),
        stage: pb::SubmissionStage::Live.into(),
        deliverables: deliverables.collect(),
    };
    let submission_id = must!(MEMBER, stage.assignments(), submit_work, request)?.submission_id;
    let request = pb::ReviewSubmissionRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("review {key}")),
        assignment_id: assignment_id.clone(),
        submission_id,
        verdict: pb::ReviewVerdict::Approved.into(),
        accepted_deliverable_keys: delivery.delivered.clone(),
        comment: String::new(),
    };
    must!(EDITOR, stage.assignments(), review_submission, request)?;
    let request = pb::CompleteAssignmentRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id(&format!("complete {key}")),
        assignment_id: assignment_id.clone(),
    };
    must!(EDITOR, stage.assignments(), complete_assignment, request)?;
    let settled =
        until_assignment(stage, &assignment_id, "its settlement", |a| a.settlement_state() == pb::SettlementState::Settled);
    let settled = settled.await?;
    if delivery.delivered.len() < brief.deliverables.len() {
        stage.say(&format!(
            "  A part was accepted: {} of {} deliverables earn {} of {}; the rest went back",
            delivery.delivered.len(),
            brief.deliverables.len(),
            stage.money(settled.earned.as_ref()),
            stage.money(settled.reward.as_ref())
        ));
    }
    Ok(Done {
        key,
        external_id: part.external_id.clone(),
        task: delivery.task.clone(),
        assignment_id,
        reservation_id: settled.reservation_id,
        delivered: delivery.delivered.len(),
    })
}

async fn until_assignment(
    stage: &Stage,
    assignment_id: &str,
    what: &str,
    there: impl Fn(&pb::Assignment) -> bool,
) -> anyhow::Result<pb::Assignment> {
    client::until(&format!("an assignment to have {what}"), async || {
        let request = pb::GetAssignmentRequest { programme_id: stage.programme_id(), assignment_id: assignment_id.to_owned() };
        let assignment = must!(MEMBER, stage.assignments(), get_assignment, request)?.assignment;
        Ok(assignment.filter(|a| there(a)))
    })
    .await
}
