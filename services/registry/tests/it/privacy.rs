//! What is kept beside the members: who did what, and nothing of the persons.

use crate::world::{World, ahead, at, id, identity, in_city, refused, row, violations};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::token;
use std::time::Duration;
use tonic::{Code, Status};

/// In each personal field, so that it can be looked for.
const MARKER: &str = "PERSONALMARKER";
const PHONE: &str = "+8613012345678";

fn marked() -> pb::MemberProfile {
    pb::MemberProfile {
        display_name: format!("{MARKER} name"),
        email: format!("{MARKER}@example.com"),
        phone: PHONE.into(),
        channels: vec![pb::Channel { platform: "DOUYIN".into(), handle: format!("{MARKER}-handle"), followers: Some(1) }],
        vehicles: vec![pb::Vehicle { model: "E5".into(), vin: MARKER.into() }],
        tags: vec![format!("{MARKER} tag")],
        ..in_city(&format!("{MARKER} city"))
    }
}

/// All bytes of the rows that other things than the members' own tables keep.
async fn kept_elsewhere(world: &World) -> Vec<String> {
    let mut texts = Vec::new();
    for sql in [
        "SELECT encode(answer, 'escape') FROM request_record WHERE answer IS NOT NULL",
        "SELECT refusal::text FROM request_record WHERE refusal IS NOT NULL",
        "SELECT encode(payload, 'escape') || type_name || traceparent FROM told",
        "SELECT to_jsonb(a)::text FROM audit_entry AS a",
        "SELECT to_jsonb(t)::text FROM tier_proposal AS t",
        "SELECT to_jsonb(t)::text FROM tier_move AS t",
        "SELECT to_jsonb(v)::text FROM value_profile AS v",
        "SELECT to_jsonb(j)::text FROM job AS j",
    ] {
        let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(&world.registry.database.admin).await.expect("texts");
        texts.extend(found);
    }
    texts
}

#[track_caller]
fn assert_unmarked(bytes: &[u8], what: &str) {
    for marker in [MARKER, PHONE, &PHONE[1..]] {
        assert!(!bytes.windows(marker.len()).any(|window| window == marker.as_bytes()), "{marker} in {what}");
    }
}

#[track_caller]
fn assert_status_unmarked<T>(answer: Result<T, Status>) {
    let Err(status) = answer else { panic!("a refusal was expected") };
    assert_unmarked(status.message().as_bytes(), "a message");
    assert_unmarked(status.details(), "details");
}

#[tokio::test]
async fn nothing_personal_is_in_answers_that_are_stored_nor_in_facts_nor_in_the_trail() {
    let world = World::new().await;
    let mut request = world.create_request(marked());
    let external_id = format!("{MARKER}@crm.example.com");
    request.external_identities = vec![identity("crm", &external_id)];
    let member = world.create(request.clone()).await.expect("created");
    assert_eq!((&member.profile, &member.external_identities), (&Some(marked()), &request.external_identities));
    let update = world.update_request(&member.member_id, marked(), &["profile.email", "profile.tags"]);
    world.update(update).await.expect("updated");
    world.upsert(vec![row(&external_id, 1, marked()), row(MARKER, 1, marked())]).await;
    let later = pb::MemberRow { source_time: Some(ahead(Duration::from_secs(60))), ..row(&external_id, 0, in_city(MARKER)) };
    world.upsert(vec![later]).await;
    let score = pb::ValueScore { value_type: 1, score: 0.5, confidence: 0.5, labelled: false, evidence_output_ids: vec![] };
    let scores = pb::UpdateValueProfileRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member.member_id.clone(),
        scores: vec![score],
        as_of: Some(at(1)),
        past_return: None,
        value_model_version: "1".into(),
    };
    world.values().update_value_profile(scores).await.expect("scored");
    request.request_id = id();
    refused(world.create(request).await, Code::AlreadyExists, "EXTERNAL_IDENTITY_TAKEN");

    let texts = kept_elsewhere(&world).await;

    assert!(texts.len() > 12, "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("profile.display_name")), "facts name what changed");
    for text in texts {
        assert_unmarked(text.as_bytes(), &text);
    }
}

#[tokio::test]
async fn nothing_personal_is_in_errors() {
    let world = World::new().await;
    let long = |text: &str| text.repeat(30);
    let broken = pb::MemberProfile {
        display_name: long(MARKER),
        email: MARKER.into(),
        phone: format!("{PHONE}{PHONE}"),
        channels: vec![pb::Channel { platform: MARKER.to_lowercase(), handle: long(MARKER), followers: None }],
        vehicles: vec![pb::Vehicle { model: long(MARKER), vin: long(MARKER) }],
        tags: vec![long(MARKER)],
        city: long(MARKER),
        region_code: MARKER.into(),
        ..Default::default()
    };
    let mut request = world.create_request(broken.clone());
    request.external_identities = vec![identity(MARKER, &long(MARKER))];
    assert_eq!(violations(world.create(request.clone()).await).len(), 12);
    assert_status_unmarked(world.create(request).await);
    let member = world.member(in_city("广州")).await.member_id;
    assert_status_unmarked(world.update(world.update_request(&member, broken.clone(), &[MARKER])).await);
    assert_status_unmarked(world.update(world.update_request(&member, marked(), &[MARKER])).await);
    assert_status_unmarked(world.get(MARKER).await);
    assert_status_unmarked(world.lookup("crm", MARKER).await);
    let mut rejected = row(MARKER, 1, broken);
    rejected.clear_fields = vec![MARKER.into()];
    let mut unknown_field = row(MARKER, 1, marked());
    unknown_field.clear_fields = vec![MARKER.into(), "phone".into()];
    let ahead = pb::MemberRow { source_time: Some(ahead(Duration::from_secs(3600))), ..row(MARKER, 0, marked()) };
    for result in world.upsert(vec![rejected, unknown_field, ahead]).await {
        let status = result.status.expect("rejected");
        assert_unmarked(status.message.as_bytes(), "a row's message");
        for detail in status.details {
            assert_unmarked(&detail.value, "a row's details");
        }
    }
}

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Entry {
    method: String,
    actor: String,
    client: String,
    subject: Option<String>,
    reason: Option<String>,
}

