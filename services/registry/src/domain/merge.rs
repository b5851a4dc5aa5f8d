//! Merges: two members that turn out to be one person. One goes on, the winner; the other's id leads to it from then on. What the winner
//! takes is what it would have if all that is known had always been told of it alone, so that it does not matter whether a source system
//! sends its rows before the merge or after it.
//!
//! A merge can be undone as long as it is the last that the winner took part in. The loser is then what it was; of what it brought it gets
//! back what is still as it was brought, and what happened since stays with the winner.

use super::{member::State, profile::Field, sync::Stamp};
use koc_chassis::ids::MemberId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

koc_chassis::typed_id! {
    /// One merge.
    MergeId,
}

/// Members whose ids lead to one winner.
pub const MAX_MERGED: i64 = 100;

/// The fields that the winner took.
pub type Taken = BTreeMap<Field, TakenField>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenField {
    /// The winner's stamp before; None where it had none.
    pub before: Option<Stamp>,
    /// The loser's stamp: while the winner has it, nobody has written the field since.
    pub taken: Stamp,
}

/// How a member stands that is to be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub member: MemberId,
    pub state: State,
    pub merged_into: Option<MemberId>,
}

/// Why members are not merged, or not parted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the member {member} was merged into {into}")]
    Merged { member: MemberId, into: MemberId },
    #[error("the member {member} is suspended; it must be reinstated first")]
    Suspended { member: MemberId },
    #[error("the member {member} was erased")]
    Erased { member: MemberId },
    #[error("at most {MAX_MERGED} members are merged into one; there would be {count}")]
    TooMany { winner: MemberId, count: i64 },
    #[error("the member {member} is not merged")]
    NotMerged { member: MemberId },
    #[error("another merge came after this one: {first} must be unmerged first")]
    NotLast { member: MemberId, first: MemberId },
}

/// Whether these two may be merged; `count` members would then lead to the winner. As neither leads elsewhere, no circle can come of it.
pub fn check(standings: [Standing; 2], count: i64) -> Result<(), Refusal> {
    for Standing { member, state, merged_into } in standings {
        if let Some(into) = merged_into {
            return Err(Refusal::Merged { member, into });
        }
        match state {
            State::Active => {}
            State::Suspended => return Err(Refusal::Suspended { member }),
            State::Erased => return Err(Refusal::Erased { member }),
        }
    }
    match count {
        ..=MAX_MERGED => Ok(()),
        _ => Err(Refusal::TooMany { winner: standings[0].member, count }),
    }
}
