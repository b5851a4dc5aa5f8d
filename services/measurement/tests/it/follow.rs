//! What the registry's facts about members do to outputs, values, decisions and draws: suspended, merged, consent withdrawn.

use crate::{
    apply::approve,
    decision::{Cast, run},
    signal::{all_draws, burst, fresh, of_output, wait_for_draw},
    value::member_value,
    world::{PATIENCE, World, fen, refused, yuan},
};
use koc_proto::koc::{
    measurement::v1::{self as pb, DecisionAction as Action, DecisionState, DrawState},
    registry::v1::ConsentPurpose as Purpose,
};
use koc_tests::{members::Members, wait};
use tonic::Code;

const SUSPENDED: &str = "SELECT count(*) FROM followed_member WHERE member_id = $1::uuid AND suspended";
const MERGED: &str = "SELECT count(*) FROM member_alias WHERE member_id = $1::uuid";
const WITHDRAWN: &str = "SELECT coalesce(sum(cardinality(withdrawn)), 0)::bigint FROM followed_member WHERE member_id = $1::uuid";

impl World {
    fn members(&self) -> Members {
        Members::new(self.registry.channel(), &self.programme)
    }

    /// Waits until a count about a member is what it should become by itself.
    async fn heard(&self, sql: &'static str, member: &str, count: i64) {
        wait::until("the registry to be heard", PATIENCE, async || {
            let admin = &self.measurement.database.admin;
            let found: i64 = sqlx::query_scalar(sql).bind(member).fetch_one(admin).await.expect("a number");
            (found == count).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn outputs_and_value_of_merged_members_are_one_persons_and_parted_again() {
    let world = World::new().await;
    let (winner, loser) = (world.member().await, world.member().await);
    let settled = [&winner, &loser, &loser].map(|member| world.settled(member, 60, yuan(100)));
    let outputs = world.settle(&settled).await;
    let value = async |member: &str| {
        let found = member_value(&world, member, world.ago_days(90), world.start).await.expect("a value");
        (found.member_id, found.output_count, fen(found.cost.as_ref()))
    };
    assert_eq!(value(&loser).await, (loser.clone(), 2, 20_000));
    world.members().merge(&winner, &loser).await;
    world.heard(MERGED, &loser, 1).await;

    for id in [&winner, &loser] {
        assert_eq!(value(id).await, (winner.clone(), 3, 30_000));
        let request =
            pb::ListOutputsRequest { programme_id: world.programme.clone(), member_id: id.clone(), ..Default::default() };
        let listed = world.outputs().list_outputs(request).await.expect("a page").into_inner().outputs;
        let shown: Vec<_> = listed.into_iter().map(|output| (output.output_id, output.member_id)).collect();
        assert_eq!(shown, outputs.iter().map(|output| (output.clone(), winner.clone())).collect::<Vec<_>>());
    }
    world.members().unmerge(&loser).await;
    world.heard(MERGED, &loser, 0).await;
    assert_eq!((value(&loser).await.1, value(&winner).await.1), (2, 1));
}

#[tokio::test]
async fn merged_members_are_decided_on_once_and_from_what_both_did() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    world.members().merge(&cast.star, &cast.even).await;
    world.heard(MERGED, &cast.even, 1).await;
    let made = run(&world, 0).await;
    assert_eq!(made.len(), 3);
    // 8 × 300.00 and 8 × 105.00, on 16 × 100.00.
    let both = &made[&cast.star];
    assert_eq!((both.output_count, fen(both.value.as_ref()), fen(both.cost.as_ref())), (16, 324_000, 160_000));
    // The decision of the one that is merged later is the other's from then on.
    world.members().merge(&cast.star, &cast.thin).await;
    world.heard(MERGED, &cast.thin, 1).await;
    let request =
        pb::ListDecisionsRequest { programme_id: world.programme.clone(), member_id: cast.star.clone(), ..Default::default() };
    let listed = world.decisions("auditor").list_decisions(request).await.expect("a page").into_inner().decisions;
    assert_eq!(listed.iter().map(|one| one.member_id.as_str()).collect::<Vec<_>>(), [cast.star.as_str(); 2]);
    // What it was made from is as it was: it is the same again.
    let thin = listed.iter().find(|one| one.output_count == 2).expect("of the one that did little");
    let request = pb::ReplayDecisionRequest { programme_id: world.programme.clone(), decision_id: thin.decision_id.clone() };
    assert!(world.decisions("auditor").replay_decision(request).await.expect("replayed").into_inner().identical);
}

#[tokio::test]
async fn who_withdrew_consent_to_profiling_is_neither_valued_nor_decided_on_and_other_purposes_stop_neither() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    let members = world.members();
    let compared = async || {
        let value = member_value(&world, &cast.even, world.ago_days(70), world.ago_days(40)).await.expect("a value");
        value.posterior.expect("a belief")
    };
    let with_all = compared().await;
    for (member, purpose) in [
        (&cast.star, Purpose::Profiling),
        (&cast.weak, Purpose::Participation),
        (&cast.even, Purpose::ContentUse),
        (&cast.thin, Purpose::Contact),
    ] {
        members.consent(member, purpose, false).await;
        world.heard(WITHDRAWN, member, 1).await;
    }
    let of = async |member: &str| member_value(&world, member, world.ago_days(70), world.ago_days(40)).await;
    let figures = refused(of(&cast.star).await, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
    assert_eq!((figures["subject"].as_str(), figures["consent_purpose"].as_str()), (cast.star.as_str(), "PROFILING"));
    let stars = world.all_outputs().await.into_iter().find(|output| output.member_id == cast.star).expect("an output");
    refused(world.output_value(&stars.output_id, None).await, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
    for member in [&cast.weak, &cast.even, &cast.thin] {
        of(member).await.expect("a value");
    }
    assert_ne!(compared().await, with_all, "nor is anybody compared with it");
    let made = run(&world, 0).await;
    assert_eq!(made.keys().collect::<Vec<_>>(), {
        let mut left = vec![&cast.weak, &cast.even, &cast.thin];
        left.sort();
        left
    });
    members.consent(&cast.star, Purpose::Profiling, true).await;
    world.heard(WITHDRAWN, &cast.star, 0).await;
    assert_eq!(of(&cast.star).await.expect("a value").output_count, 8);
    assert_eq!(compared().await, with_all);
}

#[tokio::test]
async fn who_is_suspended_is_not_decided_on_and_no_increase_for_it_is_approved() {
    let world = World::new().await;
    world.policy(|policy| policy.automatic_actions.clear()).await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    let made = run(&world, 0).await;
    let (star, even) = (&made[&cast.star], &made[&cast.even]);
    assert_eq!((star.action(), star.state()), (Action::Increase, DecisionState::Proposed));
    for member in [&cast.star, &cast.even] {
        world.members().suspend(member).await;
        world.heard(SUSPENDED, member, 1).await;
    }
    let figures = refused(approve(&world, "manager", &star.decision_id).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    assert_eq!(figures["subject"], cast.star);
    // What is no increase is approved as ever.
    approve(&world, "manager", &even.decision_id).await.expect("approved");
    cast.work(&world, 1, true).await;
    let second = run(&world, 1).await;
    assert!(!second.contains_key(&cast.star) && !second.contains_key(&cast.even), "{:?}", second.keys());
    assert!(second.contains_key(&cast.weak));
    world.members().reinstate(&cast.star).await;
    world.heard(SUSPENDED, &cast.star, 0).await;
    approve(&world, "manager", &star.decision_id).await.expect("approved");
}

#[tokio::test]
async fn no_money_is_asked_to_spread_content_that_may_not_be_used() {
    let world = World::new().await;
    world.policy(|policy| policy.max_draw_per_output = Some(yuan(80))).await;
    let (withdrew, suspended) = (fresh(&world).await, fresh(&world).await);
    let outputs = world.all_outputs().await;
    let of = |output: &str| outputs.iter().find(|one| one.output_id == output).expect("there").member_id.clone();
    world.members().consent(&of(&withdrew), Purpose::ContentUse, false).await;
    world.heard(WITHDRAWN, &of(&withdrew), 1).await;
    world.members().suspend(&of(&suspended)).await;
    world.heard(SUSPENDED, &of(&suspended), 1).await;
    for (output, why) in [(withdrew, "use of its content"), (suspended, "suspended")] {
        world.record(burst(&world, &output)).await;
        let signal = of_output(&world, &output).await.remove(0);
        let signal = wait_for_draw(&world, &signal.signal_id).await;
        assert_eq!(signal.draw_state(), DrawState::None);
        assert!(signal.draw_reason.contains(why), "{}", signal.draw_reason);
    }
    assert_eq!(all_draws(&world).await, []);
}
