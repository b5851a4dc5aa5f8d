//! What holds for every contract of the suite, read from the descriptors that reflection serves.

use koc_proto::{FILE_DESCRIPTOR_SET, METHODS};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    Value, prost_types::FileDescriptorProto,
};
use std::collections::{BTreeMap, BTreeSet};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("our own descriptors")
}

fn extension(pool: &DescriptorPool, name: &str) -> ExtensionDescriptor {
    pool.get_extension_by_name(name).unwrap_or_else(|| panic!("{name} is declared"))
}

fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()).collect()
}

fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages().filter(|m| m.package_name().starts_with("koc."))
}

/// The verb and path of a method's HTTP rule, and what its body is.
fn http_rule(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<(String, String, String)> {
    let options = method.options();
    let rule = options.get_extension(&extension(pool, "google.api.http"));
    let rule = rule.as_message().filter(|_| options.has_extension(&extension(pool, "google.api.http")))?.clone();
    let text = |name: &str| rule.get_field_by_name(name).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let verb = ["get", "post", "patch", "put", "delete"].into_iter().find(|verb| rule.has_field_by_name(verb))?;
    Some((verb.to_owned(), text(verb), text("body")))
}

/// Collects what is wrong, so that a failure names all of it.
fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_method_declares_a_scope_of_its_own_service() {
    let pool = pool();
    let scope = extension(&pool, "koc.options.v1.scope");
    let areas: BTreeSet<_> = pool.services().map(|s| s.full_name().split('.').nth(1).map(str::to_owned)).collect();
    assert_eq!(areas.len(), 4, "{areas:?}");
    let wrong = methods(&pool).into_iter().filter_map(|method| {
        let options = method.options();
        let scope = options.get_extension(&scope).as_str().unwrap_or_default().to_owned();
        let area = method.full_name().split('.').nth(1).unwrap_or_default().to_owned();
        let declared = METHODS
            .iter()
            .any(|m| m.scope == scope && m.path == format!("/{}/{}", method.parent_service().full_name(), method.name()));
        let well_formed = scope.split('.').count() >= 2
            && scope.starts_with(&format!("{area}."))
            && scope.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '_');
        (!declared || !well_formed).then(|| format!("{}: {scope:?}", method.full_name()))
    });
    assert_none(wrong.collect());
    assert_eq!(METHODS.len(), methods(&pool).len());
}

#[test]
fn every_unary_method_has_an_http_rule_whose_path_names_fields_of_its_request() {
    let pool = pool();
    let mut wrong = Vec::new();
    let mut paths = BTreeMap::new();
    for method in methods(&pool) {
        let streams = method.is_client_streaming() || method.is_server_streaming();
        let Some((verb, path, body)) = http_rule(&pool, &method) else {
            if !streams {
                wrong.push(format!("{}: has no google.api.http", method.full_name()));
            }
            continue;
        };
        if streams {
            wrong.push(format!("{}: a stream has no HTTP form here", method.full_name()));
        }
        if !path.starts_with("/v1/") || path.ends_with('/') {
            wrong.push(format!("{}: the path {path}", method.full_name()));
        }
        if body != if ["post", "patch", "put"].contains(&verb.as_str()) { "*" } else { "" } {
            wrong.push(format!("{}: {verb} with body {body:?}", method.full_name()));
        }
        let mut shape = String::new();
        for (i, part) in path.split('{').enumerate() {
            let Some((field, rest)) = part.split_once('}').filter(|_| i > 0) else {
                shape.push_str(part);
                continue;
            };
            shape.push_str("{}");
            shape.push_str(rest);
            let is_text = method
                .input()
                .get_field_by_name(field)
                .is_some_and(|f| matches!(f.kind(), Kind::String | Kind::Int32 | Kind::Int64) && !f.is_list());
            if !is_text {
                wrong.push(format!("{}: {field} of {path} is no scalar field of the request", method.full_name()));
            }
        }
        if let Some(other) = paths.insert((verb, shape), method.full_name().to_owned()) {
            wrong.push(format!("{} and {other} share {path}", method.full_name()));
        }
    }
    assert_none(wrong);
}

