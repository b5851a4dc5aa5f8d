//! Who is let in, over real gRPC, and what the others are told.

use crate::mini::{self, Mini, PANICS, PATIENCE, SLEEPS, create};
use futures::stream;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use koc_chassis::{fault::reason_of, telemetry::Metrics, token::TokenKey};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::{token, wait};
use pb::programme_service_client::ProgrammeServiceClient;
use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tonic::{Code, Request, Status, transport::Endpoint};
use tonic_types::StatusExt;
use uuid::Uuid;

const WRITE: &str = "registry.programme.write";
const READ: &str = "registry.programme.read";
const CREATE: &str = "/koc.registry.v1.ProgrammeService/CreateProgramme";

fn told(status: &Status) -> (Code, String) {
    (status.code(), reason_of(status))
}

async fn refused(mini: &Mini, token: Option<String>, actor: Option<&str>) -> (Code, String) {
    told(&mini.programmes_with(token, actor).create_programme(create("one")).await.expect_err("turned away"))
}

/// One request over HTTP/1.1: the answer's head and body.
pub async fn http(address: SocketAddr, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let head = format!("{head}\r\nhost: koc\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket.write_all(body).await.expect("sent");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("answered");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    let body = answer.split_off(end);
    (String::from_utf8(answer).expect("a head is text"), body)
}

/// A call by gRPC-Web, which shows the server's answer as it is: tonic's own client watches the deadline as well.
async fn grpc_web(address: SocketAddr, path: &str, headers: &str, message: &impl prost::Message) -> (String, Vec<u8>) {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.encoded_len()).expect("small").to_be_bytes());
    frame.extend(message.encode_to_vec());
    let head = format!(
        "POST {path} HTTP/1.1\r\ncontent-type: application/grpc-web+proto\r\nauthorization: Bearer {}\r\n{headers}",
        token::all("browser")
    );
    http(address, head.trim_end(), &frame).await
}

