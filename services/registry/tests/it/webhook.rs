//! Webhooks, with a real receiver.

mod receiver;
mod upkeep;

use crate::world::{DAY, PATIENCE, World, id, in_city, named, refused, violations};
use koc_chassis::{config::ServeConfig, telemetry::Metrics, token::all_scopes};
use koc_proto::koc::registry::v1 as pb;
use koc_registry::config::WebhookConfig;
use koc_tests::{
    service::{self, Running, ServiceDatabase, TestChannel},
    token, wait,
};
use pb::{MemberEventKind as Kind, WebhookColumns as Columns, WebhookDeliveryState as State};
use receiver::{Posted, Receiver};
use std::{collections::HashMap, io::Write, time::Duration};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

pub type Webhooks = pb::webhook_service_client::WebhookServiceClient<TestChannel>;

const OLDEST_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn keys_of(keys: &[&str]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "{}", keys.join("\n")).expect("written");
    file
}

/// A file with a key, the same each time.
fn keys() -> NamedTempFile {
    keys_of(&[OLDEST_KEY])
}

fn configured(keys: &NamedTempFile, local: bool) -> WebhookConfig {
    WebhookConfig { webhook_keys_file: Some(keys.path().to_owned()), webhook_local: local }
}

/// A registry with keys for webhooks that may post to this machine, or not.
async fn serve(database: ServiceDatabase, local: bool) -> Running {
    serve_with(database, local, keys()).await
}

async fn serve_with(database: ServiceDatabase, local: bool, keys: NamedTempFile) -> Running {
    service::start_on(service::free_address(), database, move |common, stop| async move {
        let webhooks = configured(&keys, local);
        koc_registry::serve(koc_registry::Config { webhooks, ..common.into() }, Metrics::new(), stop).await
    })
    .await
}

async fn world_with(local: bool) -> World {
    let world = World::of(serve(service::database(&koc_registry::SCHEMA).await, local).await, id());
    let request = crate::world::programme_request(&world.programme);
    world.programmes().create_programme(request).await.expect("a programme");
    world.changes().await;
    world
}

async fn world() -> World {
    world_with(true).await
}

fn webhooks(world: &World) -> Webhooks {
    Webhooks::new(world.registry.channel())
}

fn request(world: &World, url: &str) -> pb::CreateWebhookRequest {
    pb::CreateWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        url: url.into(),
        columns: Columns::Masked as i32,
        ..Default::default()
    }
}

async fn create(world: &World, request: pb::CreateWebhookRequest) -> Result<pb::Webhook, Status> {
    Ok(webhooks(world).create_webhook(request).await?.into_inner().webhook.unwrap_or_default())
}

async fn get(world: &World, webhook: &pb::Webhook) -> pb::Webhook {
    let request = pb::GetWebhookRequest { programme_id: world.programme.clone(), webhook_id: webhook.webhook_id.clone() };
    webhooks(world).get_webhook(request).await.expect("there").into_inner().webhook.unwrap_or_default()
}

async fn secrets(world: &World, webhook: &pb::Webhook) -> Vec<String> {
    let request = pb::GetWebhookSecretsRequest { programme_id: world.programme.clone(), webhook_id: webhook.webhook_id.clone() };
    webhooks(world).get_webhook_secrets(request).await.expect("there").into_inner().secrets
}

async fn deliveries(world: &World, webhook: &pb::Webhook) -> Vec<pb::WebhookDelivery> {
    let request = pb::ListWebhookDeliveriesRequest {
        programme_id: world.programme.clone(),
        webhook_id: webhook.webhook_id.clone(),
        ..Default::default()
    };
    webhooks(world).list_webhook_deliveries(request).await.expect("a page").into_inner().deliveries
}

/// Waits until the newest delivery has this state, and gives all.
async fn wait_for_state(world: &World, webhook: &pb::Webhook, state: State) -> Vec<pb::WebhookDelivery> {
    wait::until("a delivery to be in a state", PATIENCE, async || {
        Some(deliveries(world, webhook).await).filter(|found| found.first().is_some_and(|newest| newest.state() == state))
    })
    .await
}

