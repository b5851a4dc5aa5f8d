//! Two levels: groups that share the money, and items that share their group's. Without S-shapes, lots and tickets it is exact: one
//! marginal value for all groups that none of their bounds hold, found by bisection, and one in each group that one does, by another.
//! Else a group answers the first level with the value of its best split at some budgets, made concave between them, and what no bound
//! holds is then split once more together.

use super::{
    Stop, Stopped,
    concave::{Filled, Span, cross, fill},
    grid::{Choice, Split, dual, split, split_coarsely, worth},
};

/// At how many budgets a group's value is found.
pub const POINTS: usize = 33;
/// Steps of the grid for one such value.
const RESPONSE_STEPS: f64 = 200.0;
/// What a sum of amounts may miss a bound by, relative to the budget: digits of doubles.
const SLACK: f64 = 1e-9;
/// Multipliers beyond these come of a budget without a choice.
const TELLING: (f64, f64) = (1e-200, 1e200);

/// Items that share bounds: what they get together. They may get nothing in between that their own ranges do not allow.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Which choices; each is in one group at most.
    pub members: Vec<usize>,
    pub low: f64,
    pub high: f64,
}

/// Which of its bounds holds a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Low,
    High,
}

/// A group's part.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What its items get.
    pub amount: f64,
    /// What one more for the group would bring; the split's own multiplier where no bound holds it.
    pub multiplier: f64,
    pub held: Option<Held>,
    /// What of its least amount its lots and tickets cannot use. It is a part of what is left.
    pub kept: f64,
}

/// A split over both levels; the parts are those of the groups, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    pub split: Split,
    pub parts: Vec<Part>,
}

/// What a group brings with a budget, between points: concave, and at the ends of the range that it was asked for.
struct Response {
    points: Vec<(f64, f64)>,
}

impl Response {
    /// The upper hull of some points, the budgets rising.
    fn hull(points: &[(f64, f64)]) -> Self {
        let mut hull: Vec<(f64, f64)> = Vec::with_capacity(points.len());
        for point in points {
            while let [.., a, b] = hull[..] {
                if (b.1 - a.1) * (point.0 - a.0) > (point.1 - a.1) * (b.0 - a.0) {
                    break;
                }
                hull.pop();
            }
            hull.push(*point);
        }
        Self { points: hull }
    }

    /// The budget with the greatest value − lambda · budget.
    fn best(&self, lambda: f64) -> f64 {
        let worth_it = |pair: &&[(f64, f64)]| pair[1].1 - pair[0].1 > lambda * (pair[1].0 - pair[0].0) || lambda <= 0.0;
        let first = self.points.first().map_or(0.0, |point| point.0);
        self.points.windows(2).take_while(worth_it).last().map_or(first, |pair| pair[1].0)
    }
}

/// One group as the first level sees it.
struct Branch<'a, 'g> {
    group: &'g Group,
    choices: Vec<Choice<'a>>,
    /// All spans when it is concave; else none.
    spans: Vec<Span<'a>>,
    response: Option<Response>,
}

impl<'a, 'g> Branch<'a, 'g> {
    fn new(group: &'g Group, all: &[Choice<'a>], stop: Stop) -> Result<Self, Stopped> {
        let choices: Vec<Choice> = group.members.iter().map(|i| all[*i]).collect();
        let spans: Option<Vec<Span>> = choices.iter().map(Choice::span).collect();
        let response = match &spans {
            Some(_) => None,
            None => Some(Response::hull(&response(&choices, group.low, group.high, stop)?)),
        };
        Ok(Self { group, choices, spans: spans.unwrap_or_default(), response })
    }

    /// What its items would take at this multiplier.
    fn wanted(&self, lambda: f64) -> f64 {
        self.choices.iter().map(|choice| choice.best(lambda)).sum()
    }

    /// The same within its bounds.
    fn taken(&self, lambda: f64) -> f64 {
        let wanted = self.response.as_ref().map_or_else(|| self.wanted(lambda), |response| response.best(lambda));
        wanted.max(self.group.low).min(self.group.high)
    }

    fn least(&self) -> f64 {
        self.choices.iter().map(|choice| choice.low).sum()
    }

    fn most(&self) -> f64 {
        self.choices.iter().map(|choice| choice.high).sum()
    }

    /// What the group can bring at most in a split whose money costs `lambda`: by the price at which its items fit its bounds.
    fn dual(&self, lambda: f64) -> f64 {
        let (wanted, Group { low, high, .. }) = (self.wanted(lambda), self.group);
        if wanted > *high {
            let price = cross(|price| self.wanted(price), *high, lambda).high;
            dual(&self.choices, *high, price) - lambda * high
        } else if wanted < *low {
            let price = cross(|price| self.wanted(price), *low, 0.0).high.min(lambda);
            dual(&self.choices, *low, price) - lambda * low
        } else {
            dual(&self.choices, 0.0, lambda)
        }
    }
}

