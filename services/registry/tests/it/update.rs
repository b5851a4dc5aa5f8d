//! Changing members.

use crate::world::{World, consents, full_profile, id, in_city, named, pairs, refused, row, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn what_the_mask_names_is_written_and_all_else_stays() {
    let world = World::new().await;
    let before = world.member(full_profile()).await;
    world.registry.advance(Duration::from_secs(60)).await;
    let mut request = world.update_request(
        &before.member_id,
        pb::MemberProfile { city: "深圳".into(), display_name: "not named in the mask".into(), ..Default::default() },
        &["profile.city", "profile.email", "profile.channels", "profile.city", "trust_level"],
    );
    request.trust_level = pb::TrustLevel::Trusted.into();
    request.etag = before.etag.clone();

    let after = world.update(request).await.expect("updated");

    let expected = pb::MemberProfile { city: "深圳".into(), email: String::new(), channels: Vec::new(), ..full_profile() };
    assert_eq!(after.profile, Some(expected));
    assert_eq!(after.trust_level(), pb::TrustLevel::Trusted);
    assert_ne!(after.etag, before.etag);
    assert_eq!((&after.tier_id, after.create_time, after.tier_since), (&before.tier_id, before.create_time, before.tier_since));
    let (earlier, later) = (before.update_time.expect("a time"), after.update_time.expect("a time"));
    assert!(later.seconds - earlier.seconds >= 60);
    assert_eq!(world.get(&after.member_id).await.expect("it is there"), after);
    let told = world.told(&after.member_id).await.pop().expect("a fact");
    let mut fields = told.changed_fields;
    fields.sort();
    assert_eq!(fields, ["profile.channels", "profile.city", "profile.email", "trust_level"]);
    assert_eq!((told.created, told.version), (false, 2));
}

#[tokio::test]
async fn what_is_not_named_empties_nothing_even_without_a_profile() {
    let world = World::new().await;
    let before = world.member(full_profile()).await;
    let mut request = world.update_request(&before.member_id, Default::default(), &["trust_level"]);
    (request.profile, request.trust_level) = (None, pb::TrustLevel::Proven.into());
    assert_eq!(world.update(request).await.expect("updated").profile, Some(full_profile()));
    // A field that is named and has no value is cleared, whether the profile is sent or not.
    let mut request = world.update_request(&before.member_id, Default::default(), &["profile.consents", "profile.tags"]);
    request.profile = None;
    let expected = pb::MemberProfile { consents: Vec::new(), tags: Vec::new(), ..full_profile() };
    assert_eq!(world.update(request).await.expect("updated").profile, Some(expected));
}

#[tokio::test]
async fn an_update_that_changes_nothing_leaves_the_version_and_tells_nobody() {
    let world = World::new().await;
    let before = world.member(full_profile()).await;
    let request = world.update_request(&before.member_id, full_profile(), &["profile.city", "profile.tags"]);
    assert_eq!(world.update(request).await.expect("updated"), before);
    assert_eq!(world.told(&before.member_id).await.len(), 1);
}

#[tokio::test]
async fn an_update_from_an_old_reading_is_refused_and_says_what_to_read() {
    let world = World::new().await;
    let read = world.member(in_city("广州")).await;
    let moved = world.update_request(&read.member_id, in_city("深圳"), &["profile.city"]);
    let now = world.update(moved).await.expect("updated");

    let late = pb::UpdateMemberRequest {
        etag: read.etag,
        ..world.update_request(&read.member_id, in_city("佛山"), &["profile.city"])
    };
    let figures = refused(world.update(late.clone()).await, Code::Aborted, "ETAG_MISMATCH");

    assert_eq!((&figures["member_id"], &figures["etag"]), (&now.member_id, &now.etag));
    assert_eq!(world.get(&now.member_id).await.expect("it is there"), now);
    let forged = pb::UpdateMemberRequest { etag: "版本2".into(), request_id: id(), ..late.clone() };
    refused(world.update(forged).await, Code::Aborted, "ETAG_MISMATCH");
    let again = pb::UpdateMemberRequest { etag: now.etag, request_id: id(), ..late };
    assert_eq!(world.update(again).await.expect("updated").profile, Some(in_city("佛山")));
}

#[tokio::test]
async fn all_that_an_update_breaks_is_reported_at_once() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await;
    let paths = ["tier_id", "profile.city", "profile", "city", "profile.shoe_size", "trust_level", "profile.channels.handle", ""];
    let channel = pb::Channel { platform: "DOUYIN".into(), handle: "x".into(), followers: None };
    let profile = pb::MemberProfile { channels: vec![channel.clone(), channel], ..Default::default() };
    let not_updatable = "FIELD_NOT_UPDATABLE";
    assert_eq!(
        violations(world.update(world.update_request(&member.member_id, profile, &paths)).await),
        pairs([
            ("update_mask.paths[0]", not_updatable),
            ("update_mask.paths[2]", not_updatable),
            ("update_mask.paths[3]", not_updatable),
            ("update_mask.paths[4]", not_updatable),
            ("update_mask.paths[6]", not_updatable),
            ("update_mask.paths[7]", not_updatable),
            ("profile.channels[1]", "CHANNEL_REPEATED"),
            ("trust_level", "enum.not_in"),
        ])
    );
    let none = world.update_request(&member.member_id, Default::default(), &[]);
    assert_eq!(violations(world.update(none.clone()).await), pairs([("update_mask.paths", "repeated.min_items")]));
    let absent = pb::UpdateMemberRequest { update_mask: None, trust_level: 7, member_id: "x".into(), ..none };
    assert_eq!(
        violations(world.update(absent).await),
        pairs([("member_id", "string.uuid"), ("trust_level", "enum.defined_only"), ("update_mask", "required")])
    );
    assert_eq!(world.get(&member.member_id).await.expect("it is there"), member);
}