#[tokio::test]
async fn the_trail_says_who_did_what_to_whom_when_and_why() {
    let world = World::new().await;
    let channel = world.registry.channel_with(Some(token::all("console")), Some("operator-7".into()));
    let mut members = crate::world::Members::new(channel.clone());
    let mut tiers = crate::world::Tiers::new(channel.clone());
    let mut values = crate::world::Values::new(channel.clone());
    let mut sync = crate::world::Sync::new(channel.clone());
    let member = members.create_member(world.create_request(in_city("广州"))).await.expect("created").into_inner().member;
    let member_id = member.unwrap_or_default().member_id;
    members.update_member(world.update_request(&member_id, in_city("深圳"), &["profile.city"])).await.expect("updated");
    let loose = pb::TierPolicy {
        min_promote_probability: Some(0.0),
        min_outputs: Some(0),
        promote_periods: Some(1),
        demote_periods: Some(0),
        ..Default::default()
    };
    let mut policies = crate::world::TierPolicies::new(channel.clone());
    let draft = policies.create_tier_policy_draft(world.draft_request(loose, "放宽门槛")).await.expect("a draft").into_inner();
    let draft = draft.draft.expect("the draft");
    let approver = world.registry.channel_with(Some(token::all("console")), Some("operator-8".into()));
    let mut approvers = crate::world::TierPolicies::new(approver);
    approvers.activate_tier_policy_draft(world.activate_request(&draft)).await.expect("a version");
    let proposal =
        pb::TierProposal { as_of: Some(at(5)), decision_id: id(), reason: "六篇内容".into(), ..Default::default() };
    let propose = pb::ProposeTierRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        proposal: Some(proposal),
    };
    tiers.propose_tier(propose).await.expect("recorded");
    let evaluate = pb::EvaluateTiersRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        validate_only: false,
        after_member_id: String::new(),
    };
    tiers.evaluate_tiers(evaluate.clone()).await.expect("evaluated");
    // A trial, a retry and a refusal leave no trace here.
    let trial = pb::EvaluateTiersRequest { request_id: id(), validate_only: true, ..evaluate.clone() };
    tiers.evaluate_tiers(trial).await.expect("a trial");
    tiers.evaluate_tiers(evaluate).await.expect("a retry");
    members.update_member(world.update_request(&id(), in_city("深圳"), &["profile.city"])).await.expect_err("not found");
    for second in [2, 1] {
        let request = pb::UpdateValueProfileRequest {
            programme_id: world.programme.clone(),
            request_id: id(),
            member_id: member_id.clone(),
            scores: vec![pb::ValueScore { value_type: 1, ..Default::default() }],
            as_of: Some(at(second)),
            past_return: None,
            value_model_version: "1".into(),
        };
        assert_eq!(values.update_value_profile(request).await.expect("answered").into_inner().updated, second == 2);
    }
    let batch = world.batch("crm", vec![row("1", 1, in_city("广州")), row("", 1, in_city("广州"))]);
    sync.batch_upsert_members(batch).await.expect("applied");

    let sql = "SELECT method, actor, client, subject_id::text AS subject, reason FROM audit_entry
               WHERE programme_id = $1::uuid ORDER BY audit_entry_id OFFSET 1";
    let entries: Vec<Entry> =
        sqlx::query_as(sql).bind(&world.programme).fetch_all(&world.registry.database.admin).await.expect("entries");

    let entry = |method: &str, subject: Option<&str>, reason: Option<&str>| Entry {
        method: format!("koc.registry.v1.{method}Request"),
        actor: "operator-7".into(),
        client: "console".into(),
        subject: subject.map(str::to_owned),
        reason: reason.map(str::to_owned),
    };
    let (who, all) = (Some(member_id.as_str()), Some(world.programme.as_str()));
    assert_eq!(
        entries,
        [
            entry("CreateMember", who, None),
            entry("UpdateMember", who, None),
            entry("CreateTierPolicyDraft", Some(&draft.draft_id), Some("放宽门槛")),
            Entry { actor: "operator-8".into(), ..entry("ActivateTierPolicyDraft", Some(&draft.draft_id), Some("looked at")) },
            entry("ProposeTier", who, Some("六篇内容")),
            entry("EvaluateTiers", all, Some("1 members rose, 0 fell, 0 came under review, 0 were cleared, 0 stayed")),
            entry("UpdateValueProfile", who, None),
            entry("UpdateValueProfile", who, None),
            entry("BatchUpsertMembers", None, Some("from crm: 1 members created, 0 changed")),
        ]
    );
    let kept: (String, i32) = sqlx::query_as("SELECT actor, policy_version FROM tier_move")
        .fetch_one(&world.registry.database.admin)
        .await
        .expect("a move");
    assert_eq!(kept, ("operator-7".to_owned(), 2));
    assert_eq!(world.count("SELECT count(*) FROM audit_entry WHERE create_time > now() - interval '1 minute'").await, 10);
}
