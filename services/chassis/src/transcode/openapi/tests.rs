//! The documents of the four services, as they are served.

use super::*;
use std::collections::BTreeSet;

const IDENTITY: Identity = Identity { name: "registry", package: "koc.registry.v1", domain: "registry.koc", port: 0 };

fn of(package: &'static str) -> Json {
    let routes = Routes::of(&DESCRIPTORS, package).expect("rules that can be served");
    document(&Identity { package, ..IDENTITY }, &routes)
}

/// Every reference in a document, with what it refers to.
fn references<'a>(within: &'a Json, document: &'a Json, found: &mut Vec<(&'a str, Option<&'a Json>)>) {
    match within {
        Json::Object(object) => {
            if let Some(Json::String(reference)) = object.get("$ref") {
                found.push((reference, reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer))));
            }
            object.values().for_each(|value| references(value, document, found));
        }
        Json::Array(items) => items.iter().for_each(|item| references(item, document, found)),
        _ => {}
    }
}

#[test]
fn every_operation_is_there_once_and_every_reference_leads_somewhere() {
    for package in ["koc.registry.v1", "koc.budget.v1", "koc.task.v1", "koc.measurement.v1"] {
        let document = of(package);
        let paths = document["paths"].as_object().expect("paths");
        let operations: Vec<&Json> = paths.values().flat_map(|item| item.as_object().expect("an item").values()).collect();
        let ids: BTreeSet<&str> = operations.iter().filter_map(|operation| operation["operationId"].as_str()).collect();
        let routes = Routes::of(&DESCRIPTORS, package).expect("rules that can be served");
        assert_eq!((ids.len(), operations.len()), (routes.iter().count(), routes.iter().count()), "{package}");
        for operation in &operations {
            let text = |name: &str| operation[name].as_str().unwrap_or_default().to_owned();
            assert!(!text("summary").is_empty() && text("description").contains("Needs the scope `"), "{operation}");
            assert!(operation["security"][0]["bearer"][0].as_str().is_some_and(|scope| !scope.is_empty()), "{operation}");
        }
        let mut found = Vec::new();
        references(&document, &document, &mut found);
        let lost: Vec<_> = found.iter().filter(|(_, target)| target.is_none()).collect();
        assert!(found.len() > 50 && lost.is_empty(), "{package}: {lost:?}");
    }
}

#[test]
fn rules_become_bounds_of_requests_and_answers_are_promised_whole() {
    let document = of("koc.registry.v1");
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    let request = schema("UpdateMemberRequest");
    assert_eq!(request["required"], json!(["requestId", "updateMask"]), "what is in the path is not in the body");
    assert_eq!(request["additionalProperties"], json!(false));
    assert_eq!(request["properties"]["requestId"]["format"], "uuid");
    assert_eq!(request["properties"]["etag"]["maxLength"], 100);
    assert_eq!(request["properties"]["memberId"], Json::Null);
    assert_eq!(request["properties"]["profile"]["$ref"], "#/components/schemas/MemberProfileInput");

    let profile = schema("MemberProfileInput");
    assert_eq!(profile["properties"]["email"]["anyOf"][0], json!({"const": ""}), "an empty one is skipped");
    assert_eq!(profile["properties"]["email"]["anyOf"][1]["maxLength"], 254);
    assert_eq!(profile["properties"]["motivations"]["maxItems"], 5);
    assert_eq!(profile["properties"]["motivations"]["uniqueItems"], true);
    let motivations = schema("MotivationInput");
    assert!(!motivations["enum"].as_array().expect("names").contains(&json!("MOTIVATION_UNSPECIFIED")), "{motivations}");
    let channel = schema("ChannelInput");
    assert_eq!(channel["properties"]["followers"]["type"], json!(["string", "integer"]));
    assert_eq!(channel["required"], json!(["platform"]));

    let answer = schema("MemberProfile");
    assert!(answer["required"].as_array().expect("names").contains(&json!("displayName")), "{answer}");
    assert_eq!(
        answer["properties"]["email"],
        json!({"type": "string", "description": profile["properties"]["email"]["description"]})
    );
    assert_eq!(schema("Channel")["properties"]["followers"]["type"], "string");
}

#[test]
fn parameters_say_where_they_stand_and_which_are_needed() {
    let document = of("koc.registry.v1");
    let lookup = &document["paths"]["/v1/programmes/{programmeId}/members:lookup"]["get"];
    let told = |name: &str| {
        let parameters = lookup["parameters"].as_array().expect("parameters");
        let one = parameters.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("{name} in {lookup}"));
        (one["in"].as_str().expect("a place").to_owned(), one["required"].as_bool().expect("said"))
    };
    assert_eq!(told("programmeId"), ("path".to_owned(), true));
    assert_eq!(told("externalIdentity.externalId"), ("query".to_owned(), true));
    assert_eq!(lookup["requestBody"], Json::Null);
    assert_eq!(lookup["responses"]["default"]["$ref"], "#/components/responses/Error");
    let list = &document["paths"]["/v1/programmes/{programmeId}/members"]["get"];
    let size = list["parameters"].as_array().expect("parameters").iter().find(|p| p["name"] == "pageSize").expect("it is told");
    assert_eq!((&size["required"], &size["schema"]["maximum"]), (&json!(false), &json!(1000)));
    assert!(size["description"].as_str().expect("text").contains("0 means 50"), "the proto's own words: {size}");
}

#[test]
fn streams_are_named_as_served_by_grpc_alone() {
    let text = of("koc.registry.v1")["info"]["description"].as_str().expect("text").to_owned();
    assert!(text.contains("`koc.registry.v1.FeedService.WatchChanges`"), "{text}");
}
