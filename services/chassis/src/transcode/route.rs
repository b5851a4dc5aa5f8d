//! Which method a request means, by the `google.api.http` rules of the contracts.

use http::{Method, uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor};
use std::{collections::BTreeMap, sync::Arc};

/// The extension that holds a method's rule.
const HTTP_RULE: &str = "google.api.http";

/// A rule that cannot be served, found when a service starts.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP rule of {method}: {problem}")]
pub struct BadRule {
    method: String,
    problem: String,
}

/// A field and the fields it lies in, outermost first.
pub type FieldPath = Vec<FieldDescriptor>;

/// Where the fields that are not in the path come from.
#[derive(Debug, Clone, PartialEq)]
pub enum BodyRule {
    /// All from the query.
    None,
    /// All from the body.
    Whole,
    /// One from the body, the others from the query.
    Field(FieldDescriptor),
}

/// One method as HTTP reaches it.
#[derive(Debug)]
pub struct Route {
    pub method: MethodDescriptor,
    /// As gRPC names it: `/koc.registry.v1.MemberService/GetMember`.
    pub grpc_path: PathAndQuery,
    pub verb: Method,
    /// As the rule writes it: `/v1/programmes/{programme_id}/members/{member_id}`.
    pub template: String,
    /// The fields in the path, in order.
    pub variables: Vec<FieldPath>,
    pub body: BodyRule,
    /// Whether an answer can hold errors of its own, as those of batches do.
    pub answers_hold_status: bool,
}

/// What was found at a path.
pub enum Found {
    /// A route with the values of its variables.
    Route(Arc<Route>, Vec<String>),
    /// The path is known, and takes these methods.
    OtherMethods(Vec<Method>),
    /// The path, or a character in it, is not known.
    Nothing,
}

/// The routes at one path, by what stands behind a colon at its end.
type Resource = BTreeMap<String, Vec<Arc<Route>>>;

/// All routes of a service.
#[derive(Debug, Clone)]
pub struct Routes {
    all: Vec<Arc<Route>>,
    tree: matchit::Router<Resource>,
}

impl Routes {
    /// Those of the unary methods of one package, e.g. `koc.registry.v1`. Fails on a rule that cannot be served.
    pub fn of(pool: &DescriptorPool, package: &str) -> Result<Self, BadRule> {
        let mut all = Vec::new();
        let mut resources: BTreeMap<String, Resource> = BTreeMap::new();
        for service in pool.services().filter(|service| service.package_name() == package) {
            for method in service.methods().filter(|m| !m.is_client_streaming() && !m.is_server_streaming()) {
                let bad = |problem: String| BadRule { method: method.full_name().to_owned(), problem };
                let (route, pattern, suffix) = read_rule(pool, &method).map_err(bad)?;
                let same = resources.entry(pattern).or_default().entry(suffix).or_default();
                if same.iter().any(|other: &Arc<Route>| other.verb == route.verb) {
                    return Err(bad(format!("{} {} is taken by another method", route.verb, route.template)));
                }
                let route = Arc::new(route);
                same.push(route.clone());
                all.push(route);
            }
        }
        let mut tree = matchit::Router::new();
        for (pattern, resource) in resources {
            let named = resource.values().flatten().next().map(|r| r.method.full_name().to_owned()).unwrap_or_default();
            tree.insert(pattern, resource).map_err(|error| BadRule { method: named, problem: error.to_string() })?;
        }
        Ok(Self { all, tree })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.all.iter().map(AsRef::as_ref)
    }

    /// What is at `path`, as it came, for `verb`. HEAD is answered wherever GET is.
    pub fn find(&self, verb: &Method, path: &str) -> Found {
        let (path, suffix) = split_suffix(path);
        let Ok(matched) = self.tree.at(path) else { return Found::Nothing };
        let Some(routes) = matched.value.get(suffix) else { return Found::Nothing };
        // The tree takes nothing at all for a value.
        if matched.params.iter().any(|(_, value)| value.is_empty()) {
            return Found::Nothing;
        }
        let wanted = if verb == Method::HEAD { &Method::GET } else { verb };
        let Some(route) = routes.iter().find(|route| route.verb == *wanted) else {
            return Found::OtherMethods(allowed(routes.iter().map(|route| &route.verb)));
        };
        let values = matched.params.iter().map(|(_, value)| percent_decode_str(value).decode_utf8().map(|v| v.into_owned()));
        values.collect::<Result<_, _>>().map_or(Found::Nothing, |values| Found::Route(route.clone(), values))
    }
}

