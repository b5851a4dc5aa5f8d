//! Erasing members: what is left, who follows, and whom no sync brings back.

use crate::world::{
    DAY, Synced, World, at, fact, full_profile, id, identity, in_city, outcomes, pairs, refused, row, serve, violations,
};
use koc_proto::koc::registry::v1 as pb;
use tonic::{Code, Status};

fn request(world: &World, member_id: &str) -> pb::EraseMemberRequest {
    pb::EraseMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.to_owned(),
        ground: pb::ErasureGround::Requested.into(),
        etag: String::new(),
    }
}

async fn erase(world: &World, request: pb::EraseMemberRequest) -> Result<pb::Erasure, Status> {
    Ok(world.erasures().erase_member(request).await?.into_inner().erasure.unwrap_or_default())
}

async fn get(world: &World, erasure_id: &str) -> Result<pb::Erasure, Status> {
    let request = pb::GetErasureRequest { programme_id: world.programme.clone(), erasure_id: erasure_id.to_owned() };
    Ok(world.erasures().get_erasure(request).await?.into_inner().erasure.unwrap_or_default())
}

async fn list(world: &World, page_size: i32, open_only: bool) -> Vec<String> {
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let programme_id = world.programme.clone();
        let request = pb::ListErasuresRequest { programme_id, page_size, page_token, open_only };
        let page = world.erasures().list_erasures(request).await.expect("a page").into_inner();
        assert!(page.erasures.len() <= page_size as usize);
        ids.extend(page.erasures.into_iter().map(|erasure| erasure.erasure_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return ids;
        }
    }
}

async fn acknowledge(world: &World, erasure_id: &str, consumer: &str, rows: i64) -> Result<pb::Erasure, Status> {
    let request = pb::AcknowledgeErasureRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        erasure_id: erasure_id.to_owned(),
        consumer: consumer.to_owned(),
        erased: vec![pb::ErasedCount { name: "comment".into(), rows }],
    };
    Ok(world.erasures().acknowledge_erasure(request).await?.into_inner().erasure.unwrap_or_default())
}

async fn lift(world: &World, email: &str) -> Result<i32, Status> {
    let request = pb::LiftSuppressionRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        external_identities: Vec::new(),
        email: email.to_owned(),
        phone: String::new(),
        consent_reference: "consent/2026-0815".into(),
    };
    Ok(world.erasures().lift_suppression(request).await?.into_inner().lifted_count)
}

/// A member with something in every field, known to `crm` as this.
async fn known(world: &World, external_id: &str) -> pb::Member {
    let mut request = world.create_request(full_profile());
    request.external_identities = vec![identity("crm", external_id)];
    world.create(request).await.expect("created")
}

