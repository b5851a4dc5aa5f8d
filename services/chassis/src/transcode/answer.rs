//! From a gRPC answer to HTTP: canonical JSON, or an error as JSON with the status that the standard mapping gives it.

use super::{FRAME_HEAD_BYTES, JSON, message::RULES, route::Route};
use crate::{fault::reason_of, gate::REPLAYED_HEADER};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use koc_proto::{DESCRIPTORS, rules::Rules};
use prost::{Message, bytes::Bytes};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Value as Json, json};
use std::io::Write;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;

/// The reason of a body that is not read to its end.
pub const TOO_LARGE: &str = "BODY_TOO_LARGE";
/// Shorter answers are not worth packing.
const MIN_GZIP_BYTES: usize = 1_024;
/// "Client closed request": the mapping of CANCELLED, which no standard names.
const CLIENT_CLOSED: u16 = 499;
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// What the client can take.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    gzip: bool,
    head_only: bool,
}

impl Client {
    pub fn of(request: &Request<Body>) -> Self {
        let accepted = request.headers().get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let gzip = accepted.flat_map(|value| value.split(',')).any(|one| {
            let (name, weight) = one.split_once(';').unwrap_or((one, ""));
            name.trim().eq_ignore_ascii_case("gzip") && !is_zero(weight)
        });
        Self { gzip, head_only: request.method() == Method::HEAD }
    }
}

/// Whether a weight, as in `q=0.0`, says no.
fn is_zero(weight: &str) -> bool {
    let digits = weight.trim().strip_prefix("q=").unwrap_or("1");
    digits.chars().all(|c| c == '0' || c == '.')
}

/// An answer before it is packed for its client.
#[derive(Debug, Clone)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// The body packed, for answers that are given again and again.
    packed: Option<Bytes>,
}

impl Reply {
    pub fn empty() -> Self {
        Self { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: Bytes::new(), packed: None }
    }

    pub fn json(status: StatusCode, body: Bytes) -> Self {
        Self { status, headers: HeaderMap::new(), body, packed: None }.with(header::CONTENT_TYPE, JSON)
    }

    /// An error.
    pub fn failed(code: StatusCode, status: &Status) -> Self {
        let details = details(status);
        let error = json!({"error": {
            "code": code.as_u16(),
            "message": message(status.message(), &details),
            "status": names(status.code()).1,
            "details": details,
        }});
        let mut reply = Self::json(code, error.to_string().into());
        if let Some(wait) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
            // The header counts whole seconds.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            reply = reply.with(header::RETRY_AFTER, &seconds.to_string());
        }
        if status.code() == Code::Unauthenticated {
            let missing = reason_of(status) == "TOKEN_MISSING";
            reply = reply.with(header::WWW_AUTHENTICATE, if missing { "Bearer" } else { "Bearer error=\"invalid_token\"" });
        }
        reply
    }

    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Packed now, for all clients to come.
    pub fn packed(self) -> Self {
        Self { packed: gzip(&self.body).ok(), ..self }
    }

    pub fn into_response(mut self, client: Client) -> Response<Body> {
        if self.body.len() >= MIN_GZIP_BYTES {
            if client.gzip
                && let Some(packed) = self.packed.take().or_else(|| gzip(&self.body).ok())
            {
                self.body = packed;
                self = self.with(header::CONTENT_ENCODING, "gzip");
            }
            self = self.with(header::VARY, "accept-encoding");
        }
        if client.head_only {
            let length = self.body.len().to_string();
            self = Self { body: Bytes::new(), ..self.with(header::CONTENT_LENGTH, &length) };
        }
        let mut response = Response::new(Body::new(Full::new(self.body)));
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.headers);
        response
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

/// The HTTP form of what a method answered.
pub async fn of_call(route: &Route, response: Response<Body>) -> Reply {
    let (parts, body) = response.into_parts();
    let answered = match Status::from_header_map(&parts.headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => whole(body).await.and_then(|message| to_json(route, &message)),
    };
    match answered {
        Ok(json) => match parts.headers.get(REPLAYED_HEADER) {
            None => Reply::json(StatusCode::OK, json),
            Some(_) => Reply::json(StatusCode::OK, json).with(HeaderName::from_static(REPLAYED_HEADER), "true"),
        },
        Err(status) => {
            let by_code = names(status.code()).0;
            let code = if reason_of(&status) == TOO_LARGE { StatusCode::PAYLOAD_TOO_LARGE } else { by_code };
            Reply::failed(code, &status)
        }
    }
}

