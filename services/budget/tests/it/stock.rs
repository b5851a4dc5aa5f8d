//! Stock of kits: never below zero, whoever asks at the same time.

use crate::{catalogue::*, granting::*, world::*};
use futures::future::join_all;
use koc_proto::koc::{
    budget::v1::{self as pb, ResourceClass::Inclusive, cost_model::Model},
    registry::v1::TrustLevel,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_take_the_last_kits_and_not_one_more() {
    const CLIENTS: usize = 64;
    const KITS: i64 = 20;
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, KITS).await.expect("received");
    let member = member(&world, TrustLevel::Proven).await;
    let envelope = world.envelope_of(90_000_000).await;
    let used = pb::ResourceUsage { region_code: "CN-GD".into(), ..usage() };
    let client = async |_: usize| {
        let request =
            pb::IssueGrantRequest { envelope_id: envelope.clone(), ..issue_request(&world, &member, &kit, used.clone()) };
        match issue(&world, request).await {
            Ok(grant) => Some(grant.grant_id),
            Err(status) => {
                let figures = refused::<()>(Err(status), Code::FailedPrecondition, "STOCK_EXHAUSTED");
                assert_eq!((figures["asked"].as_str(), figures["available"].as_str()), ("1", "0"));
                None
            }
        }
    };
    let issued: Vec<String> = join_all((0..CLIENTS).map(client)).await.into_iter().flatten().collect();
    assert_eq!(issued.len(), 20);
    let found = stock(&world, &kit.resource_id).await.expect("a page");
    let after: Vec<i64> = found.movements.iter().map(|movement| movement.on_hand_after).collect();
    assert_eq!((found.on_hand, found.movements.iter().map(|movement| movement.quantity).sum::<i64>()), (0, 0));
    let mut sorted = after.clone();
    sorted.sort_unstable();
    assert_eq!((after.len(), sorted), (21, (0..=20).collect::<Vec<i64>>()));
    // A cancelled one goes back on the shelf, and somebody else may have it.
    cancel(&world, &issued[0]).await.expect("cancelled");
    assert_eq!(stock(&world, &kit.resource_id).await.expect("a page").on_hand, 1);
    assert!(client(0).await.is_some() && client(0).await.is_none());
    world.verified().await;
}

#[tokio::test]
async fn stock_is_of_kits_in_use_and_bounded() {
    let world = World::new().await;
    let pack = resource(&world, Inclusive, "pack", Model::DigitalAsset(wallpapers())).await;
    let figures = refused(receive(&world, &pack.resource_id, 1).await, Code::FailedPrecondition, "RESOURCE_KIND");
    assert_eq!(figures["kind"], "DIGITAL_ASSET");
    refused(receive(&world, &id(), 1).await, Code::NotFound, "RESOURCE_NOT_FOUND");
    refused(stock(&world, &id()).await, Code::NotFound, "RESOURCE_NOT_FOUND");
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    assert_eq!(violations(receive(&world, &kit.resource_id, 0).await), [("quantity".to_owned(), "int.gte".to_owned())]);
    let movement = receive(&world, &kit.resource_id, 7).await.expect("received");
    let told = (movement.quantity, movement.on_hand_after, movement.reference.as_str(), movement.actor.as_str());
    assert_eq!((told, movement.grant_id.as_str()), ((7, 7, "delivery-1", "store"), ""));
    sqlx::query("UPDATE stock SET on_hand = 999999999999 WHERE resource_id = $1::uuid")
        .bind(&kit.resource_id)
        .execute(&world.budget.database.admin)
        .await
        .expect("set");
    refused(receive(&world, &kit.resource_id, 2).await, Code::FailedPrecondition, "STOCK_TOO_LARGE");
    let request = pb::RetireResourceRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        resource_id: kit.resource_id.clone(),
        etag: String::new(),
        date: "2026-06-01".into(),
        proceeds: None,
        reason: "out of print".into(),
    };
    resources(&world, "planner").retire_resource(request).await.expect("retired");
    refused(receive(&world, &kit.resource_id, 1).await, Code::FailedPrecondition, "RESOURCE_RETIRED");
}
