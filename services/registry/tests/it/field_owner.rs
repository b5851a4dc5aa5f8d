//! Fields that belong to a source system.

use crate::world::{World, id, identity, in_city, named, outcomes, pairs, refused, row, violations};
use koc_proto::koc::registry::v1 as pb;
use pb::SyncOutcome::{Created, Unchanged, Updated};
use tonic::{Code, Status};

fn request(world: &World, field: &str, source_system: &str) -> pb::SetFieldOwnerRequest {
    pb::SetFieldOwnerRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        field: field.into(),
        source_system: source_system.into(),
        reason: "主数据在这里".into(),
        etag: String::new(),
    }
}

async fn set(world: &World, request: pb::SetFieldOwnerRequest) -> Result<pb::FieldOwner, Status> {
    Ok(world.field_owners().set_field_owner(request).await?.into_inner().field_owner.expect("a field"))
}

async fn list(world: &World) -> Vec<pb::FieldOwner> {
    let request = pb::ListFieldOwnersRequest { programme_id: world.programme.clone() };
    world.field_owners().list_field_owners(request).await.expect("a list").into_inner().field_owners
}

#[tokio::test]
async fn a_field_is_set_listed_and_guarded_by_its_etag() {
    let world = World::new().await;
    let before = list(&world).await;
    assert_eq!(before.len(), 9);
    assert!(before.iter().all(|owner| owner.source_system.is_empty() && owner.update_time.is_none()));
    let email = before.iter().find(|owner| owner.field == "email").expect("a field").clone();

    let asked = pb::SetFieldOwnerRequest { etag: email.etag.clone(), ..request(&world, "email", "crm") };
    let owned = set(&world, asked.clone()).await.expect("set");
    assert_eq!((owned.source_system.as_str(), owned.actor.as_str()), ("crm", "tester"));
    assert_eq!(set(&world, asked.clone()).await.expect("as before"), owned);
    assert!(list(&world).await.contains(&owned));

    let late = pb::SetFieldOwnerRequest { request_id: id(), ..asked };
    assert_eq!(refused(set(&world, late).await, Code::Aborted, "ETAG_MISMATCH")["etag"], owned.etag);
    assert_eq!(violations(set(&world, request(&world, "consents", "crm")).await), pairs([("field", "FIELD_NOT_OWNABLE")]));
    assert_eq!(violations(set(&world, request(&world, "shoe_size", "crm")).await), pairs([("field", "FIELD_UNKNOWN")]));
    let elsewhere = pb::SetFieldOwnerRequest { programme_id: id(), ..request(&world, "email", "crm") };
    refused(set(&world, elsewhere).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
    let reasons: Vec<String> = sqlx::query_scalar("SELECT reason FROM audit_entry WHERE method LIKE '%SetFieldOwner%'")
        .fetch_all(&world.registry.database.admin)
        .await
        .expect("reasons");
    assert_eq!(reasons, ["主数据在这里"]);
}

#[tokio::test]
async fn rows_of_others_leave_an_owned_field_alone_and_say_so() {
    let world = World::new().await;
    world.send(world.batch("shop", vec![row("1", 9, in_city("深圳"))])).await;
    set(&world, request(&world, "city", "crm")).await.expect("set");

    // A newer value of another source, and an older one of the owner.
    let profile = pb::MemberProfile { city: "佛山".into(), ..named("来信") };
    let others = world.send(world.batch("shop", vec![row("1", 20, profile), row("2", 1, in_city("广州"))])).await;
    assert_eq!(outcomes(&others), [Updated, Created]);
    assert!(others.iter().all(|result| result.ignored_fields == ["city"]));
    assert_eq!(world.get(&others[1].member_id).await.expect("there").profile, Some(Default::default()));
    let again = world.send(world.batch("shop", vec![row("1", 30, in_city("上海"))])).await;
    assert_eq!((outcomes(&again), again[0].ignored_fields.as_slice()), (vec![Unchanged], ["city".to_owned()].as_slice()));

    let mut known = world.create_request(in_city("长沙"));
    known.external_identities = vec![identity("crm", "7")];
    let known = world.create(known).await.expect("created");
    let own = world.upsert(vec![row("7", 1, in_city("广州"))]).await;
    assert_eq!((outcomes(&own), own[0].ignored_fields.len()), (vec![Updated], 0));
    assert_eq!(world.get(&known.member_id).await.expect("there").profile, Some(in_city("广州")));

    // Given back to nobody, the most recent write stands again.
    set(&world, request(&world, "city", "")).await.expect("set");
    let free = world.send(world.batch("shop", vec![row("1", 31, in_city("上海"))])).await;
    assert_eq!((outcomes(&free), free[0].ignored_fields.len()), (vec![Updated], 0));
}

#[tokio::test]
async fn a_hand_edit_of_an_owned_field_is_refused_unless_it_belongs_to_callers() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    set(&world, request(&world, "city", "crm")).await.expect("set");
    let both = pb::MemberProfile { city: "深圳".into(), ..named("来信") };
    let edit = world.update_request(&member, both, &["profile.city", "profile.display_name"]);
    assert_eq!(violations(world.update(edit).await), pairs([("profile.city", "FIELD_OWNED")]));
    // To repeat what it holds is no change.
    let same = pb::MemberProfile { city: "广州".into(), ..named("来信") };
    let edit = world.update_request(&member, same.clone(), &["profile.city", "profile.display_name"]);
    assert_eq!(world.update(edit).await.expect("updated").profile, Some(same));

    set(&world, request(&world, "city", "api")).await.expect("set");
    let edit = world.update_request(&member, in_city("深圳"), &["profile.city"]);
    world.update(edit).await.expect("updated");
    let mut known = world.create_request(in_city("广州"));
    known.external_identities = vec![identity("crm", "1")];
    world.create(known).await.expect("created");
    let rows = world.upsert(vec![row("1", 99, in_city("北京"))]).await;
    assert_eq!(rows[0].ignored_fields, ["city"]);
    assert_eq!(world.lookup("crm", "1").await.expect("found").profile, Some(in_city("广州")));
}
