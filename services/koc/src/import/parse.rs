//! One cell to one value. Every function takes trimmed text and says why it refuses in a [`Flaw`], which holds no value.

use chrono::format::ParseErrorKind;
use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;

use super::country::Country;
use super::mapping::TimeFormat;
use super::region;

/// RFC 5321 §4.5.3.1: 64 octets before the @, 254 in a path.
const MAX_EMAIL_LOCAL_BYTES: usize = 64;
const MAX_EMAIL_BYTES: usize = 254;
/// ITU-T E.164: at most 15 digits with the country code. Numbers of fewer than 7 are service numbers.
const E164_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
/// ISO 3779.
const VIN_CHARACTERS: usize = 17;
/// More characters than this are cut from a pattern in [`shape`].
const MAX_SHAPE_CHARACTERS: usize = 24;

/// What is wrong with a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("is required and empty")]
    Missing,
    #[error("is not an e-mail address")]
    Email,
    #[error("is not a telephone number")]
    Phone,
    #[error("is not a number")]
    Number,
    #[error("is not a whole number")]
    Fraction,
    #[error("is below zero")]
    Negative,
    #[error("is too large a number")]
    TooLarge,
    #[error("is in none of the mapping's date formats")]
    DateFormat,
    #[error("is a date or time that does not exist")]
    NoSuchTime,
    #[error("is not the name of a province, nor an ISO 3166-2 code")]
    Region,
    #[error("is not a 17-character vehicle identification number")]
    Vin,
    #[error("is not a value that the mapping lists")]
    NotListed,
}

/// Trims blanks of every width, and the invisible characters that spreadsheets leave.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{200b}' | '\u{feff}' | '\u{2060}'))
}

/// Full-width ASCII to plain ASCII, and blanks of every width to a space: the part of NFKC that addresses and numbers need.
/// Names and notes are not narrowed.
pub(super) fn narrow(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
            c if c.is_whitespace() => ' ',
            c => c,
        })
        .collect()
}

/// Han, kana or hangul: a name in such letters is written family name first and without a blank.
pub(super) fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xac00..=0xd7af | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
        || c == '·'
}

/// Says what a value looks like, so that a person finds the mistake, without saying what it is: digits become 9, Latin
/// letters a, all other letters 字; marks stay. Of an address it says how many @ there are, of which one is right.
pub(super) fn shape(value: &str, flaw: Flaw) -> String {
    let count = value.chars().count();
    let at = match value.chars().filter(|c| matches!(c, '@' | '＠')).count() {
        _ if flaw != Flaw::Email => String::new(),
        0 => ", no @".to_owned(),
        n => format!(", {n} @"),
    };
    let mut pattern: String = value
        .chars()
        .take(MAX_SHAPE_CHARACTERS)
        .map(|c| match c {
            c if c.is_numeric() => '9',
            c if c.is_ascii_alphabetic() => 'a',
            c if c.is_alphabetic() => '字',
            c if c.is_whitespace() || c.is_control() => ' ',
            c => c,
        })
        .collect();
    if count > MAX_SHAPE_CHARACTERS {
        pattern.push('…');
    }
    format!("{count} characters{at}, like {pattern}")
}

/// Checks the form that RFC 5321 gives a mailbox, unquoted. The domain is put in lower case; what stands before the @ is the
/// host's business.
pub(super) fn email(text: &str) -> Result<String, Flaw> {
    let text = narrow(text);
    let (local, domain) = text.split_once('@').ok_or(Flaw::Email)?;
    let local_fits = !local.is_empty()
        && local.len() <= MAX_EMAIL_LOCAL_BYTES
        && text.len() <= MAX_EMAIL_BYTES
        && local
            .split('.')
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)));
    let domain_fits = domain.contains('.')
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        });
    if local_fits && domain_fits { Ok(format!("{local}@{}", domain.to_lowercase())) } else { Err(Flaw::Email) }
}

/// Gives E.164. A number without `+` or `00` belongs to `home`; Chinese numbers are checked for their lengths.
pub(super) fn phone(text: &str, home: Country) -> Result<String, Flaw> {
    let text = narrow(text);
    let text = text.trim();
    let (international, rest) = match (text.strip_prefix('+'), text.strip_prefix("00")) {
        (Some(rest), _) | (None, Some(rest)) => (true, rest),
        (None, None) => (false, text),
    };
    if !rest.chars().all(|c| c.is_ascii_digit() || " -().·".contains(c)) {
        return Err(Flaw::Phone);
    }
    let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    let full = if international {
        // Some write +86 (0)10: the trunk zero is not dialled from abroad.
        match digits.strip_prefix("860") {
            Some(national) => format!("86{national}"),
            None => digits,
        }
    } else if home.calling_code == "86" && digits.len() == 13 && digits.starts_with("861") {
        digits
    } else {
        let national = home.trunk_prefix.and_then(|prefix| digits.strip_prefix(prefix));
        let landline = national.is_some();
        let national = national.unwrap_or(&digits);
        if home.calling_code == "86" && !landline && !is_chinese_mobile(national) {
            return Err(Flaw::Phone); // A local number without its area code.
        }
        format!("{}{national}", home.calling_code)
    };
    let valid = E164_DIGITS.contains(&full.len())
        && !full.starts_with('0')
        && full.strip_prefix("86").is_none_or(|national| {
            is_chinese_mobile(national)
                || (!national.starts_with('1') && (10..=11).contains(&national.len()))
                || is_beijing(national)
        });
    if valid { Ok(format!("+{full}")) } else { Err(Flaw::Phone) }
}

