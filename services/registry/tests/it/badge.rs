//! Badges: made, given by their conditions and by hand, taken back.

use crate::world::{World, at, consents, fact, id, in_city, pairs, refused, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use pb::BadgeConditionKind as Kind;
use tonic::{Code, Status};

pub fn points(min_points: i64) -> pb::BadgeCondition {
    pb::BadgeCondition { kind: Kind::LifetimePoints.into(), min_points, ..Default::default() }
}

fn tier(tier_id: &str) -> pb::BadgeCondition {
    pb::BadgeCondition { kind: Kind::Tier.into(), tier_id: tier_id.into(), ..Default::default() }
}

fn value_type(value_type: pb::ValueType) -> pb::BadgeCondition {
    pb::BadgeCondition { kind: Kind::ValueType.into(), value_type: value_type.into(), ..Default::default() }
}

fn count(badge_id: &str, min_count: i32) -> pb::BadgeCondition {
    pb::BadgeCondition { kind: Kind::BadgeCount.into(), badge_id: badge_id.into(), min_count, ..Default::default() }
}

impl World {
    /// A member's badges, first given first.
    async fn badges_of(&self, member_id: &str) -> Vec<String> {
        self.awards(member_id).await.into_iter().rev().map(|award| award.badge_id).collect()
    }

    async fn update_badge(&self, request: pb::UpdateBadgeRequest) -> Result<pb::Badge, Status> {
        Ok(self.badges().update_badge(request).await?.into_inner().badge.unwrap_or_default())
    }

    async fn revoke(&self, award_id: &str) -> Result<pb::BadgeAward, Status> {
        let request = self.revoke_request(award_id);
        Ok(self.badges().revoke_badge(request).await?.into_inner().award.unwrap_or_default())
    }

    async fn repeatable(&self, badge_id: &str) {
        let mut request = self.badge_request(badge_id, Vec::new());
        request.badge.get_or_insert_default().repeatable = true;
        self.badges().create_badge(request).await.expect("a badge");
    }

    async fn rise(&self, member_id: &str) {
        let proposal = pb::TierProposal {
            promote_probability: 0.9,
            output_count: 9,
            as_of: Some(at(1)),
            decision_id: id(),
            reason: "much".into(),
            ..Default::default()
        };
        let (programme_id, member_id) = (self.programme.clone(), member_id.to_owned());
        let request = pb::ProposeTierRequest { programme_id, request_id: id(), member_id, proposal: Some(proposal) };
        self.tiers().propose_tier(request).await.expect("proposed");
        let request = pb::EvaluateTiersRequest { programme_id: self.programme.clone(), request_id: id(), ..Default::default() };
        self.tiers().evaluate_tiers(request).await.expect("evaluated");
    }

    async fn label(&self, member_id: &str, value_type: pb::ValueType, labelled: bool, second: i64) {
        let score = pb::ValueScore { value_type: value_type.into(), score: 0.9, confidence: 0.9, labelled, ..Default::default() };
        let request = pb::UpdateValueProfileRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.into(),
            scores: vec![score],
            as_of: Some(at(second)),
            past_return: None,
            value_model_version: "1".into(),
        };
        self.values().update_value_profile(request).await.expect("a profile");
    }
}

#[tokio::test]
async fn points_give_badges_and_those_the_badges_that_count_them_in_the_same_step() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.badge("HUNDRED", vec![points(100)]).await;
    world.badge("COLLECTOR", vec![count("HUNDRED", 1)]).await;
    world.earn(&member, 99).await;
    assert_eq!(world.awards(&member).await, []);
    let entry = world.earn(&member, 1).await;
    let awards = world.awards(&member).await;
    let told: Vec<_> = awards.iter().map(|award| (award.badge_id.as_str(), award.by_rule, award.badge_version)).collect();
    assert_eq!(told, [("COLLECTOR", true, 1), ("HUNDRED", true, 1)]);
    assert_eq!(awards[1].award_time, entry.entry_time, "in the same transaction");
    let evidence = pb::BadgeEvidence { lifetime_points: Some(100), ..Default::default() };
    assert_eq!(awards[1].evidence, Some(evidence));
    let counts = vec![pb::BadgeCount { badge_id: "HUNDRED".into(), count: 1 }];
    assert_eq!(awards[0].evidence, Some(pb::BadgeEvidence { badge_counts: counts, ..Default::default() }));
    // Below the threshold and over it again: it is given once.
    world.reverse(&entry.entry_id, None).await.expect("taken back");
    world.earn(&member, 5).await;
    assert_eq!(world.badges_of(&member).await, ["HUNDRED", "COLLECTOR"]);
    let changes = world.changes().await;
    let facts: Vec<pb::BadgeAwarded> = changes.iter().filter_map(fact).collect();
    assert_eq!(facts.iter().map(|fact| fact.award_id.as_str()).collect::<Vec<_>>(), [&awards[1].award_id, &awards[0].award_id]);
}

