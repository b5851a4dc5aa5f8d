//! Finding members by name and handle.

use super::text::storable;
use koc_chassis::{fault::Violation, ids::MemberId};
use uuid::Uuid;

/// How a name matches what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    Whole,
    Beginning,
    Part,
}

impl Match {
    /// Best first, from 0.
    pub fn rank(self) -> i32 {
        match self {
            Self::Whole => 0,
            Self::Beginning => 1,
            Self::Part => 2,
        }
    }

    pub fn of_rank(rank: i32) -> Self {
        match rank {
            0 => Self::Whole,
            1 => Self::Beginning,
            _ => Self::Part,
        }
    }
}

/// A member that was found: where a page ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub member: MemberId,
    pub matched: Match,
}

impl Place {
    /// As in a page token.
    pub fn key(&self) -> String {
        format!("{}/{}", self.matched.rank(), self.member)
    }

    pub fn of_key(key: &str) -> Option<Self> {
        let (rank, member) = key.split_once('/')?;
        let matched = Match::of_rank(rank.parse().ok()?);
        Some(Self { member: MemberId(Uuid::try_parse(member).ok()?), matched })
    }
}

/// One letter of the Latin alphabet is in nearly every handle, and blanks and punctuation are not compared: QUERY_TOO_SHORT unless there
/// are two characters that are, or one that is not ASCII.
pub fn check_query(text: &str) -> Result<(), Violation> {
    storable("query", text)?;
    let letters = text.chars().filter(|c| !c.is_whitespace() && !c.is_ascii_punctuation());
    let weight: usize = letters.map(|c| if c.is_ascii() { 1 } else { 2 }).take(2).sum();
    match weight {
        0 | 1 => Err(Violation::new("query", "QUERY_TOO_SHORT", "must have two letters or digits, or one that is not ASCII")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_two_letters_or_one_chinese_character() {
        for text in ["小", "ab", " a-1", "é"] {
            assert_eq!(check_query(text), Ok(()), "{text}");
        }
        for (text, rule) in
            [("a", "QUERY_TOO_SHORT"), (" _-", "QUERY_TOO_SHORT"), ("", "QUERY_TOO_SHORT"), ("ab\0", "TEXT_UNSTORABLE")]
        {
            assert_eq!(check_query(text).expect_err(text).rule, rule, "{text}");
        }
    }

    #[test]
    fn places_survive_their_tokens() {
        for matched in [Match::Whole, Match::Beginning, Match::Part] {
            let place = Place { member: MemberId(Uuid::from_u128(7)), matched };
            assert_eq!(Place::of_key(&place.key()), Some(place));
        }
        assert_eq!(Place::of_key("1/x"), None);
    }
}
