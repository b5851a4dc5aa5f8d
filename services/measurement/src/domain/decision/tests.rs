use proptest::prelude::*;

use super::*;

fn posterior(p_target: f64, p_floor: f64) -> Posterior {
    Posterior {
        mean: 0.1,
        q05: -0.2,
        q50: 0.1,
        q95: 0.5,
        p_target,
        p_floor,
        p_stretch: 0.0,
        target_roi: 0.0,
        floor_roi: -0.3,
        outputs: 6,
        spend_minor: 600_000,
        prior_share: 5.0 / 11.0,
        cohort_size: 40,
        winsor_cap: 3.0,
        seed: String::new(),
        policy_version: 1,
    }
}

fn inputs(p_target: f64, p_floor: f64, previous: Option<Action>) -> DecisionInputs {
    let output = |i: i64| MemberOutput {
        output_id: format!("output-{i}"),
        value_minor: 100_000 + 10_000 * i,
        cost_minor: 100_000,
        periods_ago: 0,
        grade: Some(Grade::A),
    };
    DecisionInputs {
        outputs: (0..6).map(output).collect(),
        posterior: Some(posterior(p_target, p_floor)),
        window_half_lives: 3.0,
        opinion: OpinionDirection::Neutral,
        authenticity_ok: true,
        breach_confirmed: false,
        score_change_sigma: Some(0.0),
        previous: previous.map(|action| PreviousDecision { action, review_recorded: true, stretch_met: false }),
    }
}

fn run(inputs: &DecisionInputs) -> Decision {
    decide(inputs, &DecisionPolicy::default()).expect("valid inputs")
}

fn outcome(inputs: &DecisionInputs) -> (Rule, Action) {
    let decision = run(inputs);
    (decision.rule, decision.action)
}

#[test]
fn each_rule_leads_to_its_outcome() {
    assert_eq!(outcome(&inputs(0.85, 0.99, None)), (Rule::R4, Action::Increase));
    assert_eq!(outcome(&inputs(0.60, 0.90, None)), (Rule::R5, Action::Maintain));
    assert_eq!(outcome(&inputs(0.35, 0.60, None)), (Rule::R3, Action::Review));
    assert_eq!(outcome(&inputs(0.05, 0.20, Some(Action::Review))), (Rule::R2, Action::Reduce));
    let breach = DecisionInputs { breach_confirmed: true, ..inputs(0.95, 0.99, None) };
    assert_eq!(outcome(&breach), (Rule::R0, Action::Reduce));
    assert!(run(&breach).needs_approval);
}

#[test]
fn a_return_below_the_floor_is_reviewed_before_it_is_reduced() {
    assert_eq!(outcome(&inputs(0.02, 0.10, None)), (Rule::R3, Action::Review));
    assert_eq!(outcome(&inputs(0.02, 0.10, Some(Action::Maintain))), (Rule::R3, Action::Review));
    let mut unrecorded = inputs(0.02, 0.10, Some(Action::Review));
    unrecorded.previous = Some(PreviousDecision { action: Action::Review, review_recorded: false, stretch_met: false });
    let decision = run(&unrecorded);
    assert_eq!((decision.rule, decision.action), (Rule::R3, Action::Review));
    assert!(decision.text.contains("not recorded yet"), "{}", decision.text);
    let lenient = DecisionPolicy { reduce_needs_review_record: false, ..DecisionPolicy::default() };
    assert_eq!(decide(&unrecorded, &lenient).map(|decision| decision.action), Ok(Action::Reduce));
}

#[test]
fn thin_evidence_changes_nothing_and_says_what_is_missing() {
    let mut thin = inputs(0.95, 0.99, None);
    thin.outputs.truncate(3);
    thin.window_half_lives = 0.5;
    let decision = run(&thin);
    assert_eq!((decision.rule, decision.action), (Rule::R1, Action::Maintain));
    assert!(decision.text.contains("2 more outputs") && decision.text.contains("0.5 more half-lives"));
    assert_eq!(decision.counterfactuals[0].more_outputs, Some(2));
    let fewer = DecisionPolicy { min_outputs: 3, min_half_lives: 0.5, ..DecisionPolicy::default() };
    assert_eq!(decide(&thin, &fewer).map(|decision| decision.action), Ok(Action::Increase));
    let blind = DecisionInputs { posterior: None, ..inputs(0.0, 0.0, None) };
    assert_eq!(outcome(&blind), (Rule::R1, Action::Maintain));
}

#[test]
fn borders_differ_on_the_way_in_and_out() {
    assert_eq!(outcome(&inputs(0.70, 0.99, Some(Action::Increase))).1, Action::Increase);
    assert_eq!(outcome(&inputs(0.64, 0.99, Some(Action::Increase))).1, Action::Maintain);
    assert_eq!(outcome(&inputs(0.70, 0.99, Some(Action::Maintain))).1, Action::Maintain);
    assert_eq!(outcome(&inputs(0.40, 0.80, Some(Action::Review))).1, Action::Review);
    assert_eq!(outcome(&inputs(0.45, 0.80, Some(Action::Review))).1, Action::Maintain);
    assert_eq!(outcome(&inputs(0.40, 0.80, Some(Action::Maintain))).1, Action::Maintain);
}

#[test]
fn opinion_score_and_authenticity_bar_an_increase() {
    let disliked = DecisionInputs { opinion: OpinionDirection::Unfavourable, ..inputs(0.95, 0.99, None) };
    assert_eq!(outcome(&disliked), (Rule::R3, Action::Review));
    let falling = DecisionInputs { score_change_sigma: Some(-2.5), ..inputs(0.95, 0.99, None) };
    assert_eq!(outcome(&falling), (Rule::R3, Action::Review));
    let doubtful = DecisionInputs { authenticity_ok: false, ..inputs(0.95, 0.99, None) };
    assert_eq!(outcome(&doubtful), (Rule::R5, Action::Maintain));
}

