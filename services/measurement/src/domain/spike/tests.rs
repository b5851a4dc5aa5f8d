use proptest::prelude::*;

use super::*;

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).expect("a valid time")
}

/// Feeds hourly increments from the start on and returns each tick.
fn run(state: &mut SpikeState, increments: impl IntoIterator<Item = u64>) -> Vec<Tick> {
    let config = SpikeConfig::default();
    increments
        .into_iter()
        .map(|increment| {
            let reading = Reading { at: state.last_at + TimeDelta::hours(1), cumulative: state.last_cumulative + increment };
            state.tick(reading, None, &config).expect("a valid reading")
        })
        .collect()
}

fn steady(hours: u64) -> impl Iterator<Item = u64> {
    (0..hours).map(|hour| 20 + (hour * 7) % 11)
}

#[test]
fn a_burst_after_a_steady_past_asks_for_money_once() {
    let mut state = SpikeState::new(start());
    let quiet = run(&mut state, steady(100));
    assert!(quiet.iter().skip(24).all(|tick| tick.trigger == Trigger::None));
    let burst = run(&mut state, [400, 500, 600]);
    assert_eq!(burst[0].trigger, Trigger::Money);
    assert!(burst[0].score >= 4.0 && burst[0].ratio > 2.5);
    assert_eq!((burst[1].trigger, burst[1].suppressed), (Trigger::None, Trigger::Money));
}

#[test]
fn the_alarm_returns_after_the_refractory_day() {
    let mut state = SpikeState::new(start());
    run(&mut state, steady(200));
    assert_eq!(run(&mut state, [900])[0].trigger, Trigger::Money);
    assert!(run(&mut state, steady(23)).iter().all(|tick| tick.trigger == Trigger::None));
    assert_eq!(run(&mut state, [900])[0].trigger, Trigger::Money);
}

#[test]
fn a_note_does_not_silence_the_money_that_follows() {
    let mut state = SpikeState::new(start());
    let config = SpikeConfig::default();
    assert_eq!(state.raise(Trigger::Notify, start(), &config), (Trigger::Notify, Trigger::None));
    assert_eq!(state.raise(Trigger::Notify, start(), &config), (Trigger::None, Trigger::Notify));
    assert_eq!(state.raise(Trigger::Money, start(), &config), (Trigger::Money, Trigger::None));
}

#[test]
fn a_counter_that_steps_back_is_flagged_and_growth_counts_from_there() {
    let mut state = SpikeState::new(start());
    run(&mut state, steady(30));
    let before = state.last_cumulative;
    let reading = |hours, cumulative| Reading { at: start() + TimeDelta::hours(hours), cumulative };
    let back = state.tick(reading(31, before - 300), None, &SpikeConfig::default()).expect("a valid reading");
    assert_eq!(back.status, TickStatus::Adjusted);
    assert!(back.window.count.abs() < f64::EPSILON);
    let next = state.tick(reading(32, before - 275), None, &SpikeConfig::default()).expect("a valid reading");
    assert_eq!(next.status, TickStatus::Scored);
    assert!((next.window.count - 25.0).abs() < 1e-9);
}

#[test]
fn late_and_hasty_readings_leave_the_state_alone() {
    let mut state = SpikeState::new(start());
    run(&mut state, steady(30));
    let before = state.clone();
    for (minutes, status) in [(-90, TickStatus::Late), (0, TickStatus::Late), (10, TickStatus::TooSoon)] {
        let reading = Reading { at: state.last_at + TimeDelta::minutes(minutes), cumulative: 1_000_000 };
        let tick = state.tick(reading, None, &SpikeConfig::default()).expect("a valid reading");
        assert_eq!((tick.status, tick.trigger), (status, Trigger::None));
        assert_eq!(state, before);
    }
}

#[test]
fn a_gap_stretches_the_expectation_instead_of_looking_like_a_burst() {
    let mut state = SpikeState::new(start());
    run(&mut state, steady(100));
    let mean = state.mean_per_bin();
    let reading = Reading { at: state.last_at + TimeDelta::hours(10), cumulative: state.last_cumulative + 250 };
    let tick = state.tick(reading, None, &SpikeConfig::default()).expect("a valid reading");
    assert!((tick.window.span_bins - 10.0).abs() < 1e-9);
    assert!((tick.window.expected - 10.0 * mean).abs() < 1e-6);
    assert_eq!(tick.trigger, Trigger::None);
}

