//! Who may do what: a token, a scope, a programme, and only then what is there.

use crate::world::*;
use koc_proto::{METHODS, codec::ValidatingCodec, koc::budget::v1 as pb, rules::Method};
use koc_tests::{service::TestChannel, token};
use std::collections::HashSet;
use tonic::{Code, Request, Status, codegen::http::uri::PathAndQuery};

type Anything = pb::VerifyLedgerRequest;

fn methods() -> impl Iterator<Item = &'static Method> {
    METHODS.iter().filter(|method| method.service.starts_with("koc.budget.v1."))
}

/// Calls a method with a message that names nothing but the programme.
async fn call(world: &World, channel: TestChannel, method: &Method) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("a channel");
    let request = Request::new(Anything { programme_id: world.programme.clone() });
    let codec = ValidatingCodec::<Anything, Anything>::default();
    let answer = grpc.unary(request, PathAndQuery::from_static(method.path), codec).await;
    // What is let in may well succeed: then there is nothing to be told.
    answer.err().unwrap_or_else(|| Status::ok("let in"))
}

#[tokio::test]
async fn every_method_needs_a_token_with_the_scope_that_it_declares() {
    let world = World::new().await;
    let scopes: HashSet<&str> = methods().map(|method| method.scope).collect();
    let mut seen = 0;
    for method in methods() {
        let told = call(&world, world.budget.channel_with(None, None), method).await;
        refused::<()>(Err(told), Code::Unauthenticated, "TOKEN_MISSING");
        let others: Vec<&str> = scopes.iter().copied().filter(|scope| *scope != method.scope).collect();
        let others = token::token("crm", &others, &["*".to_owned()]);
        let told = call(&world, world.budget.channel_with(Some(others), None), method).await;
        let figures = refused::<()>(Err(told), Code::PermissionDenied, "SCOPE_MISSING");
        assert_eq!(figures["scope"], method.scope);
        let only = token::token("crm", &[method.scope], &["*".to_owned()]);
        let told = call(&world, world.budget.channel_with(Some(only), None), method).await;
        assert!(![Code::Unauthenticated, Code::PermissionDenied].contains(&told.code()), "{}: {told:?}", method.path);
        seen += 1;
    }
    assert!(seen >= 60, "{seen}");
}

