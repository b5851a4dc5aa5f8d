//! The split where some curves are S-shaped, come in lots or have a least ticket: these are decided by dynamic programming on a grid,
//! together with the exact split of the concave ones, and then refined. The dual of the problem, which is its concave envelope, bounds
//! what any split could bring.

use super::{
    Stop, Stopped,
    concave::{Filled, Span, cross, fill},
    curve::Curve,
};

/// Most steps of the grid.
const MAX_STEPS: f64 = 1_000.0;
/// How many budgets of the concave part are tried before the best so far is taken; a few are usual.
const MAX_TRIALS: u32 = 64;

/// What one item may get: `low` to `high`, or with a ticket nothing or `ticket` to `high`. With a ticket `low` is zero.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    pub curve: &'a Curve,
    pub low: f64,
    pub high: f64,
    /// Zero for none.
    pub ticket: f64,
}

/// A split, with a proof of how good it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    pub amounts: Vec<f64>,
    /// What one more would bring.
    pub multiplier: f64,
    pub left: f64,
    /// value + hurdle · left.
    pub objective: f64,
    /// No split has a larger objective.
    pub bound: f64,
    /// The grid's step, when there was a grid.
    pub step: Option<f64>,
}

impl<'a> Choice<'a> {
    /// The range on which it is concave, when that is all of it.
    pub(super) fn span(&self) -> Option<Span<'a>> {
        let smooth = self.curve.concave_from().is_some_and(|from| self.low >= from || self.low >= self.high);
        (smooth && self.ticket <= self.low).then_some(Span { curve: self.curve, low: self.low, high: self.high })
    }

    /// The range on which it is concave and that holds `amount`.
    fn span_at(&self, amount: f64) -> Option<Span<'a>> {
        let low = self.curve.concave_from()?.ceil().max(self.low).max(self.ticket);
        (low <= amount).then_some(Span { curve: self.curve, low, high: self.high })
    }

    /// The amount with the greatest value − lambda · amount.
    pub(super) fn best(&self, lambda: f64) -> f64 {
        if let Some(span) = self.span() {
            return span.curve.best(lambda, span.low, span.high);
        }
        let net = |x: f64| self.curve.value(x) - lambda * x;
        let mut best = self.low;
        let mut offer = |x: f64| {
            if x <= self.high && net(x) > net(best) {
                best = x;
            }
        };
        match self.curve {
            Curve::Menu(lots) => lots.iter().for_each(|lot| offer(lot.cost)),
            curve => {
                let from = self.low.max(self.ticket);
                offer(from);
                // Convex before the inflection: nothing between its ends is best.
                let from = curve.concave_from().unwrap_or(0.0).max(from);
                if from <= self.high {
                    offer(curve.best(lambda, from, self.high));
                }
                offer(self.high);
            }
        }
        best
    }

    /// What the grid offers beyond `low`: steps taken, amount, and value − hurdle · amount. The first takes none.
    fn offers(&self, step: f64, steps: usize, hurdle: f64) -> Vec<Offer> {
        let offer = |beyond: f64, amount: f64| {
            let steps = (beyond / step).ceil() as usize; // not negative, and bounded by the filter below
            Offer { steps, amount, net: self.curve.value(amount) - hurdle * amount }
        };
        let mut offers = vec![offer(0.0, self.low)];
        match self.curve {
            Curve::Menu(lots) => {
                offers.extend(lots.iter().filter(|lot| lot.cost <= self.high).map(|lot| offer(lot.cost, lot.cost)));
            }
            _ => {
                let from = self.ticket.max(self.low);
                let first = usize::from(self.ticket <= self.low);
                for k in first..=steps + 1 {
                    let amount = from + k as f64 * step;
                    if from > self.high {
                        break;
                    }
                    offers.push(offer(amount.min(self.high) - self.low, amount.min(self.high)));
                    if amount >= self.high {
                        break;
                    }
                }
            }
        }
        offers.retain(|offer| offer.steps <= steps);
        offers
    }
}

