//! What happens in several steps, or because of what other services tell.

pub mod apply_decision;
pub mod erase_member;
pub mod follow_feeds;
pub mod follow_registry;
pub mod open_draw;
pub mod open_programme;
pub mod record_observations;
pub mod run_decisions;

use crate::domain::InputError;
use koc_chassis::job::{Job, JobError};
use serde::{Serialize, de::DeserializeOwned};

/// The state of a job, as the type it was written from.
fn state_of<T: DeserializeOwned>(job: &Job) -> Result<T, JobError> {
    serde_json::from_value(job.state.clone()).map_err(|error| JobError::Broken(format!("the job's state: {error}")))
}

fn to_state(state: &impl Serialize) -> Result<serde_json::Value, JobError> {
    serde_json::to_value(state).map_err(|error| JobError::Broken(format!("the job's state: {error}")))
}

fn broken(error: InputError) -> JobError {
    JobError::Broken(error.to_string())
}
