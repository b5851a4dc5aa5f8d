//! Briefs: what can be written, and what never changes again.

use crate::world::{World, content, fact, id, refused, violations};
use koc_proto::koc::task::v1 as pb;
use tonic::{Code, Status};

fn spec(key: &str, weight_percent: i32) -> pb::DeliverableSpec {
    pb::DeliverableSpec { deliverable_key: key.into(), weight_percent, ..content().deliverables[0].clone() }
}

async fn create(world: &World, content: pb::BriefContent) -> Result<pb::Brief, Status> {
    let request = pb::CreateBriefRequest { content: Some(content), ..world.brief_request() };
    Ok(world.briefs().create_brief(request).await?.into_inner().brief.unwrap_or_default())
}

async fn revise(world: &World, brief_id: &str, goal: &str) -> Result<pb::Brief, Status> {
    let content = pb::BriefContent { goal: goal.into(), ..content() };
    let (programme_id, brief_id) = (world.programme.clone(), brief_id.to_owned());
    let request = pb::CreateBriefRevisionRequest { programme_id, request_id: id(), brief_id, content: Some(content) };
    Ok(world.briefs().create_brief_revision(request).await?.into_inner().brief.unwrap_or_default())
}

async fn get(world: &World, brief_id: &str) -> Result<pb::Brief, Status> {
    let request = pb::GetBriefRequest { programme_id: world.programme.clone(), brief_id: brief_id.to_owned() };
    Ok(world.briefs().get_brief(request).await?.into_inner().brief.unwrap_or_default())
}

/// The revisions as (number, goal, published).
fn revisions(brief: &pb::Brief) -> Vec<(i32, String, bool)> {
    let goal = |r: &pb::BriefRevision| r.content.clone().unwrap_or_default().goal;
    brief.revisions.iter().map(|r| (r.revision, goal(r), r.publish_time.is_some())).collect()
}

#[tokio::test]
async fn a_published_revision_never_changes_and_a_change_is_a_new_revision() {
    let world = World::new().await;
    let first = content();
    let brief = create(&world, first.clone()).await.expect("created");
    let brief_id = brief.brief_id.as_str();
    assert_eq!(brief.revisions[0].content, Some(first.clone()));
    assert_eq!(revisions(&brief), [(1, first.goal.clone(), false)]);
    let state = refused(revise(&world, brief_id, "early").await, Code::FailedPrecondition, "BRIEF_STATE");
    assert_eq!((state["subject"].as_str(), state["state"].as_str()), (brief_id, "DRAFT"));

    let published = world.publish_brief(brief_id).await.expect("published");
    assert_eq!(revisions(&published), [(1, first.goal.clone(), true)]);
    let state = refused(world.publish_brief(brief_id).await, Code::FailedPrecondition, "BRIEF_STATE");
    assert_eq!(state["state"], "PUBLISHED");

    let revised = revise(&world, brief_id, "second").await.expect("a draft");
    assert_eq!(revisions(&revised), [(1, first.goal.clone(), true), (2, "second".into(), false)]);
    assert_eq!(revisions(&world.publish_brief(brief_id).await.expect("published"))[1], (2, "second".into(), true));
    let now = get(&world, brief_id).await.expect("found");
    assert_eq!(now.revisions[0], published.revisions[0]);
    assert_eq!(revisions(&now).len(), 2);

    let published: Vec<_> =
        world.wait_for_changes(brief_id, 2).await.iter().filter_map(fact::<pb::BriefRevisionPublished>).collect();
    assert_eq!(published.iter().map(|f| (f.brief_id.as_str(), f.revision)).collect::<Vec<_>>(), [(brief_id, 1), (brief_id, 2)]);

    // Not even by hand: the service's own role may add revisions, not change them.
    let app = sqlx::PgPool::connect(&world.task.database.app_url).await.expect("the application role");
    for sql in ["UPDATE task.brief_revision SET content = '{}'", "DELETE FROM task.brief_revision"] {
        let error = sqlx::query(sql).execute(&app).await.expect_err("append-only");
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("42501"), "{sql}");
    }
}