#[derive(Debug, Clone, Copy)]
struct Offer {
    steps: usize,
    amount: f64,
    net: f64,
}

/// Splits `budget`, which pays for all lows.
pub fn split(choices: &[Choice], budget: f64, hurdle: f64, stop: Stop) -> Result<Split, Stopped> {
    split_coarsely(choices, budget, hurdle, MAX_STEPS, stop)
}

/// The same on a grid of at most so many steps.
pub fn split_coarsely(choices: &[Choice], budget: f64, hurdle: f64, steps: f64, stop: Stop) -> Result<Split, Stopped> {
    if stop() {
        return Err(Stopped);
    }
    let spans: Vec<Option<Span>> = choices.iter().map(Choice::span).collect();
    let rough: Vec<usize> = (0..choices.len()).filter(|i| spans[*i].is_none()).collect();
    let smooth: Vec<Span> = spans.iter().flatten().copied().collect();
    let crossing = cross(|lambda| choices.iter().map(|c| c.best(lambda)).sum(), budget, hurdle);
    let bound = dual(choices, budget, crossing.high).min(dual(choices, budget, crossing.low.max(hurdle)));
    let (amounts, multiplier, step) = if rough.is_empty() {
        let Filled { amounts, multiplier, .. } = fill(&smooth, budget, hurdle);
        (amounts, multiplier, None)
    } else {
        let lows: f64 = choices.iter().map(|c| c.low).sum();
        let step = ((budget - lows) / steps).ceil().max(1.0);
        let decided = on_grid(choices, &rough, &smooth, Grid { budget, lows, step, hurdle }, stop)?;
        let (amounts, multiplier) = refine(choices, decided, budget, hurdle);
        (amounts, multiplier.unwrap_or(crossing.high), Some(step))
    };
    let left = (budget - amounts.iter().sum::<f64>()).max(0.0);
    let objective = worth(choices, &amounts) + hurdle * left;
    Ok(Split { amounts, multiplier, left, objective, bound: bound.max(objective), step })
}

/// The value of a split.
pub fn worth(choices: &[Choice], amounts: &[f64]) -> f64 {
    choices.iter().zip(amounts).map(|(choice, x)| choice.curve.value(*x)).sum()
}

/// What no split exceeds, for any multiplier at the hurdle or above: each item alone at its best, the budget at the multiplier's price.
pub(super) fn dual(choices: &[Choice], budget: f64, lambda: f64) -> f64 {
    let alone = |choice: &Choice| {
        let x = choice.best(lambda);
        choice.curve.value(x) - lambda * x
    };
    choices.iter().map(alone).sum::<f64>() + lambda * budget
}

#[derive(Debug, Clone, Copy)]
struct Grid {
    budget: f64,
    lows: f64,
    step: f64,
    hurdle: f64,
}

/// The best split whose rough items stand on the grid: amounts by choice.
fn on_grid(choices: &[Choice], rough: &[usize], smooth: &[Span], grid: Grid, stop: Stop) -> Result<Vec<f64>, Stopped> {
    let Grid { budget, lows, step, hurdle } = grid;
    let rest = (budget - lows).max(0.0);
    let steps = (rest / step).floor() as usize; // at most MAX_STEPS
    // best[b]: the most that the rough items so far bring with at most b steps; taken[i][b]: which offer of the i-th that takes.
    let mut best = vec![0.0; steps + 1];
    let mut taken: Vec<(Vec<Offer>, Vec<usize>)> = Vec::with_capacity(rough.len());
    for i in rough {
        if stop() {
            return Err(Stopped);
        }
        let offers = choices[*i].offers(step, steps, hurdle);
        let mut next = vec![f64::NEG_INFINITY; steps + 1];
        let mut which = vec![0; steps + 1];
        for (nr, offer) in offers.iter().enumerate() {
            for b in offer.steps..=steps {
                let net = best[b - offer.steps] + offer.net;
                if net > next[b] {
                    (next[b], which[b]) = (net, nr);
                }
            }
        }
        best = next;
        taken.push((offers, which));
    }
    let (mut b, filled) = beside(&best, smooth, grid, stop)?;
    let mut amounts = vec![0.0; choices.len()];
    for (i, (offers, which)) in rough.iter().zip(&taken).rev() {
        let offer = offers[which[b]];
        amounts[*i] = offer.amount;
        b -= offer.steps;
    }
    let mut filled = filled.amounts.into_iter();
    for (i, amount) in amounts.iter_mut().enumerate() {
        if !rough.contains(&i) {
            *amount = filled.next().unwrap_or(choices[i].low);
        }
    }
    Ok(amounts)
}

