//! From path, query and JSON to a request's message. All that is wrong is told at once, by field, and never with the value.
//!
//! Own code walks the objects, so that each field's path is known and one mistake does not hide the others; what a value may look like is
//! the library's: it reads each one as the only field of an empty message.

use super::route::{BodyRule, FieldPath, Route, field, field_path};
use crate::fault::{Fault, Violation};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use serde_json::{Map, Value as Json};
use std::collections::HashSet;

/// The most violations that one answer lists.
const MAX_VIOLATIONS: usize = 100;
/// What the rules are called that are checked here.
pub const RULES: [&str; 3] = ["json.", "query.", "path."];
/// The longest part of an unknown name that is told, in characters.
const MAX_NAME: usize = 64;

/// The message that a request means.
pub fn read(route: &Route, values: &[String], query: &str, body: &[u8]) -> Result<DynamicMessage, Fault> {
    let mut reader = Reader { message: DynamicMessage::new(route.method.input()), given: HashSet::new(), wrong: Vec::new() };
    match &route.body {
        BodyRule::None if body.is_empty() => {}
        BodyRule::None => {
            return Err(Fault::malformed("BODY_NOT_EXPECTED", "the method takes no body; its fields go into the query"));
        }
        BodyRule::Whole => match parse(body)? {
            Json::Object(object) => fill(&mut reader.message, object, "", &mut reader.wrong),
            other => return Err(malformed(&format!("the body must be an object; got {}", shape(&other)))),
        },
        BodyRule::Field(field) => set(&mut reader.message, field, parse(body)?, field.json_name().to_owned(), &mut reader.wrong),
    }
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        reader.parameter(&name, &text, &route.body);
    }
    for (path, text) in route.variables.iter().zip(values) {
        reader.variable(path, text);
    }
    reader.wrong.truncate(MAX_VIOLATIONS);
    if reader.wrong.is_empty() { Ok(reader.message) } else { Err(Fault::invalid(reader.wrong)) }
}

fn parse(body: &[u8]) -> Result<Json, Fault> {
    // The library's own words could repeat a part of the body.
    serde_json::from_slice(body)
        .map_err(|e| malformed(&format!("the body is not JSON; line {}, column {}", e.line(), e.column())))
}

fn malformed(problem: &str) -> Fault {
    Fault::malformed("MALFORMED_JSON", problem)
}

struct Reader {
    message: DynamicMessage,
    /// Parameters seen, by the names of their fields.
    given: HashSet<String>,
    wrong: Vec<Violation>,
}

impl Reader {
    fn parameter(&mut self, name: &str, text: &str, body: &BodyRule) {
        if self.wrong.len() >= MAX_VIOLATIONS {
            return;
        }
        let path = field_path(&self.message.descriptor(), name);
        let taken = |path: &FieldPath| match body {
            BodyRule::None => false,
            BodyRule::Whole => true,
            BodyRule::Field(field) => path.first() == Some(field),
        };
        let Some(path) = path.filter(|path| !taken(path)) else {
            self.wrong.push(Violation::new(short(name), "query.unknown", "the method takes no such query parameter"));
            return;
        };
        let Some((field, parents)) = path.split_last() else { return };
        if nested(field).is_some() {
            self.wrong.push(Violation::new(spelt(&path), "query.message", "must be given by its fields, as in a.b=value"));
            return;
        }
        if !self.given.insert(spelt(&path)) && !field.is_list() {
            self.wrong.push(Violation::new(spelt(&path), "query.once", "must be given once"));
            return;
        }
        match leaf(field, written(field, text)) {
            Some(Value::List(mut item)) => {
                if let Value::List(items) = place(&mut self.message, parents).get_field_mut(field) {
                    items.append(&mut item);
                }
            }
            Some(value) => place(&mut self.message, parents).set_field(field, value),
            None => self.wrong.push(Violation::new(spelt(&path), "json.type", format!("must be {}", expected(field)))),
        }
    }

    /// Sets what stands in the path. The rest of the request may say the same, not otherwise.
    fn variable(&mut self, path: &FieldPath, text: &str) {
        let Some((field, parents)) = path.split_last() else { return };
        let Some(value) = leaf(field, written(field, text)) else {
            self.wrong.push(Violation::new(spelt(path), "json.type", format!("must be {}", expected(field))));
            return;
        };
        let message = place(&mut self.message, parents);
        if message.has_field(field) && *message.get_field(field) != value {
            self.wrong.push(Violation::new(spelt(path), "path.same", "must be the same as in the path, or left out"));
        }
        message.set_field(field, value);
    }
}

