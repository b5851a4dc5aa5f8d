//! Keys and tokens of `koc dev`: each service may do what it needs at its peers and nothing else.

use crate::token::write_private;
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use koc_chassis::{
    auth::ACT_AS,
    token::{Grant, TokenKey, all_scopes},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Tokens are made anew at each start.
const VALID_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where they are.
pub struct Files {
    pub jwks: PathBuf,
    /// The token for people and for the demo.
    pub token: PathBuf,
    /// By which the registry keeps erased persons out.
    pub suppression_keys: PathBuf,
    /// What seals the secrets of webhooks.
    pub webhook_keys: PathBuf,
    state: PathBuf,
}

impl Files {
    /// The token that a service shows to its peers.
    pub fn peer_token(&self, service: &str) -> PathBuf {
        self.state.join(format!("{service}.token"))
    }
}

/// What each service does at its peers.
pub const PEER_SCOPES: [(&str, &[&str]); 4] = [
    ("registry", &[]),
    (
        "budget",
        &[
            ACT_AS,
            "registry.programme.read",
            "registry.member.read",
            "registry.tier.read",
            "registry.feed.read",
            "registry.erasure.acknowledge",
            "registry.export.provide",
        ],
    ),
    (
        "task",
        &[
            ACT_AS,
            "registry.programme.read",
            "registry.member.read",
            "registry.feed.read",
            "registry.erasure.acknowledge",
            "registry.export.provide",
            "budget.reservation.write",
            "budget.reservation.read",
            "budget.plan.read",
        ],
    ),
    (
        "measurement",
        &[
            ACT_AS,
            "registry.programme.read",
            "registry.member.read",
            "registry.tier.read",
            "registry.feed.read",
            "registry.erasure.acknowledge",
            "registry.export.provide",
            "registry.value_profile.write",
            "registry.tier.propose",
            "budget.feed.read",
            "budget.plan.read",
            "budget.limit.write",
            "budget.draw.request",
            "budget.draw.read",
            "budget.reservation.read",
            "task.feed.read",
            "task.brief.read",
            "task.task.read",
            "task.assignment.read",
        ],
    ),
];

/// Makes the key if there is none, and all tokens.
pub fn write(state: &Path) -> anyhow::Result<Files> {
    let key_file = state.join("token-key.pem");
    let key = if key_file.exists() {
        let pem = std::fs::read_to_string(&key_file).with_context(|| format!("cannot read {}", key_file.display()))?;
        TokenKey::from_pem(&pem)?
    } else {
        let key = TokenKey::generate();
        write_private(&key_file, &key.to_pem()?, true)?;
        key
    };
    let suppression_keys = state.join("suppression-keys");
    if !suppression_keys.exists() {
        let secret: [u8; 32] = rand::random();
        write_private(&suppression_keys, &format!("dev {}\n", hex::encode(secret)), true)?;
    }
    let webhook_keys = state.join("webhook-keys");
    if !webhook_keys.exists() {
        write_private(&webhook_keys, &STANDARD.encode(rand::random::<[u8; 32]>()), true)?;
    }
    let (jwks, token) = (state.join("jwks.json"), state.join("token"));
    let files = Files { jwks, token, suppression_keys, webhook_keys, state: state.to_owned() };
    std::fs::write(&files.jwks, key.jwks()).with_context(|| format!("cannot write {}", files.jwks.display()))?;
    let all = ["*".to_owned()];
    let sign = |client: &str, scopes: &[&str]| key.sign(&Grant { client, scopes, programmes: &all, valid_for: VALID_FOR });
    for (service, scopes) in PEER_SCOPES {
        write_private(&files.peer_token(service), &sign(service, scopes)?, false)?;
    }
    write_private(&files.token, &sign("developer", &all_scopes())?, false)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_ask_for_scopes_that_exist_and_only_of_those_to_their_left() {
        let known = all_scopes();
        for (place, (service, scopes)) in PEER_SCOPES.iter().enumerate() {
            for scope in *scopes {
                assert!(known.contains(scope), "{service}: {scope}");
                let left = PEER_SCOPES[..place].iter().any(|(peer, _)| scope.starts_with(&format!("{peer}.")));
                assert!(left || *scope == ACT_AS, "{service} must not call to its right: {scope}");
            }
        }
    }
}