/// What these bring at `POINTS` budgets from `low` to `high`, spent as far as they can spend it.
pub fn response(choices: &[Choice], low: f64, high: f64, stop: Stop) -> Result<Vec<(f64, f64)>, Stopped> {
    let budget = |k: usize| low + (high - low) * k as f64 / (POINTS - 1) as f64;
    let value = |budget: f64| {
        let found = split_coarsely(choices, budget, 0.0, RESPONSE_STEPS, stop)?;
        Ok((budget, worth(choices, &found.amounts)))
    };
    (0..POINTS).map(budget).map(value).collect()
}

/// Splits `budget`, which pays for all lows and for the groups' least amounts; each group's bounds meet what its items may get.
pub fn split_levels(choices: &[Choice], groups: &[Group], budget: f64, hurdle: f64, stop: Stop) -> Result<Levels, Stopped> {
    // What no group's bounds are held against is best as it is.
    let flat = split(choices, budget, hurdle, stop)?;
    let slack = SLACK * budget.max(1.0);
    let sum = |group: &Group, amounts: &[f64]| group.members.iter().map(|i| amounts[*i]).sum::<f64>();
    let keeps = |group: &Group, amounts: &[f64]| {
        let sum = sum(group, amounts);
        sum >= group.low - slack && sum <= group.high + slack
    };
    if groups.iter().all(|group| keeps(group, &flat.amounts)) {
        let free = |group| Part { amount: sum(group, &flat.amounts), multiplier: flat.multiplier, held: None, kept: 0.0 };
        return Ok(Levels { parts: groups.iter().map(free).collect(), split: flat });
    }
    let others = others(choices, groups);
    let branches =
        groups.iter().chain([&others]).map(|group| Branch::new(group, choices, stop)).collect::<Result<Vec<_>, _>>()?;
    let crossing = cross(|lambda| branches.iter().map(|b| b.taken(lambda)).sum(), budget, hurdle);
    let bound_at = |lambda: f64| lambda * budget + branches.iter().map(|b| b.dual(lambda)).sum::<f64>();
    let bound = bound_at(crossing.high).min(bound_at(crossing.low.max(hurdle))).min(flat.bound);
    // What the last digit of the multiplier leaves, as among the items of one level.
    let (above, below): (Vec<f64>, Vec<f64>) = branches.iter().map(|b| (b.taken(crossing.high), b.taken(crossing.low))).unzip();
    let (spent, room) = (above.iter().sum::<f64>(), below.iter().sum::<f64>() - above.iter().sum::<f64>());
    let part = if room > 0.0 { ((budget - spent) / room).clamp(0.0, 1.0) } else { 0.0 };
    let budgets: Vec<f64> = above.iter().zip(&below).map(|(above, below)| above + part * (below - above)).collect();

    let mut amounts = vec![0.0; choices.len()];
    let mut parts = Vec::with_capacity(branches.len());
    for (branch, budget) in branches.iter().zip(&budgets) {
        let held = held(branch, *budget, crossing.high, crossing.low, slack);
        let Filled { amounts: found, multiplier, .. } = if branch.response.is_some() {
            let found = split(&branch.choices, *budget, 0.0, stop)?;
            Filled { amounts: found.amounts, multiplier: found.multiplier, left: found.left }
        } else if held.is_some() {
            fill(&branch.spans, *budget, 0.0)
        } else {
            let of = |span: &Span| {
                let [above, below] = [crossing.high, crossing.low].map(|lambda| span.curve.best(lambda, span.low, span.high));
                above + part * (below - above)
            };
            Filled { amounts: branch.spans.iter().map(of).collect(), multiplier: crossing.high, left: 0.0 }
        };
        let multiplier = if held.is_some() { price(&branch.choices, &found, multiplier) } else { crossing.high };
        branch.group.members.iter().zip(&found).for_each(|(i, amount)| amounts[*i] = *amount);
        let amount: f64 = found.iter().sum();
        parts.push(Part { amount, multiplier, held, kept: (branch.group.low - amount).max(0.0) });
    }
    let step = branches.iter().any(|b| b.response.is_some()).then_some(flat.step).flatten();
    let mut levels = levels(choices, amounts, parts, Total { budget, hurdle, multiplier: crossing.high, bound, step });
    if step.is_some() {
        let total = Total { budget, hurdle, multiplier: 0.0, bound, step };
        levels = together(choices, &branches, &levels, total, stop)?.unwrap_or(levels);
    }
    levels.parts.truncate(groups.len());
    Ok(levels)
}

