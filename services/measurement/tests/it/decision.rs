//! Rounds of decisions: which rule applies to whom, with what figures, and the same again from what was stored.

use crate::world::{World, at, fen, first_policy, id, reading, refused, violations, yuan};
use chrono::TimeDelta;
use futures::future::join_all;
use koc_proto::{
    google::r#type::Money,
    koc::measurement::v1::{self as pb, DecisionAction as Action, DecisionState as State, Metric},
};
use std::collections::BTreeMap;
use tonic::{Code, Status};

/// First instants of two periods and of what follows them, in days before the test.
const STARTS: [i64; 3] = [70, 40, 10];
/// When the work of each was published.
const PUBLISHED: [i64; 2] = [60, 30];

/// Members whose work sells well, hardly at all, as much as it costs, and those who did little.
pub struct Cast {
    pub star: String,
    pub weak: String,
    pub even: String,
    pub thin: String,
}

impl Cast {
    pub async fn new(world: &World) -> Self {
        let (star, weak, even, thin) = tokio::join!(world.member(), world.member(), world.member(), world.member());
        Self { star, weak, even, thin }
    }

    /// What they published in a period: articles of 100.00 each, with the margin that each brought, and some views.
    pub async fn work(&self, world: &World, period: usize, with_even: bool) {
        let articles = if with_even { 8 } else { 0 };
        let work = [(&self.star, 8, 30_000), (&self.weak, 12, 500), (&self.even, articles, 10_500), (&self.thin, 2, 10_000)];
        let each: Vec<(&String, i64)> = work.iter().flat_map(|(who, count, margin)| vec![(*who, *margin); *count]).collect();
        let settled: Vec<_> = each.iter().map(|(who, _)| world.settled(who, PUBLISHED[period], yuan(100))).collect();
        let outputs = world.settle(&settled).await;
        let time = world.ago_days(PUBLISHED[period] - 10);
        let readings = outputs.iter().zip(&each).flat_map(|(output, (_, margin))| {
            [reading(output, Metric::OrderMargin, *margin, time), reading(output, Metric::Views, *margin, time)]
        });
        world.record(readings.collect()).await;
    }
}

pub fn run_request(world: &World, period: usize) -> pb::RunDecisionsRequest {
    let next = if period == 0 { world.ago_days(STARTS[2]) } else { world.start + TimeDelta::days(20) };
    pb::RunDecisionsRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        period_start_time: at(world.ago_days(STARTS[period])),
        period_end_time: at(world.ago_days(STARTS[period + 1])),
        next_period_end_time: at(next),
    }
}

/// Decides on a period as `analyst`; the decisions by member.
pub async fn run(world: &World, period: usize) -> BTreeMap<String, pb::Decision> {
    let made = world.decisions("analyst").run_decisions(run_request(world, period)).await.expect("decided").into_inner();
    made.decisions.into_iter().map(|decision| (decision.member_id.clone(), decision)).collect()
}

async fn replay(world: &World, decision_id: &str) -> pb::ReplayDecisionResponse {
    let request = pb::ReplayDecisionRequest { programme_id: world.programme.clone(), decision_id: decision_id.to_owned() };
    world.decisions("auditor").replay_decision(request).await.expect("replayed").into_inner()
}

async fn get(world: &World, decision_id: &str) -> Result<pb::Decision, Status> {
    let request = pb::GetDecisionRequest { programme_id: world.programme.clone(), decision_id: decision_id.to_owned() };
    Ok(world.decisions("auditor").get_decision(request).await?.into_inner().decision.unwrap_or_default())
}

fn shown(decision: &pb::Decision) -> (Action, &str, i32, i64, i64, i64) {
    let limit = decision.next_limit.as_ref().map_or(-1, |limit| fen(Some(limit)));
    let (value, cost) = (fen(decision.value.as_ref()), fen(decision.cost.as_ref()));
    (decision.action(), decision.rule_id.as_str(), decision.output_count, value, cost, limit)
}

