//! `koc token`: keys and tokens for development and operators.

use anyhow::Context;
use clap::{Args, Subcommand};
use koc_chassis::token::{Grant, TokenKey, all_scopes};
use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Make a key that signs tokens, or a token.
///
/// In production an identity provider signs, and the services know its public keys by their JWKS file.
#[derive(Args)]
pub struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an Ed25519 key: the private half for `koc token sign`, the public half for `koc serve --jwks-file`.
    Key {
        /// Where the private key goes (PEM); must not exist.
        #[arg(long)]
        key: PathBuf,
        /// Where the public key set goes (JSON).
        #[arg(long)]
        jwks: PathBuf,
    },
    /// Sign a token and print it.
    Sign {
        /// The private key.
        #[arg(long, default_value = ".koc/token-key.pem")]
        key: PathBuf,
        /// The platform or service that will call (claim `sub`); it is also the actor unless the call asserts another.
        #[arg(long)]
        client: String,
        /// A scope, once for each; see `koc token scopes`.
        #[arg(long = "scope", required_unless_present = "all_scopes")]
        scopes: Vec<String>,
        /// Every scope there is.
        #[arg(long, conflicts_with = "scopes")]
        all_scopes: bool,
        /// A programme's id, once for each, or `*` for all.
        #[arg(long = "programme", required = true)]
        programmes: Vec<String>,
        /// How long it is good for, in minutes.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=527_040))]
        minutes: u64,
    },
    /// List the scopes that the suite's methods need.
    Scopes,
}

impl Token {
    #[allow(clippy::print_stdout)]
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Key { key, jwks } => {
                let made = TokenKey::generate();
                write_private(&key, &made.to_pem()?, true)?;
                std::fs::write(&jwks, made.jwks()).with_context(|| format!("cannot write {}", jwks.display()))?;
                println!("private key: {}\npublic key set: {}", key.display(), jwks.display());
            }
            Command::Sign { key, client, scopes, all_scopes: all, programmes, minutes } => {
                let pem = std::fs::read_to_string(&key).with_context(|| {
                    format!("cannot read the key {}; `koc token key` makes one, and so does `koc dev`", key.display())
                })?;
                let known = all_scopes();
                if let Some(unknown) = scopes.iter().find(|s| !known.contains(&s.as_str())) {
                    anyhow::bail!("no method needs the scope {unknown:?}; `koc token scopes` lists those there are");
                }
                let scopes = if all { known } else { scopes.iter().map(String::as_str).collect() };
                let valid_for = Duration::from_secs(minutes * 60);
                let grant = Grant { client: &client, scopes: &scopes, programmes: &programmes, valid_for };
                println!("{}", TokenKey::from_pem(&pem)?.sign(&grant)?);
            }
            Command::Scopes => {
                for scope in all_scopes() {
                    println!("{scope}");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, text: &str, new: bool) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if new {
        options.create_new(true)
    } else {
        options.create(true).truncate(true)
    };
    let mut file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
