//! Text that can be stored.

use koc_chassis::fault::Violation;

/// Postgres keeps any text but one with the character U+0000, which the wire allows.
pub fn storable(field: &str, text: &str) -> Result<(), Violation> {
    match text.contains('\0') {
        false => Ok(()),
        true => Err(Violation::new(field, "TEXT_UNSTORABLE", "must not contain the character U+0000")),
    }
}

/// The longest id of a source system, in characters.
pub const MAX_EXTERNAL_ID: usize = 200;

/// Whether a text can be somebody's id in a source system.
pub fn identifies(external_id: &str) -> bool {
    storable("external_id", external_id).is_ok() && (1..=MAX_EXTERNAL_ID).contains(&external_id.chars().count())
}
