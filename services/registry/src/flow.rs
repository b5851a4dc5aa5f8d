//! Work of several steps.

pub mod apply_batch;
