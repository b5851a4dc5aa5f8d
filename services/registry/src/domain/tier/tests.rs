//! What becomes of members, case by case and for whatever is measured.

use super::{
    standing::{Hold, Level},
    verdict::{Risk, risk},
    *,
};
use crate::domain::consent::{Consent, Purpose};
use chrono::{DateTime, Duration, Utc};
use koc_chassis::ids::MemberId;
use proptest::prelude::*;
use uuid::Uuid;

fn at(days: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::days(20_000 + days)
}

fn reading(day: i64, level: Option<(f64, f64)>, weight: f64) -> Reading {
    let level = level.map(|(mean, sd)| Level { mean, sd });
    Reading { as_of: at(day), level, told_probability: 0.0, weight, output_count: 6, decision: Uuid::nil() }
}

/// In a tier since day 0, measured as told, newest first.
fn candidate(tier_id: &str, readings: Vec<Reading>) -> Candidate {
    let standing = Standing::default();
    let member = MemberId(Uuid::nil());
    Candidate { member, tier_id: tier_id.into(), tier_since: at(0), consents: Vec::new(), standing, readings }
}

/// A member of whom a probability was told on day 0.
fn told(tier_id: &str, told_probability: f64, output_count: i32) -> Candidate {
    candidate(tier_id, vec![Reading { told_probability, output_count, ..reading(0, None, 8.0) }])
}

fn verdict(candidate: &Candidate, rules: &Rules, day: i64) -> Verdict {
    judge(candidate, &default_tiers(), rules, &Rooms::default(), at(day))
}

/// Judges, and keeps what comes of it.
fn live(candidate: &mut Candidate, rules: &Rules, day: i64) -> Verdict {
    let verdict = verdict(candidate, rules, day);
    candidate.standing = verdict.standing;
    if verdict.to_tier_id != candidate.tier_id {
        (candidate.tier_id, candidate.tier_since) = (verdict.to_tier_id.clone(), at(day));
    }
    verdict
}

#[test]
fn a_member_who_meets_each_rule_exactly_rises_one_tier() {
    let verdict = verdict(&told("BASE", 0.80, 5), &Rules::default(), 0);
    assert_eq!((verdict.outcome, verdict.to_tier_id.as_str()), (Outcome::Rose, "CORE"));
    let expected =
        "probability 0.800 reaches 0.800; 5 outputs of 5 needed; 0 days in BASE of 0 needed; 1 periods in a row of 1 needed";
    assert!(verdict.reason.starts_with(expected), "{}", verdict.reason);
}

#[test]
fn each_rule_that_holds_a_member_is_named_with_its_figures() {
    let rules = Rules { min_stay_days: 30, ..Rules::default() };
    let held = verdict(&told("BASE", 0.7999, 4), &rules, 29);
    assert_eq!(held.outcome, Outcome::Stayed);
    assert_eq!(held.reason, "probability 0.799 is below 0.800; 4 outputs are fewer than 5; 29 days in BASE are fewer than 30");
    // Little evidence must be high twice.
    let mut member = candidate("BASE", vec![reading(91, Some((3.0, 0.5)), 7.9)]);
    let once = verdict(&member, &Rules::default(), 91);
    assert_eq!(once.reason, "1 periods in a row of 2 needed (evidence weighs 7.9)");
    member.readings.insert(0, reading(182, Some((3.0, 0.5)), 7.9));
    assert_eq!(verdict(&member, &Rules::default(), 182).outcome, Outcome::Rose);
}

#[test]
fn periods_that_do_not_follow_each_other_and_readings_of_one_period_do_not_count_twice() {
    let rules = Rules::default();
    for (earlier, outcome) in [(91, Outcome::Rose), (140, Outcome::Stayed), (45, Outcome::Stayed)] {
        let high = |day| reading(day, Some((3.0, 0.5)), 5.0);
        let member = candidate("BASE", vec![high(182), high(if earlier == 45 { 0 } else { earlier })]);
        assert_eq!(verdict(&member, &rules, 182).outcome, outcome, "{earlier}");
    }
}