/// The one message of a unary answer.
async fn whole(body: Body) -> Result<Bytes, Status> {
    let collected = body.collect().await?;
    match collected.trailers().and_then(Status::from_header_map) {
        Some(status) if status.code() != Code::Ok => Err(status),
        Some(_) => {
            let mut frame = collected.to_bytes();
            // Never packed: the call said that it takes no encoding.
            if frame.len() < FRAME_HEAD_BYTES || frame[0] != 0 {
                Err(lost(&"it is no message"))
            } else {
                Ok(frame.split_off(FRAME_HEAD_BYTES))
            }
        }
        None => Err(lost(&"it has no status")),
    }
}

fn to_json(route: &Route, message: &[u8]) -> Result<Bytes, Status> {
    let message = DynamicMessage::decode(route.method.output(), message).map_err(|error| lost(&error))?;
    if route.answers_hold_status {
        let json = message.serialize_with_options(serde_json::value::Serializer, &all_fields());
        let mut json = json.map_err(|error| lost(&error))?;
        spell_violations(&mut json);
        return Ok(json.to_string().into());
    }
    let mut json = Vec::with_capacity(256);
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut json), &all_fields()).map_err(|error| lost(&error))?;
    Ok(json.into())
}

/// A message of ours in canonical JSON, as it is answered; None for one that the contracts do not know.
pub fn canonical<M: Rules + Message>(message: &M) -> Option<Json> {
    let descriptor = DESCRIPTORS.get_message_by_name(M::NAME)?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()?;
    message.serialize_with_options(serde_json::value::Serializer, &all_fields()).ok()
}

/// Zeros, empty texts and lists are written too, so that a reader finds every field; what is absent is left out.
fn all_fields() -> SerializeOptions {
    SerializeOptions::new().skip_default_fields(false)
}

fn lost(why: &dyn std::fmt::Display) -> Status {
    tracing::error!(error = %why, "an answer could not be written as JSON");
    Status::internal("an internal error; the log has it under this trace")
}

/// The details of a status, each with its type.
fn details(status: &Status) -> Json {
    let standard = DESCRIPTORS.get_message_by_name("google.rpc.Status").and_then(|descriptor| {
        let message = DynamicMessage::decode(descriptor, status.details()).ok()?;
        message.serialize_with_options(serde_json::value::Serializer, &all_fields()).ok()
    });
    let mut details = standard.map_or_else(|| json!([]), |mut standard| standard["details"].take());
    spell_violations(&mut details);
    details
}

/// A message that begins with the name of the one bad field begins with it as JSON spells it.
fn message(message: &str, details: &Json) -> String {
    let named = message.split_once(": ").filter(|(field, _)| {
        let violations = details.as_array().into_iter().flatten().map(|detail| &detail["fieldViolations"][0]["field"]);
        violations.into_iter().any(|told| *told == in_json(field))
    });
    named.map_or_else(|| message.to_owned(), |(field, rest)| format!("{}: {rest}", in_json(field)))
}

/// Spells the fields of all violations in an answer as JSON does. Those that were found in the JSON itself are spelt so already.
fn spell_violations(json: &mut Json) {
    match json {
        Json::Array(items) => items.iter_mut().for_each(spell_violations),
        Json::Object(object) if object.get("@type").is_some_and(|kind| kind == BAD_REQUEST) => {
            let violations = object.get_mut("fieldViolations").and_then(Json::as_array_mut);
            for violation in violations.into_iter().flatten() {
                let rule = violation["description"].as_str().and_then(|text| text.rsplit_once('(')).map_or("", |(_, rule)| rule);
                if !RULES.iter().any(|ours| rule.starts_with(ours)) {
                    violation["field"] = in_json(violation["field"].as_str().unwrap_or_default()).into();
                }
            }
        }
        Json::Object(object) => object.values_mut().for_each(spell_violations),
        _ => {}
    }
}

