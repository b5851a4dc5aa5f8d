//! How members fall: reviews, dormancy, holds, and what is said of it beforehand.

use crate::world::{DAY, World, ahead, at, fact, id, in_city, pairs, refused, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use pb::TierOutcome::{Assigned, Cleared, Dormant, Fell, HoldEnded, Reviewed, Rose, Stayed};
use tonic::{Code, Status};

/// The end of a period long past.
fn period(n: i64) -> prost_types::Timestamp {
    at(n * 91 * 86_400)
}

impl World {
    async fn measure(&self, member_id: &str, as_of: prost_types::Timestamp, mean: f64) {
        let request = pb::ProposeTierRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            proposal: Some(pb::TierProposal {
                output_count: 6,
                as_of: Some(as_of),
                decision_id: id(),
                level: Some(pb::TierLevel { mean, sd: 0.3 }),
                evidence_weight: Some(9.0),
                ..Default::default()
            }),
        };
        assert!(self.tiers().propose_tier(request).await.expect("recorded").into_inner().recorded);
    }

    async fn judge(&self) -> pb::EvaluateTiersResponse {
        let request = pb::EvaluateTiersRequest { programme_id: self.programme.clone(), request_id: id(), ..Default::default() };
        self.tiers().evaluate_tiers(request).await.expect("evaluated").into_inner()
    }

    /// A member that rose to CORE in period 0.
    async fn core(&self) -> String {
        let member = self.member(in_city("广州")).await.member_id;
        self.measure(&member, period(0), 3.0).await;
        assert_eq!(self.judge().await.promoted.len(), 1);
        member
    }

    async fn tier_moves(&self, member_id: &str) -> Vec<pb::TierMove> {
        let request = pb::ListTierMovesRequest { programme_id: self.programme.clone(), member_id: member_id.to_owned() };
        self.tiers().list_tier_moves(request).await.expect("moves").into_inner().moves
    }

    async fn progress(&self, member_id: &str) -> Result<pb::GetTierProgressResponse, Status> {
        let request = pb::GetTierProgressRequest { programme_id: self.programme.clone(), member_id: member_id.to_owned() };
        Ok(self.tiers().get_tier_progress(request).await?.into_inner())
    }

    async fn forecast(&self, until_time: Option<prost_types::Timestamp>) -> Vec<pb::TierForecast> {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let (programme_id, page_size) = (self.programme.clone(), 2);
            let request = pb::ListTierForecastRequest { programme_id, until_time, page_size, page_token };
            let page = self.tiers().list_tier_forecast(request).await.expect("a page").into_inner();
            found.extend(page.forecasts);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    }

    fn assign(&self, member_id: &str, tier_id: &str, hold_end_time: Option<prost_types::Timestamp>) -> pb::AssignTierRequest {
        pb::AssignTierRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            tier_id: tier_id.to_owned(),
            hold_end_time,
            reason: "a founder of the club".into(),
        }
    }

    fn end_hold(&self, member_id: &str) -> pb::EndTierHoldRequest {
        let (programme_id, member_id) = (self.programme.clone(), member_id.to_owned());
        pb::EndTierHoldRequest { programme_id, request_id: id(), member_id, reason: "as all others".into() }
    }
}

/// How many rose, fell, came under review, were cleared and stayed.
fn numbers(answer: &pb::EvaluateTiersResponse) -> [usize; 5] {
    [&answer.promoted, &answer.demoted, &answer.reviewed, &answer.cleared, &answer.stayed].map(Vec::len)
}

