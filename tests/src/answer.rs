//! Reading what services answer: reasons, violations, facts.

use koc_proto::{koc::feed::v1::Change, rules::Rules};
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

/// A new id.
#[must_use]
pub fn id() -> String {
    Uuid::now_v7().to_string()
}

/// Checks code and reason of a failure, and gives the figures with it.
///
/// # Panics
/// When it succeeded, or failed in another way.
#[track_caller]
pub fn refused<T>(answer: Result<T, Status>, code: Code, reason: &str) -> HashMap<String, String> {
    let Err(status) = answer else { panic!("{reason} was expected, and it succeeded") };
    let details = status.get_error_details();
    let info = details.error_info().cloned().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{}", status.message());
    assert!(info.domain.ends_with(".koc"), "{info:?}");
    info.metadata
}

/// The violations of an answer as (field, rule).
///
/// # Panics
/// When it succeeded, or failed in another way.
#[track_caller]
pub fn violations<T>(answer: Result<T, Status>) -> Vec<(String, String)> {
    let Err(status) = answer else { panic!("violations were expected, and it succeeded") };
    let details = status.get_error_details();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    let request = details.bad_request().cloned().expect("it has violations");
    request.field_violations.into_iter().map(|v| (v.field, rule(&v.description))).collect()
}

/// The rule that stands at the end of a violation's description, in brackets.
#[must_use]
pub fn rule(description: &str) -> String {
    description.rsplit_once('(').map(|(_, rule)| rule.trim_end_matches(')').to_owned()).unwrap_or_default()
}

/// A change's fact, when it is of this type.
///
/// # Panics
/// When it cannot be read.
pub fn fact<F: Rules + prost::Message + Default>(change: &Change) -> Option<F> {
    let any = change.fact.as_ref()?;
    (any.type_url == format!("type.googleapis.com/{}", F::NAME)).then(|| F::decode(any.value.as_slice()).expect("a fact"))
}
