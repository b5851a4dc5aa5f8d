//! Limits per member, beside those of the envelopes.

use crate::world::*;
use futures::future::join_all;
use koc_proto::{google::r#type::Money, koc::budget::v1 as pb};
use koc_tests::wait;
use std::time::Duration;
use tonic::{Code, Status};

const EXHAUSTED: &str = "MEMBER_LIMIT_EXHAUSTED";

async fn reserve(world: &World, envelope: &str, member: &str, amount: i64) -> Result<pb::Reservation, Status> {
    let (envelope_id, member_id) = (envelope.to_owned(), member.to_owned());
    world.reserve_with(pb::ReserveRequest { envelope_id, member_id, ..world.reserve_request(amount) }).await
}

async fn limits(world: &World, member_id: &str, page_size: i32, page_token: &str) -> pb::ListMemberLimitsResponse {
    let request = pb::ListMemberLimitsRequest {
        programme_id: world.programme.clone(),
        page_size,
        page_token: page_token.to_owned(),
        member_id: member_id.to_owned(),
    };
    let mut client = pb::member_limit_service_client::MemberLimitServiceClient::new(world.budget.channel());
    client.list_member_limits(request).await.expect("a page").into_inner()
}

async fn used(world: &World, member: &str) -> i64 {
    let page = limits(world, member, 0, "").await;
    assert_eq!(page.member_limits.len(), 1);
    minor(page.member_limits[0].used.as_ref())
}

/// How a limit is named in a refusal.
fn named(limit: &pb::MemberLimit) -> String {
    let start = limit.period_start_time.expect("a start");
    let start = chrono::DateTime::from_timestamp(start.seconds, 0).expect("in range");
    format!("{}/{}", limit.member_id, start.to_rfc3339())
}

#[tokio::test]
async fn a_members_limit_holds_beside_the_envelopes_and_counts_all_of_them() {
    let world = World::new().await;
    let (member, other_envelope) = (id(), world.envelope_of(5_000).await);
    // Money held before the limit was set counts, too.
    reserve(&world, &world.envelope, &member, 100).await.expect("held");
    let limit = world.set_limit(world.limit_request(&member, 1_000)).await.expect("a limit");
    assert_eq!((minor(limit.limit.as_ref()), minor(limit.used.as_ref())), (1_000, 100));
    let named = named(&limit);

    let held = reserve(&world, &other_envelope, &member, 500).await.expect("held").reservation_id;
    short(reserve(&world, &world.envelope, &member, 401).await, EXHAUSTED, &named, Some(401), 400);
    let figures = refused(reserve(&world, &world.envelope, &member, 401).await, Code::FailedPrecondition, EXHAUSTED);
    assert_eq!((figures["limit_type"].as_str(), figures["asked"].as_str()), ("MEMBER_LIMIT", "4.01"));
    // Where both are short, the envelope is named.
    short(reserve(&world, &other_envelope, &member, 4_501).await, "ENVELOPE_EXHAUSTED", &other_envelope, Some(4_501), 4_500);
    reserve(&world, &world.envelope, &id(), 401).await.expect("another member has no limit");
    world.reserve(401).await.expect("what is for no member has no limit");

    // Owed and paid money stays in use; what goes back does not.
    world.commit(&held, Some(300)).await.expect("owed");
    world.spend(&held, Some(200)).await.expect("paid");
    assert_eq!(used(&world, &member).await, 600);
    world.release(&held, Some(50)).await.expect("given back");
    assert_eq!(used(&world, &member).await, 550);
    world.pass(DAY).await;
    assert_eq!(used(&world, &member).await, 300);
    // A commit on an expired hold takes the limit again, or is refused by it.
    world.set_limit(world.limit_request(&member, 400)).await.expect("a limit");
    short(world.commit(&held, Some(101)).await, EXHAUSTED, &named, Some(101), 100);
    assert_eq!(parts(&world.commit(&held, Some(100)).await.expect("owed")), [0, 200, 200, 200]);
    assert_eq!(used(&world, &member).await, 400);

    // A plan whose period does not lie in the limit's does not count.
    let request = pb::CreatePlanRequest {
        period_end_time: Some(in_days(2_001)),
        envelopes: vec![new_envelope(pb::ResourceClass::Inclusive, "later", 1_000)],
        ..world.plan_request()
    };
    let plan = world.create_plan(request).await.expect("a plan");
    world.activate(&plan.plan_id).await;
    reserve(&world, &plan.envelopes[0].envelope_id, &member, 1_000).await.expect("held");
    assert_eq!(used(&world, &member).await, 400);
    world.verified().await;
}

#[tokio::test]
async fn a_limit_below_what_is_in_use_only_blocks_new_holds() {
    let world = World::new().await;
    let member = id();
    let held = reserve(&world, &world.envelope, &member, 900).await.expect("held").reservation_id;
    let request = pb::SetMemberLimitRequest { decision_id: id(), ..world.limit_request(&member, 300) };
    let limit = world.set_limit(request.clone()).await.expect("a limit");
    assert_eq!((minor(limit.used.as_ref()), limit.decision_id.as_str()), (900, request.decision_id.as_str()));
    assert_eq!(limit.reason, "what the last period returned");
    short(reserve(&world, &world.envelope, &member, 1).await, EXHAUSTED, &named(&limit), Some(1), 0);
    // What is held is committed and paid all the same.
    world.commit(&held, Some(700)).await.expect("owed");
    world.spend(&held, Some(700)).await.expect("paid");
    world.release(&held, None).await.expect("given back");
    assert_eq!(used(&world, &member).await, 700);
    short(reserve(&world, &world.envelope, &member, 1).await, EXHAUSTED, &named(&limit), Some(1), 0);
    // The same period again sets the limit anew; a retry of the first call gives its answer and sets nothing.
    let raised = world.set_limit(world.limit_request(&member, 701)).await.expect("a limit");
    assert_eq!((minor(raised.used.as_ref()), raised.decision_id.as_str()), (700, ""));
    assert_eq!(world.set_limit(request).await.expect("the first answer"), limit);
    reserve(&world, &world.envelope, &member, 1).await.expect("held");
    let zero = world.set_limit(world.limit_request(&id(), 0)).await.expect("a limit");
    short(reserve(&world, &world.envelope, &zero.member_id, 1).await, EXHAUSTED, &named(&zero), Some(1), 0);
    world.verified().await;
}

#[tokio::test]
async fn periods_of_one_member_do_not_overlap() {
    let world = World::new().await;
    let member = id();
    let request = |from: i64, to: i64| pb::SetMemberLimitRequest {
        period_start_time: Some(in_days(from)),
        period_end_time: Some(in_days(to)),
        ..world.limit_request(&member, 100)
    };
    let [first, same_start, inside, around, touching, other] =
        [request(10, 20), request(10, 21), request(12, 13), request(9, 21), request(20, 30), request(15, 25)];
    let set = world.set_limit(first).await.expect("a limit");
    for request in [same_start, inside, around] {
        let figures = refused(world.set_limit(request).await, Code::FailedPrecondition, "PERIOD_OVERLAPS");
        let start = figures["period_start_time"].parse::<chrono::DateTime<chrono::Utc>>().expect("a time");
        assert_eq!(Some(start.timestamp()), set.period_start_time.map(|time| time.seconds));
    }
    world.set_limit(touching).await.expect("a limit");
    world.set_limit(pb::SetMemberLimitRequest { member_id: id(), ..other }).await.expect("another member's");
    let page = limits(&world, &member, 1, "").await;
    assert_eq!(page.member_limits, [set]);
    let page = limits(&world, &member, 1, &page.next_page_token).await;
    assert_eq!((page.member_limits.len(), page.next_page_token.as_str()), (1, ""));
    assert_eq!(limits(&world, "", 0, "").await.member_limits.len(), 3);

    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let limit = Some(Money { currency_code: "USD".into(), ..fen(1) });
    let found = violations(world.set_limit(pb::SetMemberLimitRequest { limit, ..request(5, 5) }).await);
    assert_eq!(found, [pair("period_end_time", "PERIOD_EMPTY"), pair("limit.currency_code", "CURRENCY_MISMATCH")]);
    let fine = pb::SetMemberLimitRequest { limit: Some(Money { nanos: 1, ..fen(0) }), ..request(5, 6) };
    assert_eq!(violations(world.set_limit(fine).await), [pair("limit.nanos", "AMOUNT_TOO_FINE")]);
    let negative = pb::SetMemberLimitRequest { limit: Some(fen(-1)), ..request(5, 6) };
    assert_eq!(violations(world.set_limit(negative).await), [pair("limit", "AMOUNT_NEGATIVE")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_for_holds_in_several_envelopes_at_once() {
    let world = World::new().await;
    let (member, other) = (id(), world.envelope_of(100_000).await);
    world.set_limit(world.limit_request(&member, 500)).await.expect("a limit");
    let envelope = |nr: usize| if nr.is_multiple_of(2) { world.envelope.as_str() } else { other.as_str() };
    let holds = join_all((0..64).map(|nr| reserve(&world, envelope(nr), &member, 11))).await;
    let (held, refusals): (Vec<_>, Vec<_>) = holds.into_iter().partition(Result::is_ok);
    assert_eq!((held.len(), used(&world, &member).await), (45, 45 * 11));
    for refusal in refusals {
        let figures = refused(refusal, Code::FailedPrecondition, EXHAUSTED);
        assert_eq!((figures["asked_minor"].as_str(), figures["available_minor"].as_str()), ("11", "5"));
    }
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_set_while_others_reserve_misses_nothing() {
    let world = World::new().await;
    for _ in 0..4 {
        let member = id();
        let holds = join_all((0..24).map(|_| reserve(&world, &world.envelope, &member, 10)));
        // By two at once, of which the later one stands.
        let set = async |amount| world.set_limit(world.limit_request(&member, amount)).await.expect("a limit");
        let limits = async { tokio::join!(set(100), set(120)) };
        let (holds, (first, second)) = tokio::join!(holds, limits);
        let held = i64::try_from(holds.iter().filter(|hold| hold.is_ok()).count()).expect("few") * 10;
        let page = self::limits(&world, &member, 0, "").await;
        let limit = &page.member_limits[0];
        assert_eq!((page.member_limits.len(), minor(limit.used.as_ref())), (1, held));
        // Holds after the first limit keep to the larger of both; what was there before may be more.
        let before = minor(first.used.as_ref()).min(minor(second.used.as_ref()));
        assert!(held <= before.max(120), "{held} is in use, {before} before the limit");
    }
    // A limit and the expiry of the member's holds at the same time.
    let member = id();
    for _ in 0..5 {
        reserve(&world, &world.envelope, &member, 10).await.expect("held");
    }
    world.budget.advance(DAY).await;
    let (limit, ()) = tokio::join!(world.set_limit(world.limit_request(&member, 100)), world.pass(Duration::ZERO));
    assert!(minor(limit.expect("a limit").used.as_ref()) <= 50);
    assert_eq!(used(&world, &member).await, 0);
    world.verified().await;
}

#[tokio::test]
async fn a_hold_that_cannot_be_expired_keeps_nobody_elses_money() {
    let world = World::new().await;
    let member = id();
    world.set_limit(world.limit_request(&member, 1_000)).await.expect("a limit");
    let stuck = reserve(&world, &world.envelope, &member, 300).await.expect("held").reservation_id;
    let others = [world.reserve(20).await, world.reserve(3).await].map(|held| held.expect("held").reservation_id);
    // Giving it back would take the limit's use below zero, which no version of the service lets happen.
    let spoil = sqlx::query("UPDATE member_limit SET used = 0").execute(&world.budget.database.admin).await;
    assert_eq!(spoil.expect("spoilt").rows_affected(), 1);

    world.budget.advance(Duration::from_secs(16 * 60)).await;
    for other in &others {
        wait::until("the hold to expire", PATIENCE, async || {
            (parts(&world.get(other).await.expect("there"))[0] == 0).then_some(())
        })
        .await;
    }
    assert_eq!(parts(&world.get(&stuck).await.expect("there")), [300, 0, 0, 0]);
    assert!(world.verify().await.finding.contains(&member), "the verification names the member");
}
