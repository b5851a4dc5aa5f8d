//! What callers see of a person without the scope for it.

use crate::world::{Members, World, id, identity, in_city, named, row, row_violations, violations};
use koc_chassis::token::all_scopes;
use koc_proto::{koc::registry::v1 as pb, rules::Rules};
use koc_tests::token;
use prost::Message;

/// In each personal field, so that it can be looked for.
const MARKER: &str = "PERSONALMARKER";
const PERSONAL: &str = "registry.pii";

fn marked() -> pb::MemberProfile {
    pb::MemberProfile {
        display_name: format!("张{MARKER}"),
        email: format!("a{MARKER}@{MARKER}.example.com"),
        phone: "+8613900000012".into(),
        region_code: "CN-GD".into(),
        channels: vec![pb::Channel { platform: "DOUYIN".into(), handle: format!("h{MARKER}"), followers: Some(1) }],
        vehicles: vec![pb::Vehicle { model: "E5".into(), vin: format!("V{}", &MARKER[..14]) }],
        tags: vec![format!("t{MARKER}")],
        ..in_city(&format!("广{MARKER}"))
    }
}

fn without_it(world: &World) -> (String, Members) {
    let scopes: Vec<&str> = all_scopes().into_iter().filter(|scope| *scope != PERSONAL).collect();
    let token = token::token("shop", &scopes, std::slice::from_ref(&world.programme));
    (token.clone(), Members::new(world.registry.channel_with(Some(token), None)))
}

#[tokio::test]
async fn without_the_scope_every_answer_says_that_something_is_there_and_not_what() {
    let world = World::new().await;
    let (programme_id, mut request) = (world.programme.clone(), world.create_request(marked()));
    request.external_identities = vec![identity("crm", &format!("7{MARKER}"))];
    let (token, mut members) = without_it(&world);
    let created = members.create_member(request.clone()).await.expect("created").into_inner().member.unwrap_or_default();
    let whole = world.get(&created.member_id).await.expect("there");
    assert_eq!(whole.profile, Some(marked()), "with the scope it is whole");

    let masked = created.clone();
    let expected = pb::MemberProfile {
        display_name: "张*".into(),
        email: "a***@P***.com".into(),
        phone: "+86*********12".into(),
        channels: vec![pb::Channel { platform: "DOUYIN".into(), handle: "h*".into(), followers: Some(1) }],
        vehicles: vec![pb::Vehicle { model: "E5".into(), vin: "V*".into() }],
        tags: vec!["t*".into()],
        city: "广*".into(),
        ..marked()
    };
    assert_eq!((masked.profile.as_ref(), masked.external_identities[0].external_id.as_str()), (Some(&expected), "7*"));

    let member_id = created.member_id.clone();
    let mut answers: Vec<(&str, Vec<pb::Member>)> = Vec::new();
    let replayed = members.create_member(request).await.expect("again").into_inner().member;
    answers.push(("a retry", replayed.into_iter().collect()));
    let get = pb::GetMemberRequest { programme_id: programme_id.clone(), member_id: member_id.clone() };
    answers.push(("get", members.get_member(get).await.expect("there").into_inner().member.into_iter().collect()));
    let ids = vec![member_id.clone()];
    let batch = pb::BatchGetMembersRequest { programme_id: programme_id.clone(), member_ids: ids };
    answers.push(("batch", members.batch_get_members(batch).await.expect("there").into_inner().members));
    let external_identity = Some(identity("crm", &format!("7{MARKER}")));
    let lookup = pb::LookupMemberRequest { programme_id: programme_id.clone(), external_identity };
    answers.push(("lookup", members.lookup_member(lookup).await.expect("there").into_inner().member.into_iter().collect()));
    let list = pb::ListMembersRequest { programme_id: programme_id.clone(), ..Default::default() };
    answers.push(("list", members.list_members(list).await.expect("a page").into_inner().members));
    for (what, found) in answers {
        assert_eq!(found, std::slice::from_ref(&masked), "{what}");
    }
    let update = world.update_request(&member_id, in_city("深圳"), &["profile.city"]);
    let updated = members.update_member(update).await.expect("updated").into_inner().member.unwrap_or_default();
    assert_eq!(updated.profile.map(|profile| profile.city).as_deref(), Some("深*"));
    assert_eq!(
        world.get(&member_id).await.expect("there").profile.map(|profile| profile.display_name),
        marked().display_name.into()
    );
    let history =
        pb::ListMemberHistoryRequest { programme_id: programme_id.clone(), member_id: member_id.clone(), ..Default::default() };
    let history = members.list_member_history(history).await.expect("a page").into_inner();
    assert!(!String::from_utf8_lossy(&history.encode_to_vec()).contains(MARKER));
    assert!(history.changes[0].fields.iter().any(|field| field.masked), "{history:?}");

    let path = format!("/v1/programmes/{programme_id}/members/{member_id}");
    let body = world.registry.http_with(Some(token)).get(&path).await.good();
    assert_eq!(body["member"]["profile"]["displayName"], "张*");
    assert!(!body.to_string().contains(MARKER));
}