#[test]
fn nobody_rises_above_the_highest_tier_or_into_a_full_one() {
    assert_eq!(verdict(&told("APEX", 1.0, 100), &Rules::default(), 0).reason, "APEX is the highest tier");
    let capacities = vec![policy::Capacity { tier_id: "CORE".into(), max_members: 2 }];
    let rules = Rules { capacities, ..Rules::default() };
    let mut rooms = Rooms::new(&rules, &[("CORE".to_owned(), 1)].into());
    let member = told("BASE", 1.0, 9);
    assert_eq!(judge(&member, &default_tiers(), &rules, &rooms, at(0)).outcome, Outcome::Rose);
    rooms.moved("BASE", "CORE");
    let held = judge(&member, &default_tiers(), &rules, &rooms, at(0));
    assert_eq!((held.outcome, held.reason.as_str()), (Outcome::Stayed, "CORE is full"));
    rooms.moved("CORE", "BASE");
    assert_eq!(judge(&member, &default_tiers(), &rules, &rooms, at(0)).outcome, Outcome::Rose);
}

#[test]
fn who_withdrew_consent_to_profiling_or_is_held_by_hand_is_not_judged() {
    let mut member = told("BASE", 1.0, 100);
    member.standing.hold = Some(Hold { end: Some(at(1)) });
    assert_eq!(verdict(&member, &Rules::default(), 0).reason, "held in BASE by hand until 2024-10-05");
    assert_eq!(verdict(&member, &Rules::default(), 1).outcome, Outcome::Rose);
    member.consents = vec![Consent { purpose: Purpose::Profiling, granted: false }];
    assert_eq!(verdict(&member, &Rules::default(), 1).reason, "the consent to profiling is withdrawn");
}

#[test]
fn a_member_falls_in_the_third_low_period_in_a_row_and_one_good_period_begins_the_count_anew() {
    use Outcome::{Cleared, Fell, Reviewed, Stayed};
    let rules = Rules::default();
    let mut member = candidate("CORE", Vec::new());
    let mut seen = Vec::new();
    for (period, mean) in (1_i64..).zip([-2.0, -2.0, 0.0, -2.0, -2.0, -2.0, -2.0]) {
        member.readings.insert(0, reading(period * 91, Some((mean, 0.4)), 5.0));
        seen.push(live(&mut member, &rules, period * 91).outcome);
        // Judged again, nothing new comes of it.
        assert_eq!(live(&mut member, &rules, period * 91).outcome, Stayed, "{period}");
    }
    assert_eq!(seen, [Reviewed, Stayed, Cleared, Reviewed, Stayed, Fell, Stayed]);
    assert_eq!(member.tier_id, "BASE");
}

#[test]
fn a_policy_without_demotion_reviews_nobody_and_a_told_probability_never_does() {
    let low = candidate("CORE", vec![reading(91, Some((-9.0, 0.1)), 9.0)]);
    assert_eq!(verdict(&low, &Rules::rising_only(0.8, 0, 5), 91).outcome, Outcome::Stayed);
    assert_eq!(verdict(&told("CORE", 0.0, 9), &Rules::default(), 0).outcome, Outcome::Stayed);
    assert_eq!(verdict(&low, &Rules { min_stay_days: 100, ..Rules::default() }, 91).outcome, Outcome::Stayed);
}

#[test]
fn who_has_no_output_for_two_periods_and_a_half_is_reviewed_until_there_is_one() {
    let rules = Rules::default();
    let mut member = candidate("CORE", vec![reading(10, Some((0.0, 0.4)), 5.0)]);
    assert_eq!(risk(&member, &default_tiers(), &rules).map(|(risk, _)| risk), Some(Risk::Dormant));
    assert_eq!(live(&mut member, &rules, 236).outcome, Outcome::Stayed);
    assert_eq!(live(&mut member, &rules, 238).outcome, Outcome::Dormant);
    assert_eq!(live(&mut member, &rules, 500).outcome, Outcome::Stayed);
    assert_eq!(risk(&member, &default_tiers(), &rules), None);
    member.readings.insert(0, reading(510, Some((0.0, 0.4)), 5.0));
    assert_eq!(live(&mut member, &rules, 510).outcome, Outcome::Cleared);
    assert_eq!(verdict(&candidate("BASE", Vec::new()), &rules, 900).outcome, Outcome::Stayed);
}

