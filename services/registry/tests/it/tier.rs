//! Tiers: policies, proposals, evaluations and moves.

use crate::world::{DAY, World, at, consents, fact, id, in_city, pairs, refused, row, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use tonic::{Code, Status};

impl World {
    fn proposal_request(&self, member_id: &str, probability: f64, outputs: i32, second: i64) -> pb::ProposeTierRequest {
        pb::ProposeTierRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            proposal: Some(pb::TierProposal {
                promote_probability: probability,
                output_count: outputs,
                as_of: Some(at(second)),
                decision_id: id(),
                reason: "六篇内容高于门槛".into(),
                level: None,
                // Enough that one period suffices.
                evidence_weight: Some(8.0),
            }),
        }
    }

    async fn propose(&self, member_id: &str, probability: f64, outputs: i32, second: i64) -> Result<bool, Status> {
        let request = self.proposal_request(member_id, probability, outputs, second);
        Ok(self.tiers().propose_tier(request).await?.into_inner().recorded)
    }

    async fn evaluate(&self) -> pb::EvaluateTiersResponse {
        let request = pb::EvaluateTiersRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            validate_only: false,
            after_member_id: String::new(),
        };
        self.tiers().evaluate_tiers(request).await.expect("evaluated").into_inner()
    }

    async fn list_tiers(&self) -> pb::ListTiersResponse {
        let request = pb::ListTiersRequest { programme_id: self.programme.clone() };
        self.tiers().list_tiers(request).await.expect("tiers").into_inner()
    }

    async fn moves(&self, member_id: &str) -> Result<Vec<pb::TierMove>, Status> {
        let request = pb::ListTierMovesRequest { programme_id: self.programme.clone(), member_id: member_id.to_owned() };
        Ok(self.tiers().list_tier_moves(request).await?.into_inner().moves)
    }
}

fn reasons(moves: &[pb::TierMove]) -> Vec<(&str, &str)> {
    moves.iter().map(|m| (m.member_id.as_str(), m.reason.as_str())).collect()
}

#[tokio::test]
async fn an_evaluation_moves_who_satisfies_the_rules_and_says_why_each_other_stays() {
    let world = World::new().await;
    let mut members = Vec::new();
    for _member in 0..4 {
        members.push(world.member(in_city("广州")).await);
    }
    let ids: Vec<&str> = members.iter().map(|member| member.member_id.as_str()).collect();
    assert!(world.propose(ids[0], 0.80, 5, 1).await.expect("recorded"));
    assert!(world.propose(ids[1], 0.7999, 9, 1).await.expect("recorded"));
    assert!(world.propose(ids[2], 0.95, 4, 1).await.expect("recorded"));

    let trial = pb::EvaluateTiersRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        validate_only: true,
        after_member_id: String::new(),
    };
    let foreseen = world.tiers().evaluate_tiers(trial.clone()).await.expect("a trial").into_inner();
    assert!(foreseen.promoted.iter().chain(&foreseen.stayed).all(|m| m.move_time.is_none()));
    assert_eq!(world.get(ids[0]).await.expect("it is there"), members[0]);
    assert_eq!(world.moves(ids[0]).await.expect("none"), []);
    // A trial keeps nothing, so its request id serves the real call.
    let real = pb::EvaluateTiersRequest { validate_only: false, ..trial };
    let answer = world.tiers().evaluate_tiers(real.clone()).await.expect("evaluated").into_inner();

    let without_times = |answer: &pb::EvaluateTiersResponse| {
        let strip = |m: &pb::TierMove| pb::TierMove { move_time: None, actor: String::new(), ..m.clone() };
        (answer.promoted.iter().map(strip).collect::<Vec<_>>(), answer.stayed.iter().map(strip).collect::<Vec<_>>())
    };
    assert_eq!(without_times(&answer), without_times(&foreseen));
    let [rise] = answer.promoted.as_slice() else { panic!("one rises: {answer:?}") };
    assert_eq!(
        (rise.member_id.as_str(), rise.from_tier_id.as_str(), rise.to_tier_id.as_str(), rise.policy_version),
        (ids[0], "BASE", "CORE", 1)
    );
    assert!(rise.reason.starts_with("probability 0.800 reaches 0.800; 5 outputs of 5 needed; 0 days in BASE"), "{}", rise.reason);
    let mut held = [(ids[1], "probability 0.799 is below 0.800"), (ids[2], "4 outputs are fewer than 5")];
    held.sort_unstable();
    assert_eq!(reasons(&answer.stayed), held);
    assert!(answer.stayed.iter().all(|m| m.from_tier_id == "BASE" && m.to_tier_id == "BASE"));

    let member = world.get(ids[0]).await.expect("it is there");
    assert_eq!((member.tier_id.as_str(), member.tier_since), ("CORE", rise.move_time));
    assert_ne!(member.etag, members[0].etag);
    assert_eq!(world.moves(ids[0]).await.expect("one"), std::slice::from_ref(rise));
    let counts: Vec<_> = world.list_tiers().await.tiers.into_iter().map(|tier| tier.member_count).collect();
    assert_eq!(counts, [3, 1, 0]);
    let told: Vec<_> = world.changes().await.iter().filter_map(fact::<pb::MemberTierChanged>).collect();
    let [told] = told.as_slice() else { panic!("one fact: {told:?}") };
    assert_eq!((&told.member_id, &told.from_tier_id, &told.to_tier_id), (&rise.member_id, &rise.from_tier_id, &rise.to_tier_id));
    assert_eq!((told.policy_version, told.move_time), (1, rise.move_time));

    // Again: a retry is answered as before, and a new evaluation finds nobody to move.
    assert_eq!(world.tiers().evaluate_tiers(real).await.expect("a retry").into_inner(), answer);
    let again = world.evaluate().await;
    assert_eq!((again.promoted.as_slice(), reasons(&again.stayed)), (&[][..], held.to_vec()));
    assert_eq!(world.get(ids[0]).await.expect("it is there"), member);
    assert_eq!(world.count("SELECT count(*) FROM tier_move").await, 1);
}

