//! Leaderboards and ranks.

use crate::world::{DAY, World, id, in_city, refused, violations};
use futures::future::join_all;
use koc_chassis::ids::{MemberId, ProgrammeId};
use koc_proto::koc::registry::v1 as pb;
use koc_registry::flow::rank_members;
use tonic::{Code, Status};

impl World {
    async fn members_with(&self, points: &[i64]) -> Vec<String> {
        let mut ids: Vec<String> =
            join_all(points.iter().map(|_| self.member(in_city("广州")))).await.into_iter().map(|m| m.member_id).collect();
        // By id, so that it is known who of equals comes first.
        ids.sort_unstable();
        join_all(ids.iter().zip(points).map(|(member, points)| self.earn(member, *points))).await;
        ids
    }

    async fn board(&self, request: pb::ListLeaderboardRequest) -> Result<pb::ListLeaderboardResponse, Status> {
        Ok(self.honours().list_leaderboard(request).await?.into_inner())
    }

    async fn lifetime(&self) -> Vec<(i64, String, i64)> {
        places(&self.board(self.board_request("")).await.expect("a board").entries)
    }

    async fn position(&self, member_id: &str, neighbours: i32) -> Result<pb::GetLeaderboardPositionResponse, Status> {
        Ok(self.honours().get_leaderboard_position(self.position_request(member_id, neighbours)).await?.into_inner())
    }

    async fn show(&self, member_id: &str, listed: bool) -> bool {
        let mut tx = self.replica().begin().await.expect("a transaction");
        let programme = ProgrammeId::parse("programme_id", &self.programme).expect("an id");
        let member = MemberId::parse("member_id", member_id).expect("an id");
        let shown = rank_members::show(&mut tx, programme, member, listed).await.expect("no failure");
        tx.commit().await.expect("committed");
        shown
    }

    /// Adds up what members moved, as another replica would, so that nobody waits for the service's own second.
    async fn counted(&self) {
        let db = self.replica();
        koc_tests::wait::until("all counts to be added up", crate::world::PATIENCE, async || {
            rank_members::step(&db).await.expect("a step");
            (self.count("SELECT count(*) FROM leaderboard_shift").await == 0).then_some(())
        })
        .await;
    }
}

fn places(entries: &[pb::LeaderboardEntry]) -> Vec<(i64, String, i64)> {
    entries.iter().map(|entry| (entry.rank, entry.member_id.clone(), entry.points)).collect()
}

fn place(rank: i64, member_id: &str, points: i64) -> (i64, String, i64) {
    (rank, member_id.to_owned(), points)
}

