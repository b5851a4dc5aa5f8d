//! Retries: a request id decides what happens.

use crate::world::{World, full_profile, id, identity, in_city, named, refused, row, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use std::time::Duration;
use tonic::{Code, Request, Response};

fn replayed<T>(answer: &Response<T>) -> bool {
    answer.metadata().get("koc-replayed").is_some_and(|v| v == "true")
}

#[tokio::test]
async fn a_retry_has_no_second_effect_and_shows_the_member_as_it_is_by_then() {
    let world = World::new().await;
    let mut request = world.create_request(full_profile());
    request.external_identities = vec![identity("crm", "1")];
    let first = world.members().create_member(request.clone()).await.expect("created");
    assert!(!replayed(&first));
    let created = first.into_inner().member.expect("the member");
    let update = world.update_request(&created.member_id, in_city("深圳"), &["profile.city"]);
    let now = world.update(update.clone()).await.expect("updated");

    let again = world.members().create_member(request.clone()).await.expect("answered");
    assert!(replayed(&again));
    // Personal data too, though the stored answer has none.
    assert_eq!(again.into_inner().member.as_ref(), Some(&now));
    let again = world.members().update_member(update.clone()).await.expect("answered");
    assert!(replayed(&again));
    assert_eq!(again.into_inner().member, Some(now));
    assert_eq!(world.told(&created.member_id).await.len(), 2);
    assert_eq!(world.count("SELECT count(*) FROM member").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM audit_entry").await, 3);
}

#[tokio::test]
async fn a_request_id_is_refused_with_another_body_and_free_for_another_method_or_programme() {
    let world = World::new().await;
    let request = world.create_request(in_city("广州"));
    let created = world.create(request.clone()).await.expect("created");
    let other_body = pb::CreateMemberRequest { profile: Some(in_city("深圳")), ..request.clone() };
    refused(world.create(other_body).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    assert_eq!(world.create(request.clone()).await.expect("as before"), created);

    let mut update = world.update_request(&created.member_id, in_city("佛山"), &["profile.city"]);
    update.request_id = request.request_id.clone();
    assert_eq!(world.update(update).await.expect("updated").profile, Some(in_city("佛山")));
    let programme_id = world.another_programme().await;
    let elsewhere = world.create(pb::CreateMemberRequest { programme_id, ..request }).await.expect("created");
    assert_ne!(elsewhere.member_id, created.member_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_creation_many_times_at_once_makes_one_member() {
    let world = World::new().await;
    let mut request = world.create_request(named("来信"));
    request.external_identities = vec![identity("crm", "1"), identity("app", "1")];
    let answers = join_all((0..12).map(|_| world.create(request.clone()))).await;
    let members: Vec<_> = answers.into_iter().map(|answer| answer.expect("answered")).collect();
    assert!(members.iter().all(|member| *member == members[0]));
    assert_eq!(world.count("SELECT count(*) FROM member").await, 1);
    assert_eq!(world.changes().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_update_many_times_at_once_succeeds_each_time_and_counts_once() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await;
    // With the etag: whoever comes second finds another version, and is answered as the first all the same.
    let mut request = world.update_request(&member.member_id, in_city("深圳"), &["profile.city"]);
    request.etag = member.etag;
    let answers = join_all((0..12).map(|_| world.update(request.clone()))).await;
    let members: Vec<_> = answers.into_iter().map(|answer| answer.expect("answered")).collect();
    assert!(members.iter().all(|member| *member == members[0]));
    assert_eq!(world.told(&member.member_id).await.len(), 2);
}

#[tokio::test]
async fn a_refusal_is_kept_and_what_may_pass_is_not() {
    let world = World::new().await;
    let mut taken = world.create_request(Default::default());
    taken.external_identities = vec![identity("crm", "1")];
    world.create(taken.clone()).await.expect("created");
    taken.request_id = id();
    refused(world.create(taken.clone()).await, Code::AlreadyExists, "EXTERNAL_IDENTITY_TAKEN");
    // The identity would be free now, but this request was answered.
    let free = "UPDATE external_identity SET external_id = '2'";
    sqlx::query(free).execute(&world.registry.database.admin).await.expect("renamed");
    refused(world.create(taken.clone()).await, Code::AlreadyExists, "EXTERNAL_IDENTITY_TAKEN");
    world.create(pb::CreateMemberRequest { request_id: id(), ..taken }).await.expect("a new request");

    // Broken fields and a member that is not there are not the last word.
    let channel = pb::Channel { platform: "DOUYIN".into(), handle: "x".into(), followers: None };
    let twice = pb::MemberProfile { channels: vec![channel.clone(), channel], ..Default::default() };
    let mut request = world.create_request(twice);
    violations(world.create(request.clone()).await);
    request.profile = Some(in_city("广州"));
    world.create(request).await.expect("the mended request");
}

#[tokio::test]
async fn an_update_refused_for_its_etag_may_be_sent_again_with_a_fresh_one() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await;
    let mut request = world.update_request(&member.member_id, in_city("深圳"), &["profile.city"]);
    request.etag = "v7".into();
    refused(world.update(request.clone()).await, Code::Aborted, "ETAG_MISMATCH");
    request.etag = member.etag;
    world.update(request).await.expect("nothing was kept of the first try");
}

#[tokio::test]
async fn a_call_that_waits_too_long_ends_with_its_deadline_and_may_be_sent_again() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await;
    let mut held = world.registry.database.admin.begin().await.expect("a transaction");
    sqlx::query("SELECT 1 FROM member FOR UPDATE").execute(&mut *held).await.expect("held");
    let update = world.update_request(&member.member_id, in_city("深圳"), &["profile.city"]);
    let batch = || {
        let later = crate::world::ahead(Duration::from_secs(60));
        let row = pb::MemberRow { source_time: Some(later), ..row("1", 0, in_city("佛山")) };
        world.batch("crm", vec![row])
    };
    // The batch waits for an identity that somebody else has claimed and not yet committed.
    let identify = "INSERT INTO external_identity SELECT programme_id, 'crm', '1', member_id, create_time FROM member";
    sqlx::query(identify).execute(&mut *held).await.expect("identified");

    let mut late = Request::new(update.clone());
    late.set_timeout(Duration::from_millis(300));
    let update_late = world.members().update_member(late).await.expect_err("it waits too long").code();
    let mut late = Request::new(batch());
    late.set_timeout(Duration::from_millis(300));
    let batch_late = world.sync().batch_upsert_members(late).await.expect_err("it waits too long").code();
    // Whether the service or the client looks at the clock first is chance.
    for code in [update_late, batch_late] {
        assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    }
    held.commit().await.expect("given back");

    let now = world.update(update).await.expect("nothing was kept of the first try");
    assert_eq!(now.profile, Some(in_city("深圳")));
    assert_eq!(world.send(batch()).await[0].outcome(), pb::SyncOutcome::Updated);
    let versions: Vec<_> = world.told(&member.member_id).await.into_iter().map(|change| change.version).collect();
    assert_eq!(versions, [1, 2, 3]);
    assert_eq!(world.count("SELECT count(*) FROM member").await, 1);
}
