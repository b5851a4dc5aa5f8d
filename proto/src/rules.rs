//! What the generated checks are made of. A check visits every rule of a message and collects all violations; it allocates
//! only when one is found.

use crate::personal::Personal;
use std::collections::HashSet;

/// What is done to a personal field; the flag says that its method masks it.
pub type Act = fn(&mut dyn Personal, bool);

/// What a message knows of itself beyond its shape. Generated for each message of the suite.
pub trait Rules {
    /// Whether it is the request of a method: requests are checked when they are decoded.
    const REQUEST: bool;
    /// The full name, e.g. `koc.registry.v1.GetMemberRequest`.
    const NAME: &'static str;
    /// The `domain` of errors about it, e.g. `registry.koc`.
    const DOMAIN: &'static str;
    /// Reports each broken rule of this message and those within.
    fn check(&self, c: &mut Checker);
    /// Does something to each field marked personal, here and within.
    fn each_personal(&mut self, act: Act);
    /// The programme it belongs to, for messages that name one.
    fn programme_id(&self) -> Option<&str>;
    /// The id that makes a retry of it safe, for requests that carry one.
    fn request_id(&self) -> Option<&str>;

    /// Empties the fields marked personal, here and within.
    fn strip_personal(&mut self) {
        self.each_personal(|field, _| field.clear());
    }

    /// Masks the fields marked personal, here and within, but for those that their method masks: see [`crate::personal::mask`].
    fn mask_personal(&mut self) {
        self.each_personal(|field, by_method| {
            if !by_method {
                field.mask();
            }
        });
    }

    /// All broken rules; empty when there is none.
    fn violations(&self) -> Vec<Violation> {
        let mut checker = Checker::default();
        self.check(&mut checker);
        checker.violations
    }
}

/// One method with the scope it declares.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// As in the request line: `/koc.registry.v1.MemberService/GetMember`.
    pub path: &'static str,
    /// The service's full name.
    pub service: &'static str,
    /// The scope its caller needs; empty when it declares none.
    pub scope: &'static str,
}

/// A broken rule of a field. Holds the value's shape, never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, e.g. `profile.channels[2].platform`.
    pub field: String,
    /// The rule, e.g. `string.uuid`.
    pub rule: String,
    /// What was expected and the shape of what came.
    pub description: String,
}

impl Violation {
    pub fn new(field: impl Into<String>, rule: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), rule: rule.into(), description: description.into() }
    }
}

#[derive(Debug, Clone, Copy)]
enum Segment {
    Field(&'static str),
    Index(usize),
}

/// Walks a message and collects violations.
#[derive(Debug, Default)]
pub struct Checker {
    path: Vec<Segment>,
    violations: Vec<Violation>,
}

/// The most violations that one answer lists.
const MAX_VIOLATIONS: usize = 100;

impl Checker {
    pub fn enter(&mut self, field: &'static str) {
        self.path.push(Segment::Field(field));
    }

    pub fn at(&mut self, index: usize) {
        self.path.push(Segment::Index(index));
    }

    pub fn leave(&mut self) {
        self.path.pop();
    }

