//! The OpenAPI document of a service, made from its contracts: paths from the HTTP rules, descriptions from the comments, bounds from the
//! validation rules.

mod schema;

use super::{
    answer::code_names,
    message::spelt,
    route::{BodyRule, FieldPath, Route, Routes},
};
use crate::{auth::ACTOR_HEADER, server::Identity};
use koc_proto::DESCRIPTORS;
use prost_reflect::{FieldDescriptor, MessageDescriptor, MethodDescriptor};
use schema::{Comments, Schemas, Side};
use serde_json::{Map, Value as Json, json};

const INTRODUCTION: &str = "HTTP/JSON form of the service's unary gRPC methods, in canonical proto JSON: names in lowerCamelCase (the proto \
    spelling is read too), 64-bit integers as text (numbers are read too), enums by name, times by RFC 3339, durations in seconds as in \
    `3.5s`, field masks as paths separated by commas. Answers hold every field that is not absent, zeros too. Unknown fields and \
    parameters are refused. Errors are those of gRPC: a status, a stable reason in `google.rpc.ErrorInfo`, all field violations at once in \
    `google.rpc.BadRequest`, with the fields spelt as in JSON.";

/// What may go wrong with any method: HTTP status, name of the response, what it means.
const ERRORS: [(u16, &str, &str); 9] = [
    (
        400,
        "Refused",
        "INVALID_ARGUMENT: the request breaks a rule. FAILED_PRECONDITION: a business rule says no. OUT_OF_RANGE: out of bounds.",
    ),
    (401, "Unauthenticated", "UNAUTHENTICATED: no token, or one that does not hold."),
    (403, "Denied", "PERMISSION_DENIED: the token lacks the scope or the programme."),
    (404, "NotFound", "NOT_FOUND: there is no such thing."),
    (409, "Conflict", "ALREADY_EXISTS: there is one already. ABORTED: somebody else changed it meanwhile; read it again."),
    (429, "TooMany", "RESOURCE_EXHAUSTED: too much at once; Retry-After says when to come back."),
    (500, "Internal", "INTERNAL: an error of the service; its log has it."),
    (503, "Unavailable", "UNAVAILABLE: for a passing reason; Retry-After says when to come back."),
    (504, "Late", "DEADLINE_EXCEEDED: the deadline passed before the work was done."),
];
/// And with a method that takes a body.
const BODY_ERRORS: [(u16, &str, &str); 2] = [
    (413, "TooLarge", "OUT_OF_RANGE: the body is longer than 8 MiB."),
    (415, "NotJson", "INVALID_ARGUMENT: the body is not application/json in UTF-8."),
];
/// Details that errors carry.
const DETAILS: [&str; 5] = ["ErrorInfo", "BadRequest", "RetryInfo", "PreconditionFailure", "ResourceInfo"];

/// The document of a service with these routes.
pub fn document(identity: &Identity, routes: &Routes) -> Json {
    let comments = Comments::of(&DESCRIPTORS);
    let mut schemas = Schemas::new(&DESCRIPTORS, identity.package, &comments);
    let mut paths = Map::new();
    for route in routes.iter() {
        let item = paths.entry(path(route)).or_insert_with(|| json!({}));
        item[route.verb.as_str().to_ascii_lowercase()] = operation(route, &mut schemas, &comments);
    }
    let services: Vec<_> = DESCRIPTORS.services().filter(|service| service.package_name() == identity.package).collect();
    let streams: Vec<String> = services
        .iter()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter(|method| method.is_client_streaming() || method.is_server_streaming())
        .map(|method| format!("`{}`", method.full_name()))
        .collect();
    let mut description = INTRODUCTION.to_owned();
    if !streams.is_empty() {
        description.push_str(&format!("\n\nStreams are served by gRPC alone, on the same port: {}.", streams.join(", ")));
    }
    let tags: Vec<Json> =
        services.iter().map(|s| json!({"name": s.name(), "description": comments.of_path(&s.parent_file(), s.path())})).collect();
    let error = error_schema(&mut schemas);
    let mut components = schemas.finish();
    components.insert("Error".into(), error);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("KOC Suite: {}", identity.name),
            "version": env!("CARGO_PKG_VERSION"),
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": responses(),
            "parameters": {
                "actor": {
                    "name": ACTOR_HEADER,
                    "in": "header",
                    "description": "The person who acts, where it is not the token's subject; needs the scope `act_as`.",
                    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
                },
                "timeout": {
                    "name": super::TIMEOUT_HEADER,
                    "in": "header",
                    "description": "How long the caller waits, in seconds, 60 at most; without it 15.",
                    "schema": {"type": "number", "minimum": 0.001},
                },
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    })
}

/// A route's path with its variables spelt as in JSON.
fn path(route: &Route) -> String {
    let mut variables = route.variables.iter();
    let parts = route.template.split('{').enumerate().map(|(i, part)| match part.split_once('}').filter(|_| i > 0) {
        Some((_, rest)) => format!("{{{}}}{rest}", variables.next().map(|v| spelt(v)).unwrap_or_default()),
        None => part.to_owned(),
    });
    parts.collect()
}

