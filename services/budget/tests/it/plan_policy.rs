//! Who decides on a plan: how many people, for how long, and on what exactly.

use crate::{planner::*, world::*};
use koc_proto::koc::budget::v1::{self as pb, PlanState, ResourceClass};
use std::time::Duration;
use tonic::{Code, Status};

fn reopening(world: &World, plan_id: &str) -> pb::ReopenPlanRequest {
    pb::ReopenPlanRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        plan_id: plan_id.to_owned(),
        etag: String::new(),
        reason: "the events need more".into(),
    }
}

async fn reopen(world: &World, plan_id: &str) -> Result<pb::Plan, Status> {
    let request = reopening(world, plan_id);
    Ok(world.plans("planner").reopen_plan(request).await?.into_inner().plan.unwrap_or_default())
}

fn update_request(world: &World, plan_id: &str, paths: &[&str]) -> pb::UpdatePlanRequest {
    pb::UpdatePlanRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        plan_id: plan_id.to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    }
}

async fn update(world: &World, request: pb::UpdatePlanRequest) -> Result<pb::Plan, Status> {
    Ok(world.plans("planner").update_plan(request).await?.into_inner().plan.unwrap_or_default())
}

fn names(plan: &pb::Plan) -> Vec<&str> {
    plan.approvals.iter().map(|approval| approval.approved_by.as_str()).collect()
}