async fn wait_until_disabled(world: &World, webhook: &pb::Webhook, reason: &str) {
    let disabled = wait::until("a webhook to be disabled", PATIENCE, async || {
        Some(get(world, webhook).await).filter(|webhook| webhook.state() == pb::WebhookState::Disabled)
    })
    .await;
    assert_eq!(disabled.state_reason, reason);
}

async fn resume(world: &World, webhook: &pb::Webhook) {
    let request = pb::ResumeWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: webhook.webhook_id.clone(),
    };
    webhooks(world).resume_webhook(request).await.expect("resumed");
}

#[tokio::test]
async fn an_event_is_posted_signed_with_the_member_as_it_is_and_logged() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let webhook = create(&world, request(&world, &receiver.url())).await.expect("created");
    let member = world.member(pb::MemberProfile { display_name: "张小龙".into(), ..in_city("广州") }).await;

    let posted = receiver.wait_for(1).await.remove(0);

    let told = &world.changes().await[1];
    assert_eq!(posted.id(), told.fact_id);
    let body = posted.json();
    let data = &body["data"];
    assert_eq!((&body["type"], &body["timestamp"]), (&"member.created".into(), &data["eventTime"]));
    assert_eq!((data["memberId"].as_str(), data["kind"].as_str()), (Some(&*member.member_id), Some("MEMBER_EVENT_KIND_CREATED")));
    assert_eq!(data["member"]["profile"]["displayName"], "张*", "masked unless whole columns were asked for");
    assert_eq!(posted.headers["content-type"], "application/json");
    let secrets = secrets(&world, &webhook).await;
    assert!(secrets.len() == 1 && posted.is_signed_with(&secrets[0]), "{posted:?}");
    let log = wait_for_state(&world, &webhook, State::Delivered).await;
    let seen = (log.len(), log[0].event_id.as_str(), log[0].sequence, log[0].member_id.as_str(), log[0].next_attempt_time);
    assert_eq!(seen, (1, posted.id(), told.position, member.member_id.as_str(), None));
    assert_eq!(log[0].attempts.iter().map(|attempt| attempt.status_code).collect::<Vec<_>>(), [204]);
    let stored = world.count("SELECT count(*) FROM webhook WHERE encode(secret, 'escape') LIKE '%whsec%'").await;
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn what_fails_is_sent_again_on_schedule_in_the_order_of_its_member_and_holds_up_no_other() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let member = world.member(named("甲")).await.member_id;
    world.changes().await;
    let webhook = create(&world, request(&world, &receiver.url())).await.expect("created");
    receiver.refuse(Some(&member));
    world.update(world.update_request(&member, in_city("广州"), &["profile.city"])).await.expect("updated");
    receiver.wait_for(1).await;
    world.update(world.update_request(&member, in_city("深圳"), &["profile.city"])).await.expect("updated");
    let other = world.member(named("乙")).await.member_id;

    wait::until("another member's event", PATIENCE, async || {
        receiver.posted().iter().any(|posted| posted.member() == other).then_some(())
    })
    .await;
    receiver.refuse(None);
    world.registry.advance(DAY).await;
    let log = wait::until("both to be taken", PATIENCE, async || {
        let log = deliveries(&world, &webhook).await;
        Some(log).filter(|log| log.len() == 3 && log.iter().all(|delivery| delivery.state() == State::Delivered))
    })
    .await;

    let facts: Vec<String> = world.changes().await.into_iter().filter(|c| c.subject_id == member).map(|c| c.fact_id).collect();
    let posted = receiver.posted();
    let (second, firsts) = {
        let mut of_member: Vec<&str> = posted.iter().filter(|posted| posted.member() == member).map(Posted::id).collect();
        (of_member.pop(), of_member)
    };
    assert_eq!(second, Some(facts[2].as_str()), "the second waits for the first");
    assert!(firsts.len() >= 2 && firsts.iter().all(|id| *id == facts[1]), "{firsts:?}");
    let first = log.iter().find(|delivery| delivery.event_id == facts[1]).expect("logged");
    let statuses: Vec<i32> = first.attempts.iter().map(|attempt| attempt.status_code).collect();
    assert_eq!((statuses.len(), statuses.first(), statuses.last()), (firsts.len(), Some(&500), Some(&204)));
    assert!(get(&world, &webhook).await.failing_since.is_none());
}

