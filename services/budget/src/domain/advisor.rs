//! Advice on the best split of money (预算分配建议): the greatest expected value, given what amounts bring and what policy allows.
//!
//! maximise Σ fᵢ(xᵢ) + h · unspent, with Σ xᵢ + unspent = total and each xᵢ within its range. `h` is the hurdle. Concave curves share one
//! marginal value λ, found by bisection ([`concave`]); what is S-shaped or indivisible is decided on a grid ([`grid`]); groups of items
//! may have bounds of their own ([`hierarchy`]). Solutions are real numbers; they become minor units once ([`rounding`]). The floats here
//! propose; no float ever posts.

pub mod advice;
pub mod concave;
pub mod curve;
pub mod grid;
pub mod hierarchy;
pub mod question;
pub mod rounding;

#[cfg(test)]
mod conic;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod tests;

/// What computed an answer: to be changed whenever the same question may get another answer.
pub const VERSION: &str = "advisor/2";

/// The most items of a question.
pub const MAX_ITEMS: usize = 1_000;
/// The most items that come in lots or tickets or along an S: each takes time of the order of the grid squared.
pub const MAX_INDIVISIBLE: usize = 200;
/// The most groups of a question: each that a bound holds is solved for once more.
pub const MAX_GROUPS: usize = 20;
/// The most money of a question, in minor units: within it a double tells single minor units apart.
pub const MAX_TOTAL_MINOR: i64 = 100_000_000_000_000;

/// Whoever asked has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Says whether to stop.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);
