//! Who may do what, retries, and what is kept of a call.

use crate::world::{Assignments, Settlement, State, World, deliverable, id, refused, violations};
use koc_proto::koc::task::v1::{self as pb, ReviewVerdict as Verdict, SubmissionStage as Stage};
use koc_tests::token;
use tonic::{Code, Response};

/// A client with a token of these scopes, for these programmes, asserting an actor or none.
fn client(world: &World, scopes: &[&str], programmes: &[String], actor: Option<&str>) -> Assignments {
    let token = token::token("community-app", scopes, programmes);
    Assignments::new(world.task.channel_with(Some(token), actor.map(str::to_owned)))
}

#[tokio::test]
async fn permission_is_checked_before_existence_and_each_call_needs_its_scope() {
    let world = World::new().await;
    let offered = world.offer(&world.task_with(|_| {}).await, &world.member().await).await.expect("offered");
    let own = [world.programme.clone()];
    let (there, missing) = (offered.assignment_id.clone(), id());
    let get = |assignment_id: &str| pb::GetAssignmentRequest {
        programme_id: world.programme.clone(),
        assignment_id: assignment_id.to_owned(),
    };
    let accept = |assignment_id: &str| pb::AcceptAssignmentRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        assignment_id: assignment_id.to_owned(),
    };
    for assignment_id in [&there, &missing] {
        let mut nobody = Assignments::new(world.task.channel_with(None, None));
        refused(nobody.get_assignment(get(assignment_id)).await, Code::Unauthenticated, "TOKEN_MISSING");
        let mut reader = client(&world, &["task.assignment.read"], &own, None);
        refused(reader.accept_assignment(accept(assignment_id)).await, Code::PermissionDenied, "SCOPE_MISSING");
        let mut elsewhere = client(&world, &["task.assignment.read", "task.assignment.respond"], &[id()], None);
        refused(elsewhere.get_assignment(get(assignment_id)).await, Code::PermissionDenied, "PROGRAMME_DENIED");
        refused(elsewhere.accept_assignment(accept(assignment_id)).await, Code::PermissionDenied, "PROGRAMME_DENIED");
    }
    client(&world, &["task.assignment.read"], &own, None).get_assignment(get(&there)).await.expect("let in");

    // With each call's own scope taken away, and all others given, nothing is served.
    let all = koc_chassis::token::all_scopes();
    let channel = |without: &str| {
        let scopes: Vec<&str> = all.iter().copied().filter(|scope| *scope != without).collect();
        world.task.channel_with(Some(token::token("community-app", &scopes, &own)), None)
    };
    let (submission, brief) = (id(), world.brief_request());
    let mut client = Assignments::new(channel("task.assignment.write"));
    let offer = pb::OfferAssignmentRequest { programme_id: own[0].clone(), request_id: id(), task_id: id(), member_id: id() };
    refused(client.offer_assignment(offer).await, Code::PermissionDenied, "SCOPE_MISSING");
    let mut client = Assignments::new(channel("task.assignment.respond"));
    let work = world.submit_request(&there, Stage::Draft, &["article"]);
    refused(client.submit_work(work).await, Code::PermissionDenied, "SCOPE_MISSING");
    let decline = pb::DeclineAssignmentRequest { programme_id: own[0].clone(), request_id: id(), assignment_id: there.clone() };
    refused(client.decline_assignment(decline).await, Code::PermissionDenied, "SCOPE_MISSING");
    let mut client = Assignments::new(channel("task.assignment.review"));
    let review = pb::ReviewSubmissionRequest {
        programme_id: own[0].clone(),
        request_id: id(),
        assignment_id: there.clone(),
        submission_id: submission,
        verdict: Verdict::Approved.into(),
        ..Default::default()
    };
    refused(client.review_submission(review).await, Code::PermissionDenied, "SCOPE_MISSING");
    let complete = pb::CompleteAssignmentRequest { programme_id: own[0].clone(), request_id: id(), assignment_id: there };
    refused(client.complete_assignment(complete).await, Code::PermissionDenied, "SCOPE_MISSING");
    let mut client = pb::brief_service_client::BriefServiceClient::new(channel("task.brief.write"));
    refused(client.create_brief(brief).await, Code::PermissionDenied, "SCOPE_MISSING");
    let mut client = pb::task_service_client::TaskServiceClient::new(channel("task.task.write"));
    refused(client.create_task(world.task_request(&id())).await, Code::PermissionDenied, "SCOPE_MISSING");

    // The feed of all programmes needs a token for all, and one's own only a token for it.
    let feed =
        |programme_id: &str| pb::ListChangesRequest { programme_id: programme_id.into(), after_position: 0, page_size: 10 };
    let mut client = pb::feed_service_client::FeedServiceClient::new(channel(""));
    refused(client.list_changes(feed("")).await, Code::PermissionDenied, "PROGRAMME_DENIED");
    client.list_changes(feed(&own[0])).await.expect("its own");
    assert_eq!(world.get(&offered.assignment_id).await.expect("found").state(), State::Offered);
}