fn is_chinese_mobile(national: &str) -> bool {
    national.len() == 11 && national.starts_with('1') && matches!(national.as_bytes()[1], b'3'..=b'9')
}

/// Area code 10 with eight digits: the one Chinese landline that begins with 1.
fn is_beijing(national: &str) -> bool {
    national.len() == 10 && national.starts_with("10")
}

/// Reads a count: `541`, `12,345`, `1.2万`, `3千`, `1.5亿`, `1.2w`, `8k`. Exact: what does not come out whole is refused.
pub(super) fn count(text: &str) -> Result<i64, Flaw> {
    let text = narrow(text).replace('，', ",");
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('-') {
        return Err(if count(rest).is_ok() { Flaw::Negative } else { Flaw::Number });
    }
    let exponent: usize = match text.chars().last().ok_or(Flaw::Number)? {
        '千' | 'k' | 'K' => 3,
        '万' | '萬' | 'w' | 'W' => 4,
        'm' | 'M' => 6,
        '亿' | '億' => 8,
        _ => 0,
    };
    let number = text.strip_suffix(is_unit).unwrap_or(text).trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut groups = whole.split(',');
    let grouped = match (groups.next(), whole.contains(',')) {
        (Some(first), true) => digits(first) && first.len() <= 3 && groups.all(|group| digits(group) && group.len() == 3),
        _ => digits(whole),
    };
    if !grouped || !digits(fraction) {
        return Err(Flaw::Number);
    }
    let fraction = fraction.trim_end_matches('0');
    let missing = exponent.checked_sub(fraction.len()).ok_or(Flaw::Fraction)?;
    let all = format!("{}{fraction}{}", whole.replace(',', ""), "0".repeat(missing));
    all.parse().map_err(|_| Flaw::TooLarge)
}

fn is_unit(c: char) -> bool {
    "千kK万萬wWmM亿億".contains(c)
}

/// Reads an instant by the first format that fits. A local time that clocks showed twice is the earlier of the two; one that
/// they skipped does not exist.
pub(super) fn instant(text: &str, formats: &[TimeFormat], zone: Tz) -> Result<DateTime<Utc>, Flaw> {
    let text = narrow(text);
    let mut flaw = Flaw::DateFormat;
    for format in formats {
        match instant_in(&text, format.as_str(), zone) {
            Ok(time) => return Ok(time),
            Err(Flaw::NoSuchTime) => flaw = Flaw::NoSuchTime,
            Err(_) => {}
        }
    }
    Err(flaw)
}

fn instant_in(text: &str, format: &str, zone: Tz) -> Result<DateTime<Utc>, Flaw> {
    let flaw = |error: chrono::ParseError| match error.kind() {
        ParseErrorKind::OutOfRange | ParseErrorKind::Impossible => Flaw::NoSuchTime,
        _ => Flaw::DateFormat,
    };
    match DateTime::parse_from_str(text, format) {
        Ok(time) => return Ok(time.to_utc()),
        // The format has no offset: the mapping's zone holds.
        Err(error) if error.kind() == ParseErrorKind::NotEnough => {}
        Err(error) => return Err(flaw(error)),
    }
    let local = match NaiveDateTime::parse_from_str(text, format) {
        Err(error) if error.kind() == ParseErrorKind::NotEnough => {
            NaiveDate::parse_from_str(text, format).map_err(flaw)?.and_time(NaiveTime::MIN)
        }
        other => other.map_err(flaw)?,
    };
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => Ok(time.to_utc()),
        LocalResult::None => Err(Flaw::NoSuchTime),
    }
}

/// Gives the ISO 3166-2 code of a province.
pub(super) fn region(text: &str) -> Result<String, Flaw> {
    region::code(&narrow(text)).ok_or(Flaw::Region)
}

/// Checks length and letters (no I, O, Q). The check digit is not judged: it binds only in North America.
pub(super) fn vin(text: &str) -> Result<String, Flaw> {
    let vin = narrow(text).to_ascii_uppercase();
    let fits = vin.len() == VIN_CHARACTERS
        && vin.bytes().all(|b| b.is_ascii_digit() || (b.is_ascii_uppercase() && !b"IOQ".contains(&b)));
    if fits { Ok(vin) } else { Err(Flaw::Vin) }
}

#[cfg(test)]
mod tests;
