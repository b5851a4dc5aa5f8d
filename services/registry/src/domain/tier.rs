//! Tiers (层级), and who rises and falls: [`policy`] has the rules, [`standing`] what is known of a member, [`verdict`] what becomes of it.

pub mod dry_run;
pub mod policy;
pub mod standing;
pub mod verdict;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use policy::{Policy, Rules};
pub use standing::{Candidate, Consumed, Proposal, Reading, Review, Standing};
pub use verdict::{Rooms, Verdict, judge};

use super::name::named;

named! {
    /// Classes of resources that the members of a tier get (资源类别).
    ResourceClass {
        Inclusive = "INCLUSIVE",
        Incentive = "INCENTIVE",
        Exclusive = "EXCLUSIVE",
    }
}

named! {
    /// What an evaluation makes of a member, or a person of its tier.
    Outcome {
        Rose = "ROSE",
        Fell = "FELL",
        Stayed = "STAYED",
        Reviewed = "REVIEWED",
        Dormant = "DORMANT",
        Cleared = "CLEARED",
        Assigned = "ASSIGNED",
        HoldEnded = "HOLD_ENDED",
    }
}

/// A tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    pub id: String,
    /// 1 is the lowest.
    pub rank: i32,
    pub resource_class: ResourceClass,
}

/// The tiers that a new programme begins with, lowest first: 底座, 中坚, 塔尖.
pub fn default_tiers() -> Vec<Tier> {
    [("BASE", ResourceClass::Inclusive), ("CORE", ResourceClass::Incentive), ("APEX", ResourceClass::Exclusive)]
        .into_iter()
        .zip(1..)
        .map(|((id, resource_class), rank)| Tier { id: id.to_owned(), rank, resource_class })
        .collect()
}

/// The tier above one and the tier below it. `tiers` are the programme's, lowest first.
pub fn neighbours<'t>(tiers: &'t [Tier], tier_id: &str) -> (Option<&'t Tier>, Option<&'t Tier>) {
    let rank = tiers.iter().find(|tier| tier.id == tier_id).map_or(0, |tier| tier.rank);
    (tiers.iter().find(|tier| tier.rank > rank), tiers.iter().rev().find(|tier| tier.rank < rank))
}