#[tokio::test]
async fn a_rise_in_tier_and_a_label_give_the_badges_whose_other_conditions_hold() {
    let world = World::new().await;
    let (a, b) = (world.member(in_city("广州")).await.member_id, world.member(in_city("深圳")).await.member_id);
    world.badge("CORE_WRITER", vec![tier("CORE"), value_type(pb::ValueType::Content), points(10)]).await;
    world.badge("RISEN", vec![tier("CORE")]).await;
    for member in [&a, &b] {
        world.earn(member, 10).await;
        world.rise(member).await;
        assert_eq!(world.badges_of(member).await, ["RISEN"]);
    }
    world.label(&a, pb::ValueType::Content, false, 1).await;
    world.label(&b, pb::ValueType::Social, true, 1).await;
    assert_eq!([world.badges_of(&a).await.len(), world.badges_of(&b).await.len()], [1, 1]);
    world.label(&a, pb::ValueType::Content, true, 2).await;
    assert_eq!(world.badges_of(&a).await, ["RISEN", "CORE_WRITER"]);
    let evidence = world.awards(&a).await[0].evidence.clone().expect("evidence");
    assert_eq!((evidence.lifetime_points, evidence.tier_id.as_str()), (Some(10), "CORE"));
    assert_eq!(evidence.value_types, [i32::from(pb::ValueType::Content)]);
}

#[tokio::test]
async fn a_label_counts_no_more_once_consent_to_profiling_is_withdrawn() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.badge("WRITER", vec![value_type(pb::ValueType::Content), points(10)]).await;
    world.badge("TEN", vec![points(10)]).await;
    world.label(&member, pb::ValueType::Content, true, 1).await;
    let withdrawn = consents(pb::ConsentPurpose::Profiling, false);
    world.update(world.update_request(&member, withdrawn, &["profile.consents"])).await.expect("withdrawn");
    world.earn(&member, 10).await;
    assert_eq!(world.badges_of(&member).await, ["TEN"]);
}

#[tokio::test]
async fn of_two_changes_that_meet_a_condition_together_one_gives_the_badge() {
    let world = World::new().await;
    let members = join_all((0..8).map(|_| world.member(in_city("广州")))).await;
    world.badge("BOTH", vec![points(10), value_type(pb::ValueType::Content)]).await;
    join_all(members.iter().map(async |member: &pb::Member| {
        let label = world.label(&member.member_id, pb::ValueType::Content, true, 1);
        tokio::join!(world.earn(&member.member_id, 10), label)
    }))
    .await;
    for member in &members {
        assert_eq!(world.badges_of(&member.member_id).await, ["BOTH"]);
    }
}

#[tokio::test]
async fn a_person_gives_a_badge_once_to_a_member_and_a_repeatable_one_once_for_each_source() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.badge("HELPER", Vec::new()).await;
    world.repeatable("STAR").await;
    let request = world.award_request(&member, "HELPER");
    let award = world.give(request.clone()).await.expect("given");
    assert_eq!((award.by_rule, award.source.as_str(), award.actor.as_str()), (false, request.source.as_str(), "tester"));
    assert_eq!(world.give(request.clone()).await.expect("a retry"), award);
    let later = pb::AwardBadgeRequest { request_id: id(), ..request };
    assert_eq!(world.give(later).await.expect("the same source"), award);
    let other = world.award_request(&member, "HELPER");
    let figures = refused(world.give(other).await, Code::AlreadyExists, "BADGE_HELD");
    assert_eq!((figures["member_id"].as_str(), figures["badge_id"].as_str()), (member.as_str(), "HELPER"));

    world.badge("THREE_STARS", vec![count("STAR", 3)]).await;
    for _star in 0..3 {
        world.give(world.award_request(&member, "STAR")).await.expect("given");
    }
    assert_eq!(world.badges_of(&member).await, ["HELPER", "STAR", "STAR", "STAR", "THREE_STARS"]);
    refused(world.give(world.award_request(&id(), "STAR")).await, Code::NotFound, "MEMBER_NOT_FOUND");
    refused(world.give(world.award_request(&member, "NONE")).await, Code::NotFound, "BADGE_NOT_FOUND");
    let sql = "SELECT count(*) FROM audit_entry WHERE method LIKE '%AwardBadge%' AND reason = 'helped at the meeting'";
    assert_eq!(world.count(sql).await, 5);
}

