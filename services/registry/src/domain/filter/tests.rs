use super::*;
use proptest::prelude::*;

/// Fields a and b, with numbers below 3; only `:` for b.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    A,
    B,
}

impl Fields for Letter {
    type Test = (Self, Operator, i32);
    const NAMES: &'static str = "a and b";

    fn named(name: &str) -> Option<Self> {
        match name {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }

    fn test(self, operator: Operator, value: &str) -> Result<Self::Test, Wrong> {
        if (self == Self::B) != (operator == Operator::Has) {
            return Err(Wrong::Operator("another one"));
        }
        value.parse().map(|value| (self, operator, value)).map_err(|_| Wrong::Value("a number"))
    }
}

type Read = Filter<(Letter, Operator, i32)>;

fn read(text: &str) -> Result<Option<Read>, (String, String)> {
    parse::<Letter>(text).map_err(|violation| {
        let place = violation.description.split(':').next().unwrap_or_default().to_owned();
        (violation.rule.to_string(), place.trim_start_matches("at character ").to_owned())
    })
}

fn is(operator: Operator, value: i32) -> Read {
    Filter::Is((Letter::A, operator, value))
}

#[test]
fn nothing_is_no_filter() {
    assert_eq!((read(""), read(" \t")), (Ok(None), Ok(None)));
}

#[test]
fn not_is_carried_down_to_the_comparisons() {
    let expected =
        Filter::Any(vec![is(Operator::NotEqual, 1), Filter::All(vec![is(Operator::GreaterOrEqual, 2), is(Operator::Equal, 3)])]);
    assert_eq!(read("NOT (a = 1 AND (a<2 OR a!=3))"), Ok(Some(expected)));
    assert_eq!(read("NOT NOT a=1"), Ok(Some(is(Operator::Equal, 1))));
    assert_eq!(read("NOT (NOT (a = \"1\"))"), Ok(Some(is(Operator::Equal, 1))));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let text_of = |rule: &str, place: usize| Err((rule.to_owned(), place.to_string()));
    for (text, rule, place) in [
        ("a", "FILTER_SYNTAX", 2),
        ("a =", "FILTER_SYNTAX", 4),
        ("a = 1 a = 2", "FILTER_SYNTAX", 7),
        ("a = 1 AND", "FILTER_SYNTAX", 10),
        ("a = 1 AND a = 1 OR a = 1", "FILTER_SYNTAX", 17),
        ("(a = 1", "FILTER_SYNTAX", 1),
        ("a = 1)", "FILTER_SYNTAX", 6),
        ("()", "FILTER_SYNTAX", 2),
        ("OR a = 1", "FILTER_SYNTAX", 1),
        ("a ! 1", "FILTER_SYNTAX", 3),
        ("a = \"1", "FILTER_SYNTAX", 5),
        ("a = \"\\1\"", "FILTER_SYNTAX", 5),
        ("a = 1; b:1", "FILTER_SYNTAX", 6),
        ("城 = 1", "FILTER_FIELD_UNKNOWN", 1),
        ("a = 1 AND c = 1", "FILTER_FIELD_UNKNOWN", 11),
        ("b = 1", "FILTER_OPERATOR", 3),
        ("NOT b:1", "FILTER_OPERATOR", 6),
        ("a = x", "FILTER_VALUE", 5),
    ] {
        assert_eq!(read(text), text_of(rule, place), "{text}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(read(&nested(MAX_DEPTH)), Ok(Some(is(Operator::Equal, 1))));
    assert_eq!(read(&nested(MAX_DEPTH + 1)).expect_err("too deep").0, "FILTER_TOO_DEEP");
    assert_eq!(read(&"(".repeat(100_000)).expect_err("too deep").0, "FILTER_TOO_DEEP");
    assert_eq!(read(&"NOT ".repeat(100_000)).expect_err("too deep").0, "FILTER_TOO_DEEP");
    let long = |comparisons: usize| vec!["a = 1"; comparisons].join(" OR ");
    assert!(read(&long(MAX_COMPARISONS)).is_ok());
    assert_eq!(read(&long(MAX_COMPARISONS + 1)).expect_err("too large").0, "FILTER_TOO_LARGE");
}

/// A filter as text with parentheses around all of it, and what it says of a number.
#[derive(Debug, Clone)]
enum Said {
    Is(&'static str, i32),
    Not(Box<Said>),
    Join(bool, Box<Said>, Box<Said>),
}

impl Said {
    fn text(&self) -> String {
        match self {
            Self::Is(operator, value) => format!("a {operator} {value}"),
            Self::Not(said) => format!("NOT ({})", said.text()),
            Self::Join(all, one, other) => format!("({}) {} ({})", one.text(), if *all { "AND" } else { "OR" }, other.text()),
        }
    }

    fn holds(&self, a: i32) -> bool {
        match self {
            Self::Is("=", value) => a == *value,
            Self::Is("!=", value) => a != *value,
            Self::Is("<", value) => a < *value,
            Self::Is("<=", value) => a <= *value,
            Self::Is(">", value) => a > *value,
            Self::Is(_, value) => a >= *value,
            Self::Not(said) => !said.holds(a),
            Self::Join(true, one, other) => one.holds(a) && other.holds(a),
            Self::Join(false, one, other) => one.holds(a) || other.holds(a),
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    let operators = prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">="]);
    (operators, 0..4).prop_map(|(operator, value)| Said::Is(operator, value)).prop_recursive(6, 30, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|said| Said::Not(Box::new(said))),
            (any::<bool>(), inner.clone(), inner).prop_map(|(all, one, other)| Said::Join(all, Box::new(one), Box::new(other))),
        ]
    })
}

fn holds(filter: &Read, a: i32) -> bool {
    match filter {
        Filter::All(parts) => parts.iter().all(|part| holds(part, a)),
        Filter::Any(parts) => parts.iter().any(|part| holds(part, a)),
        Filter::Is((_, operator, value)) => match operator {
            Operator::Equal => a == *value,
            Operator::NotEqual => a != *value,
            Operator::Less => a < *value,
            Operator::LessOrEqual => a <= *value,
            Operator::Greater => a > *value,
            Operator::GreaterOrEqual => a >= *value,
            Operator::Has => false,
        },
    }
}

proptest! {
    #[test]
    fn what_is_read_says_what_was_written(said in said()) {
        let filter = read(&said.text()).expect("well formed").expect("not empty");
        for a in 0..4 {
            prop_assert_eq!(holds(&filter, a), said.holds(a), "{} of {}", said.text(), a);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place_in_it(text in "[ab()=!<>:\"\\\\ 01ANDORT城\0-]{0,80}") {
        if let Err((_, place)) = read(&text) {
            let place: usize = place.parse().expect("a number");
            prop_assert!((1..=text.chars().count() + 1).contains(&place));
        }
    }
}
