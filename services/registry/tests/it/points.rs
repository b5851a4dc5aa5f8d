//! Points: earned, redeemed, reversed.

use crate::world::{DAY, World, ahead, fact, id, in_city, pairs, refused, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use std::time::Duration;
use tonic::Code;

fn told(entry: &pb::PointsEntry) -> (i64, i64, i64, i64) {
    (entry.sequence, entry.change, entry.balance_after, entry.lifetime_after)
}

#[tokio::test]
async fn points_that_move_are_entered_in_order_told_of_and_audited() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let earned = world.earn(&member, 100).await;
    let redeemed = world.redeem(&member, 30).await.expect("there");
    let returned = world.reverse(&redeemed.entry_id, Some(10)).await.expect("a part");
    assert_eq!([told(&earned), told(&redeemed), told(&returned)], [(1, 100, 100, 100), (2, -30, 70, 100), (3, 10, 80, 100)]);
    assert_eq!(returned.origin_entry_id, redeemed.entry_id);
    assert_eq!((earned.kind(), earned.actor.as_str()), (pb::PointsEntryKind::Earn, "tester"));
    assert_eq!(world.entries(&member).await, [returned, redeemed, earned.clone()]);

    let changes = world.changes().await;
    let facts: Vec<pb::PointsChanged> = changes.iter().filter_map(fact).collect();
    let of_facts: Vec<_> = facts.iter().map(|f| (f.kind.as_str(), f.sequence, f.change, f.balance_after)).collect();
    assert_eq!(of_facts, [("EARN", 1, 100, 100), ("REDEEM", 2, -30, 70), ("REVERSE", 3, 10, 80)]);
    assert_eq!(facts[0].entry_id, earned.entry_id);
    let sql = "SELECT reason FROM audit_entry WHERE method LIKE '%Points%' ORDER BY audit_entry_id";
    let reasons: Vec<String> = sqlx::query_scalar(sql).fetch_all(&world.registry.database.admin).await.expect("reasons");
    assert_eq!(reasons[0], format!("TASK_COMPLETED from {}", earned.source));
    assert_eq!(reasons[2], "booked by mistake");
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn pages_of_entries_hold_each_once_newest_first() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    for amount in 1..=5 {
        world.earn(&member, amount).await;
    }
    let page = async |page_token: String| {
        let request = pb::ListPointsEntriesRequest { page_size: 2, page_token, ..world.entries_request(&member) };
        let page = world.points().list_points_entries(request).await.expect("a page").into_inner();
        (page.entries.iter().map(|entry| entry.change).collect::<Vec<_>>(), page.next_page_token)
    };
    let (first, token) = page(String::new()).await;
    let (second, token) = page(token).await;
    let (third, token) = page(token).await;
    assert_eq!((first, second, third, token.as_str()), (vec![5, 4], vec![3, 2], vec![1], ""));
    let request = pb::ListPointsEntriesRequest { page_token: "x".into(), ..world.entries_request(&member) };
    assert_eq!(violations(world.points().list_points_entries(request).await), pairs([("page_token", "PAGE_TOKEN_INVALID")]));
    let nobody = world.points().list_points_entries(world.entries_request(&id())).await;
    refused(nobody, Code::NotFound, "MEMBER_NOT_FOUND");
}

#[tokio::test]
async fn more_than_the_balance_is_refused_with_both_figures_and_a_retry_gets_the_refusal_again() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.earn(&member, 10).await;
    let request = world.redeem_request(&member, 11);
    for _attempt in 0..2 {
        let figures = refused(world.redeem_with(request.clone()).await, Code::FailedPrecondition, "INSUFFICIENT_POINTS");
        assert_eq!((figures["asked"].as_str(), figures["balance"].as_str()), ("11", "10"));
        world.earn(&member, 10).await;
    }
    let again = pb::RedeemPointsRequest { request_id: id(), ..request };
    assert_eq!(world.redeem_with(again).await.expect("30 by now").balance_after, 19);
    refused(world.redeem(&id(), 1).await, Code::NotFound, "MEMBER_NOT_FOUND");
    refused(world.earn_with(world.earn_request(&id(), 1)).await, Code::NotFound, "MEMBER_NOT_FOUND");
}