#[tokio::test]
async fn another_programmes_token_learns_nothing_of_what_is_there() {
    let world = World::new().await;
    let held = world.reserve(100).await.expect("held").reservation_id;
    let scopes: Vec<&str> = methods().map(|method| method.scope).collect();
    let other = world.create_programme("CNY").await;
    let channel = world.budget.channel_with(Some(token::token("crm", &scopes, std::slice::from_ref(&other))), None);
    let mut reservations = Reservations::new(channel.clone());
    let mut plans = Plans::new(channel.clone());
    let mut draws = pb::reserve_draw_service_client::ReserveDrawServiceClient::new(channel.clone());
    let mut ledger = pb::ledger_service_client::LedgerServiceClient::new(channel.clone());
    let mut feed = pb::feed_service_client::FeedServiceClient::new(channel);

    // The same answer, word for word, for what is there and for what is not.
    let programme_id = world.programme.clone();
    let mut told = HashSet::new();
    let mut note = |status: Status| {
        told.insert(status.message().to_owned());
        refused::<()>(Err(status), Code::PermissionDenied, "PROGRAMME_DENIED");
    };
    for reservation_id in [held.clone(), id()] {
        note(reservations.commit(world.commit_request(&reservation_id, None)).await.expect_err("denied"));
        note(reservations.spend(world.spend_request(&reservation_id, None)).await.expect_err("denied"));
        note(reservations.release(world.release_request(&reservation_id, None)).await.expect_err("denied"));
        let request = pb::GetReservationRequest { programme_id: programme_id.clone(), reservation_id };
        note(reservations.get_reservation(request).await.expect_err("denied"));
    }
    for envelope_id in [world.envelope.clone(), id()] {
        let request = pb::ReserveRequest { envelope_id: envelope_id.clone(), ..world.reserve_request(1) };
        note(reservations.reserve(request).await.expect_err("denied"));
        let programme_id = programme_id.clone();
        let request = pb::ListLedgerEntriesRequest { programme_id, envelope_id, ..Default::default() };
        note(ledger.list_ledger_entries(request).await.expect_err("denied"));
    }
    for plan_id in [world.plan.clone(), id()] {
        let request = pb::GetPlanRequest { programme_id: programme_id.clone(), plan_id: plan_id.clone() };
        note(plans.get_plan(request).await.expect_err("denied"));
        note(plans.get_plan_summary(world.summary_request(&plan_id)).await.expect_err("denied"));
    }
    note(plans.create_plan(world.plan_request()).await.expect_err("denied"));
    let request = pb::GetReserveDrawRequest { programme_id: programme_id.clone(), reserve_draw_id: id() };
    note(draws.get_reserve_draw(request).await.expect_err("denied"));
    let request = pb::VerifyLedgerRequest { programme_id: programme_id.clone() };
    note(ledger.verify_ledger(request).await.expect_err("denied"));
    let request = pb::ListChangesRequest { programme_id, after_position: 0, page_size: 0 };
    note(feed.list_changes(request.clone()).await.expect_err("denied"));
    assert_eq!(told.len(), 1);
    let all = feed.list_changes(pb::ListChangesRequest { programme_id: String::new(), ..request.clone() }).await;
    refused(all, Code::PermissionDenied, "PROGRAMME_DENIED");
    // Its own programme is open to it, and empty.
    let own = feed.list_changes(pb::ListChangesRequest { programme_id: other, ..request }).await.expect("a page").into_inner();
    assert_eq!((own.changes, own.through_position), (Vec::new(), own.head_position));
    assert_eq!(parts(&world.get(&held).await.expect("untouched")), [100, 0, 0, 0]);
}

#[tokio::test]
async fn approver_and_requester_are_persons_and_not_the_platforms_they_use() {
    let world = World::new().await;
    let plan = world.create_plan(world.plan_request()).await.expect("a plan");
    let (programme_id, plan_id) = (world.programme.clone(), plan.plan_id);
    let scopes = ["budget.plan.write", "budget.plan.approve"];
    let programmes = [programme_id.clone()];
    let acting = token::token("planning-app", &[&scopes[..], &["act_as"]].concat(), &programmes);
    let person = |token: &str, actor: &str| Plans::new(world.budget.channel_with(Some(token.to_owned()), Some(actor.to_owned())));
    let submit = |plan_id: &str| pb::SubmitPlanRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        plan_id: plan_id.to_owned(),
        etag: String::new(),
    };
    let approve = || pb::ApprovePlanRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        plan_id: plan_id.clone(),
        etag: String::new(),
    };
    // Whoever may not assert a person is turned away.
    let plain = token::token("planning-app", &scopes, &programmes);
    refused(person(&plain, "person-1").submit_plan(submit(&plan_id)).await, Code::PermissionDenied, "ACT_AS_DENIED");
    let submitted = person(&acting, "person-1").submit_plan(submit(&plan_id)).await.expect("submitted").into_inner().plan;
    assert_eq!(submitted.expect("a plan").submitted_by, "person-1");
    // One person by two platforms is one person; two persons by one platform are two.
    let elsewhere = token::token("finance-app", &[&scopes[..], &["act_as"]].concat(), &programmes);
    let own = person(&elsewhere, "person-1").approve_plan(approve()).await;
    refused(own, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    person(&acting, "person-2").approve_plan(approve()).await.expect("approved");
    let audit =
        "SELECT count(*) FROM audit_entry WHERE subject_id = $1::uuid AND client = 'planning-app' AND actor LIKE 'person-_'";
    assert_eq!(world.count(audit, &plan_id).await, 2);
}
