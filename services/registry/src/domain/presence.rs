//! Whether a source system still has a person. Of two words of the source on one identity the later counts, of two of the same time the
//! deletion: that is a total order, so the words may come in any order and any number of times.

use super::member::{State, SuspensionCause};
use chrono::{DateTime, Utc};

/// A word on an identity. The derived order is the one in which words count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Presence {
    pub time: DateTime<Utc>,
    pub deleted: bool,
}

/// An identity while the rows of a batch speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The last word; None before the source has spoken: a caller who made the member named the identity.
    pub last: Option<Presence>,
}

impl Standing {
    pub fn is_deleted(self) -> bool {
        self.last.is_some_and(|last| last.deleted)
    }

    /// Takes a word in; whether the identity was deleted, or brought back, by it.
    pub fn hear(&mut self, word: Presence) -> bool {
        let before = self.is_deleted();
        self.last = self.last.max(Some(word));
        self.is_deleted() != before
    }
}

/// The state of a member after identities of it were deleted or came back, and `live` are left; None when it stays. Whom a caller has
/// suspended stays so, and whom a caller has reinstated takes part until the next deletion.
pub fn settle(state: State, cause: Option<SuspensionCause>, live: i64) -> Option<State> {
    match (state, cause, live) {
        (State::Active, _, 0) => Some(State::Suspended),
        (State::Suspended, Some(SuspensionCause::SourceDeleted), 1..) => Some(State::Active),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    fn word(second: i64, deleted: bool) -> Presence {
        Presence { time: DateTime::UNIX_EPOCH + TimeDelta::seconds(second), deleted }
    }

    #[test]
    fn a_later_row_brings_a_deleted_identity_back_and_an_earlier_one_does_not() {
        let mut standing = Standing::default();
        assert!(!standing.hear(word(1, false)));
        assert!(standing.hear(word(3, true)) && standing.is_deleted());
        assert!(!standing.hear(word(2, false)) && standing.is_deleted());
        assert!(standing.hear(word(4, false)) && !standing.is_deleted());
    }

    #[test]
    fn of_two_words_of_the_same_time_the_deletion_counts() {
        for words in [[word(1, true), word(1, false)], [word(1, false), word(1, true)]] {
            let mut standing = Standing::default();
            for word in words {
                standing.hear(word);
            }
            assert!(standing.is_deleted());
        }
    }

    #[test]
    fn a_member_without_a_live_identity_is_suspended_and_comes_back_with_one_unless_a_caller_suspended_it() {
        assert_eq!(settle(State::Active, None, 0), Some(State::Suspended));
        assert_eq!(settle(State::Active, None, 1), None);
        assert_eq!(settle(State::Suspended, Some(SuspensionCause::SourceDeleted), 1), Some(State::Active));
        assert_eq!(settle(State::Suspended, Some(SuspensionCause::SourceDeleted), 0), None);
        assert_eq!(settle(State::Suspended, Some(SuspensionCause::Caller), 1), None);
    }

    proptest! {
        #[test]
        fn words_in_any_order_end_the_same(
            (words, shuffled) in prop::collection::vec((0..4i64, any::<bool>()), 1..10)
                .prop_flat_map(|words| (Just(words.clone()), Just(words).prop_shuffle()))
        ) {
            let end = |words: &[(i64, bool)]| {
                let mut standing = Standing::default();
                for (second, deleted) in words {
                    standing.hear(word(*second, *deleted));
                }
                standing
            };
            prop_assert_eq!(end(&words), end(&shuffled));
        }
    }
}
