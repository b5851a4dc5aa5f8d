//! Secrets of endpoints at rest: sealed with keys that are not in the database, so that a copy of it signs nothing.

use crate::{
    domain::webhook::{Secret, WebhookId},
    error::Error,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Of a new secret.
const SECRET_BYTES: usize = 32;

/// Seals and opens secrets. The first key seals; all open, so that keys can be changed.
#[derive(Clone, Default)]
pub struct Seal {
    keys: Vec<XChaCha20Poly1305>,
}

impl Seal {
    /// Reads keys, one a line: Base64 of 32 random bytes.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut keys = Vec::new();
        for (line, key) in text.lines().map(str::trim).enumerate().filter(|(_, key)| !key.is_empty()) {
            let bytes = STANDARD.decode(key).ok().filter(|bytes| bytes.len() == KEY_BYTES);
            let bytes = bytes.ok_or_else(|| anyhow::anyhow!("line {} is not Base64 of {KEY_BYTES} bytes", line + 1))?;
            keys.push(XChaCha20Poly1305::new(bytes.as_slice().into()));
        }
        anyhow::ensure!(!keys.is_empty(), "there is no key in it");
        Ok(Self { keys })
    }

    /// A new secret, sealed for this endpoint alone.
    pub fn make(&self, webhook: WebhookId) -> Result<Vec<u8>, Error> {
        self.seal(webhook, &rand::random::<[u8; SECRET_BYTES]>())
    }

    /// Whether there is no key, and so nothing to be sealed or opened.
    pub fn is_off(&self) -> bool {
        self.keys.is_empty()
    }

    /// The same secret sealed with the first key; None when it is.
    pub fn renew(&self, webhook: WebhookId, sealed: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let newest = Self { keys: self.keys.iter().take(1).cloned().collect() };
        match newest.open(webhook, sealed) {
            Ok(_) => Ok(None),
            Err(_) => self.seal(webhook, self.open(webhook, sealed)?.bytes()).map(Some),
        }
    }

    fn seal(&self, webhook: WebhookId, secret: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let key = self.keys.first().ok_or(Error::WebhooksOff)?;
        let payload = Payload { msg: secret, aad: webhook.0.as_bytes() };
        let sealed = key.encrypt(&XNonce::from(nonce), payload).map_err(|_| unopened())?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed for this endpoint.
    pub fn open(&self, webhook: WebhookId, sealed: &[u8]) -> Result<Secret, Error> {
        if self.keys.is_empty() {
            return Err(Error::WebhooksOff);
        }
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(unopened)?;
        let nonce = XNonce::from(*nonce);
        let payload = || Payload { msg: sealed, aad: webhook.0.as_bytes() };
        let mut opened = self.keys.iter().filter_map(|key| key.decrypt(&nonce, payload()).ok());
        opened.next().map(Secret::new).ok_or_else(unopened)
    }
}

fn unopened() -> Error {
    sqlx::Error::Decode("a secret of a webhook cannot be opened with the keys there are".into()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> String {
        STANDARD.encode([byte; KEY_BYTES])
    }

    #[test]
    fn a_secret_opens_for_its_endpoint_with_its_key_and_in_no_other_way() {
        let seal = Seal::parse(&key(1)).expect("a key");
        let (ours, other) = (WebhookId::new(), WebhookId::new());
        let sealed = seal.make(ours).expect("sealed");
        let secret = seal.open(ours, &sealed).expect("opened");
        assert_eq!(secret.bytes().len(), SECRET_BYTES);
        assert!(!sealed.windows(SECRET_BYTES).any(|window| window == secret.bytes()));
        assert!(seal.open(other, &sealed).is_err());
        assert!(Seal::parse(&key(2)).expect("a key").open(ours, &sealed).is_err());
        let both = Seal::parse(&format!("{}\n\n {} \n", key(2), key(1))).expect("two keys");
        assert!(both.open(ours, &sealed).is_ok_and(|opened| opened == secret), "an older key still opens");
        let renewed = both.renew(ours, &sealed).expect("opened").expect("sealed anew");
        let newest = Seal::parse(&key(2)).expect("a key");
        assert!(newest.open(ours, &renewed).is_ok_and(|opened| opened == secret), "the older key is not needed any more");
        assert!(both.renew(ours, &renewed).expect("opened").is_none() && newest.renew(ours, &sealed).is_err());
        let mut torn = sealed;
        torn[NONCE_BYTES] ^= 1;
        assert!(both.open(ours, &torn).is_err() && both.open(ours, b"short").is_err());
    }

    #[test]
    fn keys_that_are_none_are_refused_by_line_and_without_keys_there_are_no_webhooks() {
        for text in ["", "\n", "abc", &STANDARD.encode([1; 16])] {
            assert!(Seal::parse(text).is_err(), "{text}");
        }
        assert!(matches!(Seal::default().make(WebhookId::new()), Err(Error::WebhooksOff)));
    }
}