#[tokio::test]
async fn an_erased_member_is_an_id_and_nothing_else() {
    let world = World::new().await;
    let member = known(&world, "77").await;
    let member_id = member.member_id.clone();
    world.update(world.update_request(&member_id, in_city("深圳"), &["profile.city"])).await.expect("updated");
    world.earn(&member_id, 100).await;
    let asked = request(&world, &member_id);

    let erasure = erase(&world, asked.clone()).await.expect("erased");

    assert_eq!((erasure.state(), erasure.ground()), (pb::ErasureState::Erasing, pb::ErasureGround::Requested));
    assert_eq!((&erasure.member_id, &erasure.member_ids), (&member_id, &vec![member_id.clone()]));
    let counts: Vec<(&str, i64)> = erasure.erased.iter().map(|count| (count.name.as_str(), count.rows)).collect();
    let member_rows = [("external_identity", 1), ("member", 1), ("member_change_value", 1), ("member_search", 1)];
    assert_eq!(counts, [&member_rows[..], &[("trail", 4)]].concat());
    assert_eq!(erase(&world, asked).await.expect("a retry").erasure_id, erasure.erasure_id);

    let left = world.get(&member_id).await.expect("found");
    assert_eq!((left.state(), left.trust_level()), (pb::MemberState::Erased, pb::TrustLevel::New));
    assert_eq!((&left.create_time, &left.tier_id), (&member.create_time, &member.tier_id));
    let mut profile = left.profile.expect("a profile");
    assert_eq!(profile.consents.len(), 4);
    assert!(profile.consents.drain(..).all(|consent| !consent.granted), "every consent is withdrawn");
    assert_eq!((profile, left.external_identities), (pb::MemberProfile::default(), Vec::new()));
    refused(world.lookup("crm", "77").await, Code::NotFound, "MEMBER_NOT_FOUND");

    // What it had earned stands; nobody sees where.
    let standing = world.standing(&member_id).await;
    assert_eq!((standing.balance, standing.lifetime_points, standing.rank), (100, 100, 0));
    refused(world.redeem(&member_id, 10).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");

    let told: Vec<pb::MemberErased> = world.changes().await.iter().filter_map(fact).collect();
    let (erasure_id, member_ids) = (erasure.erasure_id.clone(), vec![member_id.clone()]);
    assert_eq!(told, [pb::MemberErased { erasure_id, member_id, member_ids }]);
}

#[tokio::test]
async fn nothing_more_is_done_to_an_erased_member() {
    let world = World::new().await;
    let (member_id, other_id) = (known(&world, "77").await.member_id, world.member(in_city("广州")).await.member_id);
    let erasure = erase(&world, request(&world, &member_id)).await.expect("erased");

    let info = refused(erase(&world, request(&world, &member_id)).await, Code::FailedPrecondition, "MEMBER_ERASED");
    assert_eq!(info.get("erasure_id"), Some(&erasure.erasure_id));
    let update = world.update_request(&member_id, in_city("深圳"), &["profile.city"]);
    refused(world.update(update).await, Code::FailedPrecondition, "MEMBER_ERASED");
    let suspend = pb::SuspendMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        reason: "刷单".into(),
        etag: String::new(),
    };
    refused(world.members().suspend_member(suspend).await, Code::FailedPrecondition, "MEMBER_ERASED");
    let reinstate = pb::ReinstateMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        reason: "申诉成功".into(),
        etag: String::new(),
    };
    refused(world.members().reinstate_member(reinstate).await, Code::FailedPrecondition, "MEMBER_ERASED");
    let scores = pb::UpdateValueProfileRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        scores: vec![pb::ValueScore { value_type: 1, ..Default::default() }],
        as_of: Some(at(1)),
        past_return: None,
        value_model_version: "1".into(),
    };
    refused(world.values().update_value_profile(scores).await, Code::FailedPrecondition, "MEMBER_ERASED");
    for (winner, loser) in [(&member_id, &other_id), (&other_id, &member_id)] {
        let merge = merge_request(&world, winner, loser);
        refused(world.members().merge_members(merge).await, Code::FailedPrecondition, "MEMBER_ERASED");
    }
}

fn merge_request(world: &World, winner: &str, loser: &str) -> pb::MergeMembersRequest {
    pb::MergeMembersRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        winner_member_id: winner.to_owned(),
        loser_member_id: loser.to_owned(),
        reason: "同一个人".into(),
        etag: String::new(),
    }
}

#[tokio::test]
async fn a_merged_person_is_erased_under_every_id() {
    let world = World::new().await;
    let (winner, loser) = (known(&world, "1").await.member_id, known(&world, "2").await.member_id);
    world.members().merge_members(merge_request(&world, &winner, &loser)).await.expect("merged");

    // By whichever id.
    let erasure = erase(&world, request(&world, &loser)).await.expect("erased");

    let mut both = vec![winner.clone(), loser.clone()];
    both.sort();
    assert_eq!((&erasure.member_id, &erasure.member_ids), (&winner, &both));
    assert_eq!(world.get(&loser).await.expect("found"), world.get(&winner).await.expect("found"));
    let names = "SELECT count(*) FROM member WHERE display_name <> '' OR email <> '' OR provenance <> '{}' OR erase_time IS NULL";
    assert_eq!(world.count(names).await, 0);
    assert_eq!(world.count("SELECT count(*) FROM member_change_value").await, 0);
    let unmerge = pb::UnmergeMembersRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        loser_member_id: loser,
        reason: "认错人".into(),
    };
    refused(world.members().unmerge_members(unmerge).await, Code::FailedPrecondition, "MEMBER_ERASED");
    assert_eq!(
        outcomes(&world.upsert(vec![row("1", 1, in_city("广州")), row("2", 1, in_city("广州"))]).await),
        [Synced::Suppressed; 2]
    );
}

