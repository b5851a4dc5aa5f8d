//! Any sequence of movements of points, some sent twice at once and some again later: nothing is lost, doubled or below zero.

use crate::world::{DAY, World, ahead, in_city};
use koc_proto::koc::registry::v1 as pb;
use koc_registry::flow::{expire_points, rank_members};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use tonic::Code;

#[derive(Debug, Clone)]
enum Step {
    Earn { member: usize, amount: i64, days: Option<u32> },
    Redeem { member: usize, amount: i64 },
    Reverse { of: Index, amount: Option<i64> },
    Retry { of: Index },
    Forget,
    Sweep,
    Wait { days: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let member = || 0..2usize;
    prop_oneof![
        6 => (member(), 1..100i64, prop::option::of(1..60u32)).prop_map(|(member, amount, days)| Step::Earn { member, amount, days }),
        5 => (member(), 1..120i64).prop_map(|(member, amount)| Step::Redeem { member, amount }),
        4 => (any::<Index>(), prop::option::of(1..120i64)).prop_map(|(of, amount)| Step::Reverse { of, amount }),
        3 => any::<Index>().prop_map(|of| Step::Retry { of }),
        1 => Just(Step::Forget),
        1 => Just(Step::Sweep),
        2 => (1..20u32).prop_map(|days| Step::Wait { days }),
    ]
}

#[derive(Debug, Clone)]
enum Call {
    Earn(pb::EarnPointsRequest),
    Redeem(pb::RedeemPointsRequest),
    Reverse(pb::ReversePointsRequest),
}

/// The entry, or the reason why there is none.
type Answer = Result<pb::PointsEntry, String>;

impl Call {
    async fn send(&self, world: &World) -> Answer {
        let answer = match self.clone() {
            Self::Earn(request) => world.earn_with(request).await,
            Self::Redeem(request) => world.redeem_with(request).await,
            Self::Reverse(request) => world.reverse_with(request).await,
        };
        answer.map_err(|status| {
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
            koc_chassis::fault::reason_of(&status)
        })
    }
}

/// What one entry did to the balance of the entry before it, and that its figures fit what was asked.
fn check(call: &Call, answer: &Answer, balance_before: i64) {
    match (call, answer) {
        (Call::Earn(request), answer) => {
            let entry = answer.as_ref().expect("points can always be given");
            assert_eq!((entry.change, entry.kind()), (request.amount, pb::PointsEntryKind::Earn));
        }
        (Call::Redeem(request), Ok(entry)) => assert_eq!((entry.change, entry.shortfall), (-request.amount, 0)),
        (Call::Redeem(request), Err(reason)) => {
            assert_eq!(reason, "INSUFFICIENT_POINTS");
            assert!(request.amount > balance_before, "{} of {balance_before}", request.amount);
        }
        (Call::Reverse(_), Ok(entry)) => assert!(entry.shortfall >= 0 && entry.balance_after >= 0),
        (Call::Reverse(_), Err(reason)) => {
            assert!(["REVERSAL_EXCEEDS_ENTRY", "ENTRY_REVERSED", "ENTRY_NOT_REVERSIBLE"].contains(&reason.as_str()), "{reason}");
        }
    }
}

async fn run(world: &World, steps: &[(Step, bool)]) {
    let members = [world.member(in_city("广州")).await.member_id, world.member(in_city("深圳")).await.member_id];
    let db = world.replica();
    let mut sent: Vec<(Call, Answer)> = Vec::new();
    // Cases share a service, and so its clock.
    let gone = world.count("SELECT (extract(epoch FROM shift) / 86400)::bigint FROM test_clock").await;
    let mut days_gone = u32::try_from(gone).expect("forward");
    for (step, twice) in steps {
        let call = match step {
            Step::Wait { days } => {
                world.registry.advance(DAY * *days).await;
                days_gone += days;
                continue;
            }
            Step::Forget => {
                // A refusal is forgotten with its request, and another answer may come; what moved has a key of its own.
                sent.retain(|(_, answer)| answer.is_ok());
                sqlx::query("DELETE FROM request_record").execute(&world.registry.database.admin).await.expect("forgotten");
                continue;
            }
            Step::Sweep => {
                expire_points::step(&db).await.expect("swept");
                rank_members::step(&db).await.expect("counted");
                continue;
            }
            Step::Retry { of } => {
                if !sent.is_empty() {
                    let (call, first) = &sent[of.index(sent.len())];
                    assert_eq!(&call.send(world).await, first, "a retry gets the first answer");
                }
                continue;
            }
            Step::Earn { member, amount, days } => {
                // The half day keeps clear of the instants at which the steps happen.
                let expire_time = days.map(|days| ahead(DAY * (days_gone + days) + DAY / 2));
                Call::Earn(pb::EarnPointsRequest { expire_time, ..world.earn_request(&members[*member], *amount) })
            }
            Step::Redeem { member, amount } => Call::Redeem(world.redeem_request(&members[*member], *amount)),
            Step::Reverse { of, amount } => {
                let entries: Vec<&pb::PointsEntry> = sent.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
                if entries.is_empty() {
                    continue;
                }
                Call::Reverse(world.reverse_request(&entries[of.index(entries.len())].entry_id, *amount))
            }
        };
        let balance = match &call {
            Call::Redeem(request) => world.standing(&request.member_id).await.balance,
            _ => 0,
        };
        let answer = if *twice {
            let (first, second) = tokio::join!(call.send(world), call.send(world));
            assert_eq!(first, second, "one request, one answer");
            first
        } else {
            call.send(world).await
        };
        check(&call, &answer, balance);
        sent.push((call, answer));
    }
    world.assert_points_add_up().await;
    // All that was answered stands, and no more than that but what expired.
    for member in &members {
        let entries = world.entries(member).await;
        let moved = entries.iter().filter(|entry| entry.kind() != pb::PointsEntryKind::Expire).count();
        let mut answered: Vec<&str> = sent
            .iter()
            .filter_map(|(_, a)| a.as_ref().ok())
            .filter(|e| &e.member_id == member)
            .map(|e| e.entry_id.as_str())
            .collect();
        answered.sort_unstable();
        answered.dedup();
        assert_eq!(moved, answered.len());
    }
}

#[test]
fn any_sequence_of_movements_keeps_balances_entries_lots_and_boards_together() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = runtime.block_on(World::new());
    let mut runner = TestRunner::new(Config { cases: 12, max_shrink_iters: 40, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec((step(), prop::bool::weighted(0.25)), 1..40);
    runner
        .run(&steps, |steps| {
            runtime.block_on(run(&world, &steps));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
