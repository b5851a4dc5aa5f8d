use super::{
    advice::{Advice, LeftReason, NoAdvice, advise},
    concave::{Span, fill},
    curve::{Curve, Lot},
    grid::{Choice, Split, split, worth},
    question::{Bound, ChangeBounds, Infeasible, Item, Policy, Question, ReserveShare},
    rounding::round,
};
use crate::domain::plan::ResourceClass;
use proptest::prelude::*;

pub(super) const NEVER: super::Stop = &|| false;

pub(super) fn near(a: f64, b: f64, within: f64) -> bool {
    (a - b).abs() <= within
}

#[test]
fn the_concave_split_of_the_reference_is_found() {
    // By cvxpy.
    let curves = [
        Curve::Exponential { a: 30.0, b: 20.0 },
        Curve::Logarithmic { a: 12.0, b: 5.0 },
        Curve::MichaelisMenten { a: 40.0, b: 15.0 },
        Curve::SquareRoot { a: 5.0, b: 1.0 },
    ];
    let bounds = [(0.0, 60.0), (2.0, 40.0), (0.0, 50.0), (1.0, 30.0)];
    let spans: Vec<Span> = curves.iter().zip(bounds).map(|(curve, (low, high))| Span { curve, low, high }).collect();
    let found = fill(&spans, 60.0, 0.0);
    for (amount, expected) in found.amounts.iter().zip([16.877756, 13.603121, 15.498459, 14.020664]) {
        assert!(near(*amount, expected, 1e-6), "{amount} for {expected}");
    }
    assert!(near(found.multiplier, 0.645_053_066_6, 1e-10), "{}", found.multiplier);
    let objective: f64 = curves.iter().zip(&found.amounts).map(|(curve, x)| curve.value(*x)).sum();
    assert!(near(objective, 67.570_761_639_4, 1e-10), "{objective}");
    // With a hurdle above that multiplier, less is spent and each at the hurdle.
    let held = fill(&spans, 60.0, 1.0);
    assert!(held.left > 1.0 && near(held.multiplier, 1.0, 0.0));
}

pub(super) fn concave_curve() -> impl Strategy<Value = Curve> {
    let ab = (0.5..500.0_f64, 1.0..5_000.0_f64);
    prop_oneof![
        ab.clone().prop_map(|(a, b)| Curve::Logarithmic { a: a * 10.0, b }),
        ab.clone().prop_map(|(a, b)| Curve::Exponential { a: a * 10.0, b }),
        ab.clone().prop_map(|(a, b)| Curve::MichaelisMenten { a: a * 10.0, b }),
        ab.prop_map(|(a, b)| Curve::SquareRoot { a, b }),
        (0.5..500.0_f64, 0.2..0.9_f64).prop_map(|(theta, g)| Curve::Power { theta, g }),
    ]
}

fn hill() -> impl Strategy<Value = Curve> {
    (1.0..5_000.0_f64, 1.0..3_000.0_f64, 1.1..8.0_f64).prop_map(|(a, b, s)| Curve::Hill { a, b, s })
}

pub(super) fn any_curve() -> impl Strategy<Value = Curve> {
    let lots = prop::collection::vec((1..3_000_i64, 0..6_000_i64), 1..4);
    let lot = |(cost, value): (i64, i64)| Lot { cost: cost as f64, value: value as f64 };
    prop_oneof![
        4 => concave_curve(),
        2 => hill(),
        1 => lots.prop_map(move |lots| Curve::Menu(lots.into_iter().map(lot).collect())),
    ]
}

prop_compose! {
    pub(super) fn item(curve: impl Strategy<Value = Curve>)(
        curve in curve, lower in prop_oneof![Just(0), 0..500_i64], more in prop::option::of(0..5_000_i64),
        current in prop::option::of(0..3_000_i64), ticket in prop::option::weighted(0.2, 1..2_000_i64),
    ) -> Item {
        let menu = matches!(curve, Curve::Menu(_));
        Item {
            class: Some(ResourceClass::Incentive),
            lower: if menu { 0 } else { lower },
            upper: more.filter(|_| !menu).map(|more| lower + more),
            ticket: ticket.filter(|_| !menu),
            current,
            curve,
        }
    }
}

prop_compose! {
    fn question()(
        items in prop::collection::vec(item(any_curve()), 1..9), total in 5_000..60_000_i64, hurdle in prop_oneof![Just(0.0), Just(1.0)],
        change in prop::option::of(Just(ChangeBounds::default())), reserve in any::<bool>(), curve in concave_curve(),
    ) -> Question {
        let mut items = items;
        let curve = if reserve { curve } else { Curve::Unknown };
        let class = Some(ResourceClass::StrategicReserve);
        items.push(Item { class, curve, lower: 0, upper: None, current: None, ticket: None });
        Question { total, items, groups: Vec::new(), share: ReserveShare::default(), change, hurdle }
    }
}

