//! Batches of rows from source systems.

use crate::world::{
    World, ahead, consents, full_profile, id, identity, in_city, named, outcomes, pairs, row, row_violations, violations,
};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use pb::SyncOutcome::{Created, Rejected, Stale, Unchanged, Updated};
use std::{collections::HashSet, time::Duration};
use tonic::Code;

/// All that is kept of members, with the stamps of their fields.
async fn kept(world: &World) -> (String, i64, i64) {
    let sql = "SELECT COALESCE(string_agg(m::text, '|' ORDER BY member_id), '') FROM member AS m";
    let members = sqlx::query_scalar(sql).fetch_one(&world.registry.database.admin).await.expect("a text");
    let (facts, entries) = ("SELECT count(*) FROM told", "SELECT count(*) FROM audit_entry");
    (members, world.count(facts).await, world.count(entries).await)
}

#[tokio::test]
async fn each_row_has_its_own_outcome_and_a_bad_one_fails_no_neighbour() {
    let world = World::new().await;
    let first = world.upsert(vec![row("1", 5, full_profile()), row("2", 5, in_city("广州"))]).await;
    assert_eq!(outcomes(&first), [Created, Created]);

    let bad = pb::MemberProfile { email: "nobody".into(), phone: "12".into(), motivations: vec![9], ..Default::default() };
    let mut unknown = row("9", 6, in_city("广州"));
    unknown.clear_fields = vec!["shoe_size".into(), "city".into()];
    let results = world
        .upsert(vec![
            row("1", 6, full_profile()),
            row("8", 6, bad),
            row("2", 6, in_city("深圳")),
            unknown,
            row("2", 4, in_city("佛山")),
            pb::MemberRow { source_time: None, external_id: String::new(), ..row("", 0, named("\0")) },
            row("3", 6, in_city("北京")),
        ])
        .await;

    assert_eq!(outcomes(&results), [Unchanged, Rejected, Updated, Rejected, Stale, Rejected, Created]);
    assert_eq!(results.iter().map(|r| r.row_index).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    assert_eq!((&results[0].member_id, &results[2].member_id), (&first[0].member_id, &first[1].member_id));
    assert_eq!(
        row_violations(&results[1]),
        pairs([
            ("profile.email", "string.pattern"),
            ("profile.phone", "string.pattern"),
            ("profile.motivations[0]", "enum.defined_only"),
        ])
    );
    assert_eq!(
        row_violations(&results[3]),
        pairs([("clear_fields[0]", "FIELD_UNKNOWN"), ("clear_fields[1]", "FIELD_CLEARED_AND_SET")])
    );
    assert_eq!(
        row_violations(&results[5]),
        pairs([("external_id", "string.min_len"), ("source_time", "required"), ("profile.display_name", "string.no_nul")])
    );
    assert!(results.iter().filter(|r| r.outcome() != Rejected).all(|r| r.status.is_none()));
    let one = world.lookup("crm", "1").await.expect("found");
    assert_eq!((one.tier_id.as_str(), one.trust_level()), ("BASE", pb::TrustLevel::New));
    assert_eq!(one.profile, Some(full_profile()));
    assert_eq!(one.external_identities, [identity("crm", "1")]);
    assert_eq!(world.lookup("crm", "2").await.expect("found").profile, Some(in_city("深圳")));
    assert_eq!(world.lookup("crm", "3").await.expect("found").member_id, results[6].member_id);
    assert_eq!(world.lookup("crm", "8").await.expect_err("rejected").code(), Code::NotFound);
}

#[tokio::test]
async fn the_same_batch_again_changes_nothing() {
    let world = World::new().await;
    let rows: Vec<_> = (0..40).map(|i| row(&i.to_string(), i, named(&format!("客户{}", i % 3)))).collect();
    let first = world.upsert(rows.clone()).await;
    assert!(outcomes(&first).iter().all(|outcome| *outcome == Created));
    let before = kept(&world).await;
    let again = world.upsert(rows).await;
    assert!(outcomes(&again).iter().all(|outcome| *outcome == Unchanged));
    assert!(again.iter().zip(&first).all(|(again, first)| again.member_id == first.member_id));
    assert_eq!(kept(&world).await, before);
}

#[tokio::test]
async fn absent_fields_stay_and_cleared_ones_are_emptied_against_older_rows() {
    let world = World::new().await;
    world.upsert(vec![row("1", 1, full_profile())]).await;
    let clear = |second, names: &[&str]| pb::MemberRow {
        clear_fields: names.iter().map(|name| (*name).to_owned()).collect(),
        ..row("1", second, Default::default())
    };

    let results =
        world.upsert(vec![clear(3, &["email", "tags"]), row("1", 2, full_profile()), row("1", 4, Default::default())]).await;

    assert_eq!(outcomes(&results), [Updated, Stale, Unchanged]);
    let expected = pb::MemberProfile { email: String::new(), tags: Vec::new(), ..full_profile() };
    assert_eq!(world.lookup("crm", "1").await.expect("found").profile, Some(expected));
    let no_profile = pb::MemberRow { profile: None, ..clear(5, &["city", "vehicles"]) };
    assert_eq!(outcomes(&world.upsert(vec![no_profile]).await), [Updated]);
    assert_eq!(
        outcomes(&world.upsert(vec![row("1", 6, pb::MemberProfile { tags: vec!["新".into()], ..Default::default() })]).await),
        [Updated]
    );
    let told = world.told(&results[0].member_id).await;
    let fields: Vec<_> = told.into_iter().map(|change| change.changed_fields).collect();
    assert_eq!(
        fields[1..],
        [
            vec!["profile.email".to_owned(), "profile.tags".into()],
            vec!["profile.city".into(), "profile.vehicles".into()],
            vec!["profile.tags".into()],
        ]
    );
}

#[tokio::test]
async fn an_older_row_never_overwrites_a_newer_one_and_a_tie_ends_the_same_in_any_order() {
    let world = World::new().await;
    world.upsert(vec![row("1", 5, in_city("广州")), row("2", 5, in_city("深圳"))]).await;
    let results = world.upsert(vec![row("1", 4, in_city("北京")), row("2", 6, in_city("北京"))]).await;
    assert_eq!(outcomes(&results), [Stale, Updated]);
    assert_eq!(world.lookup("crm", "1").await.expect("found").profile, Some(in_city("广州")));

    // The same time, another city, in both orders: one of the two wins for both people.
    let here = world.upsert(vec![row("3", 7, in_city("广州")), row("4", 7, in_city("深圳"))]).await;
    let there = world.upsert(vec![row("3", 7, in_city("深圳")), row("4", 7, in_city("广州"))]).await;
    assert_eq!(outcomes(&here), [Created, Created]);
    let mut second = outcomes(&there);
    second.sort();
    assert_eq!(second, [Updated, Stale]);
    let (three, four) = (world.lookup("crm", "3").await.expect("found"), world.lookup("crm", "4").await.expect("found"));
    assert_eq!(three.profile, four.profile);
}

#[tokio::test]
async fn a_system_that_knows_of_one_consent_leaves_a_withdrawal_of_another() {
    let world = World::new().await;
    let (profiling, contact) = (pb::ConsentPurpose::Profiling, pb::ConsentPurpose::Contact);
    world.upsert(vec![row("1", 1, consents(profiling, false)), row("2", 2, consents(contact, true))]).await;

    // Later, and earlier, than the words on the other purpose.
    let results = world.upsert(vec![row("1", 2, consents(contact, true)), row("2", 1, consents(profiling, false))]).await;

    assert_eq!(outcomes(&results), [Updated, Updated]);
    let both = [consents(profiling, false).consents, consents(contact, true).consents].concat();
    for (result, external_id) in results.iter().zip(["1", "2"]) {
        assert_eq!(world.lookup("crm", external_id).await.expect("found").profile.unwrap_or_default().consents, both);
        let told = world.told(&result.member_id).await;
        assert!(told.len() == 2 && told.iter().all(|change| change.changed_fields == ["profile.consents"]), "{told:?}");
    }
    assert_eq!(outcomes(&world.upsert(vec![row("1", 1, consents(profiling, true))]).await), [Stale]);
    assert_eq!(outcomes(&world.upsert(vec![row("1", 2, consents(profiling, true))]).await), [Updated]);
}

#[tokio::test]
async fn the_same_person_twice_in_a_batch_is_one_member() {
    let world = World::new().await;
    let rows = vec![
        row("1", 2, in_city("广州")),
        row("1", 1, in_city("北京")),
        row("1", 2, in_city("广州")),
        row("1", 3, named("来信")),
        row("1", 0, pb::MemberProfile { phone: "12".into(), ..Default::default() }),
    ];
    let results = world.upsert(rows).await;
    assert_eq!(outcomes(&results), [Created, Stale, Unchanged, Updated, Rejected]);
    assert_eq!(results[..4].iter().map(|r| &r.member_id).collect::<HashSet<_>>().len(), 1);
    let expected = pb::MemberProfile { city: "广州".into(), ..named("来信") };
    assert_eq!(world.lookup("crm", "1").await.expect("found").profile, Some(expected));
    // One change, told once.
    let told = world.told(&results[0].member_id).await;
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].created, told[0].version), (true, 1));
    assert_eq!(told[0].changed_fields, ["profile.display_name", "profile.city"]);
}

