//! The answer: a split in minor units, why it is so, and what each policy costs.

use super::{
    Stop, Stopped,
    curve::Curve,
    grid::{Choice, Split, split},
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
    let choices = question.choices(&ranges);
    let found = solve(question, &choices, question.hurdle, stop)?;
    let (costs, used_without_hurdle) = costs(question, &found, stop)?;
    let all = found.left < 0.5;
    let used: f64 = found.amounts.iter().sum();
    let amounts = rounding::round(&choices, &found.amounts, if all { question.total } else { used.floor() as i64 });
    let left = (i128::from(question.total) - amounts.iter().map(|a| i128::from(*a)).sum::<i128>()).max(0);
    let left = i64::try_from(left).unwrap_or(i64::MAX);
    let reason = if used_without_hurdle - used >= 0.5 {
        LeftReason::Hurdle
    } else if choices.iter().zip(&amounts).any(|(choice, amount)| indivisible(choice) && choice.high > *amount as f64) {
        LeftReason::Indivisible
    } else {
        LeftReason::UpperBounds
    };
    let lines = (0..amounts.len()).map(|i| line(question, i, &choices[i], ranges[i], amounts[i], found.multiplier)).collect();
    Ok(Advice {
        lines,
        left,
        left_reason: (left > 0).then_some(reason),
        multiplier: found.multiplier,
        bound: minor(found.bound),
        gap: if found.bound > 0.0 { (found.bound - found.objective) / found.bound } else { 0.0 },
        step: found.step.map(minor),
        costs,
    })
}

fn solve(question: &Question, choices: &[Choice], hurdle: f64, stop: Stop) -> Result<Split, Stopped> {
    split(choices, question.total as f64, hurdle, stop)
}

/// What each policy costs, and how much would be used without the hurdle.
fn costs(question: &Question, found: &Split, stop: Stop) -> Result<(Vec<PolicyCost>, f64), NoAdvice> {
    let used = |split: &Split| split.amounts.iter().sum::<f64>();
    let with = used(found);
    let mut used_without_hurdle = with;
    let mut costs = Vec::with_capacity(Policy::ALL.len());
    for policy in Policy::ALL {
        let hurdle = if *policy == Policy::Hurdle { 0.0 } else { question.hurdle };
        let ranges = question.ranges(Some(*policy))?;
        let unchanged = ranges == question.ranges(None)? && hurdle.total_cmp(&question.hurdle).is_eq();
        if unchanged {
            costs.push(PolicyCost { policy: *policy, value_lost: 0, further: 0 });
            continue;
        }
        let without = solve(question, &question.choices(&ranges), hurdle, stop)?;
        // Both by the same measure: unspent money counts at the hurdle that the new split was found under.
        let gain = without.objective - (found.objective - question.hurdle * found.left + hurdle * found.left);
        if *policy == Policy::Hurdle {
            used_without_hurdle = used(&without);
        }
        costs.push(PolicyCost { policy: *policy, value_lost: minor(gain.max(0.0)), further: minor(used(&without) - with) });
    }
    Ok((costs, used_without_hurdle))
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