#[tokio::test]
async fn what_was_revoked_is_held_no_more_and_comes_back_by_hand_only() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.badge("TEN", vec![points(10)]).await;
    world.earn(&member, 10).await;
    let award = world.awards(&member).await.remove(0);
    let revoked = world.revoke(&award.award_id).await.expect("revoked");
    assert!(revoked.revoke_time.is_some());
    assert_eq!(world.awards(&member).await, [revoked]);
    refused(world.revoke(&award.award_id).await, Code::FailedPrecondition, "AWARD_REVOKED");
    refused(world.revoke(&id()).await, Code::NotFound, "AWARD_NOT_FOUND");
    let evaluation = world.evaluation_request();
    assert_eq!(world.badges().evaluate_badges(evaluation).await.expect("looked").into_inner().awards, []);
    world.give(world.award_request(&member, "TEN")).await.expect("by hand");
    let changes = world.changes().await;
    let facts: Vec<pb::BadgeRevoked> = changes.iter().filter_map(fact).collect();
    assert_eq!(facts.iter().map(|f| (&f.award_id, &f.badge_id)).collect::<Vec<_>>(), [(&award.award_id, &"TEN".to_owned())]);
    let sql = "SELECT count(*) FROM badge_revocation WHERE reason = 'given to the wrong person' AND actor = 'tester'";
    assert_eq!(world.count(sql).await, 1);
}

