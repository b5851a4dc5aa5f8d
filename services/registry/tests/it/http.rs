//! The registry by HTTP/JSON: canonical JSON both ways, and errors with all their details.

use crate::world::{World, full_profile, id, identity, named, pairs, row};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::{
    http::{detail, violations},
    token,
};
use serde_json::json;

#[tokio::test]
async fn a_member_is_written_and_read_in_canonical_json() {
    let world = World::new().await;
    let http = world.registry.http();
    let members = format!("/v1/programmes/{}/members", world.programme);
    // Larger than a double can hold exactly.
    let followers = "9007199254740993";
    let request = json!({
        "requestId": id(),
        "profile": {
            "displayName": "山间来信 🚙",
            "channels": [{"platform": "DOUYIN", "followers": followers}, {"platform": "WEIBO"}],
            "motivations": ["MOTIVATION_HELPING"],
            "consents": [{"purpose": "CONSENT_PURPOSE_CONTACT", "granted": true}],
        },
        "externalIdentities": [{"sourceSystem": "crm", "externalId": "a b&c"}],
    });
    let created = http.post(&members, &request).await.good();
    let member = &created["member"];
    let profile = json!({
        "displayName": "山间来信 🚙",
        "email": "",
        "phone": "",
        "regionCode": "",
        "city": "",
        "channels": [{"platform": "DOUYIN", "handle": "", "followers": followers}, {"platform": "WEIBO", "handle": ""}],
        "vehicles": [],
        "motivations": ["MOTIVATION_HELPING"],
        "tags": [],
        "consents": [{"purpose": "CONSENT_PURPOSE_CONTACT", "granted": true}],
    });
    assert_eq!((&member["profile"], &member["trustLevel"]), (&profile, &json!("TRUST_LEVEL_NEW")));
    assert!(member["createTime"].as_str().is_some_and(|time| time.ends_with('Z') && time.contains('T')), "{member}");
    assert_eq!(http.post(&members, &request).await.good(), created, "a retry is answered as the first");

    // By a mask, in JSON's spelling.
    let member_id = member["memberId"].as_str().expect("an id");
    let path = format!("{members}/{member_id}");
    let update = json!({"requestId": id(), "updateMask": "profile.regionCode,trustLevel", "etag": member["etag"],
        "profile": {"regionCode": "CN-GD", "city": "not named in the mask"}, "trustLevel": "TRUST_LEVEL_PROVEN"});
    let updated = http.patch(&path, &update).await.good();
    let changed = &updated["member"];
    let seen = (&changed["profile"]["regionCode"], &changed["profile"]["city"], &changed["trustLevel"]);
    assert_eq!(seen, (&json!("CN-GD"), &json!(""), &json!("TRUST_LEVEL_PROVEN")));
    let lookup = format!("{members}:lookup?externalIdentity.sourceSystem=crm&externalIdentity.externalId=a%20b%26c");
    for path in [path.clone(), lookup] {
        assert_eq!(http.get(&path).await.good()["member"], *changed, "{path}");
    }
    let by_grpc = world.get(member_id).await.expect("the same by gRPC");
    let seen = by_grpc.profile.expect("a profile").channels[0].followers;
    assert_eq!(seen.map(|n| n.to_string()).as_deref(), Some(followers));

    // Somebody else's version.
    let stale = http.patch(&path, &json!({"requestId": id(), "updateMask": "profile.city", "etag": "v1"})).await;
    stale.refused(409, "ABORTED", "ETAG_MISMATCH");
    let other = format!("{members}/{}", id());
    http.get(&other).await.refused(404, "NOT_FOUND", "MEMBER_NOT_FOUND");
}