#[tokio::test]
async fn words_about_an_erased_member_are_gone_and_those_about_others_stay() {
    let world = World::new().await;
    let (gone, stays) = (known(&world, "1").await.member_id, world.member(in_city("广州")).await.member_id);
    for member_id in [&gone, &stays] {
        let suspend = pb::SuspendMemberRequest {
            programme_id: world.programme.clone(),
            request_id: id(),
            member_id: member_id.clone(),
            reason: format!("话 {member_id}"),
            etag: String::new(),
        };
        world.members().suspend_member(suspend).await.expect("suspended");
    }
    erase(&world, request(&world, &gone)).await.expect("erased");

    let reasons: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT reason FROM audit_entry WHERE method = 'koc.registry.v1.SuspendMemberRequest' ORDER BY audit_entry_id",
    )
    .fetch_all(&world.registry.database.admin)
    .await
    .expect("reasons");
    assert_eq!(reasons, [None, Some(format!("话 {stays}"))]);
    // Nobody but an erasure takes words out of the trail.
    let app = sqlx::PgPool::connect(&world.registry.database.app_url).await.expect("connected");
    let sql = "SELECT registry.erase_words($1::uuid, ARRAY[$2::uuid])";
    let changed: i64 = sqlx::query_scalar(sql).bind(&world.programme).bind(&stays).fetch_one(&app).await.expect("called");
    assert_eq!(changed, 0);
}

#[tokio::test]
async fn no_sync_and_no_caller_brings_an_erased_person_back() {
    let world = World::new().await;
    let member_id = known(&world, "77").await.member_id;
    // An address that it had before is known too.
    let moved = pb::MemberProfile { email: "new@example.com".into(), ..Default::default() };
    world.update(world.update_request(&member_id, moved, &["profile.email"])).await.expect("updated");
    erase(&world, request(&world, &member_id)).await.expect("erased");
    let email = |email: &str| pb::MemberProfile { email: email.into(), ..Default::default() };
    let phone = pb::MemberProfile { phone: full_profile().phone, ..Default::default() };

    let rows = vec![
        row("77", 5, in_city("广州")),
        row("78", 5, email("NEW@Example.com")),
        row("79", 5, email("letters@example.com")),
        row("80", 5, phone.clone()),
        row("81", 5, email("somebody@example.com")),
        row("78", 6, in_city("广州")),
    ];
    let trial = pb::BatchUpsertMembersRequest { validate_only: true, ..world.batch("crm", rows.clone()) };
    let expected =
        [Synced::Suppressed, Synced::Suppressed, Synced::Suppressed, Synced::Suppressed, Synced::Created, Synced::Suppressed];
    assert_eq!(outcomes(&world.send(trial).await), expected);
    let results = world.upsert(rows).await;
    assert_eq!(outcomes(&results), expected);
    assert!(results.iter().all(|result| result.member_id.is_empty() == (result.outcome() == Synced::Suppressed)));
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 1);
    // The same id in another system is another one, and another programme knows nothing.
    assert_eq!(outcomes(&world.send(world.batch("shop", vec![row("77", 5, in_city("广州"))])).await), [Synced::Created]);

    let mut create = world.create_request(in_city("广州"));
    create.external_identities = vec![identity("web", "1"), identity("crm", "77")];
    let info = refused(world.create(create).await, Code::FailedPrecondition, "MEMBER_SUPPRESSED");
    assert_eq!(info.get("field").map(String::as_str), Some("external_identities[1]"));
    let info = refused(world.create(world.create_request(phone)).await, Code::FailedPrecondition, "MEMBER_SUPPRESSED");
    assert_eq!(info.get("field").map(String::as_str), Some("profile.phone"));
    assert_eq!(world.count("SELECT count(*) FROM external_identity WHERE source_system = 'web'").await, 0);
}

