//! Outputs: they arise from work that was accepted, once, and carry what it cost.

use crate::world::{HOUR, PATIENCE, Reservations, Seat, World, at, fen, id, refused, violations, yuan};
use chrono::TimeDelta;
use koc_proto::google::r#type::Money;
use koc_proto::koc::{
    budget::v1 as budget,
    measurement::v1::{self as pb, Metric},
    task::v1::{self as task, AssignmentState as State, SettlementState as Settlement},
};
use koc_tests::{service::TestChannel, wait};
use tonic::Code;

type Assignments = task::assignment_service_client::AssignmentServiceClient<TestChannel>;

/// A brief of two deliverables in a published task of 1,000.00; gives the task.
async fn publish(world: &World) -> String {
    let spec = |key: &str, kind: task::DeliverableKind, weight_percent| task::DeliverableSpec {
        deliverable_key: key.into(),
        kind: kind.into(),
        weight_percent,
        acceptance_criteria: "shows the car in daily use".into(),
    };
    let target = |target_value, tier_id: &str| task::OutputTarget {
        metric: task::Metric::Views.into(),
        target_value,
        within_days: 30,
        tier_id: tier_id.into(),
    };
    let content = task::BriefContent {
        goal: "families see the boot in use".into(),
        product: "estate".into(),
        key_messages: vec!["fits a pram and a dog".into()],
        avoid: vec!["prices".into()],
        disclosure_label: "广告".into(),
        creative_freedom: task::CreativeFreedom::Guided.into(),
        deliverables: vec![
            spec("article", task::DeliverableKind::Article, 60),
            spec("video", task::DeliverableKind::Video, 30),
            spec("photos", task::DeliverableKind::PhotoSet, 10),
        ],
        output_targets: vec![target(10_000, ""), target(20_000, "BASE"), target(90_000, "APEX")],
    };
    let programme_id = world.programme.clone();
    let mut briefs = task::brief_service_client::BriefServiceClient::new(world.task.channel());
    let request = task::CreateBriefRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        display_name: "Weekend with the new estate".into(),
        content: Some(content),
    };
    let brief = briefs.create_brief(request).await.expect("a brief").into_inner().brief.unwrap_or_default();
    let brief_id = brief.brief_id;
    let request =
        task::PublishBriefRevisionRequest { programme_id: programme_id.clone(), request_id: id(), brief_id: brief_id.clone() };
    briefs.publish_brief_revision(request).await.expect("published");
    let mut tasks = task::task_service_client::TaskServiceClient::new(world.task.channel());
    let request = task::CreateTaskRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        display_name: "Launch stories".into(),
        brief_id,
        brief_revision: 1,
        target: None,
        capacity: 10,
        reward: Some(yuan(1_000)),
        envelope_id: world.envelope.clone(),
        offer_deadline: at(world.start + TimeDelta::days(7)),
        delivery_deadline: at(world.start + TimeDelta::days(30)),
        review_days: 0,
    };
    let created = tasks.create_task(request).await.expect("a task").into_inner().task.unwrap_or_default();
    let request = task::PublishTaskRequest { programme_id, request_id: id(), task_id: created.task_id.clone() };
    tasks.publish_task(request).await.expect("published");
    created.task_id
}

async fn become_so(world: &World, assignment_id: &str, state: State, settlement: Settlement) {
    wait::until("the assignment to move on", PATIENCE, async || {
        let request =
            task::GetAssignmentRequest { programme_id: world.programme.clone(), assignment_id: assignment_id.to_owned() };
        let found = Assignments::new(world.task.channel()).get_assignment(request).await.expect("there").into_inner();
        let found = found.assignment.unwrap_or_default();
        (found.state() == state && found.settlement_state() == settlement).then_some(())
    })
    .await;
}