#[tokio::test]
async fn who_acts_is_the_caller_unless_it_may_act_for_others_and_is_kept_to_the_ledger() {
    let world = World::new().await;
    let own = [world.programme.clone()];
    let offered = world.offer(&world.task_with(|_| {}).await, &world.member().await).await.expect("offered");
    let accept = pb::AcceptAssignmentRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        assignment_id: offered.assignment_id.clone(),
    };
    let scopes = ["task.assignment.respond"];
    let denied = client(&world, &scopes, &own, Some("clerk")).accept_assignment(accept.clone()).await;
    refused(denied, Code::PermissionDenied, "ACT_AS_DENIED");
    let mut trusted = client(&world, &[scopes[0], "act_as"], &own, Some("clerk"));
    trusted.accept_assignment(accept).await.expect("it may act as the clerk");
    world.wait_for(&offered.assignment_id, State::InProgress, Settlement::Held).await;

    let sql = "SELECT actor, client FROM audit_entry WHERE method LIKE '%AcceptAssignmentRequest' AND subject_id = $1::uuid";
    let audit: Vec<(String, String)> =
        sqlx::query_as(sql).bind(&offered.assignment_id).fetch_all(&world.task.database.admin).await.expect("audited");
    assert_eq!(audit, [("clerk".to_owned(), "community-app".to_owned())]);
    // The job acts in the name of whoever caused it.
    let holder: String = sqlx::query_scalar("SELECT actor FROM ledger_entry WHERE kind = 'RESERVE'")
        .fetch_one(&world.budget.database.admin)
        .await
        .expect("one");
    assert_eq!(holder, "clerk");

    let live = world.submit(&offered.assignment_id, Stage::Live, &["article"]).await.expect("handed in");
    let review = pb::ReviewSubmissionRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        assignment_id: offered.assignment_id.clone(),
        submission_id: live,
        verdict: Verdict::Approved.into(),
        ..Default::default()
    };
    let mut plain = client(&world, &["task.assignment.review"], &own, None);
    plain.review_submission(review).await.expect("reviewed");
    let reviewed = world.get(&offered.assignment_id).await.expect("found").submissions[0].review.clone().expect("reviewed");
    assert_eq!(reviewed.reviewer, "community-app");
}

fn replayed<T>(response: &Response<T>) -> bool {
    response.metadata().get("koc-replayed").is_some_and(|value| value == "true")
}

/// Makes a call twice and then once more with another body: one effect, the same answer, a refusal.
macro_rules! twice {
    ($client:expr, $method:ident, $request:expr, $field:ident = $other:expr) => {{
        let request = $request;
        let first = $client.$method(request.clone()).await.expect("done");
        let again = $client.$method(request.clone()).await.expect("replayed");
        assert_eq!((replayed(&first), replayed(&again)), (false, true), stringify!($method));
        assert_eq!(first.get_ref(), again.get_ref(), stringify!($method));
        let mut other = request;
        other.$field = $other;
        let reused = refused($client.$method(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
        assert!(reused.is_empty());
        first.into_inner()
    }};
}

#[tokio::test]
async fn each_mutation_counts_once_and_answers_its_retries_alike() {
    let world = World::new().await;
    let (programme_id, member_id) = (world.programme.clone(), world.member().await);
    let brief = twice!(world.briefs(), create_brief, world.brief_request(), display_name = "another".into()).brief;
    let brief_id = brief.unwrap_or_default().brief_id;
    let publish =
        pb::PublishBriefRevisionRequest { programme_id: programme_id.clone(), request_id: id(), brief_id: brief_id.clone() };
    twice!(world.briefs(), publish_brief_revision, publish, brief_id = id());
    let task = twice!(world.tasks(), create_task, world.task_request(&brief_id), capacity = 9).task.unwrap_or_default();
    let task_id = task.task_id;
    let publish = pb::PublishTaskRequest { programme_id: programme_id.clone(), request_id: id(), task_id: task_id.clone() };
    twice!(world.tasks(), publish_task, publish, task_id = id());
    let offer =
        pb::OfferAssignmentRequest { programme_id: programme_id.clone(), request_id: id(), task_id: task_id.clone(), member_id };
    let offered = twice!(world.assignments(), offer_assignment, offer, member_id = id()).assignment.unwrap_or_default();
    let assignment_id = offered.assignment_id;
    let accept = pb::AcceptAssignmentRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        assignment_id: assignment_id.clone(),
    };
    twice!(world.assignments(), accept_assignment, accept.clone(), assignment_id = id());
    world.wait_for(&assignment_id, State::InProgress, Settlement::Held).await;
    // Even later it is the first answer; Get gives today's state.
    let late = world.assignments().accept_assignment(accept).await.expect("replayed").into_inner();
    assert_eq!(late.assignment.unwrap_or_default().state(), State::Reserving);
    let work = world.submit_request(&assignment_id, Stage::Live, &["article", "video"]);
    let submission_id = twice!(world.assignments(), submit_work, work, stage = Stage::Draft.into()).submission_id;
    let review = pb::ReviewSubmissionRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        assignment_id: assignment_id.clone(),
        submission_id,
        verdict: Verdict::Approved.into(),
        accepted_deliverable_keys: vec!["video".into()],
        comment: "well lit".into(),
    };
    twice!(world.assignments(), review_submission, review, comment = "badly lit".into());
    let complete = pb::CompleteAssignmentRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        assignment_id: assignment_id.clone(),
    };
    twice!(world.assignments(), complete_assignment, complete, assignment_id = id());
    let done = world.wait_for(&assignment_id, State::Completed, Settlement::Settled).await;
    assert_eq!((done.submissions.len(), world.places(&task_id).await), (1, (1, 1)));
    assert_eq!(world.money().await, [0, 40_000, 860_000]);
    let other = world.offer(&task_id, &world.member().await).await.expect("offered").assignment_id;
    let decline = pb::DeclineAssignmentRequest { programme_id, request_id: id(), assignment_id: other };
    twice!(world.assignments(), decline_assignment, decline.clone(), assignment_id = id());
    // A refusal is an answer, too: it stands when the reason for it is gone.
    let again = pb::DeclineAssignmentRequest { request_id: id(), ..decline };
    for _ in 0..2 {
        let answer = world.assignments().decline_assignment(again.clone()).await;
        assert_eq!(refused(answer, Code::FailedPrecondition, "ASSIGNMENT_STATE")["state"], "DECLINED");
    }
    let torn = pb::DeclineAssignmentRequest { request_id: "not an id".into(), ..again };
    assert_eq!(violations(world.assignments().decline_assignment(torn).await)[0].0, "request_id");
}