/// What may be asked of a path with routes for `verbs`.
pub fn allowed<'a>(verbs: impl Iterator<Item = &'a Method>) -> Vec<Method> {
    let mut allowed: Vec<Method> = verbs.cloned().collect();
    if allowed.contains(&Method::GET) {
        allowed.push(Method::HEAD);
    }
    allowed.push(Method::OPTIONS);
    allowed
}

/// A path and the word behind the colon in its last segment. A colon within a value comes percent-encoded.
fn split_suffix(path: &str) -> (&str, &str) {
    let last = path.rfind('/').map_or(0, |slash| slash + 1);
    path[last..].rfind(':').map_or((path, ""), |colon| (&path[..last + colon], &path[last + colon + 1..]))
}

/// The route of a method, with the pattern and the suffix under which it is found.
fn read_rule(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<(Route, String, String), String> {
    let rule = http_rule(pool, method).ok_or("there is none")?;
    if rule.unknown_fields().next().is_some() {
        return Err("it says what the suite's google/api/http.proto does not declare".into());
    }
    let text = |name: &str| rule.get_field_by_name(name).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let verbs = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    let (name, verb) = verbs.into_iter().find(|(name, _)| rule.has_field_by_name(name)).ok_or("it names no verb")?;
    let template = text(name);
    let body = match text("body").as_str() {
        "" => BodyRule::None,
        "*" => BodyRule::Whole,
        field => BodyRule::Field(method.input().get_field_by_name(field).ok_or("its body is no field of the request")?),
    };

    let (path, suffix) = split_suffix(&template);
    let (mut pattern, mut variables) = (String::new(), Vec::new());
    for segment in path.strip_prefix('/').ok_or("the path does not begin with a slash")?.split('/') {
        match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            // Named by its place, so that routes that call it differently share it.
            Some(variable) => {
                pattern.push_str(&format!("/{{p{}}}", variables.len()));
                variables.push(field_path(&method.input(), variable).ok_or(format!("{variable} is no field of the request"))?);
            }
            None if segment.is_empty() || segment.contains(['{', '}', '*']) => {
                return Err(format!("{segment:?} in the path is neither a name nor one variable"));
            }
            None => {
                pattern.push('/');
                pattern.push_str(segment);
            }
        }
    }
    let grpc_path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let grpc_path = grpc_path.parse().map_err(|_| "the method's name is no path")?;
    let suffix = suffix.to_owned();
    let answers_hold_status = holds_status(&method.output(), &mut Vec::new());
    Ok((Route { method: method.clone(), grpc_path, verb, template, variables, body, answers_hold_status }, pattern, suffix))
}

fn holds_status(message: &MessageDescriptor, seen: &mut Vec<MessageDescriptor>) -> bool {
    if message.full_name() == "google.rpc.Status" {
        return true;
    }
    if seen.contains(message) {
        return false;
    }
    seen.push(message.clone());
    message.fields().any(|field| field.kind().as_message().is_some_and(|inner| holds_status(inner, seen)))
}

