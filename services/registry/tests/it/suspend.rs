//! Suspending and reinstating members.

use crate::world::{World, fact, id, in_city, pairs, refused, violations};
use koc_proto::koc::registry::v1 as pb;
use tonic::{Code, Status};

fn request(world: &World, member_id: &str, reason: &str) -> pb::SuspendMemberRequest {
    pb::SuspendMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.into(),
        reason: reason.into(),
        etag: String::new(),
    }
}

async fn suspend(world: &World, request: pb::SuspendMemberRequest) -> Result<pb::Member, Status> {
    Ok(world.members().suspend_member(request).await?.into_inner().member.unwrap_or_default())
}

async fn reinstate(world: &World, member_id: &str) -> Result<pb::Member, Status> {
    let pb::SuspendMemberRequest { programme_id, request_id, member_id, reason, etag } = request(world, member_id, "申诉成功");
    let request = pb::ReinstateMemberRequest { programme_id, request_id, member_id, reason, etag };
    Ok(world.members().reinstate_member(request).await?.into_inner().member.unwrap_or_default())
}

#[tokio::test]
async fn a_suspended_member_is_seen_as_such_until_it_is_reinstated() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await;
    let member_id = member.member_id.clone();
    let asked = request(&world, &member_id, "刷单");

    let suspended = suspend(&world, asked.clone()).await.expect("suspended");
    assert_eq!(suspended.state(), pb::MemberState::Suspended);
    assert_ne!(suspended.etag, member.etag);
    assert_eq!(world.get(&member_id).await.expect("found"), suspended);
    // A retry is answered as before, with the member as it is now.
    assert_eq!(suspend(&world, asked).await.expect("again"), suspended);
    refused(suspend(&world, request(&world, &member_id, "又")).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");

    let back = reinstate(&world, &member_id).await.expect("reinstated");
    assert_eq!((back.state(), &back.profile), (pb::MemberState::Active, &member.profile));
    refused(reinstate(&world, &member_id).await, Code::FailedPrecondition, "MEMBER_NOT_SUSPENDED");

    let changes = world.changes().await;
    let told: Vec<pb::MemberSuspended> = changes.iter().filter_map(fact).collect();
    assert_eq!(
        told,
        [pb::MemberSuspended { member_id: member_id.clone(), version: 2, cause: pb::MemberSuspensionCause::Caller.into() }]
    );
    let told: Vec<pb::MemberReinstated> = changes.iter().filter_map(fact).collect();
    assert_eq!(told, [pb::MemberReinstated { member_id: member_id.clone(), version: 3 }]);
    let reasons: Vec<String> =
        sqlx::query_scalar("SELECT reason FROM audit_entry WHERE reason IS NOT NULL ORDER BY audit_entry_id")
            .fetch_all(&world.registry.database.admin)
            .await
            .expect("reasons");
    assert_eq!(reasons, ["刷单", "申诉成功"]);
}

#[tokio::test]
async fn who_is_suspended_redeems_nothing_and_is_on_no_board_and_loses_nothing() {
    let world = World::new().await;
    let member_id = world.member(in_city("广州")).await.member_id;
    world.earn(&member_id, 100).await;
    suspend(&world, request(&world, &member_id, "刷单")).await.expect("suspended");

    refused(world.redeem(&member_id, 10).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    world.earn(&member_id, 20).await;
    let hidden = world.standing(&member_id).await;
    assert_eq!((hidden.balance, hidden.lifetime_points, hidden.rank, hidden.ranked_count), (120, 120, 0, 0));

    reinstate(&world, &member_id).await.expect("reinstated");
    let shown = world.standing(&member_id).await;
    assert_eq!((shown.balance, shown.rank, shown.ranked_count), (120, 1, 1));
    world.redeem(&member_id, 10).await.expect("redeemed");
}

#[tokio::test]
async fn what_a_suspension_lacks_is_told() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await;
    assert_eq!(violations(suspend(&world, request(&world, &member.member_id, "")).await), pairs([("reason", "string.min_len")]));
    refused(suspend(&world, request(&world, &id(), "刷单")).await, Code::NotFound, "MEMBER_NOT_FOUND");
    world.update(world.update_request(&member.member_id, in_city("深圳"), &["profile.city"])).await.expect("updated");
    let stale = pb::SuspendMemberRequest { etag: member.etag, ..request(&world, &member.member_id, "刷单") };
    refused(suspend(&world, stale).await, Code::Aborted, "ETAG_MISMATCH");
}