#[tokio::test]
async fn a_member_rises_one_tier_at_a_time_up_to_the_highest_and_stays_long_enough_in_each() {
    let world = World::new().await;
    let rules = pb::TierPolicy {
        min_promote_probability: Some(0.5),
        min_stay_days: Some(30),
        min_outputs: Some(0),
        ..Default::default()
    };
    assert_eq!(world.policy(rules).await, 2);
    let member = world.member(in_city("广州")).await.member_id;
    world.propose(&member, 1.0, 0, 1).await.expect("recorded");
    assert_eq!(reasons(&world.evaluate().await.stayed), [(member.as_str(), "0 days in BASE are fewer than 30")]);
    world.registry.advance(DAY * 30).await;
    // The proposal is still open: it is judged again.
    assert_eq!(world.evaluate().await.promoted[0].policy_version, 2);

    world.propose(&member, 1.0, 0, 2).await.expect("recorded");
    world.registry.advance(DAY * 29).await;
    assert_eq!(reasons(&world.evaluate().await.stayed), [(member.as_str(), "29 days in CORE are fewer than 30")]);
    world.registry.advance(DAY).await;
    assert_eq!(world.evaluate().await.promoted[0].to_tier_id, "APEX");

    world.registry.advance(DAY * 60).await;
    world.propose(&member, 1.0, 100, 3).await.expect("recorded");
    assert_eq!(reasons(&world.evaluate().await.stayed), [(member.as_str(), "APEX is the highest tier")]);
    let moves = world.moves(&member).await.expect("two");
    let moves: Vec<_> = moves.iter().map(|m| (m.from_tier_id.as_str(), m.to_tier_id.as_str())).collect();
    assert_eq!(moves, [("CORE", "APEX"), ("BASE", "CORE")]);
}

#[tokio::test]
async fn evidence_promotes_once_and_an_older_proposal_replaces_nothing() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    assert!(world.propose(&member, 0.1, 9, 5).await.expect("the first"));
    assert!(!world.propose(&member, 0.9, 9, 4).await.expect("older than the open one"));
    assert!(world.propose(&member, 0.9, 9, 5).await.expect("the same period, measured again"));
    assert_eq!(world.evaluate().await.promoted.len(), 1);
    assert!(!world.propose(&member, 0.9, 9, 5).await.expect("it has promoted already"));
    assert!(!world.propose(&member, 0.9, 9, 4).await.expect("older still"));
    assert_eq!(world.evaluate().await, Default::default());
    assert!(world.propose(&member, 0.9, 9, 6).await.expect("new evidence"));
    assert_eq!(world.evaluate().await.promoted[0].to_tier_id, "APEX");
}