#[tokio::test]
async fn fields_that_end_as_they_began_are_no_change() {
    let world = World::new().await;
    let member = world.upsert(vec![row("1", 1, in_city("广州"))]).await[0].member_id.clone();
    let before = world.get(&member).await.expect("it is there");
    let results = world.upsert(vec![row("1", 2, in_city("深圳")), row("1", 3, in_city("广州"))]).await;
    assert_eq!(outcomes(&results), [Updated, Updated]);
    assert_eq!(world.get(&member).await.expect("it is there"), before);
    assert_eq!(world.told(&member).await.len(), 1);
    // What lies between is held off all the same.
    assert_eq!(outcomes(&world.upsert(vec![row("1", 2, in_city("北京"))]).await), [Stale]);
}

#[tokio::test]
async fn a_clock_too_far_ahead_is_rejected_until_time_has_caught_up() {
    let world = World::new().await;
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let at_time = |id: &str, by| pb::MemberRow { source_time: Some(ahead(by)), ..row(id, 0, in_city("广州")) };
    let rows = vec![at_time("1", minutes(9)), at_time("2", minutes(12)), row("3", 1, in_city("广州"))];
    let results = world.upsert(rows.clone()).await;
    assert_eq!(outcomes(&results), [Created, Rejected, Created]);
    assert_eq!(row_violations(&results[1]), pairs([("source_time", "SOURCE_TIME_AHEAD")]));
    world.registry.advance(minutes(3)).await;
    assert_eq!(outcomes(&world.upsert(rows).await), [Unchanged, Created, Unchanged]);

    let no_time = |seconds, nanos| pb::MemberRow {
        source_time: Some(prost_types::Timestamp { seconds, nanos }),
        ..row("4", 0, in_city("广州"))
    };
    let results =
        world.upsert(vec![no_time(i64::MAX, 0), no_time(0, -1), no_time(-62_135_596_800, 0), no_time(i64::MIN, 0)]).await;
    assert_eq!(outcomes(&results), [Rejected, Rejected, Created, Rejected]);
    assert_eq!(row_violations(&results[0]), pairs([("source_time", "timestamp")]));
}

