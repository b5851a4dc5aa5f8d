//! Keys and tokens of a test process.

use koc_chassis::token::{Grant, TokenKey, all_scopes};
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

struct Identity {
    key: TokenKey,
    folder: PathBuf,
    jwks: PathBuf,
    peer: PathBuf,
    suppression: PathBuf,
}

/// What the folders of keys are called, before the number of their process.
const FOLDER: &str = "koc-test-keys-";

/// One key per process, in files in the temp folder; those of processes that have ended are removed.
fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let key = TokenKey::generate();
        remove_abandoned();
        let folder = std::env::temp_dir().join(format!("{FOLDER}{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temp folder is writable");
        let (jwks, peer) = (folder.join("jwks.json"), folder.join("peer-token"));
        let suppression = folder.join("suppression-keys");
        std::fs::write(&suppression, format!("test {}\n", "5a".repeat(32))).expect("the temp folder is writable");
        std::fs::write(&jwks, key.jwks()).expect("the temp folder is writable");
        std::fs::write(&peer, sign(&key, "test-service", &all_scopes(), &["*".to_owned()])).expect("the temp folder is writable");
        Identity { key, folder, jwks, peer, suppression }
    })
}

fn remove_abandoned() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix(FOLDER)) else { continue };
        if !Path::new("/proc").join(process).exists() {
            // Another test process may be removing it as well.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn sign(key: &TokenKey, client: &str, scopes: &[&str], programmes: &[String]) -> String {
    let grant = Grant { client, scopes, programmes, valid_for: Duration::from_secs(3600) };
    key.sign(&grant).expect("a fresh key signs")
}

/// A token with these scopes for these programmes (ids, or `*`).
#[must_use]
pub fn token(client: &str, scopes: &[&str], programmes: &[String]) -> String {
    sign(&identity().key, client, scopes, programmes)
}

/// A token that may do everything everywhere, as `client`, which is also who acts.
#[must_use]
pub fn all(client: &str) -> String {
    token(client, &all_scopes(), &["*".to_owned()])
}

/// The key set that services of this process check tokens against.
#[must_use]
pub fn jwks_file() -> &'static Path {
    &identity().jwks
}

/// The token that services of this process show to their peers.
#[must_use]
pub fn peer_token_file() -> &'static Path {
    &identity().peer
}

/// The keys by which registries of this process keep erased persons out.
#[must_use]
pub fn suppression_keys_file() -> &'static Path {
    &identity().suppression
}

/// A folder of this process's own, which goes away some time after it.
#[must_use]
pub fn folder() -> &'static Path {
    &identity().folder
}
