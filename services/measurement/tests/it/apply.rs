//! Decisions that stand: approved by another person, and brought to registry and budget once.

use crate::{
    decision::{Cast, run, run_request},
    world::{HOUR, PATIENCE, World, at, fact, fen, id, refused, uuid, yuan},
};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use koc_proto::koc::{
    budget::v1 as budget,
    measurement::v1::{self as pb, DecisionAction as Action, DecisionState as State},
    registry::v1 as registry,
};
use koc_tests::wait;
use tonic::{Code, Status};

pub async fn approve(world: &World, actor: &str, decision_id: &str) -> Result<pb::Decision, Status> {
    let request = pb::ApproveDecisionRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        decision_id: decision_id.to_owned(),
        reason: "talked over with the member".into(),
    };
    Ok(world.decisions(actor).approve_decision(request).await?.into_inner().decision.unwrap_or_default())
}

async fn decided(world: &World) -> Vec<pb::Decision> {
    let request = pb::ListDecisionsRequest { programme_id: world.programme.clone(), ..Default::default() };
    world.decisions("auditor").list_decisions(request).await.expect("a page").into_inner().decisions
}

/// Waits until so many decisions are applied.
async fn wait_for_applied(world: &World, count: usize) {
    wait::until("the decisions to be applied", PATIENCE, async || {
        let applied = decided(world).await.iter().filter(|d| d.state() == State::Applied).count();
        (applied == count).then_some(())
    })
    .await;
}

async fn limits(world: &World, member: &str) -> Vec<budget::MemberLimit> {
    let request = budget::ListMemberLimitsRequest {
        programme_id: world.programme.clone(),
        member_id: member.to_owned(),
        ..Default::default()
    };
    let mut client = budget::member_limit_service_client::MemberLimitServiceClient::new(world.budget.channel());
    client.list_member_limits(request).await.expect("a page").into_inner().member_limits
}

async fn profile(world: &World, member: &str) -> registry::GetValueProfileResponse {
    let request = registry::GetValueProfileRequest { programme_id: world.programme.clone(), member_id: member.to_owned() };
    let mut client = registry::value_profile_service_client::ValueProfileServiceClient::new(world.registry.channel());
    client.get_value_profile(request).await.expect("a profile").into_inner()
}

/// A member's proposal in the registry: from which decision, on how many outputs, until when.
async fn proposal(world: &World, member: &str) -> (String, i32, DateTime<Utc>) {
    sqlx::query_as("SELECT decision_id::text, output_count, as_of FROM tier_proposal WHERE member_id = $1")
        .bind(uuid(member))
        .fetch_one(&world.registry.database.admin)
        .await
        .expect("a proposal")
}

/// How many commands of a kind were carried out.
async fn commands(admin: &sqlx::PgPool, method: &str) -> i64 {
    let sql = "SELECT count(*) FROM request_record WHERE method LIKE '%.' || $1 || 'Request'";
    sqlx::query_scalar(sql).bind(method).fetch_one(admin).await.expect("a count")
}