#[test]
fn the_risk_says_what_the_next_period_like_the_last_would_bring() {
    let (rules, tiers) = (Rules::default(), default_tiers());
    let mut member = candidate("CORE", vec![reading(91, Some((-2.0, 0.4)), 5.0)]);
    assert_eq!(risk(&member, &tiers, &rules), Some((Risk::Review, at(91))));
    live(&mut member, &rules, 91);
    assert_eq!(risk(&member, &tiers, &rules), Some((Risk::Low, at(273))));
    member.readings.insert(0, reading(182, Some((-2.0, 0.4)), 5.0));
    live(&mut member, &rules, 182);
    assert_eq!(risk(&member, &tiers, &rules), Some((Risk::Fall, at(273))));
    member.readings.insert(0, reading(273, Some((-2.0, 0.4)), 5.0));
    assert_eq!(risk(&member, &tiers, &rules), Some((Risk::Fall, at(273))));
    assert_eq!(live(&mut member, &rules, 273).outcome, Outcome::Fell);
    member.standing.hold = Some(Hold { end: None });
    assert_eq!(risk(&member, &tiers, &rules), None);
}

#[test]
fn a_proposal_replaces_an_older_one_and_never_reuses_evidence_that_promoted() {
    let proposal = Proposal { reading: reading(0, None, 9.0), reason: String::new() };
    assert!(proposal.replaces(None));
    assert!(proposal.replaces(Some((at(0), Consumed(false)))));
    assert!(!proposal.replaces(Some((at(1), Consumed(false)))));
    assert!(!proposal.replaces(Some((at(0), Consumed(true)))));
    assert!(proposal.replaces(Some((at(-1), Consumed(true)))));
}

#[test]
fn a_level_has_the_probabilities_of_its_normal_distribution() {
    let level = Level { mean: 0.0, sd: 1.0 };
    // Of Python's math.erfc.
    assert!((level.above(0.842) - 0.199_893_976_726).abs() < 1e-9, "{}", level.above(0.842));
    assert!((level.below(-0.385) - 0.350_118_707_765).abs() < 1e-9, "{}", level.below(-0.385));
}

#[test]
fn a_draft_is_changed_by_its_authors_and_brought_into_force_by_somebody_else_once() {
    use policy::{Draft, DraftState, Refusal};
    let draft = Draft::new(Rules::default(), "why".into(), "a", at(0));
    let draft = draft.change(Rules::default(), "why".into(), "b", at(1)).expect("changed");
    for author in ["a", "b"] {
        assert_eq!(draft.clone().activate(2, author, at(2)), Err(Refusal::ApproverIsRequester));
    }
    let active = draft.activate(2, "c", at(2)).expect("activated");
    assert_eq!((active.state, active.revision), (DraftState::Activated(2), 3));
    let closed = Err(Refusal::Closed { draft: active.id });
    assert_eq!(active.clone().activate(3, "d", at(3)), closed);
    assert_eq!(active.clone().change(Rules::default(), String::new(), "a", at(3)), closed);
    assert_eq!(active.discard(at(3)), closed);
}

fn rules() -> impl Strategy<Value = Rules> {
    let cuts = (-2.0_f64..2.0, 0.01_f64..2.0);
    (cuts, 0.55_f64..0.99, 0.55_f64..0.99, 1_i32..4, 1_i32..4, 0_i32..200, 0_i32..4).prop_map(
        |((cut_keep, gap), up, down, promote_periods, demote_periods, min_stay_days, dormant_periods)| Rules {
            cut_keep,
            cut_up: cut_keep + gap,
            min_promote_probability: up,
            min_demote_probability: down,
            promote_periods,
            demote_periods,
            min_stay_days,
            dormant_periods,
            ..Rules::default()
        },
    )
}