#[tokio::test]
async fn a_trial_says_what_would_happen_and_changes_nothing() {
    let world = World::new().await;
    let known = world.upsert(vec![row("1", 5, in_city("广州"))]).await;
    let before = kept(&world).await;
    let rows = vec![
        row("1", 6, in_city("深圳")),
        row("1", 4, in_city("北京")),
        row("2", 1, in_city("广州")),
        row("2", 2, in_city("广州")),
        row("", 1, in_city("广州")),
    ];
    let trial = pb::BatchUpsertMembersRequest { validate_only: true, ..world.batch("crm", rows.clone()) };

    let results = world.send(trial).await;

    assert_eq!(outcomes(&results), [Updated, Stale, Created, Unchanged, Rejected]);
    let ids: Vec<_> = results.iter().map(|r| r.member_id.as_str()).collect();
    assert_eq!(ids, [known[0].member_id.as_str(), &known[0].member_id, "", "", ""]);
    assert_eq!(kept(&world).await, before);
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 1);
    assert_eq!(outcomes(&world.upsert(rows).await), outcomes(&results));
}

#[tokio::test]
async fn a_call_is_refused_as_a_whole_for_what_is_not_a_rows_fault() {
    let world = World::new().await;
    let rows = |n| vec![row("1", 1, in_city("广州")); n];
    let none = world.sync().batch_upsert_members(world.batch("crm", rows(0))).await;
    assert_eq!(violations(none), pairs([("rows", "repeated.min_items")]));
    let many = world.sync().batch_upsert_members(world.batch("CRM", rows(501))).await;
    assert_eq!(violations(many), pairs([("source_system", "string.pattern"), ("rows", "repeated.max_items")]));
    let largest = world.upsert(rows(500)).await;
    assert_eq!((largest.len(), largest[0].outcome(), largest[499].outcome()), (500, Created, Unchanged));
    assert_eq!(world.count("SELECT count(*) FROM member").await, 1);
}