#[tokio::test]
async fn what_the_policy_lets_through_is_applied_once_though_peers_are_down_and_this_service_restarts() {
    let mut world = World::new().await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    world.registry.stop().await;
    world.budget.stop().await;
    let made = run(&world, 0).await;
    assert!(made.values().all(|decision| decision.state() == State::Applying));
    wait::until("the jobs to have failed", PATIENCE, async || {
        let failed = world.count("SELECT count(*) FROM job WHERE kind = 'apply_decision' AND failures > 0").await;
        (failed == 4).then_some(())
    })
    .await;

    // The registry comes back first; this service goes and comes while the budget is still down.
    world.start_registry().await;
    world.measurement.advance(HOUR).await;
    wait::until("profiles and proposals to arrive", PATIENCE, async || {
        let told = world.count("SELECT count(*) FROM decision_progress WHERE tier_result = 'recorded'").await;
        (told == 4).then_some(())
    })
    .await;
    world.measurement.stop().await;
    world.start_measurement().await;
    assert!(decided(&world).await.iter().all(|decision| decision.state() == State::Applying));
    world.start_budget().await;
    world.measurement.advance(HOUR).await;
    wait_for_applied(&world, 4).await;

    // 8 × 300.00 on 8 × 100.00 is a return of 2; the period ended 40 days ago.
    let star = &made[&cast.star];
    let brought = profile(&world, &cast.star).await;
    assert_eq!(
        (brought.past_return, brought.as_of, brought.value_model_version.as_str()),
        (Some(2.0), at(world.ago_days(40)), "1")
    );
    assert_eq!(brought.scores.len(), 1);
    let content = &brought.scores[0];
    assert_eq!((content.value_type(), content.evidence_output_ids.len()), (registry::ValueType::Content, 8));
    let weak = profile(&world, &cast.weak).await.scores.remove(0);
    assert!(content.score > weak.score, "{} {}", content.score, weak.score);
    let (decision_id, outputs, as_of) = proposal(&world, &cast.star).await;
    assert_eq!((decision_id, outputs, at(as_of)), (star.decision_id.clone(), 8, at(world.ago_days(40))));
    let limit = limits(&world, &cast.star).await;
    assert_eq!(limit.len(), 1);
    assert_eq!((fen(limit[0].limit.as_ref()), limit[0].decision_id.as_str()), (100_000, star.decision_id.as_str()));
    let period = (limit[0].period_start_time, limit[0].period_end_time);
    assert_eq!(period, (star.next_period_start_time, star.next_period_end_time));

    // Each command once, whatever was tried.
    assert_eq!(commands(&world.registry.database.admin, "UpdateValueProfile").await, 4);
    assert_eq!(commands(&world.registry.database.admin, "ProposeTier").await, 4);
    assert_eq!(commands(&world.budget.database.admin, "SetMemberLimit").await, 4);
    let told: Vec<_> = wait::until("the facts to be published", PATIENCE, async || {
        let told: Vec<_> = world.changes().await.iter().filter_map(fact::<pb::DecisionChanged>).collect();
        (told.len() == 8).then_some(told)
    })
    .await;
    let of_star: Vec<_> = told.iter().filter(|t| t.member_id == cast.star).map(|t| (t.action(), t.state())).collect();
    assert_eq!(of_star, [(Action::Increase, State::Applying), (Action::Increase, State::Applied)]);
}

