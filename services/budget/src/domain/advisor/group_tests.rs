//! Splits over two levels: by hand, against trying all, and what holds for each.

use super::{
    advice::{Advice, NoAdvice, advise},
    curve::{Curve, Lot},
    hierarchy::{Group as Bounds, POINTS, split_levels},
    question::{Bound, Group, Infeasible, Item, Policy, Question, ReserveShare},
    tests::{NEVER, any_curve, concave_curve, item, near},
};
use proptest::prelude::*;

fn power(theta: f64) -> Item {
    let curve = Curve::Power { theta, g: 0.5 };
    Item { class: None, curve, lower: 0, upper: None, current: None, ticket: None }
}

fn group(members: Vec<usize>) -> Group {
    Group { members, lower: 0, upper: None, min_bp: None, max_bp: None }
}

fn asked(total: i64, items: Vec<Item>, groups: Vec<Group>) -> Question {
    Question { total, items, groups, share: ReserveShare::default(), change: None, hurdle: 0.0 }
}

#[test]
fn a_groups_most_sends_the_rest_elsewhere_and_both_levels_have_their_price() {
    // Power curves share in proportion to theta²: 9 : 4 : 1 : 1 of 150 would be 90, 40, 10, 10.
    let items = || vec![power(30.0), power(20.0), power(10.0), power(10.0)];
    let free = advise(&asked(150, items(), vec![group(vec![0, 1]), group(vec![2])]), NEVER).expect("an answer");
    assert_eq!(free.lines.iter().map(|line| line.amount).collect::<Vec<_>>(), [90, 40, 10, 10]);
    assert!(free.groups.iter().all(|group| group.bound.is_none() && group.value_lost == 0), "{:?}", free.groups);
    // The first two may have 65 between them, 45 and 20, and the third must have 60 of 85.
    let groups = vec![Group { upper: Some(65), ..group(vec![0, 1]) }, Group { min_bp: Some(4_000), ..group(vec![2]) }];
    let held = advise(&asked(150, items(), groups), NEVER).expect("an answer");
    assert_eq!(held.lines.iter().map(|line| line.amount).collect::<Vec<_>>(), [45, 20, 60, 25]);
    let [high, low] = &held.groups[..] else { panic!("two groups") };
    assert_eq!((high.amount, high.bound, low.amount, low.bound), (65, Some(Bound::Upper), 60, Some(Bound::ShareMin)));
    // ½ · theta / √x: what one more would bring in the first, in the second, and where nothing holds.
    let marginal = |theta: f64, x: f64| 0.5 * theta / x.sqrt();
    let elsewhere = marginal(10.0, 25.0);
    assert!(near(held.multiplier, elsewhere, 1e-9), "{}", held.multiplier);
    assert!(
        near(high.marginal, marginal(30.0, 45.0), 1e-9) && near(high.shadow_price, high.marginal - elsewhere, 1e-9),
        "{high:?}"
    );
    assert!(near(low.marginal, marginal(10.0, 60.0), 1e-9) && near(low.shadow_price, elsewhere - low.marginal, 1e-9), "{low:?}");
    assert!(held.lines.iter().all(|line| line.bound.is_none()), "the groups are held, not their items: {:?}", held.lines);
    // Without the most of the first, 9 : 4 : 1 of what the third leaves, 90 = 57.9 + 25.7 + 6.4; and all is free without both.
    let value = |x: [f64; 4]| [30.0, 20.0, 10.0, 10.0].iter().zip(x).map(|(theta, x): (&f64, f64)| theta * x.sqrt()).sum::<f64>();
    let now = value([45.0, 20.0, 60.0, 25.0]);
    let part = 90.0 / 14.0;
    assert_eq!(high.value_lost, (value([9.0 * part, 4.0 * part, 60.0, part]) - now).round() as i64);
    let cost = held.costs.iter().find(|cost| cost.policy == Policy::GroupBounds).expect("it is there");
    assert_eq!((cost.value_lost, cost.further), ((value([90.0, 40.0, 10.0, 10.0]) - now).round() as i64, 0));
    assert_eq!((high.response.len(), high.response[0], high.response[POINTS - 1].0), (POINTS, (0, 0), 150));
    assert!(high.response.windows(2).all(|pair| pair[0].1 < pair[1].1), "{:?}", high.response);
}

