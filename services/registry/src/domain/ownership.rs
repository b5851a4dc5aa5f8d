//! Whose the fields of a profile are: the rows of one source system alone write a field that belongs to it. Of two writes that of the
//! owner is the larger, whatever their times: that keeps the order on writes total, so rows may still come in any order.

use super::profile::Field;
use koc_chassis::fault::Violation;
use std::collections::BTreeMap;

/// The fields that belong to a source system; the others are anybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<Field, String>);

impl Owners {
    pub fn new(owned: impl IntoIterator<Item = (Field, String)>) -> Self {
        Self(owned.into_iter().collect())
    }

    pub fn of(&self, field: Field) -> Option<&str> {
        self.0.get(&field).map(String::as_str)
    }

    /// Whether a field belongs to this source.
    pub fn owns(&self, field: Field, source: &str) -> bool {
        self.of(field) == Some(source)
    }

    /// Whether a field belongs to another source than this.
    pub fn excludes(&self, field: Field, source: &str) -> bool {
        self.of(field).is_some_and(|owner| owner != source)
    }
}

/// The field of this name, if it can belong to a source. Consents cannot: what a person last said counts, wherever it was said.
/// Errors: FIELD_UNKNOWN, FIELD_NOT_OWNABLE.
pub fn ownable(name: &str) -> Result<Field, Violation> {
    match Field::named(name).as_slice() {
        [Field::Consent(_), ..] => {
            let rule = "must not be consents: what a person last said counts, wherever it was said";
            Err(Violation::new("field", "FIELD_NOT_OWNABLE", rule))
        }
        [field] => Ok(*field),
        _ => Err(Violation::new("field", "FIELD_UNKNOWN", "must name a field of the profile, e.g. email")),
    }
}

/// All fields that can belong to a source, in the order of the profile.
pub fn all_ownable() -> impl Iterator<Item = Field> {
    Field::ALL.iter().copied().filter(|field| ownable(field.name()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_but_the_consents_can_be_owned() {
        assert_eq!(ownable("email"), Ok(Field::Email));
        assert_eq!(ownable("consents").expect_err("nobody's").rule, "FIELD_NOT_OWNABLE");
        assert_eq!(ownable("shoe_size").expect_err("unknown").rule, "FIELD_UNKNOWN");
        assert_eq!(all_ownable().count(), 9);
    }

    #[test]
    fn a_field_excludes_all_but_its_owner_and_nobody_when_it_has_none() {
        let owners = Owners::new([(Field::Email, "crm".to_owned())]);
        assert!(owners.owns(Field::Email, "crm") && !owners.excludes(Field::Email, "crm"));
        assert!(owners.excludes(Field::Email, "shop") && !owners.excludes(Field::City, "shop"));
    }
}