#[tokio::test]
async fn what_waits_is_approved_by_another_person_and_once() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    world.policy(|policy| policy.automatic_actions = vec![Action::Increase.into(), Action::Reduce.into()]).await;
    let made = run(&world, 0).await;
    let states = [&cast.star, &cast.weak, &cast.even, &cast.thin].map(|member| made[member].state());
    assert_eq!(states, [State::Applying, State::Proposed, State::Proposed, State::Proposed]);
    wait_for_applied(&world, 1).await;
    let review = &made[&cast.weak].decision_id;
    assert_eq!(limits(&world, &cast.weak).await, []);

    refused(approve(&world, "analyst", review).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    refused(approve(&world, "controller", &id()).await, Code::NotFound, "DECISION_NOT_FOUND");
    let stranger = pb::ApproveDecisionRequest {
        programme_id: id(),
        request_id: id(),
        decision_id: review.clone(),
        reason: "from elsewhere".into(),
    };
    refused(world.decisions("controller").approve_decision(stranger).await, Code::NotFound, "DECISION_NOT_FOUND");
    // Two press the button at the same time.
    let answers = join_all(["controller", "director"].map(|actor| approve(&world, actor, review))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let approved = won.into_iter().next().expect("one of them").expect("approved");
    assert_eq!((approved.state(), lost.len()), (State::Applying, 1));
    assert!(["controller", "director"].contains(&approved.approved_by.as_str()));
    for late in lost {
        let figures = refused(late, Code::FailedPrecondition, "DECISION_STATE");
        assert_eq!(figures["subject"], *review);
    }
    wait_for_applied(&world, 2).await;
    refused(approve(&world, "auditor", review).await, Code::FailedPrecondition, "DECISION_STATE");
    assert_eq!(limits(&world, &cast.weak).await.iter().map(|l| fen(l.limit.as_ref())).collect::<Vec<_>>(), [120_000]);
    assert_eq!(limits(&world, &cast.even).await, []);
    let kept: (String, String) =
        sqlx::query_as("SELECT approve_reason, limit_result FROM decision_progress WHERE decision_id = $1")
            .bind(uuid(review))
            .fetch_one(&world.measurement.database.admin)
            .await
            .expect("kept");
    assert_eq!(kept, ("talked over with the member".to_owned(), "set to CNY 1200.00".to_owned()));

    // A retry gets the answer that was given, though the decision has moved on; another body gets none.
    let request = pb::ApproveDecisionRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        decision_id: made[&cast.even].decision_id.clone(),
        reason: "as before".into(),
    };
    let mut decisions = world.decisions("controller");
    let first = decisions.approve_decision(request.clone()).await.expect("approved").into_inner();
    wait_for_applied(&world, 3).await;
    assert_eq!(decisions.approve_decision(request.clone()).await.expect("replayed").into_inner(), first);
    let other = pb::ApproveDecisionRequest { reason: "for another reason".into(), ..request };
    refused(decisions.approve_decision(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");

    // A reduction waits for a person though the policy lists it.
    cast.work(&world, 1, false).await;
    let request = run_request(&world, 1);
    let mut analyst = world.decisions("analyst");
    let round = analyst.run_decisions(request.clone()).await.expect("decided").into_inner();
    assert_eq!(analyst.run_decisions(request).await.expect("replayed").into_inner(), round);
    let second = run(&world, 1).await;
    let reduction = &second[&cast.weak];
    assert_eq!((reduction.action(), reduction.state()), (Action::Reduce, State::Proposed));
    approve(&world, "controller", &reduction.decision_id).await.expect("approved");
    wait::until("the reduced limit", PATIENCE, async || {
        let set: Vec<_> = limits(&world, &cast.weak).await.iter().map(|l| fen(l.limit.as_ref())).collect();
        (set == [120_000, 90_000]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_refuses_one_part_does_not_hold_up_the_others() {
    let world = World::new().await;
    // A member that the registry does not know, and one whose next period has a limit of another shape already.
    let (unknown, taken) = (id(), world.member().await);
    world.settle(&[world.settled(&unknown, 60, yuan(100)), world.settled(&taken, 60, yuan(200))]).await;
    let request = budget::SetMemberLimitRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: taken.clone(),
        period_start_time: at(world.ago_days(45)),
        period_end_time: at(world.ago_days(30)),
        limit: Some(yuan(7)),
        decision_id: String::new(),
        reason: "by hand".into(),
    };
    let mut client = budget::member_limit_service_client::MemberLimitServiceClient::new(world.budget.channel());
    client.set_member_limit(request).await.expect("set");
    world.decisions("analyst").run_decisions(run_request(&world, 0)).await.expect("decided");
    wait_for_applied(&world, 2).await;

    let results = async |member: &str| -> (String, String, String) {
        sqlx::query_as(
            "SELECT split_part(profile_result, ':', 1), split_part(tier_result, ':', 1), split_part(limit_result, ':', 1)
             FROM decision_progress JOIN decision USING (decision_id) WHERE member_id = $1",
        )
        .bind(uuid(member))
        .fetch_one(&world.measurement.database.admin)
        .await
        .expect("kept")
    };
    // No output was read, so there is no score to bring.
    let unscored = "not sent";
    let (profile, tier, limit) = results(&unknown).await;
    let said = (profile.as_str(), tier.as_str(), limit.as_str());
    assert_eq!(said, (unscored, "refused with MEMBER_NOT_FOUND", "set to CNY 110.00"));
    let (profile, tier, limit) = results(&taken).await;
    assert_eq!((profile.as_str(), tier.as_str(), limit.as_str()), (unscored, "recorded", "refused with PERIOD_OVERLAPS"));
    assert_eq!(limits(&world, &taken).await.iter().map(|l| fen(l.limit.as_ref())).collect::<Vec<_>>(), [700]);
}