fn factor<'a>(decision: &'a pb::Decision, name: &str) -> &'a pb::DecisionFactor {
    decision.factors.iter().find(|factor| factor.name == name).expect("a factor of this name")
}

#[tokio::test]
async fn two_rounds_increase_keep_review_and_then_reduce_and_say_why() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    let first = run(&world, 0).await;
    assert_eq!(first.len(), 4);
    let [star, weak, even, thin] = [&cast.star, &cast.weak, &cast.even, &cast.thin].map(|member| &first[member]);
    // 8 × 300.00 on 8 × 100.00, and a quarter more for the next period.
    assert_eq!(shown(star), (Action::Increase, "R4", 8, 240_000, 80_000, 100_000));
    // 12 × 5.00 on 12 × 100.00: looked into before anything is taken away.
    assert_eq!(shown(weak), (Action::Review, "R3", 12, 6_000, 120_000, 120_000));
    // 8 × 105.00 on 8 × 100.00: the upper bound of what may be kept.
    assert_eq!(shown(even), (Action::Maintain, "R5", 8, 84_000, 80_000, 88_000));
    assert_eq!(shown(thin), (Action::Maintain, "R1", 2, 20_000, 20_000, 22_000));
    for decision in first.values() {
        assert_eq!((decision.policy_version, decision.value_model_version), (1, 1));
        assert_eq!((decision.decided_by.as_str(), decision.approved_by.as_str()), ("analyst", "policy"));
        assert_eq!(decision.next_period_start_time, decision.period_end_time);
        assert_eq!(decision.next_period_end_time, at(world.ago_days(STARTS[2])));
        assert_eq!((decision.input_hash.len(), decision.top_outputs.len().min(2)), (64, 2));
    }

    // What was weighed, against what, and what would have changed it.
    let p_target = |decision: &pb::Decision| decision.posterior.clone().expect("a posterior").probability_above_target;
    let increase = factor(star, "p_above_target_to_increase");
    assert_eq!((increase.value, increase.threshold, increase.met), (Some(p_target(star)), Some(0.8), true));
    assert!(star.counterfactuals[0].starts_with("MAINTAIN: "), "{:?}", star.counterfactuals);
    let outputs = factor(thin, "outputs");
    assert_eq!((outputs.value, outputs.threshold, outputs.met), (Some(2.0), Some(5.0), false));
    assert!(thin.explanation.contains("3 more outputs"), "{}", thin.explanation);
    assert!(thin.counterfactuals[0].contains("3 more outputs"), "{:?}", thin.counterfactuals);
    let floor = factor(weak, "p_above_floor");
    assert_eq!((floor.threshold, floor.met), (Some(0.2), false));
    assert!(weak.counterfactuals.iter().any(|c| c.starts_with("REDUCE: ")), "{:?}", weak.counterfactuals);
    assert!(even.counterfactuals.iter().any(|c| c.starts_with("INCREASE: ")), "{:?}", even.counterfactuals);
    let p = p_target(even);
    assert!(p > 0.35 && p < 0.8, "{p}");
    let prior = star.posterior.clone().expect("a posterior").prior_share;
    assert!((prior - 5.0 / 13.0).abs() < 1e-12, "{prior}");

    // The same again: twice over target by far is a half more, and what stayed weak after a review is reduced, by a person.
    cast.work(&world, 1, false).await;
    let second = run(&world, 1).await;
    assert_eq!(second.len(), 4);
    let [star, weak, even, thin] = [&cast.star, &cast.weak, &cast.even, &cast.thin].map(|member| &second[member]);
    assert_eq!(shown(star), (Action::Increase, "R4", 8, 240_000, 80_000, 120_000));
    assert_eq!(shown(weak), (Action::Reduce, "R2", 12, 6_000, 120_000, 90_000));
    assert_eq!((weak.state(), weak.approved_by.as_str()), (State::Proposed, ""));
    // Nothing new: what was known of the last period still counts, and gives no limit.
    assert_eq!(shown(even), (Action::Maintain, "R5", 0, 0, 0, -1));
    assert_eq!(shown(thin), (Action::Maintain, "R1", 2, 20_000, 20_000, 22_000));
    assert_eq!(factor(thin, "outputs").value, Some(4.0));
    assert_eq!(factor(weak, "outputs").value, Some(24.0));
}

