//! The one place where requests are validated and what is personal in answers is masked: the codec that every generated server and client
//! uses. Streams too: each message is checked as it is decoded, and masked before it is encoded. So no method can forget it, and a field
//! that is marked personal tomorrow is masked wherever it is answered.

use crate::{
    personal::{Sight, sight},
    rules::{Rules, Violation},
};
use std::{collections::HashMap, marker::PhantomData};
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};
use tonic_types::{ErrorDetails, StatusExt};

/// A prost codec whose decoder refuses requests that break the rules in their proto, and whose encoder masks answers.
#[derive(Debug, Clone)]
pub struct ValidatingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ValidatingCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ValidatingCodec<T, U>
where
    T: prost::Message + Rules + Send + 'static,
    U: prost::Message + Rules + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MaskingEncoder<T>;
    type Decoder = ValidatingDecoder<U>;

    /// A server asks for it within the call, even where the answer is a stream that is encoded after it.
    fn encoder(&mut self) -> Self::Encoder {
        MaskingEncoder { inner: ProstCodec::<T, U>::default().encoder(), masks: !T::REQUEST && sight() == Sight::Masked }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatingDecoder(ProstCodec::<T, U>::default().decoder())
    }
}

/// Masks, then encodes. Requests, which a client sends, go as they are.
#[derive(Debug)]
pub struct MaskingEncoder<T> {
    inner: ProstEncoder<T>,
    masks: bool,
}

impl<T: prost::Message + Rules> Encoder for MaskingEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, mut item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        if self.masks {
            item.mask_personal();
        }
        self.inner.encode(item, buf)
    }
}

/// Decodes, then checks.
#[derive(Debug)]
pub struct ValidatingDecoder<U>(ProstDecoder<U>);

impl<U: prost::Message + Rules + Default> Decoder for ValidatingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Bytes that are no message are the caller's fault; tonic would call them INTERNAL.
        let decoded = self.0.decode(buf).map_err(|status| match status.code() {
            Code::Internal => {
                let details = ErrorDetails::with_error_info("MALFORMED_MESSAGE", U::DOMAIN, HashMap::<String, String>::new());
                Status::with_error_details(Code::InvalidArgument, "the message could not be decoded", details)
            }
            _ => status,
        })?;
        let Some(message) = decoded else { return Ok(None) };
        if U::REQUEST {
            let violations = message.violations();
            if !violations.is_empty() {
                return Err(invalid(U::DOMAIN, violations));
            }
        }
        Ok(Some(message))
    }
}

/// INVALID_ARGUMENT with every violation as a field violation and the reason FIELD_VIOLATIONS.
pub fn invalid(domain: &str, violations: Vec<Violation>) -> Status {
    let message = match violations.as_slice() {
        [one] => format!("{}: {} ({})", one.field, one.description, one.rule),
        many => format!("{} fields break a rule; see the details", many.len()),
    };
    let mut details =
        ErrorDetails::with_error_info("FIELD_VIOLATIONS", domain, [("count".to_owned(), violations.len().to_string())]);
    for violation in violations {
        details.add_bad_request_violation(violation.field, format!("{} ({})", violation.description, violation.rule));
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}