proptest! {
    #[test]
    fn no_level_is_high_and_low_at_once(rules in rules(), mean in -6.0_f64..6.0, sd in 0.01_f64..5.0) {
        prop_assert!(rules.check(&default_tiers()).is_ok());
        let reading = reading(0, Some((mean, sd)), 9.0);
        prop_assert!(!(reading.is_high(&rules) && reading.is_low(&rules)));
    }

    #[test]
    fn whatever_is_measured_a_member_moves_one_tier_at_a_time_and_falls_only_after_a_review_and_as_many_low_periods(
        rules in rules(),
        begin in 0_usize..3,
        levels in prop::collection::vec(prop::option::weighted(0.85, (-4.0_f64..4.0, 0.05_f64..2.0, 0.0_f64..12.0)), 1..24),
    ) {
        let tiers = default_tiers();
        let rank = |id: &str| tiers.iter().find(|tier| tier.id == id).expect("a tier").rank;
        let mut member = candidate(&tiers[begin].id, Vec::new());
        // The periods of the low levels since the review that stands.
        let mut lows: Option<i32> = None;
        for (period, level) in (1_i64..).zip(levels) {
            let day = period * 91;
            let measured = level.map(|(mean, sd, weight)| reading(day, Some((mean, sd)), weight));
            if let Some(reading) = &measured {
                member.readings.insert(0, reading.clone());
                member.readings.truncate(standing::MAX_READINGS);
            }
            let before = member.clone();
            let verdict = live(&mut member, &rules, day);
            let moved = rank(&verdict.to_tier_id) - rank(&before.tier_id);
            prop_assert_eq!(moved, match verdict.outcome { Outcome::Rose => 1, Outcome::Fell => -1, _ => 0 });
            let low = measured.as_ref().is_some_and(|reading| reading.is_low(&rules));
            if low {
                lows = lows.map(|lows| lows + 1);
            }
            match verdict.outcome {
                Outcome::Reviewed => {
                    // Perhaps of a period before, in which nobody might be reviewed yet.
                    prop_assert!(before.periods(&rules).first().is_some_and(|newest| newest.is_low(&rules)));
                    lows = Some(0);
                }
                Outcome::Fell => {
                    prop_assert!(before.standing.review.is_some_and(|review| review.as_of < at(day)));
                    prop_assert!(lows.is_some_and(|lows| lows >= rules.demote_periods), "{lows:?}");
                    lows = None;
                }
                Outcome::Cleared | Outcome::Rose => {
                    prop_assert!(!low);
                    lows = None;
                }
                _ => {}
            }
            // A second look moves nobody, unless a review was in the way of a rise.
            let again = live(&mut member, &rules, day).outcome;
            let may_rise = verdict.outcome == Outcome::Cleared && again == Outcome::Rose;
            prop_assert!(again == Outcome::Stayed || may_rise, "{:?} after {:?}", again, verdict.outcome);
            prop_assert!(member.tier_id != "BASE" || member.standing.review.is_none());
        }
    }

    #[test]
    fn a_higher_level_never_does_worse(
        rules in rules(), mean in -4.0_f64..4.0, more in 0.0_f64..4.0, sd in 0.05_f64..2.0, before in -4.0_f64..4.0, reviewed: bool
    ) {
        let rank = |outcome| match outcome { Outcome::Fell => 0, Outcome::Reviewed => 1, Outcome::Rose => 3, _ => 2 };
        let outcome = |mean: f64| {
            let readings = vec![reading(182, Some((mean, sd)), 9.0), reading(91, Some((before, sd)), 9.0)];
            let mut member = candidate("CORE", readings);
            let review = Review { since: at(0), as_of: at(0), dormant: false };
            member.standing.review = reviewed.then_some(review);
            // Past a review that is over.
            if live(&mut member, &rules, 182).outcome == Outcome::Cleared {
                return live(&mut member, &rules, 182).outcome;
            }
            let again = candidate("CORE", member.readings.clone());
            verdict(&Candidate { standing: Standing { review: reviewed.then_some(review), ..again.standing }, ..again }, &rules, 182).outcome
        };
        prop_assert!(rank(outcome(mean + more)) >= rank(outcome(mean)));
    }
}
