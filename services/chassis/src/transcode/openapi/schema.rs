//! JSON Schemas of the contracts' messages. What a request may hold is bound by its validation rules; what an answer holds is promised by
//! its shape alone, and complete.

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, FileDescriptor, Kind,
    MessageDescriptor, Value,
};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Request,
    Answer,
}

/// What stands above each declaration in the proto files.
pub struct Comments(HashMap<(String, Vec<i32>), String>);

impl Comments {
    pub fn of(pool: &DescriptorPool) -> Self {
        let mut comments = HashMap::new();
        for file in pool.files() {
            let source = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default();
            for location in source.location {
                let lines = location.leading_comments.unwrap_or_default();
                let text = lines.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned();
                comments.insert((file.name().to_owned(), location.path), text);
            }
        }
        Self(comments)
    }

    pub fn of_path(&self, file: &FileDescriptor, path: &[i32]) -> String {
        self.0.get(&(file.name().to_owned(), path.to_vec())).cloned().unwrap_or_default()
    }
}

/// The schemas that a document refers to, as far as they were asked for.
pub struct Schemas<'a> {
    package: &'a str,
    comments: &'a Comments,
    rules: Option<ExtensionDescriptor>,
    made: Map<String, Json>,
}

impl<'a> Schemas<'a> {
    pub fn new(pool: &DescriptorPool, package: &'a str, comments: &'a Comments) -> Self {
        Self { package, comments, rules: pool.get_extension_by_name("buf.validate.field"), made: Map::new() }
    }

    pub fn finish(self) -> Map<String, Json> {
        self.made
    }

    /// The body of a request, without the fields that are in its path.
    pub fn body(&mut self, message: &MessageDescriptor, in_path: &dyn Fn(&FieldDescriptor) -> bool) -> Json {
        let name = self.name(message.full_name());
        let schema = self.object(message, Side::Request, in_path);
        self.made.insert(name.clone(), schema);
        reference(&name)
    }

    /// A reference to a message's schema, or the schema of one that JSON writes in its own way.
    pub fn message(&mut self, message: &MessageDescriptor, side: Side) -> Json {
        match message.full_name() {
            "google.protobuf.Timestamp" => return json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => return json!({"type": "string", "pattern": "^-?[0-9]{1,12}(\\.[0-9]{1,9})?s$"}),
            "google.protobuf.FieldMask" => {
                return json!({"type": "string", "pattern": "^([a-zA-Z0-9]+(\\.[a-zA-Z0-9]+)*(,[a-zA-Z0-9]+(\\.[a-zA-Z0-9]+)*)*)?$"});
            }
            "google.protobuf.Any" => {
                return json!({"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}});
            }
            _ => {}
        }
        let mut name = self.name(message.full_name());
        if side == Side::Request {
            name.push_str("Input");
        }
        if !self.made.contains_key(&name) {
            // Known before its fields are, so that a message within itself finds it.
            self.made.insert(name.clone(), json!({}));
            let schema = self.object(message, side, &|_| false);
            self.made.insert(name.clone(), schema);
        }
        reference(&name)
    }

    fn object(&mut self, message: &MessageDescriptor, side: Side, left_out: &dyn Fn(&FieldDescriptor) -> bool) -> Json {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in message.fields().filter(|field| !left_out(field)) {
            let always = if side == Side::Request { self.is_required(&field) } else { !field.supports_presence() };
            if always {
                required.push(field.json_name().to_owned());
            }
            properties.insert(field.json_name().to_owned(), self.field(&field, side));
        }
        let mut schema = json!({"type": "object", "properties": properties});
        let comment = self.comments.of_path(&message.parent_file(), message.path());
        if !comment.is_empty() {
            schema["description"] = comment.into();
        }
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        if side == Side::Request {
            schema["additionalProperties"] = false.into();
        }
        schema
    }

    /// A field's schema with its description.
    pub fn field(&mut self, field: &FieldDescriptor, side: Side) -> Json {
        let rules = self.rules_of(field).filter(|_| side == Side::Request);
        let mut schema = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return json!({}) };
            json!({"type": "object", "additionalProperties": self.field(&entry.map_entry_value_field(), side)})
        } else if field.is_list() {
            let list = rules.as_ref().and_then(|rules| sub(rules, "repeated"));
            let items = list.as_ref().and_then(|list| sub(list, "items"));
            let mut schema = json!({"type": "array", "items": self.value(&field.kind(), items.as_ref(), side)});
            for (rule, keyword) in [("min_items", "minItems"), ("max_items", "maxItems"), ("unique", "uniqueItems")] {
                if let Some(value) = list.as_ref().and_then(|list| number(list, rule)) {
                    schema[keyword] = value;
                }
            }
            schema
        } else {
            self.value(&field.kind(), rules.as_ref(), side)
        };
        let comment = self.comments.of_path(&field.parent_file(), field.path());
        if !comment.is_empty() {
            schema["description"] = comment.into();
        }
        schema
    }