#[tokio::test]
async fn a_caller_without_a_good_token_is_turned_away_before_anything_happens() {
    let key = TokenKey::generate();
    let jwks = std::env::temp_dir().join(format!("koc-door-{}", Uuid::new_v4()));
    std::fs::write(&jwks, key.jwks()).expect("the temp folder is writable");
    let ours = jwks.clone();
    let mini = mini::start_with(
        |config| koc_chassis::config::ServeConfig { jwks_file: ours, ..config },
        Metrics::new(),
        Box::new(|_| {}),
    )
    .await;
    std::fs::remove_file(jwks).expect("it was written");

    let jwks: serde_json::Value = serde_json::from_str(&key.jwks()).expect("JSON");
    let header = Header { kid: jwks["keys"][0]["kid"].as_str().map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
    let signing = EncodingKey::from_ed_pem(key.to_pem().expect("PEM").as_bytes()).expect("a key");
    let now = jsonwebtoken::get_current_timestamp();
    let sign = |audience: &str, expiry: u64| {
        let claims = serde_json::json!({"sub": "shop", "aud": audience, "exp": expiry, "scope": WRITE, "programmes": ["*"]});
        jsonwebtoken::encode(&header, &claims, &signing).expect("signs")
    };

    let unauthenticated = |reason: &str| (Code::Unauthenticated, reason.to_owned());
    assert_eq!(refused(&mini, None, None).await, unauthenticated("TOKEN_MISSING"));
    assert_eq!(refused(&mini, Some("not a token".into()), None).await, unauthenticated("TOKEN_INVALID"));
    assert_eq!(refused(&mini, Some(token::all("shop")), None).await, unauthenticated("TOKEN_INVALID"), "signed by another");
    assert_eq!(refused(&mini, Some(sign("koc", now - 60)), None).await, unauthenticated("TOKEN_EXPIRED"));
    assert_eq!(refused(&mini, Some(sign("other", now + 60)), None).await, unauthenticated("TOKEN_INVALID"));
    assert_eq!(mini::count(&mini.running.database, "SELECT count(*) FROM programme").await, 0);
    let good = Some(sign("koc", now + 60));
    mini.programmes_with(good, None).create_programme(create("one")).await.expect("a good token is let in");
}

#[tokio::test]
async fn scope_programme_and_actor_are_checked_before_existence() {
    let mini = mini::start().await;
    let denied = |reason: &str| (Code::PermissionDenied, reason.to_owned());
    let all = ["*".to_owned()];
    assert_eq!(refused(&mini, Some(token::token("shop", &[READ], &all)), None).await, denied("SCOPE_MISSING"));
    let other = [Uuid::now_v7().to_string()];
    assert_eq!(refused(&mini, Some(token::token("shop", &[WRITE], &other)), None).await, denied("PROGRAMME_DENIED"));
    assert_eq!(refused(&mini, Some(token::token("shop", &[WRITE], &[])), None).await, denied("PROGRAMME_DENIED"));
    let plain = token::token("shop", &[WRITE], &all);
    assert_eq!(refused(&mini, Some(plain.clone()), Some("ada")).await, denied("ACT_AS_DENIED"));
    assert_eq!(refused(&mini, Some(token::all("shop")), Some("two words")).await, denied("ACTOR_INVALID"));
    mini.programmes_with(Some(plain), Some("shop")).create_programme(create("one")).await.expect("it acts for itself");

    // The programme is the token's own, the actor whom it asserts.
    let own = Uuid::now_v7().to_string();
    let trusted = token::token("shop", &[READ, "act_as"], std::slice::from_ref(&own));
    let request = pb::GetProgrammeRequest { programme_id: own };
    let seen = mini.programmes_with(Some(trusted), Some("ada")).get_programme(request).await.expect("let in");
    let seen = seen.into_inner().programme.expect("told");
    assert_eq!((seen.display_name.as_str(), seen.time_zone.as_str()), ("ada", "shop"));
}

#[tokio::test]
async fn all_bad_fields_are_told_at_once_and_none_of_their_values() {
    let mini = mini::start().await;
    let bad = pb::CreateProgrammeRequest {
        request_id: "secret-id".into(),
        display_name: "torn\0name".into(),
        currency_code: "yuan".into(),
        ..create("one")
    };
    let status = mini.programmes().create_programme(bad).await.expect_err("refused");
    assert_eq!(told(&status), (Code::InvalidArgument, "FIELD_VIOLATIONS".to_owned()));
    let violations = status.get_details_bad_request().expect("fields").field_violations;
    let rules: Vec<_> =
        violations.iter().map(|v| (v.field.as_str(), v.description.rsplit(' ').next().unwrap_or_default())).collect();
    assert_eq!(
        rules,
        [("request_id", "(string.uuid)"), ("display_name", "(string.no_nul)"), ("currency_code", "(string.pattern)")]
    );
    let text = format!("{status:?}");
    for value in ["secret-id", "torn", "yuan"] {
        assert!(!text.contains(value), "{value} in {text}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let mini = mini::start().await;
    let mut grpc = tonic::client::Grpc::new(mini.running.channel());
    grpc.ready().await.expect("a channel");
    // Field 1 as a number where the contract has a string.
    let torn = prost_types::Timestamp { seconds: 5, nanos: 0 };
    let codec = tonic_prost::ProstCodec::<prost_types::Timestamp, pb::CreateProgrammeResponse>::default();
    let path = http::uri::PathAndQuery::from_static(CREATE);
    let status = grpc.unary(Request::new(torn), path, codec).await.expect_err("refused");
    assert_eq!(told(&status), (Code::InvalidArgument, "MALFORMED_MESSAGE".to_owned()));
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_so_does_its_statement() {
    let mini = mini::start().await;
    let since = Instant::now();
    let (head, _) = grpc_web(mini.running.address, CREATE, "grpc-timeout: 50m", &create(SLEEPS)).await;
    let took = since.elapsed();
    assert!(head.contains("grpc-status: 4\r\n"), "{head}");
    // Of a sleep of 30 s; the bound is wide for machines that are busy.
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(15), "{took:?}");
    wait::until("the statement to end", Duration::from_secs(10), async || {
        let sleeping = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()";
        (mini::count(&mini.running.database, sleeping).await == 0).then_some(())
    })
    .await;
    assert_eq!(mini::count(&mini.running.database, "SELECT count(*) FROM request_record").await, 0);
    let request = pb::GetProgrammeRequest { programme_id: Uuid::now_v7().to_string() };
    let left = |answer: pb::GetProgrammeResponse| answer.programme.expect("told").currency_code.parse::<u64>().expect("ms");
    let mut client = mini.programmes();
    let without = left(client.get_programme(request.clone()).await.expect("answered").into_inner());
    assert!((10_000..=15_000).contains(&without), "{without} ms without a deadline");
    let mut long = Request::new(request);
    long.set_timeout(Duration::from_secs(3600));
    let capped = left(client.get_programme(long).await.expect("answered").into_inner());
    assert!((50_000..=60_000).contains(&capped), "{capped} ms of an hour");
}

#[tokio::test]
async fn a_handler_that_panics_answers_and_harms_nobody() {
    let mini = mini::start().await;
    let mut client = mini.programmes();
    let status = client.create_programme(create(PANICS)).await.expect_err("it panicked");
    assert_eq!(told(&status), (Code::Internal, "INTERNAL".to_owned()));
    client.create_programme(create("one")).await.expect("the same connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limit_are_asked_to_come_back() {
    const LIMIT: usize = 2_048;
    let mini = mini::start().await;
    let hold = mini.hold.permits.forget_permits(usize::MAX);
    let request = pb::GetProgrammeRequest { programme_id: Uuid::now_v7().to_string() };
    let mut calls = JoinSet::new();
    // A connection carries 1,024 calls at a time.
    let clients = [mini.programmes(), mini.programmes(), mini.programmes()];
    for i in 0..LIMIT {
        let (mut client, request) = (clients[i % 2].clone(), request.clone());
        calls.spawn(async move { client.get_programme(request).await.map(|_| ()) });
    }
    wait::until("all calls to be at work", PATIENCE, async || (mini.hold.entered.load(Ordering::SeqCst) == LIMIT).then_some(()))
        .await;
    let [_, _, mut one_more] = clients;
    let status = one_more.get_programme(request.clone()).await.expect_err("one too many");
    assert_eq!(told(&status), (Code::ResourceExhausted, "TOO_MANY_CALLS".to_owned()));
    assert!(status.get_details_retry_info().is_some());
    mini.hold.permits.add_permits(hold);
    assert!(calls.join_all().await.into_iter().all(|call| call.is_ok()));
    one_more.get_programme(request).await.expect("there is room again");
}

#[tokio::test]
async fn nothing_is_served_that_declares_no_scope() {
    let mini = mini::start().await;
    for path in ["/koc.registry.v1.ProgrammeService/Nope", "/koc.budget.v1.PlanService/CreatePlan", "/metrics", "/"] {
        let (head, _) = grpc_web(mini.running.address, path, "", &create("one")).await;
        assert!(head.contains("grpc-status: 12\r\n"), "{path}: {head}");
    }
    let (head, body) = grpc_web(mini.running.address, CREATE, "", &create("one")).await;
    assert!(
        head.starts_with("HTTP/1.1 200") && body.windows(14).any(|w| w == b"grpc-status: 0" || w == b"grpc-status:0\r"),
        "{head} {body:?}"
    );
}

#[tokio::test]
async fn reflection_in_both_versions_and_health_need_no_token() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    use tonic_reflection::pb::{v1, v1alpha};
    let mini = mini::start().await;
    let channel = |address: SocketAddr| Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let expected = "koc.registry.v1.ProgrammeService";

    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel(mini.running.address));
    let ask = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut answers = client.server_reflection_info(stream::iter([ask])).await.expect("open").into_inner();
    let answer = answers.message().await.expect("answered").and_then(|a| a.message_response).expect("a response");
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    assert!(list.service.iter().any(|s| s.name == expected), "{list:?}");

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel(mini.running.address));
    let ask = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(expected.into());
    let ask = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut answers = client.server_reflection_info(stream::iter([ask])).await.expect("open").into_inner();
    let answer = answers.message().await.expect("answered").and_then(|a| a.message_response).expect("a response");
    assert!(matches!(answer, v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)), "{answer:?}");

    for address in [mini.running.address, mini.ops] {
        for service in ["", "koc.registry.v1"] {
            let mut client = HealthClient::new(channel(address));
            let answer = client.check(HealthCheckRequest { service: service.into() }).await.expect("answered").into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service:?} at {address}");
        }
    }
}