#[tokio::test]
async fn a_decision_stays_what_it_was_and_its_inputs_give_it_again_to_the_byte() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    // Nobody's approval is taken for granted, so that what is shown does not move by itself.
    let policy = world.policy(|policy| policy.automatic_actions = Vec::new()).await;
    assert_eq!(policy.version, 2);
    let made = run(&world, 0).await;
    assert!(made.values().all(|decision| decision.state() == State::Proposed && decision.policy_version == 2));

    // Everything that it was made from changes.
    let star = world.all_outputs().await.into_iter().find(|output| output.member_id == cast.star).expect("an output");
    let more = reading(&star.output_id, Metric::OrderMargin, 999_999, world.ago_days(45));
    world.record(vec![more]).await;
    let request = pb::CreateValueModelRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        value_model: Some(pb::ValueModel { attribution_days: 1, value_per_follow: Some(yuan(9)), ..Default::default() }),
        reason: "a stricter look".into(),
    };
    world.values().create_value_model(request).await.expect("a model");
    world.policy(|policy| policy.target_roi = 5.0).await;
    for decision in made.values() {
        assert_eq!(get(&world, &decision.decision_id).await.expect("there"), *decision);
        let again = replay(&world, &decision.decision_id).await;
        assert!(again.identical);
        assert_eq!(again.decision.as_ref(), Some(decision));
    }

    // A period that was decided is answered as it was, by whoever asks and however often at once.
    let answers = join_all((0..3).map(|_| run(&world, 0))).await;
    assert!(answers.iter().all(|answer| *answer == made));
    assert_eq!(world.count("SELECT count(*) FROM decision").await, 4);
    assert_eq!(world.count("SELECT count(*) FROM decided_period").await, 1);

    // What was tampered with does not pass for the original.
    let forged = &made[&cast.weak].decision_id;
    let sql = "UPDATE decision SET outcome = replace(outcome::text, 'REVIEW', 'INCREASE')::json WHERE decision_id = $1::uuid";
    sqlx::query(sql).bind(forged).execute(&world.measurement.database.admin).await.expect("forged");
    let again = replay(&world, forged).await;
    assert!(!again.identical);
    assert_eq!(again.decision.unwrap_or_default().action(), Action::Review);
}