#[tokio::test]
async fn an_evaluation_gives_new_badges_to_who_met_their_conditions_before() {
    let world = World::new().await;
    let members = join_all((0..3).map(|_| world.member(in_city("广州")))).await;
    let mut ids: Vec<&str> = members.iter().map(|member| member.member_id.as_str()).collect();
    ids.sort_unstable();
    world.earn(ids[0], 20).await;
    world.earn(ids[2], 10).await;
    world.badge("TEN", vec![points(10)]).await;
    let trial = pb::EvaluateBadgesRequest { validate_only: true, ..world.evaluation_request() };
    let told = |awards: &[pb::BadgeAward]| awards.iter().map(|award| award.member_id.clone()).collect::<Vec<_>>();
    let foreseen = world.badges().evaluate_badges(trial.clone()).await.expect("a trial").into_inner();
    assert_eq!(told(&foreseen.awards), [ids[0], ids[2]]);
    assert!(foreseen.awards.iter().all(|award| award.award_id.is_empty()));
    assert_eq!(world.awards(ids[0]).await, []);
    // A trial keeps nothing, so its request id serves the real call.
    let real = pb::EvaluateBadgesRequest { validate_only: false, ..trial };
    let given = world.badges().evaluate_badges(real.clone()).await.expect("looked").into_inner();
    assert_eq!((told(&given.awards), given.next_after_member_id.as_str()), (vec![ids[0].to_owned(), ids[2].to_owned()], ""));
    assert_eq!(world.badges().evaluate_badges(real).await.expect("a retry").into_inner(), given);
    assert_eq!(world.awards(ids[2]).await, given.awards[1..]);
    let again = world.badges().evaluate_badges(world.evaluation_request()).await.expect("looked").into_inner();
    assert_eq!(again.awards, []);
    let after = pb::EvaluateBadgesRequest { after_member_id: ids[2].into(), ..world.evaluation_request() };
    world.badge("TWENTY", vec![points(1)]).await;
    assert_eq!(world.badges().evaluate_badges(after).await.expect("looked").into_inner().awards, []);
    let nowhere = pb::EvaluateBadgesRequest { programme_id: id(), ..world.evaluation_request() };
    refused(world.badges().evaluate_badges(nowhere).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
}

#[tokio::test]
async fn a_changed_badge_is_a_new_version_and_leaves_what_was_given() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let made = world.badge("TEN", vec![points(10)]).await;
    assert_eq!((made.version, made.etag.as_str()), (1, "v1"));
    world.earn(&member, 10).await;
    let change = pb::UpdateBadgeRequest {
        badge: Some(pb::Badge { conditions: vec![points(20), tier("BASE")], display_name: "ignored".into(), ..made.clone() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["conditions".into(), "description".into()] }),
        etag: "v1".into(),
        ..world.retire_request("TEN")
    };
    let changed = world.update_badge(change.clone()).await.expect("changed");
    assert_eq!((changed.version, changed.display_name.as_str(), changed.conditions.len()), (2, "徽章 TEN", 2));
    assert_eq!(world.update_badge(change.clone()).await.expect("a retry"), changed);
    let figures = refused(
        world.update_badge(pb::UpdateBadgeRequest { request_id: id(), ..change.clone() }).await,
        Code::Aborted,
        "ETAG_MISMATCH",
    );
    assert_eq!(figures["etag"], "v2");
    assert_eq!(world.awards(&member).await[0].badge_version, 1);

    let mask = |paths: &[&str]| Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
    let broken = pb::UpdateBadgeRequest { update_mask: mask(&["display_name", "version"]), ..world.retire_request("TEN") };
    let expected = pairs([("update_mask", "FIELD_NOT_UPDATABLE"), ("badge.display_name", "string.min_len")]);
    assert_eq!(violations(world.update_badge(broken).await), expected);
    let nothing = pb::UpdateBadgeRequest { update_mask: mask(&[]), ..world.retire_request("TEN") };
    assert_eq!(violations(world.update_badge(nothing).await), pairs([("update_mask", "required")]));
    refused(world.update_badge(world.retire_request("NONE")).await, Code::NotFound, "BADGE_NOT_FOUND");

    assert!(world.update_badge(world.retire_request("TEN")).await.expect("retired").retired);
    refused(world.give(world.award_request(&member, "TEN")).await, Code::FailedPrecondition, "BADGE_RETIRED");
    let other = world.member(in_city("深圳")).await.member_id;
    world.earn(&other, 50).await;
    assert_eq!(world.awards(&other).await, []);
    let changes = world.changes().await;
    let facts: Vec<pb::BadgeChanged> = changes.iter().filter_map(fact).collect();
    assert_eq!(facts.iter().map(|fact| fact.version).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn conditions_that_make_no_sense_are_named() {
    let world = World::new().await;
    let create = async |badge_id: &str, conditions| world.badges().create_badge(world.badge_request(badge_id, conditions)).await;
    let both = pb::BadgeCondition { min_count: 2, ..points(5) };
    let expected = pairs([("badge.conditions[0]", "CONDITION_INVALID"), ("badge.conditions[2]", "CONDITION_INVALID")]);
    assert_eq!(violations(create("A", vec![both, points(1), tier("")]).await), expected);
    let unknown = vec![tier("GONE"), count("A", 1), count("NONE", 1)];
    let expected = pairs([
        ("badge.conditions[0].tier_id", "TIER_UNKNOWN"),
        ("badge.conditions[1].badge_id", "BADGE_UNKNOWN"),
        ("badge.conditions[2].badge_id", "BADGE_UNKNOWN"),
    ]);
    assert_eq!(violations(create("A", unknown).await), expected);
    let none = pb::BadgeCondition::default();
    assert_eq!(violations(create("A", vec![none]).await), pairs([("badge.conditions[0].kind", "enum.not_in")]));
    create("A", Vec::new()).await.expect("a badge");
    let figures = refused(create("A", Vec::new()).await, Code::AlreadyExists, "BADGE_EXISTS");
    assert_eq!(figures["resource_id"], "A");
    let nowhere = pb::CreateBadgeRequest { programme_id: id(), ..world.badge_request("A", Vec::new()) };
    refused(world.badges().create_badge(nowhere).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
}

#[tokio::test]
async fn pages_of_badges_and_of_awards_hold_each_once() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    for badge_id in ["C", "A", "B"] {
        world.badge(badge_id, Vec::new()).await;
        world.give(world.award_request(&member, badge_id)).await.expect("given");
    }
    world.update_badge(world.retire_request("B")).await.expect("retired");
    let badges = async |page_token: String| {
        let request = pb::ListBadgesRequest { programme_id: world.programme.clone(), page_size: 2, page_token };
        let page = world.badges().list_badges(request).await.expect("a page").into_inner();
        (page.badges.into_iter().map(|badge| (badge.badge_id, badge.version)).collect::<Vec<_>>(), page.next_page_token)
    };
    let (first, token) = badges(String::new()).await;
    assert_eq!((first, badges(token).await), (vec![("A".into(), 1), ("B".into(), 2)], (vec![("C".into(), 1)], String::new())));
    let awards = async |page_token: String| {
        let request = pb::ListMemberBadgesRequest { page_size: 2, page_token, ..world.awards_request(&member) };
        let page = world.badges().list_member_badges(request).await.expect("a page").into_inner();
        (page.awards.into_iter().map(|award| award.badge_id).collect::<Vec<_>>(), page.next_page_token)
    };
    let (first, token) = awards(String::new()).await;
    assert_eq!((first, awards(token).await), (vec!["B".into(), "A".into()], (vec!["C".into()], String::new())));
    refused(world.badges().list_member_badges(world.awards_request(&id())).await, Code::NotFound, "MEMBER_NOT_FOUND");
}

#[tokio::test]
async fn a_programme_has_no_more_badges_than_can_be_looked_at() {
    let world = World::new().await;
    let sql = "INSERT INTO badge_version
               SELECT programme_id, 'B' || nr, 1, 'B', '', '[]', false, true, '', '', now() FROM programme, generate_series(1, 499) AS nr";
    sqlx::query(sql).execute(&world.registry.database.admin).await.expect("filled");
    world.badge("LAST", Vec::new()).await;
    let more = world.badges().create_badge(world.badge_request("MORE", Vec::new())).await;
    assert_eq!(refused(more, Code::FailedPrecondition, "BADGE_LIMIT")["limit"], "500");
    world.update_badge(world.retire_request("LAST")).await.expect("what is there can be changed");
}