#[test]
fn a_young_output_is_measured_by_others_of_its_age() {
    let mut cohort = AgeCohort::default();
    for i in 0..40_u64 {
        cohort.observe(1.0, 100 + 5 * i).expect("a valid age");
    }
    let config = SpikeConfig::default();
    let at = start() + TimeDelta::hours(1);
    let usual = cohort.at(1.0).expect("a valid age");
    let tick = |cumulative, cohort| {
        let reading = Reading { at, cumulative };
        SpikeState::new(start()).tick(reading, cohort, &config).expect("a valid reading")
    };
    assert_eq!(tick(5_000, Some(usual)).trigger, Trigger::Money);
    assert_eq!(tick(210, Some(usual)).trigger, Trigger::None);
    assert_eq!(tick(5_000, None).trigger, Trigger::None);
    let other_age = cohort.at(100.0).expect("a valid age");
    assert_eq!(tick(5_000, Some(other_age)).trigger, Trigger::None);
}

#[test]
fn the_state_survives_being_stored() {
    let mut state = SpikeState::new(start());
    run(&mut state, steady(30));
    let json = serde_json::to_string(&state).expect("it serializes");
    let mut restored: SpikeState = serde_json::from_str(&json).expect("it reads back");
    assert_eq!(run(&mut restored, [300])[0].trigger, run(&mut state, [300])[0].trigger);
}

#[test]
fn unusable_settings_and_counters_are_refused() {
    let mut state = SpikeState::new(start());
    let reading = Reading { at: start() + TimeDelta::hours(1), cumulative: 1 };
    let no_window = SpikeConfig { window_bins: 0, ..SpikeConfig::default() };
    assert!(matches!(state.tick(reading, None, &no_window), Err(InputError::OutOfRange { field: "window_bins", .. })));
    let huge = Reading { cumulative: u64::MAX, ..reading };
    assert!(matches!(state.tick(huge, None, &SpikeConfig::default()), Err(InputError::Exceeds { .. })));
    assert!(SpikeConfig::polled_every(0).is_err());
    assert_eq!(SpikeConfig::polled_every(300).map(|config| config.window_bins), Ok(12));
    assert_eq!(SpikeConfig::polled_every(86_400).map(|config| config.window_bins), Ok(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sequence_of_readings_leaves_the_detector_finite(
        steps in prop::collection::vec((-7_200_i64..2_000_000, 0_u64..=MAX_CUMULATIVE), 1..60),
        bin_seconds in 1_u32..100_000
    ) {
        let config = SpikeConfig::polled_every(bin_seconds).expect("more than zero seconds");
        let mut state = SpikeState::new(start());
        let mut at = start();
        for (seconds, cumulative) in steps {
            at += TimeDelta::seconds(seconds);
            let tick = state.tick(Reading { at, cumulative }, None, &config).expect("a valid reading");
            prop_assert!(tick.score.is_finite() && (0.0..=MAX_SCORE).contains(&tick.score));
            prop_assert!(tick.ratio.is_finite() && tick.ratio >= 0.0);
            prop_assert!(tick.window.expected.is_finite());
            prop_assert!(state.mean.is_finite() && state.mean >= MIN_MEAN);
            prop_assert!(state.dispersion.is_finite() && state.dispersion >= MIN_DISPERSION);
        }
    }

    #[test]
    fn one_level_alarms_at_most_once_in_a_refractory_period(
        increments in prop::collection::vec(0_u64..5_000, 30..120)
    ) {
        let mut state = SpikeState::new(start());
        let ticks = run(&mut state, increments);
        let money: Vec<usize> = (0..ticks.len()).filter(|&i| ticks[i].trigger == Trigger::Money).collect();
        prop_assert!(money.windows(2).all(|pair| pair[1] - pair[0] >= 24));
    }
}
