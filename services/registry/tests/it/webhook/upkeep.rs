//! What becomes of endpoints over time: places that are not kept any more, old keys, removal.

use super::{
    Kind, OLDEST_KEY, create, keys_of, receiver::Receiver, replay, request, resume, secrets, serve_with, wait_until_disabled,
    webhooks, world,
};
use crate::world::{PATIENCE, World, id, named, refused};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::wait;
use tonic::Code;

#[tokio::test]
async fn what_is_refused_again_and_again_holds_up_nothing_else() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let webhook = create(&world, request(&world, &receiver.url())).await.expect("created");
    // More than may wait to be sent for the first time, all of it refused before and to be sent tomorrow.
    let sql = "INSERT INTO webhook_delivery (webhook_id, position, fact_id, member_id, kind, changed_fields, event_time, state, attempt_count,
                                             next_attempt_time, attempts, create_time)
               SELECT $1::uuid, -n, gen_random_uuid(), gen_random_uuid(), 'MERGED', '{}', now(), 'PENDING', 3, now() + interval '1 day', '[]', now()
               FROM generate_series(1, 1500) AS n";
    sqlx::query(sql).bind(&webhook.webhook_id).execute(&world.registry.database.admin).await.expect("waiting");
    let member = world.member(named("甲")).await.member_id;
    assert_eq!(receiver.wait_for(1).await[0].member(), member);
}

#[tokio::test]
async fn an_endpoint_whose_place_is_not_kept_any_more_goes_on_from_the_oldest_that_is() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let begin = pb::ListMemberChangesRequest { programme_id: world.programme.clone(), ..Default::default() };
    let old = world.follow().list_member_changes(begin.clone()).await.expect("a page").into_inner().position;
    let webhook = create(&world, request(&world, &receiver.url())).await.expect("created");
    let pause = pb::PauseWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: webhook.webhook_id.clone(),
    };
    webhooks(&world).pause_webhook(pause).await.expect("paused");
    let lost = world.member(named("甲")).await.member_id;
    let kept = world.member(named("乙")).await.member_id;
    let told = world.changes().await;
    let last_lost = told.iter().rfind(|change| change.subject_id == lost).expect("told").position;
    // As when it is older than the feed is kept.
    for sql in ["DELETE FROM fact WHERE position <= $1", "UPDATE feed_head SET dropped_position = $1"] {
        sqlx::query(sql).bind(last_lost).execute(&world.registry.database.admin).await.expect("dropped");
    }
    resume(&world, &webhook).await;
    wait_until_disabled(&world, &webhook, "POSITION_DROPPED").await;

    let again = pb::ResumeWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: webhook.webhook_id.clone(),
    };
    let figures = refused(webhooks(&world).resume_webhook(again).await, Code::FailedPrecondition, "POSITION_DROPPED");
    assert_eq!(figures["webhook_id"], webhook.webhook_id);
    let too_old = webhooks(&world).replay_webhook(replay(&world, &webhook, &old)).await;
    refused(too_old, Code::FailedPrecondition, "POSITION_DROPPED");
    let too_old = pb::CreateWebhookRequest { position: old.clone(), ..request(&world, &receiver.url()) };
    refused(create(&world, too_old).await, Code::FailedPrecondition, "POSITION_DROPPED");
    let replayed = webhooks(&world).replay_webhook(replay(&world, &webhook, "")).await.expect("it begins").into_inner();
    let replayed = replayed.webhook.unwrap_or_default();
    assert_eq!((replayed.state(), replayed.state_reason.as_str(), replayed.sequence), (pb::WebhookState::Active, "", last_lost));
    assert_eq!(receiver.wait_for(1).await[0].member(), kept);

    // Who reads events from the oldest that is kept begins there, too.
    let page = world.follow().list_member_changes(begin).await.expect("a page").into_inner();
    assert_eq!(page.events.iter().map(|event| event.member_id.as_str()).collect::<Vec<_>>(), [kept.as_str()]);
}