#[tokio::test]
async fn who_comes_back_with_consent_is_let_in_as_somebody_new() {
    let world = World::new().await;
    let member_id = known(&world, "77").await.member_id;
    erase(&world, request(&world, &member_id)).await.expect("erased");
    refused(lift(&world, "somebody@example.com").await, Code::NotFound, "SUPPRESSION_NOT_FOUND");
    assert_eq!(violations(lift(&world, "").await), pairs([("external_identities", "IDENTIFIER_MISSING")]));

    // The address brings the identity and the number with it.
    assert_eq!(lift(&world, "Letters@example.com").await.expect("lifted"), 3);

    let results = world.upsert(vec![row("77", 5, full_profile())]).await;
    assert_eq!(outcomes(&results), [Synced::Created]);
    assert_ne!(results[0].member_id, member_id);
    let kept = "SELECT count(*) FROM suppression_lift WHERE consent_reference = 'consent/2026-0815' AND lifted_count = 3";
    assert_eq!(world.count(kept).await, 1);
}

#[tokio::test]
async fn an_erasure_is_done_when_all_have_followed_and_overdue_when_they_have_not() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for external_id in ["1", "2", "3"] {
        let member_id = known_as(&world, external_id).await;
        ids.push(erase(&world, request(&world, &member_id)).await.expect("erased").erasure_id);
        world.registry.advance(DAY).await;
    }
    // The first one's deadline was three days after it began.
    world.registry.advance(std::time::Duration::from_secs(1)).await;

    acknowledge(&world, &ids[0], "task", 3).await.expect("acknowledged");
    let late = get(&world, &ids[0]).await.expect("found");
    assert_eq!((late.state(), late.overdue), (pb::ErasureState::Erasing, true));
    let states: Vec<(&str, bool)> =
        late.acknowledgements.iter().map(|ack| (ack.consumer.as_str(), ack.acknowledge_time.is_some())).collect();
    assert_eq!(states, [("budget", false), ("measurement", false), ("task", true)]);
    assert!(!get(&world, &ids[1]).await.expect("found").overdue);
    assert_eq!(list(&world, 1, false).await, ids, "the longest overdue first");

    acknowledge(&world, &ids[0], "measurement", 0).await.expect("acknowledged");
    let done = acknowledge(&world, &ids[0], "budget", 7).await.expect("acknowledged");
    assert_eq!((done.state(), done.overdue), (pb::ErasureState::Erased, false));
    // What was said first counts.
    let again = acknowledge(&world, &ids[0], "budget", 8).await.expect("answered");
    assert_eq!(again, done);
    assert_eq!(list(&world, 2, false).await, [&ids[1..], &ids[..1]].concat());
    assert_eq!(list(&world, 2, true).await, ids[1..]);
    refused(acknowledge(&world, &ids[1], "shop", 1).await, Code::NotFound, "CONSUMER_UNKNOWN");
    refused(acknowledge(&world, &id(), "budget", 1).await, Code::NotFound, "ERASURE_NOT_FOUND");
}

async fn known_as(world: &World, external_id: &str) -> String {
    let mut request = world.create_request(in_city("广州"));
    request.external_identities = vec![identity("crm", external_id)];
    world.create(request).await.expect("created").member_id
}

