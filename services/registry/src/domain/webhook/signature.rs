//! Secrets and signatures, as Standard Webhooks writes them.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// How a secret begins.
const PREFIX: &str = "whsec_";

/// A secret that an endpoint and the service share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As its owner writes it down.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }
}

/// The header `webhook-signature` of a body that is sent at this time, with a signature for each secret.
pub fn sign(secrets: &[Secret], id: &str, time: DateTime<Utc>, body: &[u8]) -> String {
    let head = format!("{id}.{}.", time.timestamp());
    let one = |secret: &Secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("a key of any length will do");
        mac.update(head.as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the specification's libraries test with.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = Secret::new(STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("Base64"));
        assert_eq!(secret.text(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let time = DateTime::from_timestamp(1_614_265_330, 0).expect("in range");
        let body = br#"{"test": 2432232314}"#;
        let signed = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", time, body), signed);
        let two = sign(&[Secret::new(vec![1; 32]), secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", time, body);
        assert!(two.ends_with(signed) && two.split(' ').count() == 2, "{two}");
    }
}