#[tokio::test]
async fn what_was_called_can_be_scraped() {
    let metrics = Metrics::new();
    let reader = opentelemetry_prometheus::exporter().with_registry(metrics.clone()).build().expect("an exporter");
    opentelemetry::global::set_meter_provider(
        opentelemetry_sdk::metrics::SdkMeterProvider::builder().with_reader(reader).build(),
    );
    let mini = mini::start_with(|config| config, metrics, Box::new(|_| {})).await;
    mini.programmes().create_programme(create("one")).await.expect("created");
    mini.programmes_with(None, None).create_programme(create("one")).await.expect_err("no token");
    let (head, body) = http(mini.ops, "GET /metrics HTTP/1.1", b"").await;
    let text = String::from_utf8(body).expect("text");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for code in [0, 16] {
        let counted = text.lines().any(|line| {
            line.starts_with("rpc_server_call_duration_seconds_count")
                && line.contains(&format!("rpc_grpc_status_code=\"{code}\""))
                && line.contains(&format!("rpc_method=\"{CREATE}\""))
                && line.ends_with(" 1")
        });
        assert!(counted, "status {code} in {text}");
    }
    let (head, body) = http(mini.ops, "GET /readyz HTTP/1.1", b"").await;
    assert!(head.starts_with("HTTP/1.1 200") && body == b"ready");
}

#[tokio::test]
async fn a_call_to_a_peer_carries_the_actor_and_what_is_left_of_the_deadline() {
    use koc_chassis::{context, peer};
    let mini = mini::start().await;
    let token = peer::Token::from_file(token::peer_token_file().to_owned());
    let channel = peer::connect(&mini.running.url, token).expect("an address");
    let mut client = ProgrammeServiceClient::new(channel);
    let request = pb::GetProgrammeRequest { programme_id: Uuid::now_v7().to_string() };
    let within = |left| context::Current { deadline: tokio::time::Instant::now() + left, actor: "ada".into() };

    let seen = context::scope(within(Duration::from_secs(7)), client.get_programme(request.clone())).await.expect("answered");
    let seen = seen.into_inner().programme.expect("told");
    assert_eq!((seen.display_name.as_str(), seen.time_zone.as_str()), ("ada", "test-service"));
    let left: u64 = seen.currency_code.parse().expect("ms");
    assert!((3_000..=7_000).contains(&left), "{left} ms of 7,000");

    let late = context::scope(within(Duration::ZERO), client.get_programme(request)).await.expect_err("no time is left");
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(mini.hold.entered.load(Ordering::SeqCst), 1, "the late call was not sent");
}
