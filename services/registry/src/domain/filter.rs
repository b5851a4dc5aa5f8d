//! Filters of lists, as callers write them: `tier_id = CORE AND NOT (trust_level = NEW OR profile.motivations:HELPING)`. A part of
//! AIP-160: comparisons, AND, OR, NOT, parentheses, `:` for has. AND and OR are not mixed without parentheses, because AIP-160 binds OR
//! tighter and most people expect the opposite.
//!
//! What a list can be filtered by says its [`Fields`]. NOT is carried down to the comparisons while reading, so that what comes out has
//! none and an index can serve each comparison.

use koc_chassis::fault::Violation;

#[cfg(test)]
mod tests;

/// Parentheses and NOTs within each other.
const MAX_DEPTH: usize = 20;
/// Comparisons in one filter.
const MAX_COMPARISONS: usize = 50;

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Holds the value among others.
    Has,
}

impl Operator {
    /// What holds where this does not; None for HAS, whose opposite no index finds.
    fn opposite(self) -> Option<Self> {
        match self {
            Self::Equal => Some(Self::NotEqual),
            Self::NotEqual => Some(Self::Equal),
            Self::Less => Some(Self::GreaterOrEqual),
            Self::LessOrEqual => Some(Self::Greater),
            Self::Greater => Some(Self::LessOrEqual),
            Self::GreaterOrEqual => Some(Self::Less),
            Self::Has => None,
        }
    }
}

/// Comparisons and how they are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter<T> {
    All(Vec<Filter<T>>),
    Any(Vec<Filter<T>>),
    Is(T),
}

/// What a list can be filtered by.
pub trait Fields: Sized + Copy {
    /// A comparison that is understood.
    type Test;
    /// Paths of the fields, for errors.
    const NAMES: &'static str;

    fn named(name: &str) -> Option<Self>;
    /// The comparison, or what is wrong with it.
    fn test(self, operator: Operator, value: &str) -> Result<Self::Test, Wrong>;
}

/// What is wrong with a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Which operators there are.
    Operator(&'static str),
    /// What values look like.
    Value(&'static str),
}

/// Reads a filter; None for an empty one. Errors name the place, counted in characters from 1, and never repeat what was sent:
/// FILTER_SYNTAX, FILTER_FIELD_UNKNOWN, FILTER_OPERATOR, FILTER_VALUE, FILTER_TOO_DEEP, FILTER_TOO_LARGE.
pub fn parse<F: Fields>(text: &str) -> Result<Option<Filter<F::Test>>, Violation> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { tokens: &tokens, next: 0, end: text.chars().count() + 1, comparisons: 0 };
    let filter = parser.joined::<F>(false, 0)?;
    match parser.peek() {
        None => Ok(Some(filter)),
        Some(token) => Err(broken(token.at, "FILTER_SYNTAX", "AND or OR was expected")),
    }
}

