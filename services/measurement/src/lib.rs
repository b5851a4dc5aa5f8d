//! The measurement service (to what end): outputs and their readings, what they were worth, spikes, and where the next money
//! should go.

pub mod domain;
