//! HTTP/JSON at the door: the same port, the same checks in the same order, the same answers.

use crate::{
    door::http,
    mini::{self, Mini, PANICS, SLEEPS, create},
};
use http::Method;
use koc_proto::koc::registry::v1 as pb;
use koc_tests::{
    http::{Http, detail, violations},
    token,
};
use serde_json::{Value, json};
use std::{io::Read, sync::atomic::Ordering};
use uuid::Uuid;

const PROGRAMMES: &str = "/v1/programmes";
const JSON: (&str, &str) = ("content-type", "application/json");

/// The request for a new programme of this name, as JSON.
fn body(name: &str) -> Value {
    let request = create(name);
    json!({
        "programmeId": request.programme_id,
        "requestId": request.request_id,
        "displayName": request.display_name,
        "currencyCode": request.currency_code,
        "timeZone": request.time_zone,
    })
}

fn with_scopes(mini: &Mini, scopes: &[&str], programmes: &[String]) -> Http {
    mini.running.http_with(Some(token::token("shop", scopes, programmes)))
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(field, rule)| ((*field).to_owned(), (*rule).to_owned())).collect()
}

#[tokio::test]
async fn a_call_by_http_is_the_same_call_as_by_grpc() {
    let mini = mini::start().await;
    let request = body("one");
    let created = mini.running.http().post(PROGRAMMES, &request).await.good();
    let expected = json!({"programme": {
        "programmeId": request["programmeId"],
        "displayName": "one",
        "currencyCode": "",
        "timeZone": "",
    }});
    assert_eq!(created, expected, "what is empty is told, what is absent is not");

    // A retry of it by gRPC gets the answer of the first.
    let text = |name: &str| request[name].as_str().expect("text").to_owned();
    let same = pb::CreateProgrammeRequest { programme_id: text("programmeId"), request_id: text("requestId"), ..create("one") };
    let again =
        mini.programmes_with(Some(token::all("tester")), None).create_programme(same).await.expect("a replay").into_inner();
    assert_eq!(again.programme.expect("told").display_name, "one");
    assert_eq!(mini::count(&mini.running.database, "SELECT count(*) FROM programme").await, 1);
    let other = body("two");
    let taken = json!({"programmeId": request["programmeId"], "requestId": other["requestId"], "displayName": "two",
        "currencyCode": "CNY", "timeZone": "Asia/Shanghai"});
    mini.running.http().post(PROGRAMMES, &taken).await.refused(409, "ALREADY_EXISTS", "PROGRAMME_EXISTS");

    // Of the call itself: who acts, who calls, what is left of the deadline.
    let path = format!("{PROGRAMMES}/{}", Uuid::now_v7());
    let headers = [("koc-actor", "ada"), ("x-server-timeout", "7")];
    let told = mini.running.http_with(Some(token::all("platform"))).send(Method::GET, &path, &headers, vec![]).await.good();
    let programme = &told["programme"];
    assert_eq!((&programme["displayName"], &programme["timeZone"]), (&json!("ada"), &json!("platform")));
    let left: u64 = programme["currencyCode"].as_str().expect("text").parse().expect("ms");
    assert!((3_000..=7_000).contains(&left), "{left} ms of 7,000");
}

