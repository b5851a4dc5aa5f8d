//! Page tokens and etags: opaque to callers, bound to what they were made for.

use crate::fault::Violation;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike, Utc};
use sha2::{Digest, Sha256};

/// Items on a page when the caller names no size.
const DEFAULT_PAGE_SIZE: i32 = 50;

/// The page size to use; the contract bounds it to 0 to 1,000.
pub fn size(asked: i32) -> i64 {
    i64::from(if asked == 0 { DEFAULT_PAGE_SIZE } else { asked })
}

/// Where the next page begins: after `key`, for a list with exactly these filters.
pub fn token(list: &str, filters: &[&str], key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{key}", fingerprint(list, filters)))
}

/// The key in a token; None for the first page. A token of another list or of other filters is a violation.
pub fn key(list: &str, filters: &[&str], token: &str) -> Result<Option<String>, Violation> {
    if token.is_empty() {
        return Ok(None);
    }
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.split_once(':').map(|(print, key)| (print.to_owned(), key.to_owned())))
        // What no database stores is in no key that a page before gave.
        .filter(|(print, key)| *print == fingerprint(list, filters) && !key.contains('\0'))
        .map(|(_, key)| Some(key))
        .ok_or_else(invalid_token)
}

/// Of a token that was not made by the page before.
pub fn invalid_token() -> Violation {
    Violation::new("page_token", "PAGE_TOKEN_INVALID", "must come from the page before, with the same filters")
}

/// As [`key`] for lists ordered by an id.
pub fn after_id(list: &str, filters: &[&str], token: &str) -> Result<Option<uuid::Uuid>, Violation> {
    match key(list, filters, token)? {
        None => Ok(None),
        Some(key) => uuid::Uuid::try_parse(&key).map(Some).map_err(|_| invalid_token()),
    }
}

/// The time in a key, in microseconds since 1970; None for what is none, or none of the years that a database is asked for.
pub fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::from_timestamp_micros(text.parse().ok()?)?;
    (1..=9_999).contains(&time.year()).then_some(time)
}

/// Cuts a list that was read with one row too many, and gives the token for the next page.
pub fn cut<T>(rows: &mut Vec<T>, size: i64, token_of: impl Fn(&T) -> String) -> String {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if rows.len() <= size {
        return String::new();
    }
    rows.truncate(size);
    rows.last().map(token_of).unwrap_or_default()
}

fn fingerprint(list: &str, filters: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(&list).chain(filters) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..8])
}

/// An etag of a row's version.
pub fn etag(version: i64) -> String {
    format!("v{version}")
}

/// The version that an etag names; None for what is none.
pub fn etag_version(etag: &str) -> Option<i64> {
    etag.strip_prefix('v')?.parse().ok()
}

/// Whether an update may go on: no etag was given, or it is that of the present version.
pub fn etag_matches(given: &str, version: i64) -> bool {
    given.is_empty() || given == etag(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_list_and_filters_only() {
        let made = token("ListMembers", &["BASE"], "k1");
        assert_eq!(key("ListMembers", &["BASE"], &made), Ok(Some("k1".into())));
        assert_eq!(key("ListMembers", &["CORE"], &made).expect_err("filter").rule, "PAGE_TOKEN_INVALID");
        assert!(key("ListPlans", &["BASE"], &made).is_err());
        assert!(key("ListMembers", &["BASE"], "%%%").is_err());
        assert_eq!(key("ListMembers", &[], ""), Ok(None));
    }

    #[test]
    fn what_a_forger_writes_into_a_token_is_refused() {
        let forged = |key: &str| token("ListMembers", &[], key);
        assert_eq!(after_id("ListMembers", &[], &forged("x")).expect_err("no id").rule, "PAGE_TOKEN_INVALID");
        assert_eq!(key("ListMembers", &[], &forged("a\0")).expect_err("not stored").rule, "PAGE_TOKEN_INVALID");
        assert_eq!(time("0"), Some(DateTime::UNIX_EPOCH));
        for text in ["", "x", "-9000000000000000000", "9000000000000000000", "253402300800000000", "99999999999999999999"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn a_full_page_names_its_last_row_and_a_short_one_none() {
        let mut rows = vec![1, 2, 3];
        assert_eq!(cut(&mut rows, 2, |r| r.to_string()), "2");
        assert_eq!(rows, [1, 2]);
        assert_eq!(cut(&mut rows, 2, |r| r.to_string()), "");
    }
}