#[tokio::test]
async fn a_member_is_warned_before_it_falls_and_every_step_says_why() {
    let world = World::new().await;
    let member = world.core().await;
    let mut seen = Vec::new();
    for n in 1..=3 {
        world.measure(&member, period(n), -3.0).await;
        seen.push(numbers(&world.judge().await));
        // What was judged gives nothing new.
        assert!(world.judge().await.demoted.is_empty());
    }
    assert_eq!(seen, [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]]);
    assert_eq!(world.get(&member).await.expect("it is there").tier_id, "BASE");

    let moves = world.tier_moves(&member).await;
    assert_eq!(moves.iter().map(pb::TierMove::outcome).collect::<Vec<_>>(), [Fell, Reviewed, Rose]);
    let [fell, reviewed, _] = moves.as_slice() else { panic!("three") };
    assert_eq!((fell.from_tier_id.as_str(), fell.to_tier_id.as_str(), fell.readings.len()), ("CORE", "BASE", 3));
    assert!(fell.readings.iter().all(|reading| reading.demote_probability > 0.99 && reading.promote_probability < 0.01));
    assert!(fell.reason.contains("in 2 periods in a row of 2 needed, after the review of"), "{}", fell.reason);
    assert!(fell.reason.ends_with(&fell.readings[0].decision_id), "{}", fell.reason);
    assert_eq!((reviewed.from_tier_id.as_str(), reviewed.to_tier_id.as_str()), ("CORE", "CORE"));
    assert_eq!((fell.actor.as_str(), fell.policy_version), ("tester", 1));

    let changes = world.changes().await;
    let reviews: Vec<_> = changes.iter().filter_map(fact::<pb::MemberTierReviewed>).collect();
    let [told] = reviews.as_slice() else { panic!("one review: {reviews:?}") };
    assert_eq!((&told.member_id, told.tier_id.as_str(), told.under_review, told.dormant), (&member, "CORE", true, false));
    let tiers: Vec<_> = changes.iter().filter_map(fact::<pb::MemberTierChanged>).map(|told| told.to_tier_id).collect();
    assert_eq!(tiers, ["CORE", "BASE"]);
    // What has brought the fall counts no more.
    assert_eq!(world.progress(&member).await.expect("progress").readings, []);
}