/// Waits until the event at a place was sent so often, and gives it.
async fn wait_for_attempts(world: &World, webhook: &pb::Webhook, sequence: i64, count: usize) -> pb::WebhookDelivery {
    wait::until("an attempt to be recorded", PATIENCE, async || {
        let log = deliveries(world, webhook).await;
        log.into_iter().find(|delivery| delivery.sequence == sequence && delivery.attempts.len() >= count)
    })
    .await
}

#[tokio::test]
async fn an_event_that_is_never_taken_is_given_up_and_the_next_one_comes() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let (member, other) = (world.member(named("甲")).await.member_id, world.member(named("乙")).await.member_id);
    let before = i64::try_from(world.changes().await.len()).expect("few");
    let webhook = create(&world, request(&world, &receiver.url())).await.expect("created");
    receiver.refuse(Some(&member));
    for city in ["广州", "深圳"] {
        world.update(world.update_request(&member, in_city(city), &["profile.city"])).await.expect("updated");
    }
    let (first, second) = (before + 1, before + 2);
    wait_for_attempts(&world, &webhook, first, 1).await;
    // As if most of the schedule were over: the last two attempts are left.
    let sql = "UPDATE webhook_delivery SET attempt_count = 12 WHERE position = $1";
    sqlx::query(sql).bind(first).execute(&world.registry.database.admin).await.expect("set");
    world.registry.advance(DAY).await;
    wait_for_attempts(&world, &webhook, first, 2).await;
    // It is well meanwhile: something else is taken.
    world.update(world.update_request(&other, in_city("珠海"), &["profile.city"])).await.expect("updated");
    wait_for_state(&world, &webhook, State::Delivered).await;
    world.registry.advance(DAY).await;
    let given_up = wait_for_attempts(&world, &webhook, first, 3).await;
    assert_eq!((given_up.state(), given_up.attempts[2].status_code), (State::Failed, 500));
    wait_for_attempts(&world, &webhook, second, 1).await;

    receiver.refuse(None);
    let again = pb::RedeliverWebhookEventRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: webhook.webhook_id.clone(),
        sequence: first,
    };
    webhooks(&world).redeliver_webhook_event(again.clone()).await.expect("to be sent");
    let taken = wait_for_attempts(&world, &webhook, first, 4).await;
    assert_eq!((taken.state(), taken.attempts[3].status_code), (State::Delivered, 204));
    let nothing = pb::RedeliverWebhookEventRequest { request_id: id(), sequence: 1, ..again };
    refused(webhooks(&world).redeliver_webhook_event(nothing).await, Code::NotFound, "DELIVERY_NOT_FOUND");
}

fn replay(world: &World, webhook: &pb::Webhook, position: &str) -> pb::ReplayWebhookRequest {
    pb::ReplayWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: webhook.webhook_id.clone(),
        position: position.into(),
    }
}

