//! How a member stands, by its own id and wherever that leads: what readers of the feed keep of members.

use super::{consent::Purpose, merge::MergeId};
use koc_chassis::ids::{MemberId, ProgrammeId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub suspended: bool,
    /// For what it withdrew its consent.
    pub withdrawn: Vec<Purpose>,
    pub version: i64,
    /// The last by which it was merged into another.
    pub last_merge: Option<LastMerge>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastMerge {
    pub merge: MergeId,
    /// May be merged in turn.
    pub winner: MemberId,
    pub undone: bool,
}
