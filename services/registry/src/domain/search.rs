//! Finding members by name and handle.

use super::{profile::Profile, text::storable};
use koc_chassis::{
    fault::Violation,
    ids::{MemberId, ProgrammeId},
};
use std::collections::BTreeSet;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};
use uuid::Uuid;

/// A name as it is compared: compatibility forms made plain (full width, ligatures), in small letters, without blanks and punctuation.
pub fn compared(name: &str) -> String {
    name.nfkc().flat_map(char::to_lowercase).filter(|c| is_compared(*c)).collect()
}

/// What is no letter of any kind is left out, but for symbols that are not ASCII: some call themselves by these alone.
fn is_compared(c: char) -> bool {
    use GeneralCategoryGroup::{Other, Punctuation, Separator};
    match c.is_ascii() {
        true => c.is_ascii_alphanumeric(),
        false => !matches!(c.general_category_group(), Other | Punctuation | Separator),
    }
}

/// By what a member is found: its name and its handles, as they are compared, each once.
pub fn names(profile: &Profile) -> BTreeSet<String> {
    let handles = profile.channels.iter().map(|channel| channel.handle.as_str());
    handles.chain([profile.display_name.as_str()]).map(compared).filter(|name| !name.is_empty()).collect()
}

/// Bits of a character in a gram, and of one that is ASCII.
const CHARACTER: u32 = 21;
const ASCII: u32 = 7;

/// What an index holds of names that are compared: each two characters, and besides one that is not ASCII (a Chinese name has few) or
/// three that are (two are in too many names). A gram is a number: from its lowest bit 42 for the characters, two for how many they are,
/// and the last 20 of the programme's id, so that programmes hardly ever share entries.
pub fn grams<'a>(programme: ProgrammeId, names: impl IntoIterator<Item = &'a String>) -> BTreeSet<i64> {
    let (_, low) = programme.0.as_u64_pair();
    let gram = |characters: &[char], bits: u32| {
        let code = characters.iter().fold(0, |code, c| code << bits | u64::from(u32::from(*c)));
        ((low << 44) | (characters.len() as u64) << 42 | code).cast_signed()
    };
    let mut grams = BTreeSet::new();
    for name in names {
        let characters: Vec<char> = name.chars().collect();
        grams.extend(characters.windows(2).map(|two| gram(two, CHARACTER)));
        grams.extend(characters.chunks(1).filter(|one| !one[0].is_ascii()).map(|one| gram(one, CHARACTER)));
        grams.extend(characters.windows(3).filter(|three| three.iter().all(char::is_ascii)).map(|three| gram(three, ASCII)));
    }
    grams
}

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
    let letters = compared(text);
    let weight: usize = letters.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).take(2).sum();
    match weight {
        0 | 1 => Err(Violation::new("query", "QUERY_TOO_SHORT", "must have two letters or digits, or one that is not ASCII")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_compared_by_their_letters_alone() {
        for (name, as_compared) in [
            ("Lei_Li.1990", "leili1990"),
            ("ＡＢＣ　车主！", "abc车主"),
            ("阿卜杜拉·买买提", "阿卜杜拉买买提"),
            ("ÉLAN—Straße", "élanstraße"),
            ("ﬁn 100%", "fin100"),
            ("🚗🚗", "🚗🚗"),
            ("。，！", ""),
        ] {
            assert_eq!(compared(name), as_compared, "{name}");
            assert_eq!(compared(as_compared), as_compared);
        }
    }

    proptest! {
        /// Whoever has a name is found by each part of it that may be asked for.
        #[test]
        fn a_part_of_a_name_has_only_grams_of_the_name(name in "[a-z0-9王小明é🚗]{2,12}", from in 0_usize..12, length in 1_usize..12) {
            let part: String = name.chars().skip(from).take(length).collect();
            let of = |text: &String| grams(ProgrammeId(Uuid::from_u128(7)), [text]);
            prop_assert!(of(&part).is_subset(&of(&name)));
            prop_assert_eq!(of(&part).is_empty(), check_query(&part).is_err());
            let elsewhere = grams(ProgrammeId(Uuid::from_u128(8)), [&part]);
            prop_assert!(of(&part).is_disjoint(&elsewhere));
        }

        /// No two grams are one number.
        #[test]
        fn grams_tell_all_that_they_are_of(names in prop::collection::btree_set("[a-c王\\x{10FFFD}]{1,3}", 2)) {
            let of = |text: &String| grams(ProgrammeId(Uuid::from_u128(7)), [text]).into_iter().max();
            let whole: Vec<&String> = names.iter().filter(|n| n.is_ascii() && n.len() > 1 || !n.is_ascii() && n.chars().count() < 3).collect();
            let numbers: BTreeSet<_> = whole.iter().map(|name| of(name)).collect();
            prop_assert!(numbers.len() == whole.len());
        }
    }

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