fn broken(at: usize, rule: &'static str, what: &str) -> Violation {
    Violation::new("filter", rule, format!("at character {at}: {what}"))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Open,
    Close,
    Operator(Operator),
    /// Letters without quotes: a name, a value, or one of AND, OR, NOT.
    Word(String),
    Quoted(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    at: usize,
    kind: Kind,
}

fn tokens(text: &str) -> Result<Vec<Token>, Violation> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut chars = text.chars().zip(1..).peekable();
    while let Some((c, at)) = chars.next() {
        let mut or_equal = |with: Operator, without: Operator| match chars.next_if(|(c, _)| *c == '=') {
            Some(_) => Kind::Operator(with),
            None => Kind::Operator(without),
        };
        let kind = match c {
            c if c.is_whitespace() => continue,
            '(' => Kind::Open,
            ')' => Kind::Close,
            '=' => Kind::Operator(Operator::Equal),
            '<' => or_equal(Operator::LessOrEqual, Operator::Less),
            '>' => or_equal(Operator::GreaterOrEqual, Operator::Greater),
            ':' => Kind::Operator(Operator::Has),
            '!' => match chars.next_if(|(c, _)| *c == '=') {
                Some(_) => Kind::Operator(Operator::NotEqual),
                None => return Err(broken(at, "FILTER_SYNTAX", "! stands before = only; NOT turns a condition round")),
            },
            '"' => {
                let mut value = String::new();
                loop {
                    match chars.next().map(|(c, _)| c) {
                        Some('"') => break Kind::Quoted(value),
                        Some('\\') => match chars.next() {
                            Some((c @ ('"' | '\\'), _)) => value.push(c),
                            _ => return Err(broken(at, "FILTER_SYNTAX", "in quotes, \\ stands before \" or \\ only")),
                        },
                        Some(c) => value.push(c),
                        None => return Err(broken(at, "FILTER_SYNTAX", "the quotes are not closed")),
                    }
                }
            }
            c if is_word(c) => {
                let mut word = String::from(c);
                // In a value a colon belongs to a time of day; after a name it is an operator.
                let value = matches!(tokens.last(), Some(Token { kind: Kind::Operator(_), .. }));
                while let Some((c, _)) = chars.next_if(|(c, _)| is_word(*c) || (value && *c == ':')) {
                    word.push(c);
                }
                Kind::Word(word)
            }
            _ => return Err(broken(at, "FILTER_SYNTAX", "this character stands in quotes only")),
        };
        tokens.push(Token { at, kind });
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')
}

struct Parser<'t> {
    tokens: &'t [Token],
    next: usize,
    /// The place after the last character.
    end: usize,
    comparisons: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.next)
    }

    fn at(&self) -> usize {
        self.peek().map_or(self.end, |token| token.at)
    }

    fn take(&mut self) -> Option<&'t Token> {
        let token = self.peek();
        self.next += usize::from(token.is_some());
        token
    }

    fn take_word(&mut self, expected: &str) -> bool {
        let found = matches!(self.peek(), Some(Token { kind: Kind::Word(word), .. }) if word == expected);
        self.next += usize::from(found);
        found
    }

    /// Conditions joined by AND, or by OR. Where all of it is turned round the one becomes the other.
    fn joined<F: Fields>(&mut self, negated: bool, depth: usize) -> Result<Filter<F::Test>, Violation> {
        let first = self.condition::<F>(negated, depth)?;
        let (mut parts, mut all) = (vec![first], None);
        loop {
            let at = self.at();
            let and = self.take_word("AND");
            if !and && !self.take_word("OR") {
                break;
            }
            if *all.get_or_insert(and) != and {
                return Err(broken(at, "FILTER_SYNTAX", "AND and OR must not be mixed without parentheses"));
            }
            parts.push(self.condition::<F>(negated, depth)?);
        }
        Ok(match all {
            None => parts.remove(0),
            Some(all) if all != negated => Filter::All(parts),
            Some(_) => Filter::Any(parts),
        })
    }

    fn condition<F: Fields>(&mut self, mut negated: bool, mut depth: usize) -> Result<Filter<F::Test>, Violation> {
        let at = self.at();
        while self.take_word("NOT") {
            (negated, depth) = (!negated, depth + 1);
        }
        if depth > MAX_DEPTH {
            return Err(broken(
                at,
                "FILTER_TOO_DEEP",
                &format!("at most {MAX_DEPTH} parentheses and NOTs lie within each other"),
            ));
        }
        match self.peek() {
            Some(Token { kind: Kind::Open, .. }) => {
                self.next += 1;
                let inner = self.joined::<F>(negated, depth + 1)?;
                match self.take() {
                    Some(Token { kind: Kind::Close, .. }) => Ok(inner),
                    Some(token) => Err(broken(token.at, "FILTER_SYNTAX", "AND, OR or ) was expected")),
                    None => Err(broken(at, "FILTER_SYNTAX", "the parenthesis is not closed")),
                }
            }
            _ => self.comparison::<F>(negated).map(Filter::Is),
        }
    }

    fn comparison<F: Fields>(&mut self, negated: bool) -> Result<F::Test, Violation> {
        let at = self.at();
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            return Err(broken(at, "FILTER_TOO_LARGE", &format!("a filter has at most {MAX_COMPARISONS} comparisons")));
        }
        let name = match self.take() {
            Some(Token { kind: Kind::Word(name), .. }) if !matches!(name.as_str(), "AND" | "OR") => name,
            _ => return Err(broken(at, "FILTER_SYNTAX", "a field was expected")),
        };
        let unknown = || broken(at, "FILTER_FIELD_UNKNOWN", &format!("a list can be filtered by {}", F::NAMES));
        let field = F::named(name).ok_or_else(unknown)?;
        let at = self.at();
        let Some(Token { kind: Kind::Operator(operator), .. }) = self.take() else {
            return Err(broken(at, "FILTER_SYNTAX", "one of = != < <= > >= : was expected"));
        };
        let operator = match negated {
            false => *operator,
            true => {
                operator.opposite().ok_or_else(|| broken(at, "FILTER_OPERATOR", "a condition with : must not be turned round"))?
            }
        };
        let value_at = self.at();
        let Some(Token { kind: Kind::Word(value) | Kind::Quoted(value), .. }) = self.take() else {
            return Err(broken(value_at, "FILTER_SYNTAX", "a value was expected"));
        };
        field.test(operator, value).map_err(|wrong| match wrong {
            Wrong::Operator(there) => broken(at, "FILTER_OPERATOR", &format!("this field is compared by {there}")),
            Wrong::Value(shape) => broken(value_at, "FILTER_VALUE", &format!("the value must be {shape}")),
        })
    }
}