#[test]
fn every_request_names_its_programme_and_every_mutation_carries_a_request_id() {
    // The rows of these batches are their own keys, as those of streams are.
    const NATURAL_KEYS: [&str; 5] = [
        "koc.measurement.v1.BatchRecordObservationsRequest",
        "koc.registry.v1.AppendMemberImportChunkRequest",
        "koc.registry.v1.BatchEarnPointsRequest",
        "koc.registry.v1.BatchUpsertMembersRequest",
        "koc.registry.v1.RetryRejectedRowsRequest",
    ];
    // Reads whose question does not fit in a path and a query, or must not stand in one: they change nothing, so a retry needs no id.
    const READS_WITH_A_BODY: [&str; 2] = ["koc.budget.v1.AdviseAllocationRequest", "koc.registry.v1.SearchMembersRequest"];
    let pool = pool();
    let mut wrong = Vec::new();
    for method in methods(&pool) {
        let input = method.input();
        let has_uuid = |message: &MessageDescriptor, name: &str| {
            message
                .get_field_by_name(name)
                .is_some_and(|f| f.kind() == Kind::String && !f.is_list() && rules(&pool, &f).contains("uuid"))
        };
        let uuid = |name: &str| has_uuid(&input, name);
        // A batch of requests needs none of its own: each of them carries one.
        let of_each = input.get_field_by_name("requests").is_some_and(|field| {
            field.is_list() && field.kind().as_message().is_some_and(|message| has_uuid(message, "request_id"))
        });
        if !uuid("programme_id") {
            wrong.push(format!("{}: no programme_id that is a UUID", input.full_name()));
        }
        let writes =
            http_rule(&pool, &method).is_some_and(|(verb, ..)| verb != "get") && !READS_WITH_A_BODY.contains(&input.full_name());
        if writes && !NATURAL_KEYS.contains(&input.full_name()) && !uuid("request_id") && !of_each {
            wrong.push(format!("{}: no request_id that is a UUID", input.full_name()));
        }
        if !writes && input.get_field_by_name("request_id").is_some() {
            wrong.push(format!("{}: a read or a stream has no request_id", input.full_name()));
        }
    }
    assert_none(wrong);
}

/// The rules on a field, as text.
fn rules(pool: &DescriptorPool, field: &FieldDescriptor) -> String {
    let (options, rules) = (field.options(), extension(pool, "buf.validate.field"));
    if options.has_extension(&rules) { options.get_extension(&rules).to_string() } else { String::new() }
}

#[test]
fn every_request_and_response_belongs_to_one_method() {
    let pool = pool();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for method in methods(&pool) {
        for (message, suffix) in [(method.input(), "Request"), (method.output(), "Response")] {
            if message.name() != format!("{}{suffix}", method.name())
                || message.package_name() != method.parent_service().package_name()
            {
                wrong.push(format!("{}: {}", method.full_name(), message.full_name()));
            }
            if !used.insert(message.full_name().to_owned()) {
                wrong.push(format!("{} is used twice", message.full_name()));
            }
        }
    }
    let stray = messages(&pool)
        .filter(|m| (m.name().ends_with("Request") || m.name().ends_with("Response")) && !used.contains(m.full_name()));
    wrong.extend(stray.map(|m| format!("{} is of no method", m.full_name())));
    assert_none(wrong);
}