#[tokio::test]
async fn pages_filters_and_lists_of_ids_go_into_the_query() {
    let world = World::new().await;
    let http = world.registry.http();
    let members = format!("/v1/programmes/{}/members", world.programme);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.member(full_profile()).await.member_id);
    }
    let told = |page: &serde_json::Value| -> Vec<String> {
        let members = page["members"].as_array().expect("members");
        members.iter().map(|member| member["memberId"].as_str().expect("an id").to_owned()).collect()
    };
    let first = http.get(&format!("{members}?pageSize=2&tierId=BASE")).await.good();
    let token = first["nextPageToken"].as_str().expect("text");
    let second = http.get(&format!("{members}?pageSize=2&tierId=BASE&pageToken={token}")).await.good();
    assert_eq!((told(&first), told(&second)), (ids[..2].to_vec(), ids[2..].to_vec()));
    assert_eq!(second["nextPageToken"], "");
    let error = http.get(&format!("{members}?pageSize=2&pageToken={token}")).await;
    let error = error.refused(400, "INVALID_ARGUMENT", "FIELD_VIOLATIONS");
    assert_eq!(violations(&error), pairs([("pageToken", "PAGE_TOKEN_INVALID")]), "{error}");

    let missing = id();
    let batch = http.get(&format!("{members}:batchGet?memberIds={}&memberIds={missing}", ids[1])).await.good();
    assert_eq!((told(&batch), &batch["missingMemberIds"]), (vec![ids[1].clone()], &json!([missing])));
}

#[tokio::test]
async fn a_batch_tells_of_each_row_with_the_fields_spelt_as_in_json() {
    let world = World::new().await;
    let path = format!("/v1/programmes/{}/members:batchUpsert", world.programme);
    let rows = json!([
        {"externalId": "1", "sourceTime": "2023-11-14T22:13:20.5+08:00", "profile": {"displayName": "one"}},
        {"externalId": "2", "sourceTime": "2023-11-14T22:13:20Z", "profile": {"email": "nobody", "regionCode": "nowhere"}},
    ]);
    let answer = world.registry.http().post(&path, &json!({"sourceSystem": "crm", "rows": rows})).await.good();
    let [first, second] = [&answer["results"][0], &answer["results"][1]];
    assert_eq!((&first["outcome"], &second["outcome"]), (&json!("SYNC_OUTCOME_CREATED"), &json!("SYNC_OUTCOME_REJECTED")));
    assert_eq!(second["status"]["code"], 3);
    let wrong = violations(&second["status"]);
    assert_eq!(wrong, pairs([("profile.email", "string.pattern"), ("profile.regionCode", "string.pattern")]), "{second}");
    let member = world.lookup("crm", "1").await.expect("it is there");
    assert_eq!(member.profile.expect("a profile").display_name, "one");
    // Its time was 14:13 in UTC, so that a row of 22:12 is newer.
    let newer = world.upsert(vec![row("1", -60, named("two"))]).await;
    assert_eq!(newer[0].outcome(), pb::SyncOutcome::Updated);
}

#[tokio::test]
async fn all_that_is_wrong_is_told_and_the_door_is_the_same() {
    let world = World::new().await;
    let members = format!("/v1/programmes/{}/members", world.programme);
    let bad = json!({"requestId": "x", "profile": {"phone": "secret", "tags": ["a", "a"], "channels": [{"platform": "secret"}]},
        "externalIdentities": [{"sourceSystem": "CRM", "externalId": ""}]});
    let error = world.registry.http().post(&members, &bad).await;
    let error = error.refused(400, "INVALID_ARGUMENT", "FIELD_VIOLATIONS");
    let expected = [
        ("requestId", "string.uuid"),
        ("profile.phone", "string.pattern"),
        ("profile.channels[0].platform", "string.pattern"),
        ("profile.tags", "repeated.unique"),
        ("externalIdentities[0].sourceSystem", "string.pattern"),
        ("externalIdentities[0].externalId", "string.min_len"),
    ];
    assert_eq!(violations(&error), pairs(expected));
    assert_eq!(detail(&error, "ErrorInfo")["domain"], "registry.koc");
    assert!(!error.to_string().contains("secret"), "{error}");

    let taken = world.create_request(full_profile());
    let taken = pb::CreateMemberRequest { external_identities: vec![identity("crm", "1")], ..taken };
    world.create(taken).await.expect("created");
    let again = json!({"requestId": id(), "profile": {}, "externalIdentities": [{"sourceSystem": "crm", "externalId": "1"}]});
    world.registry.http().post(&members, &again).await.refused(409, "ALREADY_EXISTS", "EXTERNAL_IDENTITY_TAKEN");

    let elsewhere = token::token("shop", &["registry.member.read"], &[id()]);
    let http = world.registry.http_with(Some(elsewhere));
    http.get(&members).await.refused(403, "PERMISSION_DENIED", "PROGRAMME_DENIED");
    http.post(&members, &again).await.refused(403, "PERMISSION_DENIED", "SCOPE_MISSING");
}
