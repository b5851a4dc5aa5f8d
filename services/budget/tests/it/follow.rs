//! What the registry's facts about members do to money: suspended, merged, consent withdrawn.

use crate::{catalogue::*, granting::*, reserve_draw, reserve_policy, world::*};
use futures::future::join_all;
use koc_proto::koc::{
    budget::v1::{self as pb, ResourceClass::Inclusive, cost_model::Model},
    registry::v1::{ConsentPurpose as Purpose, TrustLevel},
};
use koc_tests::{members::Members, wait};
use tonic::{Code, Status};

const SUSPENDED: &str = "SELECT count(*) FROM followed_member WHERE member_id = $1::uuid AND suspended";
const MERGED: &str = "SELECT count(*) FROM member_alias WHERE member_id = $1::uuid";

impl World {
    fn members(&self) -> Members {
        Members::new(self.registry(), &self.programme)
    }

    /// Waits until a count about a member is what it should become by itself.
    async fn heard(&self, sql: &'static str, member: &str, count: i64) {
        wait::until("the registry to be heard", PATIENCE, async || (self.count(sql, member).await == count).then_some(())).await;
    }

    async fn reserve_for(&self, member: &str, amount: i64) -> Result<pb::Reservation, Status> {
        self.reserve_with(pb::ReserveRequest { member_id: member.into(), ..self.reserve_request(amount) }).await
    }

    /// The limits that are listed for a member: whose, how much, and how much of it is in use.
    async fn limits_of(&self, member: &str) -> Vec<(String, i64, i64)> {
        let mut client = pb::member_limit_service_client::MemberLimitServiceClient::new(self.budget.channel());
        let request =
            pb::ListMemberLimitsRequest { programme_id: self.programme.clone(), member_id: member.into(), ..Default::default() };
        let limits = client.list_member_limits(request).await.expect("a page").into_inner().member_limits;
        let shown = |one: pb::MemberLimit| (one.member_id, minor(one.limit.as_ref()), minor(one.used.as_ref()));
        limits.into_iter().map(shown).collect()
    }
}

#[track_caller]
fn over_limit(answer: Result<pb::Reservation, Status>, of: &str, asked: i64, available: i64) {
    let figures = refused(answer, Code::FailedPrecondition, "MEMBER_LIMIT_EXHAUSTED");
    assert!(figures["limit_id"].starts_with(of), "{figures:?}");
    assert_eq!((figures["asked_minor"].clone(), figures["available_minor"].clone()), (asked.to_string(), available.to_string()));
}

