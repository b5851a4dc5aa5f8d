//! An envelope that may give more than it has, up to a limit.

use crate::world::*;
use koc_proto::koc::budget::v1 as pb;
use tonic::Code;

const MONEY: i64 = 1_000;
const OVERRUN: i64 = 200;

fn new(class: pb::ResourceClass, allocated: i64, overrun: i64) -> pb::NewEnvelope {
    pb::NewEnvelope { overrun_limit: Some(fen(overrun)), ..new_envelope(class, &format!("{class:?}"), allocated) }
}

/// Goes on in a plan whose envelope may overrun.
async fn overrunning() -> World {
    let mut world = World::new().await;
    let envelopes = vec![new(pb::ResourceClass::Inclusive, MONEY, OVERRUN)];
    let plan = world.create_plan(pb::CreatePlanRequest { envelopes, ..world.plan_request() }).await.expect("a plan");
    assert_eq!(minor(plan.envelopes[0].overrun_limit.as_ref()), OVERRUN);
    world.activate(&plan.plan_id).await;
    (world.plan, world.envelope) = (plan.plan_id, plan.envelopes[0].envelope_id.clone());
    world
}

/// What the warnings say, which are all about the envelope's overrun.
#[track_caller]
fn used(world: &World, warnings: &[pb::Warning]) -> Vec<i64> {
    let told = warnings.iter().map(|warning| {
        assert_eq!((warning.reason.as_str(), warning.subject_id.as_str()), ("OVERRUN_USED", world.envelope.as_str()));
        minor(warning.amount.as_ref())
    });
    told.collect()
}

#[tokio::test]
async fn an_overrun_is_given_with_a_warning_up_to_its_limit() {
    let world = overrunning().await;
    let mut client = world.reservations();
    let whole = client.reserve(world.reserve_request(MONEY)).await.expect("held").into_inner();
    assert_eq!((used(&world, &whole.warnings), minor(whole.envelope_available.as_ref())), (vec![], 0));
    let request = world.reserve_request(150);
    let beyond = client.reserve(request.clone()).await.expect("held").into_inner();
    assert_eq!((used(&world, &beyond.warnings), minor(beyond.envelope_available.as_ref())), (vec![150], -150));
    let figures = refused(world.reserve(51).await, Code::FailedPrecondition, "ENVELOPE_EXHAUSTED");
    assert_eq!((figures["available_minor"].as_str(), figures["overrun_left_minor"].as_str()), ("-150", "50"));
    assert_eq!((figures["available"].as_str(), figures["overrun_left"].as_str()), ("-1.50", "0.50"));

    let of = &beyond.reservation.as_ref().expect("a reservation").reservation_id;
    let owed = client.commit(world.commit_request(of, None)).await.expect("owed").into_inner();
    assert_eq!(used(&world, &owed.warnings), [150]);
    world.spend(of, None).await.expect("paid");
    let summary = world.summary().await;
    assert_eq!(standing(summary.envelopes[0].balances.as_ref().expect("balances")), [MONEY, 0, 150, -150]);
    let entries = world.entries(&world.envelope).await;
    assert_eq!(entries.iter().map(|e| minor(e.available_after.as_ref())).collect::<Vec<_>>(), [MONEY, 0, -150, -150, -150]);

    // Back above zero there is nothing to warn of; a retry is warned as it was.
    let held = whole.reservation.expect("a reservation").reservation_id;
    world.release(&held, Some(500)).await.expect("given back");
    let last = client.reserve(world.reserve_request(1)).await.expect("held").into_inner();
    assert_eq!((used(&world, &last.warnings), minor(last.envelope_available.as_ref())), (vec![], 349));
    assert_eq!(client.reserve(request).await.expect("the first answer").into_inner(), beyond);
    world.verified().await;
}

#[tokio::test]
async fn the_database_lets_no_envelope_past_its_overrun_limit() {
    let world = overrunning().await;
    world.reserve(MONEY + OVERRUN).await.expect("held");
    let sql = "UPDATE envelope SET reserved = reserved + 1 WHERE envelope_id = $1::uuid";
    let broken = sqlx::query(sql).bind(&world.envelope).execute(&world.budget.database.admin).await.expect_err("refused");
    assert_eq!(koc_chassis::fault::constraint(&broken), Some("envelope_available"));
}

#[tokio::test]
async fn an_overrun_limit_is_zero_or_more_and_not_for_the_reserve() {
    let world = World::new().await;
    let create = |envelopes| world.create_plan(pb::CreatePlanRequest { envelopes, ..world.plan_request() });
    let found = violations(create(vec![new(pb::ResourceClass::Inclusive, MONEY, -1)]).await);
    assert_eq!(found, [("envelopes[0].overrun_limit".to_owned(), "AMOUNT_NEGATIVE".to_owned())]);
    let reserve = vec![new(pb::ResourceClass::Inclusive, 900, 1), new(pb::ResourceClass::StrategicReserve, 100, 1)];
    assert_eq!(violations(create(reserve).await), [("envelopes[1].overrun_limit".to_owned(), "RESERVE_OVERRUN".to_owned())]);
    let plan = create(vec![new_envelope(pb::ResourceClass::Inclusive, "none", MONEY)]).await.expect("a plan");
    assert_eq!(minor(plan.envelopes[0].overrun_limit.as_ref()), 0);
}