fn operation(route: &Route, schemas: &mut Schemas, comments: &Comments) -> Json {
    let method = &route.method;
    let scope = koc_proto::METHODS.iter().find(|m| m.path == route.grpc_path.as_str()).map_or("", |m| m.scope);
    let comment = comments.of_path(&method.parent_file(), method.path());
    let first = comment.split_once(". ").map_or(comment.as_str(), |(first, _)| first);
    let mut operation = json!({
        "operationId": format!("{}_{}", method.parent_service().name(), method.name()),
        "tags": [method.parent_service().name()],
        "summary": first.trim_end_matches('.'),
        "description": format!("{comment}\n\nNeeds the scope `{scope}`. gRPC: `{}`.", method.full_name()),
        "security": [{"bearer": [scope]}],
        "parameters": parameters(route, schemas),
        "responses": answers(method, route.body != BodyRule::None, schemas),
    });
    let in_path = |field: &FieldDescriptor| route.variables.iter().any(|path| path.len() == 1 && path[0] == *field);
    let body = match &route.body {
        BodyRule::None => return operation,
        BodyRule::Whole => schemas.body(&method.input(), &in_path),
        BodyRule::Field(field) => schemas.field(field, Side::Request),
    };
    operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": body}}});
    operation
}

fn parameters(route: &Route, schemas: &mut Schemas) -> Vec<Json> {
    let mut parameters: Vec<Json> = route.variables.iter().map(|path| parameter(path, "path", schemas)).collect();
    let in_body = |field: &FieldDescriptor| match &route.body {
        BodyRule::None => false,
        BodyRule::Whole => true,
        BodyRule::Field(body) => body == field,
    };
    let mut queried = Vec::new();
    in_query(&route.method.input(), &mut Vec::new(), &mut queried);
    queried.retain(|path| !path.first().is_some_and(in_body) && !route.variables.contains(path));
    parameters.extend(queried.iter().map(|path| parameter(path, "query", schemas)));
    parameters.extend(["actor", "timeout"].map(|name| json!({"$ref": format!("#/components/parameters/{name}")})));
    parameters
}

/// Every field that a query can name.
fn in_query(message: &MessageDescriptor, at: &mut FieldPath, found: &mut Vec<FieldPath>) {
    for field in message.fields() {
        let inner = super::message::nested(&field);
        let around = at.iter().any(|outer| inner.as_ref() == Some(outer.parent_message()));
        at.push(field.clone());
        match inner {
            None => found.push(at.clone()),
            Some(inner) if !field.is_list() && !around => in_query(&inner, at, found),
            Some(_) => {}
        }
        at.pop();
    }
}

fn parameter(path: &FieldPath, place: &str, schemas: &mut Schemas) -> Json {
    let Some(field) = path.last() else { return json!({}) };
    let mut schema = schemas.field(field, Side::Request);
    let description = schema.as_object_mut().and_then(|schema| schema.remove("description")).unwrap_or_default();
    let required = place == "path" || path.iter().all(|field| schemas.is_required(field));
    json!({"name": spelt(path), "in": place, "required": required, "description": description, "schema": schema})
}

fn answers(method: &MethodDescriptor, has_body: bool, schemas: &mut Schemas) -> Json {
    let schema = schemas.message(&method.output(), Side::Answer);
    let mut answers = json!({"200": {"description": "Done.", "content": {"application/json": {"schema": schema}}}});
    for (code, name, _) in ERRORS.iter().chain(BODY_ERRORS.iter().filter(|_| has_body)) {
        answers[code.to_string()] = json!({"$ref": format!("#/components/responses/{name}")});
    }
    answers["default"] = json!({"$ref": "#/components/responses/Error"});
    answers
}

fn responses() -> Json {
    let response = |description: &str| {
        let schema = json!({"$ref": "#/components/schemas/Error"});
        json!({"description": description, "content": {"application/json": {"schema": schema}}})
    };
    let mut responses = json!({"Error": response("An error.")});
    for (code, name, meaning) in ERRORS.iter().chain(&BODY_ERRORS) {
        let mut one = response(meaning);
        let header = match code {
            401 => Some(("WWW-Authenticate", json!({"type": "string"}), "What is wrong with the token.")),
            429 | 503 => Some(("Retry-After", json!({"type": "string", "pattern": "^[0-9]+$"}), "Seconds to wait.")),
            _ => None,
        };
        if let Some((header, schema, description)) = header {
            one["headers"] = json!({header: {"description": description, "schema": schema}});
        }
        responses[*name] = one;
    }
    responses
}

fn error_schema(schemas: &mut Schemas) -> Json {
    let details: Vec<Json> = DETAILS
        .iter()
        .filter_map(|name| DESCRIPTORS.get_message_by_name(&format!("google.rpc.{name}")))
        .map(|message| {
            let named = json!({"properties": {"@type": {"const": format!("type.googleapis.com/{}", message.full_name())}}});
            json!({"allOf": [schemas.message(&message, Side::Answer), named], "required": ["@type"]})
        })
        .collect();
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message", "status", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "message": {"type": "string", "description": "For a developer, in English."},
                "status": {"type": "string", "description": "The gRPC code by name.", "enum": code_names().collect::<Vec<_>>()},
                "details": {"type": "array", "items": {"anyOf": details}},
            },
        }},
    })
}

#[cfg(test)]
mod tests;
