//! What takes several parts of the service, or goes on in the background.

pub mod fact;
pub mod post_operations;

pub mod chain_ledger;
pub mod expire_reservations;
pub mod hold_reserve;
pub mod lapse_draw;

pub mod estimate_cost;
pub mod move_grant;
