//! Typed ids: UUIDv7, so that rows created together lie together.

/// Declares an id type. `parse` takes what the contract's `string.uuid` rule has let through.
#[macro_export]
macro_rules! typed_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ::sqlx::Type, ::serde::Serialize, ::serde::Deserialize)]
        #[sqlx(transparent)]
        #[serde(transparent)]
        pub struct $name(pub ::uuid::Uuid);

        impl $name {
            /// A new id.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(::uuid::Uuid::now_v7())
            }

            /// Reads the id in `field` of a request; anything but a UUID is a violation of that field.
            pub fn parse(field: &str, text: &str) -> Result<Self, $crate::fault::Violation> {
                $crate::ids::parse(field, text).map(Self)
            }

            /// As [`Self::parse`], with None for an empty text.
            pub fn parse_optional(field: &str, text: &str) -> Result<Option<Self>, $crate::fault::Violation> {
                if text.is_empty() { Ok(None) } else { Self::parse(field, text).map(Some) }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl From<::uuid::Uuid> for $name {
            fn from(id: ::uuid::Uuid) -> Self {
                Self(id)
            }
        }
    )+};
}

typed_id! {
    /// A programme: every row, call and token belongs to one.
    ProgrammeId,
    /// A member of a programme.
    MemberId,
}

/// Reads a UUID; see the `parse` of a typed id.
pub fn parse(field: &str, text: &str) -> Result<uuid::Uuid, crate::fault::Violation> {
    uuid::Uuid::try_parse(text).map_err(|_| {
        let shape = format!("must be a UUID; got {} characters", text.chars().count());
        crate::fault::Violation::new(field, "string.uuid", shape)
    })
}
