//! Between the contract's messages and the domain's values.

use crate::domain::{
    assignment::{Assignment, Settlement, State, Unfunded},
    brief::{
        Brief, BriefContent, CreativeFreedom, DeliverableKind, DeliverableSpec, Metric, OutputTarget, Package, PackageFlaw,
        Revision,
    },
    submission::{Review, Stage, Submission, Submitted, SubmittedFlaw, Verdict},
    task::{DeadlineFlaw, MAX_DELIVERY_DAYS, Target, Task, TaskState},
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    ids::ProgrammeId,
    money::{Currency, Money},
};
use koc_proto::koc::task::v1 as pb;

/// Both directions between an enum of the contract and one of the domain.
macro_rules! enums {
    ($($to:ident, $from:ident: $wire:ty = $domain:ty { $($name:ident),+ $(,)? })+) => {$(
        pub fn $to(value: $domain) -> $wire {
            match value {
                $(<$domain>::$name => <$wire>::$name,)+
            }
        }

        /// Fails for what the contract's rules have not let through.
        pub fn $from(field: &str, value: i32) -> Result<$domain, Violation> {
            match <$wire>::try_from(value) {
                $(Ok(<$wire>::$name) => Ok(<$domain>::$name),)+
                _ => Err(Violation::new(field, "enum.defined_only", format!("must be a defined value; got {value}"))),
            }
        }
    )+};
}

enums! {
    freedom_to_proto, freedom_from_proto: pb::CreativeFreedom = CreativeFreedom { Scripted, Guided, Open, CoCreation }
    kind_to_proto, kind_from_proto: pb::DeliverableKind = DeliverableKind {
        Article, Video, PhotoSet, CommunityFeedback, CompetitorAnalysis, InsightReport, Event,
    }
    metric_to_proto, metric_from_proto: pb::Metric = Metric {
        Views, Likes, Comments, Shares, Saves, Follows, Orders, OrderMargin,
    }
    stage_to_proto, stage_from_proto: pb::SubmissionStage = Stage { Concept, Draft, Live }
    verdict_to_proto, verdict_from_proto: pb::ReviewVerdict = Verdict { Approved, ChangesRequested, Rejected }
}

/// None for the empty text, which the contract uses for absent.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// What a brief says; all violations at once, their fields below `content`.
pub fn content_from_proto(wire: pb::BriefContent) -> Result<BriefContent, Vec<Violation>> {
    let mut violations = Violations::default();
    let freedom = violations.take(freedom_from_proto("content.creative_freedom", wire.creative_freedom));
    let mut specs = Vec::with_capacity(wire.deliverables.len());
    for (i, spec) in wire.deliverables.into_iter().enumerate() {
        let at = format!("content.deliverables[{i}]");
        let kind = violations.take(kind_from_proto(&format!("{at}.kind"), spec.kind));
        let weight = u8::try_from(spec.weight_percent).map_err(|_| {
            let shape = format!("must lie between 1 and 100; got {}", spec.weight_percent);
            Violation::new(format!("{at}.weight_percent"), "int.lte", shape)
        });
        if let (Some(kind), Some(weight_percent)) = (kind, violations.take(weight)) {
            let (key, acceptance_criteria) = (spec.deliverable_key, spec.acceptance_criteria);
            specs.push(DeliverableSpec { key, kind, weight_percent, acceptance_criteria });
        }
    }
    let mut output_targets = Vec::with_capacity(wire.output_targets.len());
    for (i, target) in wire.output_targets.into_iter().enumerate() {
        if let Some(metric) = violations.take(metric_from_proto(&format!("content.output_targets[{i}].metric"), target.metric)) {
            let (target_value, within_days) = (target.target_value, target.within_days);
            output_targets.push(OutputTarget { metric, target_value, within_days, tier_id: some(target.tier_id) });
        }
    }
    let package = violations.take_all(Package::parse(specs).map_err(|flaws| flaws.into_iter().map(package_flaw).collect()));
    violations.finish()?;
    let (Some(creative_freedom), Some(package)) = (freedom, package) else { return Err(Vec::new()) };
    Ok(BriefContent {
        goal: wire.goal,
        product: wire.product,
        key_messages: wire.key_messages,
        avoid: wire.avoid,
        disclosure_label: wire.disclosure_label,
        creative_freedom,
        package,
        output_targets,
    })
}

fn package_flaw(flaw: PackageFlaw) -> Violation {
    match flaw {
        PackageFlaw::WeightsSum(sum) => {
            Violation::new("content.deliverables", "WEIGHTS_SUM", format!("weights must sum to 100; they sum to {sum}"))
        }
        PackageFlaw::Duplicate(i) => Violation::new(
            format!("content.deliverables[{i}].deliverable_key"),
            "DELIVERABLE_DUPLICATE",
            "must differ from the keys before it",
        ),
    }
}

