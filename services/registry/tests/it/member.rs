//! Creating and finding members.

use crate::world::{World, full_profile, id, identity, in_city, named, pairs, refused, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use tonic::Code;

#[tokio::test]
async fn a_new_member_is_new_in_the_lowest_tier_and_is_found_by_all_its_names() {
    let world = World::new().await;
    let mut given = full_profile();
    given.motivations.reverse();
    given.tags.reverse();
    given.consents.reverse();
    let mut request = world.create_request(given);
    request.external_identities = vec![identity("shop", "客户-7"), identity("crm", "a 1")];

    let created = world.create(request).await.expect("created");

    assert_eq!(created.profile, Some(full_profile()));
    assert_eq!(created.external_identities, [identity("crm", "a 1"), identity("shop", "客户-7")]);
    assert_eq!((created.trust_level(), created.tier_id.as_str()), (pb::TrustLevel::New, "BASE"));
    assert_eq!((created.create_time, created.create_time), (created.update_time, created.tier_since));
    assert!(created.create_time.is_some() && !created.etag.is_empty() && created.value_scores.is_empty());
    assert_eq!(created.programme_id, world.programme);
    assert_eq!(world.get(&created.member_id).await.expect("by id"), created);
    assert_eq!(world.lookup("crm", "a 1").await.expect("by the first"), created);
    assert_eq!(world.lookup("shop", "客户-7").await.expect("by the second"), created);

    let counted = world.tiers().list_tiers(pb::ListTiersRequest { programme_id: world.programme.clone() }).await;
    assert_eq!(counted.expect("tiers").into_inner().tiers[0].member_count, 1);
}

#[tokio::test]
async fn all_that_a_member_breaks_is_reported_at_once_by_the_paths_of_its_fields() {
    let world = World::new().await;
    let channel = |platform: &str| pb::Channel { platform: platform.into(), handle: "x".into(), followers: Some(0) };
    let mut request = world.create_request(pb::MemberProfile {
        display_name: "名".repeat(201),
        email: "letters＠example.com".into(),
        phone: "13900000000".into(),
        region_code: "Guangdong".into(),
        city: "c".repeat(101),
        channels: vec![channel("DOUYIN"), channel("douyin"), pb::Channel { followers: Some(-1), ..channel("WEIBO") }],
        vehicles: vec![pb::Vehicle { model: String::new(), vin: "V".repeat(33) }],
        motivations: vec![1, 9],
        tags: vec![String::new(), "标".repeat(65)],
        consents: vec![pb::Consent { purpose: 0, granted: true }],
    });
    request.external_identities = vec![identity("CRM", ""), identity("crm", &"9".repeat(201))];

    let found = violations(world.create(request).await);

    assert_eq!(
        found,
        pairs([
            ("profile.display_name", "string.max_len"),
            ("profile.email", "string.pattern"),
            ("profile.phone", "string.pattern"),
            ("profile.region_code", "string.pattern"),
            ("profile.city", "string.max_len"),
            ("profile.channels[1].platform", "string.pattern"),
            ("profile.channels[2].followers", "int.gte"),
            ("profile.vehicles[0].vin", "string.max_len"),
            ("profile.motivations[1]", "enum.defined_only"),
            ("profile.tags[0]", "string.min_len"),
            ("profile.tags[1]", "string.max_len"),
            ("profile.consents[0].purpose", "enum.not_in"),
            ("external_identities[0].source_system", "string.pattern"),
            ("external_identities[0].external_id", "string.min_len"),
            ("external_identities[1].external_id", "string.max_len"),
        ])
    );
    assert_eq!(world.count("SELECT count(*) FROM member").await, 0);
}

#[tokio::test]
async fn rules_that_look_at_more_than_one_value_are_reported_together_too() {
    let world = World::new().await;
    let channel = pb::Channel { platform: "DOUYIN".into(), handle: "x".into(), followers: None };
    let consent = |granted| pb::Consent { purpose: pb::ConsentPurpose::Contact.into(), granted };
    let mut request = world.create_request(pb::MemberProfile {
        channels: vec![channel.clone(), channel],
        consents: vec![consent(true), consent(false)],
        ..Default::default()
    });
    request.external_identities = vec![identity("crm", "1"), identity("crm", "1")];
    assert_eq!(
        violations(world.create(request).await),
        pairs([
            ("external_identities[1]", "EXTERNAL_IDENTITY_REPEATED"),
            ("profile.channels[1]", "CHANNEL_REPEATED"),
            ("profile.consents[1]", "CONSENT_REPEATED"),
        ])
    );
    let twice = pb::MemberProfile { motivations: vec![1, 1], tags: vec!["露营".into(), "露营".into()], ..Default::default() };
    assert_eq!(
        violations(world.create(world.create_request(twice)).await),
        pairs([("profile.motivations", "repeated.unique"), ("profile.tags", "repeated.unique")])
    );
    let no_profile = pb::CreateMemberRequest { profile: None, ..world.create_request(Default::default()) };
    assert_eq!(violations(world.create(no_profile).await), pairs([("profile", "required")]));
}

#[tokio::test]
async fn lengths_are_counted_in_characters_and_blanks_of_any_width_are_no_part_of_an_address() {
    let world = World::new().await;
    let longest = pb::MemberProfile { display_name: "名".repeat(200), city: "城".repeat(100), ..Default::default() };
    assert_eq!(world.member(longest.clone()).await.profile, Some(longest));
    // A name is the person's own: it is kept as it came, blanks and all.
    let spaced = named("　山间　来信 ");
    assert_eq!(world.member(spaced.clone()).await.profile, Some(spaced));

    for email in ["山间　来信@example.com", "a b@example.com", "a@example", "a@b@example.com", "a@exa\u{a0}mple.com", "　"]
    {
        let broken = pb::MemberProfile { email: email.into(), ..Default::default() };
        assert_eq!(violations(world.create(world.create_request(broken)).await), pairs([("profile.email", "string.pattern")]));
    }
    for phone in ["＋8613900000000", "+８613900000000", "+86 139 0000 0000", "+0613900000000", "+1390000000000000"] {
        let broken = pb::MemberProfile { phone: phone.into(), ..Default::default() };
        assert_eq!(violations(world.create(world.create_request(broken)).await), pairs([("profile.phone", "string.pattern")]));
    }
    // A blank makes another identity: an id of a source system is not ours to tidy.
    for external_id in ["客户7", "客户　7", " 客户7"] {
        let mut request = world.create_request(Default::default());
        request.external_identities = vec![identity("crm", external_id)];
        let member = world.create(request).await.expect("each is somebody's own");
        assert_eq!(world.lookup("crm", external_id).await.expect("found"), member);
    }
    let mut nul = world.create_request(named("a\0b"));
    nul.external_identities = vec![identity("crm", "a\0b")];
    assert_eq!(
        violations(world.create(nul).await),
        pairs([("profile.display_name", "string.no_nul"), ("external_identities[0].external_id", "string.no_nul")])
    );
}

#[tokio::test]
async fn an_external_identity_is_one_members_in_a_programme() {
    let world = World::new().await;
    let mut first = world.create_request(Default::default());
    first.external_identities = vec![identity("crm", "1")];
    let holder = world.create(first.clone()).await.expect("created");

    let mut second = world.create_request(in_city("广州"));
    second.external_identities = vec![identity("app", "2"), identity("crm", "1")];
    for _retry in 0..2 {
        let figures = refused(world.create(second.clone()).await, Code::AlreadyExists, "EXTERNAL_IDENTITY_TAKEN");
        assert_eq!(figures["resource_id"], holder.member_id);
        assert_eq!((figures["field"].as_str(), figures["source_system"].as_str()), ("external_identities[1]", "crm"));
    }
    // Nothing of the refused one is left, and its other identity is still free.
    refused(world.lookup("app", "2").await, Code::NotFound, "MEMBER_NOT_FOUND");
    assert_eq!(world.count("SELECT count(*) FROM member").await, 1);
    assert_eq!(world.changes().await.len(), 2);

    let programme_id = world.another_programme().await;
    let elsewhere = pb::CreateMemberRequest { programme_id, request_id: id(), ..first };
    assert_ne!(world.create(elsewhere).await.expect("another programme, another person").member_id, holder.member_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_claim_the_same_identities_in_any_order_one_wins() {
    let world = World::new().await;
    let creations = (0..12).map(|i| {
        let mut request = world.create_request(Default::default());
        request.external_identities = vec![identity("crm", "1"), identity("app", "1"), identity("crm", "2")];
        request.external_identities.rotate_left(i % 3);
        world.create(request)
    });
    let (won, lost): (Vec<_>, Vec<_>) = join_all(creations).await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    let winner = won.into_iter().next().expect("one").expect("it won").member_id;
    for answer in lost {
        assert_eq!(refused(answer, Code::AlreadyExists, "EXTERNAL_IDENTITY_TAKEN")["resource_id"], winner);
    }
    assert_eq!(world.count("SELECT count(*) FROM member").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 3);
}

#[tokio::test]
async fn members_are_given_in_the_order_asked_and_those_missing_are_named() {
    let world = World::new().await;
    let (one, two) = (world.member(named("一")).await, world.member(named("二")).await);
    let programme_id = world.another_programme().await;
    let elsewhere = pb::CreateMemberRequest { programme_id, ..world.create_request(Default::default()) };
    let elsewhere = world.create(elsewhere).await.expect("created").member_id;
    let nobody = id();

    let asked = [&two.member_id, &nobody, &one.member_id, &elsewhere, &two.member_id];
    let member_ids = asked.into_iter().cloned().collect();
    let request = pb::BatchGetMembersRequest { programme_id: world.programme.clone(), member_ids };
    let answer = world.members().batch_get_members(request).await.expect("answered").into_inner();

    assert_eq!(answer.members, [two.clone(), one, two]);
    assert_eq!(answer.missing_member_ids, [nobody.clone(), elsewhere.clone()]);
    for (member_ids, field, rule) in [
        (vec![], "member_ids", "repeated.min_items"),
        (vec![nobody.clone(); 1_001], "member_ids", "repeated.max_items"),
        (vec![nobody.clone(), "x".into()], "member_ids[1]", "string.uuid"),
    ] {
        let request = pb::BatchGetMembersRequest { programme_id: world.programme.clone(), member_ids };
        assert_eq!(violations(world.members().batch_get_members(request).await), pairs([(field, rule)]));
    }
    // Another programme's member is as unknown as nobody.
    refused(world.get(&elsewhere).await, Code::NotFound, "MEMBER_NOT_FOUND");
    assert_eq!(refused(world.get(&nobody).await, Code::NotFound, "MEMBER_NOT_FOUND")["resource_id"], nobody);
}
