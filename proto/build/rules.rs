//! From protovalidate options to Rust: one `impl Rules` per message, and the table of methods with their scopes.

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor, Value,
};
use std::fmt::Write as _;

/// Options as the descriptor pool shows them.
struct Options {
    field: ExtensionDescriptor,
    oneof: ExtensionDescriptor,
    personal: ExtensionDescriptor,
    masked_by_method: ExtensionDescriptor,
    scope: ExtensionDescriptor,
}

pub fn generate(pool: &DescriptorPool) -> String {
    let extension = |name: &str| pool.get_extension_by_name(name).unwrap_or_else(|| panic!("extension {name} is not declared"));
    let options = Options {
        field: extension("buf.validate.field"),
        oneof: extension("buf.validate.oneof"),
        personal: extension("koc.options.v1.personal"),
        masked_by_method: extension("koc.options.v1.masked_by_method"),
        scope: extension("koc.options.v1.scope"),
    };
    let mut code = String::from("// Generated from the proto files; see build/rules.rs.\n");
    for message in pool.all_messages().filter(|m| m.package_name().starts_with("koc.")) {
        message_impl(&mut code, &message, &options);
    }
    methods(&mut code, pool, &options);
    code
}

fn message_impl(code: &mut String, message: &MessageDescriptor, options: &Options) {
    let area = message.package_name().split('.').nth(1).unwrap_or_default();
    let mut check = String::new();
    let mut personal = String::new();
    for field in message.fields().filter(|f| f.containing_oneof().is_none_or(|o| o.is_synthetic())) {
        check_field(&mut check, &field, options);
        personal_field(&mut personal, &field, options);
    }
    for oneof in message.oneofs().filter(|o| !o.is_synthetic()) {
        oneof_rules(&mut check, &mut personal, message, &oneof, options);
    }
    let programme = match message.get_field_by_name("programme_id") {
        Some(_) => "Some(self.programme_id.as_str())",
        None => "None",
    };
    let request_id = match message.get_field_by_name("request_id") {
        Some(_) => "Some(self.request_id.as_str())",
        None => "None",
    };
    let request = message.name().ends_with("Request");
    let arg = |body: &str, name: &str| if body.is_empty() { format!("_{name}") } else { name.to_owned() };
    writeln!(
        code,
        "impl crate::rules::Rules for {ty} {{\n\
         const REQUEST: bool = {request};\n\
         const NAME: &'static str = \"{name}\";\n\
         const DOMAIN: &'static str = \"{area}.koc\";\n\
         fn check(&self, {c}: &mut crate::rules::Checker) {{\n{check}}}\n\
         fn each_personal(&mut self, {act}: crate::rules::Act) {{\n{personal}}}\n\
         fn programme_id(&self) -> Option<&str> {{ {programme} }}\n\
         fn request_id(&self) -> Option<&str> {{ {request_id} }}\n}}",
        name = message.full_name(),
        ty = rust_type(message),
        c = arg(&check, "c"),
        act = arg(&personal, "act"),
    )
    .expect("writing to a string");
}

fn check_field(code: &mut String, field: &FieldDescriptor, options: &Options) {
    let rules = rules_of(field.options(), &options.field);
    let name = field.name();
    let ignore = rules.as_ref().map_or(0, |r| number(r, "ignore"));
    if ignore == 3 {
        return;
    }
    let mut body = String::new();
    if field.is_list() {
        list_rules(&mut body, field, rules.as_ref());
    } else if let Kind::Message(inner) = field.kind() {
        if flag(rules.as_ref(), "required") {
            writeln!(body, "if self.{name}.is_none() {{ c.missing(); }}").expect("writing to a string");
        }
        if inner.package_name().starts_with("koc.") {
            writeln!(body, "if let Some(v) = &self.{name} {{ crate::rules::Rules::check(v, c); }}").expect("writing to a string");
        }
    } else {
        let tests = scalar_rules(field, rules.as_ref());
        if tests.is_empty() {
            return;
        }
        if field.supports_presence() {
            writeln!(body, "if let Some(v) = &self.{name} {{ {tests} }}").expect("writing to a string");
        } else if ignore == 1 {
            writeln!(body, "if crate::rules::is_set(&self.{name}) {{ let v = &self.{name}; {tests} }}")
                .expect("writing to a string");
        } else {
            writeln!(body, "{{ let v = &self.{name}; {tests} }}").expect("writing to a string");
        }
    }
    if !body.is_empty() {
        writeln!(code, "c.enter(\"{name}\");\n{body}c.leave();").expect("writing to a string");
    }
}

