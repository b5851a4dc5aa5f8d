//! By what a person who was erased would be known, kept so that nobody can read it: as hashes under a key that is not in the database. An
//! address has too few possible values for a hash without a key.

use super::member::ExternalIdentity;
use hmac::{Hmac, Mac};
use koc_chassis::ids::ProgrammeId;
use sha2::Sha256;
use std::fmt;

/// Keys of fewer bytes are refused.
pub const MIN_KEY_BYTES: usize = 32;

/// By what a person is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identifier {
    Identity(ExternalIdentity),
    Email(String),
    Phone(String),
}

impl Identifier {
    /// Of an address and a number, where there are any, in the form in which they are compared.
    pub fn of_contact(email: &str, phone: &str) -> impl Iterator<Item = Self> {
        let email = Some(email.trim()).filter(|email| !email.is_empty()).map(|email| Self::Email(email.to_lowercase()));
        let phone = Some(phone.trim()).filter(|phone| !phone.is_empty()).map(|phone| Self::Phone(phone.to_owned()));
        email.into_iter().chain(phone)
    }

    /// Its parts, the kind first.
    fn parts(&self) -> [&str; 3] {
        match self {
            Self::Identity(identity) => ["identity", &identity.source_system, &identity.external_id],
            Self::Email(email) => ["email", email, ""],
            Self::Phone(phone) => ["phone", phone, ""],
        }
    }
}

/// A hash, and the key that it was made with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    pub key_id: String,
    pub bytes: Vec<u8>,
}

struct Key {
    id: String,
    secret: Vec<u8>,
}

/// The keys that hashes are made with: the first for new ones, all for those that there are. None at all where none is configured.
#[derive(Default)]
pub struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.ids()).finish()
    }
}

/// Why a text holds no keys. Names no key's secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    #[error("line {line} is not a key's id and, after a blank, its bytes in hexadecimal")]
    Line { line: usize },
    #[error("the key in line {line} has {bytes} bytes; it needs {MIN_KEY_BYTES}")]
    Short { line: usize, bytes: usize },
    #[error("the key {id} stands twice")]
    Twice { id: String },
    #[error("there is no key")]
    None,
}

impl Keys {
    /// A key a line, the one for new hashes first: its id, a blank, and its bytes in hexadecimal. Empty lines and those that begin with #
    /// count for nothing.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys: Vec<Key> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (line, at) = (line.trim(), at + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, secret) = line.split_once(char::is_whitespace).ok_or(KeysError::Line { line: at })?;
            let secret = hex::decode(secret.trim()).map_err(|_| KeysError::Line { line: at })?;
            if secret.len() < MIN_KEY_BYTES {
                return Err(KeysError::Short { line: at, bytes: secret.len() });
            }
            if keys.iter().any(|key| key.id == id) {
                return Err(KeysError::Twice { id: id.to_owned() });
            }
            keys.push(Key { id: id.to_owned(), secret });
        }
        if keys.is_empty() { Err(KeysError::None) } else { Ok(Self(keys)) }
    }

    /// Their ids.
    pub fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|key| key.id.as_str()).collect()
    }

    /// The hash to keep; None without a key.
    pub fn keep(&self, programme: ProgrammeId, identifier: &Identifier) -> Option<Digest> {
        self.0.first().map(|key| key.digest(programme, identifier))
    }

    /// The hashes under which an identifier may have been kept.
    pub fn digests(&self, programme: ProgrammeId, identifier: &Identifier) -> Vec<Digest> {
        self.0.iter().map(|key| key.digest(programme, identifier)).collect()
    }
}

impl Key {
    /// Over the programme and the parts, each after its length: no two identifiers run together.
    fn digest(&self, programme: ProgrammeId, identifier: &Identifier) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key of any length is one");
        mac.update(programme.0.as_bytes());
        for part in identifier.parts() {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Digest { key_id: self.id.clone(), bytes: mac.finalize().into_bytes().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn key(byte: u8) -> String {
        hex::encode([byte; MIN_KEY_BYTES])
    }

    fn identity(source_system: &str, external_id: &str) -> Identifier {
        Identifier::Identity(ExternalIdentity { source_system: source_system.into(), external_id: external_id.into() })
    }

    #[test]
    fn new_hashes_are_made_with_the_first_key_and_found_with_all() {
        let old = Keys::parse(&format!("old {}", key(1))).expect("a key");
        let both = Keys::parse(&format!("# rotated\nnew {}\n\nold {}\n", key(2), key(1))).expect("two keys");
        let (programme, who) = (ProgrammeId(Uuid::from_u128(7)), identity("crm", "42"));
        let kept = old.keep(programme, &who).expect("a hash");
        assert!(both.digests(programme, &who).contains(&kept));
        assert_eq!(both.keep(programme, &who).expect("a hash").key_id, "new");
        assert_eq!(both.ids(), ["new", "old"]);
    }

    #[test]
    fn hashes_tell_persons_and_programmes_apart() {
        let keys = Keys::parse(&format!("k {}", key(3))).expect("a key");
        let one = ProgrammeId(Uuid::from_u128(1));
        let all = [
            keys.keep(one, &identity("crm", "42")),
            keys.keep(one, &identity("crm4", "2")),
            keys.keep(one, &Identifier::Email("42".into())),
            keys.keep(one, &Identifier::Phone("42".into())),
            keys.keep(ProgrammeId(Uuid::from_u128(2)), &identity("crm", "42")),
        ];
        for (i, digest) in all.iter().enumerate() {
            assert!(!all[..i].contains(digest), "{i}");
        }
    }

    #[test]
    fn addresses_are_compared_without_regard_to_case() {
        let of = |email: &str| Identifier::of_contact(email, "").collect::<Vec<_>>();
        assert_eq!(of("He@Example.com"), of("he@example.COM"));
        assert_eq!(Identifier::of_contact("", "").count(), 0);
        assert_eq!(
            Identifier::of_contact("", "+8613900000000").collect::<Vec<_>>(),
            [Identifier::Phone("+8613900000000".into())]
        );
    }

    #[test]
    fn what_is_no_key_is_refused_without_telling_it() {
        let refused = |text: &str| Keys::parse(text).map(|_| ()).expect_err("no keys");
        assert_eq!(refused("\n# nothing\n"), KeysError::None);
        assert_eq!(refused("alone"), KeysError::Line { line: 1 });
        assert_eq!(refused("\na xyz"), KeysError::Line { line: 2 });
        assert_eq!(refused("a 0102"), KeysError::Short { line: 1, bytes: 2 });
        assert_eq!(refused(&format!("a {}\na {}", key(1), key(2))), KeysError::Twice { id: "a".into() });
    }
}
