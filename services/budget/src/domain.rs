//! What money may do. Nothing here knows of a database, a network or the clock.
//!
//! The invariants, which the property tests in [`books`] hold and the database checks once more:
//!
//! 1. For each envelope: allocated = available + reserved + committed + spent, and none of them is below zero.
//! 2. For each reservation: amount = reserved + committed + spent + released, none below zero; amount, spent and released
//!    never fall, so each minor unit leaves `reserved` once.
//! 3. An envelope's reserved, committed and spent are the sums of its reservations'.
//! 4. A member limit's use is what the member's reservations in its plans hold, owe and have paid, and a reservation never
//!    takes it past the limit.
//! 5. All of these are the sums of the ledger's entries, whose sequence in each envelope is dense.
//! 6. A refusal moves no money, and a refusal for money has asked > available.

/// An enum whose values stand as text in the database.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }
        }
    };
}

pub mod balances;
pub mod period;

pub mod plan;
pub mod reservation;

pub mod books;
pub mod refusal;

pub mod ledger;
pub mod verification;

pub mod advisor;
pub mod member_limit;
pub mod reserve_draw;
pub mod reserve_policy;
