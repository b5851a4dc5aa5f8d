use std::io::Cursor;

use super::*;

const HUBSPOT: &str = include_str!("../../sample/hubspot.toml");
const SAMPLE: &[u8] = include_bytes!("../../sample/members.csv");
const HEADER: &str = "Record ID,First Name,Last Name,Email,Phone Number,City,State/Region,Last Modified Date,Lifecycle Stage,\
Marketing contact status,Vehicle Model,VIN,Xiaohongshu Handle,Xiaohongshu Followers,Douyin Handle,Douyin Followers\r\n";

fn hubspot() -> Mapping {
    Mapping::parse(HUBSPOT).unwrap()
}

fn read(text: &str) -> Vec<Row> {
    let mapping = hubspot();
    MemberFile::open(Cursor::new(text.as_bytes()), &mapping).unwrap().map(|row| row.ok().unwrap()).collect()
}

fn refusal(bytes: &[u8]) -> FileError {
    let mapping = hubspot();
    match MemberFile::open(Cursor::new(bytes), &mapping) {
        Err(error) => error,
        Ok(rows) => rows.filter_map(Result::err).next().expect("the file is read to its end"),
    }
}

fn rejects(row: &Row) -> Vec<(&str, &str)> {
    match &row.outcome {
        Ok(_) => Vec::new(),
        Err(rejects) => rejects.iter().map(|reject| (reject.column.as_str(), reject.reason.as_str())).collect(),
    }
}

#[test]
fn a_row_is_mapped_with_its_flawed_blanks_and_widths() {
    let rows = read(&format!(
        "\u{feff}{HEADER} 51000001　,旭,何　,Mei@Example.com,+86-13209967738,　深圳　,广东省,2025-03-29 06:16:05,lead,\
         Marketing contact,Aurora E5,LGFF4852S8GVV4Y40,kbai,1.2万,,541\r\n"
    ));
    let row = rows[0].outcome.as_ref().ok().unwrap();
    assert_eq!((row.line, row.source_system.as_str(), row.external_id.as_str()), (2, "hubspot", "51000001"));
    assert_eq!(row.source_time.to_rfc3339(), "2025-03-28T22:16:05+00:00");
    assert_eq!(row.display_name.as_deref(), Some("何旭"));
    assert_eq!(row.email.as_deref(), Some("Mei@example.com"));
    assert_eq!(row.phone.as_deref(), Some("+8613209967738"));
    assert_eq!((row.region.as_deref(), row.city.as_deref()), (Some("CN-GD"), Some("深圳")));
    assert!(row.channels == [Channel { platform: "XIAOHONGSHU".into(), handle: "kbai".into(), followers: Some(12_000) }]);
    assert!(row.vehicles == [Vehicle { model: Some("Aurora E5".into()), vin: Some("LGFF4852S8GVV4Y40".into()) }]);
    assert_eq!(row.tags, ["crm:hubspot", "stage:lead"]);
    assert!(row.consents == [Consent { purpose: Purpose::Contact, granted: true }]);
    assert_eq!(row.warnings.len(), 1);
    assert_eq!(row.warnings[0].column, "Douyin Followers");
}

#[test]
fn an_empty_cell_says_nothing() {
    let rows = read(&format!("{HEADER}1,,,,N/A,-,,2025-03-29,,,,,,,,\n"));
    let row = rows[0].outcome.as_ref().ok().unwrap();
    let empty = [&row.display_name, &row.email, &row.phone, &row.region, &row.city];
    assert!(empty.into_iter().all(Option::is_none));
    assert!(row.channels.is_empty() && row.vehicles.is_empty() && row.consents.is_empty());
}

#[test]
fn a_latin_name_is_written_first_name_first() {
    let rows = read(&format!("{HEADER}1,Ada,Lovelace,,,,,2025-03-29,,,,,,,,\n2,旭,,,,,,2025-03-29,,,,,,,,\n"));
    let names: Vec<_> = rows.iter().map(|row| row.outcome.as_ref().ok().unwrap().display_name.as_deref()).collect();
    assert_eq!(names, [Some("Ada Lovelace"), Some("旭")]);
}

#[test]
fn all_that_is_wrong_with_a_row_is_said_at_once_and_no_value_is_repeated() {
    let rows = read(&format!(
        "{HEADER},旭,何,not-an-address,12345,深圳,广东市,2026-02-30,lead,Perhaps,Aurora E5,SHORTVIN,kbai,many,,\n"
    ));
    assert_eq!(
        rejects(&rows[0]),
        [
            ("Record ID", "is required and empty"),
            ("Last Modified Date", "is a date or time that does not exist"),
            ("Email", "is not an e-mail address"),
            ("Phone Number", "is not a telephone number"),
            ("State/Region", "is not the name of a province, nor an ISO 3166-2 code"),
            ("Xiaohongshu Followers", "is not a number"),
            ("VIN", "is not a 17-character vehicle identification number"),
            ("Marketing contact status", "is not a value that the mapping lists"),
        ]
    );
    let said = format!("{:?}", rows[0].outcome.as_ref().err().unwrap());
    for value in ["not-an-address", "12345", "广东市", "2026-02-30", "Perhaps", "SHORTVIN", "many"] {
        assert!(!said.contains(value), "{value} is repeated");
    }
    assert!(said.contains("14 characters, no @"));
}

