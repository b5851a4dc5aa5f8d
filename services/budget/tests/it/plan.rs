//! A plan's life, and what a plan may not be.

use crate::world::*;
use futures::future::join_all;
use koc_proto::{
    google::r#type::Money,
    koc::budget::v1::{self as pb, LedgerEntryKind, PlanState, ResourceClass},
};
use koc_tests::service;
use std::collections::HashSet;
use tonic::Code;
use tonic_types::StatusExt;

#[tokio::test]
async fn a_plan_is_drafted_submitted_approved_by_another_person_and_activated() {
    let world = World::new().await;
    let request = pb::CreatePlanRequest { display_name: "next year".into(), ..world.plan_request() };
    let drafted = world.create_plan(request.clone()).await.expect("a plan");
    assert_eq!((drafted.state(), drafted.display_name.as_str()), (PlanState::Draft, "next year"));
    assert_eq!((drafted.submitted_by.as_str(), drafted.approved_by.as_str()), ("", ""));
    assert_eq!(drafted.automatic_draw_limit, Some(fen(DRAW_LIMIT)));
    // What is planned shows as allocated; nothing stands in the ledger yet.
    let shown = drafted.envelopes[0].balances.as_ref().expect("balances");
    assert_eq!(standing(shown), [0, 0, 0, ENVELOPE]);
    assert_eq!(world.entries(&drafted.envelopes[0].envelope_id).await, []);
    let of = drafted.plan_id.as_str();

    let submitted = world.submit_plan("planner", of, &drafted.etag).await.expect("submitted");
    assert_eq!((submitted.state(), submitted.submitted_by.as_str()), (PlanState::Submitted, "planner"));
    let own = pb::ApprovePlanRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        plan_id: of.to_owned(),
        etag: submitted.etag.clone(),
    };
    refused(world.plans("planner").approve_plan(own.clone()).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    let approved = world.approve_plan("controller", of, &submitted.etag).await.expect("approved");
    assert_eq!((approved.state(), approved.approved_by.as_str()), (PlanState::Approved, "controller"));
    // The refusal stands, though by now another one would be due.
    refused(world.plans("planner").approve_plan(own).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    let active = world.activate_plan("planner", of, &approved.etag).await.expect("active");
    assert_eq!(active.state(), PlanState::Active);
    let etags: HashSet<_> = [&drafted, &submitted, &approved, &active].map(|plan| plan.etag.clone()).into();
    assert_eq!(etags.len(), 4);

    let get = pb::GetPlanRequest { programme_id: world.programme.clone(), plan_id: of.to_owned() };
    let found = world.plans("anyone").get_plan(get).await.expect("there").into_inner().plan.expect("a plan");
    assert_eq!(found, active);
    let entries = world.entries(&drafted.envelopes[1].envelope_id).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].kind(), minor(entries[0].amount.as_ref())), (LedgerEntryKind::Allocate, RESERVE));
    assert_eq!((entries[0].credit_account(), entries[0].actor.as_str()), (pb::LedgerAccount::Funding, "planner"));
    // A retry of the first call gives the draft.
    assert_eq!(world.create_plan(request).await.expect("the first answer"), drafted);
    let list = pb::ListPlansRequest { programme_id: world.programme.clone(), page_size: 1, page_token: String::new() };
    let first = world.plans("anyone").list_plans(list.clone()).await.expect("a page").into_inner();
    assert_eq!(first.plans[0].plan_id, world.plan);
    let next = pb::ListPlansRequest { page_token: first.next_page_token, ..list };
    let second = world.plans("anyone").list_plans(next).await.expect("a page").into_inner();
    assert_eq!((second.plans, second.next_page_token.as_str()), (vec![pb::Plan { envelopes: Vec::new(), ..active }], ""));
    let audit = "SELECT count(*) FROM audit_entry WHERE subject_id = $1::uuid AND actor IN ('planner', 'controller')";
    assert_eq!(world.count(audit, of).await, 4);
}