#[tokio::test]
async fn no_mask_is_written_over_what_it_hides() {
    let world = World::new().await;
    let mut request = world.create_request(marked());
    request.external_identities = vec![identity("crm", "700")];
    let (_, mut members) = without_it(&world);
    let read = members.create_member(request.clone()).await.expect("created").into_inner().member.unwrap_or_default();
    let masked = read.profile.clone().unwrap_or_default();
    // Whoever changes one thing of what was read and writes back that one is let in, and the other masks are not looked at.
    let moved = pb::MemberProfile { city: "深圳".into(), ..masked.clone() };
    let moved = pb::MemberProfile { phone: String::new(), ..moved };
    members.update_member(world.update_request(&read.member_id, moved.clone(), &["profile.city"])).await.expect("updated");
    let paths = ["display_name", "email", "city", "channels", "vehicles", "tags"].map(|field| format!("profile.{field}"));
    let all: Vec<&str> = paths.iter().map(String::as_str).collect();
    let expected =
        |fields: &[&str]| fields.iter().map(|field| ((*field).to_owned(), "MASKED_VALUE".to_owned())).collect::<Vec<_>>();
    let update = world.update_request(&read.member_id, moved.clone(), &all);
    let texts =
        ["profile.display_name", "profile.email", "profile.channels[0].handle", "profile.vehicles[0].vin", "profile.tags[0]"];
    assert_eq!(violations(members.update_member(update).await), expected(&texts));

    let again = pb::CreateMemberRequest {
        request_id: id(),
        profile: Some(moved),
        external_identities: read.external_identities,
        ..request
    };
    let texts = [&["external_identities[0].external_id"], &texts[..]].concat();
    assert_eq!(violations(members.create_member(again).await), expected(&texts));
    // A row is refused alone. The mask of a number is none, too.
    let results = world.upsert(vec![row("700", 2, masked), row("700", 1, named("张大"))]).await;
    let rules = row_violations(&results[0]);
    assert_eq!(rules.iter().filter(|(_, rule)| rule == "MASKED_VALUE").count(), 7, "{rules:?}");
    assert_eq!(results[1].outcome(), pb::SyncOutcome::Stale);
    let now = world.get(&read.member_id).await.expect("there").profile.unwrap_or_default();
    assert_eq!(now, pb::MemberProfile { city: "深圳".into(), ..marked() });
}

/// A filter on what a mask hides would tell it.
#[test]
fn no_filter_and_no_order_reads_a_personal_field() {
    use koc_registry::domain::{filter::Fields, member_list::Field};
    let names: Vec<&str> = Field::NAMES.split([',', ' ']).filter(|name| name.contains("profile.")).collect();
    assert_eq!(names, ["profile.region_code", "profile.motivations", "profile.channels.platform"]);
    let filled = pb::MemberProfile {
        region_code: "CN-GD".into(),
        motivations: vec![1],
        channels: vec![pb::Channel { platform: "DOUYIN".into(), ..Default::default() }],
        ..Default::default()
    };
    let mut masked = filled.clone();
    masked.mask_personal();
    assert_eq!(masked, filled);
}
