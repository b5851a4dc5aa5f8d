//! The exact split among concave curves: one multiplier for all, found by bisection on a logarithmic scale.

use super::curve::Curve;

/// How often the multiplier is halved; 60 are enough for a double's digits.
const MAX_HALVINGS: u32 = 200;
/// Beyond these no marginal value is told apart from nothing, or from all.
const SMALLEST: f64 = 1e-280;
const LARGEST: f64 = 1e280;
/// How far the search for a multiplier steps.
const STRIDE: f64 = 1024.0;

/// A curve over a range on which it is concave.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    pub curve: &'a Curve,
    pub low: f64,
    pub high: f64,
}

/// A split.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    pub amounts: Vec<f64>,
    /// What one more would bring; the hurdle when money is left.
    pub multiplier: f64,
    pub left: f64,
}

/// Two multipliers between which the demand crosses the budget; equal when it stays below at the hurdle already.
#[derive(Debug, Clone, Copy)]
pub struct Crossing {
    /// Here the demand is above the budget.
    pub low: f64,
    /// Here it is not.
    pub high: f64,
}

/// Finds where a demand that falls with the multiplier crosses the budget, at the hurdle or above.
pub fn cross(demand: impl Fn(f64) -> f64, budget: f64, hurdle: f64) -> Crossing {
    if demand(hurdle) <= budget {
        return Crossing { low: hurdle, high: hurdle };
    }
    let mut low = hurdle;
    let mut high = hurdle.max(1.0);
    while high < LARGEST && demand(high) > budget {
        low = high;
        high *= STRIDE;
    }
    // Downwards where the first guess was too high already: unless the hurdle is just below.
    while low < SMALLEST {
        let next = high / STRIDE;
        if next < SMALLEST {
            return Crossing { low: 0.0, high };
        }
        if demand(next) > budget {
            low = next;
        } else {
            high = next;
        }
    }
    for _ in 0..MAX_HALVINGS {
        if high / low - 1.0 < 4.0 * f64::EPSILON {
            break;
        }
        let middle = low.sqrt() * high.sqrt();
        if middle <= low || middle >= high {
            break;
        }
        if demand(middle) > budget {
            low = middle;
        } else {
            high = middle;
        }
    }
    Crossing { low, high }
}

/// Splits `budget`, of which the spans' lows are a part, and leaves what would bring less than `hurdle`. The amounts and what is left
/// sum to the budget.
pub fn fill(spans: &[Span], budget: f64, hurdle: f64) -> Filled {
    let amounts = |lambda: f64| spans.iter().map(move |s| s.curve.best(lambda, s.low, s.high));
    let found = cross(|lambda| amounts(lambda).sum(), budget, hurdle);
    let above: Vec<f64> = amounts(found.high).collect();
    let spent: f64 = above.iter().sum();
    if found.low >= found.high {
        return Filled { amounts: above, multiplier: hurdle, left: (budget - spent).max(0.0) };
    }
    // What the last digit of the multiplier leaves goes to where it makes a difference.
    let below: Vec<f64> = amounts(found.low).collect();
    let room = below.iter().sum::<f64>() - spent;
    let part = if room > 0.0 { ((budget - spent) / room).clamp(0.0, 1.0) } else { 0.0 };
    let amounts = above.iter().zip(&below).map(|(above, below)| above + part * (below - above)).collect();
    Filled { amounts, multiplier: found.high, left: 0.0 }
}
