//! Work of several steps.

pub mod apply_batch;
pub mod find_members;