#[test]
fn a_group_keeps_what_its_lots_cannot_use() {
    let lots = vec![Lot { cost: 60_000.0, value: 90_000.0 }, Lot { cost: 95_000.0, value: 91_000.0 }];
    let car = Item { curve: Curve::Menu(lots), ..power(1.0) };
    // 80,000 for cars: the small one costs 60,000, and the dear one more than there is.
    let groups = vec![Group { lower: 80_000, ..group(vec![0]) }];
    let advice = advise(&asked(90_000, vec![car, power(400.0)], groups), NEVER).expect("an answer");
    assert_eq!(advice.lines.iter().map(|line| line.amount).collect::<Vec<_>>(), [60_000, 10_000]);
    assert_eq!((advice.groups[0].kept, advice.groups[0].bound, advice.left), (20_000, Some(Bound::Lower), 20_000));
}

#[test]
fn groups_that_cannot_be_are_named() {
    let contradicts = |groups: Vec<Group>, items: Vec<Item>| match advise(&asked(100, items, groups), NEVER) {
        Err(NoAdvice::Infeasible(Infeasible::GroupContradicts { group })) => group,
        other => panic!("{other:?}"),
    };
    let (least, most) = (Item { lower: 60, ..power(1.0) }, Item { upper: Some(20), ..power(1.0) });
    let free = || group(vec![]);
    assert_eq!(contradicts(vec![free(), Group { lower: 50, max_bp: Some(4_000), ..group(vec![0]) }], vec![power(1.0)]), 1);
    assert_eq!(contradicts(vec![Group { upper: Some(50), ..group(vec![0]) }], vec![least.clone()]), 0);
    assert_eq!(contradicts(vec![Group { min_bp: Some(3_000), ..group(vec![0]) }], vec![most]), 0);
    // Together they ask for more than there is: who asks is named, not whom a group speaks for.
    let groups = vec![Group { lower: 30, ..group(vec![1, 2]) }];
    let small = Item { lower: 10, ..power(1.0) };
    let found = advise(&asked(80, vec![least, small, power(1.0)], groups), NEVER);
    let Err(NoAdvice::Infeasible(Infeasible::MinimaExceedBudget { minima, groups, sum })) = found else { panic!("{found:?}") };
    assert_eq!((minima.iter().map(|(i, _)| *i).collect::<Vec<_>>(), groups[0].0, sum), (vec![0], 0, 90));
}

prop_compose! {
    /// Items in up to three groups, some in none, with bounds that may or may not leave an answer.
    fn grouped(curve: impl Strategy<Value = Curve>)(
        items in prop::collection::vec((item(curve), 0..4_usize), 1..12), total in 5_000..60_000_i64,
        bounds in prop::collection::vec((prop::option::of(0..3_000_i32), prop::option::of(1_000..9_000_i32), 0..2_000_i64), 3),
        hurdle in prop_oneof![Just(0.0), Just(1.0)],
    ) -> Question {
        let members = |nr: usize| items.iter().enumerate().filter(|(_, (_, g))| *g == nr).map(|(i, _)| i).collect();
        let group = |(nr, (min_bp, max_bp, lower)): (usize, &(Option<i32>, Option<i32>, i64))| {
            Group { members: members(nr), lower: *lower, upper: None, min_bp: *min_bp, max_bp: *max_bp }
        };
        let groups = bounds.iter().enumerate().map(group).filter(|group| !group.members.is_empty()).collect();
        Question { hurdle, ..asked(total, items.iter().map(|(item, _)| item.clone()).collect(), groups) }
    }
}

