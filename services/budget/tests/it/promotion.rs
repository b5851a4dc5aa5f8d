//! Gifts for members who rise a tier.

use crate::{catalogue::*, granting::*, world::*};
use koc_proto::koc::{
    budget::v1::{
        self as pb, GrantState, PromotionState as State, ResourceClass::Incentive, ResourceClass::Inclusive, cost_model::Model,
    },
    registry::v1::TrustLevel,
};
use koc_tests::{members::Members, service::TestChannel, wait};
use std::time::Duration;
use tonic::{Code, Status};

type Promotions = pb::promotion_service_client::PromotionServiceClient<TestChannel>;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn promotions(world: &World) -> Promotions {
    Promotions::new(world.budget.channel_of("planner"))
}

async fn mark(world: &World, tier_id: &str, resource_id: &str) -> Result<Option<pb::PromotionGift>, Status> {
    let request = pb::SetPromotionGiftRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        tier_id: tier_id.into(),
        resource_id: resource_id.into(),
        reason: "a welcome".into(),
    };
    Ok(promotions(world).set_promotion_gift(request).await?.into_inner().promotion_gift)
}

async fn listed(world: &World, member_id: &str) -> Vec<pb::Promotion> {
    let request =
        pb::ListPromotionsRequest { programme_id: world.programme.clone(), member_id: member_id.into(), ..Default::default() };
    promotions(world).list_promotions(request).await.expect("a page").into_inner().promotions
}

/// Waits until the one promotion of a member is so.
async fn promoted(world: &World, member_id: &str, state: State, refusal: &str) -> pb::Promotion {
    wait::until("the promotion", PATIENCE, async || {
        let mut found = listed(world, member_id).await;
        assert!(found.len() <= 1, "{found:?}");
        found.pop().filter(|one| one.state() == state && one.refusal == refusal)
    })
    .await
}

/// Waits until all that the registry told is heard.
async fn heard_all(world: &World, member_id: &str) {
    // What is told last is heard last.
    members_of(world).suspend(member_id).await;
    let sql = "SELECT count(*) FROM followed_member WHERE member_id = $1::uuid AND suspended";
    wait::until("the registry to be heard", PATIENCE, async || (world.count(sql, member_id).await == 1).then_some(())).await;
}

/// The kit for who rises to CORE, five of it on the shelf.
async fn kit_for_core(world: &World, on_hand: i64) -> pb::Resource {
    example_tables(world).await;
    let kit = resource(world, Incentive, "kit", Model::GiftKit(kit())).await;
    if on_hand > 0 {
        receive(world, &kit.resource_id, on_hand).await.expect("received");
    }
    mark(world, "CORE", &kit.resource_id).await.expect("marked").expect("a gift");
    kit
}

#[tokio::test]
async fn who_rises_a_tier_gets_its_gift_once_and_by_a_grant_like_any_other() {
    let world = World::new().await;
    let kit = kit_for_core(&world, 5).await;
    let member = members_of(&world).create().await;
    promote(&world, &member).await;
    let promotion = promoted(&world, &member, State::Granted, "").await;
    assert_eq!((promotion.tier_id.as_str(), promotion.resource_id.as_str()), ("CORE", kit.resource_id.as_str()));
    let grant = get(&world, &promotion.grant_id).await.expect("the grant");
    assert_eq!(
        (grant.state(), grant.member_id.as_str(), grant.reason.as_str()),
        (GrantState::Issued, member.as_str(), "rose to CORE")
    );
    assert_eq!((grant.requested_by.as_str(), grant.resource_id.as_str()), ("service:budget", kit.resource_id.as_str()));
    assert_eq!(grant.usage.as_ref().map(|usage| (usage.quantity, usage.region_code.as_str())), Some((Some(1), "CN-GD")));
    // What it costs in cash is held on the active plan's envelope of its class.
    let held = world.get(&grant.reservation_id).await.expect("a hold");
    assert_eq!((held.envelope_id.as_str(), parts(&held)[0] > 0), (world.envelope.as_str(), true));
    assert_eq!(stock(&world, &kit.resource_id).await.expect("a page").on_hand, 4);

    // Told once more from the beginning: nothing is given twice.
    let world = {
        sqlx::query("UPDATE feed_cursor SET position = 0").execute(&world.budget.database.admin).await.expect("set back");
        world.restart().await
    };
    heard_all(&world, &member).await;
    assert_eq!(listed(&world, &member).await, [promotion]);
    assert_eq!(stock(&world, &kit.resource_id).await.expect("a page").on_hand, 4);
    world.verified().await;
}