/// What holds for each answer.
fn check(question: &Question, advice: &Advice) -> Result<(), TestCaseError> {
    let ranges = question.ranges(None).expect("answered");
    let choices = question.choices(&ranges);
    let found = split(&choices, question.total as f64, question.hurdle, NEVER).expect("not stopped");
    let mut sum = advice.left;
    for (i, line) in advice.lines.iter().enumerate() {
        sum += line.amount;
        prop_assert!(line.amount <= ranges[i].high, "{line:?} {:?}", ranges[i]);
        let nothing = choices[i].ticket > 0.0 && line.amount == 0;
        prop_assert!(nothing || line.amount >= ranges[i].low.max(choices[i].ticket as i64), "{line:?} {:?}", ranges[i]);
        prop_assert!((line.amount as f64 - found.amounts[i]).abs() < 1.0, "{} is not next to {}", line.amount, found.amounts[i]);
        prop_assert!(line.shadow_price >= 0.0 && line.marginal.is_finite());
    }
    prop_assert_eq!(sum, question.total);
    prop_assert!(advice.left >= 0 && (advice.left > 0) == advice.left_reason.is_some());
    prop_assert!((-1e-9..=1.0).contains(&advice.gap), "{}", advice.gap);
    prop_assert_eq!(advice.costs.iter().map(|cost| cost.policy).collect::<Vec<_>>(), Policy::ALL);
    prop_assert!(advice.costs.iter().all(|cost| cost.value_lost >= 0));
    Ok(())
}

