//! Making tokens: for development, tests and operators. In production an identity provider signs; the services know its public
//! keys alone.

use crate::auth::AUDIENCE;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// An Ed25519 key that signs tokens.
pub struct TokenKey(SigningKey);

/// Why a key is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the key is not an Ed25519 private key in PKCS #8 PEM")]
    Key(#[source] ed25519_dalek::pkcs8::Error),
    #[error("the token could not be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// What a token says.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// The platform or service that calls.
    pub client: &'a str,
    pub scopes: &'a [&'a str],
    /// Ids, or `*` for all.
    pub programmes: &'a [String],
    pub valid_for: Duration,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'static str,
    exp: u64,
    scope: String,
    programmes: &'a [String],
}

impl TokenKey {
    /// A new key.
    pub fn generate() -> Self {
        Self(SigningKey::from_bytes(&rand::random()))
    }

    pub fn from_pem(pem: &str) -> Result<Self, TokenError> {
        SigningKey::from_pkcs8_pem(pem).map(Self).map_err(TokenError::Key)
    }

    pub fn to_pem(&self) -> Result<String, TokenError> {
        Ok(self.0.to_pkcs8_pem(LineEnding::LF).map_err(TokenError::Key)?.to_string())
    }

    /// The public half as a JSON Web Key Set, for `--jwks-file`.
    pub fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.verifying_key().as_bytes());
        serde_json::json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid(), "x": x}
        ]})
        .to_string()
    }

    fn kid(&self) -> String {
        hex::encode(&Sha256::digest(self.0.verifying_key().as_bytes())[..8])
    }

    /// Signs a token.
    pub fn sign(&self, grant: &Grant<'_>) -> Result<String, TokenError> {
        let der = self.0.to_pkcs8_der().map_err(TokenError::Key)?;
        let claims = Claims {
            sub: grant.client,
            aud: AUDIENCE,
            exp: jsonwebtoken::get_current_timestamp() + grant.valid_for.as_secs(),
            scope: grant.scopes.join(" "),
            programmes: grant.programmes,
        };
        let header = Header { kid: Some(self.kid()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(der.as_bytes())).map_err(TokenError::Sign)
    }
}

/// Every scope that a method of the suite declares, and `act_as`.
pub fn all_scopes() -> Vec<&'static str> {
    let mut scopes: Vec<_> = koc_proto::METHODS.iter().map(|m| m.scope).chain([crate::auth::ACT_AS]).collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Keys, act_as};
    use std::sync::Arc;

    fn keys(key: &TokenKey) -> Keys {
        let file = std::env::temp_dir().join(format!("koc-jwks-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, key.jwks()).expect("the temp dir is writable");
        let keys = Keys::load(&file).expect("a JWKS of ours");
        std::fs::remove_file(file).expect("it was written");
        keys
    }

    fn grant<'a>(scopes: &'a [&'a str], programmes: &'a [String]) -> Grant<'a> {
        Grant { client: "shop", scopes, programmes, valid_for: Duration::from_secs(60) }
    }

    #[test]
    fn a_token_says_who_calls_and_a_key_survives_its_file() {
        let key = TokenKey::from_pem(&TokenKey::generate().to_pem().expect("encodes")).expect("decodes");
        let id = uuid::Uuid::now_v7();
        let token = key.sign(&grant(&["a.b"], &[id.to_string()])).expect("signs");
        let caller = keys(&key).verify(&token).expect("holds");
        assert_eq!((caller.client.as_str(), caller.actor.as_str()), ("shop", "shop"));
        assert!(caller.has_scope("a.b") && !caller.has_scope("a"));
        assert!(caller.may_enter(id) && !caller.may_enter(uuid::Uuid::now_v7()) && !caller.may_enter_all());
    }

    #[test]
    fn a_token_of_another_key_an_expired_one_and_a_torn_one_are_refused() {
        let (ours, other) = (TokenKey::generate(), TokenKey::generate());
        let keys = keys(&ours);
        let all = ["*".to_owned()];
        let reason = |token: &str| keys.verify(token).expect_err("refused").reason;
        assert_eq!(reason(&other.sign(&grant(&[], &all)).expect("signs")), "TOKEN_INVALID");
        assert_eq!(reason("a.b.c"), "TOKEN_INVALID");
        let expired = Grant { valid_for: Duration::ZERO, ..grant(&[], &all) };
        let token = ours.sign(&expired).expect("signs");
        std::thread::sleep(Duration::from_millis(1100)); // expiry counts whole seconds
        assert_eq!(reason(&token), "TOKEN_EXPIRED");
        let token = ours.sign(&grant(&[], &all)).expect("signs");
        let mut forged = token.clone();
        forged.replace_range(token.len() - 4.., "AAAA");
        assert_eq!(reason(&forged), "TOKEN_INVALID");
        assert!(keys.verify(&token).is_ok());
    }

    #[test]
    fn only_a_client_with_the_scope_asserts_who_acts() {
        let key = TokenKey::generate();
        let keys = keys(&key);
        let all = ["*".to_owned()];
        let plain = keys.verify(&key.sign(&grant(&[], &all)).expect("signs")).expect("holds");
        assert_eq!(act_as(plain.clone(), Some("buyer-1")).expect_err("no scope").reason, "ACT_AS_DENIED");
        assert!(Arc::ptr_eq(&act_as(plain.clone(), None).expect("itself"), &plain));
        let trusted = keys.verify(&key.sign(&grant(&["act_as"], &all)).expect("signs")).expect("holds");
        let acting = act_as(trusted.clone(), Some("buyer-1")).expect("has the scope");
        assert_eq!((acting.client.as_str(), acting.actor.as_str()), ("shop", "buyer-1"));
        assert!(acting.may_enter_all());
        assert_eq!(act_as(trusted, Some("two words")).expect_err("blank").reason, "ACTOR_INVALID");
    }
}