/// A path of fields, such as `profile.channels[2].display_name`, as JSON spells it.
fn in_json(path: &str) -> String {
    let mut after_underscore = false;
    let spelt = path.chars().filter_map(|c| {
        let upper = std::mem::replace(&mut after_underscore, c == '_');
        (c != '_').then(|| if upper { c.to_ascii_uppercase() } else { c })
    });
    spelt.collect()
}

/// The standard mapping to HTTP, and the code's name.
fn names(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::Ok => (StatusCode::OK, "OK"),
        Code::Cancelled => (StatusCode::from_u16(CLIENT_CLOSED).unwrap_or(StatusCode::BAD_REQUEST), "CANCELLED"),
        Code::Unknown => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        Code::InvalidArgument => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
        Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        Code::AlreadyExists => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
        Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "FAILED_PRECONDITION"),
        Code::Aborted => (StatusCode::CONFLICT, "ABORTED"),
        Code::OutOfRange => (StatusCode::BAD_REQUEST, "OUT_OF_RANGE"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED"),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        Code::DataLoss => (StatusCode::INTERNAL_SERVER_ERROR, "DATA_LOSS"),
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
    }
}

/// The names of all codes but OK, for the document.
pub fn code_names() -> impl Iterator<Item = &'static str> {
    (1..=16).map(|code| names(Code::from_i32(code)).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use http::header::ACCEPT_ENCODING;

    #[test]
    fn gzip_is_used_where_it_is_accepted() {
        let accepts = |value: &str| {
            Client::of(&Request::builder().header(ACCEPT_ENCODING, value).body(Body::empty()).expect("a request")).gzip
        };
        for yes in ["gzip", "br, GZIP", "gzip;q=0.5, *;q=0"] {
            assert!(accepts(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip; q=0.0"] {
            assert!(!accepts(no), "{no}");
        }
    }

    #[test]
    fn fields_are_spelt_as_in_json_wherever_violations_are_told() {
        let violation = |field: &str, rule: &str| json!({"field": field, "description": format!("must not ({rule})")});
        let told = [violation("a_b[2].c_3d.e", "string.uuid"), violation("a_b", "json.unknown")];
        let mut answer = json!({"rows": [{"details": [{"@type": BAD_REQUEST, "fieldViolations": told}, {"field": "a_b"}]}]});
        spell_violations(&mut answer);
        let told = [violation("aB[2].c3d.e", "string.uuid"), violation("a_b", "json.unknown")];
        let expected = json!({"rows": [{"details": [{"@type": BAD_REQUEST, "fieldViolations": told}, {"field": "a_b"}]}]});
        assert_eq!(answer, expected);
    }

    #[test]
    fn an_error_says_when_to_come_back_and_what_is_wrong_with_the_token() {
        let reply = |fault: Fault| {
            let status = fault.into_status("registry.koc");
            Reply::failed(names(status.code()).0, &status)
        };
        let told = |reply: &Reply, name| reply.headers.get(name).map(|v: &HeaderValue| v.to_str().expect("text").to_owned());
        let busy = reply(Fault::overloaded("DATABASE_BUSY", "all are in use").with("connections", 16));
        assert_eq!((busy.status.as_u16(), told(&busy, header::RETRY_AFTER).as_deref()), (429, Some("1")));
        let json: Json = serde_json::from_slice(&busy.body).expect("JSON");
        let info = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "DATABASE_BUSY", "domain": "registry.koc",
            "metadata": {"connections": "16"}});
        let retry = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.200s"});
        let details = json["error"]["details"].as_array().expect("a list");
        assert!(details.len() == 2 && details.contains(&info) && details.contains(&retry), "{json}");
        assert_eq!((&json["error"]["code"], &json["error"]["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));

        let challenge = |reason| told(&reply(Fault::unauthenticated(reason, "no")), header::WWW_AUTHENTICATE);
        assert_eq!(challenge("TOKEN_MISSING").as_deref(), Some("Bearer"));
        assert_eq!(challenge("TOKEN_EXPIRED").as_deref(), Some("Bearer error=\"invalid_token\""));
    }
}
