//! The messages of the registry and the budget as JSON, read with the contracts alone.

use super::*;
use crate::transcode::route::{Found, Routes};
use http::Method;
use koc_proto::{DESCRIPTORS, koc::budget::v1 as budget, koc::registry::v1 as registry};
use proptest::prelude::*;
use prost::Message;
use serde_json::json;

fn ask(package: &str, verb: Method, path: &str, query: &str, body: &str) -> Result<DynamicMessage, Fault> {
    let routes = Routes::of(&DESCRIPTORS, package).expect("rules that can be served");
    let Found::Route(route, values) = routes.find(&verb, path) else { panic!("{path} is not found") };
    read(&route, &values, query, body.as_bytes())
}

fn as_type<M: Message + Default>(message: DynamicMessage) -> M {
    message.transcode_to().expect("the same shape")
}

fn violations(asked: Result<DynamicMessage, Fault>) -> Vec<(String, String)> {
    let fault = asked.expect_err("it is refused");
    assert_eq!(fault.reason, "FIELD_VIOLATIONS", "{}", fault.message);
    fault.violations.into_iter().map(|v| (v.field, v.rule)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(field, rule)| ((*field).to_owned(), (*rule).to_owned())).collect()
}

fn update(body: &Json) -> Result<DynamicMessage, Fault> {
    ask("koc.registry.v1", Method::PATCH, "/v1/programmes/p/members/m", "", &body.to_string())
}

#[test]
fn a_mask_numbers_enums_and_lists_come_from_their_canonical_text() {
    let read = update(&json!({
        "requestId": "r",
        "updateMask": "trustLevel,profile.displayName,profile.regionCode",
        "trust_level": "TRUST_LEVEL_PROVEN",
        "profile": {
            "displayName": "林",
            "channels": [{"platform": "DOUYIN", "followers": "9007199254740993"}, {"platform": "WEIBO", "followers": 12}],
            "tags": ["a", "b"],
            "city": null,
        },
    }));
    let read: registry::UpdateMemberRequest = as_type(read.expect("it is read"));
    assert_eq!((read.programme_id.as_str(), read.member_id.as_str(), read.request_id.as_str()), ("p", "m", "r"));
    assert_eq!(read.update_mask.clone().expect("a mask").paths, ["trust_level", "profile.display_name", "profile.region_code"]);
    assert_eq!(read.trust_level(), registry::TrustLevel::Proven);
    let profile = read.profile.expect("a profile");
    assert_eq!((profile.display_name.as_str(), profile.city.as_str()), ("林", ""));
    assert_eq!(profile.tags, ["a", "b"]);
    let followers: Vec<_> = profile.channels.iter().map(|c| c.followers).collect();
    assert_eq!(followers, [Some(9_007_199_254_740_993), Some(12)]);
}

#[test]
fn a_duration_and_money_come_from_their_canonical_text() {
    let body = json!({"timeToLive": "3.5s", "amount": {"currencyCode": "CNY", "units": "7", "nanos": 500_000_000}});
    let read = ask("koc.budget.v1", Method::POST, "/v1/programmes/p/reservations", "", &body.to_string());
    let read: budget::ReserveRequest = as_type(read.expect("it is read"));
    let life = read.time_to_live.expect("a duration");
    assert_eq!((life.seconds, life.nanos), (3, 500_000_000));
    let amount = read.amount.expect("an amount");
    assert_eq!((amount.currency_code.as_str(), amount.units, amount.nanos), ("CNY", 7, 500_000_000));
}

#[test]
fn all_that_is_wrong_is_told_at_once_by_field_and_without_the_values() {
    let asked = update(&json!({
        "nope": 1,
        "memberId": "other",
        "trustLevel": "secret",
        "updateMask": "profile.display_name",
        "profile": {
            "displayName": 7654,
            "secret_field": true,
            "channels": [{"followers": "secret"}, {"followers": 1.5}, "secret", {"followers": 9_223_372_036_854_775_808_u64}],
            "vehicles": {"model": "secret"},
            "tags": [null],
        },
        "etag": ["secret"],
    }));
    let fault = asked.clone().expect_err("refused");
    assert_eq!(
        violations(asked),
        pairs(&[
            ("etag", "json.type"),
            ("nope", "json.unknown"),
            ("profile.channels[0].followers", "json.type"),
            ("profile.channels[1].followers", "json.type"),
            ("profile.channels[2]", "json.type"),
            ("profile.channels[3].followers", "json.type"),
            ("profile.displayName", "json.type"),
            ("profile.secret_field", "json.unknown"),
            ("profile.tags[0]", "json.type"),
            ("profile.vehicles", "json.type"),
            ("trustLevel", "json.type"),
            ("updateMask", "json.type"),
            ("memberId", "path.same"),
        ])
    );
    let told = format!("{fault:?}").replace("secret_field", "");
    for value in ["secret", "7654", "other"] {
        assert!(!told.contains(value), "{told}");
    }
    update(&json!({"memberId": "m", "programme_id": "p"})).expect("the same as in the path");
}

