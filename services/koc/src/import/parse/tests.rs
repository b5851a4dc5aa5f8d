use super::*;

const CHINA: &str = "CN";

fn home(code: &str) -> Country {
    Country::try_from(code.to_owned()).unwrap()
}

fn formats(list: &[&str]) -> Vec<TimeFormat> {
    list.iter().map(|text| TimeFormat::try_from((*text).to_owned()).unwrap()).collect()
}

#[test]
fn blanks_of_every_width_are_trimmed() {
    assert_eq!(trim("\u{3000} \u{a0}全角　空格\u{200b}\t\u{3000}"), "全角　空格");
    assert_eq!(trim("\u{3000}"), "");
}

#[test]
fn counts_are_read_with_chinese_units_and_separators() {
    for (text, value) in [
        ("0", 0),
        ("541", 541),
        ("１２，３４５", 12_345),
        ("12,345", 12_345),
        ("1,234,567", 1_234_567),
        ("1.2万", 12_000),
        ("１．２万", 12_000),
        ("3千", 3_000),
        ("1.5亿", 150_000_000),
        ("1.2w", 12_000),
        ("8k", 8_000),
        ("2 万", 20_000),
        ("12345.00", 12_345),
        ("9223372036854775807", i64::MAX),
    ] {
        assert_eq!(count(text), Ok(value), "{text}");
    }
}

#[test]
fn counts_that_are_not_exact_whole_numbers_are_refused() {
    for (text, flaw) in [
        ("12.5", Flaw::Fraction),
        ("1.23456万", Flaw::Fraction),
        ("-3", Flaw::Negative),
        ("-x", Flaw::Number),
        ("1,23", Flaw::Number),
        ("1234,567", Flaw::Number),
        (",123", Flaw::Number),
        ("10万+", Flaw::Number),
        ("万", Flaw::Number),
        ("1.2万万", Flaw::Number),
        (".5万", Flaw::Number),
        ("1e5", Flaw::Number),
        ("约三千", Flaw::Number),
        ("9223372036854775808", Flaw::TooLarge),
        ("99999999999999999999亿", Flaw::TooLarge),
    ] {
        assert_eq!(count(text), Err(flaw), "{text}");
    }
}

#[test]
fn phones_become_e164() {
    for (text, value) in [
        ("13209967738", "+8613209967738"),
        ("+86-18678307279", "+8618678307279"),
        ("+86 14776141572", "+8614776141572"),
        ("＋８６ 13209967738", "+8613209967738"),
        ("0086 132 0996 7738", "+8613209967738"),
        ("8613209967738", "+8613209967738"),
        ("010-12345678", "+861012345678"),
        ("(0755) 1234 5678", "+8675512345678"),
        ("+86 (0)10 12345678", "+861012345678"),
        ("+49 30 1234567", "+49301234567"),
    ] {
        assert_eq!(phone(text, home(CHINA)).as_deref(), Ok(value), "{text}");
    }
    assert_eq!(phone("030 1234567", home("DE")).as_deref(), Ok("+49301234567"));
    assert_eq!(phone("9123 4567", home("HK")).as_deref(), Ok("+85291234567"));
}

#[test]
fn phones_that_cannot_be_dialled_are_refused() {
    for text in
        ["12345678", "1320996773", "12209967738", "+86 132099677380", "abc", "+", "", "132/133 0996773", "+1234567890123456"]
    {
        assert_eq!(phone(text, home(CHINA)), Err(Flaw::Phone), "{text}");
    }
}

#[test]
fn emails_keep_their_local_part_and_lose_the_case_of_the_host() {
    assert_eq!(email("Mei.Li+car@Example.COM").as_deref(), Ok("Mei.Li+car@example.com"));
    assert_eq!(email("ｍｅｉ＠example.com").as_deref(), Ok("mei@example.com"));
}

#[test]
fn text_that_is_no_mailbox_is_refused() {
    let long = format!("{}@example.com", "a".repeat(65));
    for text in [
        "not-an-address",
        "a@b",
        "a@@example.com",
        "a b@example.com",
        ".a@example.com",
        "a..b@example.com",
        "@example.com",
        "a@-x.com",
        "a@example..com",
        "a@b@example.com",
        &long,
    ] {
        assert_eq!(email(text), Err(Flaw::Email), "{text}");
    }
}

#[test]
fn a_local_time_is_placed_in_the_mappings_zone() {
    let list = formats(&["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%d/%m/%Y", "%+"]);
    let read = |text| instant(text, &list, Tz::Asia__Shanghai).map(|time| time.to_rfc3339());
    assert_eq!(read("2025-03-29 06:16:05").as_deref(), Ok("2025-03-28T22:16:05+00:00"));
    assert_eq!(read("2025-03-29 06:16").as_deref(), Ok("2025-03-28T22:16:00+00:00"));
    assert_eq!(read("２０２５-03-29 06:16").as_deref(), Ok("2025-03-28T22:16:00+00:00"));
    assert_eq!(read("31/12/2025").as_deref(), Ok("2025-12-30T16:00:00+00:00"));
    assert_eq!(read("2025-03-29T06:16:05+02:00").as_deref(), Ok("2025-03-29T04:16:05+00:00"));
}

#[test]
fn a_date_that_does_not_exist_is_told_apart_from_one_in_another_format() {
    let list = formats(&["%Y-%m-%d %H:%M:%S", "%Y-%m-%d"]);
    let read = |text| instant(text, &list, Tz::Asia__Shanghai);
    for text in ["2026-02-30", "2025-02-29 10:00:00", "2026-13-01", "2026-01-01 25:00:00"] {
        assert_eq!(read(text), Err(Flaw::NoSuchTime), "{text}");
    }
    for text in ["31/12/2025", "yesterday", "2026-01-01 10", "2026-01-01x"] {
        assert_eq!(read(text), Err(Flaw::DateFormat), "{text}");
    }
}

#[test]
fn an_hour_that_clocks_skipped_does_not_exist_and_a_repeated_one_is_the_earlier() {
    let list = formats(&["%Y-%m-%d %H:%M"]);
    assert_eq!(instant("2026-03-29 02:30", &list, Tz::Europe__Berlin), Err(Flaw::NoSuchTime));
    let twice = instant("2026-10-25 02:30", &list, Tz::Europe__Berlin).unwrap();
    assert_eq!(twice.to_rfc3339(), "2026-10-25T00:30:00+00:00");
}

#[test]
fn vins_are_checked_for_length_and_letters() {
    assert_eq!(vin("lgff4852s8gvv4y40").as_deref(), Ok("LGFF4852S8GVV4Y40"));
    for text in ["LGFF4852S8GVV4Y4", "LGFF4852S8GVV4Y40X", "LGFF4852S8GVV4YO0", "车架号LGFF4852S8"] {
        assert_eq!(vin(text), Err(Flaw::Vin), "{text}");
    }
}

#[test]
fn a_shape_shows_the_form_and_no_letter_of_the_value() {
    assert_eq!(shape("not-an-address", Flaw::Email), "14 characters, no @, like aaa-aa-aaaaaaa");
    assert_eq!(shape("a@@b", Flaw::Email), "4 characters, 2 @, like a@@a");
    assert_eq!(shape("何旭 1.2万", Flaw::Number), "7 characters, like 字字 9.9字");
    assert_eq!(shape(&"x".repeat(30), Flaw::Vin), format!("30 characters, like {}…", "a".repeat(24)));
}
