//! The answer: a split in minor units, why it is so, and what each policy costs.

use super::{
    Stop, Stopped,
    curve::Curve,
    grid::Choice,
    hierarchy::{Group, Held, Levels, Part, response, split_levels},
    question::{Bound, Infeasible, Policy, Question, Range},
    rounding,
};

/// What a marginal value must exceed another by to be called different, relative to it.
const DIFFERENT: f64 = 1e-9;

text_enum! {
    /// Why money is left.
    LeftReason {
        Hurdle = "HURDLE",
        UpperBounds = "UPPER_BOUNDS",
        Indivisible = "INDIVISIBLE",
    }
}

/// One item's part. Amounts and values are in minor units, rounded once.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub amount: i64,
    pub value: i64,
    /// What one more would bring.
    pub marginal: f64,
    pub bound: Option<Bound>,
    /// What moving the bound by one would add.
    pub shadow_price: f64,
    pub current: Option<i64>,
    pub current_value: Option<i64>,
}

/// One group's part, and what its bounds do.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupLine {
    pub amount: i64,
    /// What of its least amount its lots and tickets cannot use.
    pub kept: i64,
    pub value: i64,
    /// What one more for the group would bring.
    pub marginal: f64,
    pub bound: Option<Bound>,
    pub shadow_price: f64,
    /// What the split would gain without its bounds, and how much more would be allocated.
    pub value_lost: i64,
    pub further: i64,
    pub current: Option<i64>,
    pub current_value: Option<i64>,
    /// What it brings at some budgets between the least and the most that its items may get.
    pub response: Vec<(i64, i64)>,
}

/// What a policy costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyCost {
    pub policy: Policy,
    /// What the split would gain without it.
    pub value_lost: i64,
    /// How much more would be allocated without it.
    pub further: i64,
}

/// An answer. The lines' amounts and `left` sum to the total.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    pub lines: Vec<Line>,
    pub groups: Vec<GroupLine>,
    pub left: i64,
    pub left_reason: Option<LeftReason>,
    pub multiplier: f64,
    /// No split's value, with what is left at the hurdle, exceeds this.
    pub bound: i64,
    pub gap: f64,
    pub step: Option<i64>,
    pub costs: Vec<PolicyCost>,
}

impl Advice {
    pub fn value(&self) -> i64 {
        total(self.lines.iter().map(|line| line.value))
    }