#[tokio::test]
async fn no_personal_data_is_in_answers_to_mutations_facts_records_jobs_or_errors() {
    const MARKERS: [&str; 3] = ["marker-text", "marker-url", "marker-comment"];
    let world = World::new().await;
    let assignment = world.in_progress().await;
    let it = assignment.assignment_id.as_str();
    let mut work = world.submit_request(it, Stage::Live, &[]);
    work.deliverables = vec![pb::SubmittedDeliverable {
        text: MARKERS[0].into(),
        url: format!("https://{}/", MARKERS[1]),
        ..deliverable("article")
    }];
    let mut answers = Vec::new();
    let submitted = world.assignments().submit_work(work.clone()).await.expect("handed in").into_inner();
    let mut review = pb::ReviewSubmissionRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        assignment_id: it.into(),
        submission_id: submitted.submission_id.clone(),
        verdict: Verdict::Approved.into(),
        accepted_deliverable_keys: vec!["song".into()],
        comment: MARKERS[2].into(),
    };
    answers.push(format!("{submitted:?}"));
    let error = world.assignments().review_submission(review.clone()).await.expect_err("a flaw");
    answers.push(format!("{error:?}{}", String::from_utf8_lossy(error.details())));
    review.accepted_deliverable_keys.clear();
    answers.push(format!("{:?}", world.assignments().review_submission(review).await.expect("reviewed")));
    work.request_id = id();
    work.deliverables.push(work.deliverables[0].clone());
    let error = world.assignments().submit_work(work).await.expect_err("a flaw");
    answers.push(format!("{error:?}{}", String::from_utf8_lossy(error.details())));
    answers.push(format!("{:?}", world.complete(it).await.expect("completed")));
    let kept = world.wait_for(it, State::Completed, Settlement::Settled).await;
    // Whoever may read it finds it where it belongs.
    assert_eq!(kept.submissions[0].deliverables[0].text, MARKERS[0]);
    assert_eq!(kept.submissions[0].review.clone().expect("reviewed").comment, MARKERS[2]);

    let changes = world.wait_for_changes(it, 6).await;
    let sql = "SELECT string_agg(t, ' ') FROM (
                   SELECT encode(payload, 'escape') AS t FROM told
                   UNION ALL SELECT concat(encode(answer, 'escape'), refusal) FROM request_record
                   UNION ALL SELECT a::text FROM audit_entry AS a
                   UNION ALL SELECT j::text FROM job AS j
                   UNION ALL SELECT a::text FROM assignment AS a) AS kept";
    let stored: String = sqlx::query_scalar(sql).fetch_one(&world.task.database.admin).await.expect("read");
    assert!(stored.contains(it), "the tables were read");
    for marker in MARKERS {
        for answer in &answers {
            assert!(!answer.contains(marker), "{marker} in {answer}");
        }
        assert!(!stored.contains(marker), "{marker} in {stored}");
        let told = changes
            .iter()
            .any(|c| c.fact.as_ref().is_some_and(|f| f.value.windows(marker.len()).any(|w| w == marker.as_bytes())));
        assert!(!told, "{marker} in a fact");
    }
}
