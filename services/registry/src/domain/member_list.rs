//! What members are listed by. Each field here has an index that serves it: what has none is not offered.

use super::{
    filter::{Fields, Operator, Wrong},
    member::{State, TrustLevel},
    profile::Motivation,
};
use chrono::{DateTime, Utc};
use koc_chassis::{fault::Violation, ids::MemberId, page};
use uuid::Uuid;

/// Fields of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    TierId,
    RegionCode,
    TrustLevel,
    State,
    CreateTime,
    UpdateTime,
    Motivations,
    Platform,
}

/// A column with text of which there are any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    TierId,
    RegionCode,
}

/// A column with a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Create,
    Update,
}

/// A comparison that an index serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    Text { column: Text, is: bool, value: String },
    TrustLevel(Vec<TrustLevel>),
    State(Vec<State>),
    Time { column: Time, operator: Operator, value: DateTime<Utc> },
    Motivation(Motivation),
    Platform(String),
}

/// Those of `all` that are, or are not, the one named.
fn one_of<T: Copy + PartialEq>(operator: Operator, named: Option<T>, all: &[T], shape: &'static str) -> Result<Vec<T>, Wrong> {
    let is = equality(operator)?;
    let named = named.ok_or(Wrong::Value(shape))?;
    Ok(all.iter().copied().filter(|one| (*one == named) == is).collect())
}

fn equality(operator: Operator) -> Result<bool, Wrong> {
    match operator {
        Operator::Equal => Ok(true),
        Operator::NotEqual => Ok(false),
        _ => Err(Wrong::Operator("= and !=")),
    }
}

fn time(column: Time, operator: Operator, value: &str) -> Result<Test, Wrong> {
    if operator == Operator::Has {
        return Err(Wrong::Operator("= != < <= > >="));
    }
    let value = DateTime::parse_from_rfc3339(value).map_err(|_| Wrong::Value("a time such as \"2026-11-01T08:00:00Z\""))?;
    Ok(Test::Time { column, operator, value: value.to_utc() })
}

fn has(operator: Operator) -> Result<(), Wrong> {
    if operator == Operator::Has { Ok(()) } else { Err(Wrong::Operator(":")) }
}

fn text(column: Text, operator: Operator, value: &str) -> Result<Test, Wrong> {
    let is = equality(operator)?;
    if value.contains('\0') {
        return Err(Wrong::Value("text without the character U+0000"));
    }
    Ok(Test::Text { column, is, value: value.to_owned() })
}

impl Fields for Field {
    type Test = Test;
    const NAMES: &'static str = "tier_id, trust_level, state, create_time, update_time, profile.region_code, profile.motivations and \
                                 profile.channels.platform";

    fn named(name: &str) -> Option<Self> {
        match name {
            "tier_id" => Some(Self::TierId),
            "trust_level" => Some(Self::TrustLevel),
            "state" => Some(Self::State),
            "create_time" => Some(Self::CreateTime),
            "update_time" => Some(Self::UpdateTime),
            "profile.region_code" => Some(Self::RegionCode),
            "profile.motivations" => Some(Self::Motivations),
            "profile.channels.platform" => Some(Self::Platform),
            _ => None,
        }
    }

    fn test(self, operator: Operator, value: &str) -> Result<Test, Wrong> {
        match self {
            Self::TierId => text(Text::TierId, operator, value),
            Self::RegionCode => text(Text::RegionCode, operator, value),
            Self::TrustLevel => {
                let named = TrustLevel::from_name(value);
                one_of(operator, named, TrustLevel::ALL, "NEW, PROVEN, TRUSTED or PARTNER").map(Test::TrustLevel)
            }
            Self::State => one_of(operator, State::from_name(value), State::ALL, "ACTIVE, SUSPENDED or ERASED").map(Test::State),
            Self::CreateTime => time(Time::Create, operator, value),
            Self::UpdateTime => time(Time::Update, operator, value),
            Self::Motivations => {
                has(operator)?;
                let shape = "HELPING, MASTERY, GATHERING, RECOGNITION or REWARD";
                Motivation::from_name(value).map(Test::Motivation).ok_or(Wrong::Value(shape))
            }
            Self::Platform => {
                has(operator)?;
                let named = !value.is_empty() && value.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                if named { Ok(Test::Platform(value.to_owned())) } else { Err(Wrong::Value("a platform such as XIAOHONGSHU")) }
            }
        }
    }
}

/// What members are ordered by; equals by their ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OrderField {
    /// Ids rise with creation.
    #[default]
    MemberId,
    Time(Time),
    Text(Text),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    pub field: OrderField,
    pub descending: bool,
}

impl Order {
    /// Reads `field`, `field asc` or `field desc`. Errors: ORDER_SYNTAX, ORDER_FIELD_UNKNOWN.
    pub fn parse(text: &str) -> Result<Self, Violation> {
        let broken = |rule, what: &str| Violation::new("order_by", rule, what);
        let mut words = text.split_whitespace();
        let Some(name) = words.next() else { return Ok(Self::default()) };
        let field = match name.trim_end_matches(',') {
            "member_id" => OrderField::MemberId,
            "create_time" => OrderField::Time(Time::Create),
            "update_time" => OrderField::Time(Time::Update),
            "tier_id" => OrderField::Text(Text::TierId),
            "profile.region_code" => OrderField::Text(Text::RegionCode),
            _ => {
                let known =
                    "at word 1: members are ordered by member_id, create_time, update_time, tier_id or profile.region_code";
                return Err(broken("ORDER_FIELD_UNKNOWN", known));
            }
        };
        let descending = match (name.ends_with(','), words.next(), words.next()) {
            (false, None | Some("asc"), None) => false,
            (false, Some("desc"), None) => true,
            _ => return Err(broken("ORDER_SYNTAX", "after word 1: one field, then asc, desc or nothing")),
        };
        Ok(Self { field, descending })
    }
}