/// The best split by trying all whole amounts, for two items.
fn brute_force(choices: &[Choice; 2], budget: i64, hurdle: f64) -> f64 {
    let allowed = |choice: &Choice, x: i64| {
        let x = x as f64;
        let lot = match choice.curve {
            Curve::Menu(lots) => x < 0.5 || lots.iter().any(|lot| near(lot.cost, x, 1e-9)),
            _ => true,
        };
        lot && x <= choice.high && (x >= choice.low.max(choice.ticket) || (choice.ticket > 0.0 && x < 0.5))
    };
    let mut best = f64::NEG_INFINITY;
    for first in (0..=budget).filter(|x| allowed(&choices[0], *x)) {
        for second in (0..=budget - first).filter(|x| allowed(&choices[1], *x)) {
            let left = (budget - first - second) as f64;
            let worth = worth(choices, &[first as f64, second as f64]) + hurdle * left;
            best = best.max(worth);
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn answers_sum_to_the_total_in_whole_minor_units_within_their_ranges(question in question()) {
        match advise(&question, NEVER) {
            Ok(advice) => check(&question, &advice)?,
            Err(NoAdvice::Infeasible(Infeasible::MinimaExceedBudget { minima, sum, .. })) => {
                prop_assert_eq!(minima.iter().map(|(_, range)| i128::from(range.low)).sum::<i128>(), sum);
                prop_assert!(sum > i128::from(question.total));
            }
            Err(NoAdvice::Infeasible(Infeasible::BoundsContradict { item })) => {
                // What an item must get exceeds what it may.
                prop_assert!(question.items[item].ticket > question.items[item].upper);
            }
            Err(NoAdvice::Infeasible(Infeasible::GroupContradicts { .. })) => prop_assert!(false, "there are no groups"),
            Err(NoAdvice::Stopped) => prop_assert!(false, "nobody stopped it"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn concave_splits_meet_the_conditions_of_optimality(
        items in prop::collection::vec((concave_curve(), 0.0..300.0_f64, 1.0..4_000.0_f64), 1..30),
        part in 0.0..1.2_f64, hurdle in prop_oneof![Just(0.0), 0.1..3.0_f64],
    ) {
        let spans: Vec<Span> =
            items.iter().map(|(curve, low, more)| Span { curve, low: *low, high: low + more }).collect();
        let low: f64 = spans.iter().map(|s| s.low).sum();
        let budget = low + part * spans.iter().map(|s| s.high - s.low).sum::<f64>();
        let found = fill(&spans, budget, hurdle);
        let spent: f64 = found.amounts.iter().sum();
        prop_assert!((spent + found.left - budget).abs() <= 1e-9 * budget.max(1.0));
        prop_assert!(found.multiplier >= hurdle);
        // Money is left only at the hurdle, or where all have their most.
        if found.left > 1e-6 {
            prop_assert!(near(found.multiplier, hurdle, 1e-12));
        }
        for (span, x) in spans.iter().zip(&found.amounts) {
            prop_assert!(*x >= span.low - 1e-9 && *x <= span.high + 1e-9);
            let slope = span.curve.slope(*x);
            let within = 1e-6 * found.multiplier + 1e-12;
            prop_assert!(*x <= span.low + 1e-9 || slope >= found.multiplier - within, "{slope} at {x} of {span:?}");
            prop_assert!(*x >= span.high - 1e-9 || slope <= found.multiplier + within, "{slope} at {x} of {span:?}");
        }
    }

    #[test]
    fn slopes_are_those_of_the_values_and_scaling_changes_nothing(curve in prop_oneof![concave_curve(), hill()], x in 1.0..9_000.0_f64) {
        let d = 1e-4 * x;
        let slope = (curve.value(x + d) - curve.value(x - d)) / (2.0 * d);
        prop_assert!(near(slope, curve.slope(x), 1e-5 * curve.slope(x).max(1e-9) + 1e-7), "{slope} {}", curve.slope(x));
        let fine = curve.clone().rescaled(100.0);
        prop_assert!(near(fine.value(100.0 * x), 100.0 * curve.value(x), 1e-9 * (1.0 + 100.0 * curve.value(x))));
        prop_assert!(near(fine.slope(100.0 * x), curve.slope(x), 1e-9 * (1.0 + curve.slope(x))));
        let from = curve.concave_from().expect("smooth");
        if x > from {
            let best = curve.best(curve.slope(x), from, 10_000.0);
            prop_assert!(near(best, x, 1e-5 * x) || curve.slope(x) < 1e-12, "{best} for {x}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_grid_loses_nothing_against_trying_all(
        first in item(any_curve()), second in item(any_curve()), total in 20..160_i64, hurdle in prop_oneof![Just(0.0), Just(1.0)],
    ) {
        // Small enough that the grid's step is one unit and all can be tried.
        let curve = |curve: Curve| match curve.rescaled(0.04) {
            Curve::Menu(lots) => Curve::Menu(lots.into_iter().map(|lot| Lot { cost: lot.cost.ceil(), ..lot }).collect()),
            other => other,
        };
        let part = |amount: i64| amount / 25;
        let small = |item: Item| Item {
            curve: curve(item.curve), lower: part(item.lower), upper: item.upper.map(part), ticket: item.ticket.map(part), current: None, ..item
        };
        let items = vec![small(first), small(second)];
        let question = Question { total, items, groups: Vec::new(), share: ReserveShare::default(), change: None, hurdle };
        let Ok(ranges) = question.ranges(None) else { return Ok(()) };
        let choices = question.choices(&ranges);
        let Split { objective, bound, .. } = split(&choices, total as f64, hurdle, NEVER).expect("not stopped");
        let best = brute_force(&[choices[0], choices[1]], total, hurdle);
        // Ours may be better: its amounts need not be whole.
        prop_assert!(objective >= best - 1e-9 * best.abs().max(1.0), "{objective} < {best}");
        prop_assert!(bound >= objective - 1e-9 * bound.abs());
    }
}

fn smooth(curve: Curve) -> Item {
    Item { class: None, curve, lower: 0, upper: None, current: None, ticket: None }
}

fn asked(total: i64, items: Vec<Item>) -> Question {
    Question {
        total,
        items,
        groups: Vec::new(),
        share: ReserveShare::default(),
        change: Some(ChangeBounds::default()),
        hurdle: 1.0,
    }
}

#[test]
fn a_car_is_bought_whole_or_not_at_all() {
    let car = Curve::Menu(vec![Lot { cost: 60_000.0, value: 90_000.0 }, Lot { cost: 95_000.0, value: 121_000.0 }]);
    let posts = Curve::Logarithmic { a: 50_000.0, b: 20_000.0 };
    let advice = advise(&asked(100_000, vec![smooth(car.clone()), smooth(posts.clone())]), NEVER).expect("an answer");
    // With the small car 40,000 are left for posts, of which 30,000 bring more than they cost.
    assert_eq!(advice.lines.iter().map(|line| line.amount).collect::<Vec<_>>(), [60_000, 30_000]);
    assert_eq!((advice.left, advice.left_reason), (10_000, Some(LeftReason::Hurdle)));
    assert_eq!(advice.step, Some(100));
    let poor = advise(&asked(50_000, vec![smooth(car)]), NEVER).expect("an answer");
    assert_eq!((poor.lines[0].amount, poor.left, poor.left_reason), (0, 50_000, Some(LeftReason::Indivisible)));
}

#[test]
fn each_policy_shows_what_it_costs() {
    let good = Item { current: Some(20_000), ..smooth(Curve::Power { theta: 900.0, g: 0.5 }) };
    let poor = Item { current: Some(60_000), lower: 50_000, ..smooth(Curve::Power { theta: 100.0, g: 0.5 }) };
    let reserve = Item { class: Some(ResourceClass::StrategicReserve), ..smooth(Curve::Unknown) };
    let advice = advise(&asked(100_000, vec![good.clone(), poor, reserve]), NEVER).expect("an answer");
    assert_eq!(advice.lines.iter().map(|line| line.amount).collect::<Vec<_>>(), [26_000, 50_000, 10_000]);
    assert_eq!(advice.lines[0].bound, Some(Bound::ChangeUp));
    assert_eq!((advice.lines[1].bound, advice.lines[2].bound), (Some(Bound::Lower), Some(Bound::ReserveDefault)));
    assert!(near(advice.lines[0].shadow_price, 450.0 / 26_000_f64.sqrt() - 1.0, 1e-9));
    let cost = |policy: Policy| *advice.costs.iter().find(|cost| cost.policy == policy).expect("all are there");
    // Free to change, the good one takes what the two others leave; the value is that of the curves.
    let gain = 900.0 * (40_000_f64.sqrt() - 26_000_f64.sqrt()) - 14_000.0;
    assert_eq!(cost(Policy::ChangeBounds).value_lost, gain.round() as i64);
    assert_eq!(cost(Policy::ChangeBounds).further, 14_000);
    // Without its own minimum the poor one is still bound by how far it may fall.
    let saved = 8_000.0 - 100.0 * (50_000_f64.sqrt() - 42_000_f64.sqrt());
    assert_eq!(
        cost(Policy::Minima),
        super::advice::PolicyCost { policy: Policy::Minima, value_lost: saved.round() as i64, further: -8_000 }
    );
    assert_eq!(cost(Policy::ReserveShare).further, -10_000);
    assert_eq!(cost(Policy::Hurdle).further, 14_000);
    assert_eq!(advice.left_reason, Some(LeftReason::Hurdle));
    let rich = Item { upper: Some(10_000), current: None, ..good };
    let advice = advise(&asked(100_000, vec![rich]), NEVER).expect("an answer");
    assert_eq!((advice.left, advice.left_reason), (90_000, Some(LeftReason::UpperBounds)));
}

#[test]
fn minima_that_the_total_cannot_pay_are_named() {
    let item = |lower| Item { lower, ..smooth(Curve::Power { theta: 9.0, g: 0.5 }) };
    let Err(NoAdvice::Infeasible(why)) = advise(&asked(100, vec![item(60), item(0), item(41)]), NEVER) else {
        panic!("answered")
    };
    let Infeasible::MinimaExceedBudget { minima, sum, .. } = why else { panic!("{why:?}") };
    assert_eq!((minima.iter().map(|(i, range)| (*i, range.low)).collect::<Vec<_>>(), sum), (vec![(0, 60), (2, 41)], 101));
}

#[test]
fn the_largest_question_stays_exact_and_stops_when_told() {
    let total = super::MAX_TOTAL_MINOR;
    let curve = |i: usize| match i % 3 {
        0 => Curve::Power { theta: 1e12 + i as f64, g: 0.9 },
        1 => Curve::Logarithmic { a: 1e14, b: 1e-2 * (i + 1) as f64 },
        _ => Curve::Exponential { a: 1e-300, b: 1e14 },
    };
    let question = Question { hurdle: 0.0, ..asked(total, (0..300).map(|i| smooth(curve(i))).collect()) };
    let advice = advise(&question, NEVER).expect("an answer");
    assert_eq!(advice.lines.iter().map(|line| line.amount).sum::<i64>() + advice.left, total);
    assert_eq!(advise(&question, &|| true), Err(NoAdvice::Stopped));
    assert_eq!(question.hash(), question.clone().hash());
    assert_ne!(question.hash(), Question { total: total - 1, ..question.clone() }.hash());
}

#[test]
fn units_move_to_where_they_bring_more() {
    // The remainders say the first; the curves say the second.
    let (flat, steep) = (Curve::Logarithmic { a: 1.0, b: 1_000.0 }, Curve::Logarithmic { a: 1e6, b: 1_000.0 });
    let choice = |curve| Choice { curve, low: 0.0, high: 100.0, ticket: 0.0 };
    assert_eq!(round(&[choice(&flat), choice(&steep)], &[10.6, 20.4], 31), [10, 21]);
    assert_eq!(round(&[choice(&steep), choice(&steep)], &[10.6, 20.4], 31), [11, 20]);
}