/// A oneof holds messages of ours, each with rules of its own; it may have to be set.
fn oneof_rules(
    check: &mut String,
    personal: &mut String,
    message: &MessageDescriptor,
    oneof: &OneofDescriptor,
    options: &Options,
) {
    let name = oneof.name();
    let required = flag(rules_of(oneof.options(), &options.oneof).as_ref(), "required");
    let module = rust_type(message).replace(message.name(), &snake(message.name()));
    writeln!(check, "match &self.{name} {{").expect("writing to a string");
    writeln!(personal, "match &mut self.{name} {{").expect("writing to a string");
    for field in oneof.fields() {
        let ours = matches!(field.kind(), Kind::Message(inner) if inner.package_name().starts_with("koc."));
        let marked = is_marked(&field, &options.personal);
        let bare = rules_of(field.options(), &options.field).is_none() && !marked;
        assert!(ours && bare, "{}: a oneof holds messages of the suite without rules on the field", field.full_name());
        let (field, variant) = (field.name(), format!("{module}::{}::{}", camel(name), camel(field.name())));
        writeln!(check, "Some({variant}(v)) => {{ c.enter(\"{field}\"); crate::rules::Rules::check(v, c); c.leave(); }}")
            .expect("writing to a string");
        writeln!(personal, "Some({variant}(v)) => crate::rules::Rules::each_personal(v, act),").expect("writing to a string");
    }
    let missing = if required { format!("c.enter(\"{name}\"); c.missing(); c.leave();") } else { String::new() };
    writeln!(check, "None => {{ {missing} }}\n}}").expect("writing to a string");
    writeln!(personal, "None => {{}}\n}}").expect("writing to a string");
}

/// `response_curve` to `ResponseCurve`, as prost names the variants of a oneof.
fn camel(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('_').map(word).collect()
}

/// `ResponseCurve` to `response_curve`, as prost names the module of a message.
fn snake(name: &str) -> String {
    let letter = |(i, c): (usize, char)| match c.is_ascii_uppercase() {
        true if i > 0 => format!("_{}", c.to_ascii_lowercase()),
        _ => c.to_ascii_lowercase().to_string(),
    };
    name.char_indices().map(letter).collect()
}

fn list_rules(body: &mut String, field: &FieldDescriptor, rules: Option<&DynamicMessage>) {
    let name = field.name();
    let list = rules.and_then(|r| sub(r, "repeated"));
    let mut items = None;
    if let Some(list) = &list {
        known(list, &["min_items", "max_items", "unique", "items"], field);
        if list.has_field_by_name("min_items") {
            writeln!(body, "c.min_items(self.{name}.len(), {});", number(list, "min_items")).expect("writing to a string");
        }
        if list.has_field_by_name("max_items") {
            writeln!(body, "c.max_items(self.{name}.len(), {});", number(list, "max_items")).expect("writing to a string");
        }
        if flag(Some(list), "unique") {
            writeln!(body, "c.unique(&self.{name});").expect("writing to a string");
        }
        items = sub(list, "items");
    }
    if items.as_ref().is_some_and(|i| number(i, "ignore") == 3) {
        return;
    }
    let test = match field.kind() {
        Kind::Message(inner) if inner.package_name().starts_with("koc.") => "crate::rules::Rules::check(v, c);".to_owned(),
        Kind::Message(_) => return,
        _ => scalar_rules(field, items.as_ref()),
    };
    if test.is_empty() {
        return;
    }
    writeln!(body, "for (i, v) in self.{name}.iter().enumerate() {{ c.at(i); {test} c.leave(); }}").expect("writing to a string");
}