/// The items of no group, as one that nothing bounds.
fn others(choices: &[Choice], groups: &[Group]) -> Group {
    let members: Vec<usize> = (0..choices.len()).filter(|i| !groups.iter().any(|group| group.members.contains(i))).collect();
    let sum = |of: fn(&Choice) -> f64| members.iter().map(|i| of(&choices[*i])).sum();
    Group { low: sum(|choice| choice.low), high: sum(|choice| choice.high), members }
}

/// Whether a bound of the group's own holds it, when money costs `high` or a digit less.
fn held(branch: &Branch, budget: f64, high: f64, low: f64, slack: f64) -> Option<Held> {
    let Group { low: least, high: most, .. } = *branch.group;
    // Where the items themselves can take no less or no more, it is they who are held.
    let (own_least, own_most) = (least > branch.least() + slack, most < branch.most() - slack);
    if own_least && budget <= least + slack && (branch.response.is_some() || branch.wanted(high) < least) {
        Some(Held::Low)
    } else if own_most && budget >= most - slack && (branch.response.is_some() || branch.wanted(low) > most) {
        Some(Held::High)
    } else {
        None
    }
}

/// What one more in a group brings. Where its budget is all that its items can take, or no more than they must, each multiplier would do:
/// what the last unit brings, or the next one.
fn price(choices: &[Choice], amounts: &[f64], multiplier: f64) -> f64 {
    if (TELLING.0..TELLING.1).contains(&multiplier) {
        return multiplier;
    }
    let marginal = |(choice, x): (&Choice, &f64)| {
        let slope = choice.curve.slope(*x);
        if slope.is_finite() { slope } else { choice.curve.value(1.0) }
    };
    let pairs = || choices.iter().zip(amounts);
    if multiplier < TELLING.0 {
        pairs().filter(|(choice, x)| **x > choice.low).map(marginal).reduce(f64::min).unwrap_or(0.0)
    } else {
        pairs().filter(|(choice, x)| **x < choice.high).map(marginal).fold(0.0, f64::max)
    }
}

#[derive(Debug, Clone, Copy)]
struct Total {
    budget: f64,
    hurdle: f64,
    multiplier: f64,
    bound: f64,
    step: Option<f64>,
}

fn levels(choices: &[Choice], amounts: Vec<f64>, parts: Vec<Part>, total: Total) -> Levels {
    let left = (total.budget - amounts.iter().sum::<f64>()).max(0.0);
    let objective = worth(choices, &amounts) + total.hurdle * left;
    let Total { multiplier, step, bound, .. } = total;
    Levels { split: Split { amounts, multiplier, left, objective, bound: bound.max(objective), step }, parts }
}

/// The groups that nothing holds share what the others leave as if they were one: better, where it keeps their bounds.
fn together(
    choices: &[Choice],
    branches: &[Branch],
    found: &Levels,
    total: Total,
    stop: Stop,
) -> Result<Option<Levels>, Stopped> {
    let (mut amounts, mut parts) = (found.split.amounts.clone(), found.parts.clone());
    let free = || branches.iter().zip(&found.parts).enumerate().filter(|(_, (_, part))| part.held.is_none());
    let members: Vec<usize> = free().flat_map(|(_, (branch, _))| branch.group.members.iter().copied()).collect();
    let bound: f64 = found.parts.iter().filter(|part| part.held.is_some()).map(|part| part.amount + part.kept).sum();
    let chosen: Vec<Choice> = members.iter().map(|i| choices[*i]).collect();
    let again = split(&chosen, total.budget - bound, total.hurdle, stop)?;
    members.iter().zip(&again.amounts).for_each(|(i, amount)| amounts[*i] = *amount);
    for (nr, (branch, _)) in free() {
        let amount: f64 = branch.group.members.iter().map(|i| amounts[*i]).sum();
        // Rounding must find the bounds kept, not nearly.
        if amount < branch.group.low || amount > branch.group.high {
            return Ok(None);
        }
        parts[nr] = Part { amount, multiplier: again.multiplier, held: None, kept: 0.0 };
    }
    let levels = levels(choices, amounts, parts, Total { multiplier: again.multiplier, ..total });
    Ok((levels.split.objective > found.split.objective).then_some(levels))
}