#[tokio::test]
async fn equals_share_a_rank_and_ranks_are_exact_before_and_after_the_counts_are_added_up() {
    let world = World::new().await;
    let ids = world.members_with(&[50, 70_000, 50, 70_001, 50, 1]).await;
    let expected = [
        place(1, &ids[3], 70_001),
        place(2, &ids[1], 70_000),
        place(3, &ids[4], 50),
        place(3, &ids[2], 50),
        place(3, &ids[0], 50),
        place(6, &ids[5], 1),
    ];
    for _round in 0..2 {
        assert_eq!(world.lifetime().await, expected);
        let standing = world.standing(&ids[0]).await;
        assert_eq!((standing.rank, standing.ranked_count), (3, 6));
        assert_eq!(world.standing(&ids[5]).await.rank, 6);
        world.counted().await;
    }
    world.assert_points_add_up().await;
    // Who moves up within a bucket, between buckets, and away.
    world.earn(&ids[1], 2).await;
    world.earn(&ids[5], 60).await;
    let earned = world.entries(&ids[0]).await.remove(0);
    world.reverse(&earned.entry_id, None).await.expect("taken back");
    let expected = [
        place(1, &ids[1], 70_002),
        place(2, &ids[3], 70_001),
        place(3, &ids[5], 61),
        place(4, &ids[4], 50),
        place(4, &ids[2], 50),
    ];
    for _round in 0..2 {
        assert_eq!(world.lifetime().await, expected);
        world.counted().await;
    }
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn pages_follow_each_other_through_equals_with_the_ranks_of_the_whole() {
    let world = World::new().await;
    world.members_with(&[5, 5, 5, 9, 5, 2, 2]).await;
    let whole = world.lifetime().await;
    assert_eq!(whole.iter().map(|(rank, ..)| *rank).collect::<Vec<_>>(), [1, 2, 2, 2, 2, 6, 6]);
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListLeaderboardRequest { page_size: 3, page_token, ..world.board_request("") };
        let page = world.board(request).await.expect("a page");
        assert_eq!(page.ranked_count, 7);
        pages.extend(places(&page.entries));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(pages, whole);
    let request = pb::ListLeaderboardRequest { page_token: "x".into(), ..world.board_request("") };
    assert_eq!(violations(world.board(request).await)[0].1, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn a_member_sees_those_around_it() {
    let world = World::new().await;
    let ids = world.members_with(&[10, 20, 30, 30, 40]).await;
    let around = world.position(&ids[2], 1).await.expect("ranked");
    assert_eq!(places(&around.before), [place(2, &ids[3], 30)]);
    assert_eq!(around.position.map(|own| (own.rank, own.points)), Some((2, 30)));
    assert_eq!((places(&around.after), around.ranked_count), (vec![place(4, &ids[1], 20)], 5));
    let top = world.position(&ids[4], 100).await.expect("ranked");
    assert_eq!((top.before.len(), top.after.len()), (0, 4));
    assert_eq!(top.after.iter().map(|entry| entry.rank).collect::<Vec<_>>(), [2, 2, 4, 5]);
    let newcomer = world.member(in_city("深圳")).await.member_id;
    let figures = refused(world.position(&newcomer, 1).await, Code::FailedPrecondition, "NOT_RANKED");
    assert_eq!(figures["subject"], newcomer);
}

#[tokio::test]
async fn a_month_ranks_what_was_earned_in_it_and_a_reversal_counts_where_the_earning_did() {
    let world = World::new().await;
    let ids = world.members_with(&[10, 20]).await;
    let first = world.standing(&ids[0]).await.month;
    // A month later, whatever the day today.
    world.registry.advance(DAY * 31).await;
    let second = world.standing(&ids[0]).await.month;
    assert!(first < second, "{first} {second}");
    world.earn(&ids[0], 15).await;
    let of = async |month: &str| places(&world.board(world.board_request(month)).await.expect("a board").entries);
    assert_eq!(of(&first).await, [place(1, &ids[1], 20), place(2, &ids[0], 10)]);
    assert_eq!(of(&second).await, [place(1, &ids[0], 15)]);
    assert_eq!(world.lifetime().await, [place(1, &ids[0], 25), place(2, &ids[1], 20)]);
    let standing = world.standing(&ids[0]).await;
    assert_eq!((standing.month_points, standing.lifetime_points), (15, 25));
    let earlier = world.entries(&ids[1]).await.remove(0);
    world.reverse(&earlier.entry_id, Some(15)).await.expect("a part");
    assert_eq!(of(&first).await, [place(1, &ids[0], 10), place(2, &ids[1], 5)]);
    assert_eq!(of(&second).await, [place(1, &ids[0], 15)]);
    world.assert_points_add_up().await;

    // Two years on, the months are forgotten and the lifetime is not.
    world.registry.advance(DAY * 730).await;
    let figures = refused(world.board(world.board_request(&first)).await, Code::FailedPrecondition, "MONTH_NOT_KEPT");
    assert!(figures["first_kept_month"] > second);
    rank_members::forget_months(world.replica()).await;
    assert_eq!(world.count("SELECT count(*) FROM leaderboard_score WHERE board <> 'LIFETIME'").await, 0);
    let late = world.entries(&ids[0]).await.remove(0);
    world.reverse(&late.entry_id, None).await.expect("still");
    assert_eq!(world.lifetime().await, [place(1, &ids[0], 10), place(2, &ids[1], 5)]);
    assert_eq!(world.count("SELECT count(*) FROM leaderboard_score WHERE board <> 'LIFETIME'").await, 0);
    let nowhere = pb::ListLeaderboardRequest { programme_id: id(), ..world.board_request("") };
    refused(world.board(nowhere).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
}

#[tokio::test]
async fn who_is_hidden_is_not_shown_nor_counted_and_comes_back_with_what_was_earned_meanwhile() {
    let world = World::new().await;
    let ids = world.members_with(&[10, 20, 30]).await;
    world.counted().await;
    assert!(world.show(&ids[1], false).await);
    assert!(world.show(&ids[1], false).await, "again changes nothing");
    assert_eq!(world.lifetime().await, [place(1, &ids[2], 30), place(2, &ids[0], 10)]);
    assert_eq!((world.standing(&ids[1]).await.rank, world.standing(&ids[0]).await.rank), (0, 2));
    refused(world.position(&ids[1], 1).await, Code::FailedPrecondition, "NOT_RANKED");
    world.earn(&ids[1], 5).await;
    world.assert_points_add_up().await;
    let standing = world.standing(&ids[1]).await;
    assert_eq!((standing.balance, standing.month_points, standing.ranked_count), (25, 25, 2));
    assert!(world.show(&ids[1], true).await);
    assert_eq!(world.lifetime().await, [place(1, &ids[2], 30), place(2, &ids[1], 25), place(3, &ids[0], 10)]);
    world.counted().await;
    world.assert_points_add_up().await;
    assert!(!world.show(&id(), false).await, "nobody");
}
