//! Calls by HTTP/JSON, as programs make them that do not speak gRPC.

use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tonic::{body::Body, transport::Channel};
use tower::{Service, ServiceExt};

/// A client with a token, or none. Each call is one of its connection's, over HTTP/2.
#[derive(Debug, Clone)]
pub struct Http {
    channel: Channel,
    token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Http {
    #[must_use]
    pub fn new(channel: Channel, token: Option<String>) -> Self {
        Self { channel, token }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::POST, path, body).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::PATCH, path, body).await
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    /// A request with these headers and the token.
    ///
    /// # Panics
    /// When it is not answered.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::new(Full::new(body.into()))).expect("a request");
        let mut channel = self.channel.clone();
        let response = channel.ready().await.expect("it listens").call(request).await.expect("it answers");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("the whole answer").to_bytes().to_vec();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }
}

impl Answer {
    /// # Panics
    /// When the answer is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// What a good answer holds.
    ///
    /// # Panics
    /// When it is an error.
    #[track_caller]
    pub fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Checks the status and the reason of an error, and gives the error.
    ///
    /// # Panics
    /// When the call succeeded, or failed in another way.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str, reason: &str) -> Value {
        let json = self.json();
        let error = &json["error"];
        let told = (self.status, error["code"].as_u64(), error["status"].as_str(), detail(error, "ErrorInfo")["reason"].as_str());
        assert_eq!(told, (status, Some(status.into()), Some(code), Some(reason)), "{json}");
        error.clone()
    }

    /// A header's text; empty without it.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A detail of an error by the short name of its type; null without it.
#[must_use]
pub fn detail<'a>(error: &'a Value, name: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    let kind = format!("type.googleapis.com/google.rpc.{name}");
    error["details"].as_array().and_then(|details| details.iter().find(|detail| detail["@type"] == kind)).unwrap_or(&NONE)
}

/// The violations of an error as (field, rule).
#[must_use]
pub fn violations(error: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = detail(error, "BadRequest")["fieldViolations"].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| (text(&one["field"]), crate::answer::rule(&text(&one["description"])))).collect()
}
