//! From real amounts to whole minor units, once: largest remainders, then a check whether a swap of single units gains.

use super::{curve::Curve, grid::Choice, hierarchy::Group};

/// A swap must gain more than what a double's last digits may feign.
const WORTHWHILE: f64 = 1.0 + 1e-9;

/// Rounds amounts so that they sum to `target`, each to one of its two neighbours and within its range.
///
/// The lower neighbours first; what is left goes, a unit each, to the largest remainders, the earlier first. Then units move from where
/// the marginal value is lowest to where it is highest as long as that gains. Only where the digits of doubles are used up, with
/// thousands of items and 10^14 units, may an amount move further to keep the sum.
pub fn round(choices: &[Choice], amounts: &[f64], target: i64) -> Vec<i64> {
    let mut whole: Vec<i64> = amounts.iter().map(|x| x.floor() as i64).collect();
    let rest = |i: usize| amounts[i] - amounts[i].floor();
    let loose = |i: &usize| !matches!(choices[*i].curve, Curve::Menu(_) | Curve::Unknown);
    let mut order: Vec<usize> = (0..amounts.len()).filter(|i| loose(i) && rest(*i) > 0.0).collect();
    order.sort_by(|a, b| rest(*b).total_cmp(&rest(*a)));
    let mut missing = target - whole.iter().sum::<i64>();
    let up = usize::try_from(missing).unwrap_or(0).min(order.len());
    for i in &order[..up] {
        whole[*i] += 1;
        missing -= 1;
    }
    swap(choices, &mut whole, &order, up);
    place(choices, &mut whole, missing);
    whole
}

/// The same where items share bounds: first what each group gets, by largest remainders within its bounds, then its items.
pub fn round_groups(choices: &[Choice], amounts: &[f64], target: i64, groups: &[Group]) -> Vec<i64> {
    let grouped = |i: &usize| groups.iter().any(|group| group.members.contains(i));
    let others: Vec<usize> = (0..choices.len()).filter(|i| !grouped(i)).collect();
    let sum = |members: &[usize], of: &dyn Fn(usize) -> f64| members.iter().map(|i| of(*i)).sum::<f64>();
    let rest = (&others[..], sum(&others, &|i| choices[i].low), sum(&others, &|i| choices[i].high));
    let bounds = groups.iter().map(|group| (&group.members[..], group.low, group.high)).chain([rest]);
    let mut parts: Vec<Part> = bounds
        .map(|(members, low, high)| {
            let exact = sum(members, &|i| amounts[i]);
            // Lots and tickets may leave a group less than its least.
            let (low, high) = (low.min(exact.round()) as i64, high as i64);
            Part { members, exact, low, high, whole: (exact.floor() as i64).clamp(low, high.max(low)) }
        })
        .collect();
    let mut missing = target - parts.iter().map(|part| part.whole).sum::<i64>();
    let rest = |part: &Part| part.exact - part.whole as f64;
    parts.sort_by(|a, b| rest(b).total_cmp(&rest(a)));
    // A unit each first; more only where the digits of doubles are used up.
    for most in [1, i64::MAX] {
        for part in &mut parts {
            let step = missing.clamp((part.low - part.whole).max(-most), (part.high - part.whole).min(most).max(0));
            part.whole += step;
            missing -= step;
        }
    }
    let mut whole = vec![0; choices.len()];
    for Part { members, whole: target, .. } in parts {
        let chosen: Vec<Choice> = members.iter().map(|i| choices[*i]).collect();
        let exact: Vec<f64> = members.iter().map(|i| amounts[*i]).collect();
        let rounded = round(&chosen, &exact, target);
        members.iter().zip(rounded).for_each(|(i, amount)| whole[*i] = amount);
    }
    whole
}

/// What a group's items get together.
struct Part<'g> {
    members: &'g [usize],
    exact: f64,
    low: i64,
    high: i64,
    whole: i64,
}

/// Exchanges who of `order` was rounded up, while it gains.
fn swap(choices: &[Choice], whole: &mut [i64], order: &[usize], up: usize) {
    let (mut raised, mut kept) = (order[..up].to_vec(), order[up..].to_vec());
    let given_up = |i: usize, whole: &[i64]| choices[i].curve.slope(whole[i] as f64 - 0.5);
    let gained = |i: usize, whole: &[i64]| choices[i].curve.slope(whole[i] as f64 + 0.5);
    raised.sort_by(|a, b| given_up(*a, whole).total_cmp(&given_up(*b, whole)));
    kept.sort_by(|a, b| gained(*b, whole).total_cmp(&gained(*a, whole)));
    for (from, to) in raised.into_iter().zip(kept) {
        if gained(to, whole) <= given_up(from, whole) * WORTHWHILE {
            break;
        }
        whole[from] -= 1;
        whole[to] += 1;
    }
}

/// Places what no remainder explains, where there is room.
fn place(choices: &[Choice], whole: &mut [i64], mut missing: i64) {
    for (choice, whole) in choices.iter().zip(whole) {
        if matches!(choice.curve, Curve::Menu(_) | Curve::Unknown) || *whole == 0 {
            continue;
        }
        let (low, high) = (choice.low.max(choice.ticket) as i64, choice.high as i64);
        let step = missing.clamp((low - *whole).min(0), (high - *whole).max(0));
        *whole += step;
        missing -= step;
    }
}