#[test]
fn every_pattern_compiles_and_is_anchored() {
    fn collect(value: &Value, found: &mut Vec<String>) {
        let Value::Message(message) = value else { return };
        visit(message, found);
    }
    fn visit(message: &DynamicMessage, found: &mut Vec<String>) {
        for (field, value) in message.fields() {
            match (field.name(), value) {
                ("pattern", Value::String(pattern)) => found.push(pattern.clone()),
                (_, value) => collect(value, found),
            }
        }
    }
    let pool = pool();
    let option = extension(&pool, "buf.validate.field");
    let mut patterns = Vec::new();
    for field in messages(&pool).flat_map(|m| m.fields().collect::<Vec<_>>()) {
        let options = field.options();
        if options.has_extension(&option) {
            collect(&options.get_extension(&option), &mut patterns);
        }
    }
    assert!(patterns.len() > 10, "{patterns:?}");
    for pattern in patterns {
        regex::Regex::new(&pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{pattern} matches within a text");
    }
}

#[test]
fn every_field_encodes_in_one_way_only() {
    // A retry is recognised by the hash of its encoding, and a map's order is chance.
    let pool = pool();
    let maps = messages(&pool)
        .flat_map(|m| m.fields().collect::<Vec<_>>())
        .filter(|f| f.is_map() || f.cardinality() == Cardinality::Required);
    assert_none(maps.map(|f| f.full_name().to_owned()).collect());
}

#[test]
fn personal_fields_are_text_and_no_fact_has_one() {
    let pool = pool();
    let personal = extension(&pool, "koc.options.v1.personal");
    let marked = |f: &FieldDescriptor| f.options().get_extension(&personal).as_bool() == Some(true);
    let all: Vec<_> = messages(&pool).flat_map(|m| m.fields().filter(marked).collect::<Vec<_>>()).collect();
    assert!(!all.is_empty() && all.iter().all(|f| f.kind() == Kind::String), "{all:?}");
    fn reaches(
        message: &MessageDescriptor,
        marked: &dyn Fn(&FieldDescriptor) -> bool,
        seen: &mut BTreeSet<String>,
    ) -> Option<String> {
        if !seen.insert(message.full_name().to_owned()) {
            return None;
        }
        message.fields().find_map(|field| match field.kind() {
            _ if marked(&field) => Some(field.full_name().to_owned()),
            Kind::Message(inner) => reaches(&inner, marked, seen),
            _ => None,
        })
    }
    let facts = pool.files().filter(|f| f.name().ends_with("/fact.proto") || f.name().ends_with("/feed.proto"));
    let wrong = facts.flat_map(|f| f.messages().collect::<Vec<_>>()).filter_map(|m| reaches(&m, &marked, &mut BTreeSet::new()));
    assert_none(wrong.collect());
}

#[test]
fn a_method_masks_itself_only_what_the_values_beside_it_decide() {
    let pool = pool();
    let [personal, by_method] = ["personal", "masked_by_method"].map(|name| extension(&pool, &format!("koc.options.v1.{name}")));
    let is = |f: &FieldDescriptor, option: &ExtensionDescriptor| f.options().get_extension(option).as_bool() == Some(true);
    let fields = messages(&pool).flat_map(|m| m.fields().collect::<Vec<_>>());
    let found: Vec<_> = fields.filter(|f| is(f, &by_method)).map(|f| (f.full_name().to_owned(), is(&f, &personal))).collect();
    let expected = ["before", "after"].map(|name| (format!("koc.registry.v1.FieldChange.{name}"), true));
    assert_eq!(found, expected, "each of these needs a test of its method");
}

/// Paths, as source info has them, of what a file declares, with names. The values of an enum may speak for themselves.
fn declared(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let mut all = Vec::new();
    let nr = |i: usize| i32::try_from(i).expect("few");
    for (m, message) in file.message_type.iter().enumerate() {
        all.push((vec![4, nr(m)], message.name().to_owned()));
        for (f, field) in message.field.iter().enumerate() {
            all.push((vec![4, nr(m), 2, nr(f)], format!("{}.{}", message.name(), field.name())));
        }
    }
    for (e, declared) in file.enum_type.iter().enumerate() {
        all.push((vec![5, nr(e)], declared.name().to_owned()));
    }
    for (s, service) in file.service.iter().enumerate() {
        all.push((vec![6, nr(s)], service.name().to_owned()));
        for (m, method) in service.method.iter().enumerate() {
            all.push((vec![6, nr(s), 2, nr(m)], format!("{}.{}", service.name(), method.name())));
        }
    }
    for (x, option) in file.extension.iter().enumerate() {
        all.push((vec![7, nr(x)], option.name().to_owned()));
    }
    all
}

#[test]
fn everything_in_the_contracts_is_commented() {
    let mut wrong = Vec::new();
    for file in pool().file_descriptor_protos().filter(|f| f.package().starts_with("koc.")) {
        let info = file.source_code_info.as_ref().expect("comments are kept");
        for (path, name) in declared(file) {
            let comment = info.location.iter().find(|l| l.path == path).and_then(|l| l.leading_comments.as_deref());
            if comment.is_none_or(|c| c.trim().is_empty()) {
                wrong.push(format!("{}: {name}", file.name()));
            }
        }
    }
    assert_none(wrong);
}
