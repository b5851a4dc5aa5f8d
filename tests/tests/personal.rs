//! Personal data stands where it is known to stand: every column of every service that could hold words has a decision on what it holds,
//! and those that tell of a member are emptied when the member is erased (`journey/erasure.rs` and the services' own tests see to that).

use koc_chassis::postgres::Schema;
use koc_tests::service;
use std::collections::BTreeMap;

const DECISIONS: [&str; 8] = ["erased", "passing", "code", "actor", "reference", "programme", "figures", "hash"];
const COLUMNS: &str = include_str!("personal/columns.txt");

/// The decision on each column of a service, the shared ones too.
fn decided(service: &str) -> BTreeMap<String, &'static str> {
    let mut columns = BTreeMap::new();
    for line in COLUMNS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [of, column, decision] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("three words: {line}") };
        assert!(DECISIONS.contains(&decision), "{decision} is no decision: {line}");
        if of == service || of == "*" {
            assert_eq!(columns.insert(column.to_owned(), decision), None, "{column} stands twice");
        }
    }
    columns
}

async fn there(schema: &Schema) -> Vec<String> {
    let database = service::database(schema).await;
    let sql = "SELECT c.table_name || '.' || c.column_name
               FROM information_schema.columns AS c
               JOIN information_schema.tables AS t USING (table_schema, table_name)
               WHERE c.table_schema = $1 AND t.table_type = 'BASE TABLE'
                 AND (c.data_type IN ('text', 'character varying', 'character', 'json', 'jsonb', 'bytea', 'xml', 'tsvector', 'name')
                      OR c.data_type = 'ARRAY' AND c.udt_name IN ('_text', '_varchar', '_json', '_jsonb', '_bytea'))
                 -- Parts of the feed, and what only migrations and tests have.
                 AND c.table_name !~ '^fact_[0-9]+$' AND c.table_name NOT IN ('_sqlx_migrations', 'test_clock')
               ORDER BY 1";
    sqlx::query_scalar(sql).bind(schema.name).fetch_all(&database.admin).await.expect("the catalogue is there")
}

#[tokio::test]
async fn every_column_that_could_hold_words_has_a_decision() {
    let mut wrong = Vec::new();
    for schema in [&koc_registry::SCHEMA, &koc_budget::SCHEMA, &koc_task::SCHEMA, &koc_measurement::SCHEMA] {
        let (mut decided, there) = (decided(schema.name), there(schema).await);
        assert!(there.len() > 30, "{}: {there:?}", schema.name);
        for column in there {
            if decided.remove(&column).is_none() {
                wrong.push(format!("{} {column}: decide whether it tells of members, and who erases it", schema.name));
            }
        }
        wrong.extend(decided.into_keys().map(|column| format!("{} {column}: there is no such column", schema.name)));
    }
    assert!(wrong.is_empty(), "tests/tests/personal/columns.txt:\n{}", wrong.join("\n"));
}
