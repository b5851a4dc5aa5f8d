//! What an output was worth, and what follows from it.
//!
//! Everything here is arithmetic on arguments: no input or output, no clock, no global random numbers. A time or a
//! seed that matters is a parameter, so each result can be computed again from what was stored beside it.
//!
//! Amounts are `i64` minor units of the programme's currency and end in `_minor`. Estimates are `f64`; one becomes
//! money in a single place, [`money::round_to_minor`], half to even. Ratios, probabilities and percentiles are plain
//! decimals (0.25, not 25), scores that people see run from 0 to 100.

pub mod appraisal;
pub mod attainment;
pub mod cohort;
pub mod decision;
pub mod digest;
pub mod distribution;
pub mod error;
pub mod ids;
pub mod judgement;
pub mod maturity;
pub mod money;
pub mod output;
pub mod period;
pub mod policy;
pub mod posterior;
pub mod progress;
pub mod reading;
pub mod round;
pub mod spike;
pub mod tier_proposal;
pub mod types;
pub mod value;

pub use error::InputError;
