//! What measurement forgets of an erased member.

use crate::{
    decision::{Cast, run},
    world::{World, id, uuid},
};
use koc_proto::koc::measurement::v1::{self as pb, DecisionAction as Action};
use koc_tests::erasure::{erase, followed};

#[tokio::test]
async fn why_decisions_about_an_erased_member_were_approved_is_forgotten_and_their_figures_are_not() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    world.policy(|policy| policy.automatic_actions = vec![Action::Increase.into(), Action::Reduce.into()]).await;
    let made = run(&world, 0).await;
    for member in [&cast.weak, &cast.even] {
        let request = pb::ApproveDecisionRequest {
            programme_id: world.programme.clone(),
            request_id: id(),
            decision_id: made[member].decision_id.clone(),
            reason: format!("talked over with {member}"),
        };
        world.decisions("controller").approve_decision(request).await.expect("approved");
    }

    let erasure = erase(world.registry.channel(), &world.programme, &cast.weak).await.expect("erased");
    let counts = followed(world.registry.channel(), &world.programme, &erasure.erasure_id, "measurement").await;

    assert_eq!((counts["decision_progress"], counts["trail"] > 0), (1, true));
    let reasons = async |member: &str| -> (Option<String>, Option<String>) {
        let sql = "SELECT p.approve_reason, (SELECT e.reason FROM audit_entry AS e WHERE e.subject_id = p.decision_id)
                   FROM decision_progress AS p WHERE p.decision_id = $1";
        let decision = uuid(&made[member].decision_id);
        sqlx::query_as(sql).bind(decision).fetch_one(&world.measurement.database.admin).await.expect("kept")
    };
    let talked = Some(format!("talked over with {}", cast.even));
    assert_eq!((reasons(&cast.weak).await, reasons(&cast.even).await), ((None, None), (talked.clone(), talked)));
    let request =
        pb::ReplayDecisionRequest { programme_id: world.programme.clone(), decision_id: made[&cast.weak].decision_id.clone() };
    let replayed = world.decisions("auditor").replay_decision(request).await.expect("replayed").into_inner();
    assert!(replayed.identical, "a decision is still what its inputs make of it");
}
