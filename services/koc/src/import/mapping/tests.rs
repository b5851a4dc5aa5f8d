use super::*;

const LEAST: &str = "source_system = \"crm\"\nexternal_id.column = \"id\"\n\
    source_time = { column = \"changed\", time_zone = \"Asia/Shanghai\", formats = [\"%Y-%m-%d\"] }\n";

fn refusal(extra: &str) -> String {
    match Mapping::parse(&format!("{LEAST}{extra}")) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted: {extra}"),
    }
}

#[test]
fn an_id_and_a_time_are_all_that_a_mapping_must_have() {
    let mapping = Mapping::parse(LEAST).unwrap();
    assert_eq!(mapping.columns().into_iter().collect::<Vec<_>>(), ["changed", "id"]);
    assert_eq!((mapping.source_system(), mapping.delimiter()), ("crm", b','));
    for line in LEAST.lines() {
        assert!(Mapping::parse(&LEAST.replace(line, "")).is_err(), "accepted without {line}");
    }
}

#[test]
fn a_misspelt_key_is_refused_by_its_name_and_line() {
    let refusal = refusal("[[tag]]\ncolum = \"Lifecycle Stage\"\n");
    assert!(refusal.contains("colum") && refusal.contains("line 5"), "{refusal}");
}

#[test]
fn rules_that_cannot_work_are_refused() {
    for (extra, part) in [
        ("[city]\n", "either a column or a constant"),
        ("[city]\ncolumn = \"a\"\nconstant = \"b\"\n", "either a column or a constant"),
        ("[phone]\ncolumn = \"p\"\ndefault_country = \"ZZ\"\n", "dialling rules"),
        ("[[vehicle]]\n", "neither model nor vin"),
        ("[[consent]]\npurpose = \"CONTACT\"\ncolumn = \"c\"\n", "no value as granted"),
        (
            "[[consent]]\npurpose = \"CONTACT\"\ncolumn = \"c\"\ngranted = [\"x\"]\nrefused = [\"x\"]\n",
            "as granted and as refused",
        ),
        ("[[consent]]\npurpose = \"SPAM\"\nconstant = true\n", "unknown variant"),
        ("[[motivation]]\nconstant = \"FAME\"\n", "not a motivation"),
        ("[file]\ndelimiter = \"，\"\n", "one ASCII character"),
    ] {
        let refusal = refusal(extra);
        assert!(refusal.contains(part), "{extra}: {refusal}");
    }
}

#[test]
fn a_time_zone_or_format_that_does_not_exist_is_refused() {
    assert!(Mapping::parse(&LEAST.replace("Asia/Shanghai", "Asia/Peking")).is_err());
    assert!(Mapping::parse(&LEAST.replace("%Y-%m-%d", "%Y-%Q")).is_err());
    assert!(Mapping::parse(&LEAST.replace("\"%Y-%m-%d\"", "")).is_err());
}
