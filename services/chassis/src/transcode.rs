//! HTTP/JSON beside gRPC, on the same port: every unary method at its `google.api.http` path, in canonical proto JSON.
//!
//! What is not gRPC by its content type becomes a gRPC call of this process: the same token, scope, limits, deadline, trace and checks in
//! the same order, since the one door, the one codec and the handlers do not know the difference. The body is read when the codec asks for
//! the message, so nobody's JSON is read before its token.
//!
//! Headers mean what they mean in gRPC: `authorization`, `koc-actor`, `traceparent`; the deadline is `x-server-timeout`, in seconds.

mod answer;
mod message;
mod openapi;
mod route;

pub use answer::canonical;
pub use route::BadRule;

use crate::{
    fault::Fault,
    server::{Identity, MAX_MESSAGE_BYTES},
};
use answer::{Client, Reply};
use futures::{
    FutureExt,
    future::{BoxFuture, Either, Ready, ready},
    stream,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, LengthLimitError, Limited, StreamBody};
use prost::{
    Message,
    bytes::{BufMut, Bytes, BytesMut},
};
use route::{BodyRule, Found, Route, Routes};
use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tonic::body::Body;

/// How long the caller waits: seconds, e.g. `2.5`.
const TIMEOUT_HEADER: &str = "x-server-timeout";
/// Where the description of all this is.
const DOCUMENT_PATH: &str = "/openapi.json";
const JSON: &str = "application/json";
/// A gRPC message begins with a flag and its length.
const FRAME_HEAD_BYTES: usize = 5;

struct Shared {
    routes: Routes,
    /// Made when it is first asked for, plain and packed: it is large, and many replicas are never asked.
    document: OnceLock<Reply>,
    identity: Identity,
}

/// The layer that makes gRPC calls of HTTP/JSON requests.
#[derive(Clone)]
pub struct Transcoding(Arc<Shared>);

impl Transcoding {
    /// For the unary methods of a service. Fails on an HTTP rule that cannot be served.
    pub fn new(identity: &Identity) -> Result<Self, BadRule> {
        let routes = Routes::of(&koc_proto::DESCRIPTORS, identity.package)?;
        Ok(Self(Arc::new(Shared { routes, document: OnceLock::new(), identity: *identity })))
    }
}

impl<S> tower::Layer<S> for Transcoding {
    type Service = Transcoded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Transcoded { inner, shared: self.0.clone() }
    }
}

/// A gRPC service that answers HTTP/JSON too.
#[derive(Clone)]
pub struct Transcoded<S> {
    inner: S,
    shared: Arc<Shared>,
}

type Answered<E> = Result<Response<Body>, E>;

impl<S> tower::Service<Request<Body>> for Transcoded<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Either<Ready<Answered<S::Error>>, BoxFuture<'static, Answered<S::Error>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_grpc(request.headers()) {
            return Either::Left(self.inner.call(request));
        }
        let client = Client::of(&request);
        match self.shared.clone().call_of(request) {
            Err(reply) => Either::Right(Either::Left(ready(Ok(reply.into_response(client))))),
            Ok((route, call)) => {
                let work = self.inner.call(call);
                let answer = async move { Ok(answer::of_call(&route, work.await?).await.into_response(client)) };
                Either::Right(Either::Right(answer.boxed()))
            }
        }
    }
}

/// gRPC and gRPC-Web name themselves.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

impl Shared {
    /// The gRPC call that a request means, or the answer when it means none.
    fn call_of(self: Arc<Self>, request: Request<Body>) -> Result<(Arc<Route>, Request<Body>), Reply> {
        let (mut parts, body) = request.into_parts();
        let (route, values) = self.find(&parts.method, parts.uri.path())?;
        if route.body != BodyRule::None {
            self.ensure_json(&parts.headers)?;
        }
        if let Some(seconds) = parts.headers.remove(TIMEOUT_HEADER) {
            let timeout = grpc_timeout(&seconds).ok_or_else(|| {
                let message = format!("the header {TIMEOUT_HEADER} is not a time in seconds, 0.001 or more");
                self.refuse(StatusCode::BAD_REQUEST, Fault::malformed("TIMEOUT_INVALID", message))
            })?;
            parts.headers.insert("grpc-timeout", timeout);
        }
        for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::ACCEPT_ENCODING, header::CONTENT_ENCODING] {
            parts.headers.remove(name);
        }
        for name in ["grpc-encoding", "grpc-accept-encoding"] {
            parts.headers.remove(name);
        }
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let mut uri = parts.uri.into_parts();
        uri.path_and_query = Some(route.grpc_path.clone());
        parts.uri = Uri::from_parts(uri).unwrap_or_else(|_| Uri::from(route.grpc_path.clone()));
        (parts.method, parts.version) = (Method::POST, Version::HTTP_2);