#[tokio::test]
async fn a_programme_that_is_not_there_has_no_points() {
    let world = World::new().await;
    let nowhere = World::of(world.registry, id());
    refused(nowhere.earn_with(nowhere.earn_request(&id(), 1)).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
    refused(nowhere.redeem(&id(), 1).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
    let batch = pb::BatchEarnPointsRequest { programme_id: nowhere.programme.clone(), earnings: vec![Default::default()] };
    refused(nowhere.points().batch_earn_points(batch).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
}

#[tokio::test]
async fn fields_that_break_a_rule_are_named() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let broken = pb::EarnPointsRequest {
        source: "free text".into(),
        reason_code: "lower".into(),
        amount: 0,
        ..world.earn_request(&member, 1)
    };
    let expected = pairs([("source", "string.pattern"), ("reason_code", "string.pattern"), ("amount", "int.gte")]);
    assert_eq!(violations(world.earn_with(broken).await), expected);
    let past = pb::EarnPointsRequest { expire_time: Some(crate::world::at(0)), ..world.earn_request(&member, 1) };
    assert_eq!(violations(world.earn_with(past).await), pairs([("expire_time", "EXPIRE_TIME_PAST")]));
    assert_eq!(world.entries(&member).await, []);
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_even_when_its_record_is_gone() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let expire_time = Some(ahead(DAY * 90));
    let earning = pb::EarnPointsRequest { expire_time, ..world.earn_request(&member, 50) };
    let earned = world.earn_with(earning.clone()).await.expect("earned");
    let redemption = world.redeem_request(&member, 20);
    let redeemed = world.redeem_with(redemption.clone()).await.expect("there");
    let reversal = world.reverse_request(&redeemed.entry_id, Some(5));
    let reversed = world.reverse_with(reversal.clone()).await.expect("a part");
    for round in 0..3 {
        assert_eq!(world.earn_with(earning.clone()).await.expect("again"), earned, "{round}");
        assert_eq!(world.redeem_with(redemption.clone()).await.expect("again"), redeemed, "{round}");
        assert_eq!(world.reverse_with(reversal.clone()).await.expect("again"), reversed, "{round}");
        // As after 30 days, and then a year later, when what was earned has expired.
        sqlx::query("DELETE FROM request_record").execute(&world.registry.database.admin).await.expect("forgotten");
        if round == 1 {
            world.registry.advance(DAY * 365).await;
        }
    }
    assert_eq!(world.entries(&member).await.iter().filter(|e| e.kind() != pb::PointsEntryKind::Expire).count(), 3);
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn a_source_earns_once_and_redeems_once_for_each_reason() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let first = world.earn_request(&member, 50);
    let earned = world.earn_with(first.clone()).await.expect("earned");
    let another = |amount: i64| pb::EarnPointsRequest { request_id: id(), amount, ..first.clone() };
    assert_eq!(world.earn_with(another(50)).await.expect("the same"), earned);
    let figures = refused(world.earn_with(another(51)).await, Code::AlreadyExists, "SOURCE_USED");
    assert_eq!((figures["resource_id"].as_str(), figures["amount"].as_str()), (earned.entry_id.as_str(), "50"));
    let expiring = pb::EarnPointsRequest { expire_time: Some(ahead(DAY)), ..another(50) };
    refused(world.earn_with(expiring).await, Code::AlreadyExists, "SOURCE_USED");
    let bonus = pb::EarnPointsRequest { reason_code: "BONUS".into(), ..another(7) };
    assert_eq!(world.earn_with(bonus).await.expect("another reason").balance_after, 57);

    let order = world.redeem_request(&member, 10);
    let redeemed = world.redeem_with(order.clone()).await.expect("there");
    let again = pb::RedeemPointsRequest { request_id: id(), ..order };
    assert_eq!(world.redeem_with(again.clone()).await.expect("the same"), redeemed);
    let other = pb::RedeemPointsRequest { request_id: id(), amount: 11, ..again };
    refused(world.redeem_with(other).await, Code::AlreadyExists, "SOURCE_USED");
    // Of another member the same source is another matter.
    let other = world.member(in_city("深圳")).await.member_id;
    let earned = world.earn_with(pb::EarnPointsRequest { member_id: other, ..another(50) }).await.expect("earned");
    assert_eq!(told(&earned), (1, 50, 50, 50));
}

#[tokio::test]
async fn an_entry_is_reversed_once_by_no_more_than_it_has_and_the_balance_stays_above_zero() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let earned = world.earn(&member, 100).await;
    let order = world.redeem(&member, 60).await.expect("there");
    let figures = refused(world.reverse(&earned.entry_id, Some(101)).await, Code::FailedPrecondition, "REVERSAL_EXCEEDS_ENTRY");
    assert_eq!((figures["asked"].as_str(), figures["amount"].as_str()), ("101", "100"));
    let reversed = world.reverse(&earned.entry_id, None).await.expect("as far as there is something");
    assert_eq!((told(&reversed), reversed.shortfall), ((3, -40, 0, 0), 60));
    assert_eq!(world.reverse(&earned.entry_id, None).await.expect("the same again"), reversed);
    refused(world.reverse(&earned.entry_id, Some(99)).await, Code::FailedPrecondition, "ENTRY_REVERSED");
    refused(world.reverse(&reversed.entry_id, None).await, Code::FailedPrecondition, "ENTRY_NOT_REVERSIBLE");
    refused(world.reverse(&id(), None).await, Code::NotFound, "ENTRY_NOT_FOUND");
    // The order is cancelled: what it took was of the earning that should not have been.
    let returned = world.reverse(&order.entry_id, None).await.expect("once");
    assert_eq!((told(&returned), returned.shortfall), ((4, 0, 0, 0), 60));
    let standing = world.standing(&member).await;
    assert_eq!((standing.balance, standing.lifetime_points, standing.month_points, standing.rank), (0, 0, 0, 0));
    world.assert_points_add_up().await;
}

fn earning(member_id: &str, nr: usize, amount: i64) -> pb::PointsEarning {
    pb::PointsEarning {
        member_id: member_id.into(),
        source: format!("micro_task/{nr}"),
        reason_code: "CHECK_IN".into(),
        amount,
        expire_time: None,
    }
}

impl World {
    async fn batch_earn(&self, earnings: Vec<pb::PointsEarning>) -> Vec<pb::PointsEarningResult> {
        let request = pb::BatchEarnPointsRequest { programme_id: self.programme.clone(), earnings };
        self.points().batch_earn_points(request).await.expect("a batch").into_inner().results
    }
}

#[tokio::test]
async fn each_item_of_a_batch_has_its_own_result_and_a_bad_one_leaves_its_neighbours() {
    let world = World::new().await;
    let (a, b) = (world.member(in_city("广州")).await.member_id, world.member(in_city("深圳")).await.member_id);
    let past = pb::PointsEarning { expire_time: Some(crate::world::at(0)), ..earning(&a, 9, 1) };
    let nobody = id();
    let batch = vec![
        earning(&b, 1, 5),
        earning(&a, 1, 7),
        earning(&nobody, 1, 1),
        earning(&a, 1, 7),
        earning(&a, 1, 8),
        earning("no id", 2, 0),
        past,
        earning(&b, 2, 6),
    ];
    let results = world.batch_earn(batch.clone()).await;
    use pb::EarningOutcome::{Earned, Rejected, Repeated};
    let outcomes: Vec<_> = results.iter().map(|result| (result.outcome(), result.balance_after)).collect();
    let expected = [Earned, Earned, Rejected, Repeated, Rejected, Rejected, Rejected, Earned];
    assert_eq!(outcomes, expected.into_iter().zip([5, 7, 0, 7, 0, 0, 0, 11]).collect::<Vec<_>>());
    assert_eq!(results[1].entry_id, results[3].entry_id);
    assert!(results.iter().zip(0..).all(|(result, nr)| result.earning_index == nr));
    let codes: Vec<_> = results.iter().filter_map(|result| result.status.as_ref()).map(|status| status.code).collect();
    let code = |code: Code| code as i32;
    let (missing, used, invalid) = (code(Code::NotFound), code(Code::AlreadyExists), code(Code::InvalidArgument));
    assert_eq!(codes, [missing, used, invalid, invalid]);
    let kinds = |nr: usize| results[nr].status.as_ref().map(|s| s.details.iter().map(|d| d.type_url.clone()).collect::<Vec<_>>());
    assert!(kinds(5).is_some_and(|kinds| kinds.iter().any(|kind| kind.ends_with("google.rpc.BadRequest"))));
    assert!(kinds(2).is_some_and(|kinds| kinds.iter().any(|kind| kind.ends_with("google.rpc.ErrorInfo"))));

    // The same batch again changes nothing.
    let again = world.batch_earn(batch).await;
    assert_eq!([again[0].outcome(), again[1].outcome(), again[7].outcome()], [Repeated; 3]);
    let ids = |results: &[pb::PointsEarningResult]| results.iter().map(|r| r.entry_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&results));
    assert_eq!((world.standing(&a).await.balance, world.standing(&b).await.balance), (7, 11));
    assert_eq!(world.count("SELECT count(*) FROM audit_entry WHERE method LIKE '%BatchEarnPoints%'").await, 1);
    world.assert_points_add_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_batch_is_one_transaction_and_batches_in_any_order_do_not_hold_each_other_up() {
    let world = World::new().await;
    let members: Vec<String> =
        join_all((0..20).map(|_| world.member(in_city("广州")))).await.into_iter().map(|m| m.member_id).collect();
    let batch = |from: usize| (from..from + 1_000).map(|nr| earning(&members[nr % 20], nr, 3)).collect::<Vec<_>>();
    let mut backwards = batch(500);
    backwards.reverse();
    let (first, second, third) =
        tokio::join!(world.batch_earn(batch(0)), world.batch_earn(backwards), world.batch_earn(batch(1_000)));
    let outcomes = [first, second, third].concat();
    assert!(outcomes.iter().all(|result| result.outcome() != pb::EarningOutcome::Rejected));
    let earned = outcomes.iter().filter(|result| result.outcome() == pb::EarningOutcome::Earned).count();
    assert_eq!(earned, 2_000);
    for member in &members {
        assert_eq!(world.standing(member).await.balance, 300);
    }
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn a_redemption_takes_from_as_many_lots_as_it_needs_however_many_there_are() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let earned = world.batch_earn((0..800).map(|nr| earning(&member, nr, 1)).collect()).await;
    assert!(earned.iter().all(|result| result.outcome() == pb::EarningOutcome::Earned));
    // More lots than are read at first, so it takes a second look; of lots that expire together the oldest go first.
    let redeemed = world.redeem(&member, 600).await.expect("redeemed");
    assert_eq!(redeemed.balance_after, 200);
    assert_eq!(world.count("SELECT count(*) FROM points_lot WHERE remaining > 0 AND sequence <= 600").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM points_lot WHERE remaining > 0 AND sequence > 600").await, 200);
    assert_eq!(world.count("SELECT count(*) FROM points_draw").await, 600);
    // All of it comes back, and the rest can be had.
    assert_eq!(world.reverse(&redeemed.entry_id, None).await.expect("given back").balance_after, 800);
    assert_eq!(world.redeem(&member, 800).await.expect("redeemed").balance_after, 0);
    refused(world.redeem(&member, 1).await, Code::FailedPrecondition, "INSUFFICIENT_POINTS");
    world.assert_points_add_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_who_redeem_at_once_get_no_more_than_there_is() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.earn(&member, 60).await;
    world.earn(&member, 40).await;
    // Each is sent twice at the same time, as by a caller that gave up waiting.
    let (world, member) = (&world, member.as_str());
    let redeemed = join_all((0..64).map(async |_: usize| {
        let request = world.redeem_request(member, 7);
        let (first, second) = tokio::join!(world.redeem_with(request.clone()), world.redeem_with(request.clone()));
        let answer = |answer: Result<pb::PointsEntry, tonic::Status>| match answer {
            Ok(entry) => Some(entry),
            Err(status) => {
                let figures = refused::<()>(Err(status), Code::FailedPrecondition, "INSUFFICIENT_POINTS");
                assert!(figures["balance"].parse::<i64>().expect("a number") < 7);
                None
            }
        };
        let (first, second) = (answer(first), answer(second));
        assert_eq!(first, second, "one request, one answer");
        first
    }))
    .await;
    assert_eq!(redeemed.iter().flatten().count(), 14);
    assert_eq!(world.standing(member).await.balance, 2);
    world.assert_points_add_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_reverse_an_entry_at_once_reverse_it_once() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let earned = world.earn(&member, 10).await;
    let reversed = join_all((0..16).map(|_| world.reverse(&earned.entry_id, None))).await;
    let entries: Vec<_> = reversed.into_iter().map(|reversed| reversed.expect("the same for all")).collect();
    assert!(entries.iter().all(|entry| *entry == entries[0]));
    assert_eq!(world.entries(&member).await.len(), 2);
}

#[tokio::test]
async fn the_ledger_cannot_be_rewritten_by_the_service_nor_hold_less_than_nothing() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.earn(&member, 10).await;
    world.redeem(&member, 1).await.expect("there");
    let db = world.replica();
    for sql in [
        "UPDATE points_entry SET change = 11",
        "DELETE FROM points_entry",
        "UPDATE points_draw SET amount = 1",
        "DELETE FROM badge_award",
        "DELETE FROM badge_revocation",
        "UPDATE badge_version SET retired = true",
        "UPDATE title_set SET version = 2",
    ] {
        let error = sqlx::query(sql).execute(db.pool()).await.expect_err(sql);
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("42501"), "{sql}");
    }
    let error = sqlx::query("UPDATE points_account SET balance = -1").execute(db.pool()).await.expect_err("below zero");
    assert_eq!(koc_chassis::fault::constraint(&error), Some("points_account_balance"));
}

