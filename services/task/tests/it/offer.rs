//! Offers: to whom, how often, until when.

use crate::world::{DAY, OFFER_DAYS, Settlement, State, World, id, refused};
use koc_proto::koc::{registry::v1 as registry, task::v1 as pb};
use tonic::Code;

fn profile(region_code: &str, participation: Option<bool>) -> registry::MemberProfile {
    let consent = |granted| registry::Consent { purpose: registry::ConsentPurpose::Participation.into(), granted };
    registry::MemberProfile {
        region_code: region_code.into(),
        consents: participation.map(consent).into_iter().collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn only_a_member_of_the_tier_and_region_who_takes_part_is_offered_a_task() {
    let world = World::new().await;
    let task = world.task_with(|r| r.target = Some(target(&["CORE", "APEX"], &["CN-GD", "CN-SH"]))).await;
    let outsider = world.member_with(profile("CN-BJ", Some(false))).await;
    let unmet = refused(world.offer(&task, &outsider).await, Code::FailedPrecondition, "MEMBER_NOT_ELIGIBLE");
    assert_eq!(unmet["unmet"], "TIER,REGION,PARTICIPATION");
    assert_eq!((unmet["tier_ids"].as_str(), unmet["region_codes"].as_str()), ("CORE,APEX", "CN-GD,CN-SH"));
    assert_eq!((unmet["consent_purpose"].as_str(), unmet["subject"].as_str()), ("PARTICIPATION", task.as_str()));
    // What the member is stays with the registry.
    assert!(unmet.values().all(|value| !value.contains("CN-BJ") && !value.contains("BASE")), "{unmet:?}");

    let here = world.task_with(|r| r.target = Some(target(&["BASE"], &["CN-GD"]))).await;
    for (region, participation, unmet) in [
        ("CN-BJ", None, "REGION"),
        ("", Some(true), "REGION"),
        ("CN-GD", Some(false), "PARTICIPATION"),
        ("", Some(false), "REGION,PARTICIPATION"),
    ] {
        let member = world.member_with(profile(region, participation)).await;
        let answer = refused(world.offer(&here, &member).await, Code::FailedPrecondition, "MEMBER_NOT_ELIGIBLE");
        assert_eq!(answer["unmet"], unmet, "{region:?} {participation:?}");
    }
    for participation in [None, Some(true)] {
        let member = world.member_with(profile("CN-GD", participation)).await;
        let offered = world.offer(&here, &member).await.expect("eligible");
        assert_eq!((offered.state(), offered.settlement_state()), (State::Offered, Settlement::None));
        assert_eq!((&offered.member_id, &offered.task_id, offered.tier_id.as_str()), (&member, &here, "BASE"));
        assert_eq!((offered.reservation_id.as_str(), offered.earned), ("", None));
    }
    refused(world.offer(&here, &id()).await, Code::NotFound, "MEMBER_NOT_FOUND");
    assert_eq!(world.places(&here).await, (2, 2));
    assert_eq!(world.places(&task).await, (0, 0));
}

fn target(tier_ids: &[&str], region_codes: &[&str]) -> pb::TaskTarget {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    pb::TaskTarget { tier_ids: owned(tier_ids), region_codes: owned(region_codes) }
}

#[tokio::test]
async fn a_member_has_one_open_or_completed_assignment_in_a_task_and_any_number_that_came_to_nothing() {
    let world = World::new().await;
    let (task, member) = (world.task_with(|r| r.capacity = 1).await, world.member().await);
    let mut last = world.offer(&task, &member).await.expect("offered");
    for _ in 0..2 {
        let exists = refused(world.offer(&task, &member).await, Code::AlreadyExists, "ASSIGNMENT_EXISTS");
        assert_eq!((&exists["resource_id"], exists["resource_type"].as_str()), (&last.assignment_id, "assignment"));
        // The place is the member's: nobody else gets it, and a decline frees it.
        let full = refused(world.offer(&task, &world.member().await).await, Code::FailedPrecondition, "TASK_FULL");
        assert_eq!(full["capacity"], "1");
        let declined = world.decline(&last.assignment_id).await.expect("declined");
        assert_eq!((declined.state(), declined.settlement_state()), (State::Declined, Settlement::None));
        assert_eq!(world.get_task(&task).await.expect("found").filled, 0);
        last = world.offer(&task, &member).await.expect("the place is free again");
    }
    world.accept(&last.assignment_id).await.expect("accepted");
    world.wait_for(&last.assignment_id, State::InProgress, Settlement::Held).await;
    refused(world.offer(&task, &member).await, Code::AlreadyExists, "ASSIGNMENT_EXISTS");
    world.finish(&last.assignment_id, &["article"]).await;
    refused(world.offer(&task, &member).await, Code::AlreadyExists, "ASSIGNMENT_EXISTS");
    // In another task the same member is free.
    world.offer(&world.task_with(|_| {}).await, &member).await.expect("another task");

    let mine = pb::ListAssignmentsRequest {
        programme_id: world.programme.clone(),
        task_id: task.clone(),
        member_id: member.clone(),
        page_size: 2,
        page_token: String::new(),
    };
    let list = async |request| world.assignments().list_assignments(request).await.map(tonic::Response::into_inner);
    let first = list(mine.clone()).await.expect("a page");
    let rest = list(pb::ListAssignmentsRequest { page_token: first.next_page_token.clone(), ..mine.clone() });
    let rest = rest.await.expect("a page");
    let states: Vec<_> = first.assignments.iter().chain(&rest.assignments).map(pb::Assignment::state).collect();
    assert_eq!(states, [State::Declined, State::Declined, State::Completed]);
    assert!(rest.assignments.iter().all(|a| a.submissions.is_empty()), "lists come without submissions");
    // A token is good with its own filters only.
    let other = pb::ListAssignmentsRequest { member_id: String::new(), page_token: first.next_page_token, ..mine };
    assert_eq!(crate::world::violations(list(other).await), [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
}

#[tokio::test]
async fn offers_close_by_the_clock_and_what_nobody_took_gives_its_place_back() {
    let world = World::new().await;
    let task = world.task_with(|r| r.capacity = 2).await;
    let left = world.offer(&task, &world.member().await).await.expect("offered");
    let taken = world.in_progress_in(&task).await;
    world.task.advance(DAY * OFFER_DAYS).await;
    let closed = refused(world.accept(&left.assignment_id).await, Code::FailedPrecondition, "OFFER_CLOSED");
    assert!(closed.contains_key("offer_deadline"), "{closed:?}");
    refused(world.offer(&task, &world.member().await).await, Code::FailedPrecondition, "OFFER_CLOSED");
    let expired = world.wait_for(&left.assignment_id, State::Expired, Settlement::None).await;
    assert_eq!(expired.reservation_id, "");
    assert_eq!(
        refused(world.accept(&left.assignment_id).await, Code::FailedPrecondition, "ASSIGNMENT_STATE")["state"],
        "EXPIRED"
    );
    assert_eq!(
        refused(world.decline(&left.assignment_id).await, Code::FailedPrecondition, "ASSIGNMENT_STATE")["state"],
        "EXPIRED"
    );
    // Who took it in time goes on.
    assert_eq!(world.get(&taken.assignment_id).await.expect("found").state(), State::InProgress);
    assert_eq!(world.places(&task).await, (1, 1));
}

#[tokio::test]
async fn who_withdrew_consent_since_the_offer_cannot_take_it() {
    let world = World::new().await;
    let (task, member_id) = (world.task_with(|_| {}).await, world.member().await);
    let offered = world.offer(&task, &member_id).await.expect("offered");
    let withdrawn = registry::Consent { purpose: registry::ConsentPurpose::Participation.into(), granted: false };
    let request = registry::UpdateMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id,
        profile: Some(registry::MemberProfile { consents: vec![withdrawn], ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["profile.consents".into()] }),
        ..Default::default()
    };
    let mut members = registry::member_service_client::MemberServiceClient::new(world.registry.channel());
    members.update_member(request).await.expect("withdrawn");

    let answer = world.accept(&offered.assignment_id).await;
    assert_eq!(refused(answer, Code::FailedPrecondition, "CONSENT_WITHDRAWN")["consent_purpose"], "PARTICIPATION");
    // The offer ends by itself, as soon as it is told.
    world.wait_for(&offered.assignment_id, State::Expired, Settlement::None).await;
    refused(world.accept(&offered.assignment_id).await, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
}