fn http_rule(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<DynamicMessage> {
    let extension = pool.get_extension_by_name(HTTP_RULE)?;
    let options = method.options();
    options.has_extension(&extension).then(|| options.get_extension(&extension).as_message().cloned()).flatten()
}

/// The field of a dotted path, spelt as in the proto or as in JSON; all but the last are single messages.
pub fn field_path(message: &MessageDescriptor, path: &str) -> Option<FieldPath> {
    let mut message = Some(message.clone());
    let fields = path.split('.').map(|name| {
        let field = field(&message.take()?, name)?;
        message = field.kind().as_message().filter(|_| !field.is_list()).cloned();
        Some(field)
    });
    fields.collect()
}

/// A field by either of its names.
pub fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use koc_proto::DESCRIPTORS;

    fn found(routes: &Routes, verb: &Method, path: &str) -> String {
        match routes.find(verb, path) {
            Found::Route(route, values) => format!("{} {}", route.method.name(), values.join(" ")).trim_end().to_owned(),
            Found::OtherMethods(allowed) => format!("{allowed:?}"),
            Found::Nothing => "nothing".into(),
        }
    }

    #[test]
    fn every_unary_method_of_the_suite_has_a_route() {
        let mut packages: Vec<_> = DESCRIPTORS.services().map(|s| s.package_name().to_owned()).collect();
        packages.dedup();
        for package in packages {
            let unary = |m: &MethodDescriptor| !m.is_client_streaming() && !m.is_server_streaming();
            let services = DESCRIPTORS.services().filter(|s| s.package_name() == package);
            let methods = services.flat_map(|s| s.methods().collect::<Vec<_>>()).filter(unary).count();
            let routes = Routes::of(&DESCRIPTORS, &package).expect("rules that can be served");
            assert_eq!((routes.iter().count(), methods > 0), (methods, true), "{package}");
            for route in routes.iter() {
                let values: Vec<String> = (0..route.variables.len()).map(|i| format!("v{i}")).collect();
                let mut parts = route.template.split(['{', '}']);
                let mut path = parts.next().unwrap_or_default().to_owned();
                for (value, text) in values.iter().zip(parts.skip(1).step_by(2)) {
                    path = format!("{path}{value}{text}");
                }
                let expected = format!("{} {}", route.method.name(), values.join(" "));
                assert_eq!(found(&routes, &route.verb, &path), expected.trim_end());
            }
        }
    }

    #[test]
    fn a_suffix_a_verb_and_escapes_in_the_path_are_told_apart() {
        let routes = Routes::of(&DESCRIPTORS, "koc.registry.v1").expect("rules that can be served");
        let at = |verb: &Method, path: &str| found(&routes, verb, path);
        assert_eq!(at(&Method::GET, "/v1/programmes/p/members"), "ListMembers p");
        assert_eq!(at(&Method::HEAD, "/v1/programmes/p/members"), "ListMembers p");
        assert_eq!(at(&Method::POST, "/v1/programmes/p/members"), "CreateMember p");
        assert_eq!(at(&Method::GET, "/v1/programmes/p/members:lookup"), "LookupMember p");
        assert_eq!(at(&Method::GET, "/v1/programmes/p/members/a%3Ab%20%E5%93%81"), "GetMember p a:b 品");
        assert_eq!(at(&Method::DELETE, "/v1/programmes/p/members:lookup"), "[GET, HEAD, OPTIONS]");
        for nothing in [
            "/",
            "/v1",
            "/v1/programmes/p/members/",
            "/v1/programmes//members",
            "/v1/programmes/p/members:nope",
            "/v1/programmes/p/members/a:b",
            "/v1/programmes/p/members/%FF",
            "/koc.registry.v1.MemberService/ListMembers",
        ] {
            assert_eq!(at(&Method::GET, nothing), "nothing", "{nothing}");
        }
    }

    #[test]
    fn fields_are_found_by_both_spellings_and_not_through_lists() {
        let message = DESCRIPTORS.get_message_by_name("koc.registry.v1.CreateMemberRequest").expect("it is declared");
        let names = |path| field_path(&message, path).map(|p| p.iter().map(|f| f.name().to_owned()).collect::<Vec<_>>());
        let expected = Some(vec!["profile".to_owned(), "display_name".to_owned()]);
        assert_eq!((names("profile.displayName"), names("profile.display_name")), (expected.clone(), expected));
        for none in ["", "profile.", "nope", "externalIdentities.externalId", "programmeId.x"] {
            assert_eq!(names(none), None, "{none}");
        }
    }
}