    fn value(&mut self, kind: &Kind, rules: Option<&DynamicMessage>, side: Side) -> Json {
        let (mut schema, type_of_rules, zero) = match kind {
            Kind::Message(message) => return self.message(message, side),
            Kind::Enum(e) => {
                let rules = rules.and_then(|rules| sub(rules, "enum"));
                return self.enumeration(e, &rules.map(|rules| excluded(&rules)).unwrap_or_default());
            }
            Kind::Bool => return json!({"type": "boolean"}),
            Kind::Double | Kind::Float => (json!({"type": "number", "format": "double"}), "double", json!(0)),
            Kind::String => (json!({"type": "string"}), "string", json!("")),
            Kind::Bytes => (json!({"type": "string", "contentEncoding": "base64"}), "bytes", json!("")),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                let (least, most) = (i32::MIN, i32::MAX);
                (json!({"type": "integer", "format": "int32", "minimum": least, "maximum": most}), "int32", json!(0))
            }
            Kind::Uint32 | Kind::Fixed32 => (json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}), "uint32", json!(0)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (whole_64("int64", "^-?[0-9]{1,19}$", side), "int64", json!("0")),
            Kind::Uint64 | Kind::Fixed64 => (whole_64("uint64", "^[0-9]{1,20}$", side), "uint64", json!("0")),
        };
        let Some(rules) = rules else { return schema };
        let bounds = sub(rules, type_of_rules).map(|rules| bounds(&rules)).unwrap_or_default();
        if bounds.is_empty() {
            return schema;
        }
        if number(rules, "ignore") == Some(json!(1)) {
            schema["anyOf"] = json!([{"const": zero}, bounds]);
        } else if let Some(schema) = schema.as_object_mut() {
            schema.extend(bounds);
        }
        schema
    }

    fn enumeration(&mut self, e: &EnumDescriptor, excluded: &[i32]) -> Json {
        let mut name = self.name(e.full_name());
        if !excluded.is_empty() {
            name.push_str("Input");
        }
        let values: Vec<_> = e.values().filter(|value| !excluded.contains(&value.number())).collect();
        let mut description = self.comments.of_path(&e.parent_file(), e.path());
        for value in &values {
            let comment = self.comments.of_path(&value.parent_file(), value.path());
            if !comment.is_empty() {
                description.push_str(&format!("\n- `{}`: {comment}", value.name()));
            }
        }
        let names: Vec<&str> = values.iter().map(|value| value.name()).collect();
        self.made.insert(name.clone(), json!({"type": "string", "enum": names, "description": description}));
        reference(&name)
    }

    /// Whether a request without the field is refused, by the rules of the field alone.
    pub fn is_required(&self, field: &FieldDescriptor) -> bool {
        let Some(rules) = self.rules_of(field) else { return false };
        if number(&rules, "required") == Some(json!(true)) {
            return true;
        }
        if field.supports_presence() || number(&rules, "ignore").is_some_and(|ignore| ignore != json!(0)) {
            return false;
        }
        if field.is_list() {
            return sub(&rules, "repeated").and_then(|list| number(&list, "min_items")).is_some_and(|least| least != json!(0));
        }
        match field.kind() {
            Kind::Enum(_) => sub(&rules, "enum").is_some_and(|rules| excluded(&rules).contains(&0)),
            Kind::String => sub(&rules, "string").is_some_and(|rules| !allows_empty(&bounds(&rules))),
            Kind::Int32 => sub(&rules, "int32").is_some_and(|rules| !allows_zero(&bounds(&rules))),
            Kind::Int64 => sub(&rules, "int64").is_some_and(|rules| !allows_zero(&bounds(&rules))),
            Kind::Double => sub(&rules, "double").is_some_and(|rules| !allows_zero(&bounds(&rules))),
            _ => false,
        }
    }

    fn rules_of(&self, field: &FieldDescriptor) -> Option<DynamicMessage> {
        let (options, extension) = (field.options(), self.rules.as_ref()?);
        let rules = options.has_extension(extension).then(|| options.get_extension(extension).as_message().cloned()).flatten()?;
        // What the service checks by itself is not bound here.
        (number(&rules, "ignore") != Some(json!(3))).then_some(rules)
    }

    /// What is the service's own by its short name, all else in full.
    fn name(&self, full: &str) -> String {
        full.strip_prefix(self.package).and_then(|name| name.strip_prefix('.')).unwrap_or(full).to_owned()
    }
}