#[tokio::test]
async fn who_is_gone_is_disabled_at_once_and_gets_all_that_waited_when_resumed() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let webhook = create(&world, request(&world, &receiver.url())).await.expect("created");
    receiver.answer(&[410]);
    world.member(named("甲")).await;
    wait_until_disabled(&world, &webhook, "GONE").await;
    world.member(named("乙")).await;
    world.changes().await;
    assert_eq!(receiver.posted().len(), 1);
    resume(&world, &webhook).await;
    let posted = receiver.wait_for(3).await;
    // Those of two members come side by side.
    let mut sequences: Vec<String> = posted.iter().map(|posted| posted.json()["data"]["sequence"].to_string()).collect();
    sequences.sort();
    assert_eq!(sequences, ["\"2\"", "\"2\"", "\"3\""]);
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_for_five_days_is_disabled() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let url = receiver.url();
    drop(receiver);
    let webhook = create(&world, request(&world, &url)).await.expect("created");
    world.member(named("甲")).await;
    wait::until("the first failure", PATIENCE, async || get(&world, &webhook).await.failing_since).await;
    let log = deliveries(&world, &webhook).await;
    assert_eq!((log[0].attempts[0].status_code, log[0].attempts[0].error.as_str()), (0, "NOT_CONNECTED"));
    world.registry.advance(4 * DAY).await;
    wait::until("the second failure", PATIENCE, async || {
        deliveries(&world, &webhook).await.first().filter(|delivery| delivery.attempts.len() >= 2).map(|_| ())
    })
    .await;
    assert_eq!(get(&world, &webhook).await.state(), pb::WebhookState::Active);
    world.registry.advance(DAY).await;
    wait_until_disabled(&world, &webhook, "FAILING").await;
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_new_one_until_its_time_is_over() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let webhook = create(&world, request(&world, &receiver.url())).await.expect("created");
    let old = secrets(&world, &webhook).await.remove(0);
    let rotate = pb::RotateWebhookSecretRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: webhook.webhook_id.clone(),
        overlap_hours: 1,
    };
    webhooks(&world).rotate_webhook_secret(rotate).await.expect("rotated");
    let both = secrets(&world, &webhook).await;
    assert_eq!((both.len(), &both[1]), (2, &old));
    world.member(named("甲")).await;
    let posted = receiver.wait_for(1).await.remove(0);
    assert!(posted.is_signed_with(&both[0]) && posted.is_signed_with(&both[1]));
    world.registry.advance(Duration::from_secs(3600)).await;
    world.member(named("乙")).await;
    let posted = receiver.wait_for(2).await.remove(1);
    assert!(posted.is_signed_with(&both[0]) && !posted.is_signed_with(&old));
    assert_eq!(secrets(&world, &webhook).await, both[..1]);
}

#[tokio::test]
async fn only_the_kinds_that_were_asked_for_come_and_a_replay_brings_them_again_with_their_ids() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let kinds = vec![Kind::Updated as i32];
    let webhook = create(&world, pb::CreateWebhookRequest { kinds, ..request(&world, &receiver.url()) }).await.expect("created");
    let member = world.member(named("甲")).await.member_id;
    for city in ["广州", "深圳"] {
        world.update(world.update_request(&member, in_city(city), &["profile.city"])).await.expect("updated");
    }
    let first = receiver.wait_for(2).await;
    wait_for_state(&world, &webhook, State::Delivered).await;
    webhooks(&world).replay_webhook(replay(&world, &webhook, "")).await.expect("it begins");
    let all = receiver.wait_for(4).await;
    let ids = |posted: &[Posted]| posted.iter().map(|posted| posted.id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&all[2..]), ids(&first));
    let cities: Vec<_> = all.iter().map(|posted| posted.json()["data"]["changedFields"][0].clone()).collect();
    assert_eq!(cities, ["profile.city"; 4]);
}

#[tokio::test]
async fn whole_columns_are_for_those_who_may_see_them() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let scopes: Vec<&str> = all_scopes().into_iter().filter(|scope| *scope != "registry.pii").collect();
    let token = token::token("crm", &scopes, std::slice::from_ref(&world.programme));
    let mut client = Webhooks::new(world.registry.channel_with(Some(token), None));
    let whole = pb::CreateWebhookRequest { columns: Columns::Whole as i32, ..request(&world, &receiver.url()) };
    refused(client.create_webhook(whole.clone()).await, Code::PermissionDenied, "WEBHOOK_PERSONAL");
    let allowed = create(&world, pb::CreateWebhookRequest { request_id: id(), ..whole }).await.expect("created");
    let elsewhere = pb::UpdateWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: allowed.webhook_id.clone(),
        url: "http://127.0.0.1:1/".into(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["url".into()] }),
        ..Default::default()
    };
    refused(client.update_webhook(elsewhere).await, Code::PermissionDenied, "WEBHOOK_PERSONAL");
    let bare = Receiver::start().await;
    create(&world, pb::CreateWebhookRequest { columns: Columns::None as i32, ..request(&world, &bare.url()) })
        .await
        .expect("created");
    world.member(named("张小龙")).await;
    assert_eq!(receiver.wait_for(1).await[0].json()["data"]["member"]["profile"]["displayName"], "张小龙");
    assert!(bare.wait_for(1).await[0].json()["data"].get("member").is_none());
}