#[tokio::test]
async fn an_answer_comes_over_http_1_and_to_head_without_its_body() {
    let mini = mini::start().await;
    let request = |verb: &str, path: &str| format!("{verb} {path} HTTP/1.1\r\nauthorization: Bearer {}", token::all("shop"));
    let path = format!("{PROGRAMMES}/{}", Uuid::now_v7());
    let (head, body) = http(mini.running.address, &request("GET", &path), b"").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/json\r\n"), "{head}");
    assert!(body.starts_with(b"{\"programme\":{") && !head.contains("grpc"), "{head}{body:?}");
    let (head, body) = http(mini.running.address, &request("HEAD", &path), b"").await;
    assert!(head.starts_with("HTTP/1.1 200") && body.is_empty(), "{head}{body:?}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    assert!(length.parse::<usize>().expect("a number") > 50, "{head}");
    assert_eq!(mini.hold.entered.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn paths_methods_and_content_types_are_answered_as_http_does() {
    let mini = mini::start().await;
    let http = mini.running.http();
    for path in ["/", "/v1/nope", "/v1/programmes/", "/metrics", "/koc.registry.v1.ProgrammeService/GetProgramme"] {
        http.get(path).await.refused(404, "NOT_FOUND", "PATH_NOT_FOUND");
    }
    let wrong = http.send(Method::DELETE, PROGRAMMES, &[], vec![]).await;
    wrong.refused(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED");
    assert_eq!(wrong.header("allow"), "POST, OPTIONS");
    let options = http.send(Method::OPTIONS, &format!("{PROGRAMMES}/{}", Uuid::now_v7()), &[], vec![]).await;
    assert_eq!((options.status, options.header("allow"), options.body.len()), (204, "GET, HEAD, OPTIONS", 0));

    let text = body("one").to_string().into_bytes();
    let kinds = [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/json; charset=gbk")];
    for kind in kinds {
        let headers: Vec<_> = kind.into_iter().map(|kind| ("content-type", kind)).collect();
        let answer = http.send(Method::POST, PROGRAMMES, &headers, text.clone()).await;
        answer.refused(415, "INVALID_ARGUMENT", "CONTENT_TYPE_UNSUPPORTED");
    }
    let packed = http.send(Method::POST, PROGRAMMES, &[JSON, ("content-encoding", "gzip")], text.clone()).await;
    packed.refused(415, "INVALID_ARGUMENT", "CONTENT_TYPE_UNSUPPORTED");
    let charset = [("content-type", "Application/JSON; charset=\"UTF-8\"")];
    http.send(Method::POST, PROGRAMMES, &charset, text).await.good();
}

#[tokio::test]
async fn token_scope_and_programme_are_checked_before_the_body_is_read() {
    let mini = mini::start().await;
    let malformed = b"{\"programmeId\": ".to_vec();
    let send = async |http: Http| http.send(Method::POST, PROGRAMMES, &[JSON], malformed.clone()).await;
    let missing = send(mini.running.http_with(None)).await;
    missing.refused(401, "UNAUTHENTICATED", "TOKEN_MISSING");
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    let invalid = send(mini.running.http_with(Some("nonsense".into()))).await;
    invalid.refused(401, "UNAUTHENTICATED", "TOKEN_INVALID");
    assert_eq!(invalid.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    let all = ["*".to_owned()];
    let error = send(with_scopes(&mini, &["registry.programme.read"], &all)).await;
    let error = error.refused(403, "PERMISSION_DENIED", "SCOPE_MISSING");
    assert_eq!(detail(&error, "ErrorInfo")["metadata"], json!({"scope": "registry.programme.write"}));
    send(mini.running.http()).await.refused(400, "INVALID_ARGUMENT", "MALFORMED_JSON");

    let other = [Uuid::now_v7().to_string()];
    let elsewhere = with_scopes(&mini, &["registry.programme.write"], &other).post(PROGRAMMES, &body("one")).await;
    elsewhere.refused(403, "PERMISSION_DENIED", "PROGRAMME_DENIED");

    // Nobody waits for a body that is announced and does not come.
    let head =
        format!("POST {PROGRAMMES} HTTP/1.1\r\nhost: koc\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n");
    let mut socket = tokio::net::TcpStream::connect(mini.running.address).await.expect("it listens");
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut socket, &mut answer).await.expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 401");
    assert_eq!(mini::count(&mini.running.database, "SELECT count(*) FROM programme").await, 0);
}

#[tokio::test]
async fn all_bad_fields_are_told_at_once_spelt_as_in_json() {
    let mini = mini::start().await;
    let http = mini.running.http();
    let bad = json!({"requestId": "secret-id", "displayName": "one", "currencyCode": "yuan", "timeZone": "UTC"});
    let answer = http.post(PROGRAMMES, &bad).await;
    let error = answer.refused(400, "INVALID_ARGUMENT", "FIELD_VIOLATIONS");
    let expected = [("programmeId", "string.uuid"), ("requestId", "string.uuid"), ("currencyCode", "string.pattern")];
    assert_eq!(violations(&error), pairs(&expected));
    let error = http.post(PROGRAMMES, &json!({"programme_id": 5, "snake_case": "secret-id", "timeZone": {}})).await;
    let error = error.refused(400, "INVALID_ARGUMENT", "FIELD_VIOLATIONS");
    let expected = [("programmeId", "json.type"), ("snake_case", "json.unknown"), ("timeZone", "json.type")];
    assert_eq!(violations(&error), pairs(&expected));
    assert!(!error.to_string().contains("secret-id") && !String::from_utf8_lossy(&answer.body).contains("secret-id"));

    let path = format!("{PROGRAMMES}/{}?nope=1", Uuid::now_v7());
    let error = http.get(&path).await.refused(400, "INVALID_ARGUMENT", "FIELD_VIOLATIONS");
    assert_eq!(violations(&error), pairs(&[("nope", "query.unknown")]));
    let path = format!("{PROGRAMMES}/{}", Uuid::now_v7());
    let error = http.send(Method::GET, &path, &[JSON], b"{}".to_vec()).await;
    error.refused(400, "INVALID_ARGUMENT", "BODY_NOT_EXPECTED");
    let late = http.send(Method::GET, &path, &[("x-server-timeout", "soon")], vec![]).await;
    late.refused(400, "INVALID_ARGUMENT", "TIMEOUT_INVALID");
}

#[tokio::test]
async fn a_body_longer_than_a_message_may_be_is_not_read() {
    let mini = mini::start().await;
    // Announced: refused by its length, before a byte of it is sent.
    let head = format!(
        "POST {PROGRAMMES} HTTP/1.1\r\nhost: koc\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 8388609\r\n\r\n",
        token::all("shop")
    );
    let mut socket = tokio::net::TcpStream::connect(mini.running.address).await.expect("it listens");
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut socket, &mut answer).await.expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 413");

    // The longest that is read is too long for a name, which is another thing to say.
    let mut longest = body("").to_string().replace("\"displayName\":\"\"", "\"displayName\":\"");
    let (before, after) = longest.split_once("\"displayName\":\"").expect("a name");
    let name = "x".repeat(8 * 1024 * 1024 - before.len() - after.len() - "\"displayName\":\"\"".len());
    longest = format!("{before}\"displayName\":\"{name}\"{after}");
    assert_eq!(longest.len(), 8 * 1024 * 1024);
    let error = mini.running.http().send(Method::POST, PROGRAMMES, &[JSON], longest.into_bytes()).await;
    let error = error.refused(400, "INVALID_ARGUMENT", "FIELD_VIOLATIONS");
    assert_eq!(violations(&error), pairs(&[("displayName", "string.max_len")]));
    assert!(error["message"].as_str().is_some_and(|message| message.starts_with("displayName: ")), "{error}");
}

#[tokio::test]
async fn a_call_by_http_ends_at_its_deadline_and_survives_a_panic() {
    let mini = mini::start().await;
    let http = mini.running.http();
    let slow = http.send(Method::POST, PROGRAMMES, &[JSON, ("x-server-timeout", "0.05")], body(SLEEPS).to_string().into()).await;
    slow.refused(504, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED");
    http.post(PROGRAMMES, &body(PANICS)).await.refused(500, "INTERNAL", "INTERNAL");
    http.post(PROGRAMMES, &body("one")).await.good();
}

#[tokio::test]
async fn the_document_needs_no_token_and_comes_packed_to_who_can_unpack() {
    let mini = mini::start().await;
    let http = mini.running.http_with(None);
    let plain = http.get("/openapi.json").await;
    let document = plain.good();
    assert_eq!(document["info"]["title"], "KOC Suite: chassis");
    assert!(document["paths"]["/v1/programmes/{programmeId}"]["get"].is_object(), "{document}");
    let packed = http.send(Method::GET, "/openapi.json", &[("accept-encoding", "br, gzip")], vec![]).await;
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "accept-encoding"));
    assert!(packed.body.len() * 2 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).expect("gzip");
    assert_eq!(unpacked, plain.body);
    http.send(Method::POST, "/openapi.json", &[JSON], b"{}".to_vec()).await.refused(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED");
}

#[tokio::test]
async fn facts_in_the_feed_are_written_with_their_types_and_positions_as_text() {
    let mini = mini::start().await;
    let request = body("one");
    mini.running.http().post(PROGRAMMES, &request).await.good();
    let page = koc_tests::wait::until("the change to be published", mini::PATIENCE, async || {
        let page = mini.running.http().get("/v1/registry/changes?pageSize=10&afterPosition=0").await.good();
        (page["changes"] != json!([])).then_some(page)
    })
    .await;
    let change = &page["changes"][0];
    assert_eq!((&change["position"], &page["throughPosition"]), (&json!("1"), &json!("1")));
    let fact = json!({"@type": "type.googleapis.com/koc.registry.v1.ProgrammeCreated", "programmeId": request["programmeId"]});
    assert_eq!(change["fact"], fact);
    let time = change["recordTime"].as_str().expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok() && time.ends_with('Z'), "{change}");
}
