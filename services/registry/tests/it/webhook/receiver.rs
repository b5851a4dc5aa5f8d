//! An endpoint as a CRM runs one: a small HTTP server that remembers what came and answers as it is told.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// What was posted.
#[derive(Debug, Clone)]
pub struct Posted {
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Posted {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    pub fn member(&self) -> String {
        self.json()["data"]["memberId"].as_str().expect("a member").to_owned()
    }

    /// Whether one of the signatures is made with this secret: as a receiver checks it, without any code of the service.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("the prefix")).expect("Base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any key");
        mac.update(format!("{}.{}.", self.id(), self.headers["webhook-timestamp"]).as_bytes());
        mac.update(&self.body);
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.headers["webhook-signature"].split(' ').any(|signature| signature == expected)
    }
}

#[derive(Default)]
struct State {
    posted: Vec<Posted>,
    /// The next answers; 204 where there is none.
    answers: VecDeque<u16>,
    /// Answers 500 to what is posted of this member.
    refused: Option<String>,
    /// Takes requests and answers none while it is held.
    held: bool,
}

/// A server that is gone when this is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address")).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (state, changed) = (Arc::new(Mutex::new(State::default())), Arc::new(Notify::new()));
        let shared = (state.clone(), changed.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (state, changed) = shared.clone();
                tokio::spawn(async move { serve(stream, &state, &changed).await });
            }
        });
        Self { address, state, changed, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks?of=crm", self.address)
    }

    pub fn answer(&self, statuses: &[u16]) {
        self.state.lock().expect("not poisoned").answers.extend(statuses);
    }

    pub fn refuse(&self, member: Option<&str>) {
        self.state.lock().expect("not poisoned").refused = member.map(str::to_owned);
    }

    pub fn hold(&self, held: bool) {
        self.state.lock().expect("not poisoned").held = held;
        self.changed.notify_waiters();
    }

    pub fn posted(&self) -> Vec<Posted> {
        self.state.lock().expect("not poisoned").posted.clone()
    }

    /// Waits until so much was posted.
    pub async fn wait_for(&self, count: usize) -> Vec<Posted> {
        koc_tests::wait::until(&format!("{count} posts"), crate::world::PATIENCE, async || {
            Some(self.posted()).filter(|posted| posted.len() >= count)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>, changed: &Notify) {
    let Some(posted) = read(&mut stream).await else { return };
    let status = {
        let mut state = state.lock().expect("not poisoned");
        let refused = state.refused.as_ref().is_some_and(|member| *member == posted.member());
        state.posted.push(posted);
        if refused { 500 } else { state.answers.pop_front().unwrap_or(204) }
    };
    loop {
        let woken = changed.notified();
        if !state.lock().expect("not poisoned").held {
            break;
        }
        woken.await;
    }
    let answer = format!("HTTP/1.1 {status} Answer\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // Who does not wait for the answer is gone.
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// One request: its head, and a body of the length that it says.
async fn read(stream: &mut TcpStream) -> Option<Posted> {
    let mut bytes = Vec::new();
    let head = loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).expect("a head of text");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("POST /hooks?of=crm HTTP/1.1"));
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: HashMap<String, String> = lines.filter_map(header).collect();
    let length: usize = headers["content-length"].parse().expect("a length");
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        body.extend_from_slice(&chunk[..count]);
    }
    Some(Posted { headers, body })
}
