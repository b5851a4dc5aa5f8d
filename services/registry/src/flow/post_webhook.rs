//! One post to an endpoint, to the very address that was looked up and found to be public.

use crate::domain::webhook::{Target, is_public};
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

/// Longest time to look an address up, and to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for all of it.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// Why there was no answer. Its name is what is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    #[error("ADDRESS_REFUSED")]
    AddressRefused,
    #[error("NOT_RESOLVED")]
    NotResolved,
    #[error("NOT_CONNECTED")]
    NotConnected,
    #[error("TLS")]
    Tls,
    #[error("TIMED_OUT")]
    TimedOut,
    #[error("BROKEN")]
    Broken,
}

/// Posts to endpoints.
#[derive(Clone)]
pub struct Poster {
    tls: TlsConnector,
    /// Allows addresses that are not public, and http: for tests and on one's own machine.
    local: bool,
}

/// What is posted.
#[derive(Debug, Clone)]
pub struct Post {
    pub id: String,
    /// Seconds since 1970.
    pub time: i64,
    pub signature: String,
    pub body: Vec<u8>,
}

impl Poster {
    pub fn new(local: bool) -> anyhow::Result<Self> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), local })
    }

    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Posts, and gives the status of the answer. Its body is not read.
    pub async fn post(&self, target: &Target, post: Post, at_most: Duration) -> Result<u16, PostError> {
        timeout(at_most, self.send(target, post)).await.unwrap_or(Err(PostError::TimedOut))
    }

    async fn send(&self, target: &Target, post: Post) -> Result<u16, PostError> {
        let found = timeout(CONNECT_TIMEOUT, lookup_host((target.host.as_str(), target.port))).await;
        let found: Vec<SocketAddr> = found.map_err(|_| PostError::TimedOut)?.map_err(|_| PostError::NotResolved)?.collect();
        // A name that leads inside as well as outside is somebody's trick.
        if !self.local && found.iter().any(|address| !is_public(address.ip())) {
            return Err(PostError::AddressRefused);
        }
        let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(found.as_slice())).await;
        let stream = connect.map_err(|_| PostError::TimedOut)?.map_err(|_| PostError::NotConnected)?;
        let request = request(target, post).ok_or(PostError::Broken)?;
        if !target.encrypted {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| PostError::Tls)?;
        let stream = self.tls.connect(name, stream).await.map_err(|_| PostError::Tls)?;
        exchange(stream, request).await
    }
}

fn request(target: &Target, post: Post) -> Option<Request<Full<Bytes>>> {
    Request::post(&target.path)
        .header(header::HOST, &target.authority)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::USER_AGENT, HeaderValue::from_static("koc-webhooks/1"))
        .header("webhook-id", post.id)
        .header("webhook-timestamp", post.time)
        .header("webhook-signature", post.signature)
        .body(Full::new(post.body.into()))
        .ok()
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<u16, PostError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| PostError::Broken)?;
    let answer = async { sender.send_request(request).await.map(|answer| answer.status().as_u16()) };
    tokio::pin!(answer);
    // The connection is worked on here, so that it ends with this future.
    tokio::select! {
        answer = &mut answer => answer.map_err(|_| PostError::Broken),
        _ = connection => answer.await.map_err(|_| PostError::Broken),
    }
}
