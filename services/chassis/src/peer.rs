//! Calling another service: with this service's token, the trace, what is left of the deadline, and in the name of the
//! person who acts.

use crate::{
    auth::ACTOR_HEADER,
    context::{current, time_left},
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_tracing_opentelemetry::middleware::client::{OtelGrpcLayer, OtelGrpcService};
use tower::Layer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// A token file is read again after this long, so that a rotated token is taken up.
const TOKEN_REREAD: Duration = Duration::from_secs(30);

/// A channel to a peer, for the generated clients.
pub type PeerChannel = InterceptedService<OtelGrpcService<Channel>, Outgoing>;

/// Opens a channel to a peer. Connects when first used, and again when the connection is lost.
pub fn connect(url: &str, token: Token) -> Result<PeerChannel, tonic::transport::Error> {
    let channel = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_lazy();
    Ok(InterceptedService::new(OtelGrpcLayer.layer(channel), Outgoing { token }))
}

/// The token that a caller shows: read from a file, again from time to time, or given as it is.
#[derive(Clone)]
pub struct Token {
    path: Option<PathBuf>,
    read: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Token {
    pub fn from_file(path: PathBuf) -> Self {
        Self { path: Some(path), read: Arc::default() }
    }

    pub fn fixed(token: String) -> Self {
        Self { path: None, read: Arc::new(Mutex::new(Some((Instant::now(), token)))) }
    }

    fn get(&self) -> std::io::Result<String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, token)) = read.as_ref()
            && (self.path.is_none() || when.elapsed() < TOKEN_REREAD)
        {
            return Ok(token.clone());
        }
        let path = self.path.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        let token = std::fs::read_to_string(path)?.trim().to_owned();
        *read = Some((Instant::now(), token.clone()));
        Ok(token)
    }
}

/// Adds what goes along with a call to a peer.
#[derive(Clone)]
pub struct Outgoing {
    token: Token,
}

impl Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = self.token.get().map_err(|error| {
            tracing::error!(path = ?self.token.path, error = %error, "the token for peers cannot be read");
            Status::unavailable("there is no token to call with")
        })?;
        let bearer: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| Status::internal("the token for peers is not text"))?;
        request.metadata_mut().insert("authorization", bearer);
        if let Some(current) = current() {
            let left = time_left();
            if left.is_zero() {
                return Err(Status::deadline_exceeded("no time is left to call a peer"));
            }
            request.set_timeout(left);
            if let Ok(actor) = current.actor.parse() {
                request.metadata_mut().insert(ACTOR_HEADER, actor);
            }
        }
        Ok(request)
    }
}

/// Whether a peer's answer may be another when asked again: it was not reached, had no time, or was too busy.
pub fn is_transient(status: &Status) -> bool {
    use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unauthenticated, Unavailable, Unknown};
    matches!(
        status.code(),
        Unavailable | DeadlineExceeded | ResourceExhausted | Aborted | Cancelled | Unknown | Internal | Unauthenticated
    )
}