fn content_to_proto(content: &BriefContent) -> pb::BriefContent {
    pb::BriefContent {
        goal: content.goal.clone(),
        product: content.product.clone(),
        key_messages: content.key_messages.clone(),
        avoid: content.avoid.clone(),
        disclosure_label: content.disclosure_label.clone(),
        creative_freedom: freedom_to_proto(content.creative_freedom).into(),
        deliverables: content.package.deliverables().iter().map(spec_to_proto).collect(),
        output_targets: content.output_targets.iter().map(target_to_proto).collect(),
    }
}

fn spec_to_proto(spec: &DeliverableSpec) -> pb::DeliverableSpec {
    pb::DeliverableSpec {
        deliverable_key: spec.key.clone(),
        kind: kind_to_proto(spec.kind).into(),
        weight_percent: spec.weight_percent.into(),
        acceptance_criteria: spec.acceptance_criteria.clone(),
    }
}

pub fn target_to_proto(target: &OutputTarget) -> pb::OutputTarget {
    pb::OutputTarget {
        metric: metric_to_proto(target.metric).into(),
        target_value: target.target_value,
        within_days: target.within_days,
        tier_id: target.tier_id.clone().unwrap_or_default(),
    }
}

pub fn brief_to_proto(programme: ProgrammeId, brief: &Brief) -> pb::Brief {
    let revision = |revision: &Revision| pb::BriefRevision {
        revision: revision.number,
        content: Some(content_to_proto(&revision.content)),
        publish_time: revision.publish_time.map(clock::to_proto),
    };
    pb::Brief {
        brief_id: brief.id.to_string(),
        programme_id: programme.to_string(),
        display_name: brief.display_name.clone(),
        revisions: brief.revisions.iter().map(revision).collect(),
        create_time: Some(clock::to_proto(brief.create_time)),
    }
}

pub fn deadline_flaw(flaw: DeadlineFlaw) -> Violation {
    let (field, rule) = match flaw {
        DeadlineFlaw::OfferPassed => ("offer_deadline", "must be in the future".to_owned()),
        DeadlineFlaw::DeliveryNotAfterOffer => ("delivery_deadline", "must be after the offer deadline".to_owned()),
        DeadlineFlaw::DeliveryTooFar => ("delivery_deadline", format!("must be at most {MAX_DELIVERY_DAYS} days ahead")),
    };
    Violation::new(field, "DEADLINE_ORDER", rule)
}

pub fn task_state_to_proto(state: TaskState) -> pb::TaskState {
    match state {
        TaskState::Draft => pb::TaskState::Draft,
        TaskState::Published => pb::TaskState::Published,
        TaskState::Paused => pb::TaskState::Paused,
        TaskState::Closed => pb::TaskState::Closed,
        TaskState::Cancelled => pb::TaskState::Cancelled,
    }
}

pub fn target_group(wire: pb::TaskTarget) -> Target {
    Target { tier_ids: wire.tier_ids, region_codes: wire.region_codes }
}

pub fn task_to_proto(task: &Task) -> pb::Task {
    let target = pb::TaskTarget { tier_ids: task.target.tier_ids.clone(), region_codes: task.target.region_codes.clone() };
    pb::Task {
        task_id: task.id.to_string(),
        programme_id: task.programme.to_string(),
        display_name: task.display_name.clone(),
        state: task_state_to_proto(task.state).into(),
        brief_id: task.brief.to_string(),
        brief_revision: task.brief_revision,
        target: Some(target),
        capacity: task.capacity,
        filled: task.filled,
        reward: Some(task.reward.to_proto()),
        envelope_id: task.envelope.to_string(),
        offer_deadline: Some(clock::to_proto(task.deadlines.offer)),
        delivery_deadline: Some(clock::to_proto(task.deadlines.delivery)),
        review_days: task.deadlines.review_days,
        create_time: Some(clock::to_proto(task.create_time)),
    }
}

impl From<&State> for pb::AssignmentState {
    fn from(state: &State) -> Self {
        match state {
            State::Offered => Self::Offered,
            State::Reserving => Self::Reserving,
            State::InProgress { .. } => Self::InProgress,
            State::Submitted { .. } => Self::Submitted,
            State::ChangesRequested { .. } => Self::ChangesRequested,
            State::Completed { .. } => Self::Completed,
            State::Unfunded(_) => Self::Unfunded,
            State::Declined(_) => Self::Declined,
            State::Rejected(_) => Self::Rejected,
            State::Expired(_) => Self::Expired,
        }
    }
}

fn settlement_to_proto(settlement: Settlement) -> pb::SettlementState {
    match settlement {
        Settlement::None => pb::SettlementState::None,
        Settlement::Held => pb::SettlementState::Held,
        Settlement::Settling => pb::SettlementState::Settling,
        Settlement::Settled => pb::SettlementState::Settled,
    }
}