#[tokio::test]
async fn a_good_period_ends_a_review_and_the_count_begins_anew() {
    let world = World::new().await;
    let member = world.core().await;
    let mut seen = Vec::new();
    for (n, mean) in (1..).zip([-3.0, -3.0, 0.0, -3.0, -3.0]) {
        world.measure(&member, period(n), mean).await;
        world.judge().await;
        let progress = world.progress(&member).await.expect("progress");
        seen.push(progress.review.is_some());
    }
    assert_eq!(seen, [true, true, false, true, true]);
    let outcomes: Vec<_> = world.tier_moves(&member).await.iter().map(pb::TierMove::outcome).collect();
    assert_eq!(outcomes, [Reviewed, Cleared, Reviewed, Rose]);
    let told: Vec<_> = world.changes().await.iter().filter_map(fact::<pb::MemberTierReviewed>).collect();
    assert_eq!(told.iter().map(|told| told.under_review).collect::<Vec<_>>(), [true, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluations_at_once_let_each_member_fall_once() {
    let world = World::new().await;
    let mut members = Vec::new();
    for _member in 0..6 {
        members.push(world.core().await);
    }
    for n in 1..=3 {
        for member in &members {
            world.measure(member, period(n), -3.0).await;
        }
        if n < 3 {
            world.judge().await;
        }
    }
    let answers = join_all((0..6).map(|_| world.judge())).await;
    assert_eq!(answers.iter().map(|answer| answer.demoted.len()).sum::<usize>(), 6);
    assert_eq!(world.count("SELECT count(*) FROM member WHERE tier_id = 'BASE' AND version = 3").await, 6);
    assert_eq!(world.count("SELECT count(*) FROM tier_move WHERE outcome = 'FELL'").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_in_a_tier_is_given_away_once() {
    let world = World::new().await;
    let capacities = vec![pb::TierCapacity { tier_id: "CORE".into(), max_members: 2 }];
    world.policy(pb::TierPolicy { capacities, ..Default::default() }).await;
    let mut members = Vec::new();
    for _member in 0..5 {
        members.push(world.member(in_city("广州")).await.member_id);
    }
    for member in &members {
        world.measure(member, period(0), 3.0).await;
    }
    let answers = join_all((0..4).map(|_| world.judge())).await;
    assert_eq!(answers.iter().map(|answer| answer.promoted.len()).sum::<usize>(), 2);
    assert_eq!(world.count("SELECT count(*) FROM member WHERE tier_id = 'CORE'").await, 2);
    let last = world.judge().await;
    assert_eq!(last.stayed.iter().map(|m| m.reason.as_str()).collect::<Vec<_>>(), ["CORE is full"; 3]);
    let progress = world.progress(&last.stayed[0].member_id).await.expect("progress");
    let unmet: Vec<_> = progress.conditions.iter().filter(|c| !c.met).map(|c| c.name.as_str()).collect();
    assert_eq!(unmet, ["room"]);
}

#[tokio::test]
async fn who_has_no_output_for_long_is_reviewed_and_loses_nothing_by_it() {
    let world = World::new().await;
    let member = world.core().await;
    world.registry.advance(DAY * 227).await;
    assert_eq!(numbers(&world.judge().await), [0; 5]);
    world.registry.advance(DAY * 2).await;
    let answer = world.judge().await;
    assert_eq!(numbers(&answer), [0, 0, 1, 0, 0]);
    assert_eq!(answer.reviewed[0].outcome(), Dormant);
    assert_eq!(numbers(&world.judge().await), [0; 5]);
    let review = world.progress(&member).await.expect("progress").review.expect("a review");
    assert!(review.dormant);
    let told: Vec<_> = world.changes().await.iter().filter_map(fact::<pb::MemberTierReviewed>).collect();
    assert_eq!(told.iter().map(|told| (told.under_review, told.dormant)).collect::<Vec<_>>(), [(true, true)]);

    world.registry.advance(DAY * 300).await;
    assert_eq!(numbers(&world.judge().await), [0; 5]);
    world.measure(&member, ahead(DAY * 500), 0.0).await;
    assert_eq!(numbers(&world.judge().await), [0, 0, 0, 1, 0]);
    let member = world.get(&member).await.expect("it is there");
    assert_eq!((member.tier_id.as_str(), world.progress(&member.member_id).await.expect("progress").review), ("CORE", None));
}

#[tokio::test]
async fn progress_says_what_is_missing_and_what_the_next_evaluation_would_do() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let fresh = world.progress(&member).await.expect("progress");
    assert_eq!((fresh.tier_id.as_str(), fresh.next_tier_id.as_str(), fresh.readings.len()), ("BASE", "CORE", 0));
    let unmet: Vec<_> = fresh.conditions.iter().filter(|c| !c.met).map(|c| c.name.as_str()).collect();
    assert_eq!(unmet, ["probability", "outputs", "periods"]);

    world.measure(&member, period(0), 1.0).await;
    let progress = world.progress(&member).await.expect("progress");
    let [probability, outputs, stay, periods] = progress.conditions.as_slice() else { panic!("four: {progress:?}") };
    // SciPy: norm.sf((0.842 - 1) / 0.3).
    assert!((probability.actual() - 0.700_784).abs() < 1e-4 && !probability.met, "{probability:?}");
    assert!((probability.needed() - 0.80).abs() < 1e-12);
    assert_eq!((outputs.actual() as i64, outputs.needed() as i64, outputs.met), (6, 5, true));
    assert_eq!((stay.met, periods.met), (true, false));
    let outlook = progress.outlook.expect("an outlook");
    assert_eq!((outlook.outcome(), outlook.move_time), (Stayed, None));
    assert_eq!(outlook.reason, probability.text);

    world.measure(&member, period(0), 3.0).await;
    let outlook = world.progress(&member).await.expect("progress").outlook.expect("an outlook");
    let made = world.judge().await;
    assert_eq!((outlook.outcome(), &outlook.reason), (Rose, &made.promoted[0].reason));
    refused(world.progress(&id()).await, Code::NotFound, "MEMBER_NOT_FOUND");
}

#[tokio::test]
async fn the_forecast_names_who_is_at_risk_the_most_urgent_first() {
    let world = World::new().await;
    let (low, falling, well) = (world.core().await, world.core().await, world.core().await);
    world.measure(&falling, period(1), -3.0).await;
    world.judge().await;
    world.measure(&falling, period(2), -3.0).await;
    world.judge().await;
    world.measure(&low, period(2), -3.0).await;
    world.measure(&well, period(2), 0.0).await;
    let told = |found: &[pb::TierForecast]| -> Vec<(String, pb::TierRisk)> {
        found.iter().map(|forecast| (forecast.member_id.clone(), forecast.risk())).collect()
    };
    use pb::TierRisk::{Dormant, Fall, Review};
    let found = world.forecast(None).await;
    assert_eq!(told(&found), [(low.clone(), Review), (falling.clone(), Fall)]);
    assert_eq!((found[0].risk_time, found[1].risk_time), (Some(period(2)), Some(period(3))));
    assert_eq!((found[1].tier_id.as_str(), found[1].lower_tier_id.as_str()), ("CORE", "BASE"));
    assert!(found[0].review.is_none() && found[1].review.is_some());
    // In a year the third one has had no output for long.
    let far = world.forecast(Some(ahead(DAY * 365))).await;
    assert_eq!(told(&far), [(low.clone(), Review), (falling, Fall), (well, Dormant)]);
    assert_eq!(told(&world.forecast(Some(period(2))).await), [(low, Review)]);
    // It was right.
    assert_eq!(numbers(&world.judge().await)[2], 1);
    let request =
        pb::ListTierForecastRequest { programme_id: world.programme.clone(), page_token: "x".into(), ..Default::default() };
    assert_eq!(violations(world.tiers().list_tier_forecast(request).await), pairs([("page_token", "PAGE_TOKEN_INVALID")]));
}

#[tokio::test]
async fn who_is_assigned_a_tier_by_hand_is_left_alone_until_the_hold_ends() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let request = world.assign(&member, "APEX", Some(ahead(DAY * 100)));
    let made = world.tiers().assign_tier(request.clone()).await.expect("assigned").into_inner().tier_move.expect("a move");
    assert_eq!((made.outcome(), made.from_tier_id.as_str(), made.to_tier_id.as_str()), (Assigned, "BASE", "APEX"));
    assert_eq!((made.reason.as_str(), made.actor.as_str()), ("a founder of the club", "tester"));
    let again = world.tiers().assign_tier(request).await.expect("a retry").into_inner().tier_move;
    assert_eq!(again.as_ref(), Some(&made));
    assert_eq!(world.get(&member).await.expect("it is there").tier_id, "APEX");
    let told: Vec<_> = world.changes().await.iter().filter_map(fact::<pb::MemberTierChanged>).collect();
    assert_eq!(told.iter().map(|told| told.to_tier_id.as_str()).collect::<Vec<_>>(), ["APEX"]);

    world.measure(&member, ahead(DAY * 10), -3.0).await;
    let answer = world.judge().await;
    assert!(answer.stayed[0].reason.starts_with("held in APEX by hand until"), "{}", answer.stayed[0].reason);
    assert!(world.progress(&member).await.expect("progress").held);
    world.registry.advance(DAY * 101).await;
    assert_eq!(numbers(&world.judge().await), [0, 0, 1, 0, 0]);
    refused(world.tiers().end_tier_hold(world.end_hold(&member)).await, Code::FailedPrecondition, "TIER_NOT_HELD");

    // Without an end it stands until somebody ends it; the review is over.
    world.tiers().assign_tier(world.assign(&member, "APEX", None)).await.expect("held");
    let progress = world.progress(&member).await.expect("progress");
    assert_eq!((progress.held, progress.hold_end_time, progress.review), (true, None, None));
    world.registry.advance(DAY * 1_000).await;
    assert!(world.forecast(None).await.is_empty());
    let ended = world.tiers().end_tier_hold(world.end_hold(&member)).await.expect("ended").into_inner().tier_move;
    assert_eq!(ended.map(|m| (m.outcome(), m.to_tier_id)), Some((HoldEnded, "APEX".to_owned())));
    assert_eq!(numbers(&world.judge().await), [0, 0, 1, 0, 0]);

    let outcomes: Vec<_> = world.tier_moves(&member).await.iter().map(pb::TierMove::outcome).collect();
    assert_eq!(outcomes, [Dormant, HoldEnded, Assigned, Reviewed, Assigned]);
    let nowhere = world.tiers().assign_tier(world.assign(&member, "NOWHERE", None)).await;
    assert_eq!(refused(nowhere, Code::NotFound, "TIER_NOT_FOUND")["resource_id"], "NOWHERE");
    let past = world.tiers().assign_tier(world.assign(&member, "CORE", Some(at(1)))).await;
    assert_eq!(violations(past), pairs([("hold_end_time", "HOLD_TIME_PAST")]));
    refused(world.tiers().assign_tier(world.assign(&id(), "CORE", None)).await, Code::NotFound, "MEMBER_NOT_FOUND");
    refused(world.tiers().end_tier_hold(world.end_hold(&id())).await, Code::NotFound, "MEMBER_NOT_FOUND");
}