/// What holds for each answer.
fn check(question: &Question, advice: &Advice) -> Result<(), TestCaseError> {
    let ranges = question.ranges(None).expect("answered");
    let group_ranges = question.group_ranges(&ranges).expect("answered");
    prop_assert_eq!(advice.lines.iter().map(|line| line.amount).sum::<i64>() + advice.left, question.total);
    prop_assert!(advice.left >= 0 && (-1e-9..=1.0).contains(&advice.gap), "{} {}", advice.left, advice.gap);
    for (line, range) in advice.lines.iter().zip(&ranges) {
        prop_assert!(line.amount <= range.high && (line.amount >= range.low || line.amount == 0), "{line:?} {range:?}");
        prop_assert!(line.shadow_price >= 0.0);
    }
    for ((group, range), asked) in advice.groups.iter().zip(group_ranges).zip(&question.groups) {
        let sum: i64 = asked.members.iter().map(|i| advice.lines[*i].amount).sum();
        prop_assert_eq!(sum, group.amount);
        prop_assert!(sum <= range.high && sum + group.kept >= range.low, "{group:?} {range:?}");
        prop_assert!(group.kept <= advice.left && group.value_lost >= 0 && group.shadow_price >= 0.0, "{group:?}");
        prop_assert!(group.response.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1 + 1), "{group:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn groups_keep_their_bounds_in_whole_minor_units(question in grouped(any_curve())) {
        if let Ok(advice) = advise(&question, NEVER) {
            check(&question, &advice)?;
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn concave_groups_are_split_without_a_gap(question in grouped(concave_curve())) {
        let question = Question { items: question.items.into_iter().map(|item| Item { ticket: None, ..item }).collect(), ..question };
        if let Ok(advice) = advise(&question, NEVER) {
            check(&question, &advice)?;
            prop_assert!(advice.gap < 1e-9, "{}", advice.gap);
            prop_assert!(advice.groups.iter().all(|group| group.kept == 0));
        }
    }

    #[test]
    fn what_two_levels_are_said_to_bring_at_most_holds_against_trying_all(
        first in item(any_curve()), second in item(any_curve()), third in item(concave_curve()), total in 20..70_i64, most in 5..60_i64,
    ) {
        let curve = |curve: Curve| match curve.rescaled(0.04) {
            Curve::Menu(lots) => Curve::Menu(lots.into_iter().map(|lot| Lot { cost: lot.cost.ceil(), ..lot }).collect()),
            other => other,
        };
        let small = |item: Item| Item { curve: curve(item.curve), lower: 0, upper: None, ticket: item.ticket.map(|t| t / 25), current: None, ..item };
        let question = asked(total, vec![small(first), small(second), Item { ticket: None, ..small(third) }], Vec::new());
        let ranges = question.ranges(None).expect("no bounds");
        let choices = question.choices(&ranges);
        let group = Bounds { members: vec![0, 1], low: 0.0, high: most.min(total) as f64 };
        let found = split_levels(&choices, &[group], total as f64, 0.0, NEVER).expect("not stopped").split;
        let allowed = |i: usize, x: i64| {
            let x = x as f64;
            let lot = match choices[i].curve { Curve::Menu(lots) => x < 0.5 || lots.iter().any(|lot| near(lot.cost, x, 1e-9)), _ => true };
            lot && (x < 0.5 || x >= choices[i].ticket)
        };
        let mut best = 0.0_f64;
        for a in (0..=most.min(total)).filter(|x| allowed(0, *x)) {
            for b in (0..=(most - a).min(total - a)).filter(|x| allowed(1, *x)) {
                let worth = [a, b, total - a - b].iter().zip(&choices).map(|(x, choice)| choice.curve.value(*x as f64)).sum();
                best = best.max(worth);
            }
        }
        prop_assert!(found.bound >= best - 1e-9 * best, "{} is no bound of {best}", found.bound);
        prop_assert!(found.objective <= found.bound + 1e-9 * best && found.amounts[0] + found.amounts[1] <= (most as f64) + 1e-6, "{found:?}");
    }
}