#[tokio::test]
async fn only_members_of_the_programme_can_be_changed() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await;
    let nobody = id();
    let request = world.update_request(&nobody, in_city("深圳"), &["profile.city"]);
    assert_eq!(refused(world.update(request).await, Code::NotFound, "MEMBER_NOT_FOUND")["resource_id"], nobody);
    let mut elsewhere = world.update_request(&member.member_id, in_city("深圳"), &["profile.city"]);
    elsewhere.programme_id = world.another_programme().await;
    refused(world.update(elsewhere).await, Code::NotFound, "MEMBER_NOT_FOUND");
    assert_eq!(world.get(&member.member_id).await.expect("it is there"), member);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_updates_from_one_reading_exactly_one_wins() {
    let world = World::new().await;
    let read = world.member(in_city("广州")).await;
    let updates = (0..12).map(|i| {
        let mut request = world.update_request(&read.member_id, in_city(&format!("第{i}城")), &["profile.city"]);
        request.etag = read.etag.clone();
        world.update(request)
    });
    let (won, lost): (Vec<_>, Vec<_>) = join_all(updates).await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    let winner = won.into_iter().next().expect("one").expect("it won");
    assert_eq!(world.get(&read.member_id).await.expect("it is there"), winner);
    for answer in lost {
        assert_eq!(refused(answer, Code::Aborted, "ETAG_MISMATCH")["etag"], winner.etag);
    }
    assert_eq!(world.told(&read.member_id).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_different_fields_at_once_all_last_and_each_has_a_version_of_its_own() {
    let world = World::new().await;
    let member_id = world.member(Default::default()).await.member_id;
    let full = full_profile();
    let paths =
        ["display_name", "email", "phone", "region_code", "city", "channels", "vehicles", "motivations", "tags", "consents"];
    let paths: Vec<String> = paths.iter().map(|name| format!("profile.{name}")).collect();
    let updates = paths.iter().map(|path| world.update(world.update_request(&member_id, full.clone(), &[path])));
    for answer in join_all(updates).await {
        answer.expect("updated");
    }
    assert_eq!(world.get(&member_id).await.expect("it is there").profile, Some(full));
    let told = world.told(&member_id).await;
    let versions: Vec<_> = told.iter().map(|change| change.version).collect();
    assert_eq!(versions, (1..=11).collect::<Vec<_>>());
    let mut fields: Vec<_> = told.into_iter().flat_map(|change| change.changed_fields).collect();
    fields.sort();
    let mut expected = paths;
    expected.sort();
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn a_caller_has_the_last_word_over_what_source_systems_said_before() {
    let world = World::new().await;
    let in_five_minutes = crate::world::ahead(Duration::from_secs(300));
    let from_a_fast_clock = pb::MemberRow { source_time: Some(in_five_minutes), ..row("1", 0, in_city("广州")) };
    let member_id = world.upsert(vec![from_a_fast_clock.clone()]).await[0].member_id.clone();
    world.update(world.update_request(&member_id, in_city("深圳"), &["profile.city"])).await.expect("updated");

    let results = world.upsert(vec![from_a_fast_clock, row("1", 5, named("来信"))]).await;

    use pb::SyncOutcome::{Stale, Updated};
    assert_eq!(crate::world::outcomes(&results), [Stale, Updated]);
    let profile = world.get(&member_id).await.expect("it is there").profile.unwrap_or_default();
    assert_eq!((profile.city.as_str(), profile.display_name.as_str()), ("深圳", "来信"));
}

#[tokio::test]
async fn a_withdrawn_consent_is_kept_against_older_rows() {
    let world = World::new().await;
    let granted = consents(pb::ConsentPurpose::Profiling, true);
    let member_id = world.upsert(vec![row("1", 0, granted.clone())]).await[0].member_id.clone();
    let withdrawn = consents(pb::ConsentPurpose::Profiling, false);
    world.update(world.update_request(&member_id, withdrawn.clone(), &["profile.consents"])).await.expect("updated");
    let results = world.upsert(vec![row("1", 9, granted)]).await;
    assert_eq!(results[0].outcome(), pb::SyncOutcome::Stale);
    assert_eq!(world.get(&member_id).await.expect("it is there").profile, Some(withdrawn));
}