#[tokio::test]
async fn who_withdraws_consent_to_profiling_is_neither_proposed_nor_moved() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    world.propose(&member, 1.0, 9, 1).await.expect("recorded");
    let withdrawn = consents(pb::ConsentPurpose::Profiling, false);
    world.update(world.update_request(&member, withdrawn, &["profile.consents"])).await.expect("withdrawn");

    let figures = refused(world.propose(&member, 1.0, 9, 2).await, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
    assert_eq!((&figures["subject"], figures["purpose"].as_str()), (&member, "PROFILING"));
    let answer = world.evaluate().await;
    assert_eq!(
        (answer.promoted.len(), reasons(&answer.stayed)),
        (0, vec![(member.as_str(), "the consent to profiling is withdrawn")])
    );
    let nobody = id();
    refused(world.propose(&nobody, 1.0, 9, 1).await, Code::NotFound, "MEMBER_NOT_FOUND");
    refused(world.moves(&nobody).await, Code::NotFound, "MEMBER_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluations_at_once_move_each_member_once() {
    let world = World::new().await;
    let mut members = Vec::new();
    for _member in 0..10 {
        members.push(world.member(in_city("广州")).await.member_id);
    }
    for member in &members {
        world.propose(member, 1.0, 9, 1).await.expect("recorded");
    }
    // Beside them, writes to the same members.
    let writes = members.iter().map(|member| world.update(world.update_request(member, in_city("深圳"), &["profile.city"])));
    let (answers, written) = tokio::join!(join_all((0..6).map(|_| world.evaluate())), join_all(writes));
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(answers.iter().map(|answer| answer.promoted.len()).sum::<usize>(), 10);
    assert!(answers.iter().all(|answer| answer.stayed.is_empty()));
    assert_eq!(world.count("SELECT count(*) FROM member WHERE tier_id = 'CORE' AND city = '深圳' AND version = 3").await, 10);
    assert_eq!(world.changes().await.iter().filter_map(fact::<pb::MemberTierChanged>).count(), 10);
}

#[tokio::test]
async fn all_that_a_proposal_breaks_is_reported_at_once() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let mut request = world.proposal_request(&member, 1.1, -1, 1);
    if let Some(proposal) = &mut request.proposal {
        (proposal.as_of, proposal.decision_id, proposal.reason) = (None, "7".into(), "因".repeat(2_001));
        (proposal.level, proposal.evidence_weight) = (Some(pb::TierLevel { mean: 101.0, sd: 0.0 }), Some(-1.0));
    }
    assert_eq!(
        violations(world.tiers().propose_tier(request).await),
        pairs([
            ("proposal.promote_probability", "double.lte"),
            ("proposal.output_count", "int.gte"),
            ("proposal.as_of", "required"),
            ("proposal.decision_id", "string.uuid"),
            ("proposal.reason", "string.max_len"),
            ("proposal.level.mean", "double.lte"),
            ("proposal.level.sd", "double.gt"),
            ("proposal.evidence_weight", "double.gte"),
        ])
    );
    assert_eq!(world.count("SELECT count(*) FROM tier_reading").await, 0);
}

#[tokio::test]
async fn many_open_proposals_are_judged_in_parts_and_none_is_left_out() {
    let world = World::new().await;
    for batch in 0..3 {
        world.upsert((0..401).map(|i| row(&format!("{batch}-{i}"), 1, in_city("广州"))).collect()).await;
    }
    // Every other one may rise.
    let proposals = "INSERT INTO tier_proposal
                     SELECT programme_id, member_id, row_number() OVER (ORDER BY member_id) % 2, 9, now(), member_id, '', now()
                     FROM member";
    sqlx::query(proposals).execute(&world.registry.database.admin).await.expect("proposals");
    let mut request = pb::EvaluateTiersRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        validate_only: false,
        after_member_id: String::new(),
    };

    let first = world.tiers().evaluate_tiers(request.clone()).await.expect("the first part").into_inner();
    (request.request_id, request.after_member_id) = (id(), first.next_after_member_id.clone());
    let second = world.tiers().evaluate_tiers(request.clone()).await.expect("the second part").into_inner();

    let numbers = |answer: &pb::EvaluateTiersResponse| (answer.promoted.len(), answer.stayed.len());
    assert_eq!((numbers(&first), numbers(&second)), ((500, 500), (102, 101)));
    assert_eq!(first.next_after_member_id, first.stayed[499].member_id);
    assert_eq!(second.next_after_member_id, "");
    let mut judged: Vec<_> = [&first.promoted, &first.stayed, &second.promoted, &second.stayed].into_iter().flatten().collect();
    judged.sort_unstable_by_key(|m| &m.member_id);
    judged.dedup_by_key(|m| &m.member_id);
    assert_eq!((judged.len(), world.count("SELECT count(*) FROM member WHERE tier_id = 'CORE'").await), (1_203, 602));
    // Who stayed is judged again the next time, and only they.
    assert_eq!(numbers(&world.evaluate().await), (0, 601));
    request.after_member_id = "x".into();
    assert_eq!(violations(world.tiers().evaluate_tiers(request).await), pairs([("after_member_id", "string.uuid")]));
}
