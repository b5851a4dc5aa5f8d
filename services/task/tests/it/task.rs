//! Tasks: what they may be made of, and their states.

use crate::world::{World, fact, fen, id, in_days, refused, violations, yuan};
use koc_proto::{google::r#type::Money, koc::task::v1 as pb};
use tonic::{Code, Status};

async fn create(world: &World, request: pb::CreateTaskRequest) -> Result<pb::Task, Status> {
    Ok(world.tasks().create_task(request).await?.into_inner().task.unwrap_or_default())
}

#[tokio::test]
async fn a_task_stands_on_a_published_revision_and_is_published_once() {
    let world = World::new().await;
    let draft = world.briefs().create_brief(world.brief_request()).await.expect("a brief").into_inner().brief.unwrap_or_default();
    let request = world.task_request(&draft.brief_id);
    let state = refused(create(&world, request.clone()).await, Code::FailedPrecondition, "BRIEF_STATE");
    assert_eq!((state["subject"].as_str(), state["state"].as_str()), (draft.brief_id.as_str(), "NOT_PUBLISHED"));
    world.publish_brief(&draft.brief_id).await.expect("published");
    // The refusal stands for its request id; a new one finds the revision.
    refused(create(&world, request.clone()).await, Code::FailedPrecondition, "BRIEF_STATE");
    let second = pb::CreateTaskRequest { brief_revision: 2, request_id: id(), ..request.clone() };
    refused(create(&world, second).await, Code::FailedPrecondition, "BRIEF_STATE");
    refused(create(&world, world.task_request(&id())).await, Code::NotFound, "BRIEF_NOT_FOUND");
    let elsewhere = pb::CreateTaskRequest { programme_id: id(), request_id: id(), ..request.clone() };
    refused(create(&world, elsewhere).await, Code::NotFound, "PROGRAMME_NOT_FOUND");

    let target = pb::TaskTarget { tier_ids: vec!["CORE".into()], region_codes: vec!["CN-GD".into()] };
    let wanted = pb::CreateTaskRequest { request_id: id(), target: Some(target.clone()), ..request };
    let task = create(&world, wanted.clone()).await.expect("created");
    assert_eq!((task.state(), task.capacity, task.filled), (pb::TaskState::Draft, 10, 0));
    assert_eq!((task.reward.clone(), task.target.clone()), (Some(yuan(1_000)), Some(target)));
    assert_eq!((&task.envelope_id, task.brief_revision, task.review_days), (&world.envelope, 1, 7));
    let millis = |t: Option<&prost_types::Timestamp>| t.map(|t| (t.seconds, t.nanos / 1_000));
    assert_eq!(millis(task.offer_deadline.as_ref()), millis(wanted.offer_deadline.as_ref()));
    assert_eq!(millis(task.delivery_deadline.as_ref()), millis(wanted.delivery_deadline.as_ref()));

    let early = world.offer(&task.task_id, &world.member().await).await;
    assert_eq!(refused(early, Code::FailedPrecondition, "TASK_STATE")["state"], "DRAFT");
    assert_eq!(world.publish_task(&task.task_id).await.expect("published").state(), pb::TaskState::Published);
    let again = refused(world.publish_task(&task.task_id).await, Code::FailedPrecondition, "TASK_STATE");
    assert_eq!((again["subject"].as_str(), again["state"].as_str()), (task.task_id.as_str(), "PUBLISHED"));
    refused(world.publish_task(&id()).await, Code::NotFound, "TASK_NOT_FOUND");
    refused(world.get_task(&id()).await, Code::NotFound, "TASK_NOT_FOUND");
    refused(world.offer(&id(), &world.member().await).await, Code::NotFound, "TASK_NOT_FOUND");

    // Only a published task can be offered, whatever else it may be.
    for state in ["PAUSED", "CLOSED", "CANCELLED"] {
        sqlx::query("UPDATE task SET state = $1").bind(state).execute(&world.task.database.admin).await.expect("set");
        let offered = world.offer(&task.task_id, &world.member().await).await;
        assert_eq!(refused(offered, Code::FailedPrecondition, "TASK_STATE")["state"], state);
    }

    let states: Vec<_> = world.wait_for_changes(&task.task_id, 2).await.iter().filter_map(fact::<pb::TaskChanged>).collect();
    assert_eq!(states.iter().map(pb::TaskChanged::state).collect::<Vec<_>>(), [pb::TaskState::Draft, pb::TaskState::Published]);
}

#[tokio::test]
async fn money_and_deadlines_that_do_not_fit_are_all_named() {
    let world = World::new().await;
    let brief = world.brief().await;
    let flaws = async |change: fn(&mut pb::CreateTaskRequest)| {
        let mut request = world.task_request(&brief);
        change(&mut request);
        let mut flaws: Vec<_> =
            violations(create(&world, request).await).into_iter().map(|(field, rule)| format!("{field} {rule}")).collect();
        flaws.sort();
        flaws
    };
    let all = flaws(|r| {
        r.reward = Some(Money { currency_code: "EUR".into(), units: 1, nanos: 0 });
        r.offer_deadline = Some(in_days(0));
        r.delivery_deadline = r.offer_deadline;
    });
    let expected =
        ["delivery_deadline DEADLINE_ORDER", "offer_deadline DEADLINE_ORDER", "reward.currency_code CURRENCY_MISMATCH"];
    assert_eq!(all.await, expected);
    assert_eq!(flaws(|r| r.reward = Some(Money { nanos: 1, ..yuan(1) })).await, ["reward.nanos AMOUNT_TOO_FINE"]);
    assert_eq!(flaws(|r| r.reward = Some(fen(0))).await, ["reward AMOUNT_NOT_POSITIVE"]);
    assert_eq!(flaws(|r| r.reward = Some(yuan(-5))).await, ["reward AMOUNT_NOT_POSITIVE"]);
    assert_eq!(flaws(|r| r.reward = Some(yuan(i64::MAX))).await, ["reward.units AMOUNT_TOO_LARGE"]);
    assert_eq!(flaws(|r| r.delivery_deadline = Some(in_days(366))).await, ["delivery_deadline DEADLINE_ORDER"]);
    assert_eq!(flaws(|r| r.delivery_deadline = r.offer_deadline).await, ["delivery_deadline DEADLINE_ORDER"]);
    assert_eq!(flaws(|r| r.offer_deadline = Some(whole(in_days(0)))).await, ["offer_deadline DEADLINE_ORDER"]);
    assert_eq!(flaws(|r| r.reward = None).await, ["reward required"]);
    assert_eq!(flaws(|r| r.capacity = 100_001).await.len(), 1);
    assert_eq!(flaws(|r| r.review_days = 21).await.len(), 1);
    assert_eq!(flaws(|r| r.envelope_id = "mine".into()).await, ["envelope_id string.uuid"]);
    let twice = |r: &mut pb::CreateTaskRequest| {
        r.target = Some(pb::TaskTarget { tier_ids: vec!["A".into(); 2], region_codes: vec!["nowhere".into()] });
    };
    assert_eq!(flaws(twice).await.len(), 2);
}

fn whole(time: prost_types::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { nanos: 0, ..time }
}

#[tokio::test]
async fn deadlines_that_the_database_cannot_tell_apart_are_not_in_order() {
    let world = World::new().await;
    let brief = world.brief().await;
    let mut request = world.task_request(&brief);
    request.offer_deadline = Some(whole(in_days(7)));
    request.delivery_deadline = Some(prost_types::Timestamp { nanos: 999, ..whole(in_days(7)) });
    let flaws = violations(create(&world, request).await);
    assert_eq!(flaws, [("delivery_deadline".to_owned(), "DEADLINE_ORDER".to_owned())]);
}

#[tokio::test]
async fn tasks_are_listed_by_creation_page_by_page() {
    let world = World::new().await;
    let brief = world.brief().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(create(&world, world.task_request(&brief)).await.expect("created").task_id);
    }
    let page = |page_token: String| {
        let request = pb::ListTasksRequest { programme_id: world.programme.clone(), page_size: 2, page_token };
        async { world.tasks().list_tasks(request).await.map(tonic::Response::into_inner) }
    };
    let first = page(String::new()).await.expect("a page");
    let second = page(first.next_page_token).await.expect("a page");
    let listed: Vec<_> = first.tasks.iter().chain(&second.tasks).map(|t| t.task_id.clone()).collect();
    assert_eq!((listed, second.next_page_token.as_str()), (ids, ""));
    assert_eq!(violations(page("made up".into()).await)[0].0, "page_token");
}
