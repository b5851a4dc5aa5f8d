//! The service's RPCs: decode, call, encode.

mod convert;
mod cost_estimate;
mod cost_model;
mod error;
mod ledger;
mod member_limit;
mod plan;
mod rate_table;
mod reservation;
mod reserve_draw;
mod resource;

use crate::{error::Error, peer::Currencies};
use koc_chassis::gate::Gate;
use std::sync::Arc;

/// What all RPCs stand on.
#[derive(Clone)]
pub struct Api {
    pub gate: Gate<Error>,
    pub currencies: Arc<Currencies>,
}

koc_chassis::feed_service!(koc_proto::koc::budget::v1, Error);