#[test]
fn lines_are_counted_as_an_editor_counts_them() {
    let row = |id: &str, city: &str| format!("{id},,,,,{city},,2025-03-29,,,,,,,,");
    for end in ["\n", "\r\n", "\r"] {
        let text =
            [HEADER.trim_end(), &row("1", "\"a\nb\""), "", &row("2", "c"), &row("3", "\"\"\"d\"\"\ne\nf\""), &row("4", "g")]
                .join("\n")
                .replace('\n', end);
        let lines: Vec<_> = read(&text).iter().map(|row| row.line).collect();
        assert_eq!(lines, [2, 5, 6, 9], "{end:?}");
    }
}

#[test]
fn a_row_with_cells_too_many_or_too_few_does_not_harm_its_neighbours() {
    let rows = read(&format!("{HEADER}1,a\n2,,,,,,,2025-03-29,,,,,,,,\n3,,,,,,,2025-03-29,,,,,,,,,,\n"));
    assert_eq!(rejects(&rows[0]), [("", "the row has 2 cells, the header 16")]);
    assert!(rows[1].outcome.is_ok());
    assert_eq!(rejects(&rows[2]), [("", "the row has 18 cells, the header 16")]);
}

#[test]
fn a_quote_that_is_never_closed_ends_the_import_with_its_line() {
    let text = format!("{HEADER}1,,,,,,,2025-03-29,,,,,,,,\n2,,,,,,,2025-03-29,,,,,,,,\"x\n3,,,,,,,2025-03-29,,,,,,,,\n");
    let error = refusal(text.as_bytes());
    assert!(matches!(error, FileError::UnclosedQuote { line: 3 }), "{error}");
}

#[test]
fn a_row_past_the_limit_is_refused_before_it_fills_the_memory() {
    let text = format!("{HEADER}1,,,,,\"{}", "x\n".repeat(2 * 1024 * 1024));
    assert!(matches!(refusal(text.as_bytes()), FileError::RowTooLong { line: 2 }));
}

#[test]
fn a_long_file_of_short_rows_is_within_the_limit() {
    let row = format!("1,,,,,{},,2025-03-29,,,,,,,,\n", "x".repeat(400));
    let text = format!("{HEADER}{}", row.repeat(4_000));
    assert!(text.len() as u64 > MAX_ROW_BYTES);
    assert_eq!(read(&text).len(), 4_000);
}

#[test]
fn a_file_that_does_not_fit_the_mapping_names_the_columns() {
    let error = refusal(b"Record ID,Email\n1,a@example.com\n");
    let FileError::MissingColumns { columns } = &error else { panic!("{error}") };
    assert!(columns.contains(&"Last Modified Date".to_owned()) && !columns.contains(&"Email".to_owned()));
    let twice = format!("Email,{HEADER}");
    assert!(matches!(refusal(twice.as_bytes()), FileError::RepeatedColumns { columns } if columns == ["Email"]));
}

#[test]
fn an_empty_file_has_no_header() {
    for bytes in [&b""[..], b"\xef\xbb\xbf", b"\r\n\r\n"] {
        assert!(matches!(refusal(bytes), FileError::NoHeader));
    }
}

#[test]
fn a_gbk_file_is_refused_before_any_row() {
    let mut bytes = HEADER.as_bytes().to_vec();
    bytes.extend(b"1,,,,,,,2025-03-29,,,,,,,,\n2,\xd0\xf1,\xba\xce,,,,,2025-03-29,,,,,,,,\n");
    let mapping = hubspot();
    let opened = MemberFile::open(Cursor::new(bytes), &mapping).err();
    assert!(matches!(opened, Some(FileError::NotUtf8 { line: 3 })));
}

#[test]
fn rejected_rows_can_be_mended_and_imported_from_their_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rejected.csv");
    let mapping = hubspot();
    let text = format!("{HEADER}1,旭,何,bad,,\"深\n圳\",,2025-03-29,,,,,,,,\n2,,,,,,,2025-03-29,,,,,,,,\n,,,,,,,x,,,,,,,,\n");
    let reject_all = |text: &str| {
        let file = MemberFile::open(Cursor::new(text.as_bytes()), &mapping).unwrap();
        let mut rejected = RejectFile::new(&path, file.header(), mapping.delimiter());
        for row in file {
            let row = row.unwrap_or_else(|error| panic!("{error}"));
            if let Err(rejects) = &row.outcome {
                rejected.write(row.line, &row.cells, rejects).unwrap();
            }
        }
        rejected.finish().unwrap()
    };

    assert_eq!(reject_all(&text), Some((path.clone(), 2)));
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.starts_with("\u{feff}line,column,reason,Record ID,"));
    assert!(written.contains("\r\n2,Email,\"Email is not an e-mail address (3 characters, no @, like aaa)\",1,旭,何,bad,"));
    assert!(written.contains("\r\n5,Record ID; Last Modified Date,"));

    let mended = written.replace(",bad,", ",mei@example.com,");
    assert_eq!(reject_all(&mended), Some((path.clone(), 1)));
    let again = std::fs::read_to_string(&path).unwrap();
    assert_eq!(again.matches("line,column,reason,").count(), 1);

    assert!(again.contains("\r\n4,Record ID; Last Modified Date,"), "lines are those of the file that was read");

    let mended = again.replace(",,,,,,,x,", "9,,,,,,,2025-03-29,");
    assert_eq!(reject_all(&mended), None);
}