/// Where a page ends: what its last member is ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub member: MemberId,
    pub by: PlaceBy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceBy {
    Member,
    Time(DateTime<Utc>),
    Text(String),
}

impl Place {
    /// As in a page token.
    pub fn key(&self) -> String {
        match &self.by {
            PlaceBy::Member => format!("/{}", self.member),
            PlaceBy::Time(time) => format!("{}/{}", time.timestamp_micros(), self.member),
            PlaceBy::Text(text) => format!("{text}/{}", self.member),
        }
    }

    /// Reads a key of a list in this order; None for what is none.
    pub fn of_key(key: &str, order: Order) -> Option<Self> {
        let (by, member) = key.rsplit_once('/')?;
        let by = match order.field {
            OrderField::MemberId => PlaceBy::Member,
            OrderField::Time(_) => PlaceBy::Time(page::time(by)?),
            OrderField::Text(_) => PlaceBy::Text(by.to_owned()),
        };
        Some(Self { member: MemberId(Uuid::try_parse(member).ok()?), by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::filter::{Filter, parse};

    fn test(text: &str) -> Test {
        match parse::<Field>(text).expect("a filter") {
            Some(Filter::Is(test)) => test,
            other => panic!("one comparison was expected: {other:?}"),
        }
    }

    #[test]
    fn what_is_not_of_a_closed_set_is_one_of_the_others() {
        let others = vec![TrustLevel::New, TrustLevel::Proven, TrustLevel::Trusted];
        assert_eq!(test("trust_level != PARTNER"), Test::TrustLevel(others.clone()));
        assert_eq!(test("NOT trust_level = PARTNER"), Test::TrustLevel(others));
    }

    #[test]
    fn times_stand_with_or_without_quotes() {
        let value = DateTime::from_timestamp(1_793_491_200, 0).expect("a time");
        let expected = Test::Time { column: Time::Update, operator: Operator::Greater, value };
        assert_eq!(test("update_time > 2026-11-01T00:00:00Z"), expected);
        assert_eq!(test("NOT update_time<=\"2026-11-01T08:00:00+08:00\""), expected);
    }

    #[test]
    fn a_field_knows_its_operators_and_values() {
        for (text, rule) in [
            ("tier_id < CORE", "FILTER_OPERATOR"),
            ("tier_id:CORE", "FILTER_OPERATOR"),
            ("update_time:x", "FILTER_OPERATOR"),
            ("update_time > yesterday", "FILTER_VALUE"),
            ("trust_level = GREAT", "FILTER_VALUE"),
            ("state != GONE", "FILTER_VALUE"),
            ("profile.motivations = HELPING", "FILTER_OPERATOR"),
            ("profile.motivations:MONEY", "FILTER_VALUE"),
            ("NOT profile.motivations:HELPING", "FILTER_OPERATOR"),
            ("profile.channels.platform:douyin", "FILTER_VALUE"),
            ("profile.email = x", "FILTER_FIELD_UNKNOWN"),
            ("profile.region_code = \"a\0\"", "FILTER_VALUE"),
        ] {
            assert_eq!(parse::<Field>(text).expect_err(text).rule, rule, "{text}");
        }
    }

    #[test]
    fn an_order_is_one_field_up_or_down() {
        assert_eq!(Order::parse("  "), Ok(Order::default()));
        let down = Order { field: OrderField::Time(Time::Update), descending: true };
        assert_eq!(Order::parse("update_time  desc"), Ok(down));
        assert_eq!(Order::parse("tier_id asc").map(|order| order.descending), Ok(false));
        for (text, rule) in [
            ("profile.email", "ORDER_FIELD_UNKNOWN"),
            ("tier_id down", "ORDER_SYNTAX"),
            ("tier_id, member_id", "ORDER_SYNTAX"),
            ("tier_id desc member_id", "ORDER_SYNTAX"),
        ] {
            assert_eq!(Order::parse(text).expect_err(text).rule, rule, "{text}");
        }
    }

    #[test]
    fn places_survive_their_tokens() {
        let member = MemberId(Uuid::from_u128(7));
        let time = DateTime::from_timestamp_micros(1_793_491_200_123_456).expect("a time");
        for (by, field) in [
            (PlaceBy::Member, OrderField::MemberId),
            (PlaceBy::Time(time), OrderField::Time(Time::Create)),
            (PlaceBy::Text("CN/GD".into()), OrderField::Text(Text::RegionCode)),
            (PlaceBy::Text(String::new()), OrderField::Text(Text::RegionCode)),
        ] {
            let (place, order) = (Place { member, by }, Order { field, descending: false });
            assert_eq!(Place::of_key(&place.key(), order), Some(place));
        }
        assert_eq!(Place::of_key("x/y", Order::default()), None);
    }
}
