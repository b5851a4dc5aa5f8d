//! How the commands that are clients reach the services: where they are, with which token, and with patience for one that is
//! being restarted.

use anyhow::Context;
use clap::Args;
use koc_chassis::{
    context::{self, Current},
    fault::reason_of,
    peer::{self, PeerChannel, Token},
};
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Response, Status};

/// How long one call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// How long a service that does not answer is waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The token that a client shows.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// The token to call with.
    #[arg(long, env = "KOC_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with the token; by default the one that `koc dev` writes.
    #[arg(long, env = "KOC_TOKEN_FILE", default_value = ".koc/token")]
    token_file: PathBuf,
}

impl TokenArgs {
    pub fn token(&self) -> anyhow::Result<Token> {
        match &self.token {
            Some(token) => Ok(Token::fixed(token.clone())),
            None => {
                let path = self.token_file.display();
                anyhow::ensure!(
                    self.token_file.exists(),
                    "there is no token: give one by --token or KOC_TOKEN, or its file by --token-file ({path} does not exist)"
                );
                Ok(Token::from_file(self.token_file.clone()))
            }
        }
    }
}

/// Opens a channel to a service.
pub fn channel(url: &str, token: &Token) -> anyhow::Result<PeerChannel> {
    peer::connect(url, token.clone()).with_context(|| format!("{url:?} is not the address of a service"))
}

/// Makes a call in the name of `actor`, and again while the service cannot be reached or is too busy. Every mutation
/// carries a request id, so a call that is made twice counts once.
pub async fn patiently<T, F>(actor: &str, mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let give_up = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let current = Current { deadline: Instant::now() + CALL_DEADLINE, actor: actor.to_owned() };
        match context::scope(current, call()).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) if passes(&status) && Instant::now() < give_up => tokio::time::sleep(pause).await,
            Err(status) => return Err(status),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a failure may pass by itself.
pub fn passes(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted | Code::Cancelled => true,
        // A connection that broke in the middle of an answer.
        Code::Unknown | Code::Internal => reason_of(status).is_empty(),
        _ => false,
    }
}

/// Asks again and again until there is an answer.
pub async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let give_up = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(10);
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < give_up, "waited {} s in vain for {what}", PATIENCE.as_secs());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// A status in words, with what its details say.
pub fn describe(status: &Status) -> String {
    use tonic_types::StatusExt;
    let details = status.get_error_details();
    let mut text = match details.error_info() {
        Some(info) => format!("{}: {}", info.reason, status.message()),
        None => format!("{:?}: {}", status.code(), status.message()),
    };
    for violation in details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or_default() {
        text.push_str(&format!("; {}: {}", violation.field, violation.description));
    }
    text
}
