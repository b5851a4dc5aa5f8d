//! A CRM's export comes in by `koc import members`: whole, whoever is killed in the middle.

use koc_proto::koc::registry::v1 as pb;
use koc_tests::{
    service::{TestChannel, channel_to},
    suite::Suite,
    token, wait,
};
use pb::{
    member_service_client::MemberServiceClient, programme_service_client::ProgrammeServiceClient,
    sync_run_service_client::SyncRunServiceClient, sync_service_client::SyncServiceClient,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
/// Some batches, and a part of one.
const PEOPLE: usize = 3_300;
/// Who stands in the fifth batch.
const HELD: usize = 2_200;
/// Of whom the registry, and not the mapping, finds something wrong, in the first batch.
const REJECTED: usize = 7;

struct Crm {
    suite: Suite,
    folder: TempDir,
}

/// An export of these people.
fn export(people: impl Iterator<Item = usize>) -> String {
    let mut text = "Record ID,First Name,Last Name,Email,Phone Number,City,State/Region,Last Modified Date,Lifecycle Stage,\
                    Marketing contact status,Vehicle Model,VIN,Xiaohongshu Handle,Xiaohongshu Followers,Douyin Handle,Douyin Followers\n"
        .to_owned();
    for i in people {
        let city = if i == REJECTED { "x".repeat(101) } else { format!("第{}城", i % 40) };
        writeln!(text, "{i},旭{i},何,,,{city},广东省,2025-03-29 06:16:05,lead,Marketing contact,,,,,,").expect("a text grows");
    }
    text
}

impl Crm {
    async fn start() -> Self {
        Self { suite: Suite::start(None).await, folder: TempDir::new().expect("a folder") }
    }

    fn channel(&self) -> TestChannel {
        channel_to(&self.suite.url("registry"), Some(token::all("crm")), None)
    }

    async fn programme(&self) -> String {
        let programme_id = Uuid::now_v7().to_string();
        let request = pb::CreateProgrammeRequest {
            programme_id: programme_id.clone(),
            request_id: Uuid::now_v7().to_string(),
            display_name: "车主圈".into(),
            currency_code: "CNY".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        ProgrammeServiceClient::new(self.channel()).create_programme(request).await.expect("a programme");
        programme_id
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("the folder is writable");
        path
    }

    fn import(&self, programme: &str, file: &Path, more: &[&str]) -> std::process::Command {
        let mapping = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/koc/sample/hubspot.toml");
        let mut command = self.suite.client(&["import", "members", file.to_str().expect("a text")]);
        command.arg("--mapping").arg(mapping).args(["--programme", programme]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Imports to the end: what it said, and its exit code.
    async fn run(&self, programme: &str, file: &Path, more: &[&str]) -> (String, i32) {
        let mut command = self.import(programme, file, more);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("not cancelled").expect("it runs");
        told(&output)
    }

    /// All members by external id, with what is known of them.
    async fn members(&self, programme: &str) -> BTreeMap<String, (pb::MemberProfile, i32)> {
        let mut client = MemberServiceClient::new(self.channel());
        let mut request = pb::ListMembersRequest { programme_id: programme.into(), page_size: 1_000, ..Default::default() };
        let mut found = BTreeMap::new();
        loop {
            let page = client.list_members(request.clone()).await.expect("a page").into_inner();
            for member in page.members {
                let all = member.external_identities.iter().chain(&member.deleted_identities);
                let id = all.map(|identity| identity.external_id.clone()).next().expect("an id");
                found.insert(id, (member.profile.unwrap_or_default(), member.state));
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return found;
            }
        }
    }

    /// Knows a person of the fifth batch by an older row, and holds it: nothing goes beyond.
    async fn hold(&self, programme: &str, conn: &mut PgConnection) {
        let row = pb::MemberRow {
            external_id: HELD.to_string(),
            source_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        let request = pb::BatchUpsertMembersRequest {
            programme_id: programme.into(),
            source_system: "hubspot".into(),
            rows: vec![row],
            validate_only: false,
        };
        let answer = SyncServiceClient::new(self.channel()).batch_upsert_members(request).await.expect("applied").into_inner();
        let sql = "SELECT 1 FROM registry.member WHERE member_id = $1::uuid FOR UPDATE";
        sqlx::query(sql).bind(&answer.results[0].member_id).execute(conn).await.expect("the member is there");
    }

    /// Waits until the run of a programme has so many batches.
    async fn committed(&self, programme: &str, batches: i64) {
        wait::until("the batches to be committed", PATIENCE, || async {
            let mut client = SyncRunServiceClient::new(self.channel());
            let request = pb::ListSyncRunsRequest { programme_id: programme.into(), ..Default::default() };
            let runs = client.list_sync_runs(request).await.ok()?.into_inner().runs;
            runs.first().is_some_and(|run| run.committed_through >= batches).then_some(())
        })
        .await;
    }
}

fn told(output: &Output) -> (String, i32) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (format!("{out}{err}"), output.status.code().unwrap_or(-1))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_comes_in_whole_whoever_is_killed_in_the_middle() {
    let mut crm = Crm::start().await;
    let text = export(0..PEOPLE);
    let (calm, client_killed, server_killed) = (crm.programme().await, crm.programme().await, crm.programme().await);

    // Undisturbed, first as a trial.
    let file = crm.file("calm.csv", &text);
    let (said, code) = crm.run(&calm, &file, &["--dry-run"]).await;
    assert!(code == 3 && said.contains("3299 created") && said.contains("nothing was changed"), "{code}: {said}");
    assert_eq!(crm.members(&calm).await.len(), 0);
    let (said, code) = crm.run(&calm, &file, &[]).await;
    assert!(code == 3 && said.contains("3299 created") && said.contains("1 rejected"), "{code}: {said}");
    let rejects = fs::read_to_string(crm.folder.path().join("calm.csv.rejected.csv")).expect("rejected rows");
    let (said, code) = crm.run(&calm, &file, &[]).await;
    assert!(code == 3 && said.contains("3299 unchanged"), "{code}: {said}");
    let expected = crm.members(&calm).await;
    assert_eq!(expected.len(), PEOPLE - 1);

    // The client is killed.
    let database = crm.suite.database_url().parse::<PgConnectOptions>().expect("an address");
    let mut admin = PgConnection::connect_with(&database).await.expect("a connection");
    let mut held = admin.begin().await.expect("a transaction");
    crm.hold(&client_killed, &mut held).await;
    let file = crm.file("client.csv", &text);
    let mut client = crm.import(&client_killed, &file, &[]).spawn().expect("it starts");
    crm.committed(&client_killed, 4).await;
    client.kill().expect("a child of ours");
    client.wait().expect("it ended");
    held.rollback().await.expect("given back");
    let (said, code) = crm.run(&client_killed, &file, &[]).await;
    assert!(code == 3 && said.contains("went on behind batch") && said.contains("3298 created, 1 updated"), "{code}: {said}");
    assert_eq!(crm.members(&client_killed).await, expected);
    // Also what the registry had rejected before.
    assert_eq!(fs::read_to_string(crm.folder.path().join("client.csv.rejected.csv")).expect("rejected rows"), rejects);

    // The server is killed: the client goes on by itself.
    let mut held = admin.begin().await.expect("a transaction");
    crm.hold(&server_killed, &mut held).await;
    let file = crm.file("server.csv", &text);
    let client = crm.import(&server_killed, &file, &[]).spawn().expect("it starts");
    crm.committed(&server_killed, 4).await;
    crm.suite.kill("registry");
    held.rollback().await.expect("given back");
    crm.suite.launch("registry");
    let ended = tokio::task::spawn_blocking(move || client.wait_with_output()).await.expect("not cancelled").expect("it ended");
    let (said, code) = told(&ended);
    assert!(code == 3 && said.contains("3298 created, 1 updated"), "{code}: {said}");
    assert_eq!(crm.members(&server_killed).await, expected);

    // A full export without some of them.
    let file = crm.file("full.csv", &export(0..PEOPLE - 3));
    let (said, code) = crm.run(&calm, &file, &["--mode", "full"]).await;
    assert!(code == 3 && said.contains("3 were deleted"), "{code}: {said}");
    let gone: Vec<_> = crm.members(&calm).await.into_iter().filter(|(_, (_, state))| *state != 1).map(|(id, _)| id).collect();
    assert_eq!(gone, ["3297", "3298", "3299"]);

    // The registry is killed while it deletes whom the export lacks: the client waits for it, and tells of all.
    let mut held = admin.begin().await.expect("a transaction");
    let sql = "SELECT 1
               FROM registry.member AS m
               JOIN registry.external_identity AS i USING (programme_id, member_id)
               WHERE i.programme_id = $1::uuid AND i.external_id = '3294'
               FOR UPDATE OF m";
    sqlx::query(sql).bind(&calm).execute(&mut *held).await.expect("the member is there");
    let file = crm.file("fewer.csv", &export(0..PEOPLE - 6));
    let client = crm.import(&calm, &file, &["--mode", "full"]).spawn().expect("it starts");
    wait::until("the sweep to wait", PATIENCE, || async {
        let request = pb::ListSyncRunsRequest { programme_id: calm.clone(), ..Default::default() };
        let runs = SyncRunServiceClient::new(crm.channel()).list_sync_runs(request).await.ok()?.into_inner().runs;
        runs.first().is_some_and(|run| run.state() == pb::SyncRunState::Sweeping).then_some(())
    })
    .await;
    crm.suite.kill("registry");
    held.rollback().await.expect("given back");
    crm.suite.launch("registry");
    let ended = tokio::task::spawn_blocking(move || client.wait_with_output()).await.expect("not cancelled").expect("it ended");
    let (said, code) = told(&ended);
    assert!(code == 3 && said.contains("3 were deleted") && said.contains("1 rejected"), "{code}: {said}");
    let file = crm.file("half.csv", &export(0..PEOPLE / 2));
    let (said, code) = crm.run(&calm, &file, &["--mode", "full"]).await;
    assert!(code == 4 && said.contains("nobody was deleted"), "{code}: {said}");
}