#[tokio::test]
async fn many_who_decide_at_once_make_one_round() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    cast.work(&world, 0, true).await;
    let rounds = join_all((0..4).map(|_| run(&world, 0))).await;
    let ids = |round: &BTreeMap<String, pb::Decision>| round.values().map(|d| d.decision_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&rounds[0]).len(), 4);
    assert!(rounds.iter().all(|round| ids(round) == ids(&rounds[0])));
    assert_eq!(world.count("SELECT count(*) FROM decision").await, 4);
    assert_eq!(world.count("SELECT count(*) FROM job WHERE kind = 'apply_decision'").await, 4);

    let list = |page_size, page_token: &str, member: &str| {
        let request = pb::ListDecisionsRequest {
            programme_id: world.programme.clone(),
            page_size,
            page_token: page_token.to_owned(),
            member_id: member.to_owned(),
        };
        let mut decisions = world.decisions("auditor");
        async move { decisions.list_decisions(request).await.map(tonic::Response::into_inner) }
    };
    let page = list(3, "", "").await.expect("a page");
    let rest = list(3, &page.next_page_token, "").await.expect("a page");
    assert_eq!((page.decisions.len(), rest.decisions.len(), rest.next_page_token.as_str()), (3, 1, ""));
    let listed: Vec<_> = page.decisions.iter().chain(&rest.decisions).map(|d| d.decision_id.clone()).collect();
    assert_eq!(listed, ids(&rounds[0]));
    let of_star = list(0, "", &cast.star).await.expect("a page").decisions;
    assert_eq!(of_star.iter().map(|d| d.member_id.as_str()).collect::<Vec<_>>(), [cast.star.as_str()]);
    let wrong = list(3, &page.next_page_token, &cast.star).await;
    assert_eq!(violations(wrong), [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
}

#[tokio::test]
async fn periods_and_policies_that_make_no_sense_are_refused_with_every_reason() {
    let world = World::new().await;
    let mut decisions = world.decisions("analyst");
    let (start, end, next) = (world.ago_days(40), world.ago_days(10), world.ago_days(-20));
    let request = |start, end, next| pb::RunDecisionsRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        period_start_time: at(start),
        period_end_time: at(end),
        next_period_end_time: at(next),
    };
    let rule = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let turned = decisions.run_decisions(request(next, end, start)).await;
    let empty = [rule("period_end_time", "PERIOD_EMPTY"), rule("next_period_end_time", "PERIOD_EMPTY")];
    assert_eq!(violations(turned), empty);
    let early = decisions.run_decisions(request(start, world.ago_days(-1), next)).await;
    assert_eq!(violations(early), [rule("period_end_time", "PERIOD_NOT_OVER")]);
    let nobody = decisions.run_decisions(request(start, end, next)).await.expect("decided").into_inner().decisions;
    assert_eq!(nobody, []);
    for (from, to) in
        [(world.ago_days(41), world.ago_days(39)), (world.ago_days(20), world.ago_days(5)), (start, world.ago_days(11))]
    {
        let overlapping = decisions.run_decisions(request(from, to, next)).await;
        assert_eq!(violations(overlapping), [rule("period_start_time", "PERIOD_OVERLAPS")]);
    }
    decisions.run_decisions(request(end, world.ago_days(5), next)).await.expect("periods may touch");
    let unknown = pb::RunDecisionsRequest { programme_id: id(), ..request(start, end, next) };
    refused(decisions.run_decisions(unknown).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
    refused(get(&world, &id()).await, Code::NotFound, "DECISION_NOT_FOUND");

    let mut policy = async |policy: pb::DecisionPolicy| {
        let request = pb::CreateDecisionPolicyRequest {
            programme_id: world.programme.clone(),
            request_id: id(),
            policy: Some(policy),
            reason: "let us see".into(),
        };
        decisions.create_decision_policy(request).await
    };
    let dollars = Money { currency_code: "USD".into(), units: 1, nanos: 0 };
    let inconsistent = pb::DecisionPolicy { floor_roi: 0.5, min_spend: Some(dollars), ..first_policy() };
    let expected = [rule("policy.min_spend.currency_code", "CURRENCY_MISMATCH"), rule("policy.floor_roi", "POLICY_INCONSISTENT")];
    assert_eq!(violations(policy(inconsistent).await), expected);
    let not_a_number = pb::DecisionPolicy { target_roi: f64::NAN, ..first_policy() };
    assert!(violations(policy(not_a_number).await).iter().all(|v| v.0.starts_with("policy")));
    let unruly = pb::DecisionPolicy { min_outputs: 0, increase_probability: 1.1, automatic_actions: vec![0], ..first_policy() };
    let fields: Vec<_> = violations(policy(unruly).await).into_iter().map(|v| v.0).collect();
    assert_eq!(fields, ["policy.min_outputs", "policy.increase_probability", "policy.automatic_actions[0]"]);
    let bold = pb::DecisionPolicy { increase_probability: 0.5, reduce_probability: 0.5, ..first_policy() };
    let made = policy(bold.clone()).await.expect("a policy").into_inner().policy.unwrap_or_default();
    assert_eq!(made, pb::DecisionPolicy { version: 2, ..bold });
}
