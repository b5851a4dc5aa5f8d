//! The door: each call is let in with a known caller, a scope, a deadline and a place among those at work, or it is turned away
//! before its message is read.

use crate::{
    auth::{ACTOR_HEADER, Caller, Keys, act_as},
    context::{Current, DEFAULT_DEADLINE, MAX_DEADLINE, parse_timeout, scope},
    fault::Fault,
};
use futures::{FutureExt, future::BoxFuture};
use koc_proto::{
    personal::{Sight, seen},
    rules::Method,
};
use opentelemetry::{KeyValue, metrics::Histogram};
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{sync::Semaphore, time::Instant};
use tonic::body::Body;

/// Calls at work at once; those beyond it are asked to come back.
const MAX_CALLS: usize = 2_048;
/// Buckets of the durations of calls: those that OpenTelemetry's conventions for RPC name.
const DURATION_BOUNDARIES_SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// How the scope ends with which a service's callers see what is personal.
const PERSONAL_SCOPE: &str = ".pii";
/// What anyone may ask: health and reflection say what the server is. All else needs a scope, or is not there.
const OPEN: [&str; 3] =
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// A method without a scope, found when a service starts.
#[derive(Debug, thiserror::Error)]
#[error("the method {0} declares no scope; it cannot be served")]
pub struct ScopeMissing(&'static str);

struct Shared {
    methods: HashMap<&'static str, Method>,
    keys: Keys,
    slots: Arc<Semaphore>,
    domain: &'static str,
    /// With it callers see what is personal, where one of the methods declares it; without such a scope everybody does.
    personal_scope: Option<&'static str>,
    duration: Histogram<f64>,
}

/// The layer that lets calls in.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

impl Admission {
    /// For the methods of one package, e.g. `koc.registry.v1`. Fails when one of them declares no scope.
    pub fn new(package: &str, domain: &'static str, keys: Keys) -> Result<Self, ScopeMissing> {
        Self::of(koc_proto::METHODS.iter().filter(|m| m.service.starts_with(package)), domain, keys)
    }

    fn of(declared: impl Iterator<Item = &'static Method>, domain: &'static str, keys: Keys) -> Result<Self, ScopeMissing> {
        let mut methods = HashMap::new();
        for method in declared {
            if method.scope.is_empty() {
                return Err(ScopeMissing(method.path));
            }
            methods.insert(method.path, *method);
        }
        let duration = opentelemetry::global::meter("koc")
            .f64_histogram("rpc.server.call.duration")
            .with_unit("s")
            .with_description("Time from a call's arrival to its answer's head")
            .with_boundaries(DURATION_BOUNDARIES_SECONDS.to_vec())
            .build();
        let personal_scope = methods.values().map(|method| method.scope).find(|scope| scope.ends_with(PERSONAL_SCOPE));
        let slots = Arc::new(Semaphore::new(MAX_CALLS));
        Ok(Self(Arc::new(Shared { methods, keys, slots, domain, personal_scope, duration })))
    }
}

impl Shared {
    fn caller(&self, method: &Method, headers: &http::HeaderMap) -> Result<Arc<Caller>, Fault> {
        let token = headers
            .get(http::header::AUTHORIZATION)
            .ok_or_else(|| Fault::unauthenticated("TOKEN_MISSING", "the call carries no `authorization: Bearer …` header"))?
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| Fault::unauthenticated("TOKEN_INVALID", "the authorization header is not `Bearer …`"))?;
        let caller = self.keys.verify(token)?;
        if !caller.has_scope(method.scope) {
            let message = format!("the token lacks the scope {}", method.scope);
            return Err(Fault::denied("SCOPE_MISSING", message).with("scope", method.scope));
        }
        let actor = headers.get(ACTOR_HEADER).map(|v| v.to_str().unwrap_or_default());
        act_as(caller, actor)
    }

    fn sight(&self, caller: &Caller) -> Sight {
        match self.personal_scope {
            Some(scope) if !caller.has_scope(scope) => Sight::Masked,
            _ => Sight::Whole,
        }
    }

    fn turn_away(&self, method: &Method, started: Instant, fault: Fault) -> http::Response<Body> {
        let response = fault.into_status(self.domain).into_http();
        self.record(method, started, response.headers());
        response
    }

    /// An answer whose head says nothing of a status succeeded, as far as is known at its head.
    fn record(&self, method: &Method, started: Instant, head: &http::HeaderMap) {
        let status = head.get("grpc-status").and_then(|v| v.to_str().ok()).unwrap_or("0").to_owned();
        let labels = [KeyValue::new("rpc.method", method.path), KeyValue::new("rpc.grpc.status_code", status)];
        self.duration.record(started.elapsed().as_secs_f64(), &labels);
    }
}

impl<S> tower::Layer<S> for Admission {
    type Service = Admitting<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admitting { inner, shared: self.0.clone() }
    }
}

/// A service behind the door.
#[derive(Clone)]
pub struct Admitting<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> tower::Service<http::Request<Body>> for Admitting<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let Some(method) = self.shared.methods.get(path).copied() else {
            if OPEN.iter().any(|service| path.starts_with(service)) {
                return Box::pin(self.inner.call(request));
            }
            let status = tonic::Status::unimplemented("there is no such method here");
            return Box::pin(std::future::ready(Ok(status.into_http())));
        };
        let started = Instant::now();
        let shared = self.shared.clone();
        let caller = match shared.caller(&method, request.headers()) {
            Ok(caller) => caller,
            Err(fault) => return Box::pin(std::future::ready(Ok(shared.turn_away(&method, started, fault)))),
        };
        let Ok(slot) = shared.slots.clone().try_acquire_owned() else {
            let fault = Fault::overloaded("TOO_MANY_CALLS", "too many calls are at work");
            return Box::pin(std::future::ready(Ok(shared.turn_away(&method, started, fault))));
        };
        let asked = request.headers().get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(parse_timeout);
        let deadline = started + asked.unwrap_or(DEFAULT_DEADLINE).min(MAX_DEADLINE);
        let current = Current { deadline, actor: caller.actor.clone() };
        let sight = shared.sight(&caller);
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(current.clone());
        let work = self.inner.call(request);
        Box::pin(async move {
            let work = AssertUnwindSafe(scope(current, seen(sight, work))).catch_unwind();
            let answer = match tokio::time::timeout_at(deadline, work).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => {
                    tracing::error!(method = method.path, "a call panicked");
                    Ok(Fault::internal().into_status(shared.domain).into_http())
                }
                Err(_) => Ok(Fault::deadline().into_status(shared.domain).into_http()),
            };
            if let Ok(response) = &answer {
                shared.record(&method, started, response.headers());
            }
            drop(slot);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::TokenKey;

    #[test]
    fn a_service_with_a_method_without_a_scope_does_not_start() {
        static METHODS: [Method; 2] = [
            Method { path: "/koc.x.v1.XService/Get", service: "koc.x.v1.XService", scope: "x.read" },
            Method { path: "/koc.x.v1.XService/Open", service: "koc.x.v1.XService", scope: "" },
        ];
        let file = std::env::temp_dir().join(format!("koc-jwks-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, TokenKey::generate().jwks()).expect("the temp dir is writable");
        let keys = || Keys::load(&file).expect("a JWKS of ours");
        assert!(Admission::of(METHODS[..1].iter(), "x.koc", keys()).is_ok());
        let error = Admission::of(METHODS.iter(), "x.koc", keys()).err().expect("refused");
        assert!(error.to_string().contains("/koc.x.v1.XService/Open"), "{error}");
        std::fs::remove_file(file).expect("it was written");
    }
}
