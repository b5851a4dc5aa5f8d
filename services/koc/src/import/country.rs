//! Dialling rules of the countries that a mapping may name as the home of its telephone numbers.

use serde::Deserialize;

/// How the numbers of a country are dialled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Country {
    pub(super) calling_code: &'static str,
    /// What precedes a national number inside the country and falls away from abroad.
    pub(super) trunk_prefix: Option<&'static str>,
}

impl TryFrom<String> for Country {
    type Error = String;

    fn try_from(code: String) -> Result<Self, String> {
        let (calling_code, trunk_prefix) = match code.as_str() {
            "AU" => ("61", Some("0")),
            "CN" => ("86", Some("0")),
            "DE" => ("49", Some("0")),
            "FR" => ("33", Some("0")),
            "GB" => ("44", Some("0")),
            "HK" => ("852", None),
            "ID" => ("62", Some("0")),
            "JP" => ("81", Some("0")),
            "KR" => ("82", Some("0")),
            "MO" => ("853", None),
            "MY" => ("60", Some("0")),
            "SG" => ("65", None),
            "TH" => ("66", Some("0")),
            "TW" => ("886", Some("0")),
            "US" | "CA" => ("1", Some("1")),
            "VN" => ("84", Some("0")),
            _ => {
                return Err(format!("{code:?} is not a country whose dialling rules are known; write CN, HK, DE, …"));
            }
        };
        Ok(Self { calling_code, trunk_prefix })
    }
}

/// For `#[serde(deserialize_with)]`: a country by its ISO 3166-1 alpha-2 code.
pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Country, D::Error> {
    Country::try_from(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}
