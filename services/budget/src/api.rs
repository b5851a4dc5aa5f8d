//! The service's RPCs: decode, call, encode.

mod booking;
mod convert;
mod cost_estimate;
mod cost_model;
mod error;
mod grant;
mod ledger;
mod member_limit;
mod memo;
mod plan;
mod rate_table;
mod reservation;
mod reserve_draw;
mod resource;
mod stock;

use crate::{
    error::Error,
    peer::{Currencies, Members},
};
use koc_chassis::gate::Gate;
use std::sync::Arc;

/// What all RPCs stand on.
#[derive(Clone)]
pub struct Api {
    pub gate: Gate<Error>,
    pub currencies: Arc<Currencies>,
    pub members: Members,
}

koc_chassis::feed_service!(koc_proto::koc::budget::v1, Error);
