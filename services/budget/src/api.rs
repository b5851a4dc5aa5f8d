//! The service's RPCs: decode, call, encode.

mod advisor;
mod amendment;
mod booking;
mod convert;
mod cost_estimate;
mod cost_model;
mod draft;
mod error;
mod grant;
mod ledger;
mod member_limit;
mod memo;
mod plan;
mod plan_summary;
mod promotion;
mod rate_table;
mod reservation;
mod reserve_draw;
mod reserve_policy;
mod resource;
mod stock;

use crate::{
    error::Error,
    flow::lane::{ById, Lane},
    peer::{Currencies, Members},
};
use koc_chassis::{gate::Gate, lane};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What all RPCs stand on.
#[derive(Clone)]
pub struct Api {
    pub gate: Gate<Error>,
    pub currencies: Arc<Currencies>,
    pub members: Members,
    /// Where operations on money wait to be decided together.
    pub operations: Lane,
    /// Turns of the advisor: it leaves a part of the machine to the others.
    pub advice: Arc<Semaphore>,
    /// Where reads of a reservation wait for each other.
    pub reads: lane::Lane<lane::Reading<ById>>,
}

pub use advisor::turns as advisor_turns;
pub use cost_estimate::usage as usage_of;

koc_chassis::feed_service!(koc_proto::koc::budget::v1, Error);
