//! Names of provinces to ISO 3166-2 codes.

/// The 34 subdivisions of ISO 3166-2:CN: code, short name, full name.
const CHINA: [(&str, &str, &str); 34] = [
    ("CN-AH", "安徽", "安徽省"),
    ("CN-BJ", "北京", "北京市"),
    ("CN-CQ", "重庆", "重庆市"),
    ("CN-FJ", "福建", "福建省"),
    ("CN-GD", "广东", "广东省"),
    ("CN-GS", "甘肃", "甘肃省"),
    ("CN-GX", "广西", "广西壮族自治区"),
    ("CN-GZ", "贵州", "贵州省"),
    ("CN-HA", "河南", "河南省"),
    ("CN-HB", "湖北", "湖北省"),
    ("CN-HE", "河北", "河北省"),
    ("CN-HI", "海南", "海南省"),
    ("CN-HK", "香港", "香港特别行政区"),
    ("CN-HL", "黑龙江", "黑龙江省"),
    ("CN-HN", "湖南", "湖南省"),
    ("CN-JL", "吉林", "吉林省"),
    ("CN-JS", "江苏", "江苏省"),
    ("CN-JX", "江西", "江西省"),
    ("CN-LN", "辽宁", "辽宁省"),
    ("CN-MO", "澳门", "澳门特别行政区"),
    ("CN-NM", "内蒙古", "内蒙古自治区"),
    ("CN-NX", "宁夏", "宁夏回族自治区"),
    ("CN-QH", "青海", "青海省"),
    ("CN-SC", "四川", "四川省"),
    ("CN-SD", "山东", "山东省"),
    ("CN-SH", "上海", "上海市"),
    ("CN-SN", "陕西", "陕西省"),
    ("CN-SX", "山西", "山西省"),
    ("CN-TJ", "天津", "天津市"),
    ("CN-TW", "台湾", "台湾省"),
    ("CN-XJ", "新疆", "新疆维吾尔自治区"),
    ("CN-XZ", "西藏", "西藏自治区"),
    ("CN-YN", "云南", "云南省"),
    ("CN-ZJ", "浙江", "浙江省"),
];

/// Gives the code for a Chinese province by its short or full name; a value that has the form of an ISO 3166-2 code is
/// taken as one (that it exists is the registry's to judge).
pub(super) fn code(name: &str) -> Option<String> {
    let known = CHINA.iter().find(|(_, short, full)| *short == name || *full == name);
    if let Some((code, ..)) = known {
        return Some((*code).to_owned());
    }
    let code = name.to_ascii_uppercase();
    let (country, part) = code.split_once('-')?;
    let formed = country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && (1..=3).contains(&part.len())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    formed.then_some(code)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_province_has_one_code_and_two_names_of_its_own() {
        let codes: HashSet<_> = CHINA.iter().map(|(code, ..)| code).collect();
        let names: HashSet<_> = CHINA.iter().flat_map(|(_, short, full)| [short, full]).collect();
        assert_eq!((codes.len(), names.len()), (34, 68));
        assert!(CHINA.iter().all(|(_, short, full)| full.starts_with(short)));
    }

    #[test]
    fn short_names_full_names_and_codes_give_the_code() {
        for name in ["陕西", "陕西省", "CN-SN", "cn-sn"] {
            assert_eq!(code(name).as_deref(), Some("CN-SN"));
        }
        assert_eq!(code("山西省").as_deref(), Some("CN-SX"));
        assert_eq!(code("新疆维吾尔自治区").as_deref(), Some("CN-XJ"));
        assert_eq!(code("DE-BY").as_deref(), Some("DE-BY"));
    }

    #[test]
    fn a_name_that_is_no_province_gives_none() {
        for name in ["广东市", "深圳", "Guangdong", "CN-", "CN-GUAN", "C-GD", "CN GD"] {
            assert_eq!(code(name), None, "{name}");
        }
    }
}