#[tokio::test]
async fn nothing_new_is_held_for_who_is_suspended_and_what_is_held_is_paid() {
    let world = World::new().await;
    let (members, member) = (world.members(), world.members().create().await);
    let held = world.reserve_for(&member, 500).await.expect("held");
    members.suspend(&member).await;
    world.heard(SUSPENDED, &member, 1).await;

    let asked = pb::ReserveRequest { member_id: member.clone(), ..world.reserve_request(1) };
    let figures = refused(world.reserve_with(asked.clone()).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    assert_eq!(figures["subject"], member);
    world.extend(&held.reservation_id, DAY).await.expect("lasts longer");
    world.commit(&held.reservation_id, Some(300)).await.expect("owed");
    world.spend(&held.reservation_id, Some(300)).await.expect("paid");
    // A hold that ran out is held again for what is owed.
    world.pass(2 * DAY).await;
    let again = world.commit(&held.reservation_id, None).await.expect("owed");
    assert_eq!(parts(&again), [0, 200, 300, 200]);

    members.reinstate(&member).await;
    world.heard(SUSPENDED, &member, 0).await;
    // A refusal is the answer for good; another intent is another question.
    refused(world.reserve_with(asked).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    world.reserve_for(&member, 1).await.expect("held");
    world.verified().await;
}

#[tokio::test]
async fn who_is_suspended_gets_no_grant_and_one_that_waits_goes_no_further() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 5).await.expect("received");
    let (members, of) = (world.members(), member(&world, TrustLevel::Proven).await);
    let request = || issue_request(&world, &of, &kit, pb::ResourceUsage { region_code: "CN-GD".into(), ..usage() });
    let waiting = issue(&world, request()).await.expect("issued");
    members.suspend(&of).await;
    // The registry is asked: it need not be heard of before.
    refused(issue(&world, request()).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    refused(ship(&world, &waiting.grant_id).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    members.reinstate(&of).await;
    ship(&world, &waiting.grant_id).await.expect("shipped");
}

#[tokio::test]
async fn a_boost_needs_consent_to_the_use_of_content_and_other_draws_do_not() {
    let world = World::new().await;
    let (members, member) = (world.members(), world.members().create().await);
    let ask = async |kind: pb::ReserveDrawKind| {
        let asked = reserve_draw::request(&world, 100).await;
        let asked = pb::RequestReserveDrawRequest { kind: kind.into(), member_id: member.clone(), evidence: Vec::new(), ..asked };
        reserve_draw::ask(&world, asked).await
    };
    let waiting = ask(pb::ReserveDrawKind::ViralBoost).await.expect("taken");
    members.consent(&member, Purpose::ContentUse, false).await;
    let sql = "SELECT cardinality(withdrawn)::bigint FROM followed_member WHERE member_id = $1::uuid
               UNION ALL SELECT 0 LIMIT 1";
    world.heard(sql, &member, 1).await;
    let late = reserve_draw::approve(&world, "controller", &waiting.reserve_draw_id).await;
    refused(late, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
    let figures = refused(ask(pb::ReserveDrawKind::ViralBoost).await, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
    assert_eq!((figures["subject"].as_str(), figures["consent_purpose"].as_str()), (member.as_str(), "CONTENT_USE"));
    ask(pb::ReserveDrawKind::Other).await.expect("taken");
}

#[tokio::test]
async fn merged_members_have_their_limits_summed_and_each_its_own_when_they_are_parted() {
    let world = World::new().await;
    let members = world.members();
    let (winner, loser) = (members.create().await, members.create().await);
    world.set_limit(world.limit_request(&winner, 1_000)).await.expect("a limit");
    world.set_limit(world.limit_request(&loser, 500)).await.expect("a limit");
    world.reserve_for(&winner, 300).await.expect("held");
    let own = world.reserve_for(&loser, 400).await.expect("held");
    members.merge(&winner, &loser).await;
    world.heard(MERGED, &loser, 1).await;

    assert_eq!(world.limits_of(&loser).await, [(winner.clone(), 1_500, 700)]);
    over_limit(world.reserve_for(&loser, 801).await, &winner, 801, 800);
    let since = world.reserve_for(&loser, 800).await.expect("held");
    assert_eq!(since.member_id, winner);
    over_limit(world.reserve_for(&winner, 1).await, &winner, 1, 0);
    world.release(&own.reservation_id, Some(150)).await.expect("released");
    assert_eq!(world.limits_of(&winner).await, [(winner.clone(), 1_500, 1_350)]);
    let mut all = world.reservations();
    let request =
        pb::ListReservationsRequest { programme_id: world.programme.clone(), member_id: loser.clone(), ..Default::default() };
    assert_eq!(all.list_reservations(request).await.expect("a page").into_inner().reservations.len(), 3);
    world.verified().await;

    members.unmerge(&loser).await;
    world.heard(MERGED, &loser, 0).await;
    // What came since stays with the winner, beyond what is its own: that blocks new holds alone.
    assert_eq!(world.limits_of(&winner).await, [(winner.clone(), 1_000, 1_100)]);
    assert_eq!(world.limits_of(&loser).await, [(loser.clone(), 500, 250)]);
    over_limit(world.reserve_for(&winner, 1).await, &winner, 1, 0);
    world.reserve_for(&loser, 250).await.expect("held");
    world.commit(&since.reservation_id, None).await.expect("owed");
    world.verified().await;
}

#[tokio::test]
async fn what_a_member_without_a_limit_uses_counts_towards_that_of_the_one_it_was_merged_with() {
    let world = World::new().await;
    let members = world.members();
    let (winner, loser) = (members.create().await, members.create().await);
    world.set_limit(world.limit_request(&loser, 1_000)).await.expect("a limit");
    world.reserve_for(&winner, 700).await.expect("held");
    members.merge(&winner, &loser).await;
    world.heard(MERGED, &loser, 1).await;
    assert_eq!(world.limits_of(&winner).await, [(winner.clone(), 1_000, 700)]);
    over_limit(world.reserve_for(&winner, 301).await, &winner, 301, 300);

    // Set by either id it is that of the person: what the loser had is set aside, and stays so when a third adds its own.
    let set = world.set_limit(world.limit_request(&loser, 900)).await.expect("a limit");
    assert_eq!((set.member_id, minor(set.limit.as_ref()), minor(set.used.as_ref())), (winner.clone(), 900, 700));
    over_limit(world.reserve_for(&loser, 201).await, &winner, 201, 200);
    world.reserve_for(&winner, 200).await.expect("held");
    over_limit(world.reserve_for(&loser, 1).await, &winner, 1, 0);
    let other = members.create().await;
    world.set_limit(world.limit_request(&other, 50)).await.expect("a limit");
    members.merge(&winner, &other).await;
    world.heard(MERGED, &other, 1).await;
    assert_eq!(world.limits_of(&winner).await, [(winner.clone(), 950, 900)]);
    world.verified().await;

    for gone in [&other, &loser] {
        members.unmerge(gone).await;
        world.heard(MERGED, gone, 0).await;
    }
    assert_eq!(world.limits_of(&winner).await, [(winner.clone(), 900, 900)]);
    assert_eq!(world.limits_of(&loser).await, [(loser.clone(), 1_000, 0)]);
    assert_eq!(world.limits_of(&other).await, [(other.clone(), 50, 0)]);
    let borrowed = "UPDATE member_limit SET borrowed = true WHERE member_id = $1::uuid";
    let refused = sqlx::query(borrowed).bind(&loser).execute(&world.budget.database.admin).await.expect_err("it is its own");
    assert!(refused.to_string().contains("member_limit_borrowed"), "{refused}");
    // A member that only borrowed has none again.
    let (third, fourth) = (members.create().await, members.create().await);
    world.set_limit(world.limit_request(&third, 10)).await.expect("a limit");
    members.merge(&third, &fourth).await;
    world.heard(MERGED, &fourth, 1).await;
    over_limit(world.reserve_for(&fourth, 11).await, &third, 11, 10);
    members.unmerge(&fourth).await;
    world.heard(MERGED, &fourth, 0).await;
    assert_eq!(world.limits_of(&fourth).await, []);
    world.reserve_for(&fourth, 11).await.expect("held");
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_goes_past_its_end_while_members_are_merged_under_it() {
    let world = World::new().await;
    let members = world.members();
    let (winner, loser) = (members.create().await, members.create().await);
    for member in [&winner, &loser] {
        world.set_limit(world.limit_request(member, 1_000)).await.expect("a limit");
    }
    // 1,500 are asked for each: merged or not, 2,000 are held in the end.
    let ids = [&winner, &loser].repeat(30);
    let asked = join_all(ids.into_iter().map(|member| world.reserve_for(member, 50)));
    let (answers, ()) = tokio::join!(asked, members.merge(&winner, &loser));
    world.heard(MERGED, &loser, 1).await;
    let mut held = i64::try_from(answers.iter().filter(|answer| answer.is_ok()).count()).expect("some");
    for answer in answers.into_iter().filter(Result::is_err) {
        refused(answer, Code::FailedPrecondition, "MEMBER_LIMIT_EXHAUSTED");
    }
    while world.reserve_for(&loser, 50).await.is_ok() {
        held += 1;
    }
    assert_eq!((held * 50, world.limits_of(&loser).await), (2_000, vec![(winner, 2_000, 2_000)]));
    world.verified().await;
}

#[tokio::test]
async fn grants_and_draws_of_merged_members_are_one_persons() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 5).await.expect("received");
    let members = world.members();
    let (winner, loser) = (members.create().await, members.create().await);
    let request = |of: &str| issue_request(&world, of, &kit, pb::ResourceUsage { region_code: "CN-GD".into(), ..usage() });
    let before = issue(&world, request(&loser)).await.expect("issued");
    let calm = pb::ReserveTerms { member_cool_down_hours: Some(6), ..Default::default() };
    reserve_policy::set(&world, calm).await;
    let asked = pb::RequestReserveDrawRequest { member_id: loser.clone(), ..reserve_draw::request(&world, 100).await };
    reserve_draw::ask(&world, asked).await.expect("taken");
    members.merge(&winner, &loser).await;
    world.heard(MERGED, &loser, 1).await;

    let since = issue(&world, request(&loser)).await.expect("issued");
    for id in [&winner, &loser] {
        let request =
            pb::ListGrantsRequest { programme_id: world.programme.clone(), member_id: id.clone(), ..Default::default() };
        let grants = grants(&world, "anyone").list_grants(request).await.expect("a page").into_inner().grants;
        let shown: Vec<_> = grants.into_iter().map(|grant| (grant.grant_id, grant.member_id)).collect();
        assert_eq!(shown, [&before, &since].map(|grant| (grant.grant_id.clone(), winner.clone())));
    }
    ship(&world, &before.grant_id).await.expect("shipped");
    // One of them drew on the reserve: both cool down.
    let asked = pb::RequestReserveDrawRequest { member_id: winner.clone(), ..reserve_draw::request(&world, 100).await };
    refused(reserve_draw::ask(&world, asked).await, Code::FailedPrecondition, "DRAW_COOLING_DOWN");

    members.unmerge(&loser).await;
    world.heard(MERGED, &loser, 0).await;
    assert_eq!(get(&world, &before.grant_id).await.expect("there").member_id, loser);
    assert_eq!(get(&world, &since.grant_id).await.expect("there").member_id, winner);
}

#[tokio::test]
async fn what_was_told_before_the_service_ran_counts_once_it_does() {
    let world = World::new().await;
    let members = world.members();
    let (winner, loser, idle) = (members.create().await, members.create().await, members.create().await);
    world.set_limit(world.limit_request(&winner, 100)).await.expect("a limit");
    world.reserve_for(&loser, 70).await.expect("held");
    members.merge(&winner, &loser).await;
    members.suspend(&idle).await;
    world.heard(SUSPENDED, &idle, 1).await;
    // As if this release met an old database: nothing of it was kept, and all is read again.
    for table in ["followed_member", "followed_merge", "member_alias", "feed_cursor"] {
        let sql = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
        sqlx::query(sql).execute(&world.budget.database.admin).await.expect("deleted");
    }
    sqlx::query("DELETE FROM member_limit WHERE borrowed").execute(&world.budget.database.admin).await.expect("deleted");
    let world = world.restart().await;
    world.heard(MERGED, &loser, 1).await;
    world.heard(SUSPENDED, &idle, 1).await;
    over_limit(world.reserve_for(&loser, 31).await, &winner, 31, 30);
    refused(world.reserve_for(&idle, 1).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    world.verified().await;
}