#[test]
fn a_body_that_is_no_object_is_malformed_and_not_repeated() {
    for (body, told) in [
        ("", "line 1, column 0"),
        ("{\"geheim\": ", "line 1, column 11"),
        ("{\"a\": \"\\ud800\"}", "line 1"),
        ("[]", "got a list"),
        ("null", "got null"),
        (&"[".repeat(100_000), "line 1"),
    ] {
        let fault = ask("koc.registry.v1", Method::PATCH, "/v1/programmes/p/members/m", "", body).expect_err("refused");
        assert_eq!(fault.reason, "MALFORMED_JSON");
        assert!(fault.message.contains(told) && !fault.message.contains("geheim"), "{}", fault.message);
    }
}

#[test]
fn a_query_gives_scalars_lists_and_nested_fields() {
    let list = |query: &str| ask("koc.registry.v1", Method::GET, "/v1/programmes/p/members", query, "");
    let read: registry::ListMembersRequest = as_type(list("pageSize=3&tier_id=A%26B+C").expect("it is read"));
    assert_eq!((read.programme_id.as_str(), read.page_size, read.tier_id.as_str()), ("p", 3, "A&B C"));
    let found = violations(list("pageSize=three&pageToken=a&page_token=b&nope=1&programmeId=q&tierId.x=1"));
    let expected = [
        ("pageSize", "json.type"),
        ("pageToken", "query.once"),
        ("nope", "query.unknown"),
        ("tierId.x", "query.unknown"),
        ("programmeId", "path.same"),
    ];
    assert_eq!(found, pairs(&expected));

    let batch = ask("koc.registry.v1", Method::GET, "/v1/programmes/p/members:batchGet", "memberIds=a&member_ids=b", "");
    assert_eq!(as_type::<registry::BatchGetMembersRequest>(batch.expect("it is read")).member_ids, ["a", "b"]);

    let lookup = |query: &str| ask("koc.registry.v1", Method::GET, "/v1/programmes/p/members:lookup", query, "");
    let asked = lookup("externalIdentity.sourceSystem=hubspot&external_identity.external_id=%E5%93%81");
    let identity = as_type::<registry::LookupMemberRequest>(asked.expect("it is read")).external_identity.expect("an identity");
    assert_eq!((identity.source_system.as_str(), identity.external_id.as_str()), ("hubspot", "品"));
    assert_eq!(violations(lookup("externalIdentity=x")), pairs(&[("externalIdentity", "query.message")]));
}

#[test]
fn a_method_with_a_body_takes_no_query_and_one_without_takes_no_body() {
    let path = "/v1/programmes/p/members/m";
    let asked = ask("koc.registry.v1", Method::PATCH, path, "etag=1", "{}");
    assert_eq!(violations(asked), pairs(&[("etag", "query.unknown")]));
    let fault = ask("koc.registry.v1", Method::GET, path, "", "{}").expect_err("refused");
    assert_eq!(fault.reason, "BODY_NOT_EXPECTED");
}

#[test]
fn a_million_mistakes_are_told_as_a_hundred() {
    let tags = vec![Json::Null; 1_000_000];
    assert_eq!(violations(update(&json!({"profile": {"tags": tags}}))).len(), 100);
    assert_eq!(violations(ask("koc.registry.v1", Method::GET, "/v1/programmes/p/members", &"a&".repeat(100_000), "")).len(), 100);
}

proptest! {
    #[test]
    fn what_the_library_writes_is_read_back_the_same(
        name in "\\PC*", tags in prop::collection::vec("\\PC*", 0..4), followers in prop::option::of(any::<i64>()),
        trust in 0..5_i32, paths in prop::collection::vec("[a-z]{1,5}(_[a-z]{1,5}){0,2}(\\.[a-z]{1,5})?", 0..4),
    ) {
        let channels = vec![registry::Channel { platform: name.clone(), handle: String::new(), followers }];
        let request = registry::UpdateMemberRequest {
            programme_id: "p".into(),
            member_id: "m".into(),
            profile: Some(registry::MemberProfile { display_name: name, tags, channels, ..Default::default() }),
            trust_level: trust,
            update_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        let descriptor = DESCRIPTORS.get_message_by_name("koc.registry.v1.UpdateMemberRequest").expect("it is declared");
        let dynamic = DynamicMessage::decode(descriptor, request.encode_to_vec().as_slice()).expect("the same shape");
        let written = serde_json::to_value(&dynamic).expect("it is written");
        let read = update(&written).expect("it is read");
        prop_assert_eq!(as_type::<registry::UpdateMemberRequest>(read), request);
    }

    #[test]
    fn no_text_makes_it_panic(body in "\\PC{0,40}", query in "\\PC{0,40}") {
        let _ = ask("koc.registry.v1", Method::PATCH, "/v1/programmes/p/members/m", &query, &body);
        let _ = ask("koc.registry.v1", Method::GET, "/v1/programmes/p/members:lookup", &query, "");
    }
}