#[tokio::test]
async fn a_slow_endpoint_holds_up_no_other_and_a_paused_one_gets_nothing() {
    let world = world().await;
    let (slow, quick, paused) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    slow.hold(true);
    for url in [slow.url(), quick.url()] {
        create(&world, request(&world, &url)).await.expect("created");
    }
    let resting = create(&world, request(&world, &paused.url())).await.expect("created");
    let pause = pb::PauseWebhookRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        webhook_id: resting.webhook_id.clone(),
    };
    webhooks(&world).pause_webhook(pause).await.expect("paused");
    let rows = (0..30).map(|i| crate::world::row(&i.to_string(), 1, named("众"))).collect();
    world.upsert(rows).await;
    quick.wait_for(30).await;
    assert!(slow.posted().len() <= 8, "requests under way are few: {}", slow.posted().len());
    assert_eq!(paused.posted().len(), 0);
    slow.hold(false);
    slow.wait_for(30).await;
    resume(&world, &resting).await;
    paused.wait_for(30).await;
}

#[tokio::test]
async fn addresses_inside_are_refused_when_named_and_when_a_name_leads_to_them() {
    let world = world_with(false).await;
    for url in ["http://crm.example.com/", "https://127.0.0.1/", "https://[::ffff:169.254.169.254]/", "https://10.0.0.1:443/"] {
        assert_eq!(
            violations(create(&world, request(&world, url)).await),
            [("url".to_owned(), "WEBHOOK_URL".to_owned())],
            "{url}"
        );
    }
    let webhook = create(&world, request(&world, "https://localhost:9/hooks")).await.expect("a name says nothing yet");
    world.member(named("甲")).await;
    let log = wait::until("an attempt", PATIENCE, async || {
        deliveries(&world, &webhook).await.first().and_then(|delivery| delivery.attempts.first().cloned())
    })
    .await;
    assert_eq!((log.status_code, log.error.as_str()), (0, "ADDRESS_REFUSED"));
}

#[tokio::test]
async fn two_replicas_deliver_each_event_once_and_in_order_through_a_restart_of_one() {
    let database = service::database(&koc_registry::SCHEMA).await;
    let url = database.app_url.clone();
    let world = World::of(serve(database, true).await, id());
    world.programmes().create_programme(crate::world::programme_request(&world.programme)).await.expect("a programme");
    world.changes().await;
    let receiver = Receiver::start().await;
    create(&world, request(&world, &receiver.url())).await.expect("created");
    let keys = keys();
    let stop = CancellationToken::new();
    let common = ServeConfig {
        database_url: url,
        listen: Some(service::free_address()),
        ops_listen: Some(service::free_address()),
        jwks_file: token::jwks_file().to_owned(),
        peer_token_file: None,
        database_connections: 8,
        feed_days: None,
        otlp_endpoint: None,
        log: String::new(),
    };
    let config = koc_registry::Config { webhooks: configured(&keys, true), ..common.into() };
    let mut replica = tokio::spawn(koc_registry::serve(config, Metrics::new(), stop.clone()));
    let rows =
        |second: i64| (0..40).map(move |i| crate::world::row(&i.to_string(), second, in_city(&second.to_string()))).collect();
    for second in 1..=5 {
        world.upsert(rows(second)).await;
        if second == 3 {
            stop.cancel();
            (&mut replica).await.expect("ended").expect("served");
        }
    }
    let posted = receiver.wait_for(200).await;

    let mut of_member: HashMap<String, Vec<i64>> = HashMap::new();
    for post in &posted {
        let sequence = post.json()["data"]["sequence"].as_str().and_then(|text| text.parse().ok()).expect("a number");
        of_member.entry(post.member()).or_default().push(sequence);
    }
    assert_eq!(posted.len(), 200, "each once");
    for (member, sequences) in of_member {
        assert!(sequences.len() == 5 && sequences.is_sorted(), "{member}: {sequences:?}");
    }
}

#[tokio::test]
async fn without_keys_there_are_no_webhooks() {
    let world = World::new().await;
    refused(create(&world, request(&world, "https://crm.example.com/")).await, Code::FailedPrecondition, "WEBHOOKS_OFF");
    let mut one = request(&world, "https://crm.example.com/");
    one.position = "nowhere".into();
    assert_eq!(violations(create(&world, one).await), [("position".to_owned(), "POSITION_INVALID".to_owned())]);
}
