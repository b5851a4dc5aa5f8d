//! What is held of a person, given out part by part.

use crate::world::{DAY, World, full_profile, id, in_city, refused};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::{erasure::erase, service::TestChannel, token};
use tonic::{Code, Status};

type Exports = pb::export_service_client::ExportServiceClient<TestChannel>;

fn exports(world: &World) -> Exports {
    Exports::new(world.registry.channel())
}

async fn request(world: &World, member_id: &str) -> Result<pb::MemberExport, Status> {
    let (programme_id, member_id) = (world.programme.clone(), member_id.to_owned());
    let request = pb::RequestMemberExportRequest { programme_id, request_id: id(), member_id };
    Ok(exports(world).request_member_export(request).await?.into_inner().export.unwrap_or_default())
}

async fn get(world: &World, export_id: &str) -> Result<pb::MemberExport, Status> {
    let request = pb::GetMemberExportRequest { programme_id: world.programme.clone(), export_id: export_id.to_owned() };
    Ok(exports(world).get_member_export(request).await?.into_inner().export.unwrap_or_default())
}

async fn part(world: &World, export_id: &str, holder: &str, part: i32) -> Result<String, Status> {
    let request = pb::GetMemberExportPartRequest {
        programme_id: world.programme.clone(),
        export_id: export_id.to_owned(),
        holder: holder.to_owned(),
        part,
    };
    Ok(exports(world).get_member_export_part(request).await?.into_inner().content)
}

async fn provide(world: &World, export_id: &str, holder: &str, part: i32, last: bool, content: &str) -> Result<bool, Status> {
    let request = pb::ProvideMemberExportRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        export_id: export_id.to_owned(),
        holder: holder.to_owned(),
        part,
        last,
        content: content.to_owned(),
    };
    Ok(exports(world).provide_member_export(request).await?.into_inner().complete)
}

#[tokio::test]
async fn an_export_holds_what_is_known_here_at_once_and_the_rest_when_it_comes() {
    let world = World::new().await;
    let member_id = world.member(full_profile()).await.member_id;
    world.update(world.update_request(&member_id, in_city("深圳"), &["profile.city"])).await.expect("updated");
    world.earn(&member_id, 100).await;

    let export = request(&world, &member_id).await.expect("begun");
    let it = export.export_id.as_str();
    let parts = |export: &pb::MemberExport| -> Vec<(String, i32)> {
        export.holders.iter().map(|holder| (holder.holder.clone(), holder.part_count)).collect()
    };
    let named = |parts: [(&str, i32); 4]| parts.map(|(holder, count)| (holder.to_owned(), count));
    assert_eq!(parts(&export), named([("budget", 0), ("measurement", 0), ("registry", 1), ("task", 0)]));
    let own: serde_json::Value = serde_json::from_str(&part(&world, it, "registry", 1).await.expect("there")).expect("JSON");
    assert_eq!(own["member"][0]["email"], full_profile().email);
    assert_eq!(own["member_change_value"][0]["content"], "广州");
    assert_eq!(own["points_entry"][0]["change"], 100);
    let told: Vec<pb::MemberExportRequested> = world.changes().await.iter().filter_map(crate::world::fact).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].export_id.as_str(), &told[0].member_ids), (it, &vec![member_id]));

    // Parts come in order; a document is shown when it is whole.
    assert!(!provide(&world, it, "budget", 1, false, "{\"gra").await.expect("kept"));
    refused(part(&world, it, "budget", 1).await, Code::NotFound, "EXPORT_PART_NOT_FOUND");
    refused(provide(&world, it, "budget", 3, true, "}").await, Code::FailedPrecondition, "EXPORT_PART_MISSING");
    assert!(provide(&world, it, "budget", 2, true, "nt\": []}").await.expect("kept"));
    let both = part(&world, it, "budget", 1).await.expect("there") + &part(&world, it, "budget", 2).await.expect("there");
    assert_eq!(both, "{\"grant\": []}");
    // Given again it may be shorter.
    assert!(provide(&world, it, "budget", 1, true, "{}").await.expect("kept"));
    refused(part(&world, it, "budget", 2).await, Code::NotFound, "EXPORT_PART_NOT_FOUND");
    for holder in ["task", "measurement"] {
        assert!(!get(&world, it).await.expect("found").complete);
        provide(&world, it, holder, 1, true, "{}").await.expect("kept");
    }
    assert!(get(&world, it).await.expect("found").complete);
    refused(provide(&world, it, "shop", 1, true, "{}").await, Code::NotFound, "HOLDER_UNKNOWN");
    refused(provide(&world, &id(), "task", 1, true, "{}").await, Code::NotFound, "EXPORT_NOT_FOUND");
    refused(request(&world, &id()).await, Code::NotFound, "MEMBER_NOT_FOUND");
}

#[tokio::test]
async fn an_export_lives_for_seven_days_and_not_longer_than_the_data() {
    let world = World::new().await;
    let (old, gone) = (world.member(full_profile()).await.member_id, world.member(in_city("广州")).await.member_id);
    let first = request(&world, &old).await.expect("begun").export_id;
    let second = request(&world, &gone).await.expect("begun").export_id;
    erase(world.registry.channel(), &world.programme, &gone).await.expect("erased");
    refused(get(&world, &second).await, Code::NotFound, "EXPORT_NOT_FOUND");
    refused(request(&world, &gone).await, Code::FailedPrecondition, "MEMBER_ERASED");
    assert_eq!(world.count("SELECT count(*) FROM member_export_part").await, 1);

    world.registry.advance(DAY * 7).await;
    refused(get(&world, &first).await, Code::NotFound, "EXPORT_NOT_FOUND");
    refused(part(&world, &first, "registry", 1).await, Code::NotFound, "EXPORT_NOT_FOUND");
    refused(provide(&world, &first, "task", 1, true, "{}").await, Code::NotFound, "EXPORT_NOT_FOUND");
    // Nobody sees it any more; the next look deletes it.
    let mut conn = world.registry.database.admin.acquire().await.expect("a connection");
    assert_eq!(koc_registry::store::export::delete_old(&mut conn).await.expect("deleted"), 1);
    assert_eq!(world.count("SELECT count(*) FROM member_export_part").await, 0);
}

#[tokio::test]
async fn nobody_reads_an_export_without_the_right_to_personal_data() {
    let world = World::new().await;
    let member_id = world.member(full_profile()).await.member_id;
    let export = request(&world, &member_id).await.expect("begun").export_id;
    let provider = token::token("budget", &["registry.export.provide", "registry.member.read"], &["*".to_owned()]);
    let mut client = Exports::new(world.registry.channel_with(Some(provider), None));
    let asked = pb::GetMemberExportPartRequest {
        programme_id: world.programme.clone(),
        export_id: export.clone(),
        holder: "registry".into(),
        part: 1,
    };
    refused(client.get_member_export_part(asked).await, Code::PermissionDenied, "SCOPE_MISSING");
    let stored = "SELECT count(*) FROM request_record WHERE encode(answer, 'escape') LIKE '%letters%'";
    assert_eq!(world.count(stored).await, 0);
}