/// A member takes the task, hands in two of three deliverables and has them accepted; gives the assignment.
async fn deliver(world: &World, task_id: &str, member_id: &str) -> String {
    let mut assignments = Assignments::new(world.task.channel());
    let programme_id = world.programme.clone();
    let request = task::OfferAssignmentRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        task_id: task_id.to_owned(),
        member_id: member_id.to_owned(),
    };
    let offered = assignments.offer_assignment(request).await.expect("offered").into_inner().assignment.unwrap_or_default();
    let assignment_id = offered.assignment_id;
    let request = task::AcceptAssignmentRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        assignment_id: assignment_id.clone(),
    };
    assignments.accept_assignment(request).await.expect("accepted");
    become_so(world, &assignment_id, State::InProgress, Settlement::Held).await;
    let handed_in = |key: &str| task::SubmittedDeliverable {
        deliverable_key: key.into(),
        platform: "XIAOHONGSHU".into(),
        url: format!("https://example.com/{key}"),
        publish_time: at(world.ago_days(3)),
        text: format!("a weekend, told in a {key}"),
    };
    let request = task::SubmitWorkRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        assignment_id: assignment_id.clone(),
        stage: task::SubmissionStage::Live.into(),
        deliverables: vec![handed_in("article"), handed_in("video")],
    };
    let submission_id = assignments.submit_work(request).await.expect("handed in").into_inner().submission_id;
    let request = task::ReviewSubmissionRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        assignment_id: assignment_id.clone(),
        submission_id,
        verdict: task::ReviewVerdict::Approved.into(),
        accepted_deliverable_keys: vec!["article".into(), "video".into()],
        comment: "the light is lovely".into(),
    };
    assignments.review_submission(request).await.expect("accepted");
    let request = task::CompleteAssignmentRequest { programme_id, request_id: id(), assignment_id: assignment_id.clone() };
    assignments.complete_assignment(request).await.expect("completed");
    become_so(world, &assignment_id, State::Completed, Settlement::Settled).await;
    assignment_id
}

async fn of_assignment(world: &World, assignment_id: &str, count: usize) -> Vec<pb::Output> {
    wait::until("the outputs to appear", PATIENCE, async || {
        let request = pb::ListOutputsRequest {
            programme_id: world.programme.clone(),
            assignment_id: assignment_id.to_owned(),
            ..Default::default()
        };
        let found = world.outputs().list_outputs(request).await.expect("a page").into_inner().outputs;
        (found.len() >= count).then_some(found)
    })
    .await
}

/// An approved draw for an output, of so many units.
async fn draw(world: &World, output_id: &str, units: i64) -> budget::ReserveDraw {
    let request = budget::RequestReserveDrawRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        plan_id: world.plan.clone(),
        as_of: at(world.start),
        kind: budget::ReserveDrawKind::ViralBoost.into(),
        amount: Some(yuan(units)),
        member_id: String::new(),
        output_id: output_id.to_owned(),
        evidence: vec![budget::EvidenceItem { name: "ratio".into(), value: "7.4".into() }],
        decide_by_time: at(world.start + TimeDelta::days(2)),
    };
    world.draws("planner").request_reserve_draw(request).await.expect("a draw").into_inner().reserve_draw.unwrap_or_default()
}

/// Lets so much of an approved draw become owed, and the rest go.
async fn commit(world: &World, draw: &budget::ReserveDraw, units: i64) {
    let request = budget::CommitRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        reservation_id: draw.reservation_id.clone(),
        amount: Some(yuan(units)),
        release_rest: true,
        ..Default::default()
    };
    Reservations::new(world.budget.channel()).commit(request).await.expect("owed");
}

/// Pays so much of what is owed for a draw.
async fn spend(world: &World, draw: &budget::ReserveDraw, units: i64) {
    let request = budget::SpendRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        reservation_id: draw.reservation_id.clone(),
        amount: Some(yuan(units)),
        payment_reference: "inv-1".into(),
        ..Default::default()
    };
    Reservations::new(world.budget.channel()).spend(request).await.expect("paid");
}

/// Undoes a part of the reservation's entry of this kind and amount.
async fn reverse(world: &World, reservation_id: &str, of: (budget::LedgerEntryKind, Money), units: i64, release: bool) {
    let (programme_id, reservation_id) = (world.programme.clone(), reservation_id.to_owned());
    let mut reservations = Reservations::new(world.budget.channel());
    let request = budget::GetReservationRequest { programme_id: programme_id.clone(), reservation_id: reservation_id.clone() };
    let reservation = reservations.get_reservation(request).await.expect("there").into_inner().reservation.expect("there");
    let mut ledger = budget::ledger_service_client::LedgerServiceClient::new(world.budget.channel());
    let request = budget::ListLedgerEntriesRequest {
        programme_id: programme_id.clone(),
        envelope_id: reservation.envelope_id,
        reservation_id: reservation_id.clone(),
        ..Default::default()
    };
    let entries = ledger.list_ledger_entries(request).await.expect("a page").into_inner().entries;
    let entry = entries.iter().find(|entry| (entry.kind(), entry.amount.clone()) == (of.0, Some(of.1.clone())));
    let request = budget::ReverseRequest {
        programme_id,
        request_id: id(),
        reservation_id,
        entry_id: entry.expect("an entry").entry_id.clone(),
        amount: Some(yuan(units)),
        release,
        reason: budget::ReversalReason::PaymentReturned.into(),
        ..Default::default()
    };
    reservations.reverse(request).await.expect("undone");
}

async fn wait_for_postings(world: &World, count: i64) {
    wait::until("the money to be told", PATIENCE, async || {
        let told = world.count("SELECT count(*) FROM reserve_draw_posting").await;
        (told == count).then_some(())
    })
    .await;
}