#[test]
fn nothing_rejected_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rejected.csv");
    assert_eq!(RejectFile::new(&path, &StringRecord::from(vec!["id"]), b',').finish().unwrap(), None);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_shipped_export_shows_the_flaws_it_was_made_with() {
    let mapping = hubspot();
    let rows: Vec<_> = MemberFile::open(Cursor::new(SAMPLE), &mapping).unwrap().map(|row| row.ok().unwrap()).collect();
    let count = |column: &str, reason: &str| rows.iter().flat_map(rejects).filter(|found| *found == (column, reason)).count();
    assert_eq!(rows.len(), 324);
    assert_eq!(count("Record ID", "is required and empty"), 6);
    assert_eq!(count("Email", "is not an e-mail address"), 5);
    assert_eq!(count("Last Modified Date", "is a date or time that does not exist"), 1);
    assert_eq!(count("Last Modified Date", "is in none of the mapping's date formats"), 1);
    assert_eq!(count("Last Modified Date", "is required and empty"), 1);
    assert_eq!(count("Douyin Followers", "is not a number"), 1);
    assert_eq!(rows.iter().filter(|row| row.outcome.is_err()).count(), 13);
    let mapped: Vec<_> = rows.iter().filter_map(|row| row.outcome.as_ref().ok()).collect();
    let ids: std::collections::HashSet<_> = mapped.iter().map(|row| &row.external_id).collect();
    assert_eq!((mapped.len(), ids.len()), (311, 296));
    assert_eq!(mapped.iter().map(|row| row.warnings.len()).sum::<usize>(), 1);
}

#[test]
fn the_mapping_for_salesforce_reads_an_export_of_its_shape() {
    let mapping = Mapping::parse(include_str!("../../sample/salesforce.toml")).unwrap();
    let text = "Id,FirstName,LastName,Email,MobilePhone,MailingState,MailingCity,LastModifiedDate,Xiaohongshu_Handle__c,\
Xiaohongshu_Followers__c,Douyin_Handle__c,Douyin_Followers__c,Vehicle_Model__c,VIN__c,LeadSource,HasOptedOutOfEmail\n\
003Fv00000AbCdEIAV,旭,何,mei@example.com,13209967738,44,深圳,2025-03-29T06:16:05.000Z,kbai,12000,,,,,Event,FALSE\n\
003Fv00000AbCdFIAV,Ada,Lovelace,,,Guangdong,,2025/03/29 14:16,,,,,,,Unlisted,true\n";
    let rows: Vec<Row> = MemberFile::open(Cursor::new(text.as_bytes()), &mapping).unwrap().map(|row| row.ok().unwrap()).collect();
    let [one, other] = [&rows[0], &rows[1]].map(|row| row.outcome.as_ref().ok().unwrap());
    assert_eq!((one.source_system.as_str(), one.external_id.as_str()), ("salesforce", "003Fv00000AbCdEIAV"));
    assert_eq!((one.display_name.as_deref(), one.phone.as_deref()), (Some("何旭"), Some("+8613209967738")));
    assert_eq!((one.region.as_deref(), one.city.as_deref()), (Some("CN-GD"), Some("深圳")));
    assert_eq!(one.tags, ["crm:salesforce", "source:event"]);
    assert!(one.consents == [Consent { purpose: Purpose::Contact, granted: true }]);
    assert_eq!((other.display_name.as_deref(), other.region.as_deref()), (Some("Ada Lovelace"), Some("CN-GD")));
    // The same instant, told in two ways; the later one without seconds.
    assert_eq!(other.source_time.to_rfc3339(), "2025-03-29T06:16:00+00:00");
    assert_eq!(one.source_time.to_rfc3339(), "2025-03-29T06:16:05+00:00");
    assert!(other.consents == [Consent { purpose: Purpose::Contact, granted: false }]);
}

#[test]
fn a_row_that_cannot_be_read_still_says_whose_it_is_where_it_can() {
    let rows = read(&format!("{HEADER}1,,,not-an-address,,,,2025-03-29,,,,,,,,\n,,,x,,,,2025-03-29,,,,,,,,\n2,too few\n"));
    let ids: Vec<_> = rows.iter().map(|row| (row.external_id.as_deref(), row.outcome.is_err())).collect();
    assert_eq!(ids, [(Some("1"), true), (None, true), (None, true)]);
}
