//! Contracts of the KOC Suite: the messages and services of `koc/**/*.proto`, with what stands in them beyond shapes:
//! validation ([`rules::Rules`], enforced by [`codec::ValidatingCodec`] on every request), scopes ([`METHODS`]) and personal
//! fields ([`personal`], masked by the same codec in every answer).

pub mod codec;
pub mod personal;
pub mod rules;

use prost::Message;
use prost_reflect::{DescriptorPool, prost_types::FileDescriptorSet};
use std::sync::LazyLock;

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

/// All contracts as descriptors, with the standard details of errors, which answers hold as `google.protobuf.Any`: for code that handles
/// messages without knowing their types.
pub static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("our own descriptors");
    let standard = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).expect("descriptors of tonic-types");
    for file in standard.file {
        // Of what it brings along, the contracts have some themselves, `google.rpc.Status` among it.
        let known = |name: &str| pool.get_message_by_name(&format!("{}.{name}", file.package())).is_some();
        if !file.message_type.iter().any(|message| known(message.name())) {
            pool.add_file_descriptor_proto(file).expect("descriptors of tonic-types");
        }
    }
    pool
});

/// All contracts as an encoded descriptor set, custom options included: for reflection and for tools.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/koc.fds.bin"));
