//! Text that can be stored.

use koc_chassis::fault::Violation;

/// Postgres keeps any text but one with the character U+0000, which the wire allows.
pub fn storable(field: &str, text: &str) -> Result<(), Violation> {
    match text.contains('\0') {
        false => Ok(()),
        true => Err(Violation::new(field, "TEXT_UNSTORABLE", "must not contain the character U+0000")),
    }
}
