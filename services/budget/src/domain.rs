//! What money may do. Nothing here knows of a database, a network or the clock.
//!
//! The invariants, which the property tests in [`books`] hold and the database checks once more:
//!
//! 1. For each envelope: allocated = available + reserved + committed + spent; none of them is below zero but available, which
//!    falls no further than the overrun limit lets it.
//! 2. For each reservation: amount = reserved + committed + spent + released, none below zero; amount and released never fall, spent
//!    only by a reversal, so each minor unit leaves `reserved` once unless a reversal brings it back. A reversal names the entry it
//!    undoes, once at most and never for more than its amount.
//! 3. An envelope's reserved, committed and spent are the sums of its reservations'.
//! 4. A member limit's use is what the member's reservations in its plans hold, owe and have paid, and a reservation never
//!    takes it past the limit.
//! 5. All of these are the sums of the ledger's entries, whose sequence in each envelope is dense.
//! 6. What an envelope holds with its children is a sum: it is never less than theirs, and only envelopes without children hold reservations.
//! 7. A refusal moves no money, and a refusal for money has asked > available, what is left of an overrun included.

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

/// Keeps such an enum as its text in JSON.
macro_rules! serde_text {
    ($name:ident) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| ::serde::de::Error::custom("a value that is not known"))
            }
        }
    };
}

pub mod balances;
pub mod period;

pub mod approval;
pub mod envelope;
pub mod pace;
pub mod plan;
pub mod resource_kind;

pub mod amendment;
pub mod reservation;
pub mod reversal;

pub mod books;
pub mod refusal;

pub mod ledger;
pub mod verification;

pub mod advisor;
pub mod member_limit;
pub mod reserve_draw;
pub mod reserve_policy;

pub mod cost;
pub mod resource;

pub mod barred;
pub mod grant;
pub mod promotion;
pub mod stock;
