//! What takes several parts of the service, or goes on in the background.

pub mod fact;
pub mod lane;
pub mod post_operations;

pub mod apply_amendment;
pub mod chain_ledger;
pub mod checkpoint_balances;
pub mod expire_reservations;
pub mod hold_reserve;
pub mod lapse;
pub mod verify_ledger;

pub mod follow_registry;
pub mod open_promotion;

pub mod erase_member;
pub mod estimate_cost;
pub mod move_grant;
