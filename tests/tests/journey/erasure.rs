//! A person goes through the loop, with a marker in everything that can be said of it, and is erased: nothing of it is left anywhere.

mod person;

use koc_proto::koc::registry::v1 as registry;
use koc_tests::{
    otlp::Collector,
    suite::{SERVICES, Suite},
    token, wait,
};
use person::{MARKER, PHONE, Stage};
use sqlx::{AssertSqlSafe, PgPool};
use std::{collections::BTreeSet, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);

/// Columns that tell of members and hold no marker here: what they hold is of a closed list, or the services' own tests put it there.
const UNMARKED: [&str; 18] = [
    "budget.reserve_draw_approval.reason",
    "budget.reserve_draw_outcome.figures",
    "budget.reserve_draw_outcome.note",
    "budget.resource_grant.eligibility_reason",
    "budget.resource_grant.nda_reference",
    "budget.resource_grant.reason",
    "budget.resource_grant.shipping_reference",
    "measurement.decision_progress.approve_reason",
    "registry.badge_revocation.reason",
    "registry.member.consents",
    "registry.member.motivations",
    "registry.member.provenance",
    "registry.member.region_code",
    "registry.member.trust_level",
    "registry.member_export_part.content",
    "registry.tier_move.reason",
    "registry.value_profile.scores",
    "registry.value_profile.value_model_version",
];

#[tokio::test(flavor = "multi_thread")]
async fn of_an_erased_person_no_trace_is_left() {
    let collector = Collector::start().await;
    let suite = Suite::start_logging(Some(collector.endpoint()), Some("debug,h2=info,hyper=info,tower=info")).await;
    let admin = PgPool::connect(suite.database_url()).await.expect("the database is there");
    let stage = Stage::set(&suite).await;
    let person = stage.play().await;
    // The fact that a person was erased must not overtake what is on its way.
    stage.settled().await;

    // Markers stand where they are said to stand, and nowhere else.
    let marked = marked(&admin).await;
    let erasable: BTreeSet<String> = erasable().into_iter().filter(|column| !UNMARKED.contains(&column.as_str())).collect();
    let missed: Vec<_> = erasable.difference(&marked).filter(|column| !is_shared_and_unused(column)).collect();
    assert_eq!(missed, Vec::<&String>::new(), "no marker got into these");
    assert_eq!(marked.difference(&erasable).collect::<Vec<_>>(), Vec::<&String>::new(), "nobody decided that these are erased");
    let entries = stage.verified().await;
    // Who asks gets all of it, from whoever holds something.
    let file = token::folder().join("export.json");
    let (programme, output) = (stage.programme(), file.display().to_string());
    suite.run(&["export", "member", &person.loser_id, "--programme", programme, "--output", &output]).await;
    let export: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    assert_eq!(export["missing"], serde_json::json!([]));
    for (service, holds) in [
        ("registry", "external_identity"),
        ("registry", "rejected_row"),
        ("registry", "sync_seen"),
        ("budget", "member_limit"),
        ("task", "submitted_deliverable"),
    ] {
        assert!(is_marked(&export[service][holds].to_string()), "{service} gives {holds}: {}", export[service]);
    }

    let erasure = stage.erase(&person.loser_id).await;
    wait::until("all services to have erased", PATIENCE, async || {
        let erasure = stage.erasure(&erasure.erasure_id).await;
        (erasure.state() == registry::ErasureState::Erased).then_some(())
    })
    .await;
    person.wait_for_the_end(&stage).await;

    let dump = dump(&admin).await;
    assert!(dump.len() > 200, "the dump has {} rows", dump.len());
    let traces: Vec<&String> = dump.iter().filter(|row| is_marked(row)).collect();
    assert_eq!(traces, Vec::<&String>::new());
    // Nor was it ever told on the way: spans come some time after what they tell of.
    wait::until("the spans of the acknowledgements", PATIENCE, async || {
        let spans = collector.spans();
        let acknowledged =
            |s: &&koc_tests::otlp::Received| s.service == "koc-registry" && s.span.name.ends_with("AcknowledgeErasure");
        (spans.iter().filter(acknowledged).count() >= 3).then_some(())
    })
    .await;
    for received in collector.spans() {
        let text = format!("{:?}", received.span);
        assert!(!is_marked(&text), "{}: {text}", received.service);
    }
    for name in SERVICES {
        let log = suite.log(name);
        assert!(log.lines().count() > 10, "{name} logs");
        let traces: Vec<&str> = log.lines().filter(|line| is_marked(line)).collect();
        assert_eq!(traces, Vec::<&str>::new(), "the log of {name}");
    }

    // The ledger stands, with what ending the person's work added to it.
    assert!(stage.verified().await > entries);
    // And nobody brings the person back.
    let outcomes = stage.sync(&person.profile).await;
    assert_eq!(outcomes, [registry::SyncOutcome::Suppressed; 2]);
    assert_eq!(stage.export(2).await, [registry::SyncOutcome::Rejected; 3]);
    assert!(!self::dump(&admin).await.iter().any(|row| is_marked(row)), "not even what was refused is kept");
}

/// Tables that all services have; not each of them holds words about a person.
fn is_shared_and_unused(column: &str) -> bool {
    column.ends_with(".audit_entry.reason") || column.ends_with(".request_record.answer")
}

fn is_marked(text: &str) -> bool {
    let hex = |marker: &str| marker.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = text.to_lowercase();
    [MARKER, &PHONE[1..]].iter().any(|marker| text.contains(marker) || text.contains(&hex(marker)))
}

/// The columns that an erasure empties, by the list that the test `personal` holds complete.
fn erasable() -> BTreeSet<String> {
    let list = include_str!("../personal/columns.txt");
    let lines = list.lines().filter(|line| !line.starts_with('#') && line.ends_with(" erased"));
    let columns = lines.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
    columns
        .flat_map(|words| match words[0] {
            "*" => SERVICES.map(|service| format!("{service}.{}", words[1])).to_vec(),
            service => vec![format!("{service}.{}", words[1])],
        })
        .collect()
}

/// The tables of the four services.
async fn tables(admin: &PgPool) -> Vec<(String, String)> {
    let sql = "SELECT table_schema::text, table_name::text FROM information_schema.tables
               WHERE table_type = 'BASE TABLE' AND table_schema = ANY ($1)";
    sqlx::query_as(sql).bind(SERVICES.map(str::to_owned).to_vec()).fetch_all(admin).await.expect("the catalogue is there")
}

/// All rows of all tables, as text.
async fn dump(admin: &PgPool) -> Vec<String> {
    let mut rows = Vec::new();
    for (schema, table) in tables(admin).await {
        let sql = format!("SELECT '{schema}.{table} ' || t::text FROM \"{schema}\".\"{table}\" AS t");
        let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(admin).await.expect("rows");
        rows.extend(found);
    }
    rows
}

/// The columns that hold a marker somewhere.
async fn marked(admin: &PgPool) -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    for (schema, table) in tables(admin).await {
        let sql = format!(
            "SELECT e.key, e.value FROM \"{schema}\".\"{table}\" AS t, jsonb_each_text(to_jsonb(t)) AS e WHERE e.value IS NOT NULL"
        );
        let found: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(admin).await.expect("rows");
        columns.extend(found.into_iter().filter(|(_, value)| is_marked(value)).map(|(key, _)| format!("{schema}.{table}.{key}")));
    }
    columns
}