#[tokio::test]
async fn the_standing_shows_what_expires_next() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let empty = world.standing(&member).await;
    assert_eq!((empty.balance, empty.next_expiring_points, empty.next_expire_time), (0, 0, None));
    let soon = ahead(DAY * 30);
    for (amount, expire_time) in [(5, Some(ahead(DAY * 60))), (10, Some(soon)), (7, None), (20, Some(soon))] {
        world.earn_with(pb::EarnPointsRequest { expire_time, ..world.earn_request(&member, amount) }).await.expect("earned");
    }
    world.redeem(&member, 4).await.expect("there");
    let standing = world.standing(&member).await;
    let seconds = |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds);
    assert_eq!((standing.balance, standing.next_expiring_points), (38, 26));
    assert_eq!(seconds(standing.next_expire_time), seconds(Some(soon)));
    // What is overdue cannot be redeemed, swept or not.
    world.registry.advance(DAY * 30 + Duration::from_secs(60)).await;
    assert_eq!(world.standing(&member).await.balance, 12);
    let figures = refused(world.redeem(&member, 13).await, Code::FailedPrecondition, "INSUFFICIENT_POINTS");
    assert_eq!(figures["balance"], "12");
    refused(world.honours().get_standing(world.standing_request(&id())).await, Code::NotFound, "MEMBER_NOT_FOUND");
}
