//! Contracts of the KOC Suite: the messages and services of `koc/**/*.proto`, with what stands in them beyond shapes:
//! validation ([`rules::Rules`], enforced by [`codec::ValidatingCodec`] on every request), scopes ([`METHODS`]) and personal
//! fields.

pub mod codec;
pub mod rules;

#[allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/koc.rs"));
}
pub use generated::{google, koc};

#[allow(clippy::all, unused_qualifications, unused_variables)]
mod checks {
    include!(concat!(env!("OUT_DIR"), "/rules.rs"));
}
pub use checks::METHODS;

/// All contracts as an encoded descriptor set, custom options included: for reflection and for tools.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/koc.fds.bin"));