#[tokio::test]
async fn two_approvers_are_two_people_and_neither_submitted_it() {
    let world = World::new().await;
    let policy = Some(pb::PlanPolicy { required_approvals: 2, ..Default::default() });
    let plan = world.create_plan(pb::CreatePlanRequest { policy, ..world.plan_request() }).await.expect("a plan");
    let of = plan.plan_id.as_str();
    world.submit_plan("planner", of, "").await.expect("submitted");
    refused(world.approve_plan("planner", of, "").await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    let one = world.approve_plan("controller", of, "").await.expect("approved once");
    assert_eq!((one.state(), one.approved_by.as_str(), names(&one)), (PlanState::Submitted, "", vec!["controller"]));
    refused(world.approve_plan("controller", of, "").await, Code::FailedPrecondition, "APPROVER_REPEATED");
    let early = refused(world.activate_plan("planner", of, "").await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!(early["state"], "SUBMITTED");
    // Whoever looked at it before the first approval looks again.
    refused(world.approve_plan("director", of, &plan.etag).await, Code::Aborted, "ETAG_MISMATCH");
    let two = world.approve_plan("director", of, &one.etag).await.expect("approved twice");
    assert_eq!((two.state(), two.approved_by.as_str()), (PlanState::Approved, "director"));
    assert_eq!(names(&two), ["controller", "director"]);
    world.activate_plan("planner", of, &two.etag).await.expect("active");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_approvals_at_the_same_time_each_person_counts_once() {
    let world = World::new().await;
    let policy = Some(pb::PlanPolicy { required_approvals: 2, ..Default::default() });
    let plan = world.create_plan(pb::CreatePlanRequest { policy, ..world.plan_request() }).await.expect("a plan");
    let of = plan.plan_id.as_str();
    world.submit_plan("planner", of, "").await.expect("submitted");
    let answers = futures::future::join_all((0..6).map(|_| world.approve_plan("controller", of, ""))).await;
    let (done, rest): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    rest.into_iter().for_each(|answer| drop(refused(answer, Code::FailedPrecondition, "APPROVER_REPEATED")));
    assert_eq!(world.plan_of(of).await.state(), PlanState::Submitted);
}

#[tokio::test]
async fn an_approval_that_has_expired_activates_nothing_until_it_is_given_again() {
    let world = World::new().await;
    let validity = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let policy = Some(pb::PlanPolicy { approval_validity: validity, ..Default::default() });
    let plan = world.create_plan(pb::CreatePlanRequest { policy, ..world.plan_request() }).await.expect("a plan");
    let of = plan.plan_id.as_str();
    world.submit_plan("planner", of, "").await.expect("submitted");
    let approved = world.approve_plan("controller", of, "").await.expect("approved");
    world.budget.advance(Duration::from_secs(3_600)).await;
    let figures = refused(world.activate_plan("planner", of, "").await, Code::FailedPrecondition, "APPROVAL_EXPIRED");
    assert_eq!(figures["subject"], of);
    let approved_at = approved.approvals[0].approve_time.as_ref().expect("a time").seconds;
    let since = chrono::DateTime::parse_from_rfc3339(&figures["since"]).expect("a time");
    assert_eq!(since.timestamp(), approved_at + 3_600);

    let again = reopen(&world, of).await.expect("a draft");
    assert_eq!((again.state(), names(&again), again.submitted_by.as_str()), (PlanState::Draft, vec![], ""));
    world.activate(of).await;
    assert_eq!(world.available(&plan.envelopes[0].envelope_id).await, ENVELOPE);
}

#[tokio::test]
async fn what_was_approved_is_not_edited_and_what_was_edited_is_not_approved() {
    let world = World::new().await;
    let plan = world.create_plan(world.plan_request()).await.expect("a plan");
    let of = plan.plan_id.as_str();
    let rename =
        |name: &str| pb::UpdatePlanRequest { display_name: name.into(), ..update_request(&world, of, &["display_name"]) };
    let submitted = world.submit_plan("planner", of, "").await.expect("submitted");
    let figures = refused(update(&world, rename("a")).await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!((figures["state"].as_str(), figures["subject"].as_str()), ("SUBMITTED", of));
    let approved = world.approve_plan("controller", of, &submitted.etag).await.expect("approved");
    let figures = refused(update(&world, rename("a")).await, Code::FailedPrecondition, "PLAN_STATE");
    assert_eq!(figures["state"], "APPROVED");

    // Taken back, edited and submitted again: neither the approval nor what was looked at then counts any more.
    reopen(&world, of).await.expect("a draft");
    let edited = update(&world, rename("another plan")).await.expect("edited");
    assert_eq!(edited.display_name, "another plan");
    let again = world.submit_plan("planner", of, &edited.etag).await.expect("submitted");
    assert_eq!(names(&again), Vec::<&str>::new());
    refused(world.activate_plan("planner", of, "").await, Code::FailedPrecondition, "PLAN_STATE");
    for stale in [&submitted.etag, &approved.etag, &edited.etag] {
        refused(world.approve_plan("controller", of, stale).await, Code::Aborted, "ETAG_MISMATCH");
    }
    world.approve_plan("controller", of, &again.etag).await.expect("approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_taking_back_and_activating_at_the_same_time_one_comes_first() {
    let world = World::new().await;
    for _ in 0..4 {
        let plan = world.create_plan(world.plan_request()).await.expect("a plan");
        let of = plan.plan_id.as_str();
        world.submit_plan("planner", of, "").await.expect("submitted");
        world.approve_plan("controller", of, "").await.expect("approved");
        let (reopened, activated) = tokio::join!(reopen(&world, of), world.activate_plan("planner", of, ""));
        assert_ne!(reopened.is_ok(), activated.is_ok());
        let state = if activated.is_ok() { PlanState::Active } else { PlanState::Draft };
        refused(reopened.and(activated), Code::FailedPrecondition, "PLAN_STATE");
        assert_eq!(world.plan_of(of).await.state(), state);
        let allocated = if state == PlanState::Active { ENVELOPE } else { 0 };
        assert_eq!(world.available(&plan.envelopes[0].envelope_id).await, allocated);
    }
}

#[tokio::test]
async fn a_plan_that_is_rejected_goes_back_with_a_reason() {
    let world = World::new().await;
    let plan = world.create_plan(world.plan_request()).await.expect("a plan");
    let of = plan.plan_id.as_str();
    let request = || pb::RejectPlanRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        plan_id: of.to_owned(),
        etag: String::new(),
        reason: "too much for kits".into(),
    };
    let early = world.plans("controller").reject_plan(request()).await;
    assert_eq!(refused(early, Code::FailedPrecondition, "PLAN_STATE")["state"], "DRAFT");
    world.submit_plan("planner", of, "").await.expect("submitted");
    let rejected = world.plans("controller").reject_plan(request()).await.expect("rejected").into_inner().plan;
    assert_eq!(rejected.expect("a plan").state(), PlanState::Draft);
    let audit = "SELECT count(*) FROM audit_entry
                 WHERE subject_id = $1::uuid AND actor = 'controller' AND reason = 'too much for kits'";
    assert_eq!(world.count(audit, of).await, 1);
    world.activate(of).await;
    let late = world.plans("controller").reject_plan(request()).await;
    assert_eq!(refused(late, Code::FailedPrecondition, "PLAN_STATE")["state"], "ACTIVE");
}

#[tokio::test]
async fn a_draft_is_changed_field_by_field_and_judged_as_a_whole() {
    let world = World::new().await;
    let plan = world.create_plan(world.tree_request()).await.expect("a plan");
    let of = plan.plan_id.as_str();
    let tree = Tree::of(&plan);
    // Only what the mask names; an amount that is named and absent is cleared.
    let request = pb::UpdatePlanRequest {
        display_name: "not named".into(),
        etag: plan.etag.clone(),
        ..update_request(&world, of, &["automatic_draw_limit"])
    };
    let cleared = update(&world, request.clone()).await.expect("changed");
    assert_eq!((cleared.display_name.as_str(), cleared.automatic_draw_limit.clone()), ("a tree", None));
    assert_eq!(update(&world, request.clone()).await.expect("the first answer"), cleared);
    refused(update(&world, pb::UpdatePlanRequest { request_id: id(), ..request }).await, Code::Aborted, "ETAG_MISMATCH");

    // Envelopes of a name that stays keep their ids.
    let mut envelopes = branches();
    envelopes.remove(2);
    envelopes[0].allocated = Some(fen(950));
    let request = pb::UpdatePlanRequest { envelopes, ..update_request(&world, of, &["envelopes"]) };
    let changed = update(&world, request).await.expect("changed");
    assert_eq!(changed.envelopes.len(), 5);
    let kept = Tree::of(&changed);
    assert_eq!((kept.id("core"), kept.id("sh kits")), (tree.id("core"), tree.id("sh kits")));

    // A narrower policy is judged with the envelopes that are there.
    let policy = Some(pb::PlanPolicy { max_reserve_percent: Some(9), ..Default::default() });
    let request = pb::UpdatePlanRequest { policy, ..update_request(&world, of, &["policy"]) };
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let found = violations(update(&world, request).await);
    assert_eq!(found, [pair("envelopes", "RESERVE_SHARE_OUT_OF_BOUNDS")]);
    let request = pb::UpdatePlanRequest {
        policy: Some(pb::PlanPolicy {
            min_reserve_percent: Some(20),
            max_reserve_percent: Some(10),
            approval_validity: Some(prost_types::Duration { seconds: 59, nanos: 0 }),
            required_approvals: 0,
        }),
        envelopes: vec![new_envelope(ResourceClass::Inclusive, "a", -1)],
        period_start_time: Some(in_days(1)),
        period_end_time: Some(in_days(1)),
        ..update_request(&world, of, &["state", "display_name", "period", "envelopes", "policy"])
    };
    let expected = [
        pair("update_mask.paths[0]", "FIELD_NOT_UPDATABLE"),
        pair("display_name", "string.min_len"),
        pair("period_end_time", "PERIOD_EMPTY"),
        pair("envelopes[0].allocated", "AMOUNT_NEGATIVE"),
        pair("policy.approval_validity", "APPROVAL_VALIDITY_OUT_OF_RANGE"),
        pair("policy.min_reserve_percent", "RESERVE_BOUNDS_CROSSED"),
    ];
    assert_eq!(violations(update(&world, request).await), expected);
    world.activate(of).await;
    assert_eq!(world.available(&kept.id("core")).await, 350);
    world.verified().await;
}

#[tokio::test]
async fn a_policy_may_bound_the_reserves_share_otherwise() {
    let world = World::new().await;
    let policy = |least, most| {
        Some(pb::PlanPolicy { min_reserve_percent: Some(least), max_reserve_percent: Some(most), ..Default::default() })
    };
    let envelopes = |reserve| {
        vec![
            new_envelope(ResourceClass::Incentive, "core", 100 - reserve),
            new_envelope(ResourceClass::StrategicReserve, "reserve", reserve),
        ]
    };
    let request =
        |reserve| pb::CreatePlanRequest { envelopes: envelopes(reserve), policy: policy(20, 30), ..world.plan_request() };
    let found = violations(world.create_plan(request(19)).await);
    assert_eq!(found, [("envelopes[1].allocated".to_owned(), "RESERVE_SHARE_OUT_OF_BOUNDS".to_owned())]);
    let plan = world.create_plan(request(20)).await.expect("within");
    let kept = plan.policy.expect("a policy");
    assert_eq!((kept.min_reserve_percent, kept.max_reserve_percent, kept.required_approvals), (Some(20), Some(30), 1));
    assert_eq!(kept.approval_validity.expect("a validity").seconds, 30 * 24 * 60 * 60);
}
