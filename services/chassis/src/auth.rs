//! Who calls: bearer tokens (JWT) checked against the keys of a JWKS file. Deny by default.
//!
//! Claims: `sub` (the client: a platform or service), `aud` (`koc`), `exp`, `scope` (scopes, separated by blanks), `programmes`
//! (ids, or `["*"]` for all). The person who acts is the client itself, or whom it asserts in the `koc-actor` header, for
//! which it needs the scope `act_as`.

use crate::fault::Fault;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde::Deserialize;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// The audience that a token for the suite names.
pub const AUDIENCE: &str = "koc";
/// The scope that lets a client assert the person who acts.
pub const ACT_AS: &str = "act_as";
/// The header that names the person who acts.
pub const ACTOR_HEADER: &str = "koc-actor";

/// Checked tokens that are remembered until they expire; a signature check costs more than a small read.
const CACHED_TOKENS: usize = 10_000;
/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest name of an actor, in bytes.
const MAX_ACTOR_BYTES: usize = 200;

/// Which programmes a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Programmes {
    All,
    Only(HashSet<Uuid>),
}

/// Who calls, as the token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject: the platform that calls.
    pub client: String,
    /// The person or system in whose name it acts.
    pub actor: String,
    scopes: HashSet<String>,
    programmes: Programmes,
}

impl Caller {
    /// A service that sends itself a command, e.g. from a job: past the door, so no scope of it is looked at.
    #[must_use]
    pub fn own(service: &str, actor: &str) -> Self {
        let (client, actor) = (service.to_owned(), actor.to_owned());
        Self { client, actor, scopes: HashSet::new(), programmes: Programmes::All }
    }

    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }

    pub fn may_enter(&self, programme: Uuid) -> bool {
        match &self.programmes {
            Programmes::All => true,
            Programmes::Only(ids) => ids.contains(&programme),
        }
    }

    pub fn may_enter_all(&self) -> bool {
        self.programmes == Programmes::All
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    programmes: Vec<String>,
}

struct Key {
    decoding: DecodingKey,
    algorithm: Algorithm,
}

/// The keys that tokens are checked against.
pub struct Keys {
    keys: HashMap<String, Key>,
    checked: Mutex<HashMap<String, (u64, Arc<Caller>)>>,
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the JWKS file {path} cannot be read")]
    Read { path: String, source: std::io::Error },
    #[error("the JWKS file {path} is not a JSON Web Key Set")]
    Parse { path: String, source: serde_json::Error },
    #[error("key {index} of the JWKS file {path} is of no use: {problem}")]
    Key { path: String, index: usize, problem: String },
    #[error("the JWKS file {path} holds no key")]
    Empty { path: String },
}

impl Keys {
    /// Reads a JWKS file. Each key must have `kid` and `alg` (EdDSA, ES256, RS256 and their like; no shared secrets).
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let name = path.display().to_string();
        let text = std::fs::read(path).map_err(|source| KeysError::Read { path: name.clone(), source })?;
        let set: JwkSet = serde_json::from_slice(&text).map_err(|source| KeysError::Parse { path: name.clone(), source })?;
        let mut keys = HashMap::new();
        for (index, jwk) in set.keys.iter().enumerate() {
            let bad = |problem: &str| KeysError::Key { path: name.clone(), index, problem: problem.to_owned() };
            let kid = jwk.common.key_id.clone().ok_or_else(|| bad("it has no kid"))?;
            let algorithm = jwk
                .common
                .key_algorithm
                .and_then(|a| Algorithm::from_str(&a.to_string()).ok())
                .ok_or_else(|| bad("it has no alg that signs"))?;
            if matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
                return Err(bad("a shared secret signs for everyone who checks"));
            }
            let decoding = DecodingKey::from_jwk(jwk).map_err(|e| bad(&e.to_string()))?;
            keys.insert(kid, Key { decoding, algorithm });
        }
        if keys.is_empty() {
            return Err(KeysError::Empty { path: name });
        }
        Ok(Self { keys, checked: Mutex::default() })
    }

    /// Checks a token and reads who calls. Errors: TOKEN_INVALID, TOKEN_EXPIRED.
    pub fn verify(&self, token: &str) -> Result<Arc<Caller>, Fault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("the token is longer than 16 KiB"));
        }
        let now = jsonwebtoken::get_current_timestamp();
        let mut checked = self.checked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((expiry, caller)) = checked.get(token) {
            return if *expiry > now { Ok(caller.clone()) } else { Err(expired()) };
        }
        drop(checked);
        let (expiry, caller) = self.check(token)?;
        checked = self.checked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if checked.len() >= CACHED_TOKENS {
            checked.retain(|_, (expiry, _)| *expiry > now);
            if checked.len() >= CACHED_TOKENS {
                checked.clear();
            }
        }
        checked.insert(token.to_owned(), (expiry, caller.clone()));
        Ok(caller)
    }

    fn check(&self, token: &str) -> Result<(u64, Arc<Caller>), Fault> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid("the token is not a JWT"))?;
        let kid = header.kid.ok_or_else(|| invalid("the token names no key (kid)"))?;
        let key = self.keys.get(&kid).ok_or_else(|| invalid("the token's key (kid) is not in the JWKS file"))?;
        let mut validation = Validation::new(key.algorithm);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.leeway = 0;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => expired(),
                jsonwebtoken::errors::ErrorKind::InvalidAudience => invalid("the token's audience (aud) is not koc"),
                _ => invalid("the token's signature or claims do not hold"),
            })?
            .claims;
        let programmes = if claims.programmes.iter().any(|p| p == "*") {
            Programmes::All
        } else {
            let ids: Result<_, _> = claims.programmes.iter().map(|p| Uuid::try_parse(p)).collect();
            Programmes::Only(ids.map_err(|_| invalid("the token's programmes are not all UUIDs"))?)
        };
        let caller = Caller {
            actor: claims.sub.clone(),
            client: claims.sub,
            scopes: claims.scope.split_ascii_whitespace().map(str::to_owned).collect(),
            programmes,
        };
        Ok((claims.exp, Arc::new(caller)))
    }
}

/// The caller acting in the name of the person that the header asserts. Errors: ACT_AS_DENIED, ACTOR_INVALID.
pub fn act_as(caller: Arc<Caller>, asserted: Option<&str>) -> Result<Arc<Caller>, Fault> {
    let Some(actor) = asserted else { return Ok(caller) };
    if actor == caller.actor {
        return Ok(caller);
    }
    if !caller.has_scope(ACT_AS) {
        return Err(Fault::denied("ACT_AS_DENIED", "asserting an actor needs the scope act_as").with("scope", ACT_AS));
    }
    if actor.is_empty() || actor.len() > MAX_ACTOR_BYTES || actor.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Fault::denied("ACTOR_INVALID", "an actor has 1 to 200 bytes and no blanks"));
    }
    Ok(Arc::new(Caller { actor: actor.to_owned(), ..(*caller).clone() }))
}

fn invalid(why: &str) -> Fault {
    Fault::unauthenticated("TOKEN_INVALID", why)
}

fn expired() -> Fault {
    Fault::unauthenticated("TOKEN_EXPIRED", "the token has expired; get a new one")
}