#[tokio::test]
async fn secrets_are_sealed_with_the_newest_key_and_the_older_one_is_not_needed_any_more() {
    let world = world().await;
    let webhook = create(&world, request(&world, "http://127.0.0.1:1/")).await.expect("created");
    let (programme, before) = (world.programme.clone(), secrets(&world, &webhook).await);
    let sealed = async |world: &World| -> Vec<u8> {
        let sql = "SELECT secret FROM webhook";
        sqlx::query_scalar(sql).fetch_one(&world.registry.database.admin).await.expect("a secret")
    };
    let old = sealed(&world).await;
    let newest = "B".repeat(42) + "A=";
    let restarted = async |world: World, keys: &[&str]| {
        let database = world.registry.stop().await;
        World::of(serve_with(database, true, keys_of(keys)).await, programme.clone())
    };
    let world = restarted(world, &[&newest, OLDEST_KEY]).await;
    wait::until("the secret to be sealed anew", PATIENCE, async || (sealed(&world).await != old).then_some(())).await;
    let world = restarted(world, &[&newest]).await;
    assert_eq!(secrets(&world, &webhook).await, before);
}

#[tokio::test]
async fn a_removed_endpoint_is_gone_and_a_programme_has_twenty_at_most() {
    let world = world().await;
    let mut created = Vec::new();
    for i in 0..20 {
        created.push(create(&world, request(&world, &format!("http://127.0.0.1:1/{i}"))).await.expect("created"));
    }
    refused(create(&world, request(&world, "http://127.0.0.1:1/")).await, Code::FailedPrecondition, "WEBHOOK_LIMIT");
    let delete = pb::DeleteWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: created[0].webhook_id.clone(),
    };
    let sql = "INSERT INTO webhook_delivery (webhook_id, position, fact_id, member_id, kind, changed_fields, event_time, state, attempt_count,
                                             next_attempt_time, attempts, create_time)
               SELECT $1::uuid, n, gen_random_uuid(), gen_random_uuid(), 'MERGED', '{}', now(), 'DELIVERED', 1, now(), '[]', now()
               FROM generate_series(1, 6000) AS n";
    sqlx::query(sql).bind(&delete.webhook_id).execute(&world.registry.database.admin).await.expect("a log");
    webhooks(&world).delete_webhook(delete.clone()).await.expect("removed");
    let again = pb::DeleteWebhookRequest { request_id: id(), ..delete };
    refused(webhooks(&world).delete_webhook(again).await, Code::NotFound, "WEBHOOK_NOT_FOUND");
    let list = pb::ListWebhooksRequest { programme_id: world.programme.clone() };
    assert_eq!(webhooks(&world).list_webhooks(list).await.expect("a list").into_inner().webhooks, created[1..]);
    // What hung on it goes by itself, in parts, and then it.
    wait::until("the rest of it to be removed", PATIENCE, async || {
        let left = world.count("SELECT (SELECT count(*) FROM webhook_delivery) + (SELECT count(*) FROM webhook)").await;
        (left == 19).then_some(())
    })
    .await;
    let stale = pb::UpdateWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: created[1].webhook_id.clone(),
        kinds: vec![Kind::Merged as i32],
        update_mask: Some(prost_types::FieldMask { paths: vec!["kinds".into()] }),
        etag: "v9".into(),
        ..Default::default()
    };
    refused(webhooks(&world).update_webhook(stale.clone()).await, Code::Aborted, "ETAG_MISMATCH");
    let update = pb::UpdateWebhookRequest { request_id: id(), etag: created[1].etag.clone(), ..stale };
    let updated = webhooks(&world).update_webhook(update).await.expect("updated").into_inner().webhook.unwrap_or_default();
    assert_eq!((updated.kinds, updated.url), (vec![Kind::Merged as i32], created[1].url.clone()));
}