#[tokio::test]
async fn a_member_made_by_a_caller_is_synced_under_each_of_its_identities() {
    let world = World::new().await;
    let mut request = world.create_request(named("来信"));
    request.external_identities = vec![identity("crm", "1"), identity("shop", "1")];
    let member_id = world.create(request).await.expect("created").member_id;
    let later = |second, profile| pb::MemberRow { source_time: Some(ahead(Duration::from_secs(second))), ..row("1", 0, profile) };

    let shop = world.send(world.batch("shop", vec![later(2, in_city("广州"))])).await;
    let crm = world.upsert(vec![later(1, in_city("北京")), later(1, named("山间来信"))]).await;
    // Another programme's person with the same id is another person.
    let elsewhere = pb::BatchUpsertMembersRequest {
        programme_id: world.another_programme().await,
        ..world.batch("crm", vec![later(9, in_city("佛山"))])
    };
    let elsewhere = world.send(elsewhere).await;

    assert_eq!((outcomes(&shop), outcomes(&crm), outcomes(&elsewhere)), (vec![Updated], vec![Stale, Updated], vec![Created]));
    assert!(shop.iter().chain(&crm).all(|r| r.member_id == member_id) && elsewhere[0].member_id != member_id);
    let expected = pb::MemberProfile { city: "广州".into(), ..named("山间来信") };
    assert_eq!(world.get(&member_id).await.expect("it is there").profile, Some(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_people_in_many_batches_at_once_are_made_once() {
    const PEOPLE: usize = 60;
    let world = World::new().await;
    // Half of them are known, and each batch has them all in an order of its own.
    world.upsert((0..PEOPLE / 2).map(|i| row(&i.to_string(), 0, in_city("起点"))).collect()).await;
    let batches = (0..8).map(|batch| {
        let mut rows: Vec<_> = (0..PEOPLE).map(|i| row(&i.to_string(), 1 + batch, in_city(&format!("第{batch}城")))).collect();
        rows.rotate_left(usize::try_from(batch).expect("small") * 7);
        if batch % 2 == 0 {
            rows.reverse();
        }
        let creation = pb::CreateMemberRequest {
            request_id: id(),
            external_identities: vec![identity("crm", &format!("{}", 40 + batch)), identity("crm", "59")],
            ..world.create_request(Default::default())
        };
        let world = &world;
        async move { (world.upsert(rows).await, world.create(creation).await.map(|_| ())) }
    });

    let answers = join_all(batches).await;

    for (results, creation) in &answers {
        assert!(outcomes(results).iter().all(|outcome| matches!(outcome, Created | Updated | Unchanged | Stale)));
        assert_eq!(creation.as_ref().expect_err("taken by then").code(), Code::AlreadyExists);
    }
    let created = answers.iter().flat_map(|(results, _)| outcomes(results)).filter(|outcome| *outcome == Created).count();
    assert_eq!(created, PEOPLE / 2);
    assert_eq!(world.count("SELECT count(*) FROM member").await, 60);
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 60);
    assert_eq!(world.count("SELECT count(*) FROM member WHERE city <> '第7城'").await, 0);
}