/// Text in answers, text or a number in requests.
fn whole_64(format: &str, pattern: &str, side: Side) -> Json {
    let types = if side == Side::Request { json!(["string", "integer"]) } else { json!("string") };
    json!({"type": types, "format": format, "pattern": pattern})
}

/// A type's rules as JSON Schema says them.
fn bounds(rules: &DynamicMessage) -> Map<String, Json> {
    let mut bounds = Map::new();
    for (field, value) in rules.fields() {
        let keyword = match field.name() {
            "min_len" => "minLength",
            "max_len" => "maxLength",
            "pattern" => "pattern",
            "lt" => "exclusiveMaximum",
            "lte" => "maximum",
            "gt" => "exclusiveMinimum",
            "gte" => "minimum",
            "uuid" => {
                bounds.insert("format".into(), "uuid".into());
                continue;
            }
            _ => continue,
        };
        bounds.insert(keyword.into(), plain(value));
    }
    bounds
}

fn allows_empty(bounds: &Map<String, Json>) -> bool {
    let matches_nothing = |pattern: &str| regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(""));
    !bounds.contains_key("format")
        && bounds.get("minLength").is_none_or(|least| *least == json!(0))
        && bounds.get("pattern").and_then(Json::as_str).is_none_or(matches_nothing)
}

fn allows_zero(bounds: &Map<String, Json>) -> bool {
    let holds = |keyword: &str, test: fn(f64) -> bool| bounds.get(keyword).and_then(Json::as_f64).is_none_or(test);
    holds("minimum", |least| least <= 0.0)
        && holds("exclusiveMinimum", |below| below < 0.0)
        && holds("maximum", |most| most >= 0.0)
        && holds("exclusiveMaximum", |above| above > 0.0)
}

fn excluded(rules: &DynamicMessage) -> Vec<i32> {
    let values = rules.get_field_by_name("not_in");
    let values = values.as_deref().and_then(Value::as_list).unwrap_or_default();
    values.iter().filter_map(Value::as_i32).collect()
}

fn sub(message: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    message.has_field_by_name(field).then(|| message.get_field_by_name(field)?.as_message().cloned()).flatten()
}

/// A rule's value, if it is set.
fn number(message: &DynamicMessage, field: &str) -> Option<Json> {
    message.has_field_by_name(field).then(|| message.get_field_by_name(field).map(|value| plain(&value))).flatten()
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Bool(v) => json!(v),
        Value::I32(v) | Value::EnumNumber(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::U64(v) => json!(v),
        Value::F64(v) => json!(v),
        Value::String(v) => json!(v),
        _ => Json::Null,
    }
}

fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