/// Fills a message from an object; `null` leaves a field unset.
fn fill(message: &mut DynamicMessage, object: Map<String, Json>, at: &str, wrong: &mut Vec<Violation>) {
    let descriptor = message.descriptor();
    for (name, value) in object {
        if wrong.len() >= MAX_VIOLATIONS {
            return;
        }
        match field(&descriptor, &name) {
            Some(_) if value.is_null() => {}
            Some(field) => set(message, &field, value, join(at, field.json_name()), wrong),
            None => wrong.push(Violation::new(join(at, &short(&name)), "json.unknown", "there is no such field")),
        }
    }
}

fn set(message: &mut DynamicMessage, field: &FieldDescriptor, value: Json, at: String, wrong: &mut Vec<Violation>) {
    if !field.is_list() {
        if let Some(value) = one(field, value, &at, wrong) {
            message.set_field(field, value);
        }
        return;
    }
    let Json::Array(items) = value else {
        wrong.push(mistyped(at, "a list", &value));
        return;
    };
    let mut list = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        if wrong.len() >= MAX_VIOLATIONS {
            return;
        }
        list.extend(one(field, item, &format!("{at}[{i}]"), wrong));
    }
    message.set_field(field, Value::List(list));
}

/// One value of a field, or of its list.
fn one(field: &FieldDescriptor, value: Json, at: &str, wrong: &mut Vec<Violation>) -> Option<Value> {
    if let Some(inner) = nested(field) {
        let Json::Object(object) = value else {
            wrong.push(mistyped(at, "an object", &value));
            return None;
        };
        let mut message = DynamicMessage::new(inner);
        fill(&mut message, object, at, wrong);
        return Some(Value::Message(message));
    }
    let shape = shape(&value);
    let read = match leaf(field, value) {
        Some(Value::List(mut items)) => items.pop(),
        other => other,
    };
    if read.is_none() {
        wrong.push(Violation::new(at, "json.type", format!("must be {}; got {shape}", expected(field))));
    }
    read
}

/// A value as the library reads it, in a list of its own where the field is a list; None when it cannot be such a value.
fn leaf(field: &FieldDescriptor, value: Json) -> Option<Value> {
    if value.is_null() {
        return None;
    }
    let value = if field.is_list() { Json::Array(vec![value]) } else { value };
    let object = Map::from_iter([(field.json_name().to_owned(), value)]);
    let mut message = DynamicMessage::deserialize(field.parent_message().clone(), Json::Object(object)).ok()?;
    // What equals the default of a field without presence is not kept.
    Some(message.take_field(field).unwrap_or_else(|| Value::default_value_for_field(field)))
}

/// Text from a path or query as JSON writes it: a string, except for truth.
fn written(field: &FieldDescriptor, text: &str) -> Json {
    match (field.kind(), text) {
        (Kind::Bool, "true") => Json::Bool(true),
        (Kind::Bool, "false") => Json::Bool(false),
        _ => Json::String(text.to_owned()),
    }
}

/// The message that a field holds, where it is written as an object of its fields.
pub fn nested(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    let message = field.kind().as_message()?.clone();
    (message.package_name() != "google.protobuf" && !field.is_map()).then_some(message)
}

fn place<'a>(message: &'a mut DynamicMessage, parents: &[FieldDescriptor]) -> &'a mut DynamicMessage {
    parents.iter().fold(message, |message, field| {
        message.get_field_mut(field).as_message_mut().expect("a path of fields leads through single messages")
    })
}

fn expected(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Double | Kind::Float => "a number".into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => "a whole number of 32 bits".into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => "a whole number of 64 bits".into(),
        Kind::Bool => "true or false".into(),
        Kind::String => "text".into(),
        Kind::Bytes => "base64 text".into(),
        Kind::Enum(e) => format!("one of {}", e.values().map(|v| v.name().to_owned()).collect::<Vec<_>>().join(", ")),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => "a time as in RFC 3339, e.g. 2026-01-02T03:04:05Z".into(),
            "google.protobuf.Duration" => "a time in seconds, e.g. 3.5s".into(),
            "google.protobuf.FieldMask" => "paths of fields in lowerCamelCase, separated by commas".into(),
            "google.protobuf.Any" => "an object with @type".into(),
            _ => "an object".into(),
        },
    }
}

fn mistyped(at: impl Into<String>, expected: &str, got: &Json) -> Violation {
    Violation::new(at, "json.type", format!("must be {expected}; got {}", shape(got)))
}

fn shape(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn short(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

/// A path as JSON spells it.
pub fn spelt(path: &[FieldDescriptor]) -> String {
    path.iter().map(FieldDescriptor::json_name).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests;