#[test]
fn a_second_period_over_the_stretch_target_raises_the_limit_by_half() {
    let mut strong = inputs(0.95, 0.99, Some(Action::Increase));
    strong.posterior = Some(Posterior { p_stretch: 0.85, ..posterior(0.95, 0.99) });
    let first = run(&strong);
    assert!(first.stretch_met && (first.limit_multiplier - 1.25).abs() < 1e-12);
    strong.previous = Some(PreviousDecision { action: Action::Increase, review_recorded: false, stretch_met: first.stretch_met });
    assert!((run(&strong).limit_multiplier - 1.5).abs() < 1e-12);
}

#[test]
fn a_decision_says_what_would_have_changed_it() {
    let decision = run(&inputs(0.74, 0.95, None));
    let increase = &decision.counterfactuals[0];
    assert_eq!(increase.outcome, Action::Increase);
    assert!((increase.distance.expect("a probability decides") - 0.06).abs() < 1e-12);
    // (Φ⁻¹(.80)/Φ⁻¹(.74))² = 1.711, so 11 observations, five of them the cohort's, lack 7.8.
    assert_eq!(increase.more_outputs, Some(8));
    assert!(increase.text.contains("about 8 more outputs"), "{}", increase.text);
    assert_eq!(decision.factors.len(), 11);
    let unmet: Vec<&str> = decision.factors.iter().filter(|f| !f.met).map(|f| f.name.as_str()).collect();
    assert_eq!(unmet, ["p_above_target_to_increase", "p_above_stretch_target"]);
    let hopeless = run(&inputs(0.45, 0.95, None));
    assert_eq!(hopeless.counterfactuals[0].more_outputs, None);
}

#[test]
fn the_three_outputs_that_moved_the_result_most_are_named() {
    let mut mixed = inputs(0.60, 0.90, None);
    mixed.outputs[1].value_minor = 0;
    let ids: Vec<(String, i64)> = run(&mixed).top_outputs.into_iter().map(|top| (top.output_id, top.net_minor)).collect();
    let expected = [("output-1", -100_000), ("output-5", 50_000), ("output-4", 40_000)];
    assert_eq!(ids, expected.map(|(id, net)| (id.to_owned(), net)));
}

#[test]
fn policies_and_inputs_that_make_no_sense_are_refused() {
    let crossed = DecisionPolicy { review_clear_probability: 0.9, ..DecisionPolicy::default() };
    assert!(matches!(
        decide(&inputs(0.5, 0.5, None), &crossed),
        Err(InputError::OutOfRange { field: "review_clear_probability", .. })
    ));
    assert!(matches!(
        decide(&inputs(f64::NAN, 0.5, None), &DecisionPolicy::default()),
        Err(InputError::NotFinite { field: "p_target" })
    ));
    let mut negative = inputs(0.5, 0.5, None);
    negative.outputs[0].cost_minor = -1;
    assert!(matches!(decide(&negative, &DecisionPolicy::default()), Err(InputError::NegativeAmount { field: "cost_minor", .. })));
}

#[test]
fn what_the_policy_did_not_ask_for_is_refused() {
    let mut old = inputs(0.5, 0.5, None);
    old.outputs[0].periods_ago = DecisionPolicy::default().window_periods;
    let refused = decide(&old, &DecisionPolicy::default());
    assert!(matches!(refused, Err(InputError::OutOfRange { field: "periods_ago", .. })));
    let other_target = DecisionPolicy { target_roi: 0.2, ..DecisionPolicy::default() };
    let refused = decide(&inputs(0.5, 0.5, None), &other_target);
    assert!(matches!(refused, Err(InputError::OutOfRange { field: "posterior.target_roi", .. })));
}

fn any_period() -> impl Strategy<Value = (f64, f64, bool, bool, bool, Option<f64>, usize)> {
    (
        0.0_f64..=1.0,
        0.0_f64..=1.0,
        prop::bool::weighted(0.1),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(-4.0_f64..4.0),
        0_usize..=6,
    )
}

proptest! {
    #[test]
    fn no_history_reaches_reduce_except_through_a_review_or_a_breach(
        periods in prop::collection::vec(any_period(), 1..20)
    ) {
        let mut previous = None;
        let mut reviewed_or_breached = false;
        for (a, b, breach_confirmed, review_recorded, authenticity_ok, score_change_sigma, outputs) in periods {
            let mut period = DecisionInputs {
                breach_confirmed,
                authenticity_ok,
                score_change_sigma,
                previous,
                ..inputs(a.min(b), a.max(b), None)
            };
            period.outputs.truncate(outputs);
            let decision = run(&period);
            if decision.action == Action::Reduce {
                prop_assert!(decision.rule == Rule::R0 || reviewed_or_breached);
                prop_assert!(decision.rule == Rule::R0 || matches!(
                    previous.map(|p: PreviousDecision| p.action), Some(Action::Review | Action::Reduce)
                ));
            }
            reviewed_or_breached |= decision.action == Action::Review || decision.rule == Rule::R0;
            let bounds = decision.bounds;
            prop_assert!(bounds.low <= decision.limit_multiplier && decision.limit_multiplier <= bounds.high);
            prop_assert!(!decision.counterfactuals.is_empty() && !decision.text.contains("NaN"));
            let again = serde_json::to_vec(&run(&period)).expect("it serializes");
            prop_assert_eq!(serde_json::to_vec(&decision).expect("it serializes"), again);
            previous = Some(PreviousDecision {
                action: decision.action, review_recorded, stretch_met: decision.stretch_met,
            });
        }
    }
}