async fn wait_for_cost(world: &World, output_id: &str, expected_fen: i64) {
    wait::until("the cost to be counted", PATIENCE, async || (world.cost(output_id).await == expected_fen).then_some(())).await;
}

/// Waits until measurement has read all that a neighbour has told.
async fn caught_up(world: &World, neighbour: &Seat, name: &'static str) {
    wait::until("the feed to be read", PATIENCE, async || {
        let waiting = "SELECT count(*) FROM outbox";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&neighbour.database.admin).await.expect("a count");
        let head = "SELECT max(position) FROM fact";
        let head: Option<i64> = sqlx::query_scalar(head).fetch_one(&neighbour.database.admin).await.expect("a head");
        let reached = sqlx::query_scalar("SELECT position FROM feed_cursor WHERE source = $1").bind(name);
        let reached: Option<i64> = reached.fetch_optional(&world.measurement.database.admin).await.expect("a cursor");
        (waiting == 0 && reached >= head).then_some(())
    })
    .await;
}

#[tokio::test]
async fn accepted_work_becomes_one_output_each_with_its_part_of_the_cost_whatever_is_told_twice() {
    let mut world = World::new().await;
    let task_id = publish(&world).await;
    let member = world.member().await;
    let assignment = deliver(&world, &task_id, &member).await;

    // 60 % and 30 % of 1,000.00 were accepted; what was not handed in cost nothing and is no output.
    let outputs = of_assignment(&world, &assignment, 2).await;
    let shown: Vec<_> =
        outputs.iter().map(|o| (o.deliverable_key.as_str(), o.deliverable_kind.as_str(), o.platform.as_str())).collect();
    let (article, video) =
        (("article", "DELIVERABLE_KIND_ARTICLE", "XIAOHONGSHU"), ("video", "DELIVERABLE_KIND_VIDEO", "XIAOHONGSHU"));
    assert_eq!(shown, [article, video]);
    let costs: Vec<_> = outputs.iter().map(|o| fen(o.cost.clone().unwrap_or_default().marginal.as_ref())).collect();
    assert_eq!(costs, [60_000, 30_000]);
    for output in &outputs {
        let ids = (output.programme_id.as_str(), output.member_id.as_str(), output.assignment_id.as_str());
        assert_eq!(ids, (world.programme.as_str(), member.as_str(), assignment.as_str()));
        assert_eq!((output.tier_id.as_str(), output.publish_time), ("BASE", at(world.ago_days(3))));
        let targets: Vec<_> = output.attainments.iter().map(|a| (a.metric(), a.target_value, a.reached_value)).collect();
        assert_eq!(targets, [(Metric::Views, 10_000, 0), (Metric::Views, 20_000, 0)]);
    }

    // A boost costs what becomes owed: not what is held, and not again when it is paid.
    let boosted = outputs[0].output_id.clone();
    let draw = draw(&world, &boosted, 80).await;
    assert_eq!(draw.state(), budget::ReserveDrawState::Approved);
    commit(&world, &draw, 70).await;
    wait_for_cost(&world, &boosted, 67_000).await;
    spend(&world, &draw, 50).await;
    spend(&world, &draw, 20).await;
    // What is owed again is still owed; what was refunded, or fell away, costs nothing any more.
    let kind = |kind: budget::LedgerEntryKind, units: i64| (kind, yuan(units));
    reverse(&world, &draw.reservation_id, kind(budget::LedgerEntryKind::Spend, 50), 30, true).await;
    reverse(&world, &draw.reservation_id, kind(budget::LedgerEntryKind::Spend, 20), 20, false).await;
    reverse(&world, &draw.reservation_id, kind(budget::LedgerEntryKind::Commit, 70), 15, true).await;
    wait_for_cost(&world, &boosted, 62_500).await;

    // What was owed for the work and is owed no more lowers the outputs' rewards, in proportion and to the fen.
    let sql = "SELECT reservation_id::text FROM reservation WHERE purpose = 'assignment/' || $1";
    let held: String =
        sqlx::query_scalar(sql).bind(&assignment).fetch_one(&world.budget.database.admin).await.expect("the work's money");
    reverse(&world, &held, kind(budget::LedgerEntryKind::Commit, 900), 100, true).await;
    wait_for_cost(&world, &boosted, 62_500 - 6_666).await;
    wait_for_cost(&world, &outputs[1].output_id, 30_000 - 3_334).await;

    // Everything told once more from the beginning, with a part of it lost: what was lost is back, the rest is as it was.
    world.measurement.stop().await;
    let lost = ["DELETE FROM reserve_draw", "DELETE FROM reserve_draw_posting", "DELETE FROM assignment_posting"];
    for sql in ["UPDATE feed_cursor SET position = 0"].into_iter().chain(lost) {
        sqlx::query(sql).execute(&world.measurement.idle().admin).await.expect("set back");
    }
    world.start_measurement().await;
    caught_up(&world, &world.task, "task").await;
    caught_up(&world, &world.budget, "budget").await;
    assert_eq!(of_assignment(&world, &assignment, 2).await.len(), 2);
    assert_eq!((world.cost(&boosted).await, world.cost(&outputs[1].output_id).await), (55_834, 26_666));
    assert_eq!(world.count("SELECT count(*) FROM reserve_draw_posting").await, 3);
    assert_eq!(world.count("SELECT count(*) FROM parked_fact").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM told WHERE type_name LIKE '%OutputRegistered'").await, 2);
}

#[tokio::test]
async fn a_boost_counts_whichever_of_its_facts_comes_first_and_only_in_its_own_programme() {
    let world = World::new().await;
    let output = world.output(10, yuan(100)).await;
    // The fact that says for which output the draw is has to wait; that of its money does not.
    let admin = world.measurement.database.admin.clone();
    sqlx::query("ALTER TABLE reserve_draw ADD CONSTRAINT none_yet CHECK (false)").execute(&admin).await.expect("closed");
    let opened = draw(&world, &output, 50).await;
    commit(&world, &opened, 30).await;
    wait_for_postings(&world, 1).await;
    assert_eq!(world.cost(&output).await, 10_000);
    sqlx::query("ALTER TABLE reserve_draw DROP CONSTRAINT none_yet").execute(&admin).await.expect("opened");
    world.measurement.advance(HOUR).await;
    wait_for_cost(&world, &output, 13_000).await;
    assert_eq!(world.count("SELECT count(*) FROM parked_fact").await, 0);

    // Another programme's draw names this output, by mistake or to make it look dear.
    let (home, elsewhere) = (world.programme.clone(), id());
    world.create_programme(&elsewhere).await;
    let mut stranger = World { programme: elsewhere, ..world };
    stranger.create_plan().await;
    let foreign = draw(&stranger, &output, 90).await;
    commit(&stranger, &foreign, 90).await;
    wait_for_postings(&stranger, 2).await;
    caught_up(&stranger, &stranger.budget, "budget").await;
    refused(stranger.get_output(&output).await, Code::NotFound, "OUTPUT_NOT_FOUND");
    let world = World { programme: home, ..stranger };
    assert_eq!(world.cost(&output).await, 13_000);
    let value = world.output_value(&output, None).await.expect("a value");
    assert_eq!(fen(value.cost.unwrap_or_default().marginal.as_ref()), 13_000);
}

#[tokio::test]
async fn outputs_are_listed_in_order_page_by_page_and_by_member() {
    let world = World::new().await;
    let (one, other) = (world.member().await, world.member().await);
    let settled: Vec<_> = (0..5).map(|n| world.settled(if n % 2 == 0 { &one } else { &other }, 5, yuan(n))).collect();
    world.settle(&settled).await;
    let request = |page_size, page_token: &str, member_id: &str| pb::ListOutputsRequest {
        programme_id: world.programme.clone(),
        page_size,
        page_token: page_token.to_owned(),
        member_id: member_id.to_owned(),
        assignment_id: String::new(),
    };
    let mut token = String::new();
    let mut found = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let page = world.outputs().list_outputs(request(2, &token, "")).await.expect("a page").into_inner();
        sizes.push(page.outputs.len());
        found.extend(page.outputs.into_iter().map(|o| o.output_id));
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    assert_eq!(sizes, [2, 2, 1]);
    let all: Vec<_> = world.all_outputs().await.into_iter().map(|o| o.output_id).collect();
    assert_eq!(found, all);
    assert!(all.is_sorted(), "UUIDv7 in order of creation");

    let of_one = world.outputs().list_outputs(request(0, "", &one)).await.expect("a page").into_inner().outputs;
    assert_eq!(of_one.iter().filter(|o| o.member_id == one).count(), 3);
    assert_eq!(of_one.len(), 3);
    let wrong = |answer| assert_eq!(violations(answer), [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
    wrong(world.outputs().list_outputs(request(2, &token, &one)).await);
    wrong(world.outputs().list_outputs(request(2, "?", "")).await);
    let unruly = violations(world.outputs().list_outputs(request(1_001, "", "nobody")).await);
    assert_eq!(unruly.into_iter().map(|v| v.0).collect::<Vec<_>>(), ["page_size", "member_id"]);
    refused(world.get_output(&id()).await, Code::NotFound, "OUTPUT_NOT_FOUND");
}
