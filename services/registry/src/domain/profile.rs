//! What is known of a member from callers and CRM systems, field by field.

use super::{
    consent::{Consent, Purpose},
    name::named,
    text::storable,
};
use koc_chassis::fault::{Violation, Violations};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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

/// Declares the fields of a [`Profile`]; a list is one field, but for the consents.
macro_rules! fields {
    ($($variant:ident $field:ident),+ $(,)?) => {
        /// One field of a profile: what is written, and remembered as written, on its own. Of the consents each purpose is one, so
        /// that who speaks of one purpose leaves what was said of the others.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "&'static str", try_from = "String")]
        pub enum Field {
            $($variant,)+
            Consent(Purpose),
        }

        impl Field {
            pub const ALL: &[Self] = &[
                $(Self::$variant,)+
                Self::Consent(Purpose::Participation),
                Self::Consent(Purpose::Profiling),
                Self::Consent(Purpose::ContentUse),
                Self::Consent(Purpose::Contact),
            ];

            /// As in the contract, e.g. `region_code`; the consents share one name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($field),)+
                    Self::Consent(_) => "consents",
                }
            }

            pub fn is_empty(self, profile: &Profile) -> bool {
                match self {
                    $(Self::$variant => profile.$field.is_empty(),)+
                    Self::Consent(purpose) => profile.word(purpose).is_none(),
                }
            }

            /// Whether both profiles hold the same here.
            pub fn same(self, one: &Profile, other: &Profile) -> bool {
                match self {
                    $(Self::$variant => one.$field == other.$field,)+
                    Self::Consent(purpose) => one.word(purpose) == other.word(purpose),
                }
            }

            pub fn copy(self, from: &Profile, to: &mut Profile) {
                match self {
                    $(Self::$variant => to.$field.clone_from(&from.$field),)+
                    Self::Consent(purpose) => to.say(purpose, from.word(purpose)),
                }
            }

            /// The value as JSON.
            pub fn content(self, profile: &Profile) -> Value {
                let content = match self {
                    $(Self::$variant => serde_json::to_value(&profile.$field),)+
                    Self::Consent(purpose) => serde_json::to_value(profile.word(purpose)),
                };
                content.expect("texts and lists of plain values always have a JSON form")
            }

            /// Puts a value that was given as JSON.
            pub fn put_content(self, content: Value, to: &mut Profile) -> Result<(), serde_json::Error> {
                match self {
                    $(Self::$variant => to.$field = serde_json::from_value(content)?,)+
                    Self::Consent(purpose) => to.say(purpose, serde_json::from_value(content)?),
                }
                Ok(())
            }

            /// SHA-256 of the value as JSON. It orders values that were written at the same time.
            pub fn content_hash(self, profile: &Profile) -> [u8; 32] {
                let content = match self {
                    $(Self::$variant => serde_json::to_vec(&profile.$field),)+
                    Self::Consent(purpose) => serde_json::to_vec(&profile.word(purpose)),
                };
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
}

impl Field {
    /// The fields that the contract knows by this name; none when it knows no such name.
    pub fn named(name: &str) -> Vec<Self> {
        Self::ALL.iter().copied().filter(|field| field.name() == name).collect()
    }

    /// As in masks and facts, e.g. `profile.region_code`.
    pub fn path(self) -> String {
        format!("profile.{}", self.name())
    }

    /// The paths of fields that come in their order, each once.
    pub fn paths(fields: impl IntoIterator<Item = Self>) -> Vec<String> {
        let mut paths: Vec<String> = fields.into_iter().map(Self::path).collect();
        paths.dedup();
        paths
    }

    /// As in a member's history, e.g. `profile.consents.PROFILING`: a path of its own for each field.
    pub fn own_path(self) -> String {
        format!("profile.{}", self.key())
    }

    pub fn of_own_path(path: &str) -> Option<Self> {
        let key = path.strip_prefix("profile.")?;
        Self::ALL.iter().copied().find(|field| field.key() == key)
    }

    /// Whether it tells something of the person, as the contract marks it.
    pub fn is_personal(self) -> bool {
        match self {
            Self::DisplayName | Self::Email | Self::Phone | Self::City | Self::Channels | Self::Vehicles | Self::Tags => true,
            Self::RegionCode | Self::Motivations | Self::Consent(_) => false,
        }
    }

    /// As stored, e.g. `consents.PROFILING`.
    fn key(self) -> &'static str {
        match self {
            Self::Consent(Purpose::Participation) => "consents.PARTICIPATION",
            Self::Consent(Purpose::Profiling) => "consents.PROFILING",
            Self::Consent(Purpose::ContentUse) => "consents.CONTENT_USE",
            Self::Consent(Purpose::Contact) => "consents.CONTACT",
            plain => plain.name(),
        }
    }
}

impl From<Field> for &'static str {
    fn from(field: Field) -> Self {
        field.key()
    }
}

impl TryFrom<String> for Field {
    type Error = String;

    fn try_from(key: String) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|field| field.key() == key).ok_or(format!("no field of a profile is stored as {key}"))
    }
}

impl Profile {
    /// Fields that hold something.
    pub fn known(&self) -> Vec<Field> {
        Field::ALL.iter().copied().filter(|field| !field.is_empty(self)).collect()
    }

    /// What was said of a purpose: granted or withdrawn.
    fn word(&self, purpose: Purpose) -> Option<bool> {
        self.consents.iter().find(|consent| consent.purpose == purpose).map(|consent| consent.granted)
    }

    fn say(&mut self, purpose: Purpose, word: Option<bool>) {
        self.consents.retain(|consent| consent.purpose != purpose);
        self.consents.extend(word.map(|granted| Consent { purpose, granted }));
        self.consents.sort_unstable_by_key(|consent| consent.purpose);
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
        assert_eq!(Field::named("region_code"), [Field::RegionCode]);
        assert_eq!(Field::RegionCode.path(), "profile.region_code");
        assert_eq!(Field::named("tier_id"), []);
        assert_eq!(Field::named("consents").len(), 4);
        assert_eq!(Field::paths(Field::named("consents")), ["profile.consents"]);
    }

    #[test]
    fn fields_survive_their_storage() {
        for field in Field::ALL {
            let stored = serde_json::to_value(field).expect("a key");
            assert_eq!(serde_json::from_value::<Field>(stored).expect("a field"), *field);
        }
        assert_eq!(serde_json::to_value(Field::Consent(Purpose::ContentUse)).expect("a key"), "consents.CONTENT_USE");
        assert!(serde_json::from_value::<Field>("consents".into()).is_err());
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