/// How many steps go to the rough items, and how the concave ones share the rest. The concave part is a concave function of its
/// budget, so each trial bounds all others by a tangent, and most are never made.
fn beside(best: &[f64], smooth: &[Span], grid: Grid, stop: Stop) -> Result<(usize, Filled), Stopped> {
    let rest = (grid.budget - grid.lows).max(0.0);
    let smooth_lows: f64 = smooth.iter().map(|s| s.low).sum();
    let mut ceiling = vec![f64::INFINITY; best.len()];
    let mut found: Option<(f64, usize, Filled)> = None;
    let mut next = 0;
    for _ in 0..MAX_TRIALS {
        if stop() {
            return Err(Stopped);
        }
        let filled = fill(smooth, smooth_lows + rest - next as f64 * grid.step, grid.hurdle);
        let worth: f64 = smooth.iter().zip(&filled.amounts).map(|(s, x)| s.curve.value(*x) - grid.hurdle * x).sum();
        let slope = filled.multiplier - grid.hurdle;
        for (b, ceiling) in ceiling.iter_mut().enumerate() {
            *ceiling = ceiling.min(worth + slope * grid.step * (next as f64 - b as f64));
        }
        ceiling[next] = f64::NEG_INFINITY; // tried
        if found.as_ref().is_none_or(|(net, ..)| best[next] + worth > *net) {
            found = Some((best[next] + worth, next, filled));
        }
        let promise = |b: &usize| best[*b] + ceiling[*b];
        let most = (0..best.len()).max_by(|a, b| promise(a).total_cmp(&promise(b))).unwrap_or(0);
        let net = found.as_ref().map_or(f64::NEG_INFINITY, |(net, ..)| *net);
        if promise(&most) <= net + net.abs() * 1e-12 {
            break;
        }
        next = most;
    }
    let (_, b, filled) = found.unwrap_or_else(|| (0.0, 0, fill(smooth, smooth_lows + rest, grid.hurdle)));
    Ok((b, filled))
}

/// Leaves the grid: what stands on a concave stretch is split exactly, with all money that the grid's steps could not place. The
/// multiplier is None when nothing stands on one.
fn refine(choices: &[Choice], decided: Vec<f64>, budget: f64, hurdle: f64) -> (Vec<f64>, Option<f64>) {
    let spans: Vec<Option<Span>> = choices.iter().zip(&decided).map(|(choice, amount)| choice.span_at(*amount)).collect();
    let smooth: Vec<Span> = spans.iter().flatten().copied().collect();
    if smooth.is_empty() {
        return (decided, None);
    }
    let fixed: f64 = spans.iter().zip(&decided).filter(|(span, _)| span.is_none()).map(|(_, amount)| amount).sum();
    let filled = fill(&smooth, budget - fixed, hurdle);
    let mut amounts = filled.amounts.into_iter();
    let refined = spans.iter().zip(&decided).map(|(span, amount)| match span {
        Some(_) => amounts.next().unwrap_or(*amount),
        None => *amount,
    });
    let refined: Vec<f64> = refined.collect();
    let net = |amounts: &[f64]| worth(choices, amounts) - hurdle * amounts.iter().sum::<f64>();
    let better = if net(&refined) >= net(&decided) { refined } else { decided };
    (better, Some(filled.multiplier))
}
