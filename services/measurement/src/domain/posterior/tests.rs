use proptest::prelude::*;

use super::*;

fn result(value_minor: i64, cost_minor: i64, periods_ago: u32) -> OutputResult {
    OutputResult { value_minor, cost_minor, periods_ago }
}

fn cohort() -> Vec<OutputResult> {
    (0..40).map(|i| result(40_000 + 3_000 * i, 100_000, 0)).collect()
}

fn inputs(outputs: Vec<OutputResult>) -> PosteriorInputs {
    PosteriorInputs { outputs, cohort: cohort(), target_roi: 0.0, floor_roi: -0.3 }
}

fn run(inputs: &PosteriorInputs) -> Posterior {
    posterior(inputs, &PosteriorPolicy::default()).expect("valid inputs")
}

#[test]
fn the_exponentials_have_the_moments_and_the_tail_of_exponentials() {
    let mut source = Source(ChaCha8Rng::from_seed([7; 32]));
    let draws: Vec<f64> = (0..200_000).map(|_| source.exponential()).collect();
    let n = draws.len() as f64;
    let mean = draws.iter().sum::<f64>() / n;
    let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    assert!((mean - 1.0).abs() < 0.01, "{mean}");
    assert!((variance - 1.0).abs() < 0.03, "{variance}");
    for threshold in [0.1_f64, 1.0, 3.0] {
        let tail = draws.iter().filter(|&&x| x > threshold).count() as f64 / n;
        assert!((tail - (-threshold).exp()).abs() < 0.005, "{threshold}: {tail}");
    }
}

#[test]
fn a_known_case_gives_the_same_bits_on_every_machine() {
    let known = run(&inputs(vec![result(150_000, 100_000, 0), result(90_000, 80_000, 1), result(0, 50_000, 2)]));
    let bits: Vec<u64> = [known.mean, known.q05, known.q95, known.p_target].iter().map(|x| x.to_bits()).collect();
    // From an implementation of the same rules in another language, ChaCha8 included.
    assert_eq!(known.seed, "b4305f961093a03789f03f84f819c1c9d88539a6d21c7607ba6dbd606a03ec2f");
    assert_eq!(bits, [0x3f9c_b409_f6c8_d850, 0xbfd0_c92f_b704_d989, 0x3fd3_09f4_e4eb_ad51, 0x3fe2_b439_5810_624e]);
}

#[test]
fn the_order_in_which_outputs_are_listed_does_not_matter() {
    let listed = inputs(vec![result(150_000, 100_000, 0), result(90_000, 80_000, 1), result(0, 50_000, 0)]);
    let mut reversed = listed.clone();
    reversed.outputs.reverse();
    reversed.cohort.reverse();
    assert_eq!(run(&listed), run(&reversed));
}

#[test]
fn few_lucky_outputs_convince_less_than_many() {
    let few = run(&inputs(vec![result(150_000, 100_000, 0); 2]));
    let many = run(&inputs(vec![result(150_000, 100_000, 0); 30]));
    assert!(few.p_target < many.p_target && few.prior_share > many.prior_share);
    assert!(many.p_target > 0.95 && few.q95 - few.q05 > many.q95 - many.q05);
}

#[test]
fn another_policy_version_draws_anew() {
    let inputs = inputs(vec![result(120_000, 100_000, 0); 4]);
    let other = PosteriorPolicy { version: 2, ..PosteriorPolicy::default() };
    let second = posterior(&inputs, &other).expect("valid inputs");
    assert_ne!(run(&inputs).seed, second.seed);
    assert!((run(&inputs).mean - second.mean).abs() < 0.05);
}

#[test]
fn without_spend_or_cohort_there_is_no_posterior() {
    let policy = PosteriorPolicy::default();
    assert_eq!(posterior(&inputs(vec![]), &policy), Err(PosteriorError::NoSpend));
    assert_eq!(posterior(&inputs(vec![result(5, 0, 0)]), &policy), Err(PosteriorError::NoSpend));
    let alone = PosteriorInputs { cohort: vec![result(5, 0, 0)], ..inputs(vec![result(5, 5, 0)]) };
    assert_eq!(posterior(&alone, &policy), Err(PosteriorError::EmptyCohort));
}

#[test]
fn bad_inputs_are_refused() {
    let policy = PosteriorPolicy::default();
    let negative = inputs(vec![result(5, -5, 0)]);
    assert!(matches!(
        posterior(&negative, &policy),
        Err(PosteriorError::Input(InputError::NegativeAmount { field: "cost_minor", value_minor: -5 }))
    ));
    let nan = PosteriorInputs { target_roi: f64::NAN, ..inputs(vec![result(5, 5, 0)]) };
    assert!(matches!(posterior(&nan, &policy), Err(PosteriorError::Input(InputError::NotFinite { .. }))));
    let crossed = PosteriorInputs { floor_roi: 0.5, ..inputs(vec![result(5, 5, 0)]) };
    assert!(matches!(posterior(&crossed, &policy), Err(PosteriorError::Input(InputError::OutOfRange { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn winsorising_keeps_the_mean(ratios in prop::collection::vec(-2.0_f64..1e4, 1..200), quantile in 0.5_f64..=1.0) {
        let before = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let pool = WinsorisedCohort::new(ratios, quantile).expect("there are ratios");
        let after = pool.ratios.iter().sum::<f64>() / pool.ratios.len() as f64;
        prop_assert!((before - after).abs() <= 1e-9 * before.abs().max(1.0));
    }

    #[test]
    fn a_posterior_is_ordered_bounded_and_repeatable(
        outputs in prop::collection::vec((-1_000_000_i64..5_000_000, 1_i64..1_000_000, 0_u32..4), 1..12),
        pool in prop::collection::vec((0_i64..5_000_000, 1_i64..1_000_000), 1..40)
    ) {
        let inputs = PosteriorInputs {
            outputs: outputs.iter().map(|&(v, c, age)| result(v, c, age)).collect(),
            cohort: pool.iter().map(|&(v, c)| result(v, c, 0)).collect(),
            target_roi: 0.2,
            floor_roi: -0.3,
        };
        let policy = PosteriorPolicy { draws: 200, ..PosteriorPolicy::default() };
        let first = posterior(&inputs, &policy).expect("valid inputs");
        for p in [first.p_target, first.p_floor, first.p_stretch, first.prior_share] {
            prop_assert!((0.0..=1.0).contains(&p));
        }
        prop_assert!(first.p_stretch <= first.p_target && first.p_target <= first.p_floor);
        prop_assert!(first.q05 <= first.q50 && first.q50 <= first.q95 && first.mean.is_finite());
        let second = posterior(&inputs, &policy).expect("valid inputs");
        let bytes = |p: &Posterior| serde_json::to_vec(p).expect("it serializes");
        prop_assert_eq!(bytes(&first), bytes(&second));
    }
}
