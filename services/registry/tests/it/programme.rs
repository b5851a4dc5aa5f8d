//! Programmes.

use crate::world::{World, id, pairs, programme_request, refused, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use tonic::Code;

#[tokio::test]
async fn a_programme_begins_with_three_tiers_and_the_first_policy() {
    let world = World::new().await;
    let created = world.programmes().create_programme(programme_request(&id())).await.expect("created").into_inner().programme;
    let created = created.expect("the programme");
    let request = pb::GetProgrammeRequest { programme_id: created.programme_id.clone() };
    let got = world.programmes().get_programme(request).await.expect("it is there").into_inner().programme;
    assert_eq!(got.as_ref(), Some(&created));
    assert_eq!(
        (created.display_name.as_str(), created.currency_code.as_str(), created.time_zone.as_str()),
        ("车主圈", "CNY", "Asia/Shanghai")
    );
    assert!(created.create_time.is_some());

    let request = pb::ListTiersRequest { programme_id: created.programme_id };
    let answer = world.tiers().list_tiers(request).await.expect("tiers").into_inner();
    let tiers: Vec<_> = answer.tiers.iter().map(|t| (t.tier_id.as_str(), t.rank, t.resource_class(), t.member_count)).collect();
    use pb::ResourceClass::{Exclusive, Incentive, Inclusive};
    assert_eq!(tiers, [("BASE", 1, Inclusive, 0), ("CORE", 2, Incentive, 0), ("APEX", 3, Exclusive, 0)]);
    let policy = answer.policy.expect("a policy");
    assert_eq!((policy.version, policy.min_stay_days(), policy.min_outputs()), (1, 0, 5));
    assert!((policy.min_promote_probability() - 0.80).abs() < 1e-12);
}

#[tokio::test]
async fn all_that_a_programme_breaks_is_reported_at_once() {
    let world = World::new().await;
    let mut request = programme_request(&id());
    (request.currency_code, request.time_zone) = ("ZZZ".into(), "Asia/Nowhere".into());
    assert_eq!(
        violations(world.programmes().create_programme(request.clone()).await),
        pairs([("currency_code", "CURRENCY_UNKNOWN"), ("time_zone", "TIME_ZONE_UNKNOWN")])
    );

    let broken = pb::CreateProgrammeRequest {
        programme_id: "one".into(),
        request_id: String::new(),
        display_name: "圈".repeat(201),
        currency_code: "cny".into(),
        time_zone: String::new(),
    };
    assert_eq!(
        violations(world.programmes().create_programme(broken).await),
        pairs([
            ("programme_id", "string.uuid"),
            ("request_id", "string.uuid"),
            ("display_name", "string.max_len"),
            ("currency_code", "string.pattern"),
            ("time_zone", "string.min_len"),
        ])
    );

    // Nothing of a broken request is kept: its id is free for the mended one. 200 characters are 600 bytes here.
    let mended = pb::CreateProgrammeRequest { display_name: "圈".repeat(200), ..programme_request(&request.programme_id) };
    let mended = pb::CreateProgrammeRequest { request_id: request.request_id, ..mended };
    world.programmes().create_programme(mended).await.expect("created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_programme_is_created_once() {
    let world = World::new().await;
    let programme = id();
    let creations = (0..8).map(|_| async { world.programmes().create_programme(programme_request(&programme)).await });
    let answers = join_all(creations).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for answer in lost {
        let figures = refused(answer, Code::AlreadyExists, "PROGRAMME_EXISTS");
        assert_eq!(figures["resource_id"], programme);
    }
    let request = pb::ListTiersRequest { programme_id: programme };
    assert_eq!(world.tiers().list_tiers(request).await.expect("tiers").into_inner().tiers.len(), 3);
}

#[tokio::test]
async fn what_is_asked_of_a_programme_that_is_not_there_is_not_found() {
    let world = World::new().await;
    let programme_id = id();
    let (code, reason) = (Code::NotFound, "PROGRAMME_NOT_FOUND");
    let get = pb::GetProgrammeRequest { programme_id: programme_id.clone() };
    assert_eq!(refused(world.programmes().get_programme(get).await, code, reason)["resource_id"], programme_id);
    let list = pb::ListTiersRequest { programme_id: programme_id.clone() };
    refused(world.tiers().list_tiers(list).await, code, reason);
    let create = pb::CreateMemberRequest { programme_id: programme_id.clone(), ..world.create_request(Default::default()) };
    refused(world.create(create).await, code, reason);
    let batch =
        pb::BatchUpsertMembersRequest { programme_id: programme_id.clone(), ..world.batch("crm", vec![Default::default()]) };
    refused(world.sync().batch_upsert_members(batch).await, code, reason);
    let draft = pb::CreateTierPolicyDraftRequest {
        programme_id: programme_id.clone(),
        ..world.draft_request(Default::default(), "stricter")
    };
    refused(world.tier_policies().create_tier_policy_draft(draft).await, code, reason);
    let policy = pb::GetTierPolicyRequest { programme_id: programme_id.clone(), as_of_time: None };
    refused(world.tier_policies().get_tier_policy(policy).await, code, reason);
    let policies = pb::ListTierPoliciesRequest { programme_id: programme_id.clone(), ..Default::default() };
    refused(world.tier_policies().list_tier_policies(policies).await, code, reason);
    let forecast = pb::ListTierForecastRequest { programme_id: programme_id.clone(), ..Default::default() };
    refused(world.tiers().list_tier_forecast(forecast).await, code, reason);
    let evaluate =
        pb::EvaluateTiersRequest { programme_id, request_id: id(), validate_only: false, after_member_id: String::new() };
    refused(world.tiers().evaluate_tiers(evaluate).await, code, reason);
}