        let asked = route.clone();
        let frame = async move {
            let frame = read(body, &asked, &values, &query).await;
            frame.map(Frame::data).map_err(|fault| fault.into_status(self.identity.domain))
        };
        let body = Body::new(StreamBody::new(stream::once(frame)));
        Ok((route, Request::from_parts(parts, body)))
    }

    fn find(&self, method: &Method, path: &str) -> Result<(Arc<Route>, Vec<String>), Reply> {
        let found = if path == DOCUMENT_PATH {
            if [Method::GET, Method::HEAD].contains(method) {
                let made =
                    || Reply::json(StatusCode::OK, openapi::document(&self.identity, &self.routes).to_string().into()).packed();
                return Err(self.document.get_or_init(made).clone());
            }
            Found::OtherMethods(route::allowed([&Method::GET].into_iter()))
        } else {
            self.routes.find(method, path)
        };
        match found {
            Found::Route(route, values) => Ok((route, values)),
            Found::Nothing => {
                let message = format!("there is nothing at this path; {DOCUMENT_PATH} lists what is");
                Err(self.refuse(StatusCode::NOT_FOUND, Fault::not_found("PATH_NOT_FOUND", message)))
            }
            Found::OtherMethods(allowed) => {
                let allow = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                let reply = if method == Method::OPTIONS {
                    Reply::empty()
                } else {
                    let fault = Fault::unsupported("METHOD_NOT_ALLOWED", format!("this path takes {allow}"));
                    self.refuse(StatusCode::METHOD_NOT_ALLOWED, fault)
                };
                Err(reply.with(header::ALLOW, &allow))
            }
        }
    }

    fn ensure_json(&self, headers: &HeaderMap) -> Result<(), Reply> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
        let mut kind = text(header::CONTENT_TYPE).unwrap_or_default();
        kind.retain(|c| !c.is_ascii_whitespace() && c != '"');
        let encoded = text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
        if [JSON, "application/json;charset=utf-8"].contains(&kind.as_str()) && !encoded {
            return Ok(());
        }
        let fault = Fault::malformed("CONTENT_TYPE_UNSUPPORTED", format!("the body must be {JSON} in UTF-8, as it is"));
        Err(self.refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, fault))
    }

    fn refuse(&self, code: StatusCode, fault: Fault) -> Reply {
        Reply::failed(code, &fault.into_status(self.identity.domain))
    }
}

/// The call's message, framed as gRPC frames it.
async fn read(body: Body, route: &Route, values: &[String], query: &str) -> Result<Bytes, Fault> {
    let too_large = || {
        let message = format!("the body is longer than {} MiB", MAX_MESSAGE_BYTES / 1024 / 1024);
        Fault::too_large(answer::TOO_LARGE, message)
    };
    if body.size_hint().lower() > MAX_MESSAGE_BYTES as u64 {
        return Err(too_large());
    }
    let body = Limited::new(body, MAX_MESSAGE_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { too_large() } else { Fault::malformed("BODY_INCOMPLETE", "the body ended too early") }
    })?;
    let message = message::read(route, values, query, &body.to_bytes())?;
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).map_err(|_| too_large())?);
    message.encode(&mut frame).map_err(|_| Fault::internal())?;
    Ok(frame.freeze())
}

/// A number of seconds as a `grpc-timeout`: whole milliseconds, of which the header can name 8 digits.
fn grpc_timeout(seconds: &HeaderValue) -> Option<HeaderValue> {
    const MOST_MILLIS: u128 = 99_999_999;
    let seconds: f64 = seconds.to_str().ok()?.parse().ok()?;
    let millis = Duration::try_from_secs_f64(seconds).ok()?.as_millis().min(MOST_MILLIS);
    if millis == 0 {
        return None;
    }
    HeaderValue::from_str(&format!("{millis}m")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_a_grpc_timeout() {
        let timeout = |text| grpc_timeout(&HeaderValue::from_static(text)).map(|v| v.to_str().expect("text").to_owned());
        assert_eq!(timeout("2.5").as_deref(), Some("2500m"));
        assert_eq!(timeout("0.001").as_deref(), Some("1m"));
        assert_eq!(timeout("1e9").as_deref(), Some("99999999m"));
        for bad in ["", "soon", "-1", "0", "0.0009", "NaN", "inf", "5s"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_names_itself_grpc_is_grpc() {
        let is = |kind: Option<&'static str>| {
            is_grpc(&kind.into_iter().map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind))).collect())
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc-web-text+proto"] {
            assert!(is(Some(kind)), "{kind}");
        }
        for kind in [None, Some("application/json"), Some("text/html"), Some("")] {
            assert!(!is(kind), "{kind:?}");
        }
    }
}