/// Tests on `v`, a reference to the field's value. Every string is tested, with rules or without.
fn scalar_rules(field: &FieldDescriptor, rules: Option<&DynamicMessage>) -> String {
    let mut tests = String::from(if field.kind() == Kind::String { "c.storable(v);" } else { "" });
    let Some(rules) = rules else { return tests };
    let kind = match field.kind() {
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Double => "double",
        Kind::Enum(_) => "enum",
        other => panic!("{}: rules on {other:?} are not supported", field.full_name()),
    };
    for (set, _) in rules.fields() {
        let name = set.name();
        assert!(["required", "ignore", kind].contains(&name), "{}: rules of {name} on a {kind}", field.full_name());
    }
    assert!(!flag(Some(rules), "required"), "{}: say min_len or not_in instead of required on a scalar", field.full_name());
    let Some(rules) = sub(rules, kind) else { return tests };
    for (rule, value) in rules.fields() {
        let rule = rule.name().to_owned();
        match (kind, rule.as_str(), value) {
            ("string", "min_len", v) => write!(tests, "c.min_len(v, {});", int(v)),
            ("string", "max_len", v) => write!(tests, "c.max_len(v, {});", int(v)),
            ("string", "uuid", _) => write!(tests, "c.uuid(v);"),
            ("string", "pattern", Value::String(p)) => write!(
                tests,
                "{{ static RE: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| crate::rules::pattern({p:?})); c.pattern(v, &RE); }}"
            ),
            ("bytes", "min_len", v) => write!(tests, "c.min_bytes(v, {});", int(v)),
            ("bytes", "max_len", v) => write!(tests, "c.max_bytes(v, {});", int(v)),
            ("int32" | "int64", "lt" | "lte" | "gt" | "gte", v) => write!(tests, "c.int_{rule}(i64::from(*v), {});", int(v)),
            ("double", "lt" | "lte" | "gt" | "gte", Value::F64(v)) => write!(tests, "c.double_{rule}(*v, {v:?});"),
            ("double", "finite", _) => write!(tests, "c.finite(*v);"),
            ("enum", "defined_only", _) => {
                let Kind::Enum(e) = field.kind() else { unreachable!("kind is enum") };
                let numbers: Vec<i32> = e.values().map(|v| v.number()).collect();
                write!(tests, "c.defined(*v, &{numbers:?});")
            }
            ("enum", "not_in", Value::List(not)) => {
                let numbers: Vec<i64> = not.iter().map(int).collect();
                write!(tests, "c.not_in(*v, &{numbers:?});")
            }
            (_, other, _) => panic!("{}: the checker does not know the rule {kind}.{other}", field.full_name()),
        }
        .expect("writing to a string");
    }
    tests
}

fn is_marked(field: &FieldDescriptor, option: &ExtensionDescriptor) -> bool {
    field.options().get_extension(option).as_bool() == Some(true)
}

fn personal_field(code: &mut String, field: &FieldDescriptor, options: &Options) {
    let name = field.name();
    if is_marked(field, &options.personal) {
        let by_method = is_marked(field, &options.masked_by_method);
        writeln!(code, "act(&mut self.{name}, {by_method});").expect("writing to a string");
        return;
    }
    if let Kind::Message(inner) = field.kind()
        && inner.package_name().starts_with("koc.")
    {
        // A list and an option both iterate over what they hold.
        writeln!(code, "for v in self.{name}.iter_mut() {{ crate::rules::Rules::each_personal(v, act); }}")
            .expect("writing to a string");
    }
}

fn methods(code: &mut String, pool: &DescriptorPool, options: &Options) {
    code.push_str(
        "/// Every method of the suite with the scope it declares.\npub static METHODS: &[crate::rules::Method] = &[\n",
    );
    for service in pool.services() {
        for method in service.methods() {
            let scope = method.options().get_extension(&options.scope).as_str().unwrap_or_default().to_owned();
            writeln!(
                code,
                "crate::rules::Method {{ path: \"/{}/{}\", service: \"{}\", scope: {scope:?} }},",
                service.full_name(),
                method.name(),
                service.full_name(),
            )
            .expect("writing to a string");
        }
    }
    code.push_str("];\n");
}

fn rust_type(message: &MessageDescriptor) -> String {
    assert!(message.parent_message().is_none(), "{}: nested messages are not supported", message.full_name());
    format!("crate::{}::{}", message.package_name().replace('.', "::"), message.name())
}

fn rules_of(options: DynamicMessage, extension: &ExtensionDescriptor) -> Option<DynamicMessage> {
    options.has_extension(extension).then(|| options.get_extension(extension).as_message().cloned()).flatten()
}

fn sub(message: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    message.has_field_by_name(field).then(|| message.get_field_by_name(field)?.as_message().cloned()).flatten()
}

fn known(message: &DynamicMessage, names: &[&str], field: &FieldDescriptor) {
    for (set, _) in message.fields() {
        assert!(names.contains(&set.name()), "{}: the checker does not know the rule {}", field.full_name(), set.name());
    }
    assert!(
        message.unknown_fields().next().is_none(),
        "{}: a rule that the suite's validate.proto does not declare",
        field.full_name()
    );
}

fn flag(message: Option<&DynamicMessage>, field: &str) -> bool {
    message.is_some_and(|m| m.get_field_by_name(field).is_some_and(|v| v.as_bool() == Some(true)))
}

fn number(message: &DynamicMessage, field: &str) -> i64 {
    message.get_field_by_name(field).map_or(0, |v| int(&v))
}

fn int(value: &Value) -> i64 {
    match *value {
        Value::I32(v) => v.into(),
        Value::I64(v) => v,
        Value::U32(v) => v.into(),
        Value::U64(v) => i64::try_from(v).expect("a rule's number fits in 63 bits"),
        Value::EnumNumber(v) => v.into(),
        _ => panic!("not a whole number: {value:?}"),
    }
}