    pub fn current_value(&self) -> i64 {
        total(self.lines.iter().filter_map(|line| line.current_value))
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAdvice {
    Infeasible(Infeasible),
    Stopped,
}

impl From<Infeasible> for NoAdvice {
    fn from(why: Infeasible) -> Self {
        Self::Infeasible(why)
    }
}

impl From<Stopped> for NoAdvice {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Answers a question; gives up when `stop` says so.
pub fn advise(question: &Question, stop: Stop) -> Result<Advice, NoAdvice> {
    let ranges = question.ranges(None)?;
    let group_ranges = question.group_ranges(&ranges)?;
    let choices = question.choices(&ranges);
    let groups = question.shares(&ranges, None);
    let levels = split_levels(&choices, &groups, question.total as f64, question.hurdle, stop)?;
    let found = &levels.split;
    let (costs, used_without_hurdle) = costs(question, &ranges, &levels, stop)?;
    let all = found.left < 0.5;
    let used: f64 = found.amounts.iter().sum();
    let target = if all { question.total } else { used.floor() as i64 };
    let amounts = if groups.is_empty() {
        rounding::round(&choices, &found.amounts, target)
    } else {
        rounding::round_groups(&choices, &found.amounts, target, &groups)
    };
    let left = (i128::from(question.total) - amounts.iter().map(|a| i128::from(*a)).sum::<i128>()).max(0);
    let left = i64::try_from(left).unwrap_or(i64::MAX);
    let reason = if used_without_hurdle - used >= 0.5 {
        LeftReason::Hurdle
    } else if choices.iter().zip(&amounts).any(|(choice, amount)| indivisible(choice) && choice.high > *amount as f64) {
        LeftReason::Indivisible
    } else {
        LeftReason::UpperBounds
    };
    let mut multipliers = vec![found.multiplier; choices.len()];
    for (group, part) in groups.iter().zip(&levels.parts) {
        group.members.iter().for_each(|i| multipliers[*i] = part.multiplier);
    }
    let lines: Vec<Line> =
        (0..amounts.len()).map(|i| line(question, i, &choices[i], ranges[i], amounts[i], multipliers[i])).collect();
    let groups = groups.iter().zip(&levels.parts).zip(group_ranges).enumerate();
    let groups = groups.map(|(nr, ((group, part), range))| {
        let cost = group_cost(question, &ranges, &levels, nr, stop)?;
        let chosen: Vec<Choice> = group.members.iter().map(|i| choices[*i]).collect();
        let reach = |of: fn(&Choice) -> f64| chosen.iter().map(of).sum::<f64>();
        let response = response(&chosen, reach(|c| c.low), reach(|c| c.high).min(question.total as f64), stop)?;
        let response = response.into_iter().map(|(amount, value)| (minor(amount), minor(value))).collect();
        Ok(group_line(&lines, group, part, range, found.multiplier, GroupCost { response, ..cost }))
    });
    let groups = groups.collect::<Result<Vec<_>, NoAdvice>>()?;
    Ok(Advice {
        lines,
        groups,
        left,
        left_reason: (left > 0).then_some(reason),
        multiplier: found.multiplier,
        bound: minor(found.bound),
        gap: if found.bound > 0.0 { (found.bound - found.objective) / found.bound } else { 0.0 },
        step: found.step.map(minor),
        costs,
    })
}

fn used(levels: &Levels) -> f64 {
    levels.split.amounts.iter().sum()
}

/// What each policy costs, and how much would be used without the hurdle.
fn costs(question: &Question, ranges: &[Range], found: &Levels, stop: Stop) -> Result<(Vec<PolicyCost>, f64), NoAdvice> {
    let with = used(found);
    let mut used_without_hurdle = with;
    let mut costs = Vec::with_capacity(Policy::ALL.len());
    for policy in Policy::ALL {
        let hurdle = if *policy == Policy::Hurdle { 0.0 } else { question.hurdle };
        let free = question.ranges(Some(*policy))?;
        let holds = *policy == Policy::GroupBounds && found.parts.iter().any(|part| part.held.is_some());
        let unchanged = free == ranges && hurdle.total_cmp(&question.hurdle).is_eq() && !holds;
        if unchanged {
            costs.push(PolicyCost { policy: *policy, value_lost: 0, further: 0 });
            continue;
        }
        let groups = if *policy == Policy::GroupBounds { Vec::new() } else { question.shares(&free, None) };
        let without = split_levels(&question.choices(&free), &groups, question.total as f64, hurdle, stop)?;
        // Both by the same measure: unspent money counts at the hurdle that the new split was found under.
        let gain =
            without.split.objective - (found.split.objective - question.hurdle * found.split.left + hurdle * found.split.left);
        if *policy == Policy::Hurdle {
            used_without_hurdle = used(&without);
        }
        costs.push(PolicyCost { policy: *policy, value_lost: minor(gain.max(0.0)), further: minor(used(&without) - with) });
    }
    Ok((costs, used_without_hurdle))
}

/// What is found by solving again for one group.
#[derive(Debug, Default)]
struct GroupCost {
    value_lost: i64,
    further: i64,
    response: Vec<(i64, i64)>,
}

/// What one group's bounds cost: nothing unless they hold it.
fn group_cost(question: &Question, ranges: &[Range], found: &Levels, nr: usize, stop: Stop) -> Result<GroupCost, Stopped> {
    if found.parts[nr].held.is_none() {
        return Ok(GroupCost::default());
    }
    let groups = question.shares(ranges, Some(nr));
    let without = split_levels(&question.choices(ranges), &groups, question.total as f64, question.hurdle, stop)?;
    let gain = without.split.objective - found.split.objective;
    Ok(GroupCost { value_lost: minor(gain.max(0.0)), further: minor(used(&without) - used(found)), response: Vec::new() })
}

fn group_line(lines: &[Line], group: &Group, part: &Part, range: Range, multiplier: f64, cost: GroupCost) -> GroupLine {
    let members = || group.members.iter().map(|i| &lines[*i]);
    let (bound, shadow_price) = match part.held {
        Some(Held::High) => (Some(range.high_by), part.multiplier - multiplier),
        Some(Held::Low) => (Some(range.low_by), multiplier - part.multiplier),
        None => (None, 0.0),
    };
    let known = members().any(|line| line.current.is_some());
    GroupLine {
        amount: total(members().map(|line| line.amount)),
        kept: minor(part.kept),
        value: total(members().map(|line| line.value)),
        marginal: part.multiplier,
        bound,
        shadow_price: shadow_price.max(0.0),
        value_lost: cost.value_lost,
        further: cost.further,
        current: known.then(|| total(members().filter_map(|line| line.current))),
        current_value: known.then(|| total(members().filter_map(|line| line.current_value))),
        response: cost.response,
    }
}

fn line(question: &Question, i: usize, choice: &Choice, range: Range, amount: i64, multiplier: f64) -> Line {
    let item = &question.items[i];
    // A power's slope at zero is infinite: there, what the first unit brings.
    let marginal = choice.curve.slope(amount as f64);
    let marginal = if marginal.is_finite() { marginal } else { choice.curve.value(1.0) };
    let (bound, shadow_price) = held(choice, range, amount, marginal, multiplier);
    let value = |x: i64| minor(choice.curve.value(x as f64));
    Line {
        amount,
        value: value(amount),
        marginal,
        bound,
        shadow_price,
        current: item.current,
        current_value: item.current.map(value),
    }
}

/// Which bound holds an amount, and at what price.
fn held(choice: &Choice, range: Range, amount: i64, marginal: f64, multiplier: f64) -> (Option<Bound>, f64) {
    let above = marginal > multiplier * (1.0 + DIFFERENT);
    let below = marginal < multiplier * (1.0 - DIFFERENT);
    if matches!(choice.curve, Curve::Menu(_)) || (choice.ticket > 0.0 && amount == 0) {
        (Some(Bound::Indivisible), 0.0)
    } else if amount == range.high && above {
        (Some(range.high_by), marginal - multiplier)
    } else if amount == range.low && below {
        (Some(range.low_by), multiplier - marginal)
    } else if choice.ticket > 0.0 && below {
        (Some(Bound::Indivisible), 0.0) // at its ticket
    } else {
        (None, 0.0)
    }
}

fn indivisible(choice: &Choice) -> bool {
    choice.ticket > 0.0 || !matches!(choice.curve.concave_from(), Some(from) if from <= choice.low)
}

/// A computed value as minor units, rounded half away from zero.
fn minor(value: f64) -> i64 {
    value.round() as i64 // saturates
}

fn total(values: impl Iterator<Item = i64>) -> i64 {
    let sum: i128 = values.map(i128::from).sum();
    i64::try_from(sum).unwrap_or(i64::MAX)
}