#[tokio::test]
async fn a_flawed_brief_is_refused_with_all_its_flaws_and_limits_hold_exactly() {
    let world = World::new().await;
    let with = |deliverables| pb::BriefContent { deliverables, ..content() };
    let flaws = violations(create(&world, with(vec![spec("a", 60), spec("b", 20), spec("a", 10)])).await);
    let named = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let duplicate = named("content.deliverables[2].deliverable_key", "DELIVERABLE_DUPLICATE");
    assert_eq!(flaws, [duplicate, named("content.deliverables", "WEIGHTS_SUM")]);
    for weights in [[50, 49], [51, 50], [99, 99]] {
        let flaws = violations(create(&world, with(vec![spec("a", weights[0]), spec("b", weights[1])])).await);
        assert_eq!(flaws, [named("content.deliverables", "WEIGHTS_SUM")], "{weights:?}");
    }

    // What the contract's rules forbid is told at once, too.
    let target = pb::OutputTarget { target_value: 0, within_days: 366, ..content().output_targets[0].clone() };
    let bad = pb::BriefContent {
        goal: String::new(),
        product: "p".repeat(201),
        key_messages: vec!["m".into(); 21],
        creative_freedom: 99,
        deliverables: vec![spec("Article", 0)],
        output_targets: vec![target],
        ..content()
    };
    let mut fields: Vec<String> = violations(create(&world, bad).await).into_iter().map(|(field, _)| field).collect();
    fields.sort();
    let expected = [
        "content.creative_freedom",
        "content.deliverables[0].deliverable_key",
        "content.deliverables[0].weight_percent",
        "content.goal",
        "content.key_messages",
        "content.output_targets[0].target_value",
        "content.output_targets[0].within_days",
        "content.product",
    ];
    assert_eq!(fields, expected);

    // At its limits a brief comes back as it was written, with the targets of all tiers; characters count, not bytes.
    let largest = pb::BriefContent {
        goal: "目".repeat(2_000),
        product: "p".repeat(200),
        key_messages: vec!["信".repeat(500); 20],
        avoid: vec!["价".repeat(500); 20],
        disclosure_label: "广".repeat(50),
        deliverables: (0..20).map(|i| spec(&format!("d{i}"), 5)).collect(),
        output_targets: (1..=50)
            .map(|i| pb::OutputTarget { target_value: i64::MAX, within_days: i, ..content().output_targets[1].clone() })
            .collect(),
        ..content()
    };
    let brief = create(&world, largest.clone()).await.expect("within its limits");
    let kept = get(&world, &brief.brief_id).await.expect("found");
    assert_eq!(kept.revisions[0].content, Some(largest));
}

#[tokio::test]
async fn briefs_are_listed_by_creation_with_their_latest_revision_and_are_their_programmes_own() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(create(&world, content()).await.expect("created").brief_id);
    }
    world.publish_brief(&ids[0]).await.expect("published");
    revise(&world, &ids[0], "second").await.expect("a draft");
    let page = |page_token: String| {
        let request = pb::ListBriefsRequest { programme_id: world.programme.clone(), page_size: 2, page_token };
        async { world.briefs().list_briefs(request).await.map(tonic::Response::into_inner) }
    };
    let first = page(String::new()).await.expect("a page");
    assert_eq!(revisions(&first.briefs[0]), [(2, "second".into(), false)]);
    let second = page(first.next_page_token).await.expect("a page");
    let listed: Vec<_> = first.briefs.iter().chain(&second.briefs).map(|b| b.brief_id.clone()).collect();
    assert_eq!((listed, second.next_page_token.as_str()), (ids.clone(), ""));
    let reason = violations(page("made up".into()).await);
    assert_eq!(reason[0].0, "page_token");

    refused(get(&world, &id()).await, Code::NotFound, "BRIEF_NOT_FOUND");
    refused(world.publish_brief(&id()).await, Code::NotFound, "BRIEF_NOT_FOUND");
    refused(revise(&world, &id(), "none").await, Code::NotFound, "BRIEF_NOT_FOUND");
    // What is another programme's is not there.
    let other = pb::GetBriefRequest { programme_id: id(), brief_id: ids[0].clone() };
    refused(world.briefs().get_brief(other).await, Code::NotFound, "BRIEF_NOT_FOUND");
    let nowhere = pb::CreateBriefRequest { programme_id: id(), ..world.brief_request() };
    refused(world.briefs().create_brief(nowhere).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
}