#[tokio::test]
async fn a_refused_gift_is_asked_for_again_until_it_can_be_given() {
    let world = World::new().await;
    let kit = kit_for_core(&world, 0).await;
    let member = members_of(&world).create().await;
    promote(&world, &member).await;
    promoted(&world, &member, State::Pending, "STOCK_EXHAUSTED").await;
    receive(&world, &kit.resource_id, 1).await.expect("received");
    world.budget.advance(7 * HOUR).await;
    let promotion = promoted(&world, &member, State::Granted, "").await;
    assert_eq!(get(&world, &promotion.grant_id).await.expect("the grant").state(), GrantState::Issued);
}

#[tokio::test]
async fn who_is_new_waits_for_a_person_as_with_any_grant() {
    let world = World::new().await;
    let kit = kit_for_core(&world, 5).await;
    let new = members_of(&world).create().await;
    change(&world, &new, "trust_level", None, TrustLevel::New).await;
    promote(&world, &new).await;
    let waiting = promoted(&world, &new, State::Granted, "").await;
    let grant = get(&world, &waiting.grant_id).await.expect("the grant");
    assert_eq!(grant.state(), GrantState::PendingApproval);
    approve(&world, "controller", &grant.grant_id).await.expect("approved");
    assert_eq!(stock(&world, &kit.resource_id).await.expect("a page").on_hand, 4);
}

#[tokio::test]
async fn nothing_is_given_without_a_gift_for_the_tier_or_for_a_rise_before_it_was_marked() {
    let world = World::new().await;
    let kit = kit_for_core(&world, 5).await;
    let members = members_of(&world);
    assert_eq!(mark(&world, "CORE", "").await.expect("cleared"), None);
    let member = members.create().await;
    promote(&world, &member).await;
    heard_all(&world, &member).await;
    mark(&world, "CORE", &kit.resource_id).await.expect("marked");
    sqlx::query("UPDATE feed_cursor SET position = 0").execute(&world.budget.database.admin).await.expect("set back");
    let world = world.restart().await;
    let other = members_of(&world).create().await;
    heard_all(&world, &other).await;
    assert_eq!(listed(&world, "").await, []);
}

#[tokio::test]
async fn who_is_merged_while_the_gift_is_waited_for_gets_it_once() {
    let world = World::new().await;
    let kit = kit_for_core(&world, 0).await;
    let members = members_of(&world);
    let (winner, loser) = (members.create().await, members.create().await);
    for member in [&winner, &loser] {
        promote(&world, member).await;
        promoted(&world, member, State::Pending, "STOCK_EXHAUSTED").await;
    }
    members.merge(&winner, &loser).await;
    let sql = "SELECT count(*) FROM member_alias WHERE member_id = $1::uuid";
    wait::until("the merge to be heard", PATIENCE, async || (world.count(sql, &loser).await == 1).then_some(())).await;
    receive(&world, &kit.resource_id, 5).await.expect("received");
    world.budget.advance(7 * HOUR).await;
    let settled = wait::until("both to be settled", PATIENCE, async || {
        let found = listed(&world, &winner).await;
        (found.len() == 2 && found.iter().all(|one| one.state() != State::Pending)).then_some(found)
    })
    .await;
    let came: Vec<_> = settled.iter().map(|one| (one.state(), one.refusal.as_str())).collect();
    assert_eq!(came, [(State::Granted, ""), (State::Refused, "GIVEN_ALREADY")]);
    assert_eq!(stock(&world, &kit.resource_id).await.expect("a page").on_hand, 4);
}

fn members_of(world: &World) -> Members {
    Members::new(world.registry(), &world.programme)
}

#[tokio::test]
async fn only_what_can_be_given_to_anybody_is_marked_as_a_gift() {
    let world = World::new().await;
    let crew = pb::ProductionCrewCost { day_rate: "450".into(), equipment_rate: "120".into(), job: Some(fen(20_000)) };
    let crew = resource(&world, Inclusive, "crew", Model::ProductionCrew(crew)).await;
    refused(mark(&world, "CORE", &crew.resource_id).await, Code::FailedPrecondition, "RESOURCE_KIND");
    refused(mark(&world, "CORE", &id()).await, Code::NotFound, "RESOURCE_NOT_FOUND");
    let kit = kit_for_core(&world, 0).await;
    let request = pb::ListPromotionGiftsRequest { programme_id: world.programme.clone() };
    let gifts = promotions(&world).list_promotion_gifts(request).await.expect("a list").into_inner().promotion_gifts;
    let shown: Vec<_> =
        gifts.iter().map(|gift| (gift.tier_id.as_str(), gift.resource_id.as_str(), gift.set_by.as_str())).collect();
    assert_eq!(shown, [("CORE", kit.resource_id.as_str(), "planner")]);
}