/// An assignment with what was handed in, free text included; a mutation strips it from its answer.
pub fn assignment_to_proto(assignment: &Assignment, submissions: &[Submission]) -> pb::Assignment {
    let state = &assignment.state;
    let (accepted, earned) = match state {
        State::Completed { accepted, earned, .. } => (accepted.clone(), Some(earned.to_proto())),
        _ => (Vec::new(), None),
    };
    let unfunded = match state {
        State::Unfunded(unfunded) => Some(unfunded_to_proto(unfunded, assignment.reward.currency)),
        _ => None,
    };
    pb::Assignment {
        assignment_id: assignment.id.to_string(),
        programme_id: assignment.programme.to_string(),
        task_id: assignment.task.to_string(),
        member_id: assignment.member.to_string(),
        state: pb::AssignmentState::from(state).into(),
        brief_id: assignment.brief.to_string(),
        brief_revision: assignment.brief_revision,
        reward: Some(assignment.reward.to_proto()),
        reservation_id: state.hold().map(|hold| hold.to_string()).unwrap_or_default(),
        unfunded,
        submissions: submissions.iter().map(submission_to_proto).collect(),
        accepted_deliverable_keys: accepted,
        earned,
        settlement_state: settlement_to_proto(state.settlement()).into(),
        offer_deadline: Some(clock::to_proto(assignment.deadlines.offer)),
        delivery_deadline: Some(clock::to_proto(assignment.deadlines.delivery)),
        create_time: Some(clock::to_proto(assignment.create_time)),
        update_time: Some(clock::to_proto(assignment.update_time)),
        tier_id: assignment.tier_id.clone(),
    }
}

fn unfunded_to_proto(unfunded: &Unfunded, currency: Currency) -> pb::Unfunded {
    let money = |minor: Option<i64>| minor.map(|minor| Money::new(minor, currency).to_proto());
    pb::Unfunded {
        reason: unfunded.reason.clone(),
        limit_type: unfunded.limit_type.clone().unwrap_or_default(),
        limit_id: unfunded.limit_id.clone().unwrap_or_default(),
        asked: money(unfunded.asked_minor),
        available: money(unfunded.available_minor),
    }
}

fn submission_to_proto(submission: &Submission) -> pb::Submission {
    pb::Submission {
        submission_id: submission.id.to_string(),
        stage: stage_to_proto(submission.stage).into(),
        deliverables: submission.deliverables.iter().map(submitted_to_proto).collect(),
        submit_time: Some(clock::to_proto(submission.submit_time)),
        review: submission.review.as_ref().map(review_to_proto),
    }
}

fn submitted_to_proto(submitted: &Submitted) -> pb::SubmittedDeliverable {
    pb::SubmittedDeliverable {
        deliverable_key: submitted.key.clone(),
        platform: submitted.platform.clone().unwrap_or_default(),
        url: submitted.url.clone().unwrap_or_default(),
        publish_time: submitted.publish_time.map(clock::to_proto),
        text: submitted.text.clone().unwrap_or_default(),
    }
}

fn review_to_proto(review: &Review) -> pb::Review {
    pb::Review {
        verdict: verdict_to_proto(review.verdict).into(),
        accepted_deliverable_keys: review.accepted_keys.clone(),
        comment: review.comment.clone().unwrap_or_default(),
        reviewer: review.reviewer.clone(),
        review_time: Some(clock::to_proto(review.review_time)),
    }
}

/// What is handed in; times out of range are violations.
pub fn submitted_from_proto(wire: Vec<pb::SubmittedDeliverable>) -> Result<Vec<Submitted>, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut deliverables = Vec::with_capacity(wire.len());
    for (i, deliverable) in wire.into_iter().enumerate() {
        let field = format!("deliverables[{i}].publish_time");
        let time = deliverable.publish_time.map(|time| clock::from_proto(&field, &time)).transpose();
        let publish_time = violations.take(time).flatten();
        deliverables.push(Submitted {
            key: deliverable.deliverable_key,
            platform: some(deliverable.platform),
            url: some(deliverable.url),
            publish_time,
            text: some(deliverable.text),
        });
    }
    violations.finish().map(|()| deliverables)
}

pub fn submitted_flaw((place, flaw): (usize, SubmittedFlaw)) -> Violation {
    let at = format!("deliverables[{place}]");
    match flaw {
        SubmittedFlaw::Unknown => deliverable_unknown(format!("{at}.deliverable_key"), "the brief"),
        SubmittedFlaw::Duplicate => {
            Violation::new(format!("{at}.deliverable_key"), "DELIVERABLE_DUPLICATE", "must differ from the keys before it")
        }
        SubmittedFlaw::LiveNeedsUrl => Violation::new(at, "LIVE_NEEDS_URL", "must have url and publish_time at stage LIVE"),
        SubmittedFlaw::PublishedAhead => {
            let rule = format!("must be at most {} minutes ahead of the server's clock", clock::MAX_AHEAD.num_minutes());
            Violation::new(format!("{at}.publish_time"), "PUBLISH_TIME_AHEAD", rule)
        }
    }
}

/// A key that is not among those `within` something.
pub fn deliverable_unknown(field: String, within: &str) -> Violation {
    Violation::new(field, "DELIVERABLE_UNKNOWN", format!("must be a key of {within}"))
}