    fn report(&mut self, rule: &str, description: String) {
        if self.violations.len() >= MAX_VIOLATIONS {
            return;
        }
        let mut field = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(name) => {
                    if !field.is_empty() {
                        field.push('.');
                    }
                    field.push_str(name);
                }
                Segment::Index(i) => field.push_str(&format!("[{i}]")),
            }
        }
        self.violations.push(Violation::new(field, rule, description));
    }

    pub fn missing(&mut self) {
        self.report("required", "must be set".into());
    }

    pub fn min_items(&mut self, len: usize, min: usize) {
        if len < min {
            self.report("repeated.min_items", format!("must hold at least {min} items; got {len}"));
        }
    }

    pub fn max_items(&mut self, len: usize, max: usize) {
        if len > max {
            self.report("repeated.max_items", format!("must hold at most {max} items; got {len}"));
        }
    }

    pub fn unique<T: Eq + std::hash::Hash>(&mut self, items: &[T]) {
        let mut seen = HashSet::with_capacity(items.len());
        if let Some(i) = items.iter().position(|item| !seen.insert(item)) {
            self.report("repeated.unique", format!("must not repeat an item; item {i} stands earlier too"));
        }
    }

    /// Postgres holds every character but this one.
    pub fn storable(&mut self, v: &str) {
        if v.as_bytes().contains(&0) {
            self.report("string.no_nul", "must not hold the character U+0000".into());
        }
    }

    pub fn min_len(&mut self, v: &str, min: usize) {
        // A string has at most as many characters as bytes: most values pass without counting.
        if v.len() < min || v.chars().count() < min {
            self.report("string.min_len", format!("must have at least {min} characters; got {}", v.chars().count()));
        }
    }

    pub fn max_len(&mut self, v: &str, max: usize) {
        if v.len() > max && v.chars().count() > max {
            self.report("string.max_len", format!("must have at most {max} characters; got {}", v.chars().count()));
        }
    }

    pub fn uuid(&mut self, v: &str) {
        if v.len() != 36 || uuid::Uuid::try_parse(v).is_err() {
            self.report("string.uuid", format!("must be a UUID with hyphens; got {} characters", v.chars().count()));
        }
    }

    pub fn pattern(&mut self, v: &str, pattern: &regex::Regex) {
        if !pattern.is_match(v) {
            self.report("string.pattern", format!("must match {pattern}; got {} characters", v.chars().count()));
        }
    }

    pub fn min_bytes(&mut self, v: &[u8], min: usize) {
        if v.len() < min {
            self.report("bytes.min_len", format!("must have at least {min} bytes; got {}", v.len()));
        }
    }

    pub fn max_bytes(&mut self, v: &[u8], max: usize) {
        if v.len() > max {
            self.report("bytes.max_len", format!("must have at most {max} bytes; got {}", v.len()));
        }
    }

    pub fn int_lt(&mut self, v: i64, bound: i64) {
        if v >= bound {
            self.report("int.lt", format!("must be less than {bound}; got {v}"));
        }
    }

    pub fn int_lte(&mut self, v: i64, bound: i64) {
        if v > bound {
            self.report("int.lte", format!("must be at most {bound}; got {v}"));
        }
    }

    pub fn int_gt(&mut self, v: i64, bound: i64) {
        if v <= bound {
            self.report("int.gt", format!("must be greater than {bound}; got {v}"));
        }
    }

    pub fn int_gte(&mut self, v: i64, bound: i64) {
        if v < bound {
            self.report("int.gte", format!("must be at least {bound}; got {v}"));
        }
    }

    // Written so that NaN breaks every bound.
    pub fn double_lt(&mut self, v: f64, bound: f64) {
        if v.is_nan() || v >= bound {
            self.report("double.lt", format!("must be less than {bound}; got {v}"));
        }
    }

    pub fn double_lte(&mut self, v: f64, bound: f64) {
        if v.is_nan() || v > bound {
            self.report("double.lte", format!("must be at most {bound}; got {v}"));
        }
    }

    pub fn double_gt(&mut self, v: f64, bound: f64) {
        if v.is_nan() || v <= bound {
            self.report("double.gt", format!("must be greater than {bound}; got {v}"));
        }
    }

    pub fn double_gte(&mut self, v: f64, bound: f64) {
        if v.is_nan() || v < bound {
            self.report("double.gte", format!("must be at least {bound}; got {v}"));
        }
    }

    pub fn finite(&mut self, v: f64) {
        if !v.is_finite() {
            self.report("double.finite", format!("must be finite; got {v}"));
        }
    }

    pub fn defined(&mut self, v: i32, values: &[i32]) {
        if !values.contains(&v) {
            self.report("enum.defined_only", format!("must be a defined value; got {v}"));
        }
    }

    pub fn not_in(&mut self, v: i32, values: &[i32]) {
        if values.contains(&v) {
            self.report("enum.not_in", format!("must not be {v}"));
        }
    }
}

/// Whether a scalar without presence is other than its zero value.
pub(crate) fn is_set<T: Default + PartialEq>(value: &T) -> bool {
    *value != T::default()
}

/// Compiles a pattern of a proto file; the contract tests compile them all, so none fails later.
pub(crate) fn pattern(pattern: &str) -> regex::Regex {
    regex::Regex::new(pattern).expect("patterns in the proto files are tested to compile")
}
