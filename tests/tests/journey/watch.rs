//! `koc watch members` through restarts of its own and of the service.

use koc_proto::koc::registry::v1 as pb;
use koc_tests::{
    answer::id,
    service::{TestChannel, channel_to},
    suite::Suite,
    token,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

type Members = pb::member_service_client::MemberServiceClient<TestChannel>;

async fn member(members: &mut Members, programme: &str, name: &str) -> String {
    let request = pb::CreateMemberRequest {
        programme_id: programme.to_owned(),
        request_id: id(),
        profile: Some(pb::MemberProfile { display_name: name.to_owned(), ..Default::default() }),
        external_identities: Vec::new(),
    };
    members.create_member(request).await.expect("created").into_inner().member.unwrap_or_default().member_id
}

/// What each line says: kind, member and name.
fn told(lines: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("a line of JSON");
        (text(&event["kind"]), text(&event["memberId"]), text(&event["member"]["profile"]["displayName"]))
    };
    lines.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_printed_once_through_restarts_of_the_watcher_and_of_the_service() {
    let mut suite = Suite::start(None).await;
    let programme = id();
    let channel = || channel_to(&suite.url("registry"), Some(token::all("crm")), None);
    let request = pb::CreateProgrammeRequest {
        programme_id: programme.clone(),
        request_id: id(),
        display_name: "车主圈".into(),
        currency_code: "CNY".into(),
        time_zone: "Asia/Shanghai".into(),
    };
    pb::programme_service_client::ProgrammeServiceClient::new(channel()).create_programme(request).await.expect("a programme");
    let mut members = Members::new(channel());
    let first = member(&mut members, &programme, "甲").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("position");
    let file = file.to_str().expect("text");
    let arguments = ["watch", "members", "--programme", &programme, "--position-file", file, "--snapshot"];
    let once = [&arguments[..], &["--once"]].concat();
    let of = |kind: &str, member: &str, name: &str| (format!("MEMBER_EVENT_KIND_{kind}"), member.to_owned(), name.to_owned());

    assert_eq!(told(&suite.run(&once).await), [of("SNAPSHOT", &first, "甲")]);
    let second = member(&mut members, &programme, "乙").await;
    let mut command = suite.client(&arguments);
    let mut watcher = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(watcher.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    // What was published when the snapshot was taken is not told again, and what was not is.
    let mut live = told(&next());
    if live[0].1 == first {
        live = told(&next());
    }
    assert_eq!(live, [of("CREATED", &second, "乙")]);
    suite.kill("registry");
    suite.launch("registry");
    suite.ready("registry").await;
    let mut members = Members::new(channel_to(&suite.url("registry"), Some(token::all("crm")), None));
    let third = member(&mut members, &programme, "丙").await;
    assert_eq!(told(&next()), [of("CREATED", &third, "丙")]);
    watcher.kill().expect("a child of ours");
    watcher.wait().expect("it ended");
    let fourth = member(&mut members, &programme, "丁").await;
    let rest = loop {
        let rest = told(&suite.run(&once).await);
        if !rest.is_empty() && rest.iter().any(|(_, member, _)| *member == fourth) {
            break rest;
        }
    };

    // The line before the kill may come again: its position was perhaps not kept yet.
    assert_eq!(rest.last(), Some(&of("CREATED", &fourth, "丁")));
    assert!(rest.len() == 1 || (rest.len() == 2 && rest[0].1 == third), "{rest:?}");
}
