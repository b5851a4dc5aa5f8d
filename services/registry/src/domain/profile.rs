//! What is known of a member from callers and CRM systems, field by field.

use super::{
    consent::{Consent, Purpose},
    name::named,
    text::storable,
};
use koc_chassis::fault::{Violation, Violations};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

named! {
    /// Why a member takes part (内在驱动).
    Motivation {
        Helping = "HELPING",
        Mastery = "MASTERY",
        Gathering = "GATHERING",
        Recognition = "RECOGNITION",
        Reward = "REWARD",
    }
}

/// A place where a member publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    pub platform: String,
    pub handle: String,
    pub followers: Option<i64>,
}

/// A vehicle that a member owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vehicle {
    pub model: String,
    pub vin: String,
}

/// All that is known; empty where nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    pub display_name: String,
    pub email: String,
    pub phone: String,
    pub region_code: String,
    pub city: String,
    pub channels: Vec<Channel>,
    pub vehicles: Vec<Vehicle>,
    pub motivations: Vec<Motivation>,
    pub tags: Vec<String>,
    pub consents: Vec<Consent>,
}

/// Declares the fields of a [`Profile`]; a list is one field.
macro_rules! fields {
    ($($variant:ident $field:ident),+ $(,)?) => {
        /// One field of a profile: what is written, and remembered as written, on its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Field {
            $($variant),+
        }

        impl Field {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As in the contract, e.g. `region_code`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field)),+ }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|field| field.name() == name)
            }

            pub fn is_empty(self, profile: &Profile) -> bool {
                match self { $(Self::$variant => profile.$field.is_empty()),+ }
            }

            /// Whether both profiles hold the same here.
            pub fn same(self, one: &Profile, other: &Profile) -> bool {
                match self { $(Self::$variant => one.$field == other.$field),+ }
            }

            pub fn copy(self, from: &Profile, to: &mut Profile) {
                match self { $(Self::$variant => to.$field.clone_from(&from.$field)),+ }
            }

            /// SHA-256 of the value as JSON. It orders values that were written at the same time.
            pub fn content_hash(self, profile: &Profile) -> [u8; 32] {
                let content = match self { $(Self::$variant => serde_json::to_vec(&profile.$field)),+ };
                Sha256::digest(content.expect("texts and lists of plain values always have a JSON form")).into()
            }
        }
    };
}

fields! {
    DisplayName display_name,
    Email email,
    Phone phone,
    RegionCode region_code,
    City city,
    Channels channels,
    Vehicles vehicles,
    Motivations motivations,
    Tags tags,
    Consents consents,
}

impl Field {
    /// As in masks and facts, e.g. `profile.region_code`.
    pub fn path(self) -> String {
        format!("profile.{}", self.name())
    }
}

impl Profile {
    /// Fields that hold something.
    pub fn known(&self) -> Vec<Field> {
        Field::ALL.iter().copied().filter(|field| !field.is_empty(self)).collect()
    }

    pub fn withdraws(&self, purpose: Purpose) -> bool {
        super::consent::withdrawn(&self.consents, purpose)
    }

    /// Holds the profile to the rules that look at more than one value, and brings sets (motivations, tags, consents) into one
    /// order, so that the same content is the same value. Channels and vehicles keep the order they came in.
    pub fn canonical(mut self) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        for (field, text) in [
            (Field::DisplayName, &self.display_name),
            (Field::Email, &self.email),
            (Field::Phone, &self.phone),
            (Field::RegionCode, &self.region_code),
            (Field::City, &self.city),
        ] {
            violations.take(storable(&field.path(), text));
        }
        let mut channels = HashSet::new();
        for (i, channel) in self.channels.iter().enumerate() {
            violations.take(storable(&format!("profile.channels[{i}].handle"), &channel.handle));
            if !channels.insert((&channel.platform, &channel.handle)) {
                let rule = "must not repeat a platform and handle that stand earlier";
                violations.push(Violation::new(format!("profile.channels[{i}]"), "CHANNEL_REPEATED", rule));
            }
        }
        for (i, vehicle) in self.vehicles.iter().enumerate() {
            violations.take(storable(&format!("profile.vehicles[{i}].model"), &vehicle.model));
            violations.take(storable(&format!("profile.vehicles[{i}].vin"), &vehicle.vin));
        }
        for (i, tag) in self.tags.iter().enumerate() {
            violations.take(storable(&format!("profile.tags[{i}]"), tag));
        }
        let mut purposes = HashSet::new();
        for (i, consent) in self.consents.iter().enumerate() {
            if !purposes.insert(consent.purpose) {
                let rule = format!("must not speak twice of {}", consent.purpose.name());
                violations.push(Violation::new(format!("profile.consents[{i}]"), "CONSENT_REPEATED", rule));
            }
        }
        violations.finish()?;
        self.motivations.sort_unstable();
        self.tags.sort_unstable();
        self.consents.sort_unstable_by_key(|consent| consent.purpose);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(platform: &str, handle: &str) -> Channel {
        Channel { platform: platform.into(), handle: handle.into(), followers: None }
    }

    #[test]
    fn fields_are_known_by_the_names_of_the_contract() {
        assert_eq!(Field::from_name("region_code"), Some(Field::RegionCode));
        assert_eq!(Field::RegionCode.path(), "profile.region_code");
        assert_eq!(Field::from_name("tier_id"), None);
        for field in Field::ALL {
            assert_eq!(serde_json::to_value(field).expect("a name"), field.name());
        }
    }

    #[test]
    fn all_that_is_repeated_or_cannot_be_stored_is_reported_at_once() {
        let grant = |granted| Consent { purpose: Purpose::Contact, granted };
        let profile = Profile {
            city: "a\0b".into(),
            channels: vec![channel("DOUYIN", "x"), channel("WEIBO", "x"), channel("DOUYIN", "x")],
            consents: vec![grant(true), grant(false)],
            ..Profile::default()
        };
        let broken = profile.canonical().expect_err("three rules");
        let found: Vec<_> = broken.iter().map(|v| (v.field.as_str(), v.rule.as_str())).collect();
        assert_eq!(
            found,
            [
                ("profile.city", "TEXT_UNSTORABLE"),
                ("profile.channels[2]", "CHANNEL_REPEATED"),
                ("profile.consents[1]", "CONSENT_REPEATED"),
            ]
        );
    }

    #[test]
    fn sets_in_another_order_are_the_same_value() {
        let tagged = |tags: [&str; 2]| Profile { tags: tags.map(str::to_owned).to_vec(), ..Profile::default() };
        let one = tagged(["b", "a"]).canonical().expect("no rule broken");
        let other = tagged(["a", "b"]).canonical().expect("no rule broken");
        assert!(Field::Tags.same(&one, &other));
        assert_eq!(Field::Tags.content_hash(&one), Field::Tags.content_hash(&other));
    }
}