#[tokio::test]
async fn without_the_key_nobody_is_erased_and_nobody_let_in() {
    let world = World::new().await;
    let (gone, stays) = (known(&world, "1").await.member_id, world.member(in_city("广州")).await.member_id);
    erase(&world, request(&world, &gone)).await.expect("erased");
    let programme = world.programme.clone();
    let database = world.registry.stop().await;
    let registry = koc_tests::service::start_on(koc_tests::service::free_address(), database, |common, stop| {
        koc_registry::serve(koc_registry::Config::from(common), koc_chassis::telemetry::Metrics::new(), stop)
    })
    .await;
    let world = World::of(registry, programme.clone());

    let asked = request(&world, &stays);
    refused(erase(&world, asked.clone()).await, Code::FailedPrecondition, "SUPPRESSION_KEY_MISSING");
    let batch = world.batch("crm", vec![row("1", 1, in_city("广州"))]);
    let info =
        refused(world.sync().batch_upsert_members(batch.clone()).await, Code::FailedPrecondition, "SUPPRESSION_KEY_MISSING");
    assert_eq!(info.get("key_id").map(String::as_str), Some("test"));
    let mut create = world.create_request(in_city("广州"));
    create.external_identities = vec![identity("crm", "2")];
    refused(world.create(create).await, Code::FailedPrecondition, "SUPPRESSION_KEY_MISSING");

    // With the key the same requests go through: the refusal was not kept.
    let world = World::of(serve(world.registry.stop().await).await, programme);
    assert_eq!(outcomes(&world.send(batch).await), [Synced::Suppressed]);
    erase(&world, asked).await.expect("erased");
}

#[tokio::test]
async fn a_sync_that_waited_for_an_erasure_does_not_bring_the_person_back() {
    let world = World::new().await;
    let member_id = known(&world, "77").await.member_id;
    // Somebody holds the member's row: the erasure waits, and behind it the sync.
    let mut holder = world.registry.database.admin.begin().await.expect("begun");
    sqlx::query("SELECT FROM member WHERE member_id = $1::uuid FOR UPDATE")
        .bind(&member_id)
        .execute(&mut *holder)
        .await
        .expect("held");
    let asked = request(&world, &member_id);
    let erasing = {
        let mut client = world.erasures();
        tokio::spawn(async move { client.erase_member(asked).await })
    };
    world.wait_for_a_waiting_call().await;
    let batch = world.batch("crm", vec![row("77", 5, in_city("广州"))]);
    let syncing = {
        let mut client = world.sync();
        tokio::spawn(async move { client.batch_upsert_members(batch).await })
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    koc_tests::wait::until("both to wait", crate::world::PATIENCE, async || (world.count(waiting).await == 2).then_some(()))
        .await;
    holder.rollback().await.expect("let go");

    erasing.await.expect("answered").expect("erased");
    let results = syncing.await.expect("answered").expect("applied").into_inner().results;
    // Whoever came first of the two: the person is gone in the end.
    assert!([Synced::Suppressed, Synced::Updated].contains(&results[0].outcome()), "{results:?}");
    assert_eq!(world.get(&member_id).await.expect("found").state(), pb::MemberState::Erased);
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM member WHERE city <> ''").await, 0);
}

#[tokio::test]
async fn erased_members_are_told_from_the_others_in_lists_and_history() {
    let world = World::new().await;
    let (gone, stays) = (known(&world, "1").await.member_id, world.member(in_city("广州")).await.member_id);
    erase(&world, request(&world, &gone)).await.expect("erased");
    for (filter, expected) in [("state = ERASED", &gone), ("state != ERASED", &stays), ("state = ACTIVE", &stays)] {
        let list = pb::ListMembersRequest { programme_id: world.programme.clone(), filter: filter.into(), ..Default::default() };
        let found = world.members().list_members(list).await.expect("a page").into_inner().members;
        assert_eq!(found.iter().map(|member| &member.member_id).collect::<Vec<_>>(), [expected], "{filter}");
    }
    let history = pb::ListMemberHistoryRequest {
        programme_id: world.programme.clone(),
        member_id: gone,
        page_size: 0,
        page_token: String::new(),
    };
    let changes = world.members().list_member_history(history).await.expect("a page").into_inner().changes;
    let kinds: Vec<pb::MemberChangeKind> = changes.iter().map(pb::MemberHistoryEntry::kind).collect();
    assert_eq!(kinds, [pb::MemberChangeKind::Erased, pb::MemberChangeKind::Created]);
    // What was written is still known, and no more than that.
    assert!(changes[1].fields.iter().any(|field| field.path == "profile.email"));
    assert!(changes[1].fields.iter().filter(|field| !field.path.contains("consents")).all(|field| field.after.is_empty()));
}
