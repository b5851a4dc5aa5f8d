//! Points whose time is over.

use crate::world::{DAY, PATIENCE, World, ahead, in_city, refused};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use koc_registry::flow::expire_points;
use koc_tests::wait;
use tonic::Code;

impl World {
    async fn earn_for(&self, member_id: &str, amount: i64, days: u32) -> pb::PointsEntry {
        let expire_time = Some(ahead(DAY * days));
        self.earn_with(pb::EarnPointsRequest { expire_time, ..self.earn_request(member_id, amount) }).await.expect("earned")
    }

    /// Waits until nothing overdue is left, as the service's own sweep and this one, which stands for another replica, work.
    async fn swept(&self) {
        let db = self.replica();
        wait::until("what is overdue to expire", PATIENCE, async || {
            expire_points::step(&db).await.expect("a step");
            let sql = "SELECT count(*) FROM points_lot WHERE remaining > 0 AND expire_time <= koc_now()";
            (self.count(sql).await == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_empties_each_lot_that_is_over_once_whoever_sweeps() {
    let world = World::new().await;
    let members: Vec<String> =
        join_all((0..12).map(|_| world.member(in_city("广州")))).await.into_iter().map(|m| m.member_id).collect();
    join_all(members.iter().flat_map(|m| [world.earn_for(m, 10, 5), world.earn_for(m, 3, 6), world.earn_for(m, 50, 50)])).await;
    world.redeem(&members[0], 12).await.expect("there");
    world.registry.advance(DAY * 10).await;
    tokio::join!(world.swept(), world.swept());
    for (nr, member) in members.iter().enumerate() {
        let entries = world.entries(member).await;
        let expired: Vec<_> = entries.iter().filter(|entry| entry.kind() == pb::PointsEntryKind::Expire).collect();
        let mut changes: Vec<i64> = expired.iter().map(|entry| entry.change).collect();
        changes.sort_unstable();
        assert_eq!(changes, if nr == 0 { vec![-1] } else { vec![-10, -3] });
        assert!(expired.iter().all(|entry| entry.actor == expire_points::EXPIRY && !entry.origin_entry_id.is_empty()));
        let standing = world.standing(member).await;
        assert_eq!((standing.balance, standing.lifetime_points), (50, 63));
    }
    let error = world.reverse(&world.entries(&members[1]).await[0].entry_id, None).await;
    refused(error, Code::FailedPrecondition, "ENTRY_NOT_REVERSIBLE");
    world.assert_points_add_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_and_redemptions_at_the_same_time_keep_the_points_whole() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    join_all((0..20).map(|_| world.earn_for(&member, 10, 5))).await;
    world.earn_for(&member, 40, 50).await;
    world.registry.advance(DAY * 10).await;
    let redemptions = join_all((0..10).map(|_| world.redeem(&member, 9)));
    let (redeemed, ()) = tokio::join!(redemptions, world.swept());
    // 40 of 240 are not over: four times nine.
    assert_eq!(redeemed.iter().filter(|redeemed| redeemed.is_ok()).count(), 4);
    assert_eq!(world.standing(&member).await.balance, 4);
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn a_redemption_that_is_cancelled_brings_back_what_would_be_over_for_thirty_days() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.earn_for(&member, 10, 5).await;
    let order = world.redeem(&member, 10).await.expect("there");
    world.registry.advance(DAY * 10).await;
    assert_eq!(world.reverse(&order.entry_id, None).await.expect("cancelled").balance_after, 10);
    world.registry.advance(DAY * 29).await;
    assert_eq!(world.standing(&member).await.balance, 10);
    world.registry.advance(DAY * 2).await;
    assert_eq!(world.standing(&member).await.balance, 0);
    world.swept().await;
    world.assert_points_add_up().await;
}