#[tokio::test]
async fn a_plan_skips_no_state_and_an_old_etag_is_refused() {
    let world = World::new().await;
    let drafted = world.create_plan(world.plan_request()).await.expect("a plan");
    let of = drafted.plan_id.as_str();
    let standstill = |answer: Result<pb::Plan, tonic::Status>, state: &str| {
        let figures = refused(answer, Code::FailedPrecondition, "PLAN_STATE");
        assert_eq!((figures["state"].as_str(), figures["subject"].as_str()), (state, of));
    };
    standstill(world.approve_plan("controller", of, "").await, "DRAFT");
    standstill(world.activate_plan("planner", of, "").await, "DRAFT");
    world.submit_plan("planner", of, "").await.expect("submitted");
    standstill(world.submit_plan("planner", of, "").await, "SUBMITTED");
    standstill(world.activate_plan("planner", of, "").await, "SUBMITTED");
    refused(world.approve_plan("controller", of, &drafted.etag).await, Code::Aborted, "ETAG_MISMATCH");
    refused(world.approve_plan("controller", of, "no etag").await, Code::Aborted, "ETAG_MISMATCH");
    world.approve_plan("controller", of, "").await.expect("approved");
    standstill(world.submit_plan("planner", of, "").await, "APPROVED");
    standstill(world.approve_plan("controller", of, "").await, "APPROVED");
    world.activate_plan("planner", of, "").await.expect("active");
    standstill(world.activate_plan("planner", of, "").await, "ACTIVE");
    let nowhere = id();
    let figures = refused(world.submit_plan("planner", &nowhere, "").await, Code::NotFound, "PLAN_NOT_FOUND");
    assert_eq!(figures["resource_id"], nowhere);
    let summary = world.summary_request(&nowhere);
    refused(world.plans("planner").get_plan_summary(summary).await, Code::NotFound, "PLAN_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_activated_by_many_at_once_is_allocated_once() {
    let world = World::new().await;
    let plan = world.create_plan(world.plan_request()).await.expect("a plan");
    let of = plan.plan_id.as_str();
    world.submit_plan("planner", of, "").await.expect("submitted");
    let approvers: Vec<String> = (0..8).map(|nr| format!("controller-{nr}")).collect();
    let approvals = join_all(approvers.iter().map(|approver| world.approve_plan(approver, of, ""))).await;
    let activations = join_all(approvers.iter().map(|approver| world.activate_plan(approver, of, ""))).await;
    for answers in [approvals, activations] {
        let (done, rest): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(done.len(), 1);
        rest.into_iter().for_each(|answer| drop(refused(answer, Code::FailedPrecondition, "PLAN_STATE")));
    }
    for (envelope, allocated) in plan.envelopes.iter().zip([ENVELOPE, RESERVE]) {
        assert_eq!(world.available(&envelope.envelope_id).await, allocated);
        assert_eq!(world.entries(&envelope.envelope_id).await.len(), 1);
    }
    world.verified().await;
}

#[tokio::test]
async fn all_that_is_wrong_with_a_plan_is_said_at_once() {
    let world = World::new().await;
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let (incentive, reserve) = (ResourceClass::Incentive, ResourceClass::StrategicReserve);
    let with = |envelopes| pb::CreatePlanRequest { envelopes, ..world.plan_request() };

    let dollars = Some(Money { currency_code: "USD".into(), ..fen(1) });
    let request = pb::CreatePlanRequest {
        period_end_time: world.plan_request().period_start_time,
        automatic_draw_limit: Some(fen(-1)),
        envelopes: vec![
            pb::NewEnvelope { allocated: dollars, ..new_envelope(incentive, "a", 0) },
            pb::NewEnvelope { allocated: Some(Money { nanos: 1, ..fen(0) }), ..new_envelope(incentive, "b", 0) },
        ],
        ..world.plan_request()
    };
    let expected = [
        pair("period_end_time", "PERIOD_EMPTY"),
        pair("envelopes[0].allocated.currency_code", "CURRENCY_MISMATCH"),
        pair("envelopes[1].allocated.nanos", "AMOUNT_TOO_FINE"),
        pair("automatic_draw_limit", "AMOUNT_NEGATIVE"),
    ];
    assert_eq!(violations(world.create_plan(request).await), expected);

    let twice = vec![new_envelope(incentive, "a", 849), new_envelope(reserve, "a", 151), new_envelope(reserve, "c", 0)];
    let expected = [
        pair("envelopes[1].display_name", "ENVELOPE_DUPLICATE"),
        pair("envelopes[2].resource_class", "ENVELOPE_DUPLICATE"),
        pair("envelopes[2].allocated", "RESERVE_SHARE_OUT_OF_BOUNDS"),
    ];
    assert_eq!(violations(world.create_plan(with(twice)).await), expected);
    for (rest, share) in [(951, 49), (849, 151)] {
        let found = violations(
            world.create_plan(with(vec![new_envelope(incentive, "a", rest), new_envelope(reserve, "r", share)])).await,
        );
        assert_eq!(found, [pair("envelopes[1].allocated", "RESERVE_SHARE_OUT_OF_BOUNDS")]);
    }
    for (rest, share) in [(950, 50), (850, 150)] {
        world
            .create_plan(with(vec![new_envelope(incentive, "a", rest), new_envelope(reserve, "r", share)]))
            .await
            .expect("in bounds");
    }
    let most = vec![new_envelope(incentive, "a", i64::MAX), new_envelope(incentive, "b", 1)];
    assert_eq!(violations(world.create_plan(with(most)).await), [pair("envelopes", "AMOUNT_TOO_LARGE")]);
    let fields: Vec<_> = violations(world.create_plan(pb::CreatePlanRequest::default()).await).into_iter().map(|v| v.0).collect();
    let expected = ["programme_id", "request_id", "display_name", "period_start_time", "period_end_time", "envelopes"];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn the_largest_plan_there_is_can_be_used_to_the_last_fen() {
    let world = World::new().await;
    let envelope_id = world.envelope_of(i64::MAX).await;
    let request = pb::ReserveRequest { envelope_id: envelope_id.clone(), ..world.reserve_request(i64::MAX) };
    let held = world.reserve_with(request).await.expect("held").reservation_id;
    let request = pb::ReserveRequest { envelope_id: envelope_id.clone(), ..world.reserve_request(1) };
    short(world.reserve_with(request).await, "ENVELOPE_EXHAUSTED", &envelope_id, Some(1), 0);
    assert_eq!(parts(&world.commit(&held, None).await.expect("owed")), [0, i64::MAX, 0, 0]);
    assert_eq!(parts(&world.spend(&held, None).await.expect("paid")), [0, 0, i64::MAX, 0]);
    world.verified().await;
}

#[tokio::test]
async fn a_programmes_currency_is_asked_once_and_kept() {
    let world = World::new().await;
    let unknown = pb::CreatePlanRequest { programme_id: id(), ..world.plan_request() };
    let figures = refused(world.create_plan(unknown.clone()).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
    assert_eq!(figures["resource_id"], unknown.programme_id);
    // A currency without minor units.
    let yen = |units, nanos| Some(Money { currency_code: "JPY".into(), units, nanos });
    let programme_id = world.create_programme("JPY").await;
    let envelope = |allocated| pb::NewEnvelope { allocated, ..new_envelope(ResourceClass::Inclusive, "all", 0) };
    let request = pb::CreatePlanRequest {
        programme_id,
        automatic_draw_limit: None,
        envelopes: vec![envelope(yen(5, 10_000_000))],
        ..world.plan_request()
    };
    let found = violations(world.create_plan(request.clone()).await);
    assert_eq!(found, [("envelopes[0].allocated.nanos".to_owned(), "AMOUNT_TOO_FINE".to_owned())]);
    world.create_plan(pb::CreatePlanRequest { envelopes: vec![envelope(yen(5, 0))], ..request }).await.expect("a plan");

    // Without a registry: what is known goes on, what is not asks to come again.
    let url = format!("http://{}", service::free_address());
    let budget = start_budget(service::free_address(), service::database(&koc_budget::SCHEMA).await, url).await;
    let known = "INSERT INTO programme (programme_id, currency_code, record_time) VALUES ($1::uuid, 'CNY', koc_now())";
    sqlx::query(known).bind(&world.programme).execute(&budget.database.admin).await.expect("kept");
    let mut plans = Plans::new(budget.channel_of("planner"));
    plans.create_plan(world.plan_request()).await.expect("a plan");
    let status = plans.create_plan(unknown).await.expect_err("nobody to ask");
    assert!(status.get_details_retry_info().is_some());
    refused::<()>(Err(status), Code::Unavailable, "REGISTRY_UNAVAILABLE");
}
