//! Content hashes of parameters and inputs.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// SHA-256 of `label`, a zero byte and the compact JSON of `content`.
///
/// JSON is canonical here because the content is a struct: fields come in the order of declaration and floats in
/// their shortest form that reads back to the same bits. `label` keeps two kinds of content with the same shape apart.
/// Content must hold no map with non-string keys; none of this crate's does.
pub fn content_hash(label: &str, content: &impl Serialize) -> [u8; 32] {
    let json = serde_json::to_vec(content).expect("plain structs of numbers and strings always serialize");
    let mut hasher = Sha256::new();
    hasher.update(label.as_bytes());
    hasher.update([0]);
    hasher.update(&json);
    hasher.finalize().into()
}

/// The same as [`content_hash`], in lower-case hexadecimal (64 characters).
pub fn content_id(label: &str, content: &impl Serialize) -> String {
    hex::encode(content_hash(label, content))
}
